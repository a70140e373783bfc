//! This surface beside the others: one log, one revocation, one way of telling.

use std::collections::BTreeSet;

use chrono::TimeDelta;
use reqwest::Method;
use serde_json::{Value, json};

use super::{app, hyphenated, made};
use crate::support::{Feed, Server};
use crate::webhooks::{Receiver, webhook};

#[tokio::test(flavor = "multi_thread")]
async fn one_revocation_ends_webui_task_and_agent_sessions_with_one_exact_count_and_one_history() {
    let server = Server::with(&["--workload-grace", "10m"]).await;
    let key = server.key(&["session"]).await;
    let operator = server.operator().await;
    let (mut live, mut over) = (BTreeSet::new(), vec![]);
    for number in 0..6 {
        for kind in ["webui", "task"] {
            let path = key.begin(kind, app(["Planner", "Router"][number % 2])).await;
            if number == 0 {
                key.ask(Method::POST, &format!("{path}/end"), Some(json!({ "state": "terminated" }))).await;
                over.push(path);
            } else {
                live.insert(hyphenated(&path));
            }
        }
        let application = server.application().await;
        live.insert(operator.connect(json!({ "applicationId": application })).await.id);
    }
    let body = json!({ "filter": { "organization": true }, "reason": "the building burns" });
    let (status, revocation) = operator.post("/api/v1/revocations", body).await;
    assert_eq!(status, 201, "{revocation}");
    assert_eq!(revocation["revocation"]["disconnectedCount"], live.len(), "{revocation}");
    let id = &revocation["revocation"]["id"];
    let path = format!("/api/v1/events?limit=200&types=disconnected&revocation={}", id.as_str().unwrap());
    let operator = server.operator().await;
    let (_, history) = operator.get(&path).await;
    let items = history["items"].as_array().unwrap();
    let ended: BTreeSet<_> = items.iter().map(|one| one["sessionId"].as_str().unwrap().to_owned()).collect();
    assert_eq!((items.len(), ended), (live.len(), live.clone()), "each once, whatever its kind");
    let (_, all) = operator.get("/api/v1/sessions?status=all&limit=200").await;
    let kinds: BTreeSet<_> =
        all["items"].as_array().unwrap().iter().map(|one| one["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, BTreeSet::from(["agent", "task", "webui"]));
    assert_eq!(key.listed("/sessions/webui?state_equal_ci=terminated").await.1, 6);
    // Keys are no tokens: the cluster says that it knows, and learns why.
    let task = all["items"]
        .as_array()
        .unwrap()
        .iter()
        .find(|one| one["kind"] == "task" && live.contains(one["id"].as_str().unwrap()));
    let task = format!("/sessions/task/{}", task.unwrap()["id"].as_str().unwrap());
    assert_eq!(key.state(&task).await, "queued");
    let seen = key.end(&task, "terminated", "").await;
    assert_eq!(
        (&seen["state"], &seen["message"]),
        (&json!("terminated"), &json!("Revoked by an operator: the building burns"))
    );
    for path in over {
        assert!(key.see(&path).await["message"].as_str().unwrap().len() < 30, "not by the revocation");
    }
    // And it goes on: what comes now is welcome.
    key.begin("task", app("Planner")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_by_state_ends_what_is_in_it_and_nothing_else() {
    let server = Server::start().await;
    let key = server.key(&["session"]).await;
    let operator = server.operator().await;
    let queued = key.begin("task", app("Planner")).await;
    let running = key.begin("task", json!({ "app": { "name": "Planner" }, "state": "running" })).await;
    let body = json!({ "filter": { "kind": "task", "stage": ["queued"] }, "reason": "the queue is emptied" });
    let (status, revocation) = operator.post("/api/v1/revocations", body).await;
    assert_eq!(status, 201, "{revocation}");
    assert_eq!(revocation["revocation"]["disconnectedCount"], 1);
    assert_eq!(key.move_on(&queued, "running").await, 410);
    assert_eq!(key.beat(&running).await, 200);
    let ids = |body: Value| -> Vec<String> {
        body["items"].as_array().unwrap().iter().map(|one| one["id"].as_str().unwrap().to_owned()).collect()
    };
    let listed = operator.get("/api/v1/sessions?status=all&stage=terminated").await.1;
    assert_eq!(ids(listed), [hyphenated(&queued)]);
    assert_eq!(ids(operator.get("/api/v1/sessions?kind=task&stage=running").await.1), [hyphenated(&running)]);
    let (status, body) = operator.get("/api/v1/sessions?stage=asleep").await;
    assert_eq!((status.as_u16(), &body["field"]), (400, &json!("stage")));
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_runs_work_is_told_by_webhook_and_by_the_live_feed_that_it_was_terminated() {
    let server = Server::with(&["--webhook-allow-loopback"]).await;
    let key = server.key(&["session", "management:sessions:read"]).await;
    let operator = server.operator().await;
    let receiver = Receiver::start().await;
    webhook(&operator, json!({ "url": receiver.url(), "types": ["disconnected"] })).await;
    let task = key.begin("task", app("Planner")).await;
    let webui = key.begin("webui", app("Planner")).await;
    let id = hyphenated(&task);
    let (_, all) = operator.get("/api/v1/sessions?kind=task").await;
    let application = all["items"][0]["agentId"].as_str().unwrap().to_owned();
    let follower = server.holder(key.text.clone().unwrap());
    let path = format!("/api/v1/applications/{application}/sessions/events");
    let mut feed = Feed::open(&follower, &path, None).await;
    assert_eq!(key.delete(&task).await, 204);
    let frame = feed.next_named("disconnected").await;
    assert_eq!((&frame.data["sessionId"], &frame.data["reason"]), (&json!(id), &json!("terminated")));
    assert_eq!(key.delete(&webui).await, 204);
    let frame = feed.next_named("disconnected").await;
    assert_eq!(frame.data["sessionId"], hyphenated(&webui));
    let told = receiver.until_that("both ends", |taken| taken.len() >= 2).await;
    for (one, path) in told.iter().zip([&task, &webui]) {
        let data = &one.json()["data"];
        assert_eq!((&data["type"], &data["sessionId"]), (&json!("disconnected"), &json!(hyphenated(path))));
        assert_eq!(data["reason"], "terminated", "{data}");
    }
}

#[tokio::test]
async fn a_key_of_this_surface_lives_at_most_a_year() {
    let server = Server::with(&["--token-lifetime", "800d", "--absolute-lifetime", "900d"]).await;
    let operator = server.operator().await;
    let now = server.clock.now();
    let at = |days: i64| (now + TimeDelta::days(days)).to_rfc3339();
    let body = json!({ "name": "too long", "scopes": ["session", "media"], "expiresAt": at(366) });
    let (status, body) = operator.post("/api/v1/api-keys", body).await;
    assert_eq!((status.as_u16(), &body["field"]), (400, &json!("expiresAt")), "{body}");
    let (_, made_for_a_month) =
        made(&operator, json!({ "name": "a month", "scopes": ["session"], "expiresAt": at(30) })).await;
    assert_eq!(made_for_a_month["apiKey"]["expiresAt"].as_str().unwrap()[..10], at(30)[..10]);
    // Nothing said is a year, not for ever.
    let (text, _) = made(&operator, json!({ "name": "a year", "scopes": ["session"] })).await;
    let key = server.holds(Some(text));
    server.turn(364 * 86_400);
    assert_eq!(key.get("/sessions/task").await.0, 200);
    server.turn(2 * 86_400);
    let (status, body) = key.get("/sessions/task").await;
    assert_eq!((status.as_u16(), body["message"].as_str().unwrap()), (401, "The API key has expired"));
}

#[tokio::test]
async fn a_request_that_is_sent_again_with_its_key_begins_ends_and_beats_once() {
    let server = Server::start().await;
    let key = server.key(&["session"]).await;
    let again = |method: Method, path: String, body: Value| {
        let key = key.clone();
        async move {
            let url = format!("{}{}{path}", key.base, super::ROOT);
            let request = key.http.request(method, url).header("apiKey", key.text.unwrap());
            let response = request.header("idempotency-key", "one").json(&body).send().await.unwrap();
            (response.status().as_u16(), response.text().await.unwrap())
        }
    };
    let begin = || again(Method::POST, "/sessions/task".to_owned(), app("Planner"));
    let (first, second) = (begin().await, begin().await);
    assert_eq!(first.0, 201);
    assert_eq!(first, second);
    assert_eq!(key.listed("/sessions/task").await.1, 1);
    let id = serde_json::from_str::<Value>(&first.1).unwrap()["id"].as_str().unwrap().to_owned();
    // The same key is another request's; with one of its own it is done once, and answered twice.
    let path = format!("/sessions/task/{id}");
    assert_eq!(again(Method::DELETE, path.clone(), json!({})).await.0, 422);
    let delete = || {
        let url = format!("{}{}{path}", key.base, super::ROOT);
        key.http
            .delete(url)
            .header("apiKey", key.text.clone().unwrap())
            .header("idempotency-key", "two")
            .send()
    };
    assert_eq!(
        (delete().await.unwrap().status(), delete().await.unwrap().status().as_u16()),
        (reqwest::StatusCode::NO_CONTENT, 204)
    );
    let ends = server.log().await.into_iter().filter(|(name, _)| name == "disconnected").count();
    assert_eq!(ends, 1);
}
