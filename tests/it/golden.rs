//! Every event ever shipped, as it was stored. A line here is never changed: databases out there hold the same bytes.

use std::collections::BTreeSet;

use serde::Deserialize;
use serde_json::value::RawValue;
use sessiond_core::admission_hook::AdmissionHookEvent;
use sessiond_core::api_key::ApiKeyEvent;
use sessiond_core::application::ApplicationEvent;
use sessiond_core::bar::BarEvent;
use sessiond_core::event::Event;
use sessiond_core::machine::MachineEvent;
use sessiond_core::media_stream::MediaStreamEvent;
use sessiond_core::organization::OrganizationEvent;
use sessiond_core::principal::PrincipalEvent;
use sessiond_core::revocation::RevocationEvent;
use sessiond_core::schedule::ScheduleEvent;
use sessiond_core::service_account::ServiceAccountEvent;
use sessiond_core::session::event::SessionEvent;
use sessiond_core::streams::AnyEvent;
use sessiond_core::webhook::WebhookEvent;

use crate::support::tree::files;

#[derive(Deserialize)]
struct Line<'a> {
    r#type: &'a str,
    type_version: i64,
    #[serde(borrow)]
    body: &'a RawValue,
}

fn lines() -> Vec<Line<'static>> {
    include_str!("../golden/events.jsonl").lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The type of each variant. Without a wildcard: a new variant does not compile until it stands here, and fails below
/// until it has a line.
fn variant(event: &Event) -> &'static str {
    match event {
        Event::Stream(AnyEvent::Organization(OrganizationEvent::Created(_))) => "organization_created",
        Event::Stream(AnyEvent::Application(ApplicationEvent::Created(_))) => "application_created",
        Event::Stream(AnyEvent::Application(ApplicationEvent::Changed(_))) => "application_changed",
        Event::Stream(AnyEvent::Application(ApplicationEvent::SecretRotated(_))) => {
            "application_secret_rotated"
        }
        Event::Stream(AnyEvent::Application(ApplicationEvent::UpstreamSet(_))) => "application_upstream_set",
        Event::Stream(AnyEvent::Application(ApplicationEvent::CredentialsBarred)) => {
            "application_credentials_barred"
        }
        Event::Stream(AnyEvent::Application(ApplicationEvent::Archived)) => "application_archived",
        Event::Stream(AnyEvent::ServiceAccount(ServiceAccountEvent::Created(_))) => "service_account_created",
        Event::Stream(AnyEvent::ServiceAccount(ServiceAccountEvent::SecretRotated(_))) => {
            "service_account_secret_rotated"
        }
        Event::Stream(AnyEvent::ServiceAccount(ServiceAccountEvent::Archived)) => "service_account_archived",
        Event::Session(SessionEvent::Connected(_)) => "connected",
        Event::Session(SessionEvent::ActivityRecorded(_)) => "activity_recorded",
        Event::Session(SessionEvent::TokenRenewed(_)) => "token_renewed",
        Event::Session(SessionEvent::Expired(_)) => "expired",
        Event::Session(SessionEvent::Disconnected(_)) => "disconnected",
        Event::Stream(AnyEvent::Revocation(RevocationEvent::Began(_))) => "revocation_began",
        Event::Stream(AnyEvent::Revocation(RevocationEvent::Ended(_))) => "revocation_ended",
        Event::Stream(AnyEvent::Organization(OrganizationEvent::Renamed(_))) => "organization_renamed",
        Event::Stream(AnyEvent::Organization(OrganizationEvent::IssuersSet(_))) => "organization_issuers_set",
        Event::Stream(AnyEvent::Organization(OrganizationEvent::CredentialsBarred)) => {
            "organization_credentials_barred"
        }
        Event::Stream(AnyEvent::Organization(OrganizationEvent::Restored(_))) => "organization_restored",
        Event::Stream(AnyEvent::Organization(OrganizationEvent::RetentionSet(_))) => {
            "organization_retention_set"
        }
        Event::Stream(AnyEvent::Organization(OrganizationEvent::SessionsLetGo(_))) => "sessions_let_go",
        Event::Stream(AnyEvent::Organization(OrganizationEvent::ActivityFolded(_))) => "activity_folded",
        Event::Stream(AnyEvent::Application(ApplicationEvent::PolicySet(_))) => "application_policy_set",
        Event::Session(SessionEvent::Suspended) => "suspended",
        Event::Session(SessionEvent::Resumed) => "resumed",
        Event::Stream(AnyEvent::Principal(event)) => match event {
            PrincipalEvent::CredentialsBarred(_) => "principal_credentials_barred",
            PrincipalEvent::Disabled(_) => "principal_disabled",
            PrincipalEvent::Enabled => "principal_enabled",
        },
        Event::Stream(AnyEvent::ApiKey(event)) => match event {
            ApiKeyEvent::Created(_) => "api_key_created",
            ApiKeyEvent::SecretRotated(_) => "api_key_secret_rotated",
            ApiKeyEvent::Revoked => "api_key_revoked",
        },
        Event::Stream(AnyEvent::Schedule(event)) => match event {
            ScheduleEvent::Created(_) => "schedule_created",
            ScheduleEvent::Paused => "schedule_paused",
            ScheduleEvent::Resumed => "schedule_resumed",
            ScheduleEvent::Ran(_) => "schedule_ran",
            ScheduleEvent::Skipped(_) => "schedule_skipped",
            ScheduleEvent::Deleted => "schedule_deleted",
        },
        Event::Stream(AnyEvent::Webhook(event)) => match event {
            WebhookEvent::Created(_) => "webhook_created",
            WebhookEvent::Changed(_) => "webhook_changed",
            WebhookEvent::SecretRotated(_) => "webhook_secret_rotated",
            WebhookEvent::Disabled(_) => "webhook_disabled",
            WebhookEvent::Enabled => "webhook_enabled",
            WebhookEvent::Deleted => "webhook_deleted",
        },
        Event::Session(SessionEvent::PhaseChanged(_)) => "phase_changed",
        Event::Stream(AnyEvent::MediaStream(MediaStreamEvent::Declared(_))) => "media_stream_declared",
        Event::Stream(AnyEvent::Hook(event)) => match event {
            AdmissionHookEvent::Created(_) => "hook_created",
            AdmissionHookEvent::SecretRotated(_) => "hook_secret_rotated",
            AdmissionHookEvent::Deleted => "hook_deleted",
        },
        Event::Stream(AnyEvent::Machine(event)) => match event {
            MachineEvent::Created(_) => "machine_created",
            MachineEvent::Changed(_) => "machine_changed",
            MachineEvent::HostKeyPinned(_) => "machine_host_key_pinned",
            MachineEvent::Deleted => "machine_deleted",
        },
        Event::Stream(AnyEvent::Bar(event)) => match event {
            BarEvent::Placed(_) => "bar_placed",
            BarEvent::Lifted => "bar_lifted",
        },
        Event::Unknown { .. } => "unknown",
    }
}

