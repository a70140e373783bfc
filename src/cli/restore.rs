//! `sessiond restore`: puts a backup where there is nothing. All of it happens in a directory beside that place, and is moved
//! there once everything was checked: the database last, because with it the place is an installation.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use sessiond_core::organization::OrganizationRestored;
use sessiond_core::shown;
use sessiond_store::check::Report;

use super::house::{House, Purpose};
use super::note::{Holds, Note};
use super::place::{Files, Place, RESTORING, beside};
use super::{Installation, key_file, print, progress};
use crate::clock::Clock;
use crate::config::Config;
use crate::directory::LeftOpen;
use crate::http::health;
use crate::secret::SecretKey;

/// The name of the database while it is restored.
const DATABASE: &str = "database";
/// The name of the key meanwhile, where it is to be put in its place too.
const KEY: &str = "key";
/// Marks that everything is ready to be moved; holds what is to be said when it is.
const READY: &str = "ready";
/// How many names of what is left open are shown.
const NAMED: usize = 20;

#[derive(Debug, clap::Args)]
pub struct Options {
    /// The secret key of the backup, where it is neither in the backup nor where the service looks for it
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// Leave what was issued before the backup as it was: also what was revoked after it
    #[arg(long)]
    keep_credentials: bool,
    /// Revoke all API keys too, whatever became of them after the backup
    #[arg(long)]
    include_keys: bool,
}

/// Restores a backup.
pub async fn run(directory: &Path, installation: &Installation, options: &Options) -> anyhow::Result<()> {
    let config = installation.config()?;
    let place = installation.place()?;
    let files = place.files()?;
    let _lock = files.lock()?;
    let work = beside(&files.file(), RESTORING);
    if let Ok(said) = fs::read_to_string(work.join(READY)) {
        move_into_place(&work, files)?;
        return print::document(&format!("a restore that was interrupted is done now\n{said}"));
    }
    must_be_empty(files)?;
    let note = Note::read(directory)?;
    let note = note.with_context(|| {
        format!("{} holds no backup that is whole: there is no backup.json in it", directory.display())
    })?;
    // Nothing of it is of use, and all of it is ours.
    if work.exists() {
        fs::remove_dir_all(&work).with_context(|| format!("cannot remove {}", work.display()))?;
    }
    note.verify(directory, progress("bytes checked"))?;
    let key = key(directory, &note, files, options.key.as_deref())?;
    fs::create_dir(&work).with_context(|| format!("cannot make {}", work.display()))?;
    let restored = in_work(directory, &note, &config, key, options, &work).await;
    match restored {
        Ok(said) => {
            move_into_place(&work, files)?;
            print::document(&said)
        }
        Err(error) => {
            fs::remove_dir_all(&work).ok();
            Err(error.context("nothing was restored"))
        }
    }
}

/// That there is nothing that a restore would put itself over.
fn must_be_empty(files: &Files) -> anyhow::Result<()> {
    let (database, lines) = (files.file(), files.journals_file());
    let there = [database.clone(), beside(&database, "-wal"), lines.clone(), beside(&lines, "-wal")];
    match there.iter().find(|path| path.exists()) {
        None => Ok(()),
        Some(path) => bail!(
            "there is {} already, and a restore replaces nothing: move it away, or name another place \
             with --database sqlite:FILE",
            path.display()
        ),
    }
}

/// Where the key of a restore is.
enum Key {
    /// Where the service looks for it.
    InPlace(PathBuf),
    /// To be put there.
    Given(SecretKey),
}

fn key(directory: &Path, note: &Note, files: &Files, named: Option<&Path>) -> anyhow::Result<Key> {
    let place = files.key_file();
    let check = note.key_check.as_deref();
    let known = check.and_then(|check| check.get(..8)).unwrap_or("unknown");
    let fits = |key: &SecretKey| check.is_none_or(|check| hex::encode(key.check()) == check);
    let of_backup = note.file(Holds::Key).map(|file| directory.join(&file.name));
    let candidates = [Some(place.clone()), named.map(Path::to_owned), of_backup];
    for path in candidates.iter().flatten() {
        let Some(key) = SecretKey::load(path)? else {
            ensure!(named != Some(path.as_path()), "there is no key file {}", path.display());
            continue;
        };
        ensure!(
            fits(&key),
            "{} is not the secret key of this backup: it is key {}, and the backup goes by key {known}",
            path.display(),
            key_file::short(&key.check())
        );
        return Ok(if *path == place { Key::InPlace(place) } else { Key::Given(key) });
    }
    bail!(
        "the backup is without its secret key (key {known}): put that at {}, or name it with --key FILE. Without it \
         nothing opens that is sealed, and nobody is recognised",
        place.display()
    )
}

