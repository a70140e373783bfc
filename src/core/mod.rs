//! The rules. Everything here is pure: no clock, no randomness, no I/O, no async.
//! A decision is a function of what is passed in, so every rule can be shown as given / when / then.

pub mod application;
pub mod caller;
pub mod command;
pub mod event;
pub mod ids;
pub mod kind;
pub mod reason;
pub mod revocation;
pub mod session;
pub mod status;
pub mod token;

/// Points in time as the log keeps them: whole milliseconds, UTC.
pub type Time = chrono::DateTime<chrono::Utc>;
