//! What can go wrong in a store.

/// What went wrong, and with it what whoever asked has to do.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// No space is left: nothing was written; reading goes on, and so does writing once there is space.
    #[error("the disk is full")]
    Full,
    /// A failed flush: nobody knows what is on disk, and trying again would hide it; the process must end.
    #[error("the database cannot be trusted any more: {0}")]
    Broken(String),
    /// Another process writes to the same store: what this one holds in memory is not what is there; the process must end.
    #[error("another process writes to the same database: {0}")]
    Raced(String),
    /// A medium that cannot be read or written, or does not hold what it held: nothing in it can be trusted any more; the
    /// process must end, or, where it is about journals, they are closed.
    #[error("the database file is damaged, or its disk: {0}")]
    Corrupt(String),
    /// Something that this release cannot read, at a position of the log (0: not in the log). All else can be read.
    #[error("damaged at position {position}: {what}")]
    Damaged { position: i64, what: String },
    /// Nobody knows whether it was written: the answer was lost, and so is whoever could be asked. It must not be tried again,
    /// which might be a second time. If it was written, the next [`Turn`](crate::Turn) says so, as of any commit that was
    /// missed.
    #[error("the database was lost, and nobody knows whether it has written this: {0}")]
    Unknown(String),
    /// The database cannot be used for now; nothing was written, and it may be tried again shortly.
    #[error("the database cannot be used for now: {0}")]
    Away(String),
    /// Any other failure; nothing was written, and it may be tried again.
    #[error("the database failed: {0}")]
    Failed(String),
}

impl StoreError {
    /// Whether nothing that is written from here on could be relied upon, so that the process must end.
    pub fn ends_all(&self) -> bool {
        matches!(self, Self::Broken(_) | Self::Corrupt(_) | Self::Raced(_))
    }
}