#[test]
fn every_event_ever_shipped_parses_and_is_written_again_with_the_same_bytes() {
    for line in lines() {
        let event = Event::parse(line.r#type, line.body.get()).unwrap();
        assert_eq!(event.name(), line.r#type);
        assert_eq!(variant(&event), line.r#type, "read as something else");
        assert_eq!(event.body(), line.body.get());
        assert_eq!(line.type_version, 1);
    }
}

#[test]
fn every_type_that_can_be_read_has_a_golden_line() {
    let mut parses = vec![];
    for source in files("crates/sessiond-core/src", "rs") {
        let source = std::fs::read_to_string(source).unwrap();
        if source.contains("impl StreamEvent for ") {
            parses.push(source);
        }
    }
    let mut types: BTreeSet<String> = BTreeSet::new();
    for source in &parses {
        let (_, parse) = source.rsplit_once("fn parse(").unwrap();
        let words = parse.split_once("_ => return Ok(None)").unwrap().0.split('"').skip(1).step_by(2);
        types.extend(words.filter(|word| word.contains(|c: char| c.is_lowercase())).map(str::to_owned));
    }
    types.insert("activity_recorded".to_owned());
    let golden: BTreeSet<String> = lines().iter().map(|line| line.r#type.to_owned()).collect();
    assert_eq!(types, golden);
    let named: BTreeSet<String> = sessiond_core::event::names().map(str::to_owned).collect();
    assert_eq!(types, named);
}

#[test]
fn a_type_from_a_newer_release_still_parses() {
    for body in [r#"{"until":1,"by":{"kind":"operator"}}"#, r#"{"zebra":1,"apple":[null,true,"x"]}"#, "{}"] {
        let event = Event::parse("hibernated", body).unwrap();
        let Event::Unknown { name, .. } = &event else { panic!("{event:?}") };
        assert_eq!(name, "hibernated");
        assert_eq!(event.name(), "hibernated");
    }
}

#[test]
fn a_newer_releases_optional_field_does_not_stop_an_older_one() {
    let body = r#"{"reason":"client","comment":"so long"}"#;
    let event = Event::parse("disconnected", body).unwrap();
    assert_eq!(variant(&event), "disconnected");
}

#[test]
fn a_known_type_whose_body_does_not_parse_is_damage_and_not_unknown() {
    assert!(Event::parse("disconnected", r#"{"reason":"#).is_err());
    assert!(Event::parse("disconnected", r#"{"cause":"client"}"#).is_err());
    assert!(Event::parse("connected", "{}").is_err());
}
