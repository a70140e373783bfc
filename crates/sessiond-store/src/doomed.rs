//! Blocks of journals, read from rows of any database, and which of them are to be forgotten.

use std::collections::BTreeMap;

use sessiond_core::Time;
use sessiond_core::journal::Marks;

use crate::StoreError;
use crate::block::Block;
use crate::seam::{Forgotten, Stretch, Tail};
use crate::values::{Stored, time};

/// What a block takes on the medium beside its payload, about.
pub(crate) const BESIDE_PAYLOAD: u64 = 128;
/// Blocks forgotten in one transaction: little enough that nobody waits long for it.
pub(crate) const AT_ONCE: i64 = 256;

/// A block that is to be forgotten.
pub(crate) struct Doomed {
    pub(crate) number: i64,
    journal: i64,
    session: i64,
    tail: Tail,
    entries: u64,
    recorded_at: Time,
    /// On the medium, about.
    pub(crate) bytes: u64,
}

pub(crate) fn doomed(row: &impl Stored) -> Result<Doomed, StoreError> {
    let unsigned = |column| Ok::<_, sqlx::Error>(row.integer(column)?.try_into().unwrap_or(0));
    Ok(Doomed {
        number: row.integer("number")?,
        journal: row.integer("journal")?,
        session: row.integer("session")?,
        tail: Tail { last: row.integer("last")?, at: row.integer("high_time")? },
        entries: unsigned("count")?,
        recorded_at: time(row.integer("recorded_at")?),
        bytes: unsigned("bytes")?.saturating_add(BESIDE_PAYLOAD),
    })
}

/// Leaves of the oldest blocks those that were recorded before an instant.
pub(crate) fn keep_older(blocks: &mut Vec<Doomed>, before: Time) {
    let kept = blocks.iter().position(|block| block.recorded_at >= before);
    blocks.truncate(kept.unwrap_or(blocks.len()));
}

/// Leaves of the oldest blocks as many as have so many bytes.
pub(crate) fn keep_bytes(blocks: &mut Vec<Doomed>, mut excess: u64) {
    let kept = blocks.iter().position(|block| {
        let enough = excess == 0;
        excess = excess.saturating_sub(block.bytes);
        enough
    });
    blocks.truncate(kept.unwrap_or(blocks.len()));
}

/// What forgetting blocks comes to, and how far each of their journals went by them, by journal and session.
pub(crate) fn come_to(blocks: &[Doomed]) -> (Forgotten, BTreeMap<(i64, i64), Tail>) {
    let mut forgotten = Forgotten::default();
    let mut tails = BTreeMap::new();
    for block in blocks {
        forgotten.blocks += 1;
        forgotten.entries += block.entries;
        tails.insert((block.journal, block.session), block.tail);
    }
    (forgotten, tails)
}

/// A block of a stretch. One that cannot be as it was written is an error.
pub(crate) fn block(stretch: &Stretch, row: &impl Stored) -> Result<Block, StoreError> {
    let first = row.integer("first_position")?;
    let block = Block {
        journal: stretch.journal,
        session: stretch.session,
        first,
        count: row.integer("count")?,
        low: row.integer("low_time")?,
        high: row.integer("high_time")?,
        recorded_at: time(row.integer("recorded_at")?),
        marks: Marks::from_bits(row.integer("marks")?),
        payload: row.bytes("payload")?.to_owned(),
    };
    if first < 1 || block.count < 1 || first.checked_add(block.count).is_none() {
        let what = format!("{} entries cannot begin at {first}", block.count);
        return Err(StoreError::Damaged { position: first, what });
    }
    Ok(block)
}
