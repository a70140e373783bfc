//! Media streams that sessions are viewers of. A stream has a name of its own within an app, an app within a virtual host,
//! a virtual host within its organization; the app is an application.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::Time;
use crate::ids::{ApplicationNumber, Head, OrganizationNumber, StreamKind};
use crate::stream::{Envelope, Stream, StreamEvent, StreamRefusal, text};

/// What happens to a media stream.
#[derive(Debug, Clone, PartialEq)]
pub enum MediaStreamEvent {
    /// There is such a stream. Said again of one whose application was archived: it is of another application now.
    Declared(MediaStreamDeclared),
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MediaStreamDeclared {
    pub id: Uuid,
    pub vhost: String,
    pub app: String,
    pub stream: String,
    /// The application that stands for the app.
    pub application: ApplicationNumber,
}

/// The fold of a media stream's events.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MediaStream {
    pub number: i64,
    pub id: Uuid,
    pub organization: OrganizationNumber,
    pub vhost: String,
    pub app: String,
    pub stream: String,
    pub application: ApplicationNumber,
    pub declared_at: Time,
    #[serde(skip)]
    pub head: Head,
}

/// Longest name of a virtual host, app, stream or session in one; bytes.
pub const LONGEST_NAME: usize = 255;

/// A name that is a segment of a path: not empty, no slash, no control characters. Dots alone lead elsewhere.
pub fn checked_segment<'a>(what: &str, name: &'a str) -> Result<&'a str, String> {
    let fits = !name.trim().is_empty() && name.len() <= LONGEST_NAME && !matches!(name, "." | "..");
    if fits && !name.chars().any(|character| character == '/' || character.is_control()) {
        return Ok(name);
    }
    Err(format!(
        "{what} must be 1 to {LONGEST_NAME} bytes, without slashes and control characters, and not dots alone"
    ))
}

/// What an application is called that stands for an app.
pub fn application_name(vhost: &str, app: &str) -> String {
    format!("{vhost}/{app}")
}

impl Stream for MediaStream {
    const KIND: StreamKind = StreamKind::MediaStream;
    type Event = MediaStreamEvent;
    type Command = MediaStreamEvent;

    fn decide(
        before: Option<&Self>,
        command: &MediaStreamEvent,
    ) -> Result<Option<MediaStreamEvent>, StreamRefusal> {
        let MediaStreamEvent::Declared(declared) = command;
        let happens = before.is_none_or(|before| declared.application != before.application);
        Ok(happens.then(|| command.clone()))
    }

    fn evolve(before: Option<Self>, event: &MediaStreamEvent, envelope: &Envelope) -> Option<Self> {
        let MediaStreamEvent::Declared(declared) = event;
        Some(MediaStream {
            number: envelope.number,
            id: before.as_ref().map_or(declared.id, |before| before.id),
            organization: envelope.organization,
            vhost: declared.vhost.clone(),
            app: declared.app.clone(),
            stream: declared.stream.clone(),
            application: declared.application,
            declared_at: before.map_or(envelope.occurred_at, |before| before.declared_at),
            head: envelope.head,
        })
    }

    fn organization(&self) -> OrganizationNumber {
        self.organization
    }

    fn application(&self) -> Option<ApplicationNumber> {
        Some(self.application)
    }
}

impl StreamEvent for MediaStreamEvent {
    const NAMES: &[&str] = &["media_stream_declared"];

    fn name(&self) -> &'static str {
        match self {
            Self::Declared(_) => "media_stream_declared",
        }
    }

    fn body(&self) -> String {
        match self {
            Self::Declared(body) => text(body),
        }
    }

    fn parse(name: &str, body: &str) -> Result<Option<Self>, serde_json::Error> {
        Ok(Some(match name {
            "media_stream_declared" => Self::Declared(serde_json::from_str(body)?),
            _ => return Ok(None),
        }))
    }
}
