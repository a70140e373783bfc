//! An installation in a database of a PostgreSQL server: log, rows and journals are there, and nothing is beside them. The
//! key is a file of its own, the same for all who use the database.

use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{bail, ensure};

use crate::config::without_password;

#[derive(Clone)]
pub struct Server {
    url: String,
    key: Option<PathBuf>,
}

impl Server {
    pub fn at(url: &str, key: Option<&Path>) -> Self {
        Self { url: url.to_owned(), key: key.map(Path::to_owned) }
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    pub fn key_file(&self) -> PathBuf {
        self.key.clone().unwrap_or_default()
    }

    /// Checks that the key is named and there.
    pub fn must_have_key(&self) -> anyhow::Result<()> {
        let Some(key) = &self.key else {
            bail!(
                "name the file of the secret key with --secret-key-file (or SESSIOND_SECRET_KEY_FILE): for {self} none is \
                 made, because all who use a database must have the same. This makes one:\n  {}",
                recipe("sessiond.key")
            )
        };
        let shown = key.display();
        ensure!(
            key.exists(),
            "there is no secret key file {shown}, and none is made for {self}, because all who use a database must have the \
             same: put the one there that belongs to it. For a new installation, this makes one:\n  {}",
            recipe(&shown.to_string())
        );
        Ok(())
    }
}

/// A line for a shell that makes a key file.
fn recipe(file: &str) -> String {
    format!("(umask 077; head -c 32 /dev/urandom | od -An -vtx1 | tr -d ' \\n' > '{file}')")
}

/// Names the server and the database, without the parameters of the URL.
impl fmt::Display for Server {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = without_password(&self.url);
        formatter.write_str(shown.split(['?', '#']).next().unwrap_or_default())
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{self}")
    }
}