/// Makes the installation in a directory of its own: log and rows, what is barred, and a check of all of it.
async fn in_work(
    directory: &Path,
    note: &Note,
    config: &Config,
    key: Key,
    options: &Options,
    work: &Path,
) -> anyhow::Result<String> {
    let database = format!("sqlite:{}", utf8(&work.join(DATABASE))?);
    let key_file = match key {
        Key::InPlace(path) => path,
        Key::Given(key) => {
            key.write(&work.join(KEY))?;
            work.join(KEY)
        }
    };
    let files = Files::at(&database, Some(&key_file))?;
    for (holds, url) in [(Holds::Database, database.clone()), (Holds::Journals, files.journals_url())] {
        match note.file(holds) {
            Some(file) => sessiond_store::restore(&directory.join(&file.name), &url).await?,
            None => ensure!(holds != Holds::Database, "the backup's note names no database"),
        }
    }
    let made = sessiond_store::rebuild(&database, &mut progress("events")).await?;
    ensure!(
        made.position.0 == note.log.position && hex::encode(made.commit_hash) == note.log.commit_hash,
        "the log of the backup ends at position {}, commit hash {}, and its note says otherwise",
        made.position.0,
        hex::encode(made.commit_hash)
    );
    let (keys, open) = bar(config, files, note, options).await?;
    let store = sessiond_store::open_to_look(&database).await?;
    let report = store.verify(&mut progress("events verified")).await;
    store.close().await;
    let said = said(note, &report?, options, keys, &open);
    fs::write(work.join(READY), &said)?;
    fs::File::open(work.join(READY))?.sync_all()?;
    key_file::sync_directory(&work.join(READY))?;
    Ok(said)
}

/// Writes down in the log that it was restored, and so bars what was issued before. Returns how many keys were revoked, and
/// what still opens something.
async fn bar(
    config: &Config,
    files: Files,
    note: &Note,
    options: &Options,
) -> anyhow::Result<(u64, LeftOpen)> {
    let house = House::open(
        config,
        &Place::Files(files),
        Clock::system(),
        Purpose::Command,
        &health::Progress::default(),
    )
    .await?;
    let restored =
        OrganizationRestored { taken_at: note.taken_at, credentials_kept: options.keep_credentials };
    let recovery = &house.directory.recovery;
    let recorded = recovery.record_restore(restored, options.include_keys).await;
    let open = recovery.left_open();
    house.close().await;
    Ok((recorded?, open))
}

fn said(note: &Note, report: &Report, options: &Options, keys: u64, open: &LeftOpen) -> String {
    let mut text = format!(
        "restored: the log to position {}, as of {}; verified with {} events, {} sessions\n",
        note.log.position,
        note.taken_at.format("%Y-%m-%dT%H:%M:%SZ"),
        report.events,
        report.sessions
    );
    text += if options.keep_credentials {
        "kept: tokens open what they did when the backup was taken, also those that were revoked after it\n"
    } else {
        "barred: all tokens issued before, of sessions and of clients, and other issuers' tokens from before now\n"
    };
    if keys > 0 {
        text += &format!("revoked: {keys} API keys\n");
    }
    let left = [
        ("API keys", &open.api_keys),
        ("service accounts", &open.service_accounts),
        ("applications with a secret", &open.applications),
    ];
    for (what, names) in left.iter().filter(|(_, names)| !names.is_empty()) {
        let mut shown: Vec<_> = names.iter().take(NAMED).map(|name| shown::line(name).to_string()).collect();
        if names.len() > NAMED {
            shown.push(format!("and {} more", names.len() - NAMED));
        }
        text += &format!("open: {} {what}: {}\n", names.len(), shown.join(", "));
    }
    text + "What was revoked, rotated, disabled or erased after the backup is as it was before: look, and do it again\n"
}

/// Moves what is ready to where the service looks for it. It may have been done in part before.
fn move_into_place(work: &Path, files: &Files) -> anyhow::Result<()> {
    let (database, lines) = (files.file(), files.journals_file());
    let made = work.join(DATABASE);
    let key = work.join(KEY);
    if key.exists() {
        put_key(&key, &files.key_file())?;
    }
    for (from, to) in [(beside(&made, ".lines"), lines), (made, database.clone())] {
        if from.exists() {
            fs::rename(&from, &to).with_context(|| format!("cannot put {} in its place", to.display()))?;
        }
    }
    key_file::sync_directory(&database)?;
    fs::remove_dir_all(work).with_context(|| format!("cannot remove {}", work.display()))
}

/// Puts a key where the service looks for it, which may be another file system.
fn put_key(from: &Path, to: &Path) -> anyhow::Result<()> {
    let key = SecretKey::load(from)?.with_context(|| format!("{} is gone", from.display()))?;
    match SecretKey::load(to) {
        Ok(Some(there)) if there.check() == key.check() => return Ok(()),
        // Interrupted while it was written: the restore began because there was none.
        Err(_) => fs::remove_file(to).with_context(|| format!("cannot replace {}", to.display()))?,
        Ok(None) => {}
        Ok(Some(_)) => bail!("{} is another secret key now: move it away", to.display()),
    }
    key.write(to)?;
    key_file::sync_directory(to)
}

fn utf8(path: &Path) -> anyhow::Result<&str> {
    path.to_str().with_context(|| format!("{} is not UTF-8", path.display()))
}
