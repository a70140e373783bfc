//! Rows of the directory's streams, each table's in one statement. They replace the row of the same number and no other: a
//! taken id or client id is an error.

use serde::Serialize;
use sessiond_core::application::Application;
use sessiond_core::organization::Organization;
use sessiond_core::revocation::Revocation;
use sessiond_core::service_account::ServiceAccount;
use sessiond_core::streams::AnyStream;
use sqlx::postgres::PgConnection;

use super::insert::{count, each};
use crate::StoreError;
use crate::check::chosen_text;
use crate::tables::{has_own_table, newest, of};

const ORGANIZATION: &str = "insert into organization (number, id, name, created_at, version, head, hash, barred_before, \
     issuers, restored_at, retention, let_go) \
     select * from unnest($1::bigint[], $2::uuid[], $3::text[], $4::bigint[], $5::bigint[], $6::bigint[], \
     $7::bytea[], $8::bigint[], $9::text[], $10::bigint[], $11::text[], $12::text[]) \
     on conflict (number) do update set name = excluded.name, version = excluded.version, head = excluded.head, \
     hash = excluded.hash, barred_before = excluded.barred_before, issuers = excluded.issuers, \
     restored_at = excluded.restored_at, retention = excluded.retention, let_go = excluded.let_go";

const APPLICATION: &str = "insert into application (number, id, organization, name, description, oauth, upstream, created_at, \
     updated_at, archived_at, barred_before, version, head, hash, policy, upstream_credential, on_the_way, \
     upstream_headers) \
     select * from unnest($1::bigint[], $2::uuid[], $3::bigint[], $4::text[], $5::text[], $6::text[], $7::text[], \
     $8::bigint[], $9::bigint[], $10::bigint[], $11::bigint[], $12::bigint[], $13::bigint[], $14::bytea[], \
     $15::text[], $16::text[], $17::boolean[], $18::text[]) \
     on conflict (number) do update set name = excluded.name, description = excluded.description, \
     oauth = excluded.oauth, upstream = excluded.upstream, updated_at = excluded.updated_at, \
     archived_at = excluded.archived_at, barred_before = excluded.barred_before, version = excluded.version, \
     head = excluded.head, hash = excluded.hash, policy = excluded.policy, \
     upstream_credential = excluded.upstream_credential, on_the_way = excluded.on_the_way, \
     upstream_headers = excluded.upstream_headers";

const SERVICE_ACCOUNT: &str = "insert into service_account (number, id, organization, name, client_id, scopes, application, \
     created_at, archived_at, version, head, hash) \
     select * from unnest($1::bigint[], $2::uuid[], $3::bigint[], $4::text[], $5::text[], $6::text[], $7::bigint[], \
     $8::bigint[], $9::bigint[], $10::bigint[], $11::bigint[], $12::bytea[]) \
     on conflict (number) do update set name = excluded.name, scopes = excluded.scopes, \
     application = excluded.application, archived_at = excluded.archived_at, version = excluded.version, \
     head = excluded.head, hash = excluded.hash";

const REVOCATION: &str = "insert into revocation (number, id, organization, filter, reason, note, fence, instant, ended_at, \
     disconnected_count, version, head, hash) \
     select * from unnest($1::bigint[], $2::uuid[], $3::bigint[], $4::text[], $5::text[], $6::text[], $7::bigint[], \
     $8::bigint[], $9::bigint[], $10::bigint[], $11::bigint[], $12::bigint[], $13::bytea[]) \
     on conflict (number) do update set ended_at = excluded.ended_at, \
     disconnected_count = excluded.disconnected_count, version = excluded.version, head = excluded.head, \
     hash = excluded.hash";

const ITEM: &str = "insert into item (kind, number, id, organization, state, version, head, hash) \
     select * from unnest($1::bigint[], $2::bigint[], $3::uuid[], $4::bigint[], $5::text[], $6::bigint[], \
     $7::bigint[], $8::bytea[]) \
     on conflict (kind, number) do update set state = excluded.state, version = excluded.version, \
     head = excluded.head, hash = excluded.hash";

/// Streams of some kinds have a table of their own, with columns to look them up by; all others share one.
pub(super) async fn write(connection: &mut PgConnection, streams: &[AnyStream]) -> Result<(), StoreError> {
    let streams = newest(streams.iter(), |stream| stream.stream());
    organizations(connection, &of(streams.iter().copied())).await?;
    applications(connection, &of(streams.iter().copied())).await?;
    let others: Vec<_> = streams.iter().copied().filter(|stream| !has_own_table(stream)).collect();
    items(connection, &others).await?;
    service_accounts(connection, &of(streams.iter().copied())).await?;
    revocations(connection, &of(streams.iter().copied())).await
}

fn json<Value: Serialize>(value: &Value) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

