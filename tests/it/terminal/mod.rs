//! Terminals.

mod asciicasts;
mod commands;
mod frames;
mod hub;
mod passwords;
mod pty;
mod recordings;
mod shell_scenarios;
mod ssh;
pub mod sshd;
mod untrusted_text;
