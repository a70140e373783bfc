//! Statements that write many rows, each table's in one: a column is an array.

use sessiond_core::event::TYPE_VERSION;
use sessiond_core::ids::{ApplicationNumber, SessionNumber};
use sessiond_core::phase::{Outcome, Phase};
use sessiond_core::policy::Preset;
use sessiond_core::session::Session;
use sqlx::postgres::PgConnection;

use crate::StoreError;
use crate::check::throughput_text;
use crate::row::{Detail, Entry, SessionActivity};
use crate::tables::session_state;

const EVENT: &str = "insert into event (position, stream_kind, stream_number, version, previous_position, occurred_at, \
     recorded_at, type, type_version, organization, application, actor_kind, actor_id, revocation, request_id, \
     traceparent, body, personal, hash, commit_hash) \
     select position, stream_kind, stream_number, version, previous_position, occurred_at, recorded_at, type, $20, \
     organization, application, actor_kind, actor_id, revocation, request_id, traceparent, body, personal, hash, \
     commit_hash \
     from unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[], \
     $8::text[], $9::bigint[], $10::bigint[], $11::bigint[], $12::uuid[], $13::bigint[], $14::text[], $15::text[], \
     $16::text[], $17::text[], $18::bytea[], $19::bytea[]) \
     as new (position, stream_kind, stream_number, version, previous_position, occurred_at, recorded_at, type, \
     organization, application, actor_kind, actor_id, revocation, request_id, traceparent, body, personal, hash, \
     commit_hash)";

const SESSION: &str = "insert into session (number, id, organization, application, principal, owner_kind, owner_id, kind, \
     state, idle_after, stale_after, absolute_lifetime, connected_at, connected_head, lifetime_ends_at, \
     token_expires_at, expiry_announced, credential, ended_at, ended_reason, last_active_at, requests, bytes_in, \
     bytes_out, version, head, hash, token_lifetime, preset, suspended_at, resumed_at, unused_after, resource, phase, \
     ended_outcome, message, throughput, node) \
     select * from unnest($1::bigint[], $2::uuid[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], \
     $7::uuid[], $8::text[], $9::bigint[], $10::bigint[], $11::bigint[], $12::bigint[], $13::bigint[], \
     $14::bigint[], $15::bigint[], $16::bigint[], $17::bigint[], $18::uuid[], $19::bigint[], $20::text[], \
     $21::bigint[], $22::bigint[], $23::bigint[], $24::bigint[], $25::bigint[], $26::bigint[], $27::bytea[], \
     $28::bigint[], $29::text[], $30::bigint[], $31::bigint[], $32::bigint[], $33::text[], $34::text[], \
     $35::text[], $36::text[], $37::text[], $38::bigint[]) \
     on conflict (number) do update set state = excluded.state, token_expires_at = excluded.token_expires_at, \
     expiry_announced = excluded.expiry_announced, credential = excluded.credential, ended_at = excluded.ended_at, \
     ended_reason = excluded.ended_reason, last_active_at = excluded.last_active_at, requests = excluded.requests, \
     bytes_in = excluded.bytes_in, bytes_out = excluded.bytes_out, version = excluded.version, head = excluded.head, \
     hash = excluded.hash, suspended_at = excluded.suspended_at, resumed_at = excluded.resumed_at, \
     phase = excluded.phase, ended_outcome = excluded.ended_outcome, message = excluded.message, \
     throughput = excluded.throughput";

/// The rows go in the order of their numbers: whoever writes the same ones takes them in the same order.
const ACTIVITY: &str = "insert into session_activity (number, last_active_at, requests, bytes_in, bytes_out, version, head, \
     hash, throughput) \
     select * from unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], \
     $7::bigint[], $8::bytea[], $9::text[]) \
     on conflict (number) do update set last_active_at = excluded.last_active_at, requests = excluded.requests, \
     bytes_in = excluded.bytes_in, bytes_out = excluded.bytes_out, version = excluded.version, head = excluded.head, \
     hash = excluded.hash, throughput = excluded.throughput";

