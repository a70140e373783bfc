//! The connections that read.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use sqlx::SqliteConnection;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool, SqlitePoolOptions};

use super::look::looking;
use super::settling::{self, LogTail};
use super::{files, log, options, verify, wal};
use crate::StoreError;
use crate::check::{Fault, Progress, Report};
use crate::recounting;
use crate::seam::Store;

/// A few connections that cannot write.
pub(super) struct SqliteStore {
    pub(super) pool: SqlitePool,
    /// Of a connection that may checkpoint.
    options: SqliteConnectOptions,
    /// What the writer found when it opened the database, for the start that follows.
    tail: Mutex<Option<LogTail>>,
}

impl SqliteStore {
    /// Opens readers on a database that exists.
    pub(super) async fn open(url: &str, tail: LogTail) -> Result<Self, StoreError> {
        let options = options(url)?;
        Ok(Self { pool: pool(&options).await?, options, tail: Mutex::new(Some(tail)) })
    }

    /// Opens readers that change nothing, not even beside the file: for a copy of another journal mode, and for a medium
    /// that cannot be written to.
    pub(super) async fn open_to_look(url: &str) -> Result<Self, StoreError> {
        let options = looking(url)?;
        Ok(Self { pool: pool(&options).await?, options, tail: Mutex::default() })
    }

    /// What the log's tail says beyond the rows: as it was found, or else read again.
    pub(super) async fn tail(&self, connection: &mut SqliteConnection) -> Result<LogTail, StoreError> {
        let head = log::head(&mut *connection).await?;
        let found = self.tail.lock().unwrap_or_else(PoisonError::into_inner).take();
        match found.filter(|tail| tail.head == head) {
            Some(tail) => Ok(tail),
            None => settling::tail(connection).await,
        }
    }
}

#[async_trait]
impl Store for SqliteStore {
    async fn maintain(&self) -> Result<String, StoreError> {
        wal::checkpoint_if_large(&self.options).await
    }

    async fn sizes(&self) -> Result<Vec<(&'static str, u64)>, StoreError> {
        Ok(files::sizes(self.options.get_filename(), ["database", "write_ahead_log"]))
    }

    async fn verify(&self, progress: Progress<'_>) -> Result<Report, Fault> {
        let report = verify::verify(&self.pool, progress).await?;
        recounting::compare(self).await?;
        Ok(report)
    }

    async fn close(&self) {
        self.pool.close().await;
    }
}

/// A few connections that cannot write, to a database that exists.
pub(super) async fn pool(options: &SqliteConnectOptions) -> Result<SqlitePool, StoreError> {
    let pool = SqlitePoolOptions::new()
        .max_connections(4)
        .max_lifetime(None)
        .idle_timeout(None)
        .test_before_acquire(false)
        .acquire_timeout(Duration::from_secs(10))
        .connect_with(options.clone().read_only(true).pragma("cache_size", "-8192"))
        .await?;
    Ok(pool)
}
