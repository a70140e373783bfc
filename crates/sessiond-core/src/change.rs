//! What a commit changes in memory. The Gate is a state machine and this is its alphabet: whoever applies the changes of
//! every commit in the order of the log has the same Gate, without having decided anything. So whatever a commit makes
//! true in memory is a change, also where it is no event: tokens, principals, hashes of keys, bars, erasures.
//!
//! Changes say what is so afterwards and not what happened, so that to apply one needs no rules. They are written down only
//! for as long as somebody may be behind, and may be read by the release before this one and the release after: variants
//! and optional fields are added, none is changed.
//!
//! No part of them is what one process alone knows: requests under way, traffic that is not in the log yet, who listens; nor
//! signs of life that are not, but for those without which another process would take a session for stale.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::Time;
use crate::command::Connect;
use crate::ids::{ApplicationNumber, Position, SessionNumber};
use crate::kind::Kind;
use crate::natural_key::KeyDigest;
use crate::retention::ResourceTotals;
use crate::session::Session;
use crate::streams::AnyStream;
use crate::token::{AccessToken, Principal, SessionToken};

/// One thing that a commit changes in memory.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(
    clippy::large_enum_variant,
    reason = "most changes are the largest, and a box would cost each heartbeat an allocation"
)]
pub enum Change {
    /// A stream as it stands now. A revocation is in force until it has ended.
    Stream(AnyStream),
    /// A session as it stands now, with what it is found by if it has just connected.
    Session(Session, Option<IndexEntry>),
    /// A session's one current token.
    SessionToken(SessionNumber, SessionToken),
    /// SHA-256 of the secret in a session's `Mcp-Session-Id`.
    McpSession(SessionNumber, [u8; 32]),
    /// What sessions are found by beyond their fold is personal, and was erased.
    ErasePersonal(Vec<SessionNumber>),
    /// An access token was issued.
    AccessToken(AccessToken),
    /// An access token opens no agent-side path any more.
    BarAccessToken(Uuid),
    /// An access token was given up by its client, and opens nothing any more.
    RevokeAccessToken(Uuid),
    /// Access tokens that had expired by then are forgotten.
    ForgetTokens(Time),
    /// Credentials issued before this position, which was this time, were barred somewhere.
    #[serde(rename = "bar")]
    CredentialsBarred(Position, Time),
    /// A principal was met for the first time.
    Principal(Principal),
    /// The secrets of an API key, with when the key was last used.
    ApiKeySecret(Uuid, KeyHashes, Option<Time>),
    /// When API keys were last used, as far as that is on record.
    ApiKeysUsed(Vec<(Uuid, Time)>),
    /// How many sessions of an application there are, open and ended. Only a start says this; then each `Connected` counts,
    /// and each that is let go.
    SessionTotal(ApplicationNumber, u64),
    /// Ended sessions of an application were let go, so many.
    SessionsLetGo(ApplicationNumber, u64),
    /// What the ended sessions of a resource came to, those that were let go among them. Only a start says this; then each end
    /// counts.
    ResourceTotals(ApplicationNumber, String, ResourceTotals),
    /// The access token last presented with a session is another than its stream says. Nothing of this and the next is on
    /// record: a process tells it to those that follow.
    Presented(SessionNumber, Uuid),
    /// Sessions that were alive at these times by what a process has seen of them and recorded nothing of, because a stream of
    /// theirs is open and silent.
    SeenAlive(Vec<(SessionNumber, Time)>),
}

/// Whether, by a change of a commit with these changes, anything that is open may have to end, or somebody is not to be let in
/// any more who was before: then it has to be true everywhere before it is answered. Rather once too often: what says that
/// somebody has connected, was active or got a first token does not end anything, and all else that could does.
pub fn ends(change: &Change, changes: &[Change]) -> bool {
    match change {
        Change::Session(session, _) => session.ended.is_some() || session.suspended_at.is_some(),
        // Another token takes the place of the one before.
        Change::SessionToken(number, _) => {
            let connects =
                |change: &Change| matches!(change, Change::Session(one, Some(_)) if one.number == *number);
            !changes.iter().any(connects)
        }
        Change::Stream(stream) => !matches!(stream, AnyStream::Schedule(_) | AnyStream::Webhook(_)),
        Change::BarAccessToken(_)
        | Change::RevokeAccessToken(_)
        | Change::CredentialsBarred(..)
        | Change::ApiKeySecret(..) => true,
        Change::McpSession(..)
        | Change::ErasePersonal(_)
        | Change::AccessToken(_)
        | Change::ForgetTokens(_)
        | Change::Principal(_)
        | Change::ApiKeysUsed(_)
        | Change::SessionTotal(..)
        | Change::SessionsLetGo(..)
        | Change::ResourceTotals(..)
        | Change::Presented(..)
        | Change::SeenAlive(_) => false,
    }
}

/// SHA-256 of the secrets of an API key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyHashes {
    pub hash: [u8; 32],
    /// Of the secret before its last rotation. Until when that is good is in the key's fold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<[u8; 32]>,
}

/// What a session is found by beyond its fold, from when it connects or is loaded.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexEntry {
    pub key: Option<KeyDigest>,
    pub terms: SearchTerms,
    /// When it was loaded, which may be long after it was last active; none: it has just connected.
    pub loaded_at: Option<Time>,
}

impl IndexEntry {
    /// What a session is found by that has just connected.
    pub fn of(connect: &Connect) -> Self {
        let terms = SearchTerms {
            hostname: connect.personal.hostname.clone(),
            client: connect.personal.client().map(str::to_owned),
            name: listed_name(connect.kind, connect.client_session_id.as_deref()),
        };
        Self { key: connect.key().map(|key| key.digest(connect.application)), terms, loaded_at: None }
    }
}

/// Facts about a session that filters ask for and that are no part of its fold.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SearchTerms {
    /// Personal, and erasable.
    pub hostname: Option<String>,
    /// `clientInfo.name`; personal, and erasable.
    pub client: Option<String>,
    /// Its name within its resource, where lists give names alone. Not personal.
    pub name: Option<String>,
}

/// The name that lists give of a session, where they give names alone.
pub fn listed_name(kind: Kind, client_session_id: Option<&str>) -> Option<String> {
    client_session_id.filter(|_| kind == Kind::Media).map(str::to_owned)
}