const DETAIL: &str = "insert into session_detail (number, name, hostname, user_agent, client_info, ip, client_session_id, \
     token_identifier, protocol_version, application, client, anchor) \
     select * from unnest($1::bigint[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], \
     $8::text[], $9::text[], $10::bigint[], $11::text[], $12::text[])";

/// A column: what each of the rows has in it.
pub(super) fn each<'row, Row, Value>(rows: &'row [Row], value: impl Fn(&'row Row) -> Value) -> Vec<Value> {
    rows.iter().map(value).collect()
}

/// Counts are held at `i64::MAX` where they are made.
pub(super) fn count(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

pub(super) async fn events(connection: &mut PgConnection, rows: &[Entry]) -> Result<(), StoreError> {
    let query = sqlx::query(EVENT)
        .bind(each(rows, |row| row.recorded.position.0))
        .bind(each(rows, |row| row.recorded.stream.kind as i64))
        .bind(each(rows, |row| row.recorded.stream.number))
        .bind(each(rows, |row| row.recorded.version))
        .bind(each(rows, |row| row.recorded.previous_position.0))
        .bind(each(rows, |row| row.recorded.occurred_at.timestamp_millis()))
        .bind(each(rows, |row| row.recorded.recorded_at.timestamp_millis()))
        .bind(each(rows, |row| row.recorded.event.name()))
        .bind(each(rows, |row| row.recorded.organization.0))
        .bind(each(rows, |row| row.recorded.application.map(|number| number.0)))
        .bind(each(rows, |row| row.recorded.actor.kind as i64))
        .bind(each(rows, |row| row.recorded.actor.stored_id().copied()))
        .bind(each(rows, |row| row.recorded.revocation.map(|number| number.0)))
        .bind(each(rows, |row| row.recorded.request_id.as_deref()))
        .bind(each(rows, |row| row.recorded.traceparent.as_deref()))
        .bind(each(rows, |row| row.body.as_str()))
        .bind(each(rows, |row| row.recorded.personal.as_deref()))
        .bind(each(rows, |row| row.hash.as_slice()))
        .bind(each(rows, |row| row.commit_hash.as_ref().map(|hash| hash.as_slice())))
        .bind(TYPE_VERSION);
    // Positions are given out by whoever has the turn: who finds one taken did not have it alone.
    query.execute(connection).await.map_err(raced)?;
    Ok(())
}

/// What it means that rows could not be inserted whose places nobody else may have taken.
pub(super) fn raced(error: sqlx::Error) -> StoreError {
    let taken = error.as_database_error().is_some_and(|error| error.is_unique_violation());
    if taken { StoreError::Raced(error.to_string()) } else { error.into() }
}

pub(super) async fn sessions(connection: &mut PgConnection, rows: &[Session]) -> Result<(), StoreError> {
    sqlx::query(SESSION)
        .bind(each(rows, |row| row.number.0))
        .bind(each(rows, |row| row.id))
        .bind(each(rows, |row| row.organization.0))
        .bind(each(rows, |row| row.application.0))
        .bind(each(rows, |row| row.principal.0))
        .bind(each(rows, |row| row.owner.kind as i64))
        .bind(each(rows, |row| row.owner.id))
        .bind(each(rows, |row| row.kind.word()))
        .bind(each(rows, session_state))
        .bind(each(rows, |row| i64::from(row.policy.idle_after)))
        .bind(each(rows, |row| i64::from(row.policy.stale_after)))
        .bind(each(rows, |row| i64::from(row.policy.absolute_lifetime)))
        .bind(each(rows, |row| row.connected_at.timestamp_millis()))
        .bind(each(rows, |row| row.connected_at_position.0))
        .bind(each(rows, |row| row.lifetime_ends_at.timestamp_millis()))
        .bind(each(rows, |row| row.token_expires_at.timestamp_millis()))
        .bind(each(rows, |row| row.expiry_announced.map(|at| at.timestamp_millis())))
        .bind(each(rows, |row| row.credential))
        .bind(each(rows, |row| row.ended.map(|ended| ended.at.timestamp_millis())))
        .bind(each(rows, |row| row.ended.map(|ended| ended.reason.word())))
        .bind(each(rows, |row| row.last_active_at.timestamp_millis()))
        .bind(each(rows, |row| count(row.total.requests)))
        .bind(each(rows, |row| count(row.total.bytes_in)))
        .bind(each(rows, |row| count(row.total.bytes_out)))
        .bind(each(rows, |row| row.head.version))
        .bind(each(rows, |row| row.head.position.0))
        .bind(each(rows, |row| row.head.hash.as_slice()))
        .bind(each(rows, |row| row.policy.token_lifetime.map(i64::from)))
        .bind(each(rows, |row| row.policy.preset.map(Preset::word)))
        .bind(each(rows, |row| row.suspended_at.map(|at| at.timestamp_millis())))
        .bind(each(rows, |row| row.resumed_at.map(|at| at.timestamp_millis())))
        .bind(each(rows, |row| row.policy.unused_after.map(i64::from)))
        .bind(each(rows, |row| row.resource.as_deref()))
        .bind(each(rows, |row| row.phase.map(Phase::word)))
        .bind(each(rows, |row| row.ended.and_then(|ended| ended.outcome).map(Outcome::word)))
        .bind(each(rows, |row| row.message.as_deref()))
        .bind(each(rows, |row| throughput_text(row.throughput.as_deref())))
        .bind(each(rows, |row| row.node))
        .execute(connection)
        .await?;
    Ok(())
}

pub(super) async fn activity(
    connection: &mut PgConnection,
    rows: &[SessionActivity],
) -> Result<(), StoreError> {
    let mut rows: Vec<&SessionActivity> = rows.iter().collect();
    rows.sort_unstable_by_key(|row| row.session);
    sqlx::query(ACTIVITY)
        .bind(each(&rows, |row| row.session.0))
        .bind(each(&rows, |row| row.last_active_at.timestamp_millis()))
        .bind(each(&rows, |row| count(row.total.requests)))
        .bind(each(&rows, |row| count(row.total.bytes_in)))
        .bind(each(&rows, |row| count(row.total.bytes_out)))
        .bind(each(&rows, |row| row.head.version))
        .bind(each(&rows, |row| row.head.position.0))
        .bind(each(&rows, |row| row.head.hash.as_slice()))
        .bind(each(&rows, |row| throughput_text(row.throughput.as_deref())))
        .execute(connection)
        .await?;
    Ok(())
}

pub(super) async fn details(
    connection: &mut PgConnection,
    rows: &[(SessionNumber, ApplicationNumber, Detail)],
) -> Result<(), StoreError> {
    sqlx::query(DETAIL)
        .bind(each(rows, |(number, ..)| number.0))
        .bind(each(rows, |(.., detail)| detail.name.as_deref()))
        .bind(each(rows, |(.., detail)| detail.hostname.as_deref()))
        .bind(each(rows, |(.., detail)| detail.user_agent.as_deref()))
        .bind(each(rows, |(.., detail)| detail.client_info.as_deref()))
        .bind(each(rows, |(.., detail)| detail.ip.as_deref()))
        .bind(each(rows, |(.., detail)| detail.client_session_id.as_deref()))
        .bind(each(rows, |(.., detail)| detail.token_identifier.as_deref()))
        .bind(each(rows, |(.., detail)| detail.protocol_version.as_deref()))
        .bind(each(rows, |(_, application, _)| application.0))
        .bind(each(rows, |(.., detail)| detail.client.as_deref()))
        .bind(each(rows, |(.., detail)| detail.anchor.as_deref()))
        .execute(connection)
        .await?;
    Ok(())
}
