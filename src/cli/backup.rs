//! `sessiond backup`: a copy of an installation, taken beside a running server or a stopped one.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use sessiond_store::BackedUp;

use super::note::{BackupFile, Holds, LogEnd, NOTE, Note};
use super::place::Files;
use super::{Installation, key_file, print, progress};
use crate::clock::Clock;

/// Where a backup is made before it is whole, in its directory.
const UNFINISHED: &str = ".unfinished";
/// How the names of a backup's files begin.
const PREFIX: &str = "sessiond-";

/// Takes a backup into a directory: an empty one, a new one, or one that holds an earlier backup, which the new one replaces
/// once it is whole.
pub async fn run(directory: &Path, installation: &Installation, with_key: bool) -> anyhow::Result<()> {
    let place = installation.place()?;
    let files = place.files()?;
    files.must_exist()?;
    let looked = place.contents().await?;
    ensure!(looked.events, "nothing is recorded in {place}: there is nothing to back up");
    let _lock = prepare(directory)?;
    let unfinished = directory.join(UNFINISHED);
    fs::create_dir(&unfinished).with_context(|| format!("cannot make {}", unfinished.display()))?;
    let made = make(files, directory, with_key).await;
    fs::remove_dir_all(&unfinished).ok();
    let note = made.with_context(|| format!("no backup was made in {}", directory.display()))?;
    remove_others(directory, &note);
    let bytes: u64 = note.files.iter().map(|file| file.bytes).sum();
    let key = if with_key { "with its key" } else { "without its key: keep that elsewhere" };
    print::document(&format!(
        "backed up in {}: the log to position {}, commit hash {}; {} KiB, {key}\n",
        directory.display(),
        note.log.position,
        note.log.commit_hash,
        bytes.div_ceil(1024),
    ))
}

/// Makes sure that a directory is for backups, and ours alone while this one is taken.
fn prepare(directory: &Path) -> anyhow::Result<File> {
    let shown = directory.display();
    fs::create_dir_all(directory).with_context(|| format!("cannot make {shown}"))?;
    let lock = File::open(directory).with_context(|| format!("cannot open {shown}"))?;
    lock.try_lock().map_err(|_| anyhow::anyhow!("another backup is being taken in {shown}: wait for it"))?;
    for entry in fs::read_dir(directory).with_context(|| format!("cannot read {shown}"))? {
        let name = entry?.file_name();
        let name = name.to_string_lossy();
        ensure!(
            is_ours(&name),
            "{shown} holds {name}, which is of no backup: name an empty directory, a new one, or one with a backup in it"
        );
    }
    // A note that cannot be read may be of a newer release, or of something else.
    Note::read(directory)?;
    match fs::remove_dir_all(directory.join(UNFINISHED)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove what an interrupted backup left in {shown}"))
        }
        _ => Ok(lock),
    }
}

/// Whether a backup makes files of this name.
fn is_ours(name: &str) -> bool {
    let of_files = |rest: &str| {
        let (stamp, suffix) = rest.split_once('.').unwrap_or_default();
        let digits = stamp.bytes().filter(u8::is_ascii_digit).count();
        digits == stamp.len() && digits == 17 && ["db", "lines", "key"].contains(&suffix)
    };
    name == NOTE
        || name == UNFINISHED
        || name.strip_suffix(".new") == Some(NOTE)
        || name.strip_prefix(PREFIX).is_some_and(of_files)
}

/// Makes the files in a directory of their own, moves them to where they stay, and writes the note.
async fn make(installation: &Files, directory: &Path, with_key: bool) -> anyhow::Result<Note> {
    let taken_at = Clock::system().now();
    let stamp = taken_at.format("%Y%m%d%H%M%S%3f");
    let mut files: Vec<(PathBuf, String, Holds)> = vec![];
    let mut file = |suffix: &str, holds| {
        let name = format!("{PREFIX}{stamp}.{suffix}");
        let path = directory.join(UNFINISHED).join(&name);
        files.push((path.clone(), name, holds));
        path
    };
    let to = file("db", Holds::Database);
    let taken = sessiond_store::backup(installation.url(), &to, &mut progress("events")).await?;
    if installation.journals_file().exists() {
        let to = file("lines", Holds::Journals);
        sessiond_store::backup_journals(
            &installation.journals_url(),
            &to,
            taken.last_session,
            &mut progress("blocks of journals"),
        )
        .await
        .context("log lines and recordings")?;
    }
    if with_key {
        write_key(installation, &taken, &file("key", Holds::Key))?;
    }
    let mut described = vec![];
    for (path, name, holds) in files {
        described.push(BackupFile::of(&path, name.clone(), holds)?);
        fs::rename(&path, directory.join(&name)).with_context(|| format!("cannot move {name}"))?;
    }
    let log = LogEnd { position: taken.position.0, commit_hash: hex::encode(taken.commit_hash) };
    let note = Note::new(taken_at, log, taken.key_check, described);
    note.write(directory)?;
    Ok(note)
}

/// Copies the key that opens what was copied, which may be about to be replaced.
fn write_key(installation: &Files, taken: &BackedUp, to: &Path) -> anyhow::Result<()> {
    let path = installation.key_file();
    let check = taken.key_check.context("the database does not know its key yet: start the service once")?;
    let key = key_file::fitting(&path, &check)?;
    let key = key.with_context(|| format!("{} is not the secret key of this database", path.display()))?;
    Ok(key.write(to)?)
}

/// Removes what earlier backups have left in a directory. That it cannot harms nothing.
fn remove_others(directory: &Path, note: &Note) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    for name in entries.flatten().map(|entry| entry.file_name()) {
        let Some(name) = name.to_str() else { continue };
        if name != NOTE && is_ours(name) && !note.files.iter().any(|file| file.name == name) {
            fs::remove_file(directory.join(name)).ok();
        }
    }
}
