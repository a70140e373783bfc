//! From rows to values, whatever database the rows lie in: the tables have the same columns in each.

use sessiond_core::Time;
use sessiond_core::actor::{Actor, ActorKind};
use sessiond_core::chain::body_digest;
use sessiond_core::event::{Event, Recorded};
use sessiond_core::idempotency::RecordedOutcome;
use sessiond_core::ids::{
    ApplicationNumber, Head, OrganizationNumber, Position, PrincipalNumber, RevocationNumber,
    ServiceAccountNumber, SessionNumber, StreamId, StreamKind,
};
use sessiond_core::reason::Reason;
use sessiond_core::scope::Scopes;
use sessiond_core::streams::AnyStream;
use sqlx::{ColumnIndex, Decode, Row, Type};
use uuid::Uuid;

use crate::StoreError;
use crate::row::{
    AccessToken, Application, Detail, Entry, Organization, Principal, PrincipalRow, Revocation,
    ServiceAccount, SessionToken,
};

/// A row of any of the databases, with what its columns may hold.
pub(crate) trait Stored {
    fn integer(&self, column: &str) -> Result<i64, sqlx::Error>;
    fn optional_integer(&self, column: &str) -> Result<Option<i64>, sqlx::Error>;
    fn flag(&self, column: &str) -> Result<bool, sqlx::Error>;
    fn optional_flag(&self, column: &str) -> Result<Option<bool>, sqlx::Error>;
    fn text(&self, column: &str) -> Result<&str, sqlx::Error>;
    fn optional_text(&self, column: &str) -> Result<Option<&str>, sqlx::Error>;
    fn bytes(&self, column: &str) -> Result<&[u8], sqlx::Error>;
    fn optional_bytes(&self, column: &str) -> Result<Option<&[u8]>, sqlx::Error>;
    fn id(&self, column: &str) -> Result<Uuid, sqlx::Error>;
    fn optional_id(&self, column: &str) -> Result<Option<Uuid>, sqlx::Error>;

    fn string(&self, column: &str) -> Result<String, sqlx::Error> {
        self.text(column).map(str::to_owned)
    }

    fn optional_string(&self, column: &str) -> Result<Option<String>, sqlx::Error> {
        Ok(self.optional_text(column)?.map(str::to_owned))
    }
}

impl<R> Stored for R
where
    R: Row,
    for<'column> &'column str: ColumnIndex<R>,
    i64: for<'row> Decode<'row, R::Database> + Type<R::Database>,
    bool: for<'row> Decode<'row, R::Database> + Type<R::Database>,
    Uuid: for<'row> Decode<'row, R::Database> + Type<R::Database>,
    for<'row> &'row str: Decode<'row, R::Database> + Type<R::Database>,
    for<'row> &'row [u8]: Decode<'row, R::Database> + Type<R::Database>,
{
    fn integer(&self, column: &str) -> Result<i64, sqlx::Error> {
        self.try_get(column)
    }

    fn optional_integer(&self, column: &str) -> Result<Option<i64>, sqlx::Error> {
        self.try_get(column)
    }

    fn flag(&self, column: &str) -> Result<bool, sqlx::Error> {
        self.try_get(column)
    }

    fn optional_flag(&self, column: &str) -> Result<Option<bool>, sqlx::Error> {
        self.try_get(column)
    }

    fn text(&self, column: &str) -> Result<&str, sqlx::Error> {
        self.try_get(column)
    }

    fn optional_text(&self, column: &str) -> Result<Option<&str>, sqlx::Error> {
        self.try_get(column)
    }

    fn bytes(&self, column: &str) -> Result<&[u8], sqlx::Error> {
        self.try_get(column)
    }

    fn optional_bytes(&self, column: &str) -> Result<Option<&[u8]>, sqlx::Error> {
        self.try_get(column)
    }

    fn id(&self, column: &str) -> Result<Uuid, sqlx::Error> {
        self.try_get(column)
    }

    fn optional_id(&self, column: &str) -> Result<Option<Uuid>, sqlx::Error> {
        self.try_get(column)
    }
}

pub(crate) fn time(milliseconds: i64) -> Time {
    Time::from_timestamp_millis(milliseconds).unwrap_or_default()
}

pub(crate) fn optional_time(row: &impl Stored, column: &str) -> Result<Option<Time>, sqlx::Error> {
    Ok(row.optional_integer(column)?.map(time))
}

pub(crate) fn bytes32(row: &impl Stored, column: &str) -> Result<[u8; 32], StoreError> {
    let bytes = row.bytes(column)?;
    bytes.try_into().map_err(|_| damaged(row, format!("{column} has {} bytes, not 32", bytes.len())))
}

pub(crate) fn optional_bytes32(row: &impl Stored, column: &str) -> Result<Option<[u8; 32]>, StoreError> {
    let bytes = row.optional_bytes(column)?;
    bytes.map(|_| bytes32(row, column)).transpose()
}

