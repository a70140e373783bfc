//! From rows to values.

use sessiond_core::Time;
use sessiond_core::actor::{Actor, ActorKind};
use sessiond_core::chain::body_digest;
use sessiond_core::event::{Event, Recorded};
use sessiond_core::idempotency::RecordedOutcome;
use sessiond_core::ids::{
    ApplicationNumber, Head, OrganizationNumber, Position, PrincipalNumber, RevocationNumber,
    ServiceAccountNumber, StreamId, StreamKind,
};
use sessiond_core::reason::Reason;
use sessiond_core::scope::Scopes;
use sessiond_core::streams::AnyStream;
use sqlx::Row;
use sqlx::sqlite::SqliteRow;
use uuid::Uuid;

use crate::StoreError;
use crate::row::{
    AccessToken, Application, Detail, Entry, Organization, Principal, PrincipalRow, Revocation,
    ServiceAccount, SessionToken,
};

pub(super) fn time(milliseconds: i64) -> Time {
    Time::from_timestamp_millis(milliseconds).unwrap_or_default()
}

pub(super) fn optional_time(row: &SqliteRow, column: &str) -> Result<Option<Time>, sqlx::Error> {
    Ok(row.try_get::<Option<i64>, _>(column)?.map(time))
}

pub(super) fn bytes32(row: &SqliteRow, column: &str) -> Result<[u8; 32], StoreError> {
    let bytes: &[u8] = row.try_get(column)?;
    bytes.try_into().map_err(|_| damaged(row, format!("{column} has {} bytes, not 32", bytes.len())))
}

pub(super) fn optional_bytes32(row: &SqliteRow, column: &str) -> Result<Option<[u8; 32]>, StoreError> {
    let bytes: Option<&[u8]> = row.try_get(column)?;
    bytes.map(|_| bytes32(row, column)).transpose()
}

pub(super) fn count(row: &SqliteRow, column: &str) -> Result<u64, StoreError> {
    let number: i64 = row.try_get(column)?;
    u64::try_from(number).map_err(|_| damaged(row, format!("{column} is negative")))
}

pub(super) fn short(row: &SqliteRow, column: &str) -> Result<u32, StoreError> {
    let number: i64 = row.try_get(column)?;
    u32::try_from(number).map_err(|_| damaged(row, format!("{column} is out of range")))
}

pub(super) fn damaged(row: &SqliteRow, what: String) -> StoreError {
    StoreError::Damaged {
        position: row.try_get("position").or_else(|_| row.try_get("head")).unwrap_or(0),
        what,
    }
}

pub(super) fn head(row: &SqliteRow) -> Result<Head, StoreError> {
    Ok(Head {
        version: row.try_get("version")?,
        position: Position(row.try_get("head")?),
        hash: bytes32(row, "hash")?,
    })
}

pub(super) fn organization(row: &SqliteRow) -> Result<Organization, StoreError> {
    Ok(Organization {
        number: OrganizationNumber(row.try_get("number")?),
        id: row.try_get("id")?,
        name: row.try_get("name")?,
        created_at: time(row.try_get("created_at")?),
        valid_from: Position(row.try_get("barred_before")?),
        issuers: json(row, "issuers")?,
        head: head(row)?,
    })
}

/// What a column holds as JSON.
pub(super) fn json<T: serde::de::DeserializeOwned>(row: &SqliteRow, column: &str) -> Result<T, StoreError> {
    let text: &str = row.try_get(column)?;
    serde_json::from_str(text).map_err(|error| damaged(row, format!("{column}: {error}")))
}

/// The same where there may be nothing.
pub(super) fn optional_json<T: serde::de::DeserializeOwned>(
    row: &SqliteRow,
    column: &str,
) -> Result<Option<T>, StoreError> {
    match row.try_get::<Option<&str>, _>(column)? {
        Some(_) => json(row, column).map(Some),
        None => Ok(None),
    }
}

