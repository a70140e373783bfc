//! Reports about many sessions at once.

use serde_json::{Value, json};

use super::{begin, session};

#[tokio::test(flavor = "multi_thread")]
async fn each_item_is_answered_for_itself() {
    let (_server, operator, _) = begin().await;
    let agents = operator.connect_many(4).await;
    agents[1].call("disconnect").await;
    operator.post(&format!("{}/suspend", agents[2].path()), json!({})).await;
    let unknown = "00000000-0000-7000-8000-000000000000";
    let items = json!([
        { "sessionId": agents[0].id, "requests": 3, "bytesIn": 10 },
        { "sessionId": agents[1].id },
        { "sessionId": agents[2].id },
        { "sessionId": unknown },
        { "sessionId": agents[3].id },
        { "sessionId": agents[0].id, "requests": 4 },
    ]);
    let (status, body) = operator.post("/api/v1/agent-sessions/activity", json!({ "items": items })).await;
    assert_eq!((status.as_u16(), &body["recorded"]), (200, &json!(3)), "{body}");
    let told: Vec<_> =
        body["items"].as_array().unwrap().iter().map(|item| item["status"].as_u64().unwrap()).collect();
    assert_eq!(told, [200, 410, 403, 404, 200, 200], "{body}");
    assert_eq!(body["items"][1]["reason"], "client");
    assert_eq!(body["items"][2]["code"], "session_suspended");
    let activity = session(&operator, &agents[0]).await["activity"].clone();
    assert_eq!(activity, json!({ "requests": 7, "bytesIn": 10, "bytesOut": 0 }));
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_items_in_one_call_are_recorded_and_one_more_is_refused() {
    let (server, operator, _) = begin().await;
    let agents = operator.connect_many(50).await;
    let item = |index: usize| json!({ "sessionId": agents[index % 50].id, "requests": 1 });
    let items: Vec<Value> = (0..10_000).map(item).collect();
    let (status, body) = operator.post("/api/v1/agent-sessions/activity", json!({ "items": items })).await;
    assert_eq!((status.as_u16(), &body["recorded"]), (200, &json!(10_000)));
    for agent in &agents {
        assert_eq!(session(&operator, agent).await["activity"]["requests"], 200);
    }
    let items: Vec<Value> = (0..10_001).map(item).collect();
    let (status, body) = operator.post("/api/v1/agent-sessions/activity", json!({ "items": items })).await;
    assert_eq!((status.as_u16(), &body["field"]), (400, &json!("items")), "{body}");
    let server = server.restart().await;
    let operator = server.operator().await;
    assert_eq!(session(&operator, &agents[0]).await["activity"]["requests"], 200, "durable");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sessions_own_token_reports_about_itself_alone() {
    let (_server, operator, _) = begin().await;
    let agents = operator.connect_many(2).await;
    let items = json!({ "items": [{ "sessionId": agents[0].id }, { "sessionId": agents[1].id }] });
    let (status, body) = agents[0].holder.post("/api/v1/agent-sessions/activity", items).await;
    assert_eq!(status, 200);
    assert_eq!((&body["items"][0]["status"], &body["items"][1]["status"]), (&json!(200), &json!(404)));
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_was_revoked_reports_nothing() {
    let (_server, operator, first) = begin().await;
    let agent = operator.connect(json!({})).await;
    operator.delete(&format!("/api/v1/applications/{first}/sessions")).await;
    let items = json!({ "items": [{ "sessionId": agent.id }] });
    let (status, body) = operator.post("/api/v1/agent-sessions/activity", items).await;
    assert_eq!((status.as_u16(), &body["items"][0]["status"]), (200, &json!(401)), "{body}");
}
