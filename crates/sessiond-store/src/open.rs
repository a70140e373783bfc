//! The one place that chooses an implementation, by the scheme of a URL.

use std::path::Path;

use sessiond_core::ids::SessionNumber;

use crate::check::{Fault, Progress, Report};
use crate::copy::{Copied, Source, Target, tables};
use crate::recounting::again;
use crate::seam::{BackedUp, Contents, Open, OpenJournals, Store};
use crate::{StoreError, postgres, sqlite};

/// The implementations that there are.
enum Implementation {
    Sqlite,
    Postgres,
}

fn implementation(url: &str) -> Result<Implementation, StoreError> {
    match url.split_once(':').map(|(scheme, _)| scheme) {
        Some("sqlite") => Ok(Implementation::Sqlite),
        Some("postgres" | "postgresql") => Ok(Implementation::Postgres),
        Some(scheme) => Err(StoreError::Failed(format!(
            "there is no store for URLs that begin with {scheme}: there is sqlite:, as in sqlite:sessiond.db, and \
             postgres:, as in postgres://localhost/sessiond"
        ))),
        None => Err(StoreError::Failed(format!("{url} is no URL of a store, such as sqlite:sessiond.db"))),
    }
}

/// Looks at what lies behind a URL without changing anything, not even making it.
pub async fn look(url: &str) -> Result<Contents, StoreError> {
    match implementation(url)? {
        Implementation::Sqlite => sqlite::look(url).await,
        Implementation::Postgres => postgres::look(url).await,
    }
}

/// Why what is answered of the store behind a URL may be on one machine alone, as a sentence; none where a second one has it
/// by then.
pub async fn without_standby(url: &str) -> Result<Option<String>, StoreError> {
    match implementation(url)? {
        Implementation::Sqlite => Ok(Some(
            "a file has no standby, because it is one machine's: a PostgreSQL server can have one".to_owned(),
        )),
        Implementation::Postgres => postgres::without_standby(url).await,
    }
}

/// Opens a store, making it, or bringing it to this release's form, as needed. One that a newer release wrote is refused, and
/// so is one that cannot keep what a [`Writer`](crate::Writer) promises. Nobody else may have it open for writing meanwhile.
pub async fn open(url: &str) -> Result<Open, StoreError> {
    match implementation(url)? {
        Implementation::Sqlite => sqlite::open(url).await,
        Implementation::Postgres => postgres::open(url).await,
    }
}

/// Opens a store likewise for a process that serves. Where the store takes several of them at the same time, each is a node
/// and follows what the others commit; a file takes one.
pub async fn open_to_serve(url: &str) -> Result<Open, StoreError> {
    match implementation(url)? {
        Implementation::Sqlite => sqlite::open(url).await,
        Implementation::Postgres => postgres::open_to_serve(url).await,
    }
}

/// Opens a store that exists, to read what is there and to change nothing, not even beside it: for a copy, and for a medium
/// that cannot be written to.
pub async fn open_to_look(url: &str) -> Result<std::sync::Arc<dyn Store>, StoreError> {
    match implementation(url)? {
        Implementation::Sqlite => sqlite::open_to_look(url).await,
        Implementation::Postgres => postgres::open_to_look(url).await,
    }
}

/// Makes every row again from the log, in one transaction, and leaves alone what does not come from it. A log that is not
/// whole is refused, and nothing is changed. Nobody else may write meanwhile: the service must be stopped.
pub async fn rebuild(url: &str, progress: Progress<'_>) -> Result<Report, Fault> {
    match implementation(url)? {
        Implementation::Sqlite => sqlite::rebuild(url, progress).await,
        Implementation::Postgres => postgres::rebuild(url, progress).await,
    }
}

/// Counts the log again as far back as all of it is there, and leaves alone what was counted of the time before. Nobody else may
/// write meanwhile.
pub async fn recount(url: &str, progress: Progress<'_>) -> Result<(), StoreError> {
    let Open { mut writer, store, .. } = open(url).await?;
    let counted = again(writer.as_mut(), store.as_ref(), progress).await;
    store.close().await;
    writer.close().await?;
    counted
}

/// Opens journals, making them, or bringing them to this release's form, as needed.
pub async fn open_journals(url: &str) -> Result<OpenJournals, StoreError> {
    match implementation(url)? {
        Implementation::Sqlite => sqlite::open_journals(url).await,
        Implementation::Postgres => postgres::open_journals(url).await,
    }
}

