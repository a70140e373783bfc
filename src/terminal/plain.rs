//! Makes text for reading out of what a program printed: what a terminal obeys is no part of it.

use vte::{Parser, Perform};

/// Turns pieces of output into pieces of text, however they were cut. Sequences that a terminal obeys (colours, movements,
/// titles) are left out whole; single control characters stay, for whoever shows the text to write them out.
#[derive(Default)]
pub struct Plain {
    parser: Parser,
    printed: Printed,
}

impl Plain {
    /// The text of this piece, as far as its characters and sequences are whole.
    pub fn push(&mut self, bytes: &[u8]) -> String {
        self.parser.advance(&mut self.printed, bytes);
        std::mem::take(&mut self.printed.0)
    }
}

/// What is printed, and the controls between.
#[derive(Default)]
struct Printed(String);

impl Perform for Printed {
    fn print(&mut self, c: char) {
        self.0.push(c);
    }

    fn execute(&mut self, byte: u8) {
        self.0.push(char::from(byte));
    }
}
