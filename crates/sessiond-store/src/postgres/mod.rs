//! PostgreSQL behind the seam: a connection that writes, some that read, and what only a store needs that several processes
//! may write to: the append lock, the head of the log as a row, each commit's changes.

mod error;

pub(crate) use error::meaning;
