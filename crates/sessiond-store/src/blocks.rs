//! Blocks of sessions: those of an application in stretches of 64 numbers, of 64 such stretches, and so on. Each says how many
//! there are and when the last of them ended, so that sessions which were open at a position are found without looking at those
//! that had ended, and counted without counting them.

use std::collections::BTreeMap;

use async_trait::async_trait;
use sessiond_core::ids::{ApplicationNumber, Position, SessionNumber};
use sessiond_core::session::Session;

use crate::StoreError;
use crate::check::{Difference, LogCheck};
use crate::row::Batch;
use crate::seam::EndedSince;

/// How many levels there are: the blocks of the highest are of 2²⁴ numbers.
pub(crate) const LEVELS: i64 = 4;
/// The bits of a number that a level leaves out.
const BITS: i64 = 6;
/// The level whose blocks are looked through at once, with the blocks and the sessions in them.
const LOOKED_THROUGH: i64 = 2;

/// A block, by application and level.
pub(crate) type Key = (i64, i64, i64);

/// What a block says, or by how much that changes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Block {
    pub sessions: i64,
    /// The greatest position of an end; 0: of none.
    pub last_ended: i64,
}

/// The block of a level that a number is in.
pub(crate) fn block_of(number: i64, level: i64) -> i64 {
    number >> (BITS * level)
}

/// The first and last number, or block of a lower level, in a block: `levels` further down.
fn within(block: i64, levels: i64) -> (i64, i64) {
    (block << (BITS * levels), ((block + 1) << (BITS * levels)) - 1)
}

/// By how much a batch changes which blocks: by sessions that have come, and by those that have ended.
pub(crate) fn changed_by(batch: &Batch) -> Vec<(Key, Block)> {
    // Where rows are made again there are no events, and every session has come.
    let from = batch.events.first().map_or(i64::MIN, |first| first.recorded.position.0);
    let changed = batch.sessions.iter().map(|session| {
        let came = i64::from(session.connected_at_position.0 >= from);
        (session, Block { sessions: came, last_ended: last_ended(session) })
    });
    let blocks = summed(changed.filter(|(_, block)| *block != Block::default()));
    blocks.into_iter().collect()
}

fn last_ended(session: &Session) -> i64 {
    if session.ended.is_some() { session.head.position.0 } else { 0 }
}

fn summed<'session>(sessions: impl Iterator<Item = (&'session Session, Block)>) -> BTreeMap<Key, Block> {
    let mut blocks: BTreeMap<Key, Block> = BTreeMap::new();
    for (session, own) in sessions {
        for level in 1..=LEVELS {
            let key = (session.application.0, level, block_of(session.number.0, level));
            let block = blocks.entry(key).or_default();
            block.sessions += own.sessions;
            block.last_ended = block.last_ended.max(own.last_ended);
        }
    }
    blocks
}

/// What is looked at on the way to sessions that have ended since a position.
#[async_trait]
pub(crate) trait Looked: Send + Sync {
    /// The blocks of a level from one to another in which some session ended after a position, in order.
    async fn blocks(&self, page: &EndedSince, level: i64, range: (i64, i64)) -> Result<Vec<i64>, StoreError>;

    /// The sessions with numbers in a range that ended after a position, in order, at most `limit`, by way of the blocks of
    /// the first level.
    async fn sessions(
        &self,
        page: &EndedSince,
        range: (i64, i64),
        limit: usize,
    ) -> Result<Vec<i64>, StoreError>;

    /// The last session up to a number, whosever it is, and the position at which it connected.
    async fn last_up_to(&self, number: i64) -> Result<Option<(i64, i64)>, StoreError>;

    /// How many sessions of an application there are in blocks of a level, from one to another; of level 0, with such numbers.
    async fn counted(
        &self,
        application: ApplicationNumber,
        level: i64,
        range: (i64, i64),
    ) -> Result<i64, StoreError>;
}

/// The last session that had connected at a position: the order of numbers is the order in which they connected.
pub(crate) async fn last_connected(
    looked: &impl Looked,
    at: Position,
) -> Result<Option<SessionNumber>, StoreError> {
    let (mut known, mut low) = (None, 0);
    let mut beyond = looked.last_up_to(i64::MAX).await?.map_or(0, |(number, _)| number) + 1;
    while low < beyond {
        let middle = low + (beyond - low) / 2;
        match looked.last_up_to(middle).await? {
            Some((number, connected)) if connected > at.0 => beyond = number,
            Some((number, _)) => {
                known = Some(SessionNumber(number));
                low = middle + 1;
            }
            None => low = middle + 1,
        }
    }
    Ok(known)
}