/// Copies a store into a new file, also while its writer is at work: the writer waits for nothing, and no snapshot is held for
/// longer than a page of work takes, so that upkeep goes on. All that was committed before it was asked is in the copy. What
/// was erased before it returns may be gone from the copy; what was erased before the copy's last position is.
pub async fn backup(url: &str, to: &Path, progress: Progress<'_>) -> Result<BackedUp, StoreError> {
    match implementation(url)? {
        Implementation::Sqlite => sqlite::backup(url, to, progress).await,
        Implementation::Postgres => Err(copied_otherwise()),
    }
}

/// Copies journals likewise, those of sessions up to one.
pub async fn backup_journals(
    url: &str,
    to: &Path,
    last_session: SessionNumber,
    progress: Progress<'_>,
) -> Result<(), StoreError> {
    match implementation(url)? {
        Implementation::Sqlite => sqlite::backup_journals(url, to, last_session, progress).await,
        Implementation::Postgres => Err(copied_otherwise()),
    }
}

/// Puts a copy, of a store or of journals, where a URL points, where there must be nothing. A store is of use after
/// [`rebuild`].
pub async fn restore(from: &Path, url: &str) -> Result<(), StoreError> {
    match implementation(url)? {
        Implementation::Sqlite => sqlite::restore(from, url).await,
        Implementation::Postgres => Err(copied_otherwise()),
    }
}

/// Where a store is, and where its journals are: URLs.
#[derive(Debug, Clone, Copy)]
pub struct Whereabouts<'url> {
    pub store: &'url str,
    pub journals: &'url str,
}

/// What copying has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CopyStep {
    /// Rows are copied.
    Copying,
    /// Rows are made again, from the events of the copy.
    Rebuilding,
    /// The copy is compared with itself, event by event.
    Verifying,
}

/// Copies a store with its journals into another one, of whichever kind either is: the log and all that stands beside it. The
/// rows are made again from the copy of the log, and all of it is checked and compared with what it was made from before it can
/// be opened. Nobody may work on either meanwhile. The target has to be empty, or to hold what an earlier copy has left that
/// came to no end, which is overwritten.
pub async fn copy(
    from: Whereabouts<'_>,
    to: Whereabouts<'_>,
    progress: &mut (dyn FnMut(CopyStep, u64, u64) + Send),
) -> Result<Copied, Fault> {
    let contents = look(from.store).await?;
    if contents.unfinished || !contents.events {
        let what = if contents.unfinished { "a copy that is not finished" } else { "nothing" };
        return Err(StoreError::Failed(format!("in the store to copy from there is {what}")).into());
    }
    let mut source = source(from).await?;
    let mut target = target(to).await?;
    let mut copying = |done, total| progress(CopyStep::Copying, done, total);
    let original = tables(source.as_mut(), target.as_mut(), &mut copying).await?;
    target.finish().await?;
    rebuild(to.store, &mut |done, total| progress(CopyStep::Rebuilding, done, total)).await?;
    let store = open_to_look(to.store).await?;
    let report = store.verify(&mut |done, total| progress(CopyStep::Verifying, done, total)).await;
    store.close().await;
    let copied = original.compare(self::source(to).await?.as_mut(), report?).await?;
    match implementation(to.store)? {
        Implementation::Sqlite => sqlite::release(to.store).await?,
        Implementation::Postgres => postgres::release(to.store).await?,
    }
    Ok(copied)
}

async fn source(from: Whereabouts<'_>) -> Result<Box<dyn Source>, StoreError> {
    match implementation(from.store)? {
        Implementation::Sqlite => sqlite::source(from.store, from.journals).await,
        Implementation::Postgres => postgres::source(from.store).await,
    }
}

async fn target(to: Whereabouts<'_>) -> Result<Box<dyn Target>, StoreError> {
    match implementation(to.store)? {
        Implementation::Sqlite => sqlite::target(to.store, to.journals).await,
        Implementation::Postgres => postgres::target(to.store).await,
    }
}

/// PostgreSQL's own copies are whole, also of several machines, and can go on from each moment since.
fn copied_otherwise() -> StoreError {
    StoreError::Failed(
        "a PostgreSQL database is backed up and restored with PostgreSQL's own programs: pg_dump and pg_restore, or \
         pg_basebackup and archived write-ahead log"
            .to_owned(),
    )
}