pub(crate) fn count(row: &impl Stored, column: &str) -> Result<u64, StoreError> {
    let number = row.integer(column)?;
    u64::try_from(number).map_err(|_| damaged(row, format!("{column} is negative")))
}

pub(crate) fn short(row: &impl Stored, column: &str) -> Result<u32, StoreError> {
    let number = row.integer(column)?;
    u32::try_from(number).map_err(|_| damaged(row, format!("{column} is out of range")))
}

pub(crate) fn damaged(row: &impl Stored, what: String) -> StoreError {
    StoreError::Damaged {
        position: row.integer("position").or_else(|_| row.integer("head")).unwrap_or(0),
        what,
    }
}

pub(crate) fn head(row: &impl Stored) -> Result<Head, StoreError> {
    Ok(Head {
        version: row.integer("version")?,
        position: Position(row.integer("head")?),
        hash: bytes32(row, "hash")?,
    })
}

pub(crate) fn organization(row: &impl Stored) -> Result<Organization, StoreError> {
    Ok(Organization {
        number: OrganizationNumber(row.integer("number")?),
        id: row.id("id")?,
        name: row.string("name")?,
        created_at: time(row.integer("created_at")?),
        valid_from: Position(row.integer("barred_before")?),
        restored_at: Position(row.integer("restored_at")?),
        issuers: json(row, "issuers")?,
        retention: optional_json(row, "retention")?.unwrap_or_default(),
        let_go: optional_json(row, "let_go")?.unwrap_or_default(),
        head: head(row)?,
    })
}

/// What a column holds as JSON.
pub(crate) fn json<T: serde::de::DeserializeOwned>(row: &impl Stored, column: &str) -> Result<T, StoreError> {
    let text = row.text(column)?;
    serde_json::from_str(text).map_err(|error| damaged(row, format!("{column}: {error}")))
}

/// The same where there may be nothing.
pub(crate) fn optional_json<T: serde::de::DeserializeOwned>(
    row: &impl Stored,
    column: &str,
) -> Result<Option<T>, StoreError> {
    match row.optional_text(column)? {
        Some(_) => json(row, column).map(Some),
        None => Ok(None),
    }
}

pub(crate) fn item(row: &impl Stored) -> Result<AnyStream, StoreError> {
    let kind = row.integer("kind")?;
    let kind =
        StreamKind::from_code(kind).ok_or_else(|| damaged(row, format!("unknown kind {kind} of item")))?;
    AnyStream::read(kind, row.text("state")?, head(row)?)
        .map_err(|error| damaged(row, format!("state: {error}")))?
        .ok_or_else(|| damaged(row, format!("{} is no kind of item", kind.word())))
}

pub(crate) fn application(row: &impl Stored) -> Result<Application, StoreError> {
    Ok(Application {
        number: ApplicationNumber(row.integer("number")?),
        id: row.id("id")?,
        organization: OrganizationNumber(row.integer("organization")?),
        name: row.string("name")?,
        description: row.optional_string("description")?,
        oauth: json(row, "oauth")?,
        on_the_way: row.flag("on_the_way")?,
        upstream: row.optional_string("upstream")?,
        upstream_credential: optional_json(row, "upstream_credential")?,
        upstream_headers: optional_json(row, "upstream_headers")?,
        policy: optional_json(row, "policy")?,
        created_at: time(row.integer("created_at")?),
        updated_at: time(row.integer("updated_at")?),
        archived_at: optional_time(row, "archived_at")?,
        valid_from: Position(row.integer("barred_before")?),
        head: head(row)?,
    })
}

pub(crate) fn service_account(row: &impl Stored) -> Result<ServiceAccount, StoreError> {
    Ok(ServiceAccount {
        number: ServiceAccountNumber(row.integer("number")?),
        id: row.id("id")?,
        organization: OrganizationNumber(row.integer("organization")?),
        name: row.string("name")?,
        client_id: row.string("client_id")?,
        scopes: Scopes::parse(row.text("scopes")?).0,
        application: row.optional_integer("application")?.map(ApplicationNumber),
        created_at: time(row.integer("created_at")?),
        archived_at: optional_time(row, "archived_at")?,
        head: head(row)?,
    })
}

pub(crate) fn revocation(row: &impl Stored) -> Result<Revocation, StoreError> {
    Ok(Revocation {
        number: RevocationNumber(row.integer("number")?),
        id: row.id("id")?,
        organization: OrganizationNumber(row.integer("organization")?),
        filter: json(row, "filter")?,
        reason: reason(row, row.text("reason")?)?,
        note: row.optional_string("note")?,
        fence: Position(row.integer("fence")?),
        instant: time(row.integer("instant")?),
        ended_at: optional_time(row, "ended_at")?,
        disconnected_count: count(row, "disconnected_count")?,
        head: head(row)?,
    })
}

pub(crate) fn reason(row: &impl Stored, word: &str) -> Result<Reason, StoreError> {
    Reason::from_word(word).ok_or_else(|| damaged(row, format!("unknown reason {word:?}")))
}

