//! What remembers. The [`seam`] says what the house asks of a store, and nothing of how it is done; [`open`] and its
//! siblings choose an implementation by a URL's scheme. SQLite and PostgreSQL stand behind it.
//!
//! [`row`] has what goes in and comes out, [`block`] what journals are kept in, [`check`] what compares a log with itself and
//! with the rows that it makes, whatever database they lie in.

mod answers;
pub mod block;
mod blocks;
pub mod called;
pub mod check;
mod copy;
pub mod counting;
mod doomed;
mod driver;
mod erased;
mod error;
mod migrate;
mod open;
mod postgres;
mod recounting;
pub mod row;
pub mod seam;
mod session;
pub mod sqlite;
mod tables;
mod values;

pub use copy::Copied;
pub use error::StoreError;
pub use open::{
    CopyStep, Whereabouts, backup, backup_journals, copy, look, open, open_journals, open_to_look,
    open_to_serve, rebuild, recount, restore, without_standby,
};
pub use row::{
    AccessToken, Addressed, AnyStream, Application, At, Batch, ClientSecret, Commit, Confirmation, Delivery,
    DeliveryStatus, Detail, Entry, KeySecret, Loaded, LogHead, McpSession, OpenSession, Organization,
    Principal, PrincipalRow, Revocation, ServiceAccount, SessionActivity, SessionRow, SessionToken,
    SideWrite, WebhookSecret,
};
pub use seam::{
    BackedUp, Bounds, CellPage, Check, Contents, Count, CountedTo, Cut, DirectoryRows, EndedBefore,
    EndedOrder, EndedPage, EndedSince, EndedTerminal, Foldable, FoldableEvent, Forget, Forgotten, FoundBy,
    GroupCell, JournalReader, JournalWriter, LONGEST_LABEL, Label, Labelled, Log, Node, Nodes, Open,
    OpenJournals, Outbox, Past, Postings, Recount, Renewed, Retention, Sealed, SealedFor, Search, Secrets,
    SessionRows, Standing, Start, Statistics, Store, Stretch, Tail, Turn, Witnesses, Writer,
};
