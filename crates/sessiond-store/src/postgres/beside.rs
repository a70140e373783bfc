//! What stands beside the log, written and erased: secrets, outcomes. Of what a batch may have much, what follows one another
//! goes in one statement each: with a statement for each, whoever waits for the turn would wait for the network.

use sessiond_core::idempotency::{KEPT, RecordedOutcome};
use sessiond_core::ids::SessionNumber;
use sessiond_core::token::AccessToken;
use sqlx::Postgres;
use sqlx::postgres::{PgArguments, PgConnection};
use sqlx::query::Query;
use uuid::Uuid;

use super::insert::each;
use super::{letting_go, people, sealed, statistics, webhooks};
use crate::StoreError;
use crate::row::{Confirmation, McpSession, SideWrite};
use crate::tables::newest;

const ACCESS_TOKEN: &str = "insert into access_token (id, secret_hash, organization, client_kind, client, scopes, issued_at, \
     expires_at, barred, audience) \
     select * from unnest($1::uuid[], $2::bytea[], $3::bigint[], $4::bigint[], $5::bigint[], $6::text[], \
     $7::bigint[], $8::bigint[], $9::boolean[], $10::uuid[])";

const MCP_SESSION: &str = "insert into mcp_session (session, id_hash, sealed) \
     select * from unnest($1::bigint[], $2::bytea[], $3::bytea[]) \
     on conflict (session) do update set id_hash = excluded.id_hash, sealed = excluded.sealed";

const CONFIRMATION: &str = "insert into confirmation (session, at, message) \
     select * from unnest($1::bigint[], $2::bigint[], $3::text[]) \
     on conflict (session) do nothing";

const OUTCOME: &str = "insert into idempotency (key, fingerprint, salt, outcome, recorded_at, session) \
     select * from unnest($1::bytea[], $2::bytea[], $3::bytea[], $4::text[], $5::bigint[], $6::bigint[]) \
     on conflict (key) do update set fingerprint = excluded.fingerprint, salt = excluded.salt, \
     outcome = excluded.outcome, recorded_at = excluded.recorded_at, session = excluded.session \
     where idempotency.recorded_at <= excluded.recorded_at - $7";

/// Writes that follow one another, and that go by kind: they are in different tables.
#[derive(Default)]
struct Many<'side> {
    tokens: Vec<&'side AccessToken>,
    mcp: Vec<(SessionNumber, &'side McpSession)>,
    confirmations: Vec<&'side Confirmation>,
    outcomes: Vec<&'side RecordedOutcome>,
}

impl<'side> Many<'side> {
    /// Takes a write that goes with others; whether it is one.
    fn take(&mut self, side: &'side SideWrite) -> bool {
        match side {
            SideWrite::AccessToken(token) => self.tokens.push(token),
            SideWrite::McpSession(session, mcp) => self.mcp.push((*session, mcp)),
            SideWrite::Confirmation(confirmation) => self.confirmations.push(confirmation),
            SideWrite::Outcome(outcome) => self.outcomes.push(outcome),
            // Written before all of these.
            SideWrite::SessionToken(..) | SideWrite::Principal(_) => {}
            _ => return false,
        }
        true
    }

    async fn write(self, connection: &mut PgConnection) -> Result<(), StoreError> {
        if !self.tokens.is_empty() {
            write_tokens(connection, &self.tokens).await?;
        }
        if !self.mcp.is_empty() {
            write_mcp(connection, &self.mcp).await?;
        }
        if !self.confirmations.is_empty() {
            write_confirmations(connection, &self.confirmations).await?;
        }
        if !self.outcomes.is_empty() {
            write_outcomes(connection, &self.outcomes).await?;
        }
        Ok(())
    }
}

/// Writes all that stands beside a batch, in order.
pub(super) async fn write(connection: &mut PgConnection, sides: &[SideWrite]) -> Result<(), StoreError> {
    let mut many = Many::default();
    for side in sides {
        if !many.take(side) {
            std::mem::take(&mut many).write(connection).await?;
            write_one(connection, side).await?;
        }
    }
    many.write(connection).await
}