/// What a session connected with.
pub(crate) fn detail(row: &impl Stored) -> Result<Detail, StoreError> {
    Ok(Detail {
        name: row.optional_string("name")?,
        hostname: row.optional_string("hostname")?,
        user_agent: row.optional_string("user_agent")?,
        client_info: row.optional_string("client_info")?,
        ip: row.optional_string("ip")?,
        anchor: row.optional_string("anchor")?,
        client_session_id: row.optional_string("client_session_id")?,
        token_identifier: row.optional_string("token_identifier")?,
        protocol_version: row.optional_string("protocol_version")?,
        client: row.optional_string("client")?,
    })
}

pub(crate) fn outcome(row: &impl Stored) -> Result<RecordedOutcome, StoreError> {
    let salt = row.bytes("salt")?;
    Ok(RecordedOutcome {
        key: bytes32(row, "key")?,
        fingerprint: bytes32(row, "fingerprint")?,
        salt: salt.try_into().map_err(|_| damaged(row, "salt is not 16 bytes".to_owned()))?,
        done: row.string("outcome")?,
        session: row.optional_integer("session")?.map(SessionNumber),
        recorded_at: time(row.integer("recorded_at")?),
    })
}

pub(crate) fn access_token(row: &impl Stored) -> Result<AccessToken, StoreError> {
    let client_kind = row.integer("client_kind")?;
    Ok(AccessToken {
        id: row.id("id")?,
        secret_hash: bytes32(row, "secret_hash")?,
        organization: OrganizationNumber(row.integer("organization")?),
        client_kind: ActorKind::from_code(client_kind)
            .ok_or_else(|| damaged(row, "unknown client kind".to_owned()))?,
        client: row.integer("client")?,
        scopes: Scopes::parse(row.text("scopes")?).0,
        issued_at: Position(row.integer("issued_at")?),
        expires_at: time(row.integer("expires_at")?),
        barred: row.flag("barred")?,
        audience: row.optional_id("audience")?,
    })
}

/// An event as stored. A pruned body reads as an [`Event::Unknown`] with a null body.
pub(crate) fn entry(row: &impl Stored) -> Result<Entry, StoreError> {
    let name = row.text("type")?;
    let body = row.optional_string("body")?;
    let (event, digest) = match &body {
        Some(body) => {
            let event =
                Event::parse(name, body).map_err(|error| damaged(row, format!("body of {name}: {error}")))?;
            // Kept where the body is not any more what was hashed.
            let kept = row.optional_bytes("body_digest")?;
            (event, if kept.is_some() { bytes32(row, "body_digest")? } else { body_digest(body) })
        }
        None => (
            Event::Unknown { name: name.to_owned(), body: serde_json::Value::Null },
            bytes32(row, "body_digest")?,
        ),
    };
    let (stream_kind, actor_kind) = (row.integer("stream_kind")?, row.integer("actor_kind")?);
    let commit_hash = row.optional_bytes("commit_hash")?;
    let recorded = Recorded {
        position: Position(row.integer("position")?),
        stream: StreamId {
            kind: StreamKind::from_code(stream_kind)
                .ok_or_else(|| damaged(row, format!("unknown stream kind {stream_kind}")))?,
            number: row.integer("stream_number")?,
        },
        version: row.integer("version")?,
        previous_position: Position(row.integer("previous_position")?),
        occurred_at: time(row.integer("occurred_at")?),
        recorded_at: time(row.integer("recorded_at")?),
        organization: OrganizationNumber(row.integer("organization")?),
        application: row.optional_integer("application")?.map(ApplicationNumber),
        actor: Actor {
            kind: ActorKind::from_code(actor_kind)
                .ok_or_else(|| damaged(row, format!("unknown actor kind {actor_kind}")))?,
            id: row.optional_id("actor_id")?.unwrap_or_default(),
        },
        revocation: row.optional_integer("revocation")?.map(RevocationNumber),
        request_id: row.optional_string("request_id")?,
        traceparent: row.optional_string("traceparent")?,
        event,
        personal: row.optional_string("personal")?,
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

pub(crate) fn session_token(row: &impl Stored) -> Result<SessionToken, StoreError> {
    Ok(SessionToken {
        secret_hash: bytes32(row, "secret_hash")?,
        issued_at: Position(row.integer("issued_at")?),
        expires_at: time(row.integer("expires_at")?),
    })
}

pub(crate) fn principal(row: &impl Stored) -> Result<Principal, StoreError> {
    Ok(Principal {
        number: PrincipalNumber(row.integer("number")?),
        organization: OrganizationNumber(row.integer("organization")?),
        issuer: row.string("issuer")?,
        subject_digest: bytes32(row, "subject_digest")?,
        subject: row.optional_string("subject")?,
        kept_id: row.optional_id("kept_id")?,
    })
}

pub(crate) fn principal_row(row: &impl Stored) -> Result<PrincipalRow, StoreError> {
    Ok(PrincipalRow {
        principal: principal(row)?,
        name: row.optional_string("name")?,
        email: row.optional_string("email")?,
    })
}
