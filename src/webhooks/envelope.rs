//! An event as it goes out: CloudEvents 1.0 in JSON (https://github.com/cloudevents/spec), the same for every webhook.

use bytes::Bytes;
use chrono::SecondsFormat;
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};
use sessiond_core::Time;
use sessiond_core::ids::{Position, StreamKind};
use sessiond_core::webhook::Webhook;
use uuid::Uuid;

use crate::directory::Directory;
use crate::live::Outgoing;

pub const MEDIA_TYPE: &str = "application/cloudevents+json";
/// The most that Standard Webhooks lets a body have.
const LARGEST: usize = 20_000;

#[derive(Serialize)]
struct CloudEvent<'a> {
    specversion: &'static str,
    id: &'a str,
    source: String,
    r#type: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<Uuid>,
    time: String,
    datacontenttype: &'static str,
    /// The position, as texts sort.
    #[serde(skip_serializing_if = "Option::is_none")]
    sequence: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    recordedtime: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    traceparent: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Box<RawValue>>,
}

/// An event as it is posted, with what names it: by that a receiver tells duplicates.
#[derive(Debug, Clone)]
pub struct Envelope {
    pub id: String,
    pub body: Bytes,
}

/// What names an event wherever and however often it is delivered. Its position alone would name another event in another
/// installation, and in this one after it was restored; its hash is of its stream's whole story.
pub fn id(position: Position, hash: &[u8; 32]) -> String {
    format!("evt_{:020}_{}", position.0, hex::encode(&hash[..8]))
}

/// An event for its deliveries.
pub fn envelope(event: &Outgoing, directory: &Directory, public_url: &str) -> Envelope {
    let id = id(event.frame.position, &event.hash);
    Envelope { body: body(event, &id, directory, public_url), id }
}

fn body(event: &Outgoing, id: &str, directory: &Directory, public_url: &str) -> Bytes {
    let subject = match event.stream.kind {
        StreamKind::Session => event.session_id,
        StreamKind::Revocation => event.revocation_id,
        _ => directory.thing_id(event.stream),
    };
    let mut envelope = CloudEvent {
        specversion: "1.0",
        id,
        source: source(public_url, directory.organization_id(event.organization), event.application_id),
        r#type: type_of(event.stream.kind, &event.frame.name),
        subject,
        time: iso(event.occurred_at),
        datacontenttype: "application/json",
        sequence: Some(format!("{:020}", event.frame.position.0)),
        recordedtime: Some(iso(event.recorded_at)),
        traceparent: event.traceparent.as_deref(),
        data: RawValue::from_string(event.frame.data.clone()).ok(),
    };
    let whole = json(&envelope);
    if whole.len() <= LARGEST {
        return whole;
    }
    // Whoever wants the rest finds it by the sequence.
    envelope.data = None;
    json(&envelope)
}

/// The body of a delivery that only shows that deliveries arrive.
pub fn test_body(id: &str, webhook: &Webhook, directory: &Directory, public_url: &str, now: Time) -> Bytes {
    let application = webhook.application.map(|number| directory.application_id(number));
    json(&CloudEvent {
        specversion: "1.0",
        id,
        source: source(public_url, directory.organization_id(webhook.organization), application),
        r#type: type_of(StreamKind::Webhook, "webhook_test"),
        subject: Some(webhook.id),
        time: iso(now),
        datacontenttype: "application/json",
        sequence: None,
        recordedtime: None,
        traceparent: None,
        data: to_raw_value(&serde_json::json!({ "type": "webhook_test", "webhookId": webhook.id })).ok(),
    })
}

fn source(public_url: &str, organization: Uuid, application: Option<Uuid>) -> String {
    let organization = format!("{public_url}/organizations/{organization}");
    match application {
        Some(application) => format!("{organization}/applications/{application}"),
        None => organization,
    }
}

/// `disconnected` of a session is `dev.sessiond.session.disconnected.v1`.
fn type_of(kind: StreamKind, name: &str) -> String {
    let word = kind.word();
    let verb = name.strip_prefix(word).and_then(|rest| rest.strip_prefix('_')).unwrap_or(name);
    format!("dev.sessiond.{word}.{verb}.v1")
}

fn iso(time: Time) -> String {
    time.to_rfc3339_opts(SecondsFormat::Millis, true)
}

/// Plain data with string keys: serializing it cannot fail.
fn json(envelope: &CloudEvent<'_>) -> Bytes {
    serde_json::to_vec(envelope).unwrap_or_default().into()
}