/// How many sessions of an application there are up to a number.
pub(crate) async fn sessions_up_to(
    looked: &impl Looked,
    application: ApplicationNumber,
    last: SessionNumber,
) -> Result<u64, StoreError> {
    let mut count = 0;
    for (level, first, last) in covering_up_to(last) {
        count += looked.counted(application, level, (first, last)).await?.unsigned_abs();
    }
    Ok(count)
}

/// The numbers of sessions that have ended since a position.
pub(crate) async fn ended_since(
    looked: &impl Looked,
    page: &EndedSince,
) -> Result<Vec<SessionNumber>, StoreError> {
    let (mut low, mut high) = (0, page.last.0);
    match page.after {
        Some(after) if page.descending => high = high.min(after.0 - 1),
        Some(after) => low = after.0 + 1,
        None => {}
    }
    let mut found = Vec::new();
    if low > high {
        return Ok(found);
    }
    // Blocks that are yet to be looked into, the next one last.
    let mut waiting: Vec<(i64, i64)> = vec![];
    let top = (block_of(low, LEVELS), block_of(high, LEVELS));
    let first = looked.blocks(page, LEVELS, top).await?;
    waiting.extend(first.into_iter().rev().map(|block| (LEVELS, block)));
    while let Some((level, block)) = waiting.pop() {
        if level == LOOKED_THROUGH {
            let (first, last) = within(block, level);
            let range = (first.max(low), last.min(high));
            let numbers = looked.sessions(page, range, page.limit - found.len()).await?;
            found.extend(numbers.into_iter().map(SessionNumber));
            if found.len() >= page.limit {
                break;
            }
        } else {
            let (first, last) = within(block, 1);
            let bounds = (block_of(low, level - 1), block_of(high, level - 1));
            let below = looked.blocks(page, level - 1, (first.max(bounds.0), last.min(bounds.1))).await?;
            waiting.extend(below.into_iter().rev().map(|block| (level - 1, block)));
        }
    }
    Ok(found)
}

/// The blocks that hold exactly the numbers up to one, and the numbers beyond them up to it: `(level, first, last)` each, where
/// level 0 is of numbers.
fn covering_up_to(last: SessionNumber) -> Vec<(i64, i64, i64)> {
    let beyond = last.0 + 1;
    let mut parts = vec![(LEVELS, 0, block_of(beyond, LEVELS) - 1)];
    for level in (0..LEVELS).rev() {
        let (first, _) = within(block_of(beyond, level + 1), 1);
        parts.push((level, first, block_of(beyond, level) - 1));
    }
    parts.retain(|(_, first, last)| first <= last);
    parts
}

/// The blocks that these sessions are in, which are to be made anew.
pub(crate) fn touched(sessions: &[(ApplicationNumber, SessionNumber)], level: i64) -> Vec<(i64, i64)> {
    let mut blocks: Vec<_> =
        sessions.iter().map(|(application, number)| (application.0, block_of(number.0, level))).collect();
    blocks.sort_unstable();
    blocks.dedup();
    blocks
}

/// The first and last number in a block of a level; of the first level of numbers, of others of blocks one level below.
pub(crate) fn members(block: i64) -> (i64, i64) {
    within(block, 1)
}

impl LogCheck {
    /// Compares blocks with the sessions that the log has. While somebody lets sessions go there is nothing to compare with.
    pub(crate) fn compare_blocks(&self, found: &BTreeMap<Key, Block>) -> Result<(), Difference> {
        if self.is_letting_go() {
            return Ok(());
        }
        let all = |session| (session, Block { sessions: 1, last_ended: last_ended(session) });
        let expected = summed(self.sessions().map(all));
        let either = expected.keys().chain(found.keys());
        let Some(key) = either.into_iter().find(|key| expected.get(key) != found.get(key)) else {
            return Ok(());
        };
        let text = |block: Option<&Block>| block.map_or("none".to_owned(), |block| format!("{block:?}"));
        Err(Difference {
            place: format!("row of session_block: application {}, level {}, block {}", key.0, key.1, key.2),
            what: "row".to_owned(),
            expected: text(expected.get(key)),
            found: text(found.get(key)),
        })
    }
}

/// A row of the table of blocks.
pub(crate) fn row(
    (application, level, block, sessions, last_ended): (i64, i64, i64, i64, i64),
) -> (Key, Block) {
    ((application, level, block), Block { sessions, last_ended })
}
