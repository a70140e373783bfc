//! The binary as a process of its own, for tests of what only a process can show: being killed, signalled, started twice.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex};

use super::{CLIENT_ID, CLIENT_SECRET, Holder};

pub struct Daemon {
    pub child: Child,
    pub base: String,
    log: Arc<Mutex<String>>,
}

/// Runs a subcommand of the binary to its end.
pub fn sessiond(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_sessiond")).args(arguments).output().unwrap()
}

/// The command that serves, with a port of its own and the test's credentials.
pub fn command(directory: &Path, flags: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sessiond"));
    command
        .arg("serve")
        .args(["--listen", "127.0.0.1:0", "--rate-limit", "0"])
        .args(super::store::flags(directory))
        .args(flags)
        .env("SESSIOND_BOOTSTRAP_CLIENT_ID", CLIENT_ID)
        .env("SESSIOND_BOOTSTRAP_CLIENT_SECRET", CLIENT_SECRET);
    command
}

pub fn database(directory: &Path) -> PathBuf {
    directory.join("sessiond.db")
}

impl Daemon {
    /// Starts the service and waits until it listens.
    pub fn start(directory: &Path, flags: &[&str]) -> Self {
        Self::spawn(command(directory, flags))
    }

    /// Starts a command that runs the service, and waits until it listens.
    pub fn spawn(command: Command) -> Self {
        Self::spawn_with(command, Stdio::piped())
    }

    /// Starts such a command with its standard output elsewhere, and waits until it listens.
    pub fn spawn_with(mut command: Command, out: Stdio) -> Self {
        let mut child = command.stdin(Stdio::null()).stdout(out).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let log = Arc::new(Mutex::new(String::new()));
        let base = loop {
            let Some(Ok(line)) = lines.next() else {
                panic!("sessiond did not start: {}", log.lock().unwrap())
            };
            *log.lock().unwrap() += &format!("{line}\n");
            let line: serde_json::Value = serde_json::from_str(&line).unwrap_or_default();
            if let Some(url) = line["url"].as_str() {
                break url.to_owned();
            }
        };
        // The log is read on, so that the process never waits for the test to read.
        let rest = log.clone();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                *rest.lock().unwrap() += &format!("{line}\n");
            }
        });
        Self { child, base, log }
    }

    /// What the process has logged so far.
    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// A caller with every right of an operator.
    pub async fn operator(&self) -> Holder {
        let http = reqwest::Client::builder().timeout(std::time::Duration::from_secs(60)).build().unwrap();
        let form = [("grant_type", "client_credentials"), ("scope", "management:all mcp:invoke")];
        let url = format!("{}/oauth2/token", self.base);
        let answer =
            http.post(url).basic_auth(CLIENT_ID, Some(CLIENT_SECRET)).form(&form).send().await.unwrap();
        let body: serde_json::Value = answer.json().await.unwrap();
        Holder {
            base: self.base.clone(),
            token: Some(body["access_token"].as_str().unwrap().to_owned()),
            http,
        }
    }

    /// Kills the process as `kill -9` does.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Ends the process by SIGTERM, and returns its exit status.
    pub fn terminate(mut self) -> ExitStatus {
        let kill = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().unwrap();
        assert!(kill.success());
        self.child.wait().unwrap()
    }
}

impl Drop for Daemon {
    /// No process outlives its test. Killing one that has ended already does nothing.
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
