//! A batch, written row by row. Many rows go in a statement: its hops to SQLite's thread cost more than its rows.

use sessiond_core::application::Application;
use sessiond_core::ids::Position;
use sessiond_core::organization::Organization;
use sessiond_core::revocation::Revocation;
use sessiond_core::service_account::ServiceAccount;
use sessiond_core::session::Session;
use sessiond_core::streams::AnyStream;

use super::insert::{
    ACTIVITY_ROW, APPLICATION, Bound, DETAIL, EVENT, ITEM, Insert, ORGANIZATION, PRINCIPAL, REVOCATION,
    SERVICE_ACCOUNT, SESSION, SESSION_TOKEN, bind_activity, bind_detail, bind_event, bind_session, put,
};
use super::writer::SqliteWriter;
use crate::StoreError;
use crate::check::chosen_text;
use crate::row::{Batch, SessionActivity, SideWrite};
use crate::tables::{has_own_table, of};

impl SqliteWriter {
    /// Writes a batch, all but its activity, and those hot rows whose turn it is.
    pub(super) async fn write(&mut self, batch: &Batch, hot: &[SessionActivity]) -> Result<(), StoreError> {
        self.put(&EVENT, &batch.events, bind_event).await?;
        self.put(&SESSION, &batch.sessions, bind_session).await?;
        self.put(&DETAIL, &batch.details, bind_detail).await?;
        self.write_words(&batch.details).await?;
        self.forget_hot_rows(&batch.sessions).await?;
        self.put(&ACTIVITY_ROW, hot, bind_activity).await?;
        self.write_past(batch).await?;
        self.write_streams(&batch.streams).await?;
        self.write_tokens_and_principals(batch).await?;
        for side in &batch.side {
            self.write_side(side).await?;
        }
        Ok(())
    }

    /// Of these there may be many in a batch.
    async fn write_tokens_and_principals(&mut self, batch: &Batch) -> Result<(), StoreError> {
        let tokens: Vec<_> = batch
            .side
            .iter()
            .filter_map(|side| match side {
                SideWrite::SessionToken(session, token) => Some((*session, *token)),
                _ => None,
            })
            .collect();
        self.put(&SESSION_TOKEN, &tokens, |bound, (session, token)| {
            bound
                .add(session.0)
                .add(token.secret_hash.as_slice())
                .add(token.issued_at.0)
                .time(token.expires_at);
        })
        .await?;
        let principals: Vec<_> = batch
            .side
            .iter()
            .filter_map(|side| match side {
                SideWrite::Principal(principal) => Some(principal),
                _ => None,
            })
            .collect();
        self.put(&PRINCIPAL, &principals, |bound, principal| {
            bound
                .add(principal.number.0)
                .add(principal.organization.0)
                .add(principal.issuer.as_str())
                .add(principal.subject_digest.as_slice())
                .add(principal.subject.as_deref())
                .add(principal.kept_id);
        })
        .await
    }

    pub(super) async fn put<Value>(
        &mut self,
        insert: &'static Insert,
        rows: &[Value],
        bind: impl Fn(&mut Bound, &Value),
    ) -> Result<(), StoreError> {
        put(&mut self.connection, insert, rows, bind).await
    }

    /// A lifecycle row has the figures too, and newer ones: a hot row from before it would only be wrong. One that
    /// has just connected has no hot row yet.
    async fn forget_hot_rows(&mut self, sessions: &[Session]) -> Result<(), StoreError> {
        let older = sessions.iter().filter(|session| session.head.version > 1);
        let numbers: Vec<i64> = older.map(|session| session.number.0).collect();
        if numbers.is_empty() {
            return Ok(());
        }
        let numbers = serde_json::to_string(&numbers).unwrap_or_default();
        let sql = "delete from session_activity where number in (select value from json_each(?))";
        sqlx::query(sql).bind(numbers).execute(&mut self.connection).await?;
        Ok(())
    }

    /// Streams of some kinds have a table of their own, with columns to look them up by; all others share one.
    async fn write_streams(&mut self, streams: &[AnyStream]) -> Result<(), StoreError> {
        if streams.is_empty() {
            return Ok(());
        }

        self.put(&ORGANIZATION, &of::<Organization>(streams), |bound, row| {
            bound
                .add(row.number.0)
                .add(row.id)
                .add(row.name.as_str())
                .time(row.created_at)
                .head(&row.head)
                .add(row.valid_from.0)
                .add(serde_json::to_string(&row.issuers).unwrap_or_default())
                .add(row.restored_at.0)
                .add(chosen_text(&row.retention))
                .add(chosen_text(&row.let_go));
        })
        .await?;
        self.put(&APPLICATION, &of::<Application>(streams), |bound, row| {
            bound
                .add(row.number.0)
                .add(row.id)
                .add(row.organization.0)
                .add(row.name.as_str())
                .add(row.description.as_deref())
                .add(serde_json::to_string(&row.oauth).unwrap_or_default())
                .add(row.upstream.as_deref())
                .time(row.created_at)
                .time(row.updated_at)
                .optional_time(row.archived_at)
                .add(row.valid_from.0)
                .head(&row.head)
                .add(row.policy.as_ref().map(|policy| serde_json::to_string(policy).unwrap_or_default()))
                .add(
                    row.upstream_credential
                        .as_ref()
                        .map(|one| serde_json::to_string(one).unwrap_or_default()),
                )
                .add(i64::from(row.on_the_way))
                .add(row.upstream_headers.as_ref().map(|one| serde_json::to_string(one).unwrap_or_default()));
        })
        .await?;
        let others: Vec<_> = streams.iter().filter(|stream| !has_own_table(stream)).collect();
        self.put(&ITEM, &others, |bound, item| {
            bound
                .add(item.stream().kind as i64)
                .add(item.stream().number)
                .add(item.id())
                .add(item.organization().0)
                .add(item.state())
                .head(&item.head());
        })
        .await?;
        self.put(&SERVICE_ACCOUNT, &of::<ServiceAccount>(streams), |bound, row| {
            bound
                .add(row.number.0)
                .add(row.id)
                .add(row.organization.0)
                .add(row.name.as_str())
                .add(row.client_id.as_str())
                .add(row.scopes.to_string())
                .add(row.application.map(|number| number.0))
                .time(row.created_at)
                .optional_time(row.archived_at)
                .head(&row.head);
        })
        .await?;
        self.put(&REVOCATION, &of::<Revocation>(streams), |bound, row| {
            bound
                .add(row.number.0)
                .add(row.id)
                .add(row.organization.0)
                .add(serde_json::to_string(&row.filter).unwrap_or_default())
                .add(row.reason.word())
                .add(row.note.as_deref())
                .add(row.fence.0)
                .time(row.instant)
                .optional_time(row.ended_at)
                .count(row.disconnected_count)
                .head(&row.head);
        })
        .await
    }

    pub(super) async fn mark(&mut self, name: &'static str, position: Position) -> Result<(), StoreError> {
        sqlx::query("insert or replace into mark (name, position) values (?, ?)")
            .bind(name)
            .bind(position.0)
            .execute(&mut self.connection)
            .await?;
        Ok(())
    }
}
