//! Terminals.

mod casts;
mod commands;
mod frames;
mod hub;
mod passwords;
mod pty;
mod recordings;
mod scenes;
mod ssh;
pub mod sshd;
