//! Facts, in the past tense. What is written here is written for ever: add variants or optional fields, never change
//! one. Golden lines of every event ever shipped are in `tests/golden/events.jsonl` and must always parse.

use serde_json::Value;

use crate::Time;
use crate::actor::Actor;
use crate::application::ApplicationEvent;
use crate::chain::Header;
use crate::ids::{ApplicationNumber, OrganizationNumber, Position, RevocationNumber, StreamId};
use crate::organization::OrganizationEvent;
use crate::principal::PrincipalEvent;
use crate::session::event::SessionEvent;
use crate::stream::StreamEvent;
use crate::streams::AnyEvent;

/// Any event, by the kind of stream it belongs to.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    Session(SessionEvent),
    /// Of a stream in the registry.
    Stream(AnyEvent),
    /// A type this release does not know, kept as it is: folds pass over it.
    Unknown {
        name: String,
        body: Value,
    },
}

/// An event with its envelope, as the log keeps it.
#[derive(Debug, Clone, PartialEq)]
pub struct Recorded {
    pub position: Position,
    pub stream: StreamId,
    /// Counts from 1 in each stream, without a gap.
    pub version: i64,
    /// Position of the stream's event before this one; zero for its first.
    pub previous_position: Position,
    /// When it took effect.
    pub occurred_at: Time,
    /// When it was written; never falls along the log.
    pub recorded_at: Time,
    pub organization: OrganizationNumber,
    pub application: Option<ApplicationNumber>,
    pub actor: Actor,
    /// The revocation that caused it.
    pub revocation: Option<RevocationNumber>,
    pub request_id: Option<String>,
    pub traceparent: Option<String>,
    pub event: Event,
    /// The personal facts as stored: JSON of [`Personal`].
    pub personal: Option<String>,
}

/// Every event is written as version 1 of its type so far.
pub const TYPE_VERSION: i64 = 1;

/// Every type there is, by kind of stream.
pub fn names() -> impl Iterator<Item = &'static str> {
    SessionEvent::NAMES.iter().copied().chain(AnyEvent::names())
}

impl Event {
    /// Whether it bars credentials that were issued before it.
    pub fn bars(&self) -> bool {
        let Self::Stream(event) = self else { return false };
        match event {
            AnyEvent::Organization(OrganizationEvent::CredentialsBarred)
            | AnyEvent::Application(ApplicationEvent::CredentialsBarred)
            | AnyEvent::Principal(PrincipalEvent::CredentialsBarred(_)) => true,
            AnyEvent::Organization(OrganizationEvent::Restored(restored)) => !restored.credentials_kept,
            _ => false,
        }
    }

    /// The type in the envelope, snake_case; also the name of the event on feeds.
    pub fn name(&self) -> &str {
        match self {
            Self::Session(event) => event.name(),
            Self::Stream(event) => event.name(),
            Self::Unknown { name, .. } => name,
        }
    }

    /// The body as it is stored and hashed. Field order is the order of the structs.
    pub fn body(&self) -> String {
        match self {
            Self::Session(event) => event.body(),
            Self::Stream(event) => event.body(),
            Self::Unknown { body, .. } => body.to_string(),
        }
    }

    /// Reads an event back. A type from a newer release becomes [`Event::Unknown`]; a known type whose body does not
    /// parse is an error, because that is damage.
    pub fn parse(name: &str, body: &str) -> Result<Self, serde_json::Error> {
        if let Some(event) = SessionEvent::parse(name, body)? {
            return Ok(Self::Session(event));
        }
        Ok(match AnyEvent::parse(name, body)? {
            Some(event) => Self::Stream(event),
            None => Self::Unknown { name: name.to_owned(), body: serde_json::from_str(body)? },
        })
    }
}

impl Recorded {
    /// The envelope as it is stored.
    pub fn header(&self) -> Header<'_> {
        Header {
            position: self.position.0,
            stream_kind: self.stream.kind as i64,
            stream_number: self.stream.number,
            version: self.version,
            previous_position: self.previous_position.0,
            occurred_at: self.occurred_at.timestamp_millis(),
            recorded_at: self.recorded_at.timestamp_millis(),
            name: self.event.name(),
            type_version: TYPE_VERSION,
            organization: self.organization.0,
            application: self.application.map(|application| application.0),
            actor_kind: self.actor.kind as i64,
            actor_id: self.actor.stored_id().map(|id| id.as_bytes().as_slice()),
            revocation: self.revocation.map(|revocation| revocation.0),
            request_id: self.request_id.as_deref(),
            traceparent: self.traceparent.as_deref(),
        }
    }
}
