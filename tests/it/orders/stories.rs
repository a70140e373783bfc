//! History: a session's events, and the organization's.

use serde_json::{Value, json};

use super::begin;

fn types(body: &Value) -> Vec<&str> {
    body["items"].as_array().unwrap().iter().map(|event| event["type"].as_str().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sessions_history_tells_who_did_what_and_why() {
    let (_server, operator, _) = begin().await;
    let agent = operator.connect(json!({})).await;
    agent.call("heartbeat").await;
    agent.call("renew").await;
    operator.post(&format!("{}/suspend", agent.path()), json!({})).await;
    operator.post(&format!("{}/resume", agent.path()), json!({})).await;
    let (_, ended) = operator.delete(&format!("{}?reason=enough", agent.path())).await;
    let path = format!("{}/history", agent.path());
    let (status, body) = operator.get(&path).await;
    assert_eq!(status, 200, "{body}");
    assert_eq!(types(&body), ["disconnected", "resumed", "suspended", "token_renewed", "connected"]);
    let last = &body["items"][0];
    assert_eq!((&last["reason"], &last["revocationId"]), (&json!("revoked"), &ended["revocationId"]));
    assert_eq!(body["items"][1]["actor"]["kind"], "service_account");
    assert_eq!(body["items"][3]["actor"], json!({ "kind": "session", "id": agent.id }));
    let (_, whole) = operator.get(&format!("{path}?activity=true")).await;
    let expected =
        ["disconnected", "resumed", "suspended", "token_renewed", "activity_recorded", "connected"];
    assert_eq!(types(&whole), expected);
    for pair in whole["items"].as_array().unwrap().windows(2) {
        assert_eq!(pair[0]["previousPosition"], pair[1]["position"], "a chain");
        assert_eq!(pair[0]["version"].as_i64().unwrap(), pair[1]["version"].as_i64().unwrap() + 1);
        assert_eq!(pair[0]["hash"].as_str().unwrap().len(), 64);
        assert_ne!(pair[0]["hash"], pair[1]["hash"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_history_is_walked_page_by_page_with_and_without_activity() {
    let (server, operator, _) = begin().await;
    let agent = operator.connect(json!({})).await;
    for _ in 0..12 {
        agent.call("heartbeat").await;
        server.turn(1);
    }
    for (activity, count) in [("true", 13), ("false", 1)] {
        let mut path = format!("{}/history?activity={activity}&limit=3", agent.path());
        let mut positions: Vec<i64> = vec![];
        loop {
            let (_, body) = operator.get(&path).await;
            positions.extend(
                body["items"].as_array().unwrap().iter().map(|event| event["position"].as_i64().unwrap()),
            );
            let Some(cursor) = body["nextCursor"].as_str() else { break };
            path = format!("{}/history?activity={activity}&limit=3&cursor={cursor}", agent.path());
        }
        assert_eq!(positions.len(), count);
        assert!(positions.windows(2).all(|pair| pair[0] > pair[1]), "{positions:?}");
    }
    let other = operator.connect(json!({})).await;
    let (_, body) = operator.get(&format!("{}/history", other.path())).await;
    let foreign = &body["items"][0]["position"];
    let (status, body) = operator.get(&format!("{}/history?cursor={foreign}", agent.path())).await;
    assert_eq!((status.as_u16(), &body["field"]), (400, &json!("cursor")), "{body}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_organizations_events_are_found_by_position_type_time_and_application() {
    let (server, operator, first) = begin().await;
    let second = super::application(&operator, "second").await;
    let one = operator.connect(json!({ "applicationId": first })).await;
    server.turn(100);
    let noon = server.clock.now().to_rfc3339_opts(chrono::SecondsFormat::Millis, true);
    one.call("heartbeat").await;
    operator.connect(json!({ "applicationId": second })).await;
    one.call("disconnect").await;

    let get = async |query: &str| {
        let (status, body) = operator.get(&format!("/api/v1/events?{query}")).await;
        assert_eq!(status, 200, "{query}: {body}");
        body
    };
    assert_eq!(types(&get("types=connected,disconnected").await), ["connected", "connected", "disconnected"]);
    assert_eq!(types(&get(&format!("from={noon}")).await), ["connected", "disconnected"]);
    let before = get(&format!("until={noon}&types=connected")).await;
    assert_eq!((types(&before), &before["items"][0]["sessionId"]), (vec!["connected"], &json!(one.id)));
    let of_first =
        get(&format!("applicationId={first}&types=connected,activity_recorded,disconnected")).await;
    assert_eq!(types(&of_first), ["connected", "activity_recorded", "disconnected"]);
    let all = get("limit=200").await;
    let middle = all["items"][2]["position"].as_i64().unwrap();
    let rest = get(&format!("limit=200&after={middle}")).await;
    assert_eq!(rest["items"].as_array().unwrap()[..], all["items"].as_array().unwrap()[3..]);
    let page = get("limit=2").await;
    let next = get(&format!("limit=2&cursor={}", page["nextCursor"].as_str().unwrap())).await;
    assert_eq!(next["items"][0], all["items"][2]);
    let (status, body) = operator.get("/api/v1/events?types=exploded").await;
    assert!(status == 400 && body["message"].as_str().unwrap().contains("exploded"), "{body}");
}
