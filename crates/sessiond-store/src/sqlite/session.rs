//! Sessions, as SQLite hands them over: each as one JSON array, and not in the sixty values that its rows have.
//! The driver copies every value of every row on its own, nulls included, and frees it in another thread: that took
//! three quarters of a start with a million open sessions.

use serde::de::Error;
use serde::{Deserialize, Deserializer};
use sessiond_core::actor::{Actor, ActorKind};
use sessiond_core::ids::{
    ApplicationNumber, Head, OrganizationNumber, Position, PrincipalNumber, SessionNumber,
};
use sessiond_core::kind::Kind;
use sessiond_core::phase::{Outcome as WorkOutcome, Phase};
use sessiond_core::policy::{Preset, SessionPolicy};
use sessiond_core::reason::Reason;
use sessiond_core::session::Session;
use sessiond_core::session::ended::Ended;
use sessiond_core::session::event::Counts;
use sessiond_core::throughput::Throughput;
use sqlx::Row;
use sqlx::sqlite::SqliteRow;
use uuid::Uuid;

use crate::values::time;
use crate::StoreError;
use crate::row::{Detail, OpenSession, SessionActivity, SessionRow, SessionToken};

/// Declares what a session is read as, and the SQL that says it, in the same order.
macro_rules! columns {
    ($first:ident: $first_type:ty = $first_sql:literal, $($field:ident: $type:ty = $sql:literal,)*) => {
        #[derive(Deserialize)]
        struct Columns {
            $first: $first_type,
            $($field: $type,)*
        }

        /// A whole session as one value: `s` is its row, `d` its details and `a` its activity, if it has any.
        pub(super) const WHOLE_SESSION: &str = concat!("json_array(", $first_sql, $(", ", $sql,)* ")");
    };
}

columns! {
    number: SessionNumber = "s.number",
    id: Bytes<16> = "hex(s.id)",
    organization: OrganizationNumber = "s.organization",
    application: ApplicationNumber = "s.application",
    principal: PrincipalNumber = "s.principal",
    owner_kind: i64 = "s.owner_kind",
    owner_id: Bytes<16> = "hex(s.owner_id)",
    kind: Kind = "s.kind",
    idle_after: u32 = "s.idle_after",
    stale_after: u32 = "s.stale_after",
    absolute_lifetime: u32 = "s.absolute_lifetime",
    token_lifetime: Option<u32> = "s.token_lifetime",
    unused_after: Option<u32> = "s.unused_after",
    preset: Option<Preset> = "s.preset",
    connected_at: i64 = "s.connected_at",
    connected_head: Position = "s.connected_head",
    lifetime_ends_at: i64 = "s.lifetime_ends_at",
    token_expires_at: i64 = "s.token_expires_at",
    expiry_announced: Option<i64> = "s.expiry_announced",
    credential: Option<Bytes<16>> = "nullif(hex(s.credential), '')",
    suspended_at: Option<i64> = "s.suspended_at",
    resumed_at: Option<i64> = "s.resumed_at",
    resource: Option<String> = "s.resource",
    phase: Option<Phase> = "s.phase",
    ended_at: Option<i64> = "s.ended_at",
    ended_reason: Option<Reason> = "s.ended_reason",
    ended_outcome: Option<WorkOutcome> = "s.ended_outcome",
    message: Option<String> = "s.message",
    last_active_at: i64 = "s.last_active_at",
    requests: u64 = "s.requests",
    bytes_in: u64 = "s.bytes_in",
    bytes_out: u64 = "s.bytes_out",
    throughput: Option<Box<Throughput>> = "json(s.throughput)",
    version: i64 = "s.version",
    head: Position = "s.head",
    hash: Bytes<32> = "hex(s.hash)",
    name: Option<String> = "d.name",
    hostname: Option<String> = "d.hostname",
    user_agent: Option<String> = "d.user_agent",
    client_info: Option<String> = "d.client_info",
    ip: Option<String> = "d.ip",
    anchor: Option<String> = "d.anchor",
    client_session_id: Option<String> = "d.client_session_id",
    token_identifier: Option<String> = "d.token_identifier",
    protocol_version: Option<String> = "d.protocol_version",
    client: Option<String> = "d.client",
    activity: Option<Activity> = "iif(a.number is null, null, json_array(a.last_active_at, a.requests, a.bytes_in, \
                                  a.bytes_out, json(a.throughput), a.version, a.head, hex(a.hash)))",
}

/// The hot row of a session.
#[derive(Deserialize)]
struct Activity {
    last_active_at: i64,
    requests: u64,
    bytes_in: u64,
    bytes_out: u64,
    throughput: Option<Box<Throughput>>,
    version: i64,
    head: Position,
    hash: Bytes<32>,
}

/// What `hex()` makes of a blob of so many bytes.
struct Bytes<const COUNT: usize>([u8; COUNT]);

