//! The binary as a process of its own, for what only a process can show: being killed, signalled, started twice.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::{CLIENT_ID, CLIENT_SECRET};

pub struct Daemon {
    pub child: Child,
    pub base: String,
}

/// The command, with a port of its own and the test's credentials.
pub fn command(directory: &Path, flags: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sessiond"));
    command
        .arg("serve")
        .args(["--listen", "127.0.0.1:0", "--database"])
        .arg(format!("sqlite:{}", database(directory).display()))
        .args(flags)
        .env("SESSIOND_BOOTSTRAP_CLIENT_ID", CLIENT_ID)
        .env("SESSIOND_BOOTSTRAP_CLIENT_SECRET", CLIENT_SECRET);
    command
}

pub fn database(directory: &Path) -> PathBuf {
    directory.join("sessiond.db")
}

impl Daemon {
    /// Starts it and waits until it listens.
    pub fn start(directory: &Path, flags: &[&str]) -> Self {
        Self::spawn(command(directory, flags))
    }

    /// Starts a command that runs it, and waits until it listens.
    pub fn spawn(mut command: Command) -> Self {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut said = vec![];
        let base = loop {
            let Some(Ok(line)) = lines.next() else { panic!("sessiond did not start: {said:#?}") };
            let log: serde_json::Value = serde_json::from_str(&line).unwrap_or_default();
            if let Some(url) = log["url"].as_str() {
                break url.to_owned();
            }
            said.push(line);
        };
        // Its log is read on, so that it never waits for us.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, base }
    }

    /// kill -9
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM, and its exit status.
    pub fn terminate(mut self) -> std::process::ExitStatus {
        let kill = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().unwrap();
        assert!(kill.success());
        self.child.wait().unwrap()
    }
}
