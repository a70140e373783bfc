//! What stands beside the log, written and erased: secrets, people, outcomes.

use sessiond_core::idempotency::{KEPT, RecordedOutcome};
use sessiond_core::ids::{Position, PrincipalNumber, SessionNumber};
use sqlx::Row;

use super::log::mark;
use super::writer::SqliteWriter;
use crate::StoreError;
use crate::called;
use crate::erased::without_names;
use crate::row::SideWrite;

impl SqliteWriter {
    pub(super) async fn write_side(&mut self, side: &SideWrite) -> Result<(), StoreError> {
        let query = match side {
            // Many at a time, above.
            SideWrite::SessionToken(..) | SideWrite::Principal(_) => return Ok(()),
            SideWrite::KeyCheck(digest) => {
                sqlx::query("insert or replace into key_check (only_one, digest) values (1, ?)")
                    .bind(digest.as_slice())
            }
            SideWrite::Reseal(sealed) => return self.reseal(sealed).await,
            SideWrite::Redigest { number, subject_digest, kept_id } => {
                sqlx::query("update principal set subject_digest = ?, kept_id = ? where number = ?")
                    .bind(subject_digest.as_slice())
                    .bind(kept_id)
                    .bind(number.0)
            }
            SideWrite::ClientSecret { client_id, secret_hash, before_until } => sqlx::query(
                "insert into client_secret (client_id, secret_hash) values (?1, ?2) on conflict (client_id) do update \
                 set before = iif(?3 is null, null, secret_hash), before_until = ?3, secret_hash = ?2",
            )
            .bind(client_id)
            .bind(secret_hash.as_slice())
            .bind(before_until.map(|until| until.timestamp_millis())),
            SideWrite::AccessToken(token) => {
                sqlx::query("insert into access_token values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)")
                    .bind(token.id)
                    .bind(token.secret_hash.as_slice())
                    .bind(token.organization.0)
                    .bind(token.client_kind as i64)
                    .bind(token.client)
                    .bind(token.scopes.to_string())
                    .bind(token.issued_at.0)
                    .bind(token.expires_at.timestamp_millis())
                    .bind(token.barred)
                    .bind(token.audience)
            }
            SideWrite::BarAccessToken(id) => {
                sqlx::query("update access_token set barred = 1 where id = ?").bind(id)
            }
            SideWrite::McpSession(session, mcp) => {
                sqlx::query("insert or replace into mcp_session (session, id_hash, sealed) values (?, ?, ?)")
                    .bind(session.0)
                    .bind(mcp.id_hash.as_slice())
                    .bind(&mcp.sealed)
            }
            SideWrite::ForgetMcp(sessions) => {
                let numbers = serde_json::to_string(sessions).unwrap_or_default();
                sqlx::query(
                    "update mcp_session set sealed = x'' where session in (select value from json_each(?))",
                )
                .bind(numbers)
            }
            SideWrite::MachineSecret { id, sealed } => {
                sqlx::query("insert or replace into machine_secret (id, sealed) values (?, ?)")
                    .bind(id)
                    .bind(sealed)
            }
            SideWrite::ForgetMachine(id) => sqlx::query("delete from machine_secret where id = ?").bind(id),
            SideWrite::Confirmation(confirmation) => {
                sqlx::query("insert or ignore into confirmation (session, at, message) values (?, ?, ?)")
                    .bind(confirmation.session.0)
                    .bind(confirmation.at.timestamp_millis())
                    .bind(&confirmation.message)
            }
            SideWrite::UpstreamSecret { application, sealed: Some(sealed) } => {
                sqlx::query("insert or replace into upstream_secret (application, sealed) values (?, ?)")
                    .bind(application.0)
                    .bind(sealed)
            }
            SideWrite::UpstreamSecret { application, sealed: None } => {
                sqlx::query("delete from upstream_secret where application = ?").bind(application.0)
            }
            SideWrite::ApiKeySecret { id, secret_hash } => {
                sqlx::query("insert into api_key_secret (id, secret_hash) values (?, ?)")
                    .bind(id)
                    .bind(secret_hash.as_slice())
            }
            SideWrite::RotateApiKeySecret { id, secret_hash } => {
                sqlx::query("update api_key_secret set before = secret_hash, secret_hash = ? where id = ?")
                    .bind(secret_hash.as_slice())
                    .bind(id)
            }
            SideWrite::ApiKeysUsed(used) => {
                for (id, at) in used {
                    sqlx::query("update api_key_secret set last_used_at = ? where id = ?")
                        .bind(at.timestamp_millis())
                        .bind(id)
                        .execute(&mut self.connection)
                        .await?;
                }
                return Ok(());
            }
            SideWrite::DescribePrincipal { number, name, email } => {
                let sql =
                    "update principal set name = coalesce(?, name), email = coalesce(?, email) where number = ?";
                let query = sqlx::query(sql).bind(name).bind(email).bind(number.0);
                query.execute(&mut self.connection).await?;
                return self.file_words(*number).await;
            }
            SideWrite::ErasePrincipal(number) => {
                let sql = "update principal set subject = null, name = null, email = null where number = ?";
                sqlx::query(sql).bind(number.0).execute(&mut self.connection).await?;
                return self.file_words(*number).await;
            }
            SideWrite::ErasePersonal(sessions) => return self.erase_personal(sessions).await,
            SideWrite::RevokeAccessToken(id) => sqlx::query("delete from access_token where id = ?").bind(id),
            SideWrite::ForgetTokens(before) => {
                sqlx::query("delete from access_token where expires_at < ?").bind(before.timestamp_millis())
            }
            SideWrite::WebhookSecret { .. }
            | SideWrite::RotateWebhookSecret { .. }
            | SideWrite::ForgetWebhook(_)
            | SideWrite::ForgetDeliveriesOf(_)
            | SideWrite::Deliveries { .. }
            | SideWrite::ForgetDeliveries { .. } => return self.write_webhook(side).await,
            SideWrite::Outcome(outcome) => return self.write_outcome(outcome).await,
            SideWrite::ForgetOutcomes(up_to) => sqlx::query(
                "delete from idempotency where key in \
                 (select key from idempotency where recorded_at <= ? order by recorded_at limit 500)",
            )
            .bind(up_to.timestamp_millis()),
            SideWrite::LetSessionsGo { sessions, positions, resources } => {
                return self.let_sessions_go(sessions, positions, resources).await;
            }
            SideWrite::Fold { positions, cuts } => return self.fold(positions, cuts).await,
            SideWrite::FoldedTo(organizations, position) => {
                return self.folded_to(organizations, *position).await;
            }
            SideWrite::Count(count) => return self.write_count(count).await,
            SideWrite::Recount(again) => return self.uncount(again).await,
        };
        query.execute(&mut self.connection).await?;
        Ok(())
    }

