//! An installation in files: the database, and beside it the key, the lock and the file of journals, all under the database's
//! real name.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use sessiond_store::Contents;

use crate::secret::SecretKey;

/// Where a backup is being restored: a directory beside the database, with this at its end.
pub const RESTORING: &str = ".restoring";

/// A path beside a file, named after it.
pub fn beside(file: &Path, suffix: &str) -> PathBuf {
    let mut path = file.as_os_str().to_owned();
    path.push(suffix);
    path.into()
}

#[derive(Debug, Clone)]
pub struct Files {
    url: String,
    /// Where the key is, if that was said.
    key: Option<PathBuf>,
}

impl Files {
    /// The files behind a `sqlite:` URL. Everything beside the database is named after its real path, so that whoever comes
    /// by a link finds the same lock, key and journals.
    pub fn at(url: &str, key: Option<&Path>) -> anyhow::Result<Self> {
        Ok(Self { url: real(url)?, key: key.map(Path::to_owned) })
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    pub fn file(&self) -> PathBuf {
        database_file(&self.url)
    }

    /// The URL of the file of journals: beside the database, with the parameters of the database's URL.
    pub fn journals_url(&self) -> String {
        match self.url.split_once('?') {
            Some((file, parameters)) => format!("{file}.lines?{parameters}"),
            None => format!("{}.lines", self.url),
        }
    }

    pub fn journals_file(&self) -> PathBuf {
        database_file(&self.journals_url())
    }

    /// The file of the secret key: as configured, else beside the database.
    pub fn key_file(&self) -> PathBuf {
        self.key.clone().unwrap_or_else(|| beside(&self.file(), ".key"))
    }

    pub fn must_exist(&self) -> anyhow::Result<()> {
        let file = self.file();
        ensure!(
            file.exists(),
            "there is no database at {}; name it with --database sqlite:FILE",
            file.display()
        );
        Ok(())
    }

    /// Takes the database's lock. Only its owner can open the lock file, and so take it.
    pub fn lock(&self) -> anyhow::Result<File> {
        let (file, url) = (self.file(), &self.url);
        let in_memory =
            file.as_os_str().is_empty() || file.as_os_str() == ":memory:" || url.contains("mode=memory");
        ensure!(
            !in_memory,
            "{url} would keep sessions in memory only, and sessiond promises that they are on disk: name a file, such as \
             sqlite:sessiond.db"
        );
        let directory = file.parent().filter(|path| !path.as_os_str().is_empty());
        if let Some(directory) = directory {
            let there = directory.display();
            ensure!(
                directory.is_dir(),
                "there is no directory {there} to keep the database in; make it first"
            );
        }
        let path = beside(&file, ".lock");
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&path)
            .with_context(|| format!("cannot make {}", path.display()))?;
        lock.set_permissions(Permissions::from_mode(0o600))
            .with_context(|| format!("cannot keep {} to ourselves", path.display()))?;
        lock.try_lock().map_err(|_| {
            anyhow::anyhow!(
                "another sessiond works on {} (it holds {}); stop it first",
                file.display(),
                path.display()
            )
        })?;
        tighten(&file)?;
        Ok(lock)
    }

    /// Refuses a place where nothing was ever recorded but something else of an installation is: its database is missing, and
    /// making another one would hide that.
    pub fn refuse_remains(&self, contents: &Contents) -> anyhow::Result<()> {
        let database = self.file();
        if contents.events || self.begun(contents)? {
            return Ok(());
        }
        if beside(&database, RESTORING).exists() {
            bail!(
                "a restore of {} was interrupted before it was whole: run it again, or remove {}",
                database.display(),
                beside(&database, RESTORING).display()
            );
        }
        let mut left = vec![beside(&database, ".lines")];
        if !contents.exists {
            left.push(beside(&database, "-wal"));
        }
        if self.key.is_none() {
            left.push(self.key_file());
        }
        left.retain(|path| fs::metadata(path).is_ok_and(|metadata| metadata.len() > 0));
        if left.is_empty() {
            return Ok(());
        }
        let left: Vec<_> = left.iter().map(|path| path.display().to_string()).collect();
        let what = if contents.exists { "nothing is recorded in" } else { "there is no database at" };
        bail!(
            "{what} {}, but an installation has left {} there. Put its database back, together with its -wal file if it has \
             one; or, if a new installation is wanted, move away what is left of the old one",
            database.display(),
            left.join(" and ")
        );
    }

    /// Whether a first start got as far as its key and no further: then the key is the one that the database knows.
    fn begun(&self, contents: &Contents) -> anyhow::Result<bool> {
        let Some(check) = contents.key_check else { return Ok(false) };
        let key = SecretKey::load(&self.key_file())?;
        Ok(key.is_none_or(|key| key.check() == check))
    }
}

/// The file behind a `sqlite:` URL.
fn database_file(url: &str) -> PathBuf {
    let path = url.strip_prefix("sqlite:").unwrap_or(url);
    let path = path.strip_prefix("//").unwrap_or(path);
    path.split('?').next().unwrap_or(path).into()
}

/// The URL with the real path of the database in it.
fn real(url: &str) -> anyhow::Result<String> {
    let file = database_file(url);
    if !file.is_symlink() {
        return Ok(url.to_owned());
    }
    let real = file
        .canonicalize()
        .with_context(|| format!("{} is a link to a database that is not there", file.display()))?;
    let real = real.to_str().with_context(|| format!("{} is not UTF-8", real.display()))?;
    let parameters = url.split_once('?').map(|(_, parameters)| format!("?{parameters}"));
    Ok(format!("sqlite:{real}{}", parameters.unwrap_or_default()))
}

/// Takes the right to read the files from everybody, where an older release gave it. A right that only the group has was
/// given on purpose, and stays.
fn tighten(database: &Path) -> anyhow::Result<()> {
    for suffix in ["", "-wal", "-shm", ".lines", ".lines-wal", ".lines-shm"] {
        let path = beside(database, suffix);
        let Ok(metadata) = fs::metadata(&path) else { continue };
        let mode = metadata.permissions().mode();
        let kept = if mode & 0o007 == 0 { mode & 0o740 } else { mode & 0o700 };
        if metadata.is_file() && mode & 0o777 != kept & 0o777 {
            fs::set_permissions(&path, Permissions::from_mode(kept & 0o777))
                .with_context(|| format!("cannot keep {} to ourselves", path.display()))?;
        }
    }
    Ok(())
}
