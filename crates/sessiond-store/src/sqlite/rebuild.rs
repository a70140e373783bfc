//! Makes the rows again from the log.

use sessiond_core::ids::Position;

use super::Writer;
use super::check::{follow, malformed};
use crate::check::{Fault, Log, PAGE, Progress, Report, whole};
use crate::row::Batch;

/// Sessions written at a time.
const CHUNK: usize = 2_048;

/// Makes every row and every index again from the log, in one transaction, and leaves alone what does not come from it. A log that is
/// not whole is refused, and nothing is changed. Nobody else may write meanwhile: the daemon must be stopped.
pub async fn rebuild(url: &str, progress: Progress<'_>) -> Result<Report, Fault> {
    let mut writer = Writer::open(url).await?;
    sqlx::query("begin immediate").execute(&mut writer.connection).await?;
    let outcome = match writer.rebuild(progress).await {
        Ok(report) => match sqlx::query("commit").execute(&mut writer.connection).await {
            Ok(_) => Ok(report),
            Err(error) => Err(error.into()),
        },
        Err(fault) => Err(fault),
    };
    if outcome.is_err() {
        // SQLite may have rolled back by itself (a full disk does that); then this one says so, harmlessly.
        sqlx::query("rollback").execute(&mut writer.connection).await.ok();
    }
    writer.truncate_wal().await.ok();
    writer.close().await?;
    outcome
}

impl Writer {
    async fn rebuild(&mut self, progress: Progress<'_>) -> Result<Report, Fault> {
        // Indexes too: what is deleted and read from here on is found by them.
        sqlx::query("reindex").execute(&mut self.connection).await?;
        for sql in [
            "delete from organization",
            "delete from application",
            "delete from service_account",
            "delete from session",
            "delete from session_activity",
            "delete from session_detail",
            "delete from revocation",
            "delete from item",
        ] {
            sqlx::query(sql).execute(&mut self.connection).await?;
        }
        let total: i64 = sqlx::query_scalar("select coalesce(max(position), 0) from event")
            .fetch_one(&mut self.connection)
            .await?;
        // All activity goes into the rows: none has to be kept for those that are behind.
        let mut log = Log::new(Position(i64::MAX));
        loop {
            let mut batch = Batch::default();
            let count = follow(&mut self.connection, &mut log, |detail| batch.details.push(detail)).await?;
            self.write(&batch).await?;
            progress(log.position().unsigned_abs(), total.unsigned_abs());
            if count < PAGE {
                break;
            }
        }
        log.complete()?;
        let report = log.report();
        let mut rest = log.into_rows();
        while let Some(batch) = next(&mut rest) {
            self.write(&batch).await?;
        }
        self.mark("settled", report.position).await?;
        whole(malformed(&mut self.connection).await?)?;
        Ok(report)
    }
}

/// The next chunk of rows; none when there are no more.
fn next(rest: &mut impl Iterator<Item = Batch>) -> Option<Batch> {
    let mut chunk = rest.next()?;
    for row in rest.take(CHUNK) {
        chunk.organizations.extend(row.organizations);
        chunk.applications.extend(row.applications);
        chunk.service_accounts.extend(row.service_accounts);
        chunk.revocations.extend(row.revocations);
        chunk.streams.extend(row.streams);
        chunk.sessions.extend(row.sessions);
        chunk.settle.extend(row.settle);
    }
    Some(chunk)
}
