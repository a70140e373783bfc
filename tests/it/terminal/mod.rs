//! Terminals.

mod casts;
mod commands;
mod frames;
mod pty;
mod recordings;
mod scenes;
pub mod sshd;
