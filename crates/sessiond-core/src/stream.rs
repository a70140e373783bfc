//! Streams: what a series of events belongs to. A kind of stream is one file that implements [`Stream`] and one line in the
//! registry, [`crate::streams`].

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::Time;
use crate::ids::{ApplicationNumber, Head, OrganizationNumber, StreamKind};

/// That something was given another secret.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SecretRotated {
    /// Until when the secret before is good too; absent if it was good no more. Milliseconds since the epoch.
    #[serde(
        default,
        with = "chrono::serde::ts_milliseconds_option",
        skip_serializing_if = "Option::is_none"
    )]
    pub old_until: Option<Time>,
}

/// The fold of a stream's events, with the rules that say which events there may be. All of a kind live in memory, save
/// revocations that have ended. Folds are kept as JSON, which is why a field is added with a default and never changed. Each
/// has its `number` (counted from 1 within its kind), its public `id` and its `head`.
pub trait Stream: Clone + Serialize + DeserializeOwned + 'static {
    const KIND: StreamKind;
    type Event: StreamEvent;
    /// What somebody wants of it.
    type Command;

    /// What a command makes happen: an event, or nothing where it is so already. Without a fold, it is the first of a stream.
    fn decide(before: Option<&Self>, command: &Self::Command) -> Result<Option<Self::Event>, StreamRefusal>;

    /// The fold with one event more; none for an event before the one that begins the stream.
    fn evolve(before: Option<Self>, event: &Self::Event, envelope: &Envelope) -> Option<Self>;

    fn organization(&self) -> OrganizationNumber;

    /// The application in whose feed its events are.
    fn application(&self) -> Option<ApplicationNumber> {
        None
    }

    /// Whether it still counts among those of which there is a [`Stream::MOST`].
    fn exists(&self) -> bool {
        true
    }

    /// Whether it counts at an instant, where the clock has a say in that.
    fn exists_at(&self, _at: Time) -> bool {
        self.exists()
    }

    /// How many of its kind an organization may have, where people make them one by one.
    const MOST: Option<Most> = None;
}

/// An event of a kind of stream. What is written is written for ever: add variants, never change one.
pub trait StreamEvent: Clone {
    /// Every type there is.
    const NAMES: &[&str];

    /// The type in the envelope.
    fn name(&self) -> &'static str;

    /// The body as it is stored and hashed.
    fn body(&self) -> String;

    /// Reads an event back; none for a type that is not of this kind of stream.
    fn parse(name: &str, body: &str) -> Result<Option<Self>, serde_json::Error>;
}

/// A limit on how many there may be.
#[derive(Debug, Clone, Copy)]
pub struct Most {
    pub count: usize,
    /// What many are called in messages.
    pub plural: &'static str,
    /// The code of the refusal of one more.
    pub code: &'static str,
}

/// What a fold needs from an event's envelope.
#[derive(Debug, Clone, Copy)]
pub struct Envelope {
    pub number: i64,
    pub organization: OrganizationNumber,
    pub occurred_at: Time,
    pub head: Head,
}

/// Why a command about a stream was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StreamRefusal {
    #[error("there is no such thing, or no longer")]
    Gone,
    /// What was kept to log in with is for the place before.
    #[error("another host or port needs its credential with it: what was kept is for the one before")]
    NeedsCredential,
}

/// The body of an event that says nothing beyond its type.
pub(crate) const EMPTY: &str = "{}";

/// The text of plain data with string keys, which can always be serialized.
pub(crate) fn text(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_else(|_| Value::Null.to_string())
}