pub(super) fn item(row: &SqliteRow) -> Result<AnyStream, StoreError> {
    let kind = row.try_get("kind")?;
    let kind =
        StreamKind::from_code(kind).ok_or_else(|| damaged(row, format!("unknown kind {kind} of item")))?;
    AnyStream::read(kind, row.try_get("state")?, head(row)?)
        .map_err(|error| damaged(row, format!("state: {error}")))?
        .ok_or_else(|| damaged(row, format!("{} is no kind of item", kind.word())))
}

pub(super) fn application(row: &SqliteRow) -> Result<Application, StoreError> {
    Ok(Application {
        number: ApplicationNumber(row.try_get("number")?),
        id: row.try_get("id")?,
        organization: OrganizationNumber(row.try_get("organization")?),
        name: row.try_get("name")?,
        description: row.try_get("description")?,
        oauth: json(row, "oauth")?,
        on_the_way: row.try_get("on_the_way")?,
        upstream: row.try_get("upstream")?,
        upstream_credential: optional_json(row, "upstream_credential")?,
        upstream_headers: optional_json(row, "upstream_headers")?,
        policy: optional_json(row, "policy")?,
        created_at: time(row.try_get("created_at")?),
        updated_at: time(row.try_get("updated_at")?),
        archived_at: optional_time(row, "archived_at")?,
        valid_from: Position(row.try_get("barred_before")?),
        head: head(row)?,
    })
}

pub(super) fn service_account(row: &SqliteRow) -> Result<ServiceAccount, StoreError> {
    Ok(ServiceAccount {
        number: ServiceAccountNumber(row.try_get("number")?),
        id: row.try_get("id")?,
        organization: OrganizationNumber(row.try_get("organization")?),
        name: row.try_get("name")?,
        client_id: row.try_get("client_id")?,
        scopes: Scopes::parse(row.try_get("scopes")?).0,
        application: row.try_get::<Option<i64>, _>("application")?.map(ApplicationNumber),
        created_at: time(row.try_get("created_at")?),
        archived_at: optional_time(row, "archived_at")?,
        head: head(row)?,
    })
}

pub(super) fn revocation(row: &SqliteRow) -> Result<Revocation, StoreError> {
    Ok(Revocation {
        number: RevocationNumber(row.try_get("number")?),
        id: row.try_get("id")?,
        organization: OrganizationNumber(row.try_get("organization")?),
        filter: json(row, "filter")?,
        reason: reason(row, row.try_get("reason")?)?,
        note: row.try_get("note")?,
        fence: Position(row.try_get("fence")?),
        instant: time(row.try_get("instant")?),
        ended_at: optional_time(row, "ended_at")?,
        disconnected_count: count(row, "disconnected_count")?,
        head: head(row)?,
    })
}

pub(super) fn reason(row: &SqliteRow, word: &str) -> Result<Reason, StoreError> {
    Reason::from_word(word).ok_or_else(|| damaged(row, format!("unknown reason {word:?}")))
}

/// What a session connected with.
pub(super) fn detail(row: &SqliteRow) -> Result<Detail, StoreError> {
    Ok(Detail {
        name: row.try_get("name")?,
        hostname: row.try_get("hostname")?,
        user_agent: row.try_get("user_agent")?,
        client_info: row.try_get("client_info")?,
        ip: row.try_get("ip")?,
        anchor: row.try_get("anchor")?,
        client_session_id: row.try_get("client_session_id")?,
        token_identifier: row.try_get("token_identifier")?,
        protocol_version: row.try_get("protocol_version")?,
        client: row.try_get("client")?,
    })
}

pub(super) fn outcome(row: &SqliteRow) -> Result<RecordedOutcome, StoreError> {
    let salt: &[u8] = row.try_get("salt")?;
    Ok(RecordedOutcome {
        key: bytes32(row, "key")?,
        fingerprint: bytes32(row, "fingerprint")?,
        salt: salt.try_into().map_err(|_| damaged(row, "salt is not 16 bytes".to_owned()))?,
        done: row.try_get("outcome")?,
        recorded_at: time(row.try_get("recorded_at")?),
    })
}

