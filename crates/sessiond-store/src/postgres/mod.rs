//! PostgreSQL behind the seam: a connection that writes, some that read, and what only a store needs that several processes
//! may write to: the append lock, the head of the log as a row, each commit's changes.

mod beside;
mod company;
mod copy;
mod directory;
mod error;
mod head;
mod health;
mod insert;
mod journals;
mod letting_go;
mod link;
mod log;
mod look;
mod nodes;
mod outbox;
mod past;
mod people;
mod pooler;
mod rebuild;
mod retention;
mod rows;
mod sealed;
mod search;
mod secrets;
mod servers;
mod session;
mod sessions;
mod standbys;
mod start;
mod statistics;
mod store;
mod streams;
mod upkeep;
mod verify;
mod webhooks;
mod writer;

use std::sync::Arc;

use sqlx::postgres::{PgConnectOptions, PgConnection};

use crate::StoreError;
use crate::migrate::migrate;
use crate::seam::{Open, OpenJournals, Store};
use journals::{PgJournalWriter, PgJournals};
use nodes::PgNodes;
use servers::Servers;
use store::PgStore;
use writer::{Company, PgWriter};

pub(crate) use copy::{release, source, target};
pub(crate) use error::meaning;
pub(crate) use look::look;
pub(crate) use rebuild::rebuild;
pub(crate) use standbys::without_standby;

static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!("../../migrations/postgres");

pub(crate) async fn open(url: &str) -> Result<Open, StoreError> {
    let servers = Servers::of(url)?;
    let options = migrated(&servers).await?;
    let writer = Box::new(PgWriter::open(servers.clone(), Company::Alone).await?);
    Ok(Open { writer, store: Arc::new(PgStore::open(servers, options)), nodes: None })
}

pub(crate) async fn open_to_serve(url: &str) -> Result<Open, StoreError> {
    let servers = Servers::of(url)?;
    let options = migrated(&servers).await?;
    let writer = Box::new(PgWriter::open(servers.clone(), Company::Nodes).await?);
    let nodes = Arc::new(PgNodes::open(&servers).await?);
    Ok(Open { writer, store: Arc::new(PgStore::open(servers, options)), nodes: Some(nodes) })
}

pub(crate) async fn open_to_look(url: &str) -> Result<Arc<dyn Store>, StoreError> {
    Ok(Arc::new(PgStore::open_to_look(Servers::of(url)?).await?))
}

pub(crate) async fn open_journals(url: &str) -> Result<OpenJournals, StoreError> {
    let servers = Servers::of(url)?;
    let options = migrated(&servers).await?;
    let writer = Box::new(PgJournalWriter::open(servers.clone()).await?);
    Ok(OpenJournals { writer, reader: Arc::new(PgJournals(PgStore::open(servers, options))) })
}

/// Brings the database to this release's form, one process at a time, and says where its primary is.
async fn migrated(servers: &Servers) -> Result<PgConnectOptions, StoreError> {
    let (options, mut connection) = servers.primary().await?;
    // Another process may be at it, and whatever is changed may be large: nothing is given up halfway.
    let patient = "select set_config('lock_timeout', '0', false), set_config('statement_timeout', '0', false), \
         set_config('client_min_messages', 'warning', false)";
    sqlx::query(patient).execute(&mut connection).await?;
    migrate(&MIGRATIONS, &mut connection).await?;
    close(connection).await;
    Ok(options)
}

/// Says goodbye; whoever does not hear it notices by itself.
async fn close(connection: PgConnection) {
    sqlx::Connection::close(connection).await.ok();
}
