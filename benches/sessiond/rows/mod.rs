//! The rows. Each runs three times, its yardstick in between, and reports medians.

pub mod calls;
pub mod cells;
pub mod committer;
pub mod disk;
pub mod gateway;
pub mod lines;
pub mod lists;
pub mod media;
pub mod nodes;
pub mod peers;
pub mod reports;
pub mod restart;
pub mod retention;
pub mod revoke;
pub mod streams;
pub mod terminals;
pub mod webhooks;
pub mod workloads;
