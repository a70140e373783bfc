//! sessiond: the durable record of who is connected to what.
//!
//! What it stands on are crates of their own: `sessiond_core`, the rules, and `sessiond_store`, what remembers. Modules
//! here in reading order: the one writer, who may pass, the application, those who follow the log and the clock, and the
//! ways in.

pub mod auth;
pub mod cli;
pub mod clock;
pub mod committer;
pub mod config;
pub mod context;
pub mod directory;
pub mod error;
pub mod gate;
pub mod http;
pub mod issuers;
pub mod journals;
pub mod limits;
pub mod live;
pub mod logs;
pub mod mcp;
pub mod meter;
pub mod nodes;
pub mod outbound;
pub mod retention;
pub mod scheduler;
pub mod secret;
pub mod sessions;
pub mod statistics;
pub mod tasks;
pub mod telling;
pub mod terminal;
pub mod webhooks;
