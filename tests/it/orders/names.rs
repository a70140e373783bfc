//! Names beside ids, for those who may know them, and who ended what and why.

use serde_json::{Value, json};

use super::{begin, session};
use crate::support::{Agent, Feed, Holder, Server};
use crate::webhooks::{Receiver, Taken, webhook_to};

/// A person's key, whom it acts for, and a session of that person.
struct Ada {
    key: Holder,
    principal: String,
    agent: Agent,
}

async fn ada(server: &Server, operator: &Holder, application: &str) -> Ada {
    let user = json!({ "id": "ada", "name": "Ada Lovelace", "email": "ada@example.com" });
    let body = json!({ "name": "ada's key", "scopes": ["mcp:invoke"], "user": user });
    let (status, made) = operator.post("/api/v1/api-keys", body).await;
    assert_eq!(status, 201, "{made}");
    let key = server.holder(made["key"].as_str().unwrap());
    let client = json!({ "name": "inspector" });
    let body = json!({ "applicationId": application, "hostname": "laptop", "clientInfo": client });
    let agent = key.connect(body).await;
    let principal = made["apiKey"]["user"]["principalId"].as_str().unwrap().to_owned();
    Ada { key, principal, agent }
}

/// Someone who reads sessions and nothing else.
async fn reader(server: &Server, operator: &Holder) -> Holder {
    let body = json!({ "name": "reader", "scopes": ["management:sessions:read"] });
    let (_, made) = operator.post("/api/v1/service-accounts", body).await;
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let (id, secret) = (text(&made["serviceAccount"]["clientId"]), text(&made["clientSecret"]));
    server.holder(server.token_for(&id, &secret, "").await)
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_may_read_principals_sees_names_everywhere_and_others_the_id_alone() {
    let (server, operator, application) = begin().await;
    let ada = ada(&server, &operator, &application).await;
    let reader = reader(&server, &operator).await;
    let whole = json!({ "id": ada.principal, "name": "Ada Lovelace", "email": "ada@example.com" });
    let bare = json!({ "id": ada.principal });
    let feed_path = format!("/api/v1/applications/{application}/sessions/events");
    for (holder, expected) in [(&operator, &whole), (&reader, &bare)] {
        let shown = session(holder, &ada.agent).await;
        assert_eq!((&shown["principal"], &shown["principalId"]), (expected, &json!(ada.principal)));
        assert_eq!((&shown["client"], &shown["hostname"]), (&json!("inspector"), &json!("laptop")));
        let (_, list) = holder.get("/api/v1/sessions").await;
        assert_eq!(&list["items"][0]["principal"], expected, "{list}");
        let (_, history) = holder.get(&format!("{}/history", ada.agent.path())).await;
        let connected = &history["items"][0];
        assert_eq!(&connected["principal"], expected, "{history}");
        assert_eq!((&connected["client"], &connected["hostname"]), (&json!("inspector"), &json!("laptop")));
        assert_eq!(connected["actor"]["name"], "ada's key", "{history}");
        let (_, events) = holder.get("/api/v1/events?types=connected").await;
        assert_eq!(&events["items"][0]["principal"], expected, "{events}");
        let mut feed = Feed::open(holder, &feed_path, Some(0)).await;
        let frame = feed.next_named("connected").await;
        assert_eq!(&frame.data["principal"], expected, "{}", frame.data);
    }
    let (_, mine) = ada.key.get("/api/v1/me/sessions").await;
    assert_eq!(mine["items"][0]["principal"], whole, "a person knows itself: {mine}");

    let (status, _) = operator.delete(&format!("/api/v1/principals/{}/personal", ada.principal)).await;
    assert_eq!(status, 200);
    let shown = session(&operator, &ada.agent).await;
    assert_eq!((&shown["principal"], &shown["client"]), (&bare, &Value::Null), "{shown}");
    let (_, history) = operator.get(&format!("{}/history", ada.agent.path())).await;
    assert_eq!(history["items"][0]["principal"], bare, "{history}");
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_revoked_a_session_is_said_wherever_its_end_is_shown() {
    let (server, operator, application) = begin().await;
    let ada = ada(&server, &operator, &application).await;
    let body = json!({ "filter": { "hostname": "laptop" }, "reason": "stolen\u{1b}[31m laptop" });
    let (status, done) = operator.post("/api/v1/revocations", body).await;
    assert_eq!(status, 201, "{done}");
    let actor = &done["revocation"]["actor"];
    let name = actor["name"].as_str().expect("a service account has a name");
    let by = json!({ "kind": "service_account", "id": actor["id"], "name": name });
    let why = format!(
        "Revoked by service account '{name}' with everything of host laptop: stolen\\u{{1b}}[31m laptop."
    );
    let check = |shown: &Value| {
        assert_eq!((&shown["endedBy"], &shown["endReason"]), (&by, &json!(why)), "{shown}");
    };
    let reader = reader(&server, &operator).await;
    for holder in [&operator, &reader] {
        check(&session(holder, &ada.agent).await);
        let own = format!("/api/v1/applications/{application}");
        for list in ["/api/v1/sessions", "/api/v1/agent-instances", &format!("{own}/sessions")] {
            let (status, list) = holder.get(&format!("{list}?status=disconnected")).await;
            assert_eq!(status, 200, "{list}");
            check(&list["items"][0]);
        }
        check(&holder.get(&format!("/api/v1/agent-instances/{}", ada.agent.id)).await.1["agentInstance"]);
        let mut feed = Feed::open(holder, &format!("{own}/sessions/events"), Some(0)).await;
        check(&feed.next_named("disconnected").await.data);
        let (_, history) = holder.get(&format!("{}/history", ada.agent.path())).await;
        check(&history["items"][0]);
        assert_eq!(history["items"][0]["actor"]["kind"], "system", "what was there stays as it was");
        let (_, events) = holder.get("/api/v1/events?types=disconnected").await;
        check(&events["items"][0]);
    }
    check(&ada.key.get("/api/v1/me/sessions?status=disconnected").await.1["items"][0]);
    check(&ada.key.get(&format!("/api/v1/me/sessions/{}", ada.agent.id)).await.1["session"]);
    let path = format!("/api/v1/agent-sessions/{}/events", ada.agent.id);
    let mut own = Feed::open(&ada.agent.holder, &path, Some(0)).await;
    check(&own.next_named("disconnected").await.data);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_is_told_names_beside_ids_and_who_ended_what() {
    let server = Server::with(&["--webhook-allow-loopback"]).await;
    let operator = server.operator().await;
    let receiver = Receiver::start().await;
    webhook_to(&operator, &receiver).await;
    let ada = ada(&server, &operator, &server.application().await).await;
    let body = json!({ "filter": { "hostname": "laptop" }, "reason": "stolen" });
    let (status, done) = operator.post("/api/v1/revocations", body).await;
    assert_eq!(status, 201, "{done}");
    let ended = |taken: &[Taken]| taken.iter().any(|taken| taken.event() == "disconnected");
    let taken = receiver.until_that("the end", ended).await;
    let told = |name: &str| {
        let taken = taken.iter().find(|taken| taken.event() == name).unwrap();
        taken.json()["data"].clone()
    };
    let whole = json!({ "id": ada.principal, "name": "Ada Lovelace", "email": "ada@example.com" });
    for name in ["connected", "disconnected"] {
        let data = told(name);
        assert_eq!((&data["principal"], &data["hostname"]), (&whole, &json!("laptop")), "{data}");
        assert_eq!(data["client"], "inspector", "{data}");
    }
    assert_eq!(told("connected")["actor"]["name"], "ada's key");
    let (actor, data) = (&done["revocation"]["actor"], told("disconnected"));
    assert_eq!(
        data["endedBy"],
        json!({ "kind": "service_account", "id": actor["id"], "name": actor["name"] }),
        "{data}"
    );
    let why = data["endReason"].as_str().unwrap();
    assert!(why.starts_with("Revoked by service account '") && why.ends_with(": stolen."), "{data}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_who_ended_a_session_is_named_to_those_who_may_know_and_a_schedule_by_its_name() {
    let (server, operator, application) = begin().await;
    let ada = ada(&server, &operator, &application).await;
    let path = format!("/api/v1/me/sessions/{}", ada.agent.id);
    assert_eq!(ada.key.delete(&path).await.0, 200);
    let shown = session(&operator, &ada.agent).await;
    assert_eq!(
        (&shown["endedBy"]["kind"], &shown["endedBy"]["name"]),
        (&json!("api_key"), &json!("ada's key"))
    );

    let another = ada.key.connect(json!({ "applicationId": application, "hostname": "desk" })).await;
    let at = (server.clock.now() + chrono::TimeDelta::seconds(60)).to_rfc3339();
    let body = json!({ "name": "tonight", "filter": { "hostname": "desk" }, "at": at });
    let (status, made) = operator.post("/api/v1/scheduled-revocations", body).await;
    assert_eq!(status, 201, "{made}");
    server.turn(61);
    server.until("its end", async || session(&operator, &another).await["status"] == "disconnected").await;
    let shown = session(&operator, &another).await;
    let by = json!({ "kind": "schedule", "id": made["scheduledRevocation"]["id"], "name": "tonight" });
    assert_eq!(shown["endedBy"], by, "{shown}");
    let why = "Revoked by scheduled revocation 'tonight' with everything of host desk.";
    assert_eq!(shown["endReason"], why);

    let silent = ada.key.connect(json!({ "applicationId": application })).await;
    server.turn(20 * 60);
    server.until("its end", async || session(&operator, &silent).await["status"] == "disconnected").await;
    let shown = session(&operator, &silent).await;
    assert_eq!(shown["endedBy"], json!({ "kind": "policy" }), "{shown}");
    assert!(shown["endReason"].as_str().unwrap().starts_with("It gave no sign of life after "), "{shown}");
}
