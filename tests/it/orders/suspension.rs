//! Suspended sessions: refused, and nothing else.

use serde_json::{Value, json};

use super::{begin, session};
use crate::support::{Agent, Holder};

async fn turn(operator: &Holder, agent: &Agent, verb: &str) -> Value {
    let (status, body) = operator.post(&format!("{}/{verb}", agent.path()), json!({})).await;
    assert_eq!(status, 200, "{body}");
    body["session"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn while_suspended_every_request_is_refused_clearly_and_nothing_else_changes() {
    let (server, operator, _) = begin().await;
    let agent = operator.connect(json!({ "clientSessionId": "run" })).await;
    let before = session(&operator, &agent).await;
    let suspended = turn(&operator, &agent, "suspend").await;
    let mut expected = before.clone();
    expected["suspended"] = json!(true);
    assert_eq!(suspended, expected);
    for (holder, verb) in [
        (&agent.holder, "heartbeat"),
        (&agent.holder, "activity"),
        (&agent.holder, "renew"),
        (&operator, "heartbeat"),
    ] {
        let (status, body) = agent.call_as(holder, verb).await;
        assert_eq!((status.as_u16(), &body["code"]), (403, &json!("session_suspended")), "{verb}: {body}");
    }
    let (status, body) = operator.post("/api/v1/agent-sessions", json!({ "clientSessionId": "run" })).await;
    assert_eq!((status.as_u16(), &body["code"]), (403, &json!("session_suspended")), "attach: {body}");
    server.turn(301);
    assert_eq!(session(&operator, &agent).await["derivedStatus"], "idle", "as documented");
    turn(&operator, &agent, "resume").await;
    assert_eq!(agent.call("heartbeat").await.0, 200);
    let names: Vec<_> = server.log().await.into_iter().map(|(name, _)| name).collect();
    assert_eq!(names.iter().filter(|name| *name == "suspended").count(), 1);
    assert_eq!(names.iter().filter(|name| *name == "resumed").count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn suspending_and_resuming_twice_is_success_and_one_event() {
    let (server, operator, _) = begin().await;
    let agent = operator.connect(json!({})).await;
    for verb in ["suspend", "suspend", "resume", "resume"] {
        turn(&operator, &agent, verb).await;
    }
    let names: Vec<_> = server.log().await.into_iter().map(|(name, _)| name).collect();
    assert_eq!(names.iter().filter(|name| ["suspended", "resumed"].contains(&name.as_str())).count(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_suspended_session_does_not_go_stale_and_its_silence_counts_from_its_resumption() {
    let (server, operator, _) = begin().await;
    let agent = operator.connect(json!({})).await;
    let silent = operator.connect(json!({})).await;
    turn(&operator, &agent, "suspend").await;
    let pass = async |seconds| {
        server.turn(seconds);
        server.running.as_ref().unwrap().house.sessions.maintenance.run_deadlines().await.unwrap();
    };
    pass(1_000).await;
    let operator = server.operator().await;
    assert_eq!(session(&operator, &silent).await["disconnectReason"], "stale");
    assert_eq!(session(&operator, &agent).await["status"], "active");
    turn(&operator, &agent, "resume").await;
    pass(860).await;
    assert_eq!(session(&operator, &agent).await["status"], "active", "not a whole timeout yet");
    pass(60).await;
    assert_eq!(session(&operator, &agent).await["disconnectReason"], "stale");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_suspended_session_still_expires_and_can_be_ended_by_anyone_who_may() {
    let (server, operator, _) = begin().await;
    let agents = operator.connect_many(3).await;
    for agent in &agents {
        turn(&operator, agent, "suspend").await;
    }
    assert_eq!(agents[0].call("disconnect").await.0, 200);
    assert_eq!(session(&operator, &agents[0]).await["disconnectReason"], "client");
    assert_eq!(operator.delete(&agents[1].path()).await.1["disconnectedCount"], 1);
    server.turn(3_601);
    let operator = server.operator().await;
    assert_eq!(session(&operator, &agents[2]).await["derivedStatus"], "expired");
    let (status, body) = operator.post(&format!("{}/suspend", agents[1].path()), json!({})).await;
    assert_eq!((status.as_u16(), &body["reason"]), (410, &json!("revoked")), "{body}");
}

#[tokio::test(flavor = "multi_thread")]
async fn suspension_survives_a_restart() {
    let (server, operator, _) = begin().await;
    let agent = operator.connect(json!({})).await;
    turn(&operator, &agent, "suspend").await;
    let server = server.restart().await;
    let holder = server.holder(agent.holder.token.clone().unwrap());
    assert_eq!(agent.call_as(&holder, "heartbeat").await.0, 403);
    turn(&server.operator().await, &agent, "resume").await;
    let server = server.restart().await;
    let holder = server.holder(agent.holder.token.clone().unwrap());
    assert_eq!(agent.call_as(&holder, "heartbeat").await.0, 200);
}
