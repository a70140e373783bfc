//! That nothing is missing in the table: no operation and no event that ends something, and nothing that stays.

use std::collections::BTreeSet;

use super::{Thing, ways};
use crate::openapi::document::Document;
use crate::support::tree::{root, sources};

/// Operations that change something and end neither a credential nor a session.
const END_NOTHING: &str = "\
    agent.activity agent.activityMany agent.heartbeat agentSessions.resume apiKeys.create applications.create \
    bars.lift \
    applications.setPolicy applications.setUpstream applications.update hooks.create media.callHook \
    media.createSessions media.declareStream media.reportApp media.reportSession media.reportStream oauth.introspect \
    oauth.token organizations.create organizations.update retention.set principals.enable principals.erase \
    scheduledRevocations.create scheduledRevocations.delete scheduledRevocations.pause scheduledRevocations.resume \
    serviceAccounts.create terminals.createMachine terminals.createSession terminals.createViewer \
    terminals.deleteMachine terminals.testMachine terminals.updateMachine webhooks.create webhooks.delete \
    webhooks.resend webhooks.rotateSecret webhooks.test webhooks.update workloads.changeTaskState \
    workloads.createTaskSession workloads.createWebuiSession workloads.heartbeatTaskSession \
    workloads.heartbeatWebuiSession workloads.heartbeats workloads.logTaskSession workloads.logWebuiSession";

/// Operations that end what nothing can be open of: sessions of kinds that are only reported, and a hook's signature, which
/// opens nothing that stays. Also those that end one session by the path that a way goes already.
const NOTHING_OPEN: &str = "\
    hooks.delete hooks.rotateSecret media.terminateSession workloads.deleteTaskSession workloads.deleteWebuiSession \
    workloads.endTaskSession workloads.endWebuiSession workloads.terminateTaskSession \
    workloads.terminateWebuiSession agent.disconnect me.endSession";

/// Events that end neither. `organization_restored` ends all credentials, and is written while nothing is open.
const EVENTS: &str = "\
    activity_recorded api_key_created application_changed application_created application_policy_set \
    application_upstream_set bar_lifted connected expired hook_created hook_deleted hook_secret_rotated machine_changed \
    machine_created \
    machine_deleted machine_host_key_pinned media_stream_declared organization_created organization_renamed \
    organization_restored organization_retention_set sessions_let_go activity_folded \
    phase_changed principal_enabled resumed revocation_ended schedule_created schedule_deleted schedule_paused \
    schedule_ran schedule_resumed schedule_skipped service_account_created webhook_changed webhook_created \
    webhook_deleted webhook_disabled webhook_enabled webhook_secret_rotated";

/// Where something is handed on after its request was answered, with how often that is so in the file, and which things
/// those are. Downloads are no things of the table: they end by themselves, and with their credential before.
const STAYS: [(&str, usize, &[Thing]); 9] = [
    ("http/export/mod.rs", 1, &[]),
    ("http/events.rs", 1, &[Thing::ApplicationFeed, Thing::SessionFeed]),
    ("http/terminals/logs.rs", 2, &[]),
    ("http/terminals/socket.rs", 1, &[Thing::Terminal, Thing::Watcher]),
    ("http/workloads/logs.rs", 1, &[]),
    // An upstream's body put together again, for the two below to hand on.
    ("mcp/lost_session.rs", 1, &[]),
    ("mcp/pump.rs", 1, &[Thing::McpStream, Thing::McpEvents, Thing::SseConnection, Thing::BareSseConnection]),
    // The same things on their way from the node that they live on; `tests/it/nodes` tries how they end.
    ("nodes/escort.rs", 1, &[]),
    ("mcp/relay.rs", 1, &[Thing::McpCall, Thing::ModernCall, Thing::ModernListen]),
];

#[test]
fn every_operation_that_changes_something_is_a_way_or_ends_nothing() {
    let document = Document::new();
    let ways: BTreeSet<&str> = ways::ALL.iter().flat_map(|way| way.operations).copied().collect();
    let none: BTreeSet<&str> = END_NOTHING.split(' ').chain(NOTHING_OPEN.split(' ')).collect();
    for operation in document.operations().filter(|operation| operation.method != reqwest::Method::GET) {
        let (way, other) = (ways.contains(operation.id), none.contains(operation.id));
        assert!(way != other, "say in the table of endings, once, what {} ends", operation.id);
    }
    for id in ways.iter().chain(&none) {
        assert!(document.operations().any(|operation| operation.id == *id), "there is no {id}");
    }
}

#[test]
fn every_event_is_a_way_or_ends_nothing() {
    let golden = include_str!("../../../golden/events.jsonl");
    let name = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap()["type"].clone();
    let names: BTreeSet<String> =
        golden.lines().map(|line| name(line).as_str().unwrap().to_owned()).collect();
    let ways: BTreeSet<&str> = ways::ALL.iter().flat_map(|way| way.events).copied().collect();
    let none: BTreeSet<&str> = EVENTS.split(' ').collect();
    for name in &names {
        let (way, other) = (ways.contains(name.as_str()), none.contains(name.as_str()));
        assert!(way != other, "say in the table of endings, once, what {name} ends");
    }
    for name in ways.iter().chain(&none) {
        assert!(names.contains(*name), "there is no event {name}");
    }
}

#[test]
fn every_way_is_gone() {
    for way in ways::ALL {
        assert!(ways::GONE.contains(&way.name), "no test goes the way {}", way.name);
    }
    assert_eq!(ways::GONE.len(), ways::ALL.len());
}

/// Marks of an answer that goes on after its head: whoever adds one adds what stays to the table.
const MARKS: [&str; 3] = ["::from_stream(", "Sse::new(", ".on_upgrade("];

#[test]
fn everything_that_stays_is_in_the_table() {
    let source = root().join("src");
    for path in sources() {
        let name = path.strip_prefix(&source).unwrap_or(&path).to_str().unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let stays: usize = MARKS.iter().map(|mark| text.matches(mark).count()).sum();
        let known = STAYS.iter().find(|(file, ..)| *file == name).map_or(0, |(_, count, _)| *count);
        assert_eq!(
            stays, known,
            "{name} hands on what stays: register it at the Gate, and add it to the table"
        );
    }
    let known: BTreeSet<Thing> = STAYS.iter().flat_map(|(.., things)| things.iter().copied()).collect();
    assert_eq!(known, Thing::ALL.into_iter().collect::<BTreeSet<_>>(), "a thing that is opened nowhere");
}

#[test]
fn every_operation_that_answers_with_a_stream_is_in_the_table() {
    let document = Document::new();
    let streams = |operation: &crate::openapi::document::Operation<'_>| {
        operation.described["responses"]["200"]["content"]["text/event-stream"].is_object()
    };
    let found: Vec<&str> = document.operations().filter(streams).map(|operation| operation.id).collect();
    assert_eq!(
        found,
        ["agent.events", "agentSessions.events"],
        "a stream that is not in the table of endings"
    );
}
