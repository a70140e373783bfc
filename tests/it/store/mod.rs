//! The store, the committer before it and the check of both, on a real file.

mod base;
mod batches;
mod bystanders;
mod conformance;
mod copying;
mod damage;
mod disk;
mod erasing;
mod failover;
mod following;
mod history;
mod lost_commits;
mod nodes;
mod on_postgres;
pub mod plans;
mod pooler;
mod retention;
mod suite;
