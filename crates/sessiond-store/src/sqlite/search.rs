//! Sessions by words of what they are called.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use sessiond_core::ids::{ApplicationNumber, Position, SessionNumber};
use sqlx::{AssertSqlSafe, Row, SqliteConnection};
use uuid::Uuid;

use super::insert::Insert;
use super::log::mark;
use super::store::SqliteStore;
use super::writer::SqliteWriter;
use crate::row::Detail;
use crate::seam::{FoundBy, Postings, Search};
use crate::tables::WORDS_FILED;
use crate::{StoreError, called};

static WORD: Insert = Insert::new("session_word (application, word, session)", 3, "");

/// Sessions of earlier releases that are filed at a time.
const AT_ONCE: i64 = 2_048;

#[async_trait]
impl Search for SqliteStore {
    async fn words_beginning(
        &self,
        application: ApplicationNumber,
        prefix: &str,
        limit: usize,
    ) -> Result<Vec<String>, StoreError> {
        // From word to word, past all sessions of each. Nothing that begins so comes after it with the last character there is.
        let sql = "with recursive chain (word) as (\
             select (select word from session_word where application = ?1 and word >= ?2 and word < ?3 \
             order by word limit 1) \
             union all \
             select (select w.word from session_word w where w.application = ?1 and w.word > chain.word \
             and w.word < ?3 order by w.word limit 1) from chain where chain.word is not null) \
             select word from chain where word is not null limit ?4";
        let query = sqlx::query_scalar(sql).bind(application.0).bind(prefix);
        let query = query.bind(format!("{prefix}\u{10ffff}")).bind(limit as i64);
        Ok(query.fetch_all(&self.pool).await?)
    }

    async fn postings(&self, page: &Postings<'_>) -> Result<Vec<Vec<SessionNumber>>, StoreError> {
        let (direction, beyond, before_all) =
            if page.descending { ("desc", "<", i64::MAX) } else { ("asc", ">", i64::MIN) };
        let (wanted, from, column) = match page.by {
            FoundBy::Words([]) | FoundBy::Principals([]) => return Ok(vec![]),
            FoundBy::Words(words) => (
                serde_json::to_string(words).unwrap_or_default(),
                "session_word where application = ?2 and word = wanted.value",
                "session",
            ),
            FoundBy::Principals(principals) => (
                serde_json::to_string(principals).unwrap_or_default(),
                "session indexed by session_ended_by_principal \
                 where application = ?2 and principal = wanted.value and state = 0",
                "number",
            ),
            FoundBy::Numbers(first, last) => (
                serde_json::to_string(&[(first, last)]).unwrap_or_default(),
                "session indexed by session_ended where application = ?2 and state = 0 \
                 and number >= wanted.value ->> 0 and number <= wanted.value ->> 1",
                "number",
            ),
        };
        let sql = format!(
            "select (select json_group_array(number) from (select {column} as number from {from} \
             and {column} {beyond} ?3 order by {column} {direction} limit ?4)) from json_each(?1) wanted"
        );
        let query = sqlx::query_scalar(AssertSqlSafe(sql)).bind(wanted).bind(page.application.0);
        let after = page.after.map_or(before_all, |after| after.0);
        let lists: Vec<String> = query.bind(after).bind(page.limit as i64).fetch_all(&self.pool).await?;
        let damaged = |error| StoreError::Damaged { position: 0, what: format!("postings: {error}") };
        lists.iter().map(|list| serde_json::from_str(list).map_err(damaged)).collect()
    }

    async fn numbers_of_ids(
        &self,
        first: Uuid,
        last: Uuid,
    ) -> Result<Option<(SessionNumber, SessionNumber)>, StoreError> {
        let sql = "select (select number from session where id >= ?1 and id <= ?2 order by id limit 1), \
                   (select number from session where id >= ?1 and id <= ?2 order by id desc limit 1)";
        let (first, last): (Option<i64>, Option<i64>) =
            sqlx::query_as(sql).bind(first).bind(last).fetch_one(&self.pool).await?;
        Ok(first.map(SessionNumber).zip(last.map(SessionNumber)))
    }
}

impl SqliteWriter {
    /// Files sessions under the words that they are found by.
    pub(super) async fn write_words(
        &mut self,
        details: &[(SessionNumber, ApplicationNumber, Detail)],
    ) -> Result<(), StoreError> {
        let words: Vec<_> = details
            .iter()
            .flat_map(|(number, application, detail)| {
                called::of_session(detail).into_iter().map(move |word| (application.0, word, number.0))
            })
            .collect();
        self.put(&WORD, &words, |bound, (application, word, number)| {
            bound.add(*application).add(word.as_str()).add(*number);
        })
        .await
    }

    /// Files sessions that a release recorded which filed none. Once: later ones are filed when they connect.
    pub(super) async fn file_sessions(&mut self) -> Result<(), StoreError> {
        if mark(&mut self.connection, WORDS_FILED).await? > Position(0) {
            return Ok(());
        }
        sqlx::query("begin immediate").execute(&mut self.connection).await?;
        let filed = self.file_all_sessions().await;
        self.end(filed).await
    }

    async fn file_all_sessions(&mut self) -> Result<(), StoreError> {
        sqlx::query("delete from session_word").execute(&mut self.connection).await?;
        let sql = "select number, application, name, hostname, client from session_detail \
                   where number > ? order by number limit ?";
        let mut after = i64::MIN;
        loop {
            let query = sqlx::query(sql).bind(after).bind(AT_ONCE);
            let rows = query.fetch_all(&mut self.connection).await?;
            let Some(last) = rows.last() else { break };
            after = last.try_get("number")?;
            let mut details = Vec::with_capacity(rows.len());
            for row in &rows {
                let detail = Detail {
                    name: row.try_get("name")?,
                    hostname: row.try_get("hostname")?,
                    client: row.try_get("client")?,
                    ..Detail::default()
                };
                let number = SessionNumber(row.try_get("number")?);
                details.push((number, ApplicationNumber(row.try_get("application")?), detail));
            }
            self.write_words(&details).await?;
        }
        self.mark(WORDS_FILED, Position(1)).await
    }
}

/// The words that sessions are filed under, from after a number up to another.
pub(super) async fn words_of(
    connection: &mut SqliteConnection,
    after: i64,
    upto: i64,
) -> Result<BTreeMap<i64, BTreeSet<(i64, String)>>, StoreError> {
    let sql = "select session, application, word from session_word indexed by session_word_of_session \
               where session > ? and session <= ?";
    let mut words: BTreeMap<i64, BTreeSet<(i64, String)>> = BTreeMap::new();
    for row in sqlx::query(sql).bind(after).bind(upto).fetch_all(connection).await? {
        words.entry(row.try_get(0)?).or_default().insert((row.try_get(1)?, row.try_get(2)?));
    }
    Ok(words)
}
