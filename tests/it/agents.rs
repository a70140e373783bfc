//! The main surface, item by item: listing, status by the clock, ending, and the write side.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::{Agent, Holder, Server};

const UNKNOWN: &str = "44444444-4444-4444-8444-444444444444";

fn sessions(application: &str) -> String {
    format!("/api/v1/applications/{application}/sessions")
}

fn names(list: &Value) -> Vec<&str> {
    list["items"].as_array().unwrap().iter().map(|item| item["name"].as_str().unwrap()).collect()
}

async fn derived(operator: &Holder, agent: &Agent) -> String {
    let (status, body) = operator.get(&agent.path()).await;
    assert_eq!(status, 200, "{body}");
    body["session"]["derivedStatus"].as_str().unwrap().to_owned()
}

// ---- who may, and what errors look like ----

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_gets_401_with_a_challenge_whatever_is_wrong_with_the_token() {
    let server = Server::start().await;
    let path = sessions(&server.application().await);
    let good = server.token("management:all").await;
    let spoiled = format!("{}x", &good[..good.len() - 1]);
    for token in [None, Some(""), Some("nonsense"), Some("sat_00_00"), Some(spoiled.as_str())] {
        let caller = crate::support::Holder { token: token.map(str::to_owned), ..server.stranger() };
        let response = caller.send(Method::GET, &path, None).await;
        assert_eq!(response.status(), 401, "{token:?}");
        assert_eq!(response.headers()["www-authenticate"], "Bearer", "{token:?}");
        assert!(response.headers().contains_key("x-request-id"));
        let body: Value = response.json().await.unwrap();
        assert_eq!((&body["message"], &body["statusCode"]), (&json!("Unauthorized"), &json!(401)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_without_the_scope_gets_403_naming_what_is_missing() {
    let server = Server::start().await;
    let agent = server.holder(server.token("mcp:invoke").await);
    let (status, body) = agent.get(&sessions(&server.application().await)).await;
    assert_eq!(status, 403);
    assert_eq!(body["error"], "insufficient_scope");
    assert_eq!(body["missingScopes"], json!(["management:sessions:read", "management:all"]));
    assert_eq!(body["statusCode"], 403);
}

#[tokio::test(flavor = "multi_thread")]
async fn ids_that_are_no_uuids_get_400_and_unknown_ones_404_each_with_its_text() {
    let server = Server::start().await;
    let operator = server.operator().await;
    let application = server.application().await;
    let (status, body) = operator.get("/api/v1/applications/nonsense/sessions").await;
    assert_eq!(
        (status, body["message"].as_str()),
        (StatusCode::BAD_REQUEST, Some("Validation failed (uuid is expected)"))
    );
    for path in [sessions(UNKNOWN), format!("{}/{UNKNOWN}", sessions(UNKNOWN))] {
        let (status, body) = operator.get(&path).await;
        assert_eq!(
            (status, body["message"].as_str()),
            (StatusCode::NOT_FOUND, Some("Application not found"))
        );
    }
    let (status, body) = operator.delete(&sessions(UNKNOWN)).await;
    assert_eq!((status, body["message"].as_str()), (StatusCode::NOT_FOUND, Some("Application not found")));
    let (status, body) = operator.get(&format!("{}/{UNKNOWN}", sessions(&application))).await;
    assert_eq!((status, body["message"].as_str()), (StatusCode::NOT_FOUND, Some("Session not found")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_of_another_application_is_not_found_here() {
    let server = Server::start().await;
    let operator = server.operator().await;
    let (_, other) = operator.post("/api/v1/applications", json!({ "name": "other" })).await;
    let other = other["application"]["id"].as_str().unwrap();
    let agent = operator.connect(json!({ "applicationId": other })).await;
    let application = server.application().await;
    let (status, body) = operator.get(&format!("{}/{}", sessions(&application), agent.id)).await;
    assert_eq!((status, body["message"].as_str()), (StatusCode::NOT_FOUND, Some("Session not found")));
    assert_eq!(operator.get(&agent.path()).await.0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_are_problem_details_for_those_who_ask_and_json_for_others() {
    let server = Server::start().await;
    let operator = server.operator().await;
    let url = format!("{}{}", operator.base, sessions(UNKNOWN));
    let request = || operator.http.get(&url).bearer_auth(operator.token.as_ref().unwrap());
    let plain = request().send().await.unwrap();
    assert_eq!(plain.headers()["content-type"], "application/json");
    let problem = request().header("accept", "application/problem+json").send().await.unwrap();
    assert_eq!(problem.headers()["content-type"], "application/problem+json");
    let body: Value = problem.json().await.unwrap();
    insta::assert_json_snapshot!(body, @r#"
    {
      "code": "not_found",
      "detail": "Application not found",
      "message": "Application not found",
      "status": 404,
      "statusCode": 404,
      "title": "Not Found",
      "type": "/problems#not_found"
    }
    "#);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_path_is_404_and_an_unsupported_method_405_with_allow() {
    let server = Server::start().await;
    let operator = server.operator().await;
    let (status, body) = operator.get("/api/v1/nothing/here").await;
    assert_eq!((status, &body["statusCode"]), (StatusCode::NOT_FOUND, &json!(404)));
    let response = operator.send(Method::PUT, &sessions(&server.application().await), None).await;
    assert_eq!(response.status(), 405);
    assert!(response.headers()["allow"].to_str().unwrap().contains("DELETE"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_id_from_outside_is_kept_and_a_hostile_one_replaced() {
    let server = Server::start().await;
    let ask = async |id: &str| {
        let answer = server.http.get(server.url("/livez")).header("x-request-id", id).send().await.unwrap();
        answer.headers()["x-request-id"].to_str().unwrap().to_owned()
    };
    assert_eq!(ask("my-request.7").await, "my-request.7");
    assert_ne!(ask("two words").await, "two words");
    assert_ne!(ask(&"x".repeat(65)).await, "x".repeat(65));
}

// ---- listing ----

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_application_lists_nothing_and_a_session_shows_every_key() {
    let server = Server::start().await;
    let operator = server.operator().await;
    let path = sessions(&server.application().await);
    assert_eq!(operator.get(&path).await, (StatusCode::OK, json!({ "items": [] })));
    let agent = operator.connect(json!({ "name": "bare" })).await;
    let (_, list) = operator.get(&path).await;
    let item = &list["items"][0];
    insta::assert_json_snapshot!(item, {
        ".id" => "[id]", ".agentId" => "[id]", ".organizationId" => "[id]", ".principalId" => "[id]",
        ".principal.id" => "[id]", ".tokenExpiresAt" => "[time]",
        ".lastActiveAt" => "[time]", ".connectedAt" => "[time]", ".createdAt" => "[time]",
    }, @r#"
    {
      "activity": {
        "bytesIn": 0,
        "bytesOut": 0,
        "requests": 0
      },
      "agentId": "[id]",
      "clientInfo": null,
      "connectedAt": "[time]",
      "createdAt": "[time]",
      "derivedStatus": "active",
      "disconnectReason": null,
      "disconnectedAt": null,
      "hostname": null,
      "id": "[id]",
      "kind": "agent",
      "lastActiveAt": "[time]",
      "name": "bare",
      "organizationId": "[id]",
      "policy": {
        "absoluteLifetime": 86400,
        "idleAfter": 300,
        "preset": null,
        "staleAfter": 900,
        "tokenLifetime": 3600
      },
      "principal": {
        "id": "[id]"
      },
      "principalId": "[id]",
      "resource": null,
      "status": "active",
      "suspended": false,
      "tokenExpiresAt": "[time]",
      "userAgent": null
    }
    "#);
    let time = item["createdAt"].as_str().unwrap();
    assert!(time.len() == 24 && time.ends_with('Z'), "{time}");
    let (_, one) = operator.get(&agent.path()).await;
    assert_eq!(&one["session"], item);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_and_one_sessions_come_in_pages_without_gap_or_double() {
    let server = Server::start().await;
    let operator = server.operator().await;
    let agents = operator.connect_many(101).await;
    let path = sessions(&server.application().await);
    let (_, first) = operator.get(&path).await;
    assert_eq!(first["items"].as_array().unwrap().len(), 100);
    let cursor = first["nextCursor"].as_str().unwrap();
    let (_, second) = operator.get(&format!("{path}?cursor={cursor}")).await;
    assert_eq!(second["items"].as_array().unwrap().len(), 1);
    assert_eq!(second.get("nextCursor"), None);
    let ids = |list: &Value| -> Vec<(String, String)> {
        let text = |item: &Value, field: &str| item[field].as_str().unwrap().to_owned();
        list["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|item| (text(item, "createdAt"), text(item, "id")))
            .collect()
    };
    let all = [ids(&first), ids(&second)].concat();
    let mut sorted = all.clone();
    sorted.sort_by(|left, right| right.cmp(left));
    assert_eq!(all, sorted, "newest first, ties by id");
    sorted.dedup();
    assert_eq!(sorted.len(), agents.len());
    let (_, fifty) = operator.get(&format!("{path}?limit=50")).await;
    assert_eq!(ids(&fifty), all[..50]);
}

#[tokio::test(flavor = "multi_thread")]
async fn parameters_that_make_no_sense_are_refused_by_name() {
    let server = Server::start().await;
    let operator = server.operator().await;
    let path = sessions(&server.application().await);
    for (query, field) in [
        ("limit=0", "limit"),
        ("limit=-1", "limit"),
        ("limit=abc", "limit"),
        ("limit=201", "limit"),
        ("status=paused", "status"),
        ("includeInactive=banana", "includeInactive"),
        ("cursor=AAAA", "cursor"),
        ("cursor=%00", "cursor"),
    ] {
        let (status, body) = operator.get(&format!("{path}?{query}")).await;
        assert_eq!(
            (status, body["field"].as_str()),
            (StatusCode::BAD_REQUEST, Some(field)),
            "{query}: {body}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_status_filter_follows_what_is_derived_and_wins_over_include_inactive() {
    let server = Server::with(&["--stale-after", "2h", "--absolute-lifetime", "3h"]).await;
    let operator = server.operator().await;
    let application = server.application().await;
    let gone = operator.connect(json!({ "name": "gone" })).await;
    assert_eq!(gone.call("disconnect").await.0, 200);
    operator.connect(json!({ "name": "expired" })).await;
    server.turn(3_600);
    let operator = server.operator().await;
    operator.connect(json!({ "name": "idle" })).await;
    server.turn(600);
    operator.connect(json!({ "name": "active" })).await;
    let path = sessions(&application);
    for (query, expected) in [
        ("", vec!["active", "idle"]),
        ("?status=active", vec!["active", "idle"]),
        ("?status=inactive", vec!["expired", "gone"]),
        ("?status=all", vec!["active", "idle", "expired", "gone"]),
        ("?includeInactive=true", vec!["active", "idle", "expired", "gone"]),
        ("?includeInactive=false", vec!["active", "idle"]),
        ("?status=active&includeInactive=true", vec!["active", "idle"]),
        ("?status=inactive&includeInactive=false", vec!["expired", "gone"]),
    ] {
        let (_, list) = operator.get(&format!("{path}{query}")).await;
        assert_eq!(names(&list), expected, "{query}");
    }
    let (_, list) = operator.get(&format!("{path}?status=inactive&limit=1")).await;
    assert_eq!(
        (&list["items"][0]["status"], &list["items"][0]["derivedStatus"]),
        (&json!("active"), &json!("expired"))
    );
    let cursor = list["nextCursor"].as_str().unwrap();
    let (_, list) = operator.get(&format!("{path}?status=inactive&limit=1&cursor={cursor}")).await;
    assert_eq!(names(&list), ["gone"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_application_tells_how_many_of_its_sessions_are_what() {
    let server = Server::start().await;
    let operator = server.operator().await;
    operator.connect(json!({})).await.call("disconnect").await;
    operator.connect(json!({})).await;
    server.turn(400);
    operator.connect(json!({})).await;
    let (_, body) = operator.get(&format!("/api/v1/applications/{}", server.application().await)).await;
    assert_eq!(body["application"]["sessions"], json!({ "active": 1, "idle": 1, "live": 2, "total": 3 }));
}

// ---- what the clock derives ----

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_active_then_idle_and_active_again_with_no_write_between() {
    let server = Server::with(&["--idle-after", "60s"]).await;
    let operator = server.operator().await;
    let agent = operator.connect(json!({})).await;
    assert_eq!(derived(&operator, &agent).await, "active");
    server.turn(61);
    assert_eq!(derived(&operator, &agent).await, "idle");
    let (_, before) = operator.get(&agent.path()).await;
    assert_eq!(agent.call("heartbeat").await.0, 200);
    let (_, after) = operator.get(&agent.path()).await;
    assert_eq!(after["session"]["derivedStatus"], "active");
    assert!(after["session"]["lastActiveAt"].as_str() > before["session"]["lastActiveAt"].as_str());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_session_is_not_over_its_owner_renews_it_and_its_own_token_cannot() {
    let server = Server::with(&["--token-lifetime", "60s"]).await;
    let operator = server.operator().await;
    let agent = operator.connect(json!({})).await;
    server.turn(61);
    let operator = server.operator().await;
    assert_eq!(derived(&operator, &agent).await, "expired");
    let (status, body) = agent.call("heartbeat").await;
    assert_eq!((status, body["code"].as_str()), (StatusCode::UNAUTHORIZED, Some("token_expired")));
    // The owner's fresh access token outlives the session's token: that renews it.
    assert_eq!(agent.call_as(&operator, "heartbeat").await.0, 200);
    assert_eq!(derived(&operator, &agent).await, "active");
    // What keeps a session alive never prolongs a token that was issued.
    assert_eq!(agent.call("heartbeat").await.0, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expiry_is_announced_once_within_five_seconds_and_again_only_after_a_renewal() {
    let server = Server::with(&["--token-lifetime", "60s"]).await;
    let operator = server.operator().await;
    let agent = operator.connect(json!({})).await;
    server.turn(60);
    let expired = async || {
        let log = server.log().await;
        log.iter().filter(|(name, _)| name == "expired").count()
    };
    server.until("the expiry is announced", async || expired().await == 1).await;
    tokio::time::sleep(std::time::Duration::from_millis(2_500)).await;
    assert_eq!(expired().await, 1, "announced once");
    let operator = server.operator().await;
    assert_eq!(agent.call_as(&operator, "heartbeat").await.0, 200);
    server.turn(60);
    server.until("the next expiry is announced", async || expired().await == 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn silence_ends_a_session_after_the_stale_timeout_and_heartbeats_prevent_it() {
    let server = Server::with(&["--stale-after", "60s"]).await;
    let operator = server.operator().await;
    let (silent, lively) = (operator.connect(json!({})).await, operator.connect(json!({})).await);
    server.turn(40);
    assert_eq!(lively.call("heartbeat").await.0, 200);
    server.turn(21);
    server
        .until("the silent one is disconnected", async || derived(&operator, &silent).await == "disconnected")
        .await;
    assert_eq!(operator.get(&silent.path()).await.1["session"]["disconnectReason"], "stale");
    assert_eq!(derived(&operator, &lively).await, "active");
}

#[tokio::test(flavor = "multi_thread")]
async fn our_own_absence_ends_nobodys_session() {
    let server = Server::with(&["--stale-after", "2s"]).await;
    let operator = server.operator().await;
    let agent = operator.connect(json!({})).await;
    let mut server = server;
    server.stop().await;
    tokio::time::sleep(std::time::Duration::from_millis(2_500)).await;
    let server = server.restart().await;
    let operator = server.operator().await;
    let agent = Agent { holder: server.holder(agent.holder.token.clone().unwrap()), ..agent };
    assert_eq!(derived(&operator, &agent).await, "idle".replace("idle", "active"));
    assert_eq!(agent.call("heartbeat").await.0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_absolute_lifetime_ends_a_session_however_lively_it_is() {
    let server = Server::with(&["--absolute-lifetime", "100s", "--token-lifetime", "80s"]).await;
    let operator = server.operator().await;
    let agent = operator.connect(json!({})).await;
    server.turn(70);
    let (status, renewed) = agent.call("renew").await;
    assert_eq!(status, 200);
    let limit = renewed["tokenExpiresAt"].as_str().unwrap().to_owned();
    server.turn(30);
    let operator = server.operator().await;
    server.until("it is disconnected", async || derived(&operator, &agent).await == "disconnected").await;
    let (_, body) = operator.get(&agent.path()).await;
    assert_eq!(body["session"]["disconnectReason"], "lifetime");
    assert_eq!(
        body["session"]["disconnectedAt"].as_str(),
        Some(limit.as_str()),
        "at the limit, to the millisecond"
    );
}

// ---- the write side ----

#[tokio::test(flavor = "multi_thread")]
async fn a_session_shows_what_its_client_sent_and_gets_a_name_if_it_has_none() {
    let server = Server::start().await;
    let operator = server.operator().await;
    let body = json!({
        "tokenIdentifier": "cli:1", "authenticatedUserId": "ada@example.com", "hostname": "engine",
        "clientInfo": { "name": "kontext-cli", "version": "0.1.0", "agent": "claude" }, "somethingNew": true,
    });
    let response = operator
        .http
        .post(format!("{}/api/v1/agent-sessions", operator.base))
        .bearer_auth(operator.token.as_ref().unwrap())
        .header("user-agent", "test/1.0")
        .json(&body)
        .send()
        .await
        .unwrap();
    assert_eq!(response.status(), 201);
    assert_eq!(response.headers()["cache-control"], "no-store");
    let created: Value = response.json().await.unwrap();
    assert_eq!(created["sessionId"], created["id"]);
    assert_eq!(created["name"], "kontext-cli on engine");
    let (_, list) = operator.get(&sessions(created["agentId"].as_str().unwrap())).await;
    let item = &list["items"][0];
    assert_eq!(item["id"], created["id"]);
    assert_eq!((&item["hostname"], &item["userAgent"]), (&json!("engine"), &json!("test/1.0")));
    assert_eq!(item["clientInfo"], body["clientInfo"]);
    let unnamed = operator.connect(json!({})).await;
    assert!(unnamed.body["name"].as_str().unwrap().split('-').count() == 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn connecting_again_with_the_same_key_is_the_same_session_with_a_fresh_token() {
    let server = Server::start().await;
    let operator = server.operator().await;
    for key in ["clientSessionId", "tokenIdentifier"] {
        let first = operator.connect(json!({ key: "mine" })).await;
        let (status, second) = operator.post("/api/v1/agent-sessions", json!({ key: "mine" })).await;
        assert_eq!((status, &second["sessionId"]), (StatusCode::OK, &json!(first.id)));
        assert_eq!(second["name"], first.body["name"]);
        assert_eq!(first.call("heartbeat").await.0, 401, "the old token is dead");
        let renewed = server.holder(second["token"].as_str().unwrap());
        assert_eq!(first.call_as(&renewed, "heartbeat").await.0, 200);
        // Another principal who says the same has a session of its own, and each comes back to its own.
        let stranger = json!({ key: "mine", "authenticatedUserId": "somebody else" });
        let theirs = operator.connect(stranger.clone()).await;
        assert_ne!(theirs.id, first.id);
        let (status, again) = operator.post("/api/v1/agent-sessions", stranger).await;
        assert_eq!((status, &again["sessionId"]), (StatusCode::OK, &json!(theirs.id)));
        // Once it has ended, the key is free.
        first.call_as(&renewed, "disconnect").await;
        assert_ne!(operator.connect(json!({ key: "mine" })).await.id, first.id);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn fields_of_a_new_session_that_are_wrong_are_named() {
    let server = Server::start().await;
    let operator = server.operator().await;
    for (body, said) in [
        (json!({ "hostname": "x".repeat(1_025) }), "hostname must be at most 1024 bytes"),
        (json!({ "hostname": "" }), "hostname must not be empty"),
        (json!({ "name": "bell\u{7}" }), "name must not contain control characters"),
        (json!({ "clientInfo": { "name": "x".repeat(20_000) } }), "clientInfo must be at most"),
        (json!({ "clientInfo": "text" }), "clientInfo must be an object"),
        (json!({ "hostname": 7 }), "hostname: invalid type"),
        (json!({ "applicationId": "nonsense" }), "applicationId"),
    ] {
        let (status, answer) = operator.post("/api/v1/agent-sessions", body.clone()).await;
        let message = answer["message"].as_str().unwrap();
        assert!(status == 400 && message.contains(said), "{body}: {message}");
    }
    let huge = json!({ "name": "x".repeat(70_000) });
    assert_eq!(operator.post("/api/v1/agent-sessions", huge).await.0, 413);
}

#[tokio::test(flavor = "multi_thread")]
async fn reports_add_up_and_heartbeats_need_no_body() {
    let server = Server::start().await;
    let operator = server.operator().await;
    let agent = operator.connect(json!({})).await;
    let path = format!("/api/v1/agent-sessions/{}/activity", agent.id);
    for _ in 0..2 {
        let report = json!({ "requests": 2, "bytesIn": 10, "bytesOut": 1_000 });
        assert_eq!(agent.holder.post(&path, report).await.0, 200);
    }
    assert_eq!(agent.call("activity").await.0, 200);
    assert_eq!(agent.call("heartbeat").await.0, 200);
    let (_, body) = operator.get(&agent.path()).await;
    assert_eq!(body["session"]["activity"], json!({ "requests": 4, "bytesIn": 20, "bytesOut": 2_000 }));
    let (status, body) = agent.holder.post(&path, json!({ "requests": -1 })).await;
    assert!(status == 400 && body["message"].as_str().unwrap().contains("requests"), "{body}");
    let (status, _) = agent.holder.post(&path, json!({ "requests": u64::MAX })).await;
    assert_eq!(status, 200, "more than can be counted is held at the largest count");
}

#[tokio::test(flavor = "multi_thread")]
async fn renewing_gives_a_new_token_and_kills_the_old_at_once() {
    let server = Server::start().await;
    let agent = server.operator().await.connect(json!({})).await;
    let (status, renewed) = agent.call("renew").await;
    assert_eq!(status, 200);
    assert_eq!(agent.call("heartbeat").await.0, 401);
    let holder = server.holder(renewed["token"].as_str().unwrap());
    assert_eq!(agent.call_as(&holder, "heartbeat").await.0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sessions_token_opens_its_own_session_only() {
    let server = Server::start().await;
    let operator = server.operator().await;
    let (one, other) = (operator.connect(json!({})).await, operator.connect(json!({})).await);
    assert_eq!(other.call_as(&one.holder, "heartbeat").await.0, 404);
    assert_eq!(other.call_as(&one.holder, "disconnect").await.0, 404);
    assert_eq!(one.holder.get(&one.path()).await.0, 403);
    assert_eq!(one.holder.post("/api/v1/agent-sessions", json!({})).await.0, 403);
}

#[tokio::test(flavor = "multi_thread")]
async fn goodbye_ends_a_session_once_and_a_call_after_it_says_so() {
    let server = Server::start().await;
    let operator = server.operator().await;
    let agent = operator.connect(json!({})).await;
    let (status, first) = agent.call("disconnect").await;
    assert_eq!((status, first["reason"].as_str()), (StatusCode::OK, Some("client")));
    let (status, second) = agent.call("disconnect").await;
    assert_eq!((status, second), (StatusCode::OK, first.clone()), "unchanged");
    let (_, body) = operator.get(&agent.path()).await;
    assert_eq!(body["session"]["status"], "disconnected");
    assert_eq!(body["session"]["disconnectedAt"], first["disconnectedAt"]);
    let (status, body) = agent.call("heartbeat").await;
    assert_eq!((status, body["code"].as_str()), (StatusCode::UNAUTHORIZED, Some("session_revoked")));
    let (status, body) = agent.call_as(&operator, "heartbeat").await;
    assert_eq!((status, body["code"].as_str()), (StatusCode::GONE, Some("session_disconnected")));
    assert_eq!(body["reason"], "client");
    assert_eq!(operator.post(&format!("/api/v1/agent-sessions/{UNKNOWN}/heartbeat"), json!({})).await.0, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_application_in_sight_the_missing_field_is_named() {
    let server = Server::start().await;
    let operator = server.operator().await;
    let (_, made) =
        operator.post("/api/v1/service-accounts", json!({ "name": "loose", "scopes": ["mcp:invoke"] })).await;
    let (id, secret) =
        (made["serviceAccount"]["clientId"].as_str().unwrap(), made["clientSecret"].as_str().unwrap());
    let loose = server.holder(server.token_for(id, secret, "mcp:invoke").await);
    assert_eq!(loose.connect(json!({})).await.application, server.application().await, "the only one");
    operator.post("/api/v1/applications", json!({ "name": "second" })).await;
    let (status, body) = loose.post("/api/v1/agent-sessions", json!({})).await;
    assert_eq!((status, body["field"].as_str()), (StatusCode::BAD_REQUEST, Some("applicationId")));
}

// ---- ending by operators ----

#[tokio::test(flavor = "multi_thread")]
async fn revoking_all_counts_what_it_ended_and_nothing_else() {
    let server = Server::with(&["--stale-after", "10h", "--token-lifetime", "1h"]).await;
    let operator = server.operator().await;
    let application = server.application().await;
    let (_, other) = operator.post("/api/v1/applications", json!({ "name": "other" })).await;
    let other = operator.connect(json!({ "applicationId": other["application"]["id"] })).await;
    let gone = operator.connect(json!({ "name": "gone" })).await;
    let (_, goodbye) = gone.call("disconnect").await;
    let expired = operator.connect(json!({ "name": "expired" })).await;
    server.turn(3_600);
    let operator = server.operator().await;
    let idle = operator.connect(json!({ "name": "idle" })).await;
    server.turn(600);
    let active = operator.connect(json!({ "name": "active" })).await;
    let (status, body) = operator.delete(&format!("{}?reason=drill", sessions(&application))).await;
    assert_eq!(
        (status, &body["success"], &body["disconnectedCount"]),
        (StatusCode::OK, &json!(true), &json!(3))
    );
    let mut instants = vec![];
    for agent in [&expired, &idle, &active] {
        let (_, body) = operator.get(&agent.path()).await;
        let session = &body["session"];
        assert_eq!(
            (&session["status"], &session["derivedStatus"]),
            (&json!("disconnected"), &json!("disconnected"))
        );
        assert_eq!(session["disconnectReason"], "revoked");
        instants.push(session["disconnectedAt"].clone());
    }
    instants.dedup();
    assert_eq!(instants.len(), 1, "one common instant");
    let (_, body) = operator.get(&gone.path()).await;
    assert_eq!(
        body["session"]["disconnectedAt"], goodbye["disconnectedAt"],
        "what had ended stays as it was"
    );
    assert_eq!(
        operator.get(&other.path()).await.1["session"]["status"],
        "active",
        "other applications are not touched"
    );
    let (status, body) = operator.delete(&sessions(&application)).await;
    assert_eq!((status, &body["disconnectedCount"]), (StatusCode::OK, &json!(0)), "again: none left");
    // The log: one event per session that carries the revocation, and the revocation's own beginning and end.
    let log = server.log().await;
    let of = |name: &str| log.iter().filter(|(event, _)| event == name).collect::<Vec<_>>();
    assert_eq!(of("revocation_began")[0].1["note"], "drill");
    assert_eq!(
        of("revocation_ended").iter().map(|(_, body)| body["disconnectedCount"].clone()).collect::<Vec<_>>(),
        [3, 0]
    );
    assert_eq!(of("disconnected").iter().filter(|(_, body)| body["reason"] == "revoked").count(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_revocation_the_old_credential_is_out_until_it_authenticates_again() {
    let server = Server::start().await;
    let operator = server.operator().await;
    let agent = operator.connect(json!({})).await;
    operator.delete(&sessions(&agent.application)).await;
    let response = agent
        .holder
        .send(Method::POST, &format!("/api/v1/agent-sessions/{}/heartbeat", agent.id), None)
        .await;
    assert_eq!(response.status(), 401);
    let challenge = response.headers()["www-authenticate"].to_str().unwrap().to_owned();
    assert_eq!(
        challenge,
        r#"Bearer error="invalid_token", error_description="session disconnected: revoked""#
    );
    let body: Value = response.json().await.unwrap();
    assert_eq!((&body["code"], &body["reason"]), (&json!("session_revoked"), &json!("revoked")));
    // The access token it was opened with opens no agent-side path any more …
    let (status, body) = operator.post("/api/v1/agent-sessions", json!({})).await;
    assert_eq!((status, body["code"].as_str()), (StatusCode::UNAUTHORIZED, Some("credential_revoked")));
    // … but management paths take no notice.
    assert_eq!(operator.get(&agent.path()).await.0, 200);
    // A fresh one is welcome.
    let fresh = server.operator().await;
    assert_eq!(fresh.connect(json!({})).await.call("heartbeat").await.0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn revoking_one_bars_its_token_and_the_access_token_it_last_presented_and_no_other() {
    let server = Server::start().await;
    let operator = server.operator().await;
    let (first, second) =
        (server.holder(server.token("mcp:invoke").await), server.holder(server.token("mcp:invoke").await));
    let (victim, bystander) = (first.connect(json!({})).await, second.connect(json!({})).await);
    let (status, body) = operator.delete(&victim.path()).await;
    assert_eq!((status, &body["disconnectedCount"]), (StatusCode::OK, &json!(1)));
    assert_eq!(victim.call("heartbeat").await.0, 401);
    assert_eq!(first.post("/api/v1/agent-sessions", json!({})).await.0, 401);
    assert_eq!(bystander.call("heartbeat").await.0, 200);
    assert_eq!(second.post("/api/v1/agent-sessions", json!({})).await.0, 201);
    let (status, body) = operator.delete(&victim.path()).await;
    assert_eq!((status, &body["disconnectedCount"]), (StatusCode::OK, &json!(0)), "it had ended");
}

#[tokio::test(flavor = "multi_thread")]
async fn terminating_ends_one_session_and_leaves_credentials_alone() {
    let server = Server::start().await;
    let operator = server.operator().await;
    let agent = operator.connect(json!({})).await;
    let (status, body) = operator.post(&format!("{}/terminate", agent.path()), json!({})).await;
    assert_eq!((status, &body["disconnectedCount"]), (StatusCode::OK, &json!(1)));
    let (status, body) = agent.call("heartbeat").await;
    assert_eq!((status, &body["reason"]), (StatusCode::UNAUTHORIZED, &json!("terminated")));
    assert_eq!(agent.call("disconnect").await.1["reason"], "terminated", "whoever is cut off can learn why");
    assert_eq!(operator.connect(json!({})).await.call("heartbeat").await.0, 200);
    let (_, body) = operator.post(&format!("{}/terminate", agent.path()), json!({})).await;
    assert_eq!(body["disconnectedCount"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn archiving_an_application_ends_its_sessions_and_leaves_it_readable() {
    let server = Server::start().await;
    let operator = server.operator().await;
    let (_, made) = operator.post("/api/v1/applications", json!({ "name": "doomed" })).await;
    let id = made["application"]["id"].as_str().unwrap();
    let agent = operator.connect(json!({ "applicationId": id })).await;
    assert_eq!(operator.delete(&format!("/api/v1/applications/{id}")).await.0, 204);
    let (_, body) = operator.get(&agent.path()).await;
    assert_eq!(body["session"]["disconnectReason"], "archived");
    assert_eq!(operator.get(&format!("{}?status=all", sessions(id))).await.0, 200);
    assert_eq!(operator.post("/api/v1/agent-sessions", json!({ "applicationId": id })).await.0, 404);
    assert_eq!(operator.delete(&sessions(id)).await.0, 404);
    let (_, list) = operator.get("/api/v1/applications").await;
    assert_eq!(names(&list), ["default"]);
    let (_, list) = operator.get("/api/v1/applications?includeArchived=true").await;
    assert_eq!(names(&list), ["doomed", "default"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_policy_tells_the_configured_figures() {
    let server = Server::with(&["--idle-after", "7s"]).await;
    let (_, body) = server.operator().await.get("/api/v1/policy").await;
    let policy = json!({
        "idleAfter": 7, "staleAfter": 900, "mcpStaleAfter": 3_600, "mcpUnusedAfter": 600, "tokenLifetime": 3_600,
        "absoluteLifetime": 86_400,
    });
    assert_eq!(body, policy);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_older_names_answer_too() {
    let server = Server::start().await;
    let operator = server.operator().await;
    let agents = operator.connect_many(3).await;
    let (_, list) = operator.get("/api/v1/agent-instances?limit=2").await;
    assert_eq!(list["items"].as_array().unwrap().len(), 2);
    let (_, rest) = operator
        .get(&format!("/api/v1/agent-instances?cursor={}", list["nextCursor"].as_str().unwrap()))
        .await;
    assert_eq!((rest["items"].as_array().unwrap().len(), rest.get("nextCursor")), (1, None));
    let path = format!("/api/v1/agent-instances/{}", agents[0].id);
    let (_, body) = operator.get(&path).await;
    assert_eq!(body["agentInstance"]["id"], json!(agents[0].id));
    assert_eq!(operator.delete(&path).await.0, 204);
    assert_eq!(operator.get(&path).await.1["agentInstance"]["status"], "disconnected");
    let all = format!("/api/v1/applications/{}/agent-instances", agents[0].application);
    assert_eq!(operator.delete(&all).await.0, 204);
    assert_eq!(operator.get("/api/v1/agent-instances").await.1["items"], json!([]));
}
