//! What remembers. This module is the seam: [`Writer`] puts one batch into the store in one durable transaction,
//! [`Reader`] answers questions in pages, [`check`] compares the log with itself and with the rows. SQLite stands
//! behind it now; Postgres will come behind the same three, selected by the URL's scheme.
//!
//! Promises to the rest of the house:
//! - [`Writer::commit`] returns after the batch is on disk (`synchronous=FULL`), whole or not at all.
//! - Events, and the rows made from them, are in the same transaction. The one exception is the activity columns of
//!   open sessions: they follow in bulk ([`Batch::settle`]), and whoever loads sessions folds the log's tail over them.
//! - Absence is `Ok(None)`, never an error.
//!
//! A second file holds what is not events: [`LinesWriter`] and [`LinesReader`] keep lines and recordings in blocks.

pub mod block;
pub mod check;
pub mod row;
mod sqlite;

pub use row::{
    AccessToken, Addressed, AnyStream, Application, Batch, Confirmation, Delivery, DeliveryStatus, Detail,
    Entry, KeySecret, Loaded, McpSession, OpenSession, Organization, Principal, PrincipalRow, ResourcePast,
    Revocation, ServiceAccount, SessionRow, SessionToken, SideWrite, WebhookSecret,
};
pub use sqlite::{Bounds, Forget, Forgotten, LinesReader, LinesWriter, Stretch, Tail};
pub use sqlite::{EndedPage, EndedTerminal, Found, Health, Reader, Witnesses, Writer, look};

/// What went wrong in the store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// No space is left: nothing was written; reading goes on.
    #[error("the disk is full")]
    Full,
    /// A failed flush: nobody knows what is on disk, and trying again would hide it; the process must end.
    #[error("the database cannot be trusted any more: {0}")]
    Broken(String),
    /// Another process writes to the same database: what this one holds in memory is not what is there.
    #[error("another process writes to the same database: {0}")]
    Raced(String),
    /// A damaged page, or one that cannot be read or written: nothing in this file can be trusted any more.
    #[error("the database file is damaged, or its disk: {0}")]
    Corrupt(String),
    /// Something that this release cannot read.
    #[error("damaged at position {position}: {what}")]
    Damaged { position: i64, what: String },
    /// Any other failure; nothing was written.
    #[error("the database failed: {0}")]
    Failed(String),
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        // SQLite's extended result codes; the low byte is the class. https://sqlite.org/rescode.html
        let code = error
            .as_database_error()
            .and_then(|error| error.code())
            .and_then(|code| code.parse::<i32>().ok());
        match code.map(|code| code & 0xff) {
            Some(13) => Self::Full,
            // SQLITE_IOERR_SHMSIZE: no room for the WAL's index. Nothing is damaged.
            Some(10) if code == Some(4874) => Self::Full,
            // SQLITE_IOERR_FSYNC and SQLITE_IOERR_DIR_FSYNC.
            Some(10) if matches!(code, Some(1034 | 1290)) => Self::Broken(error.to_string()),
            Some(10 | 11 | 26) => Self::Corrupt(error.to_string()),
            _ => Self::Failed(error.to_string()),
        }
    }
}