async fn write_one(connection: &mut PgConnection, side: &SideWrite) -> Result<(), StoreError> {
    match side {
        SideWrite::Reseal(sealed) => sealed::reseal(connection, sealed).await,
        SideWrite::ApiKeysUsed(used) => {
            let used = newest(used, |(id, _)| *id);
            let sql = "update api_key_secret k set last_used_at = used.at \
                       from unnest($1::uuid[], $2::bigint[]) as used (id, at) where k.id = used.id";
            let ids: Vec<Uuid> = each(&used, |(id, _)| *id);
            let times = each(&used, |(_, at)| at.timestamp_millis());
            sqlx::query(sql).bind(ids).bind(times).execute(connection).await?;
            Ok(())
        }
        SideWrite::DescribePrincipal { number, name, email } => {
            people::describe(connection, *number, name.as_deref(), email.as_deref()).await
        }
        SideWrite::ErasePrincipal(number) => people::erase(connection, *number).await,
        SideWrite::Count(count) => statistics::write(connection, count).await,
        SideWrite::Recount(again) => statistics::uncount(connection, again).await,
        SideWrite::ErasePersonal(sessions) => people::erase_personal(connection, sessions).await,
        SideWrite::WebhookSecret { .. }
        | SideWrite::RotateWebhookSecret { .. }
        | SideWrite::ForgetWebhook(_)
        | SideWrite::ForgetDeliveriesOf(_)
        | SideWrite::Deliveries { .. }
        | SideWrite::ForgetDeliveries { .. } => webhooks::write(connection, side).await,
        SideWrite::LetSessionsGo { sessions, positions, resources } => {
            letting_go::sessions(connection, sessions, positions, resources).await
        }
        SideWrite::Fold { positions, cuts } => letting_go::fold(connection, positions, cuts).await,
        SideWrite::FoldedTo(organizations, position) => {
            letting_go::folded_to(connection, organizations, *position).await
        }
        _ => {
            if let Some(query) = of_secrets(side) {
                query.execute(connection).await?;
            }
            Ok(())
        }
    }
}

/// The statement of a write that takes one.
fn of_secrets(side: &SideWrite) -> Option<Query<'_, Postgres, PgArguments>> {
    Some(match side {
        SideWrite::KeyCheck(digest) => sqlx::query(
            "insert into key_check (only_one, digest) values (1, $1) \
             on conflict (only_one) do update set digest = excluded.digest",
        )
        .bind(digest.as_slice()),
        SideWrite::Redigest { number, subject_digest, kept_id } => {
            sqlx::query("update principal set subject_digest = $1, kept_id = $2 where number = $3")
                .bind(subject_digest.as_slice())
                .bind(kept_id)
                .bind(number.0)
        }
        SideWrite::ClientSecret { client_id, secret_hash, before_until } => sqlx::query(
            "insert into client_secret as old (client_id, secret_hash) values ($1, $2) \
             on conflict (client_id) do update set \
             before = case when $3::bigint is not null then old.secret_hash end, \
             before_until = $3, secret_hash = excluded.secret_hash",
        )
        .bind(client_id)
        .bind(secret_hash.as_slice())
        .bind(before_until.map(|until| until.timestamp_millis())),
        SideWrite::BarAccessToken(id) => {
            sqlx::query("update access_token set barred = true where id = $1").bind(id)
        }
        SideWrite::RevokeAccessToken(id) => sqlx::query("delete from access_token where id = $1").bind(id),
        SideWrite::ForgetTokens(before) => {
            sqlx::query("delete from access_token where expires_at < $1").bind(before.timestamp_millis())
        }
        SideWrite::ForgetMcp(sessions) => {
            sqlx::query("update mcp_session set sealed = ''::bytea where session = any($1)")
                .bind(each(sessions, |session| session.0))
        }
        SideWrite::MachineSecret { id, sealed } => sqlx::query(
            "insert into machine_secret (id, sealed) values ($1, $2) \
             on conflict (id) do update set sealed = excluded.sealed",
        )
        .bind(id)
        .bind(sealed),
        SideWrite::ForgetMachine(id) => sqlx::query("delete from machine_secret where id = $1").bind(id),
        SideWrite::UpstreamSecret { application, sealed: Some(sealed) } => sqlx::query(
            "insert into upstream_secret (application, sealed) values ($1, $2) \
             on conflict (application) do update set sealed = excluded.sealed",
        )
        .bind(application.0)
        .bind(sealed),
        SideWrite::UpstreamSecret { application, sealed: None } => {
            sqlx::query("delete from upstream_secret where application = $1").bind(application.0)
        }
        SideWrite::ApiKeySecret { id, secret_hash } => {
            sqlx::query("insert into api_key_secret (id, secret_hash) values ($1, $2)")
                .bind(id)
                .bind(secret_hash.as_slice())
        }
        SideWrite::RotateApiKeySecret { id, secret_hash } => {
            sqlx::query("update api_key_secret set before = secret_hash, secret_hash = $1 where id = $2")
                .bind(secret_hash.as_slice())
                .bind(id)
        }
        SideWrite::ForgetOutcomes(up_to) => sqlx::query(
            "delete from idempotency where key in \
             (select key from idempotency where recorded_at <= $1 order by recorded_at limit 500)",
        )
        .bind(up_to.timestamp_millis()),
        _ => return None,
    })
}

