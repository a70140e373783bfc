//! What a token is worth, and giving it up.

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::support::{CLIENT_ID, CLIENT_SECRET, Holder, Server};

async fn ask(server: &Server, path: &str, token: &str) -> (StatusCode, Value) {
    let request = server.http.post(server.url(path)).basic_auth(CLIENT_ID, Some(CLIENT_SECRET));
    let response = request.form(&[("token", token)]).send().await.unwrap();
    assert_eq!(response.headers()["cache-control"], "no-store");
    let status = response.status();
    (status, serde_json::from_str(&response.text().await.unwrap()).unwrap_or_default())
}

async fn worth(server: &Server, token: &str) -> Value {
    let (status, body) = ask(server, "/oauth2/introspect", token).await;
    assert_eq!(status, 200, "{body}");
    if body["active"] == json!(false) {
        assert_eq!(body, json!({ "active": false }), "no reason is told");
    }
    body
}

async fn give_up(server: &Server, token: &str) -> (StatusCode, Value) {
    ask(server, "/oauth2/revoke", token).await
}

fn token(holder: &Holder) -> &str {
    holder.token.as_deref().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_good_token_says_what_it_opens_and_any_other_nothing_at_all() {
    let server = Server::start().await;
    let operator = server.operator().await;
    let agent = operator.connect(json!({})).await;
    let access = worth(&server, token(&operator)).await;
    assert_eq!((&access["active"], &access["client_id"]), (&json!(true), &json!(CLIENT_ID)));
    assert_eq!((&access["token_type"], &access["iss"]), (&json!("Bearer"), &json!(server.url(""))));
    assert!(access["scope"].as_str().unwrap().contains("management:all"), "{access}");
    let now = server.clock.now().timestamp();
    assert!((3_500..=3_600).contains(&(access["exp"].as_i64().unwrap() - now)), "{access}");

    let session = worth(&server, token(&agent.holder)).await;
    assert_eq!((&session["sid"], &session["derived_status"]), (&json!(agent.id), &json!("active")));
    assert_eq!((&session["scope"], &session["client_id"]), (&json!("mcp:invoke"), &json!(CLIENT_ID)));
    let (_, shown) = operator.get(&agent.path()).await;
    assert_eq!(session["sub"], shown["session"]["principalId"]);
    server.turn(301);
    assert_eq!(worth(&server, token(&agent.holder)).await["derived_status"], "idle");

    let (_, key) = operator.post("/api/v1/api-keys", json!({ "name": "k", "scopes": ["media"] })).await;
    let key_worth = worth(&server, key["key"].as_str().unwrap()).await;
    assert_eq!((&key_worth["scope"], key_worth.get("exp")), (&json!("media"), None));
    assert_eq!(key_worth["iat"].as_i64().map(|at| at > 0), Some(true));

    let forged = format!("{}A", &token(&operator)[..token(&operator).len() - 1]);
    let swapped = token(&operator).replace("sat_", "sst_");
    for wrong in ["nonsense", "eyJhbGciOiJub25lIn0.e30.", forged.as_str(), swapped.as_str()] {
        if wrong != token(&operator) {
            worth(&server, wrong).await;
            assert_eq!(worth(&server, wrong).await["active"], false, "{wrong}");
        }
    }
    server.turn(3_300);
    assert_eq!(worth(&server, token(&operator)).await["active"], false, "it has expired");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_revoked_ended_or_barred_is_not_active() {
    let server = Server::start().await;
    let operator = server.operator().await;
    let (agents, key) = (operator.connect_many(2).await, json!({ "name": "k", "scopes": ["media"] }));
    let (_, key) = operator.post("/api/v1/api-keys", key).await;
    assert_eq!(agents[0].call("disconnect").await.0, 200);
    assert_eq!(worth(&server, token(&agents[0].holder)).await["active"], false);
    assert_eq!(worth(&server, token(&agents[1].holder)).await["active"], true);
    let path = format!("/api/v1/applications/{}/sessions", agents[0].application);
    assert_eq!(operator.delete(&path).await.0, 200);
    for holder in [&agents[1].holder, &operator] {
        assert_eq!(worth(&server, token(holder)).await["active"], false);
    }
    let fresh = server.operator().await;
    assert_eq!(worth(&server, token(&fresh)).await["active"], true);
    let path = format!("/api/v1/api-keys/{}", key["apiKey"]["id"].as_str().unwrap());
    assert_eq!(worth(&server, key["key"].as_str().unwrap()).await["active"], true);
    assert_eq!(fresh.delete(&path).await.0, 204);
    assert_eq!(worth(&server, key["key"].as_str().unwrap()).await["active"], false);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_must_be_a_client_or_may_read_sessions_and_learns_only_of_the_own_organization() {
    let server = Server::start().await;
    let operator = server.operator().await;
    let asked = async |holder: Option<&str>| {
        let mut request = server.http.post(server.url("/oauth2/introspect"));
        if let Some(token) = holder {
            request = request.bearer_auth(token);
        }
        let response = request.form(&[("token", token(&operator))]).send().await.unwrap();
        (response.status().as_u16(), response.json::<Value>().await.unwrap())
    };
    assert_eq!(asked(None).await.0, 401);
    assert_eq!(asked(Some("sat_nonsense")).await.0, 401);
    let reader = server.token("management:all").await;
    assert_eq!(asked(Some(&reader)).await.1["active"], true);
    let agent = server.token("mcp:invoke").await;
    assert_eq!(asked(Some(&agent)).await.0, 403);
    let founded =
        server.running.as_ref().unwrap().house.directory.organizations.create("other", None).await.unwrap();
    let foreigner = server.token_for(&founded.client_id, &founded.client_secret, "").await;
    assert_eq!(asked(Some(&foreigner)).await, (200, json!({ "active": false })));
    let missing = server.http.post(server.url("/oauth2/introspect")).bearer_auth(&reader);
    let response = missing.form(&[("x", "y")]).send().await.unwrap();
    assert_eq!(response.status(), 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_access_token_that_was_given_up_opens_nothing_also_after_a_restart() {
    let server = Server::start().await;
    let (old, kept) = (server.operator().await, server.operator().await);
    assert_eq!(old.get("/api/v1/applications").await.0, 200);
    assert_eq!(give_up(&server, token(&old)).await, (StatusCode::OK, Value::Null));
    assert_eq!(old.get("/api/v1/applications").await.0, 401, "not even to manage");
    assert_eq!(old.post("/api/v1/agent-sessions", json!({})).await.0, 401);
    assert_eq!(give_up(&server, token(&old)).await.0, 200, "twice is success");
    assert_eq!(give_up(&server, "nonsense").await.0, 200);
    let server = server.restart().await;
    assert_eq!(server.holder(token(&old)).get("/api/v1/applications").await.0, 401);
    assert_eq!(server.holder(token(&kept)).get("/api/v1/applications").await.0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn giving_up_a_sessions_token_is_its_goodbye() {
    let server = Server::start().await;
    let operator = server.operator().await;
    let agents = operator.connect_many(2).await;
    assert_eq!(give_up(&server, token(&agents[0].holder)).await.0, 200);
    // The very token may do it too.
    let own = server.http.post(server.url("/oauth2/revoke")).bearer_auth(token(&agents[1].holder));
    let own = own.form(&[("token", token(&agents[1].holder))]).send().await.unwrap();
    assert_eq!(own.status(), 200);
    for agent in &agents {
        let (_, shown) = operator.get(&agent.path()).await;
        assert_eq!(shown["session"]["disconnectReason"], "client");
        assert_eq!(agent.call("heartbeat").await.0, 401);
    }
    assert_eq!(operator.connect(json!({})).await.call("heartbeat").await.0, 200, "others are left alone");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_gives_up_what_is_anothers() {
    let server = Server::start().await;
    let operator = server.operator().await;
    let agents = operator.connect_many(2).await;
    let by = async |holder: &str, given: &str| {
        let request = server.http.post(server.url("/oauth2/revoke")).bearer_auth(holder);
        request.form(&[("token", given)]).send().await.unwrap().status().as_u16()
    };
    assert_eq!(by(token(&agents[0].holder), token(&agents[1].holder)).await, 403);
    let founded =
        server.running.as_ref().unwrap().house.directory.organizations.create("other", None).await.unwrap();
    let foreigner = server.token_for(&founded.client_id, &founded.client_secret, "").await;
    assert_eq!(by(&foreigner, token(&agents[1].holder)).await, 200, "as if it were unknown");
    assert_eq!(by(&foreigner, token(&operator)).await, 200);
    assert_eq!(agents[1].call("heartbeat").await.0, 200);
    assert_eq!(operator.get("/api/v1/applications").await.0, 200);
    let oauth = json!({ "type": "confidential", "redirectUris": [], "scopes": ["mcp:invoke"] });
    let (_, made) = operator.post("/api/v1/applications", json!({ "name": "own", "oauth": oauth })).await;
    let text = |field: &str| made["oauth"][field].as_str().unwrap();
    let request = server.http.post(server.url("/oauth2/revoke"));
    let request = request.basic_auth(text("clientId"), Some(text("clientSecret")));
    let response = request.form(&[("token", token(&operator))]).send().await.unwrap();
    assert_eq!(response.status(), 400);
    assert_eq!(response.json::<Value>().await.unwrap()["error"], "unauthorized_client");
    let (_, key) = operator.post("/api/v1/api-keys", json!({ "name": "k", "scopes": ["media"] })).await;
    for other in [key["key"].as_str().unwrap(), "eyJhbGciOiJSUzI1NiJ9.e30.AA"] {
        let (status, body) = give_up(&server, other).await;
        assert_eq!((status.as_u16(), &body["error"]), (400, &json!("unsupported_token_type")));
    }
}
