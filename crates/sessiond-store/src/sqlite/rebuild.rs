//! Makes the rows again from the log.

use sessiond_core::ids::Position;
use sqlx::AssertSqlSafe;

use super::verify::{follow, whole};
use super::writer::SqliteWriter;
use super::{space, wal};
use crate::check::{Fault, LogCheck, PAGE, Progress, Report};
use crate::row::Batch;
use crate::tables::{EARLIER_FILED, ROWS, WORDS_FILED, next_chunk};

/// Makes every row and every index again.
pub(crate) async fn rebuild(url: &str, progress: Progress<'_>) -> Result<Report, Fault> {
    let mut writer = SqliteWriter::connect(url).await?;
    sqlx::query("begin immediate").execute(&mut writer.connection).await?;
    let made = writer.rebuild(progress).await;
    let outcome = writer.end(made).await;
    if outcome.is_ok() {
        space::give_all_back(&mut writer.connection).await?;
    }
    wal::close(writer.connection).await?;
    outcome
}

impl SqliteWriter {
    async fn rebuild(&mut self, progress: Progress<'_>) -> Result<Report, Fault> {
        // Indexes too: what is deleted and read from here on is found by them.
        sqlx::query("reindex").execute(&mut self.connection).await?;
        for table in ROWS {
            let sql = format!("delete from {table}");
            sqlx::query(AssertSqlSafe(sql)).execute(&mut self.connection).await?;
        }
        let total: i64 = sqlx::query_scalar("select coalesce(max(position), 0) from event")
            .fetch_one(&mut self.connection)
            .await?;
        // All activity goes into the rows: none has to be kept for those that are behind.
        let mut log = LogCheck::new(Position(i64::MAX), Position(i64::MAX));
        loop {
            let mut batch = Batch::default();
            let count = follow(&mut self.connection, &mut log, |detail| batch.details.push(detail)).await?;
            self.write(&batch, &batch.activity).await?;
            progress(log.position().unsigned_abs(), total.unsigned_abs());
            if count < PAGE {
                break;
            }
        }
        log.complete()?;
        let report = log.report();
        self.add_to_resources(&log.resources()).await?;
        let mut rest = log.into_rows();
        while let Some(batch) = next_chunk(&mut rest) {
            self.write(&batch, &batch.activity).await?;
        }
        self.mark("settled", report.position).await?;
        self.mark(EARLIER_FILED, Position(1)).await?;
        self.mark(WORDS_FILED, Position(1)).await?;
        whole(&mut self.connection).await?;
        Ok(report)
    }
}
