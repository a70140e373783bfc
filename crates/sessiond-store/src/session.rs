//! Sessions, whatever database their rows lie in: what is read of one, and the session that it makes.

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
use uuid::Uuid;

use crate::StoreError;
use crate::row::{Detail, SessionActivity, SessionRow};
use crate::values::time;

/// What is read of a session: its row, its details and, where it has one, its hot row.
#[derive(Deserialize)]
pub(crate) struct Columns {
    pub number: SessionNumber,
    #[serde(deserialize_with = "id")]
    pub id: Uuid,
    pub organization: OrganizationNumber,
    pub application: ApplicationNumber,
    pub principal: PrincipalNumber,
    pub owner_kind: i64,
    #[serde(deserialize_with = "id")]
    pub owner_id: Uuid,
    pub kind: Kind,
    pub idle_after: u32,
    pub stale_after: u32,
    pub absolute_lifetime: u32,
    pub token_lifetime: Option<u32>,
    pub unused_after: Option<u32>,
    pub preset: Option<Preset>,
    pub connected_at: i64,
    pub connected_head: Position,
    pub lifetime_ends_at: i64,
    pub token_expires_at: i64,
    pub expiry_announced: Option<i64>,
    #[serde(deserialize_with = "optional_id")]
    pub credential: Option<Uuid>,
    pub suspended_at: Option<i64>,
    pub resumed_at: Option<i64>,
    pub resource: Option<String>,
    pub node: Option<i64>,
    pub phase: Option<Phase>,
    pub ended_at: Option<i64>,
    pub ended_reason: Option<Reason>,
    pub ended_outcome: Option<WorkOutcome>,
    pub message: Option<String>,
    pub last_active_at: i64,
    pub requests: u64,
    pub bytes_in: u64,
    pub bytes_out: u64,
    pub throughput: Option<Box<Throughput>>,
    pub version: i64,
    pub head: Position,
    pub hash: Bytes<32>,
    pub name: Option<String>,
    pub hostname: Option<String>,
    pub user_agent: Option<String>,
    pub client_info: Option<String>,
    pub ip: Option<String>,
    pub anchor: Option<String>,
    pub client_session_id: Option<String>,
    pub token_identifier: Option<String>,
    pub protocol_version: Option<String>,
    pub client: Option<String>,
    pub activity: Option<Activity>,
}

/// The hot row of a session.
#[derive(Deserialize)]
pub(crate) struct Activity {
    pub last_active_at: i64,
    pub requests: u64,
    pub bytes_in: u64,
    pub bytes_out: u64,
    pub throughput: Option<Box<Throughput>>,
    pub version: i64,
    pub head: Position,
    pub hash: Bytes<32>,
}

/// So many bytes; in a text, hexadecimal.
pub(crate) struct Bytes<const COUNT: usize>(pub [u8; COUNT]);

impl<'de, const COUNT: usize> Deserialize<'de> for Bytes<COUNT> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut bytes = [0; COUNT];
        hex::decode_to_slice(<&str>::deserialize(deserializer)?, &mut bytes)
            .map_err(|error| D::Error::custom(format!("not {COUNT} bytes: {error}")))?;
        Ok(Self(bytes))
    }
}

fn id<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Uuid, D::Error> {
    Bytes::<16>::deserialize(deserializer).map(|bytes| Uuid::from_bytes(bytes.0))
}

fn optional_id<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Uuid>, D::Error> {
    Ok(Option::<Bytes<16>>::deserialize(deserializer)?.map(|bytes| Uuid::from_bytes(bytes.0)))
}

impl Columns {
    /// The session, with its activity as the newer of its two rows has it.
    pub(crate) fn session(self) -> Result<SessionRow, StoreError> {
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
            id: self.id,
            organization: self.organization,
            application: self.application,
            principal: self.principal,
            owner: Actor { kind: owner_kind, id: self.owner_id },
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
            credential: self.credential,
            suspended_at: self.suspended_at.map(time),
            resumed_at: self.resumed_at.map(time),
            resource: self.resource,
            node: self.node,
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
