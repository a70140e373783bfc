//! The files behind an open database. Whoever deletes or replaces one of them leaves us writing into what nobody will
//! find again, and SQLite does not notice.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::StoreError;

/// What SQLite keeps a database in while it is open: added to the database's name.
const SUFFIXES: [&str; 3] = ["", "-wal", "-shm"];

/// The files as they were when the database was opened.
#[derive(Debug)]
pub struct Files {
    each: Vec<(PathBuf, Identity)>,
}

/// Device and inode: what a name stands for.
type Identity = (u64, u64);

fn identity(path: &Path) -> Option<Identity> {
    fs::metadata(path).ok().map(|metadata| (metadata.dev(), metadata.ino()))
}

/// Bytes in a database's file and in its write-ahead log, under these names; 0 for one that is not there.
pub fn sizes(database: &Path, names: [&'static str; 2]) -> Vec<(&'static str, u64)> {
    let size = |suffix| fs::metadata(beside(database, suffix)).map_or(0, |metadata| metadata.len());
    names.into_iter().zip(SUFFIXES.map(size)).collect()
}

/// The path of a file that SQLite keeps beside a database.
pub fn beside(database: &Path, suffix: &str) -> PathBuf {
    let mut path = database.as_os_str().to_owned();
    path.push(suffix);
    path.into()
}

impl Files {
    /// Takes note of the files of a database that is open.
    pub fn of(database: &Path) -> Self {
        let named = |suffix: &&str| {
            let path = beside(database, suffix);
            identity(&path).map(|identity| (path, identity))
        };
        Self { each: SUFFIXES.iter().filter_map(named).collect() }
    }

    /// Fails if one of them is not there any more, or another one is in its place.
    pub fn check(&self) -> Result<(), StoreError> {
        for (path, known) in &self.each {
            let found = identity(path);
            if found.as_ref() != Some(known) {
                let what = if found.is_some() { "was replaced" } else { "was deleted or moved" };
                return Err(StoreError::Broken(format!("{} {what} while it was in use", path.display())));
            }
        }
        Ok(())
    }
}
