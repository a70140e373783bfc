//! Carries bytes between a person's terminal and a shell on a machine.
//!
//! Reading order: the frames on the WebSocket (frame), text out of bytes (text), the connection to the machine (ssh),
//! the one shell and its connections (hub). Then what is kept of it: the screen as far as commands need it (screen),
//! which command lines were entered and which typing may be recorded (commands), the recording (recorder) and its
//! download (asciicast). Last, all terminals there are (registry).

pub mod asciicast;
pub mod commands;
pub mod frame;
pub mod hub;
pub mod plain;
mod recorder;
mod registry;
pub mod screen;
pub mod ssh;
pub mod text;

pub use registry::{
    APPLICATION, ClientDetails, EndReason, NotOpened, Opened, Role, Terminal, Terminals, Tested, end_reason,
};
