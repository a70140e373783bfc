//! The yardstick for the committer: the same events and rows, written by nothing but SQLite. No decision, no hash, no
//! chain; one connection with the committer's pragmas, one statement for a batch's events and one for its rows.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sessiond_core::event::{Event, TYPE_VERSION};
use sessiond_core::session::event::{ActivityRecorded, ActivitySource, Counts, SessionEvent};
use sessiond_store::{Open, Store};
use sqlx::sqlite::{SqliteArguments, SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sqlx::{Arguments, AssertSqlSafe, ConnectOptions, Connection, SqliteConnection};
use tokio::task::JoinHandle;

use crate::base::{checkpoints, database};
use crate::load::Dice;

/// The committer empties the write-ahead log above this size, looking every so many batches.
const LARGE_WAL: u64 = 64 << 20;
const BATCHES: u64 = 64;

pub struct Raw {
    connection: SqliteConnection,
    reader: Arc<dyn Store>,
    checkpoints: JoinHandle<()>,
    wal: std::path::PathBuf,
    position: i64,
    /// Version and head of each session's stream.
    heads: Vec<(i64, i64)>,
    dice: Dice,
    batches: u64,
}

impl Raw {
    /// A new database of the same schema, with streams of this many sessions.
    pub async fn new(directory: &Path, sessions: usize) -> anyhow::Result<Self> {
        let (url, file) = database(directory);
        let Open { writer, store, .. } = sessiond_store::open(&url).await?;
        store.close().await;
        writer.close().await?;
        let connection = SqliteConnectOptions::new()
            .filename(&file)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(Duration::from_secs(10))
            .pragma("wal_autocheckpoint", "0")
            .pragma("cache_size", "-65536")
            .connect()
            .await?;
        let reader = sessiond_store::open(&url).await?.store;
        let mut wal = file.into_os_string();
        wal.push("-wal");
        Ok(Self {
            connection,
            checkpoints: checkpoints(reader.clone()),
            reader,
            wal: wal.into(),
            position: 0,
            heads: vec![(0, 0); sessions],
            dice: Dice::new(0),
            batches: 0,
        })
    }

    /// Writes batches of distinct sessions for this long; events a second. `rows`: also the sessions' hot rows.
    pub async fn write(&mut self, batch: usize, rows: bool, time: Duration) -> anyhow::Result<f64> {
        let events = insert(
            "event (position, stream_kind, stream_number, version, previous_position, occurred_at, \
             recorded_at, type, type_version, organization, application, actor_kind, actor_id, revocation, request_id, \
             traceparent, body, personal, hash, commit_hash)",
            20,
            batch,
        );
        let hot = insert(
            "session_activity (number, last_active_at, requests, bytes_in, bytes_out, version, head, hash)",
            8,
            batch,
        ) + " on conflict (number) do update set last_active_at = excluded.last_active_at, \
               requests = excluded.requests, bytes_in = excluded.bytes_in, bytes_out = excluded.bytes_out, \
               version = excluded.version, head = excluded.head, hash = excluded.hash";
        let (began, from) = (Instant::now(), self.position);
        while began.elapsed() < time {
            let (bound_events, bound_rows) = self.batch(batch);
            sqlx::query("begin immediate").execute(&mut self.connection).await?;
            sqlx::query_with(AssertSqlSafe(events.clone()), bound_events)
                .execute(&mut self.connection)
                .await?;
            if rows {
                sqlx::query_with(AssertSqlSafe(hot.clone()), bound_rows)
                    .execute(&mut self.connection)
                    .await?;
            }
            sqlx::query("commit").execute(&mut self.connection).await?;
            self.batches += 1;
            if self.batches.is_multiple_of(BATCHES)
                && std::fs::metadata(&self.wal).is_ok_and(|wal| wal.len() > LARGE_WAL)
            {
                sqlx::query("pragma wal_checkpoint(truncate)").execute(&mut self.connection).await?;
            }
        }
        Ok((self.position - from) as f64 / began.elapsed().as_secs_f64())
    }

    /// Values for a batch of events and for their rows.
    fn batch(&mut self, batch: usize) -> (SqliteArguments, SqliteArguments) {
        let counts = Counts::default();
        let recorded =
            ActivityRecorded { source: ActivitySource::Heartbeat, counts, total: counts, throughput: None };
        let event = Event::Session(SessionEvent::ActivityRecorded(recorded));
        let (name, body) = (event.name(), event.body());
        let now = 1_764_000_000_000 + self.position / 100;
        let (mut events, mut rows) = (SqliteArguments::default(), SqliteArguments::default());
        events.reserve(batch * 20, 0);
        rows.reserve(batch * 8, 0);
        let own = self.heads.len() / batch;
        for index in 0..batch {
            let session = index * own + self.dice.below(own);
            self.position += 1;
            let head = &mut self.heads[session];
            let (version, previous) = (head.0 + 1, head.1);
            *head = (version, self.position);
            let number = session as i64 + 1;
            let mut hash = [0u8; 32];
            for part in hash.chunks_exact_mut(8) {
                part.copy_from_slice(&self.dice.below(usize::MAX).to_be_bytes());
            }
            let commit = (index + 1 == batch).then_some(hash.as_slice());
            let id = [session.to_be_bytes(), session.to_be_bytes()].concat();
            let mut add = |value: i64| events.add(value).unwrap();
            for value in [self.position, 4, number, version, previous, now, now] {
                add(value);
            }
            events.add(name).unwrap();
            for value in [TYPE_VERSION, 1, 1, 2] {
                events.add(value).unwrap();
            }
            events.add(id).unwrap();
            events.add(None::<i64>).unwrap();
            events.add("0123456789abcdef").unwrap();
            events.add(None::<&str>).unwrap();
            events.add(body.as_str()).unwrap();
            events.add(None::<&str>).unwrap();
            events.add(hash.as_slice()).unwrap();
            events.add(commit).unwrap();
            for value in [number, now, 0, 0, 0, version, self.position] {
                rows.add(value).unwrap();
            }
            rows.add(hash.as_slice()).unwrap();
        }
        (events, rows)
    }

    pub async fn stop(self) -> anyhow::Result<()> {
        self.checkpoints.abort();
        self.reader.close().await;
        Ok(self.connection.close().await?)
    }
}

fn insert(into: &str, columns: usize, rows: usize) -> String {
    let row = format!("({})", vec!["?"; columns].join(","));
    format!("insert into {into} values {}", vec![row; rows].join(","))
}
