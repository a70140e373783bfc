//! Bytes between a person's terminal and a shell on a machine.
//!
//! Reading order: what is said on the WebSocket (frame), text out of bytes (text), the way to the machine (ssh), the one
//! shell and those who are at it (hub), and what is kept of it: the screen as far as commands need it (screen), which
//! command lines were entered and which typing may be recorded (commands), the recording (recorder) and how it looks as
//! asciicast; all of it for each terminal there is (rooms).

pub mod asciicast;
pub mod commands;
pub mod frame;
pub mod hub;
mod recorder;
mod registry;
pub mod screen;
pub mod ssh;
pub mod text;

pub use registry::{
    APPLICATION, ClientDetails, EndReason, NotOpened, Opened, Role, Terminal, Terminals, Tested, end_reason,
};
