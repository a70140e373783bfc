//! What happens to a session.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::Time;
use crate::ids::PrincipalNumber;
use crate::kind::Kind;
use crate::phase::{Outcome, Phase};
use crate::policy::SessionPolicy;
use crate::reason::Reason;
use crate::stream::{EMPTY, StreamEvent, text};
use crate::throughput::Throughput;

/// What happens to a session.
#[derive(Debug, Clone, PartialEq)]
pub enum SessionEvent {
    Connected(Box<Connected>),
    ActivityRecorded(ActivityRecorded),
    TokenRenewed(TokenRenewed),
    Expired(Expired),
    /// Every request is refused until it is resumed; nothing else changes.
    Suspended,
    Resumed,
    /// The work behind it has come further.
    PhaseChanged(PhaseChanged),
    Disconnected(Disconnected),
}

/// A session came to be.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Connected {
    pub id: Uuid,
    pub kind: Kind,
    pub principal: PrincipalNumber,
    /// What the gateway knows a client by that has no session id (a keyed digest, in hex); it is the natural key before
    /// the two below.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub anchor: Option<String>,
    /// The name a session has within its resource. Without one it is personal: it stands beside the event since it can be
    /// erased there, and here in events from before that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_session_id: Option<String>,
    /// In events from before it stood beside them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_identifier: Option<String>,
    /// Milliseconds since the epoch, as every time in a body.
    #[serde(with = "chrono::serde::ts_milliseconds")]
    pub token_expires_at: Time,
    #[serde(with = "chrono::serde::ts_milliseconds")]
    pub lifetime_ends_at: Time,
    pub policy: SessionPolicy,
    /// The access token it was opened with, by id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential: Option<Uuid>,
    /// The MCP revision that was negotiated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol_version: Option<String>,
    /// What it is connected to within its application: a media stream, say. Where there is one, `clientSessionId` is
    /// unique within it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource: Option<String>,
    /// How far the work behind it has come; for work that is queued and run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<Phase>,
    /// The node that it lives on, by number, where it cannot go on anywhere else: its bytes are there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<i64>,
    /// SHA-256 (hex) of the personal facts beside the body; they can be erased, this stays.
    pub personal: String,
}

impl Connected {
    /// The event without what is personal in it, where it is from before that stood beside it.
    pub fn erased(&self) -> Option<Self> {
        let named = self.client_session_id.is_some() && self.resource.is_none();
        (named || self.token_identifier.is_some()).then(|| Self {
            client_session_id: self.client_session_id.clone().filter(|_| !named),
            token_identifier: None,
            ..self.clone()
        })
    }
}

/// Signs of life: one event for all calls of one session by one actor that met in a batch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ActivityRecorded {
    pub source: ActivitySource,
    #[serde(flatten)]
    pub counts: Counts,
    /// Sums since the session connected, this event included: so a fold needs only a session's last activity.
    pub total: Counts,
    /// What readings of a counter have come to, this one included; for the same reason whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub throughput: Option<Box<Throughput>>,
}

/// Where a sign of life came from. Never change a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ActivitySource {
    /// `…/heartbeat`
    Heartbeat,
    /// `…/activity`
    Report,
    /// Requests that passed our MCP gateway.
    Gateway,
    /// A reading of a counter, by whoever serves the session.
    Reading,
}

/// Countable work. Zeroes are left out of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Counts {
    #[serde(skip_serializing_if = "is_zero")]
    pub requests: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub bytes_in: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub bytes_out: u64,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Counts {
    /// The largest count kept: SQLite's integers are signed.
    pub const MAX: u64 = i64::MAX as u64;

    /// The sum, held at [`Counts::MAX`].
    pub fn plus(self, other: Self) -> Self {
        let add = |left: u64, right: u64| left.saturating_add(right).min(Self::MAX);
        Self {
            requests: add(self.requests, other.requests),
            bytes_in: add(self.bytes_in, other.bytes_in),
            bytes_out: add(self.bytes_out, other.bytes_out),
        }
    }

    /// The difference, held at zero.
    pub fn minus(self, other: Self) -> Self {
        Self {
            requests: self.requests.saturating_sub(other.requests),
            bytes_in: self.bytes_in.saturating_sub(other.bytes_in),
            bytes_out: self.bytes_out.saturating_sub(other.bytes_out),
        }
    }
}

/// The session's token was replaced, or its owner presented a credential that outlives it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TokenRenewed {
    #[serde(with = "chrono::serde::ts_milliseconds")]
    pub token_expires_at: Time,
    /// The access token that was presented, by id; none where the session renewed its own token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential: Option<Uuid>,
}

/// Announced, at most once per value of `token_expires_at`. Not an end.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Expired {
    /// The instant that passed.
    #[serde(with = "chrono::serde::ts_milliseconds")]
    pub token_expires_at: Time,
}

/// The end: nothing follows it in a session's stream.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Disconnected {
    pub reason: Reason,
    /// What came of the work behind it, where that ended by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
    /// In the words of whoever ran it, at most 2,000 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

impl Disconnected {
    /// An end with nothing more to say about it.
    pub fn because(reason: Reason) -> Self {
        Self { reason, outcome: None, message: None }
    }
}

/// The work behind a session has come further.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PhaseChanged {
    pub phase: Phase,
}

/// The type that a session begins with.
pub const CONNECTED: &str = "connected";

/// The one type that is not a lifecycle event; feeds leave it out unless asked.
pub const ACTIVITY: &str = "activity_recorded";

impl StreamEvent for SessionEvent {
    const NAMES: &[&str] = &[
        "connected",
        ACTIVITY,
        "token_renewed",
        "expired",
        "suspended",
        "resumed",
        "phase_changed",
        "disconnected",
    ];

    fn name(&self) -> &'static str {
        match self {
            Self::Connected(_) => "connected",
            Self::ActivityRecorded(_) => ACTIVITY,
            Self::TokenRenewed(_) => "token_renewed",
            Self::Expired(_) => "expired",
            Self::Suspended => "suspended",
            Self::Resumed => "resumed",
            Self::PhaseChanged(_) => "phase_changed",
            Self::Disconnected(_) => "disconnected",
        }
    }

    fn body(&self) -> String {
        match self {
            Self::Connected(body) => text(body),
            Self::ActivityRecorded(body) => text(body),
            Self::TokenRenewed(body) => text(body),
            Self::Expired(body) => text(body),
            Self::Suspended | Self::Resumed => EMPTY.to_owned(),
            Self::PhaseChanged(body) => text(body),
            Self::Disconnected(body) => text(body),
        }
    }

    fn parse(name: &str, body: &str) -> Result<Option<Self>, serde_json::Error> {
        Ok(Some(match name {
            "connected" => Self::Connected(serde_json::from_str(body)?),
            ACTIVITY => Self::ActivityRecorded(serde_json::from_str(body)?),
            "token_renewed" => Self::TokenRenewed(serde_json::from_str(body)?),
            "expired" => Self::Expired(serde_json::from_str(body)?),
            "suspended" => Self::Suspended,
            "resumed" => Self::Resumed,
            "phase_changed" => Self::PhaseChanged(serde_json::from_str(body)?),
            "disconnected" => Self::Disconnected(serde_json::from_str(body)?),
            _ => return Ok(None),
        }))
    }
}
