//! The secret key's file while another key takes its place. The new key stands beside it, in a file with `.new` at its end,
//! from before the transaction that goes over to it until after; so whichever key the database knows is in one of the two, and
//! whoever starts next settles which.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::Context;

use super::place::beside;
use crate::secret::SecretKey;

/// Where the new key stands meanwhile.
pub fn new_file(path: &Path) -> PathBuf {
    beside(path, ".new")
}

/// A key by a few digits of what it is known by: enough for a person to tell keys apart.
pub fn short(check: &[u8; 32]) -> String {
    hex::encode(&check[..4])
}

/// The key that is known by this value, from the key file or the one that is to take its place.
pub fn fitting(path: &Path, check: &[u8; 32]) -> anyhow::Result<Option<SecretKey>> {
    for path in [path.to_owned(), new_file(path)] {
        if let Some(key) = SecretKey::load(&path)?.filter(|key| key.check() == *check) {
            return Ok(Some(key));
        }
    }
    Ok(None)
}

/// Finishes what was interrupted, by what the database knows its key by: the new key takes its place, or goes.
pub fn settle(path: &Path, check: Option<[u8; 32]>) -> anyhow::Result<()> {
    let new = new_file(path);
    let (Some(check), true) = (check, new.exists()) else { return Ok(()) };
    let fits = |path: &Path| {
        let key = SecretKey::load(path);
        key.is_ok_and(|key| key.is_some_and(|key| key.check() == check))
    };
    if fits(&new) {
        take_the_place(path)?;
        tracing::warn!(key = %path.display(), "the secret key was being replaced: the new one is in its place now");
    } else if fits(path) {
        fs::remove_file(&new).with_context(|| format!("cannot remove {}", new.display()))?;
        tracing::warn!(key = %path.display(), "the secret key was about to be replaced: it stays what it was");
    }
    Ok(())
}

/// Puts the new key in the place of the one before, which is kept under a name of its own: older backups open with it alone.
pub fn take_the_place(path: &Path) -> anyhow::Result<Option<PathBuf>> {
    let kept = SecretKey::load(path)?.map(|before| {
        let kept = beside(path, &format!(".before-{}", short(&before.check())));
        (before, kept)
    });
    if let Some((before, kept)) = &kept
        && fs::hard_link(path, kept).is_err()
        && !kept.exists()
    {
        // Not every file system has links.
        before.write(kept)?;
    }
    let new = new_file(path);
    fs::rename(&new, path).with_context(|| format!("cannot put {} in its place", new.display()))?;
    sync_directory(path)?;
    Ok(kept.map(|(_, kept)| kept))
}

/// Has the disk keep the names in the directory of a file.
pub fn sync_directory(file: &Path) -> anyhow::Result<()> {
    let directory = file.parent().filter(|path| !path.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .with_context(|| format!("cannot sync {}", directory.display()))
}