    /// Files a principal under the words that it is found by now, and under no others.
    async fn file_words(&mut self, number: PrincipalNumber) -> Result<(), StoreError> {
        let sql = "delete from principal_word where principal = ?";
        sqlx::query(sql).bind(number.0).execute(&mut self.connection).await?;
        let sql = "select organization, name, email from principal where number = ?";
        let row = sqlx::query(sql).bind(number.0).fetch_optional(&mut self.connection).await?;
        let Some(row) = row else { return Ok(()) };
        let organization: i64 = row.try_get("organization")?;
        let (name, email): (Option<String>, Option<String>) = (row.try_get("name")?, row.try_get("email")?);
        for word in called::found_by(name.as_deref(), email.as_deref()) {
            sqlx::query("insert into principal_word (organization, word, principal) values (?, ?, ?)")
                .bind(organization)
                .bind(word)
                .bind(number.0)
                .execute(&mut self.connection)
                .await?;
        }
        Ok(())
    }

    /// Files whoever was described by a release that filed nobody. Once: what is described later is filed with it.
    pub(super) async fn file_people(&mut self) -> Result<(), StoreError> {
        if mark(&mut self.connection, "people").await? > Position(0) {
            return Ok(());
        }
        sqlx::query("begin immediate").execute(&mut self.connection).await?;
        let filed = self.file_all().await;
        self.end(filed).await
    }

    async fn file_all(&mut self) -> Result<(), StoreError> {
        let sql = "select number from principal where name is not null or email is not null";
        let numbers: Vec<i64> = sqlx::query_scalar(sql).fetch_all(&mut self.connection).await?;
        for number in numbers {
            self.file_words(PrincipalNumber(number)).await?;
        }
        self.mark("people", Position(1)).await
    }

    /// Erases the personal facts of sessions: their digests in the hashed bodies tell nothing, as the salt goes too.
    async fn erase_personal(&mut self, sessions: &[SessionNumber]) -> Result<(), StoreError> {
        for number in sessions {
            self.erase_from_body(*number).await?;
            for sql in [
                "update event set personal = null where position = (select connected_head from session where number = ?)",
                "update session_detail set name = null, hostname = null, user_agent = null, client_info = null, \
                 ip = null, client = null, token_identifier = null, client_session_id = case \
                 when (select resource from session s where s.number = session_detail.number) is not null \
                 then client_session_id end where number = ?",
                "delete from session_word where session = ?",
            ] {
                sqlx::query(sql).bind(number.0).execute(&mut self.connection).await?;
            }
        }
        self.unsay_labels(sessions).await
    }

    /// Older releases had names that the client chose in the hashed body. They go, and the digest of what was hashed stays.
    async fn erase_from_body(&mut self, number: SessionNumber) -> Result<(), StoreError> {
        let sql = "select position, body from event where type = 'connected' and body_digest is null and position = \
                   (select connected_head from session where number = ?)";
        let row = sqlx::query(sql).bind(number.0).fetch_optional(&mut self.connection).await?;
        let Some(row) = row else { return Ok(()) };
        let (position, body): (i64, String) = (row.try_get(0)?, row.try_get(1)?);
        let Some((erased, digest)) = without_names(&body) else { return Ok(()) };
        sqlx::query("update event set body = ?, body_digest = ? where position = ?")
            .bind(erased)
            .bind(digest.as_slice())
            .bind(position)
            .execute(&mut self.connection)
            .await?;
        Ok(())
    }

    /// Keeps what a request came to. That it is the only one under its key for as long as outcomes are kept is seen to
    /// here, in the transaction of what it did.
    async fn write_outcome(&mut self, outcome: &RecordedOutcome) -> Result<(), StoreError> {
        let written = sqlx::query(
            "insert into idempotency (key, fingerprint, salt, outcome, recorded_at, session) values (?, ?, ?, ?, ?, ?) \
             on conflict (key) do update set fingerprint = excluded.fingerprint, salt = excluded.salt, \
             outcome = excluded.outcome, recorded_at = excluded.recorded_at, session = excluded.session \
             where idempotency.recorded_at <= excluded.recorded_at - ?",
        )
        .bind(outcome.key.as_slice())
        .bind(outcome.fingerprint.as_slice())
        .bind(outcome.salt.as_slice())
        .bind(outcome.done.as_str())
        .bind(outcome.recorded_at.timestamp_millis())
        .bind(outcome.session.map(|session| session.0))
        .bind(KEPT.num_milliseconds())
        .execute(&mut self.connection)
        .await?;
        if written.rows_affected() == 0 {
            return Err(StoreError::Failed("a request was about to take effect twice".to_owned()));
        }
        Ok(())
    }
}