async fn write_tokens(connection: &mut PgConnection, rows: &[&AccessToken]) -> Result<(), StoreError> {
    sqlx::query(ACCESS_TOKEN)
        .bind(each(rows, |row| row.id))
        .bind(each(rows, |row| row.secret_hash.as_slice()))
        .bind(each(rows, |row| row.organization.0))
        .bind(each(rows, |row| row.client_kind as i64))
        .bind(each(rows, |row| row.client))
        .bind(each(rows, |row| row.scopes.to_string()))
        .bind(each(rows, |row| row.issued_at.0))
        .bind(each(rows, |row| row.expires_at.timestamp_millis()))
        .bind(each(rows, |row| row.barred))
        .bind(each(rows, |row| row.audience))
        .execute(connection)
        .await?;
    Ok(())
}

async fn write_mcp(
    connection: &mut PgConnection,
    rows: &[(SessionNumber, &McpSession)],
) -> Result<(), StoreError> {
    let rows = newest(rows, |(session, _)| *session);
    sqlx::query(MCP_SESSION)
        .bind(each(&rows, |(session, _)| session.0))
        .bind(each(&rows, |(_, mcp)| mcp.id_hash.as_slice()))
        .bind(each(&rows, |(_, mcp)| mcp.sealed.as_slice()))
        .execute(connection)
        .await?;
    Ok(())
}

async fn write_confirmations(
    connection: &mut PgConnection,
    rows: &[&Confirmation],
) -> Result<(), StoreError> {
    sqlx::query(CONFIRMATION)
        .bind(each(rows, |row| row.session.0))
        .bind(each(rows, |row| row.at.timestamp_millis()))
        .bind(each(rows, |row| row.message.as_deref()))
        .execute(connection)
        .await?;
    Ok(())
}

/// Keeps what requests came to. That each is the only one under its key for as long as outcomes are kept is seen to here, in
/// the transaction of what it did.
async fn write_outcomes(connection: &mut PgConnection, rows: &[&RecordedOutcome]) -> Result<(), StoreError> {
    let twice = || StoreError::Failed("a request was about to take effect twice".to_owned());
    let single = newest(rows.iter().copied(), |row| row.key);
    if single.len() < rows.len() {
        return Err(twice());
    }
    let written = sqlx::query(OUTCOME)
        .bind(each(rows, |row| row.key.as_slice()))
        .bind(each(rows, |row| row.fingerprint.as_slice()))
        .bind(each(rows, |row| row.salt.as_slice()))
        .bind(each(rows, |row| row.done.as_str()))
        .bind(each(rows, |row| row.recorded_at.timestamp_millis()))
        .bind(each(rows, |row| row.session.map(|session| session.0)))
        .bind(KEPT.num_milliseconds())
        .execute(connection)
        .await?;
    if written.rows_affected() < rows.len() as u64 { Err(twice()) } else { Ok(()) }
}
