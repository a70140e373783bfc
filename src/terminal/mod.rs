//! Bytes between a person's terminal and a shell on a machine.
//!
//! Reading order: what is said on the WebSocket (frame), text out of bytes (text), the way to the machine (ssh), the one
//! shell and those who are at it (hub), and what is kept of it: the screen as far as commands need it (screen), which
//! command lines were entered and which typing may be recorded (commands), and the recording as asciicast.

pub mod asciicast;
pub mod commands;
pub mod frame;
mod recorder;
mod rooms;
pub mod screen;
mod shell;
mod ssh;
mod tail;
pub mod text;

pub use rooms::{APPLICATION, From, NotOpened, Opened, Terminals, Tested};
pub use shell::{Changes, NotAttached, Over, Role, Seat, Shell, Step};
pub use ssh::{HostKey, SshError};
