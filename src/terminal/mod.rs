//! Carries bytes between a person's terminal and a shell on a machine.
//!
//! Reading order: the frames on the WebSocket (frame), text out of bytes (text), the connection to the machine (ssh),
//! the one shell and its connections (hub). Then what is kept of it: the screen as far as commands need it (screen),
//! which command lines were entered and which typing may be recorded (commands), the recording (recorder) and its
//! download (asciicast). Last, one open terminal (open_terminal), the task that watches over it (supervisor), all terminals
//! there are (registry), and the machines that they are opened on (machines).

pub mod asciicast;
pub mod commands;
pub mod frame;
pub mod hub;
mod machines;
mod open_terminal;
mod orphans;
pub mod plain;
mod recorder;
mod registry;
pub mod screen;
pub mod ssh;
mod supervisor;
pub mod text;

pub use machines::MachineTest;
pub use open_terminal::{EndReason, Role, Terminal};
pub use registry::{APPLICATION, ClientDetails, NotOpened, Opened, Terminals};
pub use supervisor::end_reason;
