//! Organizations, as whoever runs the installation founds and names them.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use sessiond::sessions::SessionQuery;
use sessiond_core::barring::BarOptions;

use crate::support::{Holder, Server};

const ORGANIZATIONS: &str = "/api/v1/organizations";

async fn platform(server: &Server) -> Holder {
    server.holder(server.token("platform:admin").await)
}

async fn found(server: &Server, platform: &Holder, name: &str) -> (Value, Holder) {
    let (status, made) = platform.post(ORGANIZATIONS, json!({ "name": name })).await;
    assert_eq!(status, 201, "{made}");
    let text = |field: &str| made["serviceAccount"][field].as_str().unwrap().to_owned();
    let token = server.token_for(&text("clientId"), &text("clientSecret"), "").await;
    (made, server.holder(token))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_organization_can_be_used_at_once_and_sees_only_itself() {
    let server = Server::start().await;
    let platform = platform(&server).await;
    let (made, owner) = found(&server, &platform, "acme").await;
    let (_, applications) = owner.get("/api/v1/applications").await;
    assert_eq!(applications["items"].as_array().unwrap().len(), 1);
    assert_eq!(applications["items"][0]["id"], made["application"]["id"]);
    let agent = owner.connect(json!({})).await;
    assert_eq!(server.operator().await.get(&agent.path()).await.0, 404);
    let (_, list) = platform.get(ORGANIZATIONS).await;
    let names: Vec<_> = list["items"].as_array().unwrap().iter().map(|one| &one["name"]).collect();
    assert_eq!(names, ["acme", "default"]);
    let (_, page) = platform.get(&format!("{ORGANIZATIONS}?limit=1")).await;
    let next = page["nextCursor"].as_str().unwrap();
    let (_, rest) = platform.get(&format!("{ORGANIZATIONS}?limit=1&cursor={next}")).await;
    assert_eq!((&rest["items"][0]["name"], rest.get("nextCursor")), (&json!("default"), None));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_runs_the_installation_sees_no_organizations_sessions_and_nobody_else_its_organizations() {
    let server = Server::start().await;
    let platform = platform(&server).await;
    let (made, owner) = found(&server, &platform, "acme").await;
    let agent = owner.connect(json!({})).await;
    for path in [agent.path(), "/api/v1/sessions".to_owned(), "/api/v1/applications".to_owned()] {
        assert_eq!(platform.get(&path).await.0, 403, "{path}");
    }
    assert_eq!(platform.post("/api/v1/agent-sessions", json!({})).await.0, 403);
    let one = format!("{ORGANIZATIONS}/{}", made["organization"]["id"].as_str().unwrap());
    for holder in [owner, server.operator().await, agent.holder] {
        for (method, path) in [
            (Method::GET, ORGANIZATIONS),
            (Method::POST, ORGANIZATIONS),
            (Method::GET, one.as_str()),
            (Method::PATCH, one.as_str()),
        ] {
            let response = holder.send(method.clone(), path, Some(&json!({ "name": "mine" }))).await;
            assert_eq!(response.status(), 403, "{method} {path}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_organization_that_has_a_name_already_is_not_renamed_again() {
    let server = Server::start().await;
    let admin = platform(&server).await;
    let (made, _) = found(&server, &admin, "acme").await;
    let path = format!("{ORGANIZATIONS}/{}", made["organization"]["id"].as_str().unwrap());
    for _ in 0..2 {
        let (status, body) = admin.patch(&path, json!({ "name": "umbrella" })).await;
        assert_eq!((status, &body["organization"]["name"]), (StatusCode::OK, &json!("umbrella")));
    }
    let server = server.restart().await;
    let admin = platform(&server).await;
    assert_eq!(admin.get(&path).await.1["organization"]["name"], "umbrella");
    assert_eq!(admin.patch(&path, json!({ "name": "umbrella" })).await.0, 200);
    let renamed = server.log().await.iter().filter(|(name, _)| name == "organization_renamed").count();
    assert_eq!(renamed, 1, "twice the same name is one event, also after a restart");
    assert_eq!(admin.patch(&path, json!({ "name": "" })).await.0, 400);
    let unknown = format!("{ORGANIZATIONS}/44444444-4444-4444-8444-444444444444");
    assert_eq!(admin.patch(&unknown, json!({ "name": "x" })).await.0, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_runs_the_installation_may_let_others_do_so() {
    let server = Server::start().await;
    let token = server.token("platform:admin management:all").await;
    let admin = server.holder(token);
    let body = json!({ "name": "deputy", "scopes": ["platform:admin"] });
    let (status, key) = admin.post("/api/v1/api-keys", body).await;
    assert_eq!(status, 201, "{key}");
    assert_eq!(server.holder(key["key"].as_str().unwrap()).get(ORGANIZATIONS).await.0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_from_before_an_organization_was_revoked_stay_barred_after_a_restart() {
    let server = Server::start().await;
    let old = server.operator().await;
    old.connect(json!({})).await;
    let house = &server.running.as_ref().unwrap().house;
    let caller = house.auth.bearer(old.token.as_deref().unwrap()).await.unwrap();
    let revoked = house
        .sessions
        .revocations
        .revoke_matching(&caller, &SessionQuery::default(), BarOptions::default(), None, None)
        .await
        .unwrap();
    assert_eq!(revoked.disconnected, 1);
    assert!(server.log().await.iter().any(|(name, _)| name == "organization_credentials_barred"));
    assert_eq!(old.post("/api/v1/agent-sessions", json!({})).await.0, 401);
    let server = server.restart().await;
    let old = server.holder(old.token.unwrap());
    let (status, body) = old.post("/api/v1/agent-sessions", json!({})).await;
    assert_eq!((status, &body["code"]), (StatusCode::UNAUTHORIZED, &json!("credential_revoked")));
    assert_eq!(old.get("/api/v1/applications").await.0, 200, "managing goes on");
    server.operator().await.connect(json!({})).await;
}
