//! Running an installation: backups, restores, lost secrets, and another secret key.

mod backup;
mod migrate_store;
mod on_postgres;
mod recovery;
mod restore;
mod secret_key;
mod synchronous;
mod upgrade;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::Daemon;
use crate::support::daemon::{database, sessiond};

pub fn url(directory: &Path) -> String {
    format!("sqlite:{}", database(directory).display())
}

/// A command that must succeed, and what it prints.
pub fn done(arguments: &[&str]) -> String {
    let output = sessiond(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// A command that must fail, and what it says.
pub fn refused(arguments: &[&str]) -> String {
    let output = sessiond(arguments);
    assert!(!output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8(output.stderr).unwrap()
}

/// A command that is killed after a while, if it has not ended by then.
pub fn killed(arguments: &[&str], after: Duration) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sessiond"));
    let command = command.args(arguments).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child: Child = command.spawn().unwrap();
    std::thread::sleep(after);
    child.kill().ok();
    child.wait().unwrap();
}

/// The names in a directory.
pub fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort_unstable();
    names
}

/// The note of a backup.
fn note(directory: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(directory.join("backup.json")).unwrap()).unwrap()
}

/// The file of a backup that holds something.
fn file(directory: &Path, holds: &str) -> PathBuf {
    let note = note(directory);
    let file = note["files"].as_array().unwrap().iter().find(|file| file["holds"] == holds).unwrap();
    directory.join(file["name"].as_str().unwrap())
}

/// An installation that was used and stopped, and a backup of it with its key.
struct Backed {
    from: TempDir,
    backup: TempDir,
    /// A session that is in it.
    session: String,
    /// Tokens of a client and of that session, from before the backup.
    token: String,
    session_token: String,
}

impl Backed {
    async fn new(flags: &[&str]) -> Self {
        let from = TempDir::new().unwrap();
        let daemon = Daemon::start(from.path(), &[]);
        let operator = daemon.operator().await;
        let agent = operator.connect(json!({ "name": "here", "hostname": "laptop" })).await;
        let backup = TempDir::new().unwrap();
        take(from.path(), backup.path(), flags);
        assert!(daemon.terminate().success());
        Self {
            from,
            backup,
            session: agent.id.clone(),
            token: operator.token.unwrap(),
            session_token: agent.holder.token.unwrap(),
        }
    }

    fn path(&self) -> &str {
        self.backup.path().to_str().unwrap()
    }
}

/// Takes a backup of an installation into a directory.
fn take(from: &Path, to: &Path, flags: &[&str]) -> String {
    let url = url(from);
    done(&[&["backup", to.to_str().unwrap(), "--database", &url], flags].concat())
}
