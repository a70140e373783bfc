//! Terminals.

mod casts;
mod commands;
mod frames;
mod hub;
mod passwords;
mod pty;
mod recordings;
mod scenes;
mod shown;
mod ssh;
pub mod sshd;
