//! Policies and limits of applications.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{application, begin, listed, session};
use crate::support::Holder;

async fn set(operator: &Holder, application: &str, policy: Value) -> Value {
    let (status, body) = operator.put(&format!("/api/v1/applications/{application}/policy"), policy).await;
    assert_eq!(status, 200, "{body}");
    body
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_parallel_connects_never_exceed_a_limit() {
    for (on_limit, opened) in [("reject", 7), ("evict-oldest", 50), ("evict-idle-first", 50)] {
        let (server, operator, first) = begin().await;
        set(&operator, &first, json!({ "maxPerPrincipal": 7, "onLimit": on_limit })).await;
        let connects =
            (0..50).map(|_| operator.post("/api/v1/agent-sessions", json!({ "authenticatedUserId": "ann" })));
        let answers = futures_util::future::join_all(connects).await;
        let created = answers.iter().filter(|(status, _)| *status == 201).count();
        assert_eq!(created, opened, "{on_limit}");
        for (status, body) in answers.iter().filter(|(status, _)| *status != 201) {
            assert_eq!((status.as_u16(), &body["code"]), (409, &json!("session_limit_reached")), "{body}");
        }
        let path = format!("/api/v1/applications/{first}/sessions");
        assert_eq!(listed(&operator, &path).await.len(), 7, "{on_limit}");
        // Never, also in between: the log is replayed one event at a time.
        let mut open = 0;
        for (name, body) in server.log().await {
            open += i32::from(name == "connected") - i32::from(name == "disconnected");
            assert!(open <= 7, "{on_limit}");
            assert!(name != "disconnected" || body["reason"] == "evicted");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_applications_limit_counts_everybody_and_a_principals_only_its_own() {
    let (_server, operator, first) = begin().await;
    set(&operator, &first, json!({ "maxPerPrincipal": 2, "maxPerApplication": 3 })).await;
    let connect =
        |user: &str| operator.post("/api/v1/agent-sessions", json!({ "authenticatedUserId": user }));
    assert_eq!(connect("ann").await.0, 201);
    assert_eq!(connect("ann").await.0, 201);
    let (status, body) = connect("ann").await;
    assert!(status == 409 && body["message"].as_str().unwrap().contains("one principal"), "{body}");
    assert_eq!(connect("ben").await.0, 201);
    let (status, body) = connect("cleo").await;
    assert!(status == 409 && body["message"].as_str().unwrap().contains("3 live sessions"), "{body}");
    let second = application(&operator, "second").await;
    let elsewhere = json!({ "authenticatedUserId": "ann", "applicationId": second });
    assert_eq!(operator.post("/api/v1/agent-sessions", elsewhere).await.0, 201, "another application's");
}

#[tokio::test(flavor = "multi_thread")]
async fn attaching_counts_nobody_twice() {
    let (_server, operator, first) = begin().await;
    set(&operator, &first, json!({ "maxPerApplication": 1 })).await;
    let body = json!({ "clientSessionId": "run" });
    assert_eq!(operator.post("/api/v1/agent-sessions", body.clone()).await.0, 201);
    assert_eq!(operator.post("/api/v1/agent-sessions", body).await.0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_idle_go_first_or_the_oldest_and_the_expired_before_all() {
    let (server, operator, first) = begin().await;
    let policy = json!({ "maxPerApplication": 3, "onLimit": "evict-idle-first" });
    set(&operator, &first, policy).await;
    let oldest = operator.connect(json!({})).await;
    let idle = operator.connect(json!({})).await;
    server.turn(301);
    oldest.call("heartbeat").await;
    operator.connect(json!({})).await;
    operator.connect(json!({})).await;
    let reason = async |agent| session(&server.operator().await, agent).await["disconnectReason"].clone();
    assert_eq!(reason(&idle).await, "evicted");
    assert_eq!(reason(&oldest).await, Value::Null);
    operator.connect(json!({})).await;
    assert_eq!(reason(&oldest).await, "evicted", "nobody is idle: the oldest goes");

    // With `reject` too, what has expired gives way: it is not live.
    let fresh = server.operator().await;
    set(&fresh, &first, json!({ "maxPerApplication": 3, "onLimit": "reject", "staleAfter": 20_000 })).await;
    let (_, before) = fresh.get(&format!("/api/v1/applications/{first}/sessions/count")).await;
    assert_eq!(before["live"], 3, "{before}");
    assert_eq!(fresh.post("/api/v1/agent-sessions", json!({})).await.0, 409);
    server.turn(3_601);
    let fresh = server.operator().await;
    let opened = fresh.post("/api/v1/agent-sessions", json!({})).await;
    assert_eq!(opened.0, 201, "{}", opened.1);
}

#[tokio::test(flavor = "multi_thread")]
async fn presets_have_the_figures_of_nist_sp_800_63b_4() {
    let (_server, operator, first) = begin().await;
    let day = 86_400;
    // Sections 2.1.3, 2.2.3 and 2.3.3: overall timeout, inactivity timeout.
    for (preset, overall, inactivity) in
        [("aal1", 30 * day, 900), ("aal2", day, 3_600), ("aal3", day / 2, 900)]
    {
        let body = set(&operator, &first, json!({ "preset": preset })).await;
        assert_eq!(body["effective"]["absoluteLifetime"], overall, "{preset}: {body}");
        assert_eq!(body["effective"]["staleAfter"], inactivity, "{preset}: {body}");
        assert_eq!(body["effective"]["mcpUnusedAfter"], 600, "stricter already: {body}");
        let agent = operator.connect(json!({})).await;
        let policy = &session(&operator, &agent).await["policy"];
        assert_eq!((&policy["preset"], &policy["absoluteLifetime"]), (&json!(preset), &json!(overall)));
    }
    for (policy, field) in [
        (json!({ "preset": "aal3", "absoluteLifetime": 50_000 }), "absoluteLifetime"),
        (json!({ "preset": "aal3", "mcpStaleAfter": 3_600 }), "mcpStaleAfter"),
        (json!({ "preset": "aal3", "mcpUnusedAfter": 901 }), "mcpUnusedAfter"),
        (json!({ "mcpStaleAfter": 300, "mcpUnusedAfter": 301 }), "mcpUnusedAfter"),
        (json!({ "mcpUnusedAfter": 0 }), "mcpUnusedAfter"),
        (json!({ "staleAfter": 300 }), "staleAfter"),
        (json!({ "idleAfter": 0 }), "idleAfter"),
        (json!({ "maxPerPrincipal": 0 }), "maxPerPrincipal"),
        (json!({ "tokenLifetime": 7_200, "absoluteLifetime": 3_600 }), "tokenLifetime"),
    ] {
        let (status, body) =
            operator.put(&format!("/api/v1/applications/{first}/policy"), policy.clone()).await;
        assert_eq!((status.as_u16(), &body["field"]), (400, &json!(field)), "{policy}: {body}");
    }
    let body = set(&operator, &first, json!({ "mcpStaleAfter": 300 })).await;
    assert_eq!(body["effective"]["mcpUnusedAfter"], 300, "the server's figure gives way: {body}");
    assert_eq!(body["policy"], json!({ "mcpStaleAfter": 300 }));
    let body = set(&operator, &first, json!({ "mcpUnusedAfter": 60 })).await;
    assert_eq!(body["effective"]["mcpUnusedAfter"], 60, "{body}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_keeps_the_policy_it_was_opened_under() {
    let (server, operator, first) = begin().await;
    set(&operator, &first, json!({ "idleAfter": 60, "tokenLifetime": 600, "absoluteLifetime": 7_200 })).await;
    let old = operator.connect(json!({})).await;
    let figures = session(&operator, &old).await["policy"].clone();
    set(&operator, &first, json!({})).await;
    let new = operator.connect(json!({})).await;
    assert_eq!(session(&operator, &old).await["policy"], figures);
    assert_eq!(session(&operator, &new).await["policy"]["idleAfter"], 300);
    server.turn(61);
    assert_eq!(session(&operator, &old).await["derivedStatus"], "idle");
    assert_eq!(session(&operator, &new).await["derivedStatus"], "active");
    // Its token, renewed, lives as long as the policy of its opening says; also after a restart.
    let server = server.restart().await;
    let operator = server.operator().await;
    let (_, renewed) = old.call_as(&operator, "renew").await;
    let expires: chrono::DateTime<chrono::Utc> = renewed["tokenExpiresAt"].as_str().unwrap().parse().unwrap();
    let life = (expires - server.clock.now()).num_seconds();
    assert!((590..=600).contains(&life), "{life}: {renewed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_applications_own_tokens_live_as_long_as_its_policy_says() {
    let (server, operator, first) = begin().await;
    let (_, rotated) = operator.post(&format!("/api/v1/applications/{first}/rotate-secret"), json!({})).await;
    set(&operator, &first, json!({ "tokenLifetime": 120 })).await;
    let text = |field: &str| rotated["oauth"][field].as_str().unwrap().to_owned();
    let token = server.token_for(&text("clientId"), &text("clientSecret"), "mcp:invoke").await;
    let agent = server.holder(token).connect(json!({})).await;
    server.turn(121);
    assert_eq!(agent.call("heartbeat").await.0, 401);
    assert_eq!(operator.get("/api/v1/policy").await.1["tokenLifetime"], 3_600, "others' are the server's");
}

#[tokio::test(flavor = "multi_thread")]
async fn lowering_a_limit_ends_nobody_until_somebody_comes() {
    let (_server, operator, first) = begin().await;
    let mut agents = vec![];
    for _ in 0..5 {
        agents.push(operator.connect(json!({})).await);
    }
    set(&operator, &first, json!({ "maxPerApplication": 2, "onLimit": "evict-oldest" })).await;
    let path = format!("/api/v1/applications/{first}/sessions");
    assert_eq!(listed(&operator, &path).await.len(), 5);
    let newest = operator.connect(json!({})).await;
    let left: BTreeSet<_> = listed(&operator, &path).await.into_iter().collect();
    assert_eq!(left, BTreeSet::from([agents[4].id.clone(), newest.id]));
}
