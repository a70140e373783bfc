//! Where an installation is: its database, its journals, its key, and what keeps a second process out. It is in [`Files`]
//! beside each other, or in a database of a PostgreSQL [`Server`]; what differs between the two is said here and nowhere
//! else. Each start looks there first, so that nothing is created beside what is left of another installation.

mod files;
mod key;
mod server;

use std::fmt;
use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use rustix::fs::Mode;
use sessiond_store::{self, Contents};

pub use files::{Files, RESTORING, beside};
pub use key::key;
use server::Server;

use crate::config::Config;

/// Lets only us read the files that this process makes: they hold names, addresses and recordings.
pub fn private() {
    rustix::process::umask(Mode::RWXG | Mode::RWXO);
}

/// The right to write to an installation, for as long as this is kept.
pub struct Lock {
    /// A database of a server locks itself.
    _file: Option<File>,
}

/// Where an installation is.
#[derive(Debug, Clone)]
pub enum Place {
    Files(Files),
    Server(Server),
}

impl Place {
    /// Where the service would keep its installation with this configuration.
    pub fn of(config: &Config) -> anyhow::Result<Self> {
        Self::at(&config.database, config.secret_key_file.as_deref())
    }

    /// The place behind a database's URL, with the key where it is named.
    pub fn at(url: &str, key: Option<&Path>) -> anyhow::Result<Self> {
        match url.split_once(':') {
            Some(("sqlite", _)) => Ok(Self::Files(Files::at(url, key)?)),
            Some(("postgres" | "postgresql", _)) => Ok(Self::Server(Server::at(url, key))),
            _ => bail!(
                "--database must be a URL, such as sqlite:sessiond.db, or postgres://sessiond@127.0.0.1/sessiond for a \
                 PostgreSQL server"
            ),
        }
    }

    /// The URL by which the store is opened.
    pub fn url(&self) -> &str {
        match self {
            Self::Files(files) => files.url(),
            Self::Server(server) => server.url(),
        }
    }

    /// The URL by which journals are opened.
    pub fn journals_url(&self) -> String {
        match self {
            Self::Files(files) => files.journals_url(),
            Self::Server(server) => server.url().to_owned(),
        }
    }

    /// Where the secret key is, or is to be.
    pub fn key_file(&self) -> PathBuf {
        match self {
            Self::Files(files) => files.key_file(),
            Self::Server(server) => server.key_file(),
        }
    }

    /// Whether a first start makes the key. Who made one for a database of a server would make it on one machine, and the
    /// next machine would make another.
    fn makes_key(&self) -> bool {
        matches!(self, Self::Files(_))
    }

    /// Takes the right to write, so that there is one writer for each database.
    pub fn lock(&self) -> anyhow::Result<Lock> {
        match self {
            Self::Files(files) => Ok(Lock { _file: Some(files.lock()?) }),
            Self::Server(_) => Ok(Lock { _file: None }),
        }
    }

    /// Checks that there is an installation, because a command that only looks must not make one.
    pub async fn must_exist(&self) -> anyhow::Result<()> {
        match self {
            Self::Files(files) => {
                files.must_exist()?;
                // A file that cannot be looked at is for the command to say something about.
                sessiond_store::look(files.url())
                    .await
                    .map_or(Ok(()), |contents| self.must_be_whole(&contents))
            }
            Self::Server(_) => {
                let contents = self.contents().await?;
                ensure!(contents.exists, "sessiond has nothing in {self}: name another with --database URL");
                Ok(())
            }
        }
    }

    /// Checks that whatever is answered is on a second machine by then.
    pub async fn must_have_standby(&self) -> anyhow::Result<()> {
        let lacking =
            sessiond_store::without_standby(self.url()).await.context("cannot open the database")?;
        match lacking {
            None => Ok(()),
            Some(why) => bail!("--require-synchronous is set, and {why}"),
        }
    }

    /// Looks at what is there before anything is opened for writing. What is left of another installation, or a key that is
    /// missing where none is made, is refused.
    pub async fn look(&self) -> anyhow::Result<Contents> {
        match self {
            Self::Files(files) => {
                let contents = self.contents().await?;
                files.refuse_remains(&contents)?;
                Ok(contents)
            }
            Self::Server(server) => {
                server.must_have_key()?;
                self.contents().await
            }
        }
    }

    /// Looks at what is there, which may be of use or nothing at all.
    pub async fn contents(&self) -> anyhow::Result<Contents> {
        let contents = sessiond_store::look(self.url()).await.context("cannot open the database")?;
        self.must_be_whole(&contents)?;
        Ok(contents)
    }

    fn must_be_whole(&self, contents: &Contents) -> anyhow::Result<()> {
        ensure!(
            !contents.unfinished,
            "what is in {self} is a copy that was never finished: run sessiond migrate-store again, which overwrites it, or \
             remove it"
        );
        Ok(())
    }

    /// The files, for a command that copies them, or puts copies there. PostgreSQL has means of its own for both.
    pub fn files(&self) -> anyhow::Result<&Files> {
        match self {
            Self::Files(files) => Ok(files),
            Self::Server(_) => bail!(
                "{self} is backed up and restored by PostgreSQL's own means: pg_dump and pg_restore for this database, \
                 pg_basebackup for the whole server. docs/postgres.md says how, and what to do after a restore"
            ),
        }
    }

    /// What to do about journals that cannot be read.
    pub fn journals_damaged(&self, what: &str) -> String {
        match self {
            Self::Files(files) => format!(
                "{} cannot be read: {what}. Move it away and start again, and a new one is made",
                files.journals_file().display()
            ),
            Self::Server(_) => format!("log lines and recordings in {self} cannot be read: {what}"),
        }
    }
}

/// As it is named to people: never with a password.
impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Files(files) => write!(formatter, "{}", files.file().display()),
            Self::Server(server) => write!(formatter, "{server}"),
        }
    }
}
