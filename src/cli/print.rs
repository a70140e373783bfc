//! Writes what commands print. It is no failure of a command, and never a panic, if nobody reads any more. Nothing else in
//! `src/` writes to standard output or standard error (a lint sees to that).

use std::io::{self, ErrorKind, Write};

use anyhow::Context;

/// Writes a text to standard output, whole or not at all as far as a pipe goes, and says whether that worked.
pub fn out(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// Writes a text that nobody has to read to its end: a reader that closes the pipe has seen enough.
pub fn document(text: &str) -> anyhow::Result<()> {
    match out(text) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        outcome => outcome.context("cannot write to standard output"),
    }
}

/// Writes to standard error, if anybody reads it.
pub fn aside(text: &str) {
    io::stderr().write_all(text.as_bytes()).ok();
}
