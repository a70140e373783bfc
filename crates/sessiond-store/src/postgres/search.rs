//! Sessions by words of what they are called.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use sessiond_core::ids::{ApplicationNumber, Position, SessionNumber};
use sqlx::postgres::{PgArguments, PgConnection, Postgres};
use sqlx::query::Query;
use sqlx::{AssertSqlSafe, Row};
use uuid::Uuid;

use super::insert::each;
use super::people::{mark, set_mark};
use super::store::PgStore;
use crate::row::Detail;
use crate::seam::{FoundBy, Postings, Search};
use crate::tables::WORDS_FILED;
use crate::{StoreError, called};

const WORD: &str = "insert into session_word (application, word, session) \
     select * from unnest($1::bigint[], $2::text[], $3::bigint[])";

/// Sessions of earlier releases that are filed at a time.
const AT_ONCE: i64 = 2_048;

#[async_trait]
impl Search for PgStore {
    async fn words_beginning(
        &self,
        application: ApplicationNumber,
        prefix: &str,
        limit: usize,
    ) -> Result<Vec<String>, StoreError> {
        // From word to word, past all sessions of each. Nothing that begins so comes after it with the last character there is.
        let sql = "with recursive chain (word) as (\
             select (select word from session_word where application = $1 and word >= $2 and word < $3 \
             order by word limit 1) \
             union all \
             select (select w.word from session_word w where w.application = $1 and w.word > chain.word \
             and w.word < $3 order by w.word limit 1) from chain where chain.word is not null) \
             select word from chain where word is not null limit $4";
        let query = sqlx::query_scalar(sql).bind(application.0).bind(prefix);
        let query = query.bind(format!("{prefix}\u{10ffff}"));
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        Ok(query.bind(limit).fetch_all(&self.pool).await?)
    }

    async fn postings(&self, page: &Postings<'_>) -> Result<Vec<Vec<SessionNumber>>, StoreError> {
        let (direction, beyond, before_all) =
            if page.descending { ("desc", "<", i64::MAX) } else { ("asc", ">", i64::MIN) };
        let (wanted, from, column) = match page.by {
            FoundBy::Words([]) | FoundBy::Principals([]) => return Ok(vec![]),
            FoundBy::Words(_) => {
                ("unnest($4::text[])", "session_word where application = $1 and word = wanted.one", "session")
            }
            FoundBy::Principals(_) => (
                "unnest($4::bigint[])",
                "session where application = $1 and principal = wanted.one and state = 0",
                "number",
            ),
            FoundBy::Numbers(..) => (
                "(values (0))",
                "session where application = $1 and state = 0 and number >= $4 and number <= $5",
                "number",
            ),
        };
        let sql = format!(
            "select array(select {column} from {from} and {column} {beyond} $2 order by {column} {direction} limit $3) \
             from {wanted} as wanted (one)"
        );
        let after = page.after.map_or(before_all, |after| after.0);
        let limit = i64::try_from(page.limit).unwrap_or(i64::MAX);
        let query = sqlx::query(AssertSqlSafe(sql)).bind(page.application.0).bind(after).bind(limit);
        let rows = bound(query, page.by).fetch_all(&self.pool).await?;
        let list = |numbers: Vec<i64>| numbers.into_iter().map(SessionNumber).collect();
        rows.iter().map(|row| Ok(list(row.try_get(0)?))).collect()
    }

    async fn numbers_of_ids(
        &self,
        first: Uuid,
        last: Uuid,
    ) -> Result<Option<(SessionNumber, SessionNumber)>, StoreError> {
        let sql = "select (select number from session where id >= $1 and id <= $2 order by id limit 1), \
                   (select number from session where id >= $1 and id <= $2 order by id desc limit 1)";
        let (first, last): (Option<i64>, Option<i64>) =
            sqlx::query_as(sql).bind(first).bind(last).fetch_one(&self.pool).await?;
        Ok(first.map(SessionNumber).zip(last.map(SessionNumber)))
    }
}

type Bound<'query> = Query<'query, Postgres, PgArguments>;

/// Binds what sessions have in common that are looked for.
fn bound<'query>(query: Bound<'query>, by: FoundBy<'query>) -> Bound<'query> {
    match by {
        FoundBy::Words(words) => query.bind(words),
        FoundBy::Principals(principals) => query.bind(each(principals, |principal| principal.0)),
        FoundBy::Numbers(first, last) => query.bind(first.0).bind(last.0),
    }
}

/// Files sessions under the words that they are found by.
pub(super) async fn write(
    connection: &mut PgConnection,
    details: &[(SessionNumber, ApplicationNumber, Detail)],
) -> Result<(), StoreError> {
    let words: Vec<_> = details
        .iter()
        .flat_map(|(number, application, detail)| {
            called::of_session(detail).into_iter().map(move |word| (application.0, word, number.0))
        })
        .collect();
    if words.is_empty() {
        return Ok(());
    }
    sqlx::query(WORD)
        .bind(each(&words, |(application, ..)| *application))
        .bind(each(&words, |(_, word, _)| word.as_str()))
        .bind(each(&words, |(.., number)| *number))
        .execute(connection)
        .await?;
    Ok(())
}

/// Files sessions that a release recorded which filed none. Once: later ones are filed when they connect.
pub(super) async fn file(connection: &mut PgConnection, turn_key: i64) -> Result<(), StoreError> {
    if mark(connection, WORDS_FILED).await? > Position(0) {
        return Ok(());
    }
    // It takes as long as it takes; and a transaction that is not committed is gone with its connection.
    let begin = format!(
        "begin; set local idle_in_transaction_session_timeout = 0; set local statement_timeout = 0; \
         set local lock_timeout = 0; select pg_advisory_xact_lock({turn_key}); delete from session_word"
    );
    sqlx::raw_sql(AssertSqlSafe(begin)).execute(&mut *connection).await?;
    let sql = "select number, application, name, hostname, client from session_detail \
               where number > $1 order by number limit $2";
    let mut after = i64::MIN;
    loop {
        let rows = sqlx::query(sql).bind(after).bind(AT_ONCE).fetch_all(&mut *connection).await?;
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
        write(connection, &details).await?;
    }
    set_mark(connection, WORDS_FILED, Position(1)).await?;
    sqlx::raw_sql("commit").execute(connection).await?;
    Ok(())
}

/// The words that sessions are filed under, from after a number up to another.
pub(super) async fn words_of(
    connection: &mut PgConnection,
    after: i64,
    upto: i64,
) -> Result<BTreeMap<i64, BTreeSet<(i64, String)>>, StoreError> {
    let sql = "select session, application, word from session_word where session > $1 and session <= $2";
    let mut words: BTreeMap<i64, BTreeSet<(i64, String)>> = BTreeMap::new();
    for row in sqlx::query(sql).bind(after).bind(upto).fetch_all(connection).await? {
        words.entry(row.try_get(0)?).or_default().insert((row.try_get(1)?, row.try_get(2)?));
    }
    Ok(words)
}
