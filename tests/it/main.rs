//! One binary, one file a subject.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod agents;
mod configuration;
mod credentials;
mod directory;
mod feeds;
mod golden;
mod health;
mod hostile;
mod kills;
mod limits;
mod mcp;
mod metrics;
mod oauth;
mod openapi;
mod orders;
mod races;
mod rooms;
mod rules;
mod service;
mod store;
mod support;
mod tls;
mod traces;
mod webhooks;
