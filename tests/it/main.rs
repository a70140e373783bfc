//! One binary, one file a subject.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod agents;
mod feeds;
mod golden;
mod kills;
mod races;
mod rooms;
mod rules;
mod service;
mod store;
mod support;
