//! API keys: what they open, for whom, and until when.

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::support::{Holder, Server};

const KEYS: &str = "/api/v1/api-keys";

async fn key(operator: &Holder, body: Value) -> (Value, Holder) {
    let (status, made) = operator.post(KEYS, body).await;
    assert_eq!(status, 201, "{made}");
    let token = made["key"].as_str().unwrap().to_owned();
    assert!(token.starts_with("sak_"), "{token}");
    (made["apiKey"].clone(), Holder { token: Some(token), ..operator.clone() })
}

fn in_days(server: &Server, days: i64) -> String {
    (server.clock.now() + chrono::TimeDelta::days(days)).to_rfc3339()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_opens_what_its_scopes_name_and_no_other_surface() {
    let server = Server::start().await;
    let operator = server.operator().await;
    let sessions = format!("/api/v1/applications/{}/sessions", server.application().await);
    for (scope, manages, reads, connects) in [
        ("management:all", 200, 200, 403),
        ("management:sessions:read", 403, 200, 403),
        ("management:sessions:write", 403, 403, 403),
        ("mcp:invoke", 403, 403, 201),
        ("media", 403, 403, 403),
        ("session", 403, 403, 403),
        ("terminal", 403, 403, 403),
    ] {
        let (_, key) = key(&operator, json!({ "name": scope, "scopes": [scope] })).await;
        assert_eq!(key.get("/api/v1/service-accounts").await.0, manages, "{scope}");
        assert_eq!(key.get(&sessions).await.0, reads, "{scope}");
        assert_eq!(key.post("/api/v1/agent-sessions", json!({})).await.0, connects, "{scope}");
    }
    let (_, both) =
        key(&operator, json!({ "name": "both", "scopes": ["mcp:invoke", "management:all"] })).await;
    let agent = both.connect(json!({})).await;
    assert_eq!(agent.call_as(&both, "heartbeat").await.0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_keys_text_is_shown_once_and_the_rest_whenever_it_is_asked_for() {
    let server = Server::start().await;
    let operator = server.operator().await;
    let user = json!({ "id": "u-1", "name": "Ada", "email": "ada@example.com" });
    let (made, holder) =
        key(&operator, json!({ "name": "ci", "scopes": ["mcp:invoke"], "user": user })).await;
    let path = format!("{KEYS}/{}", made["id"].as_str().unwrap());
    assert_eq!(made["scopes"], json!(["mcp:invoke"]));
    for member in ["id", "name", "email"] {
        assert_eq!(made["user"][member], user[member]);
    }
    assert_eq!((&made["expiresAt"], &made["lastUsedAt"]), (&Value::Null, &Value::Null));
    let (status, read) = operator.get(&path).await;
    assert_eq!((status, &read["apiKey"]), (StatusCode::OK, &made));
    let secret = holder.token.as_deref().unwrap().rsplit('_').next().unwrap().to_owned();
    assert!(!read.to_string().contains(&secret));
    key(&operator, json!({ "name": "second", "scopes": ["media"] })).await;
    let (_, page) = operator.get(&format!("{KEYS}?limit=1")).await;
    assert_eq!(page["items"][0]["name"], "second");
    let next = page["nextCursor"].as_str().unwrap();
    let (_, rest) = operator.get(&format!("{KEYS}?limit=1&cursor={next}")).await;
    assert_eq!((&rest["items"][0]["name"], &rest["nextCursor"]), (&json!("ci"), &Value::Null));
    for body in [
        json!({}),
        json!({ "name": "x", "scopes": [] }),
        json!({ "name": "x", "scopes": ["root"] }),
        json!({ "name": "", "scopes": ["media"] }),
        json!({ "name": "x", "scopes": ["media"], "user": { "id": "" } }),
        json!({ "name": "x", "scopes": ["media"], "user": { "id": "a\nb" } }),
        json!({ "name": "x", "scopes": ["media"], "expiresAt": "tomorrow" }),
        json!({ "name": "x", "scopes": ["media"], "expiresAt": in_days(&server, -1) }),
        json!({ "name": "x", "scopes": ["media"], "more": 1 }),
    ] {
        assert_eq!(operator.post(KEYS, body.clone()).await.0, 400, "{body}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_was_revoked_or_whose_time_has_come_is_refused_at_once_also_after_a_restart() {
    let server = Server::start().await;
    let operator = server.operator().await;
    let body = json!({ "name": "x", "scopes": ["management:all"], "expiresAt": in_days(&server, 1) });
    let (first, revoked) = key(&operator, body.clone()).await;
    let (_, expiring) = key(&operator, body).await;
    let (_, kept) = key(&operator, json!({ "name": "x", "scopes": ["management:all"] })).await;
    let path = format!("{KEYS}/{}", first["id"].as_str().unwrap());
    assert_eq!(revoked.get(KEYS).await.0, 200);
    assert_eq!(operator.delete(&path).await.0, 204);
    assert_eq!(operator.delete(&path).await.0, 204, "revoking twice is success");
    let (status, body) = revoked.get(KEYS).await;
    assert_eq!((status, &body["message"]), (StatusCode::UNAUTHORIZED, &json!("Unauthorized")));
    server.turn(86_399);
    assert_eq!(expiring.get(KEYS).await.0, 200);
    let server = server.restart().await;
    let moved = |holder: &Holder| Holder { base: server.url(""), ..holder.clone() };
    let (revoked, expiring, kept) = (moved(&revoked), moved(&expiring), moved(&kept));
    assert_eq!(revoked.get(KEYS).await.0, 401);
    assert_eq!(expiring.get(KEYS).await.0, 200, "its time is its own, and the clock is new");
    server.turn(86_400);
    let (status, body) = expiring.get(KEYS).await;
    assert_eq!((status, &body["code"]), (StatusCode::UNAUTHORIZED, &json!("token_expired")));
    let (_, list) = kept.get(KEYS).await;
    assert_eq!(list["items"].as_array().unwrap().len(), 2);
    let (_, all) = kept.get(&format!("{KEYS}?includeRevoked=true")).await;
    assert_eq!(all["items"].as_array().unwrap().len(), 3);
    assert!(all["items"][2]["revokedAt"].is_string(), "{all}");
    let mut wrong = kept.clone();
    wrong.token = wrong.token.map(|token| format!("{}A", &token[..token.len() - 1]));
    if wrong.token != kept.token {
        assert_eq!(wrong.get(KEYS).await.0, 401);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn when_a_key_was_last_used_is_known_at_once_and_outlives_a_restart() {
    let server = Server::start().await;
    let operator = server.operator().await;
    let (made, holder) = key(&operator, json!({ "name": "x", "scopes": ["management:all"] })).await;
    let path = format!("{KEYS}/{}", made["id"].as_str().unwrap());
    assert_eq!(holder.get("/api/v1/applications").await.0, 200);
    let used = operator.get(&path).await.1["apiKey"]["lastUsedAt"].clone();
    assert!(used.is_string());
    let server = server.restart().await;
    assert_eq!(server.operator().await.get(&path).await.1["apiKey"]["lastUsedAt"], used);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_for_workloads_lives_a_year_at_most() {
    let server = Server::start().await;
    let operator = server.operator().await;
    let (made, _) = key(&operator, json!({ "name": "x", "scopes": ["session"] })).await;
    let expires = chrono::DateTime::parse_from_rfc3339(made["expiresAt"].as_str().unwrap()).unwrap();
    let left = expires.signed_duration_since(server.clock.now());
    assert!((364..=365).contains(&left.num_days()), "{left}");
    let at = |days| json!({ "name": "x", "scopes": ["session"], "expiresAt": in_days(&server, days) });
    key(&operator, at(364)).await;
    let (status, body) = operator.post(KEYS, at(366)).await;
    assert_eq!((status, &body["field"]), (StatusCode::BAD_REQUEST, &json!("expiresAt")));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_users_keys_open_belongs_to_the_user_whomever_the_client_names() {
    let server = Server::start().await;
    let operator = server.operator().await;
    let of = |id: &str| json!({ "name": id, "scopes": ["mcp:invoke"], "user": { "id": id } });
    let (ada, first) = key(&operator, of("ada")).await;
    let (again, second) = key(&operator, of("ada")).await;
    let (bob, third) = key(&operator, of("bob")).await;
    assert_eq!(ada["user"]["principalId"], again["user"]["principalId"]);
    assert_ne!(ada["user"]["principalId"], bob["user"]["principalId"]);
    for (holder, user) in [(first, &ada), (second, &ada), (third, &bob)] {
        let agent = holder.connect(json!({ "authenticatedUserId": "eve" })).await;
        let (_, shown) = operator.get(&agent.path()).await;
        assert_eq!(shown["session"]["principalId"], user["user"]["principalId"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_gives_away_what_they_do_not_have_and_clients_get_no_words_of_keys() {
    let server = Server::start().await;
    let operator = server.operator().await;
    let platform = json!({ "name": "x", "scopes": ["platform:admin"] });
    for path in [KEYS, "/api/v1/service-accounts"] {
        let (status, body) = operator.post(path, platform.clone()).await;
        assert_eq!(status, 403, "{body}");
    }
    for word in ["media", "session", "terminal", "platform:admin"] {
        let oauth = json!({ "type": "confidential", "redirectUris": [], "scopes": [word] });
        let expected = if word == "platform:admin" { 403 } else { 400 };
        let (status, _) =
            operator.post("/api/v1/applications", json!({ "name": word, "oauth": oauth })).await;
        assert_eq!(status, expected, "{word}");
        let (status, _) =
            operator.post("/api/v1/service-accounts", json!({ "name": word, "scopes": [word] })).await;
        assert_eq!(status, expected, "{word}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_of_another_organization_is_not_found() {
    let server = Server::start().await;
    let operator = server.operator().await;
    let (made, _) = key(&operator, json!({ "name": "x", "scopes": ["media"] })).await;
    let founded =
        server.running.as_ref().unwrap().house.directory.organizations.create("other", None).await.unwrap();
    let token = server.token_for(&founded.client_id, &founded.client_secret, "").await;
    let foreigner = server.holder(token);
    let path = format!("{KEYS}/{}", made["id"].as_str().unwrap());
    assert_eq!(foreigner.get(&path).await.0, 404);
    assert_eq!(foreigner.delete(&path).await.0, 404);
    assert_eq!(foreigner.get(KEYS).await.1["items"], json!([]));
    assert_eq!(operator.get(&path).await.1["apiKey"].get("revokedAt"), None);
}
