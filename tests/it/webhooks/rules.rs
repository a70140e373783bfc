//! For every event of a webhook: a later decision that depends on it. And that what a webhook may name is what there is.

use std::collections::BTreeSet;

use chrono::DateTime;
use sessiond_core::ids::{ApplicationNumber, Head, OrganizationNumber, Position};
use sessiond_core::stream::{Envelope, SecretRotated, Stream};
use sessiond_core::webhook::{
    Because, Disabled, TYPES, Webhook, WebhookChanged, WebhookCreated, WebhookEvent,
};
use uuid::Uuid;

fn created(types: &[&str]) -> WebhookEvent {
    WebhookEvent::Created(WebhookCreated {
        id: Uuid::from_u128(1),
        url: "https://hooks.example/in".to_owned(),
        application: Some(ApplicationNumber(2)),
        types: types.iter().map(|&word| word.to_owned()).collect(),
        description: None,
    })
}

/// The fold of these events.
fn webhook(events: &[WebhookEvent]) -> Webhook {
    let fold = |webhook, (index, event): (usize, &WebhookEvent)| {
        let position = Position(10 + index as i64);
        let head = Head { version: 1 + index as i64, position, hash: [0; 32] };
        let envelope = Envelope {
            number: 1,
            organization: OrganizationNumber(1),
            occurred_at: DateTime::UNIX_EPOCH,
            head,
        };
        Webhook::evolve(webhook, event, &envelope)
    };
    events.iter().enumerate().fold(None, fold).unwrap()
}

/// Whether the command makes something happen; none where it is refused.
fn happens(events: &[WebhookEvent], command: WebhookEvent) -> Option<bool> {
    Webhook::decide(Some(&webhook(events)), &command).ok().map(|event| event.is_some())
}

fn disabled() -> WebhookEvent {
    WebhookEvent::Disabled(Disabled { because: Because::Gone })
}

#[test]
fn created_it_wants_what_it_was_created_for_from_there_on_and_is_not_created_again() {
    let one = webhook(&[created(&["connected"])]);
    assert_eq!(one.from, Position(10));
    let (own, other) = (Some(ApplicationNumber(2)), Some(ApplicationNumber(3)));
    assert!(one.wants("connected", own));
    assert!(!one.wants("connected", other) && !one.wants("connected", None) && !one.wants("expired", own));
    assert_eq!(happens(&[created(&[])], created(&[])), None);
}

#[test]
fn changed_it_wants_something_else() {
    let types = Some(vec!["disconnected".to_owned()]);
    let changed = WebhookEvent::Changed(WebhookChanged { types, ..WebhookChanged::default() });
    let one = webhook(&[created(&["connected"]), changed]);
    let own = Some(ApplicationNumber(2));
    assert!(one.wants("disconnected", own) && !one.wants("connected", own));
}

#[test]
fn without_types_it_wants_everything_but_activity() {
    let one = webhook(&[created(&[])]);
    let own = Some(ApplicationNumber(2));
    assert!(one.wants("suspended", own) && !one.wants("activity_recorded", own));
}

#[test]
fn rotated_it_stands_where_the_outbox_looks_for_another_secret() {
    let before = webhook(&[created(&[])]);
    let rotated = webhook(&[created(&[]), WebhookEvent::SecretRotated(SecretRotated::default())]);
    assert_ne!(before.head, rotated.head);
    assert_eq!(
        happens(
            &[created(&[]), WebhookEvent::SecretRotated(SecretRotated::default())],
            WebhookEvent::SecretRotated(SecretRotated::default())
        ),
        Some(true)
    );
}

#[test]
fn disabled_it_wants_nothing_is_not_disabled_twice_and_can_be_enabled() {
    let events = [created(&[]), disabled()];
    assert!(!webhook(&events).wants("connected", Some(ApplicationNumber(2))));
    assert_eq!(happens(&events, disabled()), Some(false));
    assert_eq!(happens(&events, WebhookEvent::Enabled), Some(true));
    assert_eq!(happens(&events[..1], WebhookEvent::Enabled), Some(false));
}

#[test]
fn enabled_it_wants_again_and_can_be_disabled_again() {
    let events = [created(&[]), disabled(), WebhookEvent::Enabled];
    assert!(webhook(&events).wants("connected", Some(ApplicationNumber(2))));
    assert_eq!(happens(&events, disabled()), Some(true));
}

#[test]
fn deleted_it_wants_nothing_and_nothing_can_be_done_with_it() {
    let events = [created(&[]), WebhookEvent::Deleted];
    assert!(!webhook(&events).wants("connected", Some(ApplicationNumber(2))));
    assert_eq!(happens(&events, WebhookEvent::Deleted), Some(false));
    for wish in [WebhookEvent::Enabled, disabled(), WebhookEvent::SecretRotated(SecretRotated::default())] {
        assert_eq!(happens(&events, wish), None);
    }
}

#[test]
fn the_types_a_webhook_may_name_are_those_there_ever_were() {
    let golden: BTreeSet<String> = include_str!("../../golden/events.jsonl")
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter_map(|line| line["type"].as_str().map(str::to_owned))
        .collect();
    let types: BTreeSet<String> = TYPES.iter().map(|&name| name.to_owned()).collect();
    assert_eq!(types.len(), TYPES.len());
    assert_eq!(types, golden);
}
