//! The store, the committer before it and the check of both, on a real file.

mod base;
mod batches;
mod conformance;
mod damage;
mod disk;
mod erasing;
mod following;
mod history;
mod nodes;
mod on_postgres;
pub mod plans;
mod retention;
mod suite;
