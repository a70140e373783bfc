//! The note that makes a directory a backup: what is in it, and how to tell that it is whole. It is written last.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::{Context, bail, ensure};
use serde::{Deserialize, Serialize};
use sessiond_core::Time;
use sha2::{Digest, Sha256};

use super::key_file;

/// The name of the note.
pub const NOTE: &str = "backup.json";
/// The form of the note and of the files that it names: raised when an older release could not read them.
const FORMAT: u32 = 1;

/// What a backup is.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Note {
    pub format: u32,
    pub taken_at: Time,
    /// Of the release that took it.
    pub sessiond: String,
    pub log: LogEnd,
    /// What the secret key is known by that belongs to it, in hex.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_check: Option<String>,
    pub files: Vec<BackupFile>,
}

/// Where the log ends.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LogEnd {
    pub position: i64,
    /// Of the commit that ends there, in hex.
    pub commit_hash: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct BackupFile {
    pub name: String,
    pub holds: Holds,
    pub bytes: u64,
    pub sha256: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Holds {
    Database,
    Journals,
    Key,
}

impl Note {
    pub fn new(taken_at: Time, log: LogEnd, key_check: Option<[u8; 32]>, files: Vec<BackupFile>) -> Self {
        let sessiond = env!("CARGO_PKG_VERSION").to_owned();
        Self { format: FORMAT, taken_at, sessiond, log, key_check: key_check.map(hex::encode), files }
    }

    /// Reads the note of a backup; none if there is none.
    pub fn read(directory: &Path) -> anyhow::Result<Option<Self>> {
        let path = directory.join(NOTE);
        let text = match fs::read_to_string(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            outcome => outcome.with_context(|| format!("cannot read {}", path.display()))?,
        };
        let form: serde_json::Value = serde_json::from_str(&text)
            .with_context(|| format!("{} is no note of a backup, or it is damaged", path.display()))?;
        if form["format"].as_u64() > Some(FORMAT.into()) {
            bail!("{} was written by a newer sessiond: restore it with that one", path.display());
        }
        let note: Self = serde_json::from_value(form)
            .with_context(|| format!("{} is no note of a backup, or it is damaged", path.display()))?;
        let plain = |file: &BackupFile| Path::new(&file.name).file_name() == Some(file.name.as_ref());
        ensure!(note.files.iter().all(plain), "{} names files that are elsewhere", path.display());
        Ok(Some(note))
    }

    /// Writes the note into a backup: from then on the backup is whole.
    pub fn write(&self, directory: &Path) -> anyhow::Result<()> {
        let (path, new) = (directory.join(NOTE), directory.join(format!("{NOTE}.new")));
        let text = serde_json::to_string_pretty(self)?;
        let write = || {
            let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
            writeln!(file, "{text}")?;
            file.sync_all()?;
            fs::rename(&new, &path)
        };
        write().with_context(|| format!("cannot write {}", path.display()))?;
        key_file::sync_directory(&path)
    }

    /// The file that holds something, if there is one.
    pub fn file(&self, holds: Holds) -> Option<&BackupFile> {
        self.files.iter().find(|file| file.holds == holds)
    }

    /// Checks that every file is what it was when the note was written. `progress` is told bytes.
    pub fn verify(&self, directory: &Path, mut progress: impl FnMut(u64, u64)) -> anyhow::Result<()> {
        let (total, mut done) = (self.files.iter().map(|file| file.bytes).sum(), 0);
        for file in &self.files {
            let path = directory.join(&file.name);
            let (bytes, sha256) = digest(&path, |read| progress(done + read, total))?;
            ensure!(
                bytes == file.bytes && sha256 == file.sha256,
                "{} is not what it was when the backup was taken: it was changed, or it is damaged. Nothing was restored",
                path.display()
            );
            done += bytes;
        }
        Ok(())
    }
}

impl BackupFile {
    /// A file as it is now.
    pub fn of(path: &Path, name: String, holds: Holds) -> anyhow::Result<Self> {
        let (bytes, sha256) = digest(path, |_| ())?;
        Ok(Self { name, holds, bytes, sha256 })
    }
}

/// The size of a file, and its SHA-256 in hex.
fn digest(path: &Path, mut progress: impl FnMut(u64)) -> anyhow::Result<(u64, String)> {
    let shown = || format!("cannot read {}", path.display());
    let mut file = File::open(path).with_context(shown)?;
    let (mut hash, mut bytes, mut buffer) = (Sha256::new(), 0, vec![0; 1 << 20]);
    loop {
        let read = file.read(&mut buffer).with_context(shown)?;
        if read == 0 {
            return Ok((bytes, hex::encode(hash.finalize())));
        }
        hash.update(&buffer[..read]);
        bytes += read as u64;
        progress(bytes);
    }
}
