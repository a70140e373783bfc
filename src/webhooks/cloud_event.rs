//! An event as it is sent: CloudEvents 1.0 in JSON (https://github.com/cloudevents/spec), the same for every webhook.

use bytes::Bytes;
use chrono::SecondsFormat;
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};
use sessiond_core::Time;
use sessiond_core::ids::{Position, StreamKind};
use sessiond_core::relation::Acquaintance;
use sessiond_core::webhook::Webhook;
use uuid::Uuid;

use crate::directory::PublicIds;
use crate::live::Outgoing;

pub const MEDIA_TYPE: &str = "application/cloudevents+json";
/// The largest body that Standard Webhooks allows.
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
    /// The event's log position, padded so that it sorts as text.
    #[serde(skip_serializing_if = "Option::is_none")]
    sequence: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    recordedtime: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    traceparent: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Box<RawValue>>,
}

/// The body that is posted, and the id by which a receiver recognises duplicates.
#[derive(Debug, Clone)]
pub struct PostedEvent {
    pub id: String,
    pub body: Bytes,
}

/// The id of an event, the same wherever and however often the event is delivered. Its position alone would also name
/// another event in another installation, and in this one after a backup was restored; its hash covers its stream's
/// whole history.
pub fn id(position: Position, hash: &[u8; 32]) -> String {
    format!("evt_{:020}_{}", position.0, hex::encode(&hash[..8]))
}

/// Makes the envelope of an event.
pub fn posted_event(event: &Outgoing, public_ids: &PublicIds, public_url: &str) -> PostedEvent {
    let id = id(event.frame.position, &event.hash);
    PostedEvent { body: body(event, &id, public_ids, public_url), id }
}

fn body(event: &Outgoing, id: &str, public_ids: &PublicIds, public_url: &str) -> Bytes {
    let subject = match event.stream.kind {
        StreamKind::Session => event.session_id,
        StreamKind::Revocation => event.revocation_id,
        _ => public_ids.thing(event.stream),
    };
    let mut event_out = CloudEvent {
        specversion: "1.0",
        id,
        source: source(public_url, public_ids.organization(event.organization), event.application_id),
        r#type: type_of(event.stream.kind, &event.frame.name),
        subject,
        time: iso(event.occurred_at),
        datacontenttype: "application/json",
        sequence: Some(format!("{:020}", event.frame.position.0)),
        recordedtime: Some(iso(event.recorded_at)),
        traceparent: event.traceparent.as_deref(),
        // Whoever makes a webhook may read principals.
        data: RawValue::from_string(event.frame.data_for(Acquaintance::Everybody).to_owned()).ok(),
    };
    let whole = json(&event_out);
    if whole.len() <= LARGEST {
        return whole;
    }
    // The body would be too large with its data; a receiver can read the event by its sequence.
    event_out.data = None;
    json(&event_out)
}

/// The body of a test delivery, which only shows that deliveries arrive.
pub fn test_body(id: &str, webhook: &Webhook, public_ids: &PublicIds, public_url: &str, now: Time) -> Bytes {
    let application = webhook.application.map(|number| public_ids.application(number));
    json(&CloudEvent {
        specversion: "1.0",
        id,
        source: source(public_url, public_ids.organization(webhook.organization), application),
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

/// The type of a CloudEvent: `disconnected` of a session is `dev.sessiond.session.disconnected.v1`.
fn type_of(kind: StreamKind, name: &str) -> String {
    let word = kind.word();
    let verb = name.strip_prefix(word).and_then(|rest| rest.strip_prefix('_')).unwrap_or(name);
    format!("dev.sessiond.{word}.{verb}.v1")
}

fn iso(time: Time) -> String {
    time.to_rfc3339_opts(SecondsFormat::Millis, true)
}

/// Serializing cannot fail: this is plain data with string keys.
fn json(event_out: &CloudEvent<'_>) -> Bytes {
    serde_json::to_vec(event_out).unwrap_or_default().into()
}
