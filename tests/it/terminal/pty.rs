//! A program on a pseudo-terminal, and what was typed and printed at it.

use std::fs::File;
use std::io::{Read, Write};
use std::process::{Child, Command};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags, open};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use sessiond::terminal::frame::Size;
use sessiond::terminal::text::Text;

/// What happened, with microseconds since the beginning.
#[derive(Debug, Clone, PartialEq)]
pub enum Happened {
    Typed(u64, Vec<u8>),
    Printed(u64, Vec<u8>),
    Resized(u64, Size),
}

pub struct Pty {
    child: Child,
    terminal: File,
    output: Receiver<Vec<u8>>,
    begun: Instant,
    pub story: Vec<Happened>,
    /// What was printed since the last key.
    printed: String,
    screen: avt::Terminal,
    text: Text,
}

impl Pty {
    /// Starts a program with this terminal as its own, in a directory.
    pub fn start(program: &[&str], home: &std::path::Path, size: Size) -> Self {
        let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&terminal).unwrap();
        unlockpt(&terminal).unwrap();
        let name = ptsname(&terminal, Vec::new()).unwrap();
        let end: File = open(name, OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).unwrap().into();
        tcsetwinsize(&end, winsize(size)).unwrap();
        // Whoever runs the tests in the background ignores ctrl-C; what runs in a terminal is not to.
        let child = Command::new("env")
            .args(["--default-signal", "setsid", "--ctty", "--wait"])
            .args(program)
            .env_clear()
            .envs([
                ("TERM", "xterm-256color"),
                ("LC_ALL", "C.UTF-8"),
                ("PATH", "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"),
            ])
            .env("HOME", home)
            .current_dir(home)
            .stdin(end.try_clone().unwrap())
            .stdout(end.try_clone().unwrap())
            .stderr(end)
            .spawn()
            .unwrap();
        let terminal = File::from(terminal);
        let mut reader = terminal.try_clone().unwrap();
        let (sender, output) = channel();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = reader.read(&mut buffer) {
                if sender.send(buffer[..count].to_vec()).is_err() {
                    return;
                }
            }
        });
        let screen = avt::Terminal::new(size.cols.into(), size.rows.into()).unwrap();
        let (begun, story, printed, text) = (Instant::now(), Vec::new(), String::new(), Text::default());
        Self { child, terminal, output, begun, story, printed, screen, text }
    }

    fn now(&self) -> u64 {
        self.begun.elapsed().as_micros() as u64
    }

    pub fn types(&mut self, text: &str) {
        self.printed.clear();
        self.story.push(Happened::Typed(self.now(), text.as_bytes().to_vec()));
        self.terminal.write_all(text.as_bytes()).unwrap();
    }

    pub fn resizes(&mut self, size: Size) {
        self.story.push(Happened::Resized(self.now(), size));
        tcsetwinsize(&self.terminal, winsize(size)).unwrap();
        self.screen.resize(size.cols.into(), size.rows.into());
    }

    /// Waits until what was printed since the last key, without escape sequences, ends with this.
    pub fn until(&mut self, end: &str) {
        self.until_it(&format!("ends with {end:?}"), |pty| without_escapes(&pty.printed).ends_with(end));
    }

    /// Waits until this has been printed since the last key.
    pub fn until_there_is(&mut self, part: &str) {
        self.until_it(&format!("contains {part:?}"), |pty| without_escapes(&pty.printed).contains(part));
    }

    /// Waits until this is printed on a line of its own, and then a prompt.
    pub fn until_result(&mut self, result: &str) {
        let shown = |pty: &Self| {
            let printed = without_escapes(&pty.printed);
            let (_, after) = printed.rsplit_once(&format!("{result}\n"))?;
            Some(!printed.ends_with(&format!("echo {result}\n")) && after.ends_with("# "))
        };
        self.until_it(&format!("has {result:?} as a result"), |pty| shown(pty) == Some(true));
    }

    /// Waits until the line the cursor is on contains this.
    pub fn until_line(&mut self, part: &str) {
        self.until_it(&format!("shows {part:?} on a line"), |pty| pty.line().contains(part));
    }

    fn line(&self) -> String {
        let (_, row) = self.screen.cursor().position().unwrap_or_default();
        self.screen.screen().line(row).map(avt::Line::text).unwrap_or_default()
    }

    fn until_it(&mut self, what: &str, look: impl Fn(&Self) -> bool) {
        let give_up = Instant::now() + Duration::from_secs(20);
        while !look(self) {
            match self.output.recv_timeout(give_up.saturating_duration_since(Instant::now())) {
                Ok(bytes) => self.takes(bytes),
                Err(_) => panic!(
                    "waited in vain for output that {what}: {:?}\n{}",
                    self.printed,
                    self.screen.screen().text().join("\n")
                ),
            }
        }
        // What comes right behind belongs to it.
        while let Ok(bytes) = self.output.recv_timeout(Duration::from_millis(20)) {
            self.takes(bytes);
        }
    }

    fn takes(&mut self, bytes: Vec<u8>) {
        let text = self.text.push(&bytes);
        self.screen.feed(&*text);
        self.printed += &text;
        self.story.push(Happened::Printed(self.now(), bytes));
    }
}

impl Drop for Pty {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn winsize(size: Size) -> Winsize {
    Winsize { ws_col: size.cols, ws_row: size.rows, ws_xpixel: 0, ws_ypixel: 0 }
}

/// Text as a reader sees it: without control sequences.
pub fn without_escapes(text: &str) -> String {
    let mut plain = String::new();
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            '\x1b' => match rest.next() {
                Some('[') => while rest.next().is_some_and(|c| !('@'..='~').contains(&c)) {},
                Some(']') => while rest.next().is_some_and(|c| c != '\x07' && c != '\\') {},
                _ => {}
            },
            '\r' => {}
            c => plain.push(c),
        }
    }
    plain
}
