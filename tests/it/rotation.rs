//! Secrets that are replaced: at once, or while the old one is good for some time longer.

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::support::{Feed, Holder, Server};

fn text(body: &Value, at: &str) -> String {
    body.pointer(at).and_then(Value::as_str).unwrap_or_else(|| panic!("no {at} in {body}")).to_owned()
}

fn in_seconds(server: &Server, seconds: i64) -> String {
    (server.clock.now() + chrono::TimeDelta::seconds(seconds)).to_rfc3339()
}

async fn rotate(operator: &Holder, path: &str, body: Value) -> Value {
    let (status, made) = operator.post(&format!("{path}/rotate-secret"), body).await;
    assert_eq!(status, 200, "{made}");
    made
}

/// Whether an OAuth client gets a token.
async fn lets_in(server: &Server, id: &str, secret: &str) -> bool {
    let form = [("grant_type", "client_credentials")];
    let answer = server
        .http
        .post(server.url("/oauth2/token"))
        .basic_auth(id, Some(secret))
        .form(&form)
        .send()
        .await
        .unwrap();
    answer.status() == StatusCode::OK
}

/// Makes an OAuth client of either kind: its path, its id and where its secret stands in answers.
async fn client(operator: &Holder, kind: &str) -> (String, String, String, &'static str) {
    let scopes = json!(["mcp:invoke"]);
    let (body, id, client, secret) = match kind {
        "applications" => (
            json!({ "name": "desk", "oauth": { "scopes": scopes } }),
            "/application/id",
            "/oauth/clientId",
            "/oauth/clientSecret",
        ),
        _ => (
            json!({ "name": "ci", "scopes": scopes }),
            "/serviceAccount/id",
            "/serviceAccount/clientId",
            "/clientSecret",
        ),
    };
    let (status, made) = operator.post(&format!("/api/v1/{kind}"), body).await;
    assert_eq!(status, 201, "{made}");
    (format!("/api/v1/{kind}/{}", text(&made, id)), text(&made, client), text(&made, secret), secret)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clients_old_secret_is_good_beside_the_new_one_until_its_time_and_no_longer() {
    let server = Server::start().await;
    let operator = server.operator().await;
    for kind in ["applications", "service-accounts"] {
        let (path, id, first, secret) = client(&operator, kind).await;
        let second =
            text(&rotate(&operator, &path, json!({ "expireOldAt": in_seconds(&server, 60) })).await, secret);
        assert!(lets_in(&server, &id, &first).await && lets_in(&server, &id, &second).await, "{kind}");
        server.turn(61);
        assert!(!lets_in(&server, &id, &first).await, "{kind}: its time is over");
        assert!(lets_in(&server, &id, &second).await, "{kind}");
        let operator = server.operator().await;
        let third =
            text(&rotate(&operator, &path, json!({ "expireOldAt": in_seconds(&server, 60) })).await, secret);
        assert!(!lets_in(&server, &id, &first).await, "{kind}: one of three is the old one");
        let fourth = text(&rotate(&operator, &path, json!({})).await, secret);
        for (old, good) in [(&first, false), (&second, false), (&third, false), (&fourth, true)] {
            assert_eq!(
                lets_in(&server, &id, old).await,
                good,
                "{kind}: a rotation at once ends all before it"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_keys_old_text_is_good_beside_the_new_one_until_its_time_also_across_a_restart() {
    let server = Server::start().await;
    let operator = server.operator().await;
    let body = json!({ "name": "ci", "scopes": ["management:all", "mcp:invoke"] });
    let (_, made) = operator.post("/api/v1/api-keys", body).await;
    let path = format!("/api/v1/api-keys/{}", text(&made, "/apiKey/id"));
    let with = |server: &Server, key: String| server.holder(key);
    let first = text(&made, "/key");
    let rotated = rotate(&operator, &path, json!({ "expireOldAt": in_seconds(&server, 60) })).await;
    let second = text(&rotated, "/key");
    assert_eq!(rotated["apiKey"]["id"], made["apiKey"]["id"], "the key is the same, and so is whose it is");
    let server = server.restart().await;
    let agent = with(&server, second.clone()).connect(json!({})).await;
    for key in [&first, &second] {
        assert_eq!(with(&server, key.clone()).get("/api/v1/hooks").await.0, 200);
    }
    let brief = with(&server, first.clone()).connect(json!({})).await;
    server.turn(61);
    let (status, body) = with(&server, first).get("/api/v1/hooks").await;
    assert_eq!((status, body["code"].as_str()), (StatusCode::UNAUTHORIZED, Some("token_expired")));
    assert_eq!(with(&server, second.clone()).get("/api/v1/hooks").await.0, 200);
    assert_eq!(agent.call("heartbeat").await.0, 200);
    assert_eq!(brief.call("heartbeat").await.0, 401, "no token lives longer than what it was issued for");
    let operator = server.operator().await;
    let third = text(&rotate(&operator, &path, json!({})).await, "/key");
    assert_eq!(with(&server, second).get("/api/v1/hooks").await.0, 401);
    assert_eq!(with(&server, third).get("/api/v1/hooks").await.0, 200);
    assert_eq!(operator.delete(&path).await.0, 204);
    let (status, _) = operator.post(&format!("{path}/rotate-secret"), json!({})).await;
    assert_eq!(status, StatusCode::NOT_FOUND, "what is revoked gets no other secret");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_old_text_has_open_goes_on_until_its_time() {
    let server = Server::start().await;
    let operator = server.operator().await;
    let body = json!({ "name": "ci", "scopes": ["management:all", "mcp:invoke"] });
    let (_, made) = operator.post("/api/v1/api-keys", body).await;
    let path = format!("/api/v1/api-keys/{}", text(&made, "/apiKey/id"));
    let key = server.holder(text(&made, "/key"));
    let agent = key.connect(json!({})).await;
    let feed = format!("/api/v1/applications/{}/sessions/events", agent.application);
    let mut open = Feed::open(&key, &feed, None).await;
    rotate(&operator, &path, json!({ "expireOldAt": in_seconds(&server, 60) })).await;
    agent.call("disconnect").await;
    assert_eq!(open.next_named("disconnected").await.data["reason"], "client", "it is still told");
    server.turn(61);
    let last = open.rest().await.pop().unwrap();
    assert_eq!((last.event.as_str(), last.data["reason"].as_str()), ("credential_ended", Some("replaced")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_that_is_sent_again_gives_the_same_secret_and_a_time_that_is_none_is_named() {
    let server = Server::start().await;
    let operator = server.operator().await;
    let (_, made) =
        operator.post("/api/v1/api-keys", json!({ "name": "ci", "scopes": ["mcp:invoke"] })).await;
    let path = format!("/api/v1/api-keys/{}/rotate-secret", text(&made, "/apiKey/id"));
    let once = async || {
        let request = server.http.post(server.url(&path)).bearer_auth(operator.token.as_ref().unwrap());
        request.header("idempotency-key", "rotate-1").send().await.unwrap().json::<Value>().await.unwrap()
    };
    let (first, again) = (once().await, once().await);
    assert_eq!(first["key"], again["key"]);
    let key = server.holder(text(&first, "/key"));
    assert_eq!(key.post("/api/v1/agent-sessions", json!({})).await.0, 201);
    let later = json!({ "expireOldAt": in_seconds(&server, 60) });
    let once = async || {
        let request = server.http.post(server.url(&path)).bearer_auth(operator.token.as_ref().unwrap());
        let answer = request.header("idempotency-key", "rotate-2").json(&later).send().await.unwrap();
        (answer.status(), answer.json::<Value>().await.unwrap()["key"].clone())
    };
    let first = once().await;
    server.turn(61);
    assert_eq!(once().await, first, "also after the time at which the old one ended");
    for wrong in [json!("yesterday"), json!(in_seconds(&server, -1)), json!(in_seconds(&server, 31 * 86_400))]
    {
        let (status, body) = operator.post(&path, json!({ "expireOldAt": wrong })).await;
        assert_eq!(
            (status, body["field"].as_str()),
            (StatusCode::BAD_REQUEST, Some("expireOldAt")),
            "{wrong}: {body}"
        );
    }
    let (status, body) = operator.post(&path, json!({ "expireOldAfter": 5 })).await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "{body}");
}