pub(super) fn access_token(row: &SqliteRow) -> Result<AccessToken, StoreError> {
    let client_kind = row.try_get("client_kind")?;
    Ok(AccessToken {
        id: row.try_get("id")?,
        secret_hash: bytes32(row, "secret_hash")?,
        organization: OrganizationNumber(row.try_get("organization")?),
        client_kind: ActorKind::from_code(client_kind)
            .ok_or_else(|| damaged(row, "unknown client kind".to_owned()))?,
        client: row.try_get("client")?,
        scopes: Scopes::parse(row.try_get("scopes")?).0,
        issued_at: Position(row.try_get("issued_at")?),
        expires_at: time(row.try_get("expires_at")?),
        barred: row.try_get("barred")?,
        audience: row.try_get("audience")?,
    })
}

/// An event as stored. A pruned body reads as an [`Event::Unknown`] with a null body.
pub(super) fn entry(row: &SqliteRow) -> Result<Entry, StoreError> {
    let name: &str = row.try_get("type")?;
    let body: Option<String> = row.try_get("body")?;
    let (event, digest) = match &body {
        Some(body) => {
            let event =
                Event::parse(name, body).map_err(|error| damaged(row, format!("body of {name}: {error}")))?;
            // Kept where the body is not any more what was hashed.
            let kept: Option<&[u8]> = row.try_get("body_digest")?;
            (event, if kept.is_some() { bytes32(row, "body_digest")? } else { body_digest(body) })
        }
        None => (
            Event::Unknown { name: name.to_owned(), body: serde_json::Value::Null },
            bytes32(row, "body_digest")?,
        ),
    };
    let (stream_kind, actor_kind) = (row.try_get("stream_kind")?, row.try_get("actor_kind")?);
    let commit_hash: Option<&[u8]> = row.try_get("commit_hash")?;
    let recorded = Recorded {
        position: Position(row.try_get("position")?),
        stream: StreamId {
            kind: StreamKind::from_code(stream_kind)
                .ok_or_else(|| damaged(row, format!("unknown stream kind {stream_kind}")))?,
            number: row.try_get("stream_number")?,
        },
        version: row.try_get("version")?,
        previous_position: Position(row.try_get("previous_position")?),
        occurred_at: time(row.try_get("occurred_at")?),
        recorded_at: time(row.try_get("recorded_at")?),
        organization: OrganizationNumber(row.try_get("organization")?),
        application: row.try_get::<Option<i64>, _>("application")?.map(ApplicationNumber),
        actor: Actor {
            kind: ActorKind::from_code(actor_kind)
                .ok_or_else(|| damaged(row, format!("unknown actor kind {actor_kind}")))?,
            id: row.try_get::<Option<Uuid>, _>("actor_id")?.unwrap_or_default(),
        },
        revocation: row.try_get::<Option<i64>, _>("revocation")?.map(RevocationNumber),
        request_id: row.try_get("request_id")?,
        traceparent: row.try_get("traceparent")?,
        event,
        personal: row.try_get("personal")?,
    };
    Ok(Entry {
        recorded,
        body: body.unwrap_or_default(),
        digest,
        hash: bytes32(row, "hash")?,
        commit_hash: match commit_hash {
            Some(bytes) => {
                Some(bytes.try_into().map_err(|_| damaged(row, "commit_hash is not 32 bytes".into()))?)
            }
            None => None,
        },
    })
}

pub(super) fn session_token(row: &SqliteRow) -> Result<SessionToken, StoreError> {
    Ok(SessionToken {
        secret_hash: bytes32(row, "secret_hash")?,
        issued_at: Position(row.try_get("issued_at")?),
        expires_at: time(row.try_get("expires_at")?),
    })
}

pub(super) fn principal(row: &SqliteRow) -> Result<Principal, StoreError> {
    Ok(Principal {
        number: PrincipalNumber(row.try_get("number")?),
        organization: OrganizationNumber(row.try_get("organization")?),
        issuer: row.try_get("issuer")?,
        subject_digest: bytes32(row, "subject_digest")?,
        subject: row.try_get("subject")?,
    })
}

pub(super) fn principal_row(row: &SqliteRow) -> Result<PrincipalRow, StoreError> {
    Ok(PrincipalRow { principal: principal(row)?, name: row.try_get("name")?, email: row.try_get("email")? })
}
