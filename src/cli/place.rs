//! Where an installation is on disk: the database, and beside it the key, the lock and the file of journals, all under the
//! database's real name. Each start looks there first, so that nothing is created beside what is left of another
//! installation.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use rustix::fs::Mode;
use sessiond_store::{self, Batch, Contents, Open, Sealed, SideWrite, Store, Witnesses};

use super::key_file;
use super::rotate::seal_labels;
use crate::config::{Config, database_file};
use crate::secret::SecretKey;

/// Where a backup is being restored: a directory beside the database, with this at its end.
pub const RESTORING: &str = ".restoring";

/// Lets only us read the files that this process makes: they hold names, addresses and recordings.
pub fn private() {
    rustix::process::umask(Mode::RWXG | Mode::RWXO);
}

/// The URL with the real path of the database in it. Everything beside the database is named after that path, so that
/// whoever comes by a link finds the same lock, key and journals.
pub fn real(url: &str) -> anyhow::Result<String> {
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

/// A path beside a file, named after it.
pub fn beside(file: &Path, suffix: &str) -> PathBuf {
    let mut path = file.as_os_str().to_owned();
    path.push(suffix);
    path.into()
}

/// Takes the database's lock, so that there is one writer for each database. Only its owner can open the lock file, and so
/// take it.
pub fn lock(database: &str) -> anyhow::Result<File> {
    let file = database_file(database);
    let in_memory =
        file.as_os_str().is_empty() || file.as_os_str() == ":memory:" || database.contains("mode=memory");
    ensure!(
        !in_memory,
        "{database} would keep sessions in memory only, and sessiond promises that they are on disk: name a file, such as \
         sqlite:sessiond.db"
    );
    let directory = file.parent().filter(|path| !path.as_os_str().is_empty());
    if let Some(directory) = directory {
        let there = directory.display();
        ensure!(directory.is_dir(), "there is no directory {there} to keep the database in; make it first");
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

/// Looks at what is there before anything is opened for writing. If nothing was ever recorded but something else of an
/// installation is there, its database is missing, and making another one would hide that.
pub async fn look(config: &Config) -> anyhow::Result<Contents> {
    let database = database_file(&config.database);
    let contents = sessiond_store::look(&config.database).await.context("cannot open the database")?;
    if contents.events || begun(config, &contents)? {
        return Ok(contents);
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
    if config.secret_key_file.is_none() {
        left.push(config.secret_key_file());
    }
    left.retain(|path| fs::metadata(path).is_ok_and(|metadata| metadata.len() > 0));
    if left.is_empty() {
        return Ok(contents);
    }
    let left: Vec<_> = left.iter().map(|path| path.display().to_string()).collect();
    let what = if contents.exists { "nothing is recorded in" } else { "there is no database at" };
    bail!(
        "{what} {}, but an installation has left {} there. Put its database back, together with its -wal file if it has one; \
         or, if a new installation is wanted, move away what is left of the old one",
        database.display(),
        left.join(" and ")
    );
}

/// Whether a first start got as far as its key and no further: then the key is the one that the database knows.
fn begun(config: &Config, contents: &Contents) -> anyhow::Result<bool> {
    let Some(check) = contents.key_check else { return Ok(false) };
    let key = SecretKey::load(&config.secret_key_file())?;
    Ok(key.is_none_or(|key| key.check() == check))
}

/// Loads the key of this installation. It is made at the first start, and from then on no other is accepted.
pub async fn key(config: &Config, contents: &Contents, open: &mut Open) -> anyhow::Result<SecretKey> {
    let (path, database) = (config.secret_key_file(), database_file(&config.database));
    let (file, database) = (path.display(), database.display());
    key_file::settle(&path, contents.key_check)?;
    match (SecretKey::load(&path)?, contents.key_check) {
        (Some(key), Some(check)) => {
            ensure!(
                key.check() == check,
                "{file} is not the secret key of {database}: what was sealed with the other key would not open, and people \
                 would not be recognised. Put the key back that belongs to this database"
            );
            Ok(key)
        }
        (Some(key), None) => {
            ensure!(
                !contents.events || fits(&key, open.store.as_ref()).await?,
                "{file} opens nothing of what is sealed in {database}: it is not its secret key. Put the key back that \
                 belongs to this database"
            );
            set_key_check(open, &key).await?;
            Ok(key)
        }
        (None, _) if !contents.events => {
            let key = SecretKey::random();
            set_key_check(open, &key).await?;
            key.write(&path)?;
            Ok(key)
        }
        (None, _) => bail!(
            "the secret key file {file} is missing. Without it nothing opens that is sealed in {database}, and nobody is \
             recognised: put it back, or say with --secret-key-file where it is"
        ),
    }
}

/// Records the value by which the key of this installation is recognised.
async fn set_key_check(open: &mut Open, key: &SecretKey) -> anyhow::Result<()> {
    let side = vec![SideWrite::KeyCheck(key.check())];
    Ok(open.writer.commit(&Batch { side, ..Batch::default() }).await?)
}

/// Whether a key fits the sealed secrets of a store from a release that did not yet record a key's check value; true if
/// there are none.
async fn fits(key: &SecretKey, store: &dyn Store) -> anyhow::Result<bool> {
    let Witnesses { people, sealed } = store.witnesses().await?;
    let known = |(issuer, subject, digest): &(String, String, [u8; 32])| {
        key.subject_digest(issuer, subject) == *digest
    };
    let opens = |sealed: &Sealed| {
        seal_labels(sealed, |_| None).iter().any(|label| key.open(label, &sealed.bytes).is_ok())
    };
    let nothing = people.is_empty() && sealed.is_empty();
    Ok(nothing || people.iter().any(known) || sealed.iter().any(opens))
}