async fn organizations(connection: &mut PgConnection, rows: &[&Organization]) -> Result<(), StoreError> {
    if rows.is_empty() {
        return Ok(());
    }
    sqlx::query(ORGANIZATION)
        .bind(each(rows, |row| row.number.0))
        .bind(each(rows, |row| row.id))
        .bind(each(rows, |row| row.name.as_str()))
        .bind(each(rows, |row| row.created_at.timestamp_millis()))
        .bind(each(rows, |row| row.head.version))
        .bind(each(rows, |row| row.head.position.0))
        .bind(each(rows, |row| row.head.hash.as_slice()))
        .bind(each(rows, |row| row.valid_from.0))
        .bind(each(rows, |row| json(&row.issuers)))
        .bind(each(rows, |row| row.restored_at.0))
        .bind(each(rows, |row| chosen_text(&row.retention)))
        .bind(each(rows, |row| chosen_text(&row.let_go)))
        .execute(connection)
        .await?;
    Ok(())
}

async fn applications(connection: &mut PgConnection, rows: &[&Application]) -> Result<(), StoreError> {
    if rows.is_empty() {
        return Ok(());
    }
    sqlx::query(APPLICATION)
        .bind(each(rows, |row| row.number.0))
        .bind(each(rows, |row| row.id))
        .bind(each(rows, |row| row.organization.0))
        .bind(each(rows, |row| row.name.as_str()))
        .bind(each(rows, |row| row.description.as_deref()))
        .bind(each(rows, |row| json(&row.oauth)))
        .bind(each(rows, |row| row.upstream.as_deref()))
        .bind(each(rows, |row| row.created_at.timestamp_millis()))
        .bind(each(rows, |row| row.updated_at.timestamp_millis()))
        .bind(each(rows, |row| row.archived_at.map(|at| at.timestamp_millis())))
        .bind(each(rows, |row| row.valid_from.0))
        .bind(each(rows, |row| row.head.version))
        .bind(each(rows, |row| row.head.position.0))
        .bind(each(rows, |row| row.head.hash.as_slice()))
        .bind(each(rows, |row| row.policy.as_ref().map(json)))
        .bind(each(rows, |row| row.upstream_credential.as_ref().map(json)))
        .bind(each(rows, |row| row.on_the_way))
        .bind(each(rows, |row| row.upstream_headers.as_ref().map(json)))
        .execute(connection)
        .await?;
    Ok(())
}

async fn service_accounts(connection: &mut PgConnection, rows: &[&ServiceAccount]) -> Result<(), StoreError> {
    if rows.is_empty() {
        return Ok(());
    }
    sqlx::query(SERVICE_ACCOUNT)
        .bind(each(rows, |row| row.number.0))
        .bind(each(rows, |row| row.id))
        .bind(each(rows, |row| row.organization.0))
        .bind(each(rows, |row| row.name.as_str()))
        .bind(each(rows, |row| row.client_id.as_str()))
        .bind(each(rows, |row| row.scopes.to_string()))
        .bind(each(rows, |row| row.application.map(|number| number.0)))
        .bind(each(rows, |row| row.created_at.timestamp_millis()))
        .bind(each(rows, |row| row.archived_at.map(|at| at.timestamp_millis())))
        .bind(each(rows, |row| row.head.version))
        .bind(each(rows, |row| row.head.position.0))
        .bind(each(rows, |row| row.head.hash.as_slice()))
        .execute(connection)
        .await?;
    Ok(())
}

async fn revocations(connection: &mut PgConnection, rows: &[&Revocation]) -> Result<(), StoreError> {
    if rows.is_empty() {
        return Ok(());
    }
    sqlx::query(REVOCATION)
        .bind(each(rows, |row| row.number.0))
        .bind(each(rows, |row| row.id))
        .bind(each(rows, |row| row.organization.0))
        .bind(each(rows, |row| json(&row.filter)))
        .bind(each(rows, |row| row.reason.word()))
        .bind(each(rows, |row| row.note.as_deref()))
        .bind(each(rows, |row| row.fence.0))
        .bind(each(rows, |row| row.instant.timestamp_millis()))
        .bind(each(rows, |row| row.ended_at.map(|at| at.timestamp_millis())))
        .bind(each(rows, |row| count(row.disconnected_count)))
        .bind(each(rows, |row| row.head.version))
        .bind(each(rows, |row| row.head.position.0))
        .bind(each(rows, |row| row.head.hash.as_slice()))
        .execute(connection)
        .await?;
    Ok(())
}

async fn items(connection: &mut PgConnection, rows: &[&AnyStream]) -> Result<(), StoreError> {
    if rows.is_empty() {
        return Ok(());
    }
    sqlx::query(ITEM)
        .bind(each(rows, |row| row.stream().kind as i64))
        .bind(each(rows, |row| row.stream().number))
        .bind(each(rows, |row| row.id()))
        .bind(each(rows, |row| row.organization().0))
        .bind(each(rows, |row| row.state()))
        .bind(each(rows, |row| row.head().version))
        .bind(each(rows, |row| row.head().position.0))
        .bind(each(rows, |row| row.head().hash.to_vec()))
        .execute(connection)
        .await?;
    Ok(())
}
