//! The rules. Everything here is pure: no clock, no randomness, no I/O, no async.
//! A decision is a function of what is passed in, so every rule can be shown as given / when / then.
pub mod actor;
pub mod admission_hook;
pub mod api_key;
pub mod application;
pub mod bar;
pub mod caller;
pub mod chain;
pub mod change;
pub mod command;
pub mod cron;
pub mod delivery;
pub mod ending;
pub mod event;
pub mod filter;
pub mod idempotency;
pub mod ids;
pub mod journal;
pub mod kind;
pub mod machine;
pub mod maxima;
pub mod media_stream;
pub mod natural_key;
pub mod object;
pub mod organization;
pub mod personal;
pub mod phase;
pub mod policy;
pub mod presented;
pub mod principal;
pub mod reason;
pub mod relation;
pub mod retention;
pub mod revocation;
pub mod schedule;
pub mod scope;
pub mod service_account;
pub mod session;
pub mod shown;
pub mod status;
pub mod stream;
pub mod streams;
pub mod throughput;
pub mod token;
pub mod webhook;

/// Points in time as the log keeps them: whole milliseconds, UTC.
pub type Time = chrono::DateTime<chrono::Utc>;