impl<'de, const COUNT: usize> Deserialize<'de> for Bytes<COUNT> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut bytes = [0; COUNT];
        hex::decode_to_slice(<&str>::deserialize(deserializer)?, &mut bytes)
            .map_err(|error| D::Error::custom(format!("not {COUNT} bytes: {error}")))?;
        Ok(Self(bytes))
    }
}

impl From<Bytes<16>> for Uuid {
    fn from(bytes: Bytes<16>) -> Self {
        Self::from_bytes(bytes.0)
    }
}

/// The session in a row's only value, which is [`WHOLE_SESSION`].
pub(super) fn whole_session(row: &SqliteRow) -> Result<SessionRow, StoreError> {
    parsed::<Columns>(row.try_get(0)?)?.session()
}

/// An open session as one value: whole, with its token (`t`), and with the hash of its `Mcp-Session-Id` (`m`).
pub(super) fn open_session() -> String {
    format!(
        "json_array({WHOLE_SESSION}, iif(t.session is null, null, json_array(hex(t.secret_hash), t.issued_at, \
         t.expires_at)), nullif(hex(m.id_hash), ''))"
    )
}

/// The open sessions in a JSON array of what [`open_session`] says.
pub(super) fn open_sessions(array: &str) -> Result<Vec<OpenSession>, StoreError> {
    type Open = (Columns, Option<(Bytes<32>, Position, i64)>, Option<Bytes<32>>);
    let open = |(session, token, mcp_hash): Open| {
        let token = token.map(|(secret_hash, issued_at, expires_at)| SessionToken {
            secret_hash: secret_hash.0,
            issued_at,
            expires_at: time(expires_at),
        });
        Ok(OpenSession { row: session.session()?, token, mcp_hash: mcp_hash.map(|hash| hash.0) })
    };
    parsed::<Vec<Open>>(array)?.into_iter().map(open).collect()
}

fn parsed<'text, Value: Deserialize<'text>>(text: &'text str) -> Result<Value, StoreError> {
    let damaged = |error| StoreError::Damaged { position: 0, what: format!("a row of session: {error}") };
    serde_json::from_str(text).map_err(damaged)
}

impl Columns {
    /// The session, with its activity as the newer of its two rows has it.
    fn session(self) -> Result<SessionRow, StoreError> {
        let owner_kind = ActorKind::from_code(self.owner_kind).ok_or_else(|| StoreError::Damaged {
            position: self.head.0,
            what: format!("unknown owner kind {}", self.owner_kind),
        })?;
        let ended = self.ended_at.zip(self.ended_reason).map(|(at, reason)| Ended {
            at: time(at),
            reason,
            outcome: self.ended_outcome,
        });
        let mut session = Session {
            number: self.number,
            id: self.id.into(),
            organization: self.organization,
            application: self.application,
            principal: self.principal,
            owner: Actor { kind: owner_kind, id: self.owner_id.into() },
            kind: self.kind,
            policy: SessionPolicy {
                idle_after: self.idle_after,
                stale_after: self.stale_after,
                absolute_lifetime: self.absolute_lifetime,
                token_lifetime: self.token_lifetime,
                unused_after: self.unused_after,
                preset: self.preset,
            },
            connected_at: time(self.connected_at),
            connected_at_position: self.connected_head,
            lifetime_ends_at: time(self.lifetime_ends_at),
            token_expires_at: time(self.token_expires_at),
            expiry_announced: self.expiry_announced.map(time),
            last_active_at: time(self.last_active_at),
            total: Counts { requests: self.requests, bytes_in: self.bytes_in, bytes_out: self.bytes_out },
            credential: self.credential.map(Uuid::from),
            suspended_at: self.suspended_at.map(time),
            resumed_at: self.resumed_at.map(time),
            resource: self.resource,
            phase: self.phase,
            throughput: self.throughput,
            ended,
            message: self.message,
            head: Head { version: self.version, position: self.head, hash: self.hash.0 },
        };
        if let Some(hot) = self.activity {
            let activity = SessionActivity {
                session: self.number,
                last_active_at: time(hot.last_active_at),
                total: Counts { requests: hot.requests, bytes_in: hot.bytes_in, bytes_out: hot.bytes_out },
                throughput: hot.throughput,
                head: Head { version: hot.version, position: hot.head, hash: hot.hash.0 },
            };
            activity.onto(&mut session);
        }
        let detail = Detail {
            name: self.name,
            hostname: self.hostname,
            user_agent: self.user_agent,
            client_info: self.client_info,
            ip: self.ip,
            anchor: self.anchor,
            client_session_id: self.client_session_id,
            token_identifier: self.token_identifier,
            protocol_version: self.protocol_version,
            client: self.client,
        };
        Ok(SessionRow { session, detail })
    }
}
