//! What a credential opens, and what it no longer opens: after a revocation, after its session's end, and of whom.

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::support::{Feed, Server};

fn sessions(application: &str) -> String {
    format!("/api/v1/applications/{application}/sessions")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_credential_neither_follows_nor_ends_a_session_of_those_who_came_back() {
    let server = Server::start().await;
    let old = server.operator().await;
    let application = server.application().await;
    assert_eq!(old.delete(&sessions(&application)).await.0, 200);
    let fresh = server.operator().await.connect(json!({})).await;
    let (status, body) = fresh.call_as(&old, "disconnect").await;
    assert_eq!((status, body["code"].as_str()), (StatusCode::UNAUTHORIZED, Some("credential_revoked")));
    let (status, body) = old.get(&format!("/api/v1/agent-sessions/{}/events", fresh.id)).await;
    assert_eq!((status, body["code"].as_str()), (StatusCode::UNAUTHORIZED, Some("credential_revoked")));
    assert_eq!(fresh.call("heartbeat").await.0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_credential_on_an_old_session_is_401_and_a_fresh_one_410() {
    let server = Server::start().await;
    let old = server.operator().await;
    let agent = old.connect(json!({})).await;
    assert_eq!(old.delete(&sessions(&agent.application)).await.0, 200);
    for verb in ["heartbeat", "activity", "renew", "disconnect"] {
        let (status, body) = agent.call_as(&old, verb).await;
        assert_eq!(
            (status, body["code"].as_str()),
            (StatusCode::UNAUTHORIZED, Some("credential_revoked")),
            "{verb}"
        );
    }
    let fresh = server.operator().await;
    for verb in ["heartbeat", "activity", "renew"] {
        let (status, body) = agent.call_as(&fresh, verb).await;
        assert_eq!((status, body["reason"].as_str()), (StatusCode::GONE, Some("revoked")), "{verb}");
    }
    assert_eq!(agent.call_as(&fresh, "disconnect").await.1["reason"], "revoked");
    // Its own token opens two paths and no third.
    for (verb, expected) in [("heartbeat", 401), ("activity", 401), ("renew", 401), ("disconnect", 200)] {
        assert_eq!(agent.call(verb).await.0, expected, "{verb}");
    }
    let events = format!("/api/v1/agent-sessions/{}/events", agent.id);
    assert_eq!(Feed::open(&agent.holder, &events, None).await.rest().await.len(), 2);
    assert_eq!(agent.holder.post("/api/v1/agent-sessions", json!({})).await.0, 401);
    assert_eq!(agent.holder.get(&agent.path()).await.0, 401);
    let other = fresh.connect(json!({})).await;
    assert_eq!(other.call_as(&agent.holder, "disconnect").await.0, 404, "and both of its own session only");
    let events = format!("/api/v1/agent-sessions/{}/events", other.id);
    assert_eq!(agent.holder.get(&events).await.0, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_applications_own_token_sees_and_ends_nothing_of_another_application() {
    let server = Server::start().await;
    let operator = server.operator().await;
    let scopes = json!({ "scopes": ["management:all", "mcp:invoke"] });
    let (_, made) = operator.post("/api/v1/applications", json!({ "name": "one", "oauth": scopes })).await;
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let (id, secret) = (text(&made["oauth"]["clientId"]), text(&made["oauth"]["clientSecret"]));
    let own = server.holder(server.token_for(&id, &secret, "management:all mcp:invoke").await);
    let foreign = operator.connect(json!({ "applicationId": server.application().await })).await;
    for path in [
        sessions(&foreign.application),
        foreign.path(),
        format!("{}/events", sessions(&foreign.application)),
        format!("/api/v1/applications/{}", foreign.application),
        format!("/api/v1/agent-instances/{}", foreign.id),
        format!("/api/v1/agent-sessions/{}/events", foreign.id),
    ] {
        assert_eq!(own.get(&path).await.0, 404, "{path}");
    }
    for path in [
        sessions(&foreign.application),
        foreign.path(),
        format!("/api/v1/applications/{}", foreign.application),
        format!("/api/v1/agent-instances/{}", foreign.id),
        format!("/api/v1/applications/{}/agent-instances", foreign.application),
    ] {
        assert_eq!(own.delete(&path).await.0, 404, "{path}");
    }
    assert_eq!(own.post(&format!("{}/terminate", foreign.path()), json!({})).await.0, 404);
    for verb in ["heartbeat", "activity", "renew", "disconnect"] {
        assert_eq!(foreign.call_as(&own, verb).await.0, 404, "{verb}");
    }
    assert_eq!(own.get("/api/v1/agent-instances").await.1["items"], json!([]));
    assert_eq!(own.post("/api/v1/applications", json!({ "name": "two" })).await.0, 403);
    assert_eq!(own.get("/api/v1/service-accounts").await.0, 403);
    assert_eq!(own.connect(json!({})).await.application, text(&made["application"]["id"]));
    assert_eq!(foreign.call("heartbeat").await.0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archived_service_accounts_token_opens_nothing() {
    let server = Server::start().await;
    let operator = server.operator().await;
    let (_, made) = operator.post("/api/v1/service-accounts", json!({ "name": "one" })).await;
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let account = &made["serviceAccount"];
    let (id, secret) = (text(&account["clientId"]), text(&made["clientSecret"]));
    let own = server.holder(server.token_for(&id, &secret, "management:all").await);
    let agent = own.connect(json!({})).await;
    let path = format!("/api/v1/service-accounts/{}", text(&account["id"]));
    assert_eq!(operator.delete(&path).await.0, 204);
    assert_eq!(own.get(&agent.path()).await.0, 401);
    assert_eq!(agent.call_as(&own, "heartbeat").await.0, 401);
    assert_eq!(agent.call("heartbeat").await.0, 200, "its sessions go on: nobody revoked them");
}

#[tokio::test(flavor = "multi_thread")]
async fn attaching_with_a_credential_that_ends_sooner_shortens_nothing() {
    let server = Server::with(&["--token-lifetime", "600s"]).await;
    let first = server.operator().await;
    server.turn(300);
    let second = server.operator().await;
    let agent = second.connect(json!({ "clientSessionId": "run" })).await;
    let (status, body) = first.post("/api/v1/agent-sessions", json!({ "clientSessionId": "run" })).await;
    assert_eq!(status, 200);
    assert!(
        body["tokenExpiresAt"].as_str() >= agent.body["tokenExpiresAt"].as_str(),
        "{} became {}",
        agent.body["tokenExpiresAt"],
        body["tokenExpiresAt"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn every_401_says_what_was_wrong_and_what_to_do_beside_the_word_that_clients_compare() {
    let server = Server::start().await;
    let operator = server.operator().await;
    let old = server.operator().await;
    let ended = operator.connect(json!({})).await;
    assert_eq!(operator.delete(&ended.path()).await.0, 200);
    let expiring = server.operator().await.connect(json!({})).await;
    let path = |id: &str, verb: &str| format!("/api/v1/agent-sessions/{id}/{verb}");
    let mut asked = vec![
        (server.stranger().post("/api/v1/agent-sessions", json!({})).await, "unauthorized", "/oauth2/token"),
        (ended.call("heartbeat").await, "session_revoked", "Open another session"),
    ];
    assert_eq!(operator.delete(&sessions(&server.application().await)).await.0, 200);
    asked.push((
        old.post(&path(&expiring.id, "heartbeat"), json!({})).await,
        "credential_revoked",
        "authenticate again",
    ));
    server.turn(2 * 3_600);
    asked.push((old.get("/api/v1/service-accounts").await, "token_expired", "Get another"));
    for ((status, body), code, todo) in asked {
        assert_eq!((status, body["code"].as_str()), (StatusCode::UNAUTHORIZED, Some(code)), "{body}");
        assert_eq!(body["message"], "Unauthorized", "clients compare it");
        assert!(body["detail"].as_str().unwrap().contains(todo), "{code}: {body}");
        assert_eq!(body["type"], format!("/problems#{code}"));
    }
}
