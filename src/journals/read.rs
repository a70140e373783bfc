//! Reads a journal: finds the block where a query begins, and goes on block by block.

use std::sync::Arc;

use sessiond_core::ids::SessionNumber;
use sessiond_core::journal::{Entry, Journal, Marks};
use sessiond_store::block::Block;
use sessiond_store::{JournalReader, StoreError, Stretch};

/// How many bytes of entries a page may have; one more entry may exceed them.
const PAGE_BYTES: usize = 4 << 20;
/// Small blocks are read several in one statement: up to so many of them, as long as they have less than so many bytes.
const MANY_BLOCKS: usize = 64;
const MANY_BYTES: usize = 16 << 10;

/// Which entries of a journal are asked for.
#[derive(Debug, Clone)]
pub struct Query {
    /// Where to begin; without it, at the beginning of the journal, or at its end if the newest come first.
    pub start: Option<Start>,
    /// Only entries of this time or later; microseconds since 1970, UTC.
    pub since: Option<i64>,
    /// Only entries before this time.
    pub until: Option<i64>,
    /// Only log lines with one of these levels, or chunks of a recording with one of these codes.
    pub only: Marks,
    /// The most entries of a page; a page may always have one.
    pub limit: usize,
    /// Whether the newest entries come first.
    pub descending: bool,
}

impl Default for Query {
    fn default() -> Self {
        Self { start: None, since: None, until: None, only: Marks::ALL, limit: 100, descending: false }
    }
}

/// Where to begin reading, in the direction of reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// Begin with this position.
    At(i64),
    /// Begin with the position after this one or, where the newest come first, before it.
    Beyond(i64),
}

/// An entry with its position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filed {
    pub position: i64,
    pub entry: Entry,
}

/// Some entries of a journal.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    pub entries: Vec<Filed>,
    /// Where the next page begins, as a [`Start::At`]; at the end of the journal, where to look for more later.
    pub next: i64,
    pub more: bool,
    /// First and last positions of damaged blocks, whose entries would belong here.
    pub damaged: Vec<(i64, i64)>,
}

/// The state of one reading of a journal.
pub(super) struct Cursor {
    reader: Arc<dyn JournalReader>,
    /// The part that is still to be read.
    stretch: Stretch,
    /// The first and the last position of the whole reading.
    from: i64,
    to: i64,
    since: i64,
    until: i64,
    /// Where the journal ended when the reading began; kept for readings that leave entries out.
    end: Option<i64>,
    ended: bool,
}

impl Cursor {
    pub(super) async fn begin(
        reader: &Arc<dyn JournalReader>,
        journal: Journal,
        session: SessionNumber,
        query: &Query,
    ) -> Result<Self, StoreError> {
        let (mut from, mut to, mut ended) = (1, i64::MAX, false);
        let (start, descending) = (query.start, query.descending);
        match start {
            Some(Start::At(position)) if descending => to = position,
            Some(Start::Beyond(position)) if descending => to = position.saturating_sub(1),
            Some(Start::At(position)) => from = position.max(1),
            Some(Start::Beyond(position)) => from = position.saturating_add(1).max(1),
            None => {}
        }
        let passes_over = query.only != Marks::ALL || query.since.is_some();
        let end = if passes_over { Some(reader.bounds(journal, session).await?.last) } else { None };
        if let Some(since) = query.since {
            match reader.block_at(journal, session, since).await? {
                Some((first, _)) => from = from.max(first),
                None => ended = true,
            }
        }
        // Times never fall: everything behind the first block that reaches this time is too late.
        if let Some(until) = query.until
            && let Some((_, last)) = reader.block_at(journal, session, until).await?
        {
            to = to.min(last);
        }
        let marks = query.only;
        let stretch = Stretch { journal, session, from, to, marks, descending, blocks: 1 };
        let (since, until) = (query.since.unwrap_or(i64::MIN), query.until.unwrap_or(i64::MAX));
        Ok(Self { reader: reader.clone(), stretch, from, to, since, until, end, ended })
    }

    /// Reads the next blocks: one large block, or several small ones.
    async fn step(&mut self) -> Result<Vec<Block>, StoreError> {
        if self.ended || self.stretch.from > self.stretch.to {
            return Ok(Vec::new());
        }
        let blocks = self.reader.blocks(&self.stretch).await?;
        self.ended = blocks.len() < self.stretch.blocks;
        match blocks.last() {
            Some(last) if self.stretch.descending => self.stretch.to = last.first - 1,
            Some(last) => self.stretch.from = last.last() + 1,
            None => {}
        }
        let bytes: usize = blocks.iter().map(|block| block.payload.len()).sum();
        let now = self.stretch.blocks;
        self.stretch.blocks = if bytes < MANY_BYTES { (2 * now).min(MANY_BLOCKS) } else { (now / 2).max(1) };
        Ok(blocks)
    }

    /// The entries of a block that match, in the direction of reading.
    fn matching(&self, block: &Block) -> Result<Vec<Filed>, StoreError> {
        let positions = block.first..;
        let entries = positions.zip(block.unpack()?).filter(|(position, entry)| {
            (self.from..=self.to).contains(position)
                && entry.at >= self.since
                && (entry.at < self.until || self.until == i64::MAX)
                && self.stretch.marks.has(entry.mark())
        });
        let mut matching: Vec<_> = entries.map(|(position, entry)| Filed { position, entry }).collect();
        if self.stretch.descending {
            matching.reverse();
        }
        Ok(matching)
    }

    /// The entries of a block that match; a block that cannot be read is noted as damaged.
    fn read(&self, block: &Block, damaged: &mut Vec<(i64, i64)>) -> Result<Vec<Filed>, StoreError> {
        match self.matching(block) {
            Err(error @ StoreError::Damaged { .. }) => {
                tracing::error!(%error, "a block of lines cannot be read; the others can");
                damaged.push((block.first.max(self.from), block.last().min(self.to)));
                Ok(Vec::new())
            }
            outcome => outcome,
        }
    }

    /// Reads one page of at most so many entries.
    pub(super) async fn page(mut self, limit: usize) -> Result<Page, StoreError> {
        let (limit, mut queue_space) = (limit.max(1), PAGE_BYTES);
        let mut page = Page::default();
        loop {
            let blocks = self.step().await?;
            if blocks.is_empty() {
                page.next = self.next();
                return Ok(page);
            }
            for block in &blocks {
                for filed in self.read(block, &mut page.damaged)? {
                    if page.entries.len() == limit || queue_space == 0 {
                        (page.next, page.more) = (filed.position, true);
                        return Ok(page);
                    }
                    queue_space = queue_space.saturating_sub(filed.entry.bytes().len());
                    page.entries.push(filed);
                }
            }
        }
    }

    /// Reads the next blocks as a page; `None` at the end.
    pub(super) async fn next_page(&mut self) -> Result<Option<Page>, StoreError> {
        let blocks = self.step().await?;
        if blocks.is_empty() {
            return Ok(None);
        }
        let mut page = Page { next: self.next(), more: true, ..Page::default() };
        for block in &blocks {
            let mut filed = self.read(block, &mut page.damaged)?;
            page.entries.append(&mut filed);
        }
        Ok(Some(page))
    }

    /// The position where the next page begins.
    fn next(&self) -> i64 {
        if self.stretch.descending {
            return if self.ended { self.from - 1 } else { self.stretch.to };
        }
        // Entries that were left out need not be looked at again.
        let end = self.end.filter(|_| self.ended).unwrap_or(0).min(self.to);
        self.stretch.from.max(end.saturating_add(1))
    }
}
