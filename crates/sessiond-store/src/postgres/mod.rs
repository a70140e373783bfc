//! PostgreSQL behind the seam: a connection that writes, some that read, and what only a store needs that several processes
//! may write to: the append lock, the head of the log as a row, each commit's changes.

mod alone;
mod beside;
mod error;
mod head;
mod health;
mod insert;
mod letting_go;
mod link;
mod people;
mod rows;
mod sealed;
mod streams;
mod webhooks;
mod writer;

pub(crate) use error::meaning;
