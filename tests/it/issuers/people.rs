//! Whom a token makes its holder, and what bars it.

use serde_json::json;

use super::*;
use crate::mcp::House;

const MINE: &str = "/api/v1/me/sessions";

#[tokio::test(flavor = "multi_thread")]
async fn the_same_subject_of_two_issuers_is_two_principals() {
    let (first, second) = (Provider::start().await, Provider::start().await);
    let server = Server::with(LOOPBACK).await;
    trust(&server, json!([first.trusted(), second.trusted()])).await;
    let (one, other) = (first.holder(&server, "ada"), second.holder(&server, "ada"));
    let agent = one.connect(json!({ "authenticatedUserId": "somebody else" })).await;
    assert_eq!(agent.call_as(&one, "heartbeat").await.0, 200);
    assert_eq!(agent.call_as(&other, "heartbeat").await.0, 404);
    assert_eq!(agent.call_as(&other, "disconnect").await.0, 404);
    let path = format!("{MINE}/{}", agent.id);
    assert_eq!(one.get(&path).await.0, 200);
    assert_eq!(other.get(&path).await.0, 404);
    assert_eq!(other.delete(&path).await.0, 404);
    assert_eq!(other.get(MINE).await.1["items"], json!([]));
    let operator = server.operator().await;
    let (_, people) = operator.get("/api/v1/principals?subject=ada").await;
    let issuers: Vec<_> = people["items"].as_array().unwrap().iter().map(|one| &one["issuer"]).collect();
    assert_eq!(issuers, [&json!(first.url), &json!(second.url)]);
    assert_eq!(people["items"][0]["openSessions"], 1);
    assert_eq!(one.get("/api/v1/applications").await.0, 403, "its own scope is not enough");
}

#[tokio::test(flavor = "multi_thread")]
async fn revoking_a_principal_or_an_application_bars_its_tokens_and_a_fresh_one_is_welcome_also_after_a_restart()
 {
    let provider = Provider::start().await;
    let mut server = trusting(&provider).await;
    let application = server.application().await;
    let mut later = 0;
    let operator = server.operator().await;
    let ada = provider.holder(&server, "ada");
    let agent = ada.connect(json!({})).await;
    let (_, people) = operator.get("/api/v1/principals?subject=ada").await;
    let principal = people["items"][0]["id"].as_str().unwrap().to_owned();
    for filter in [json!({ "principal": principal }), json!({ "applicationId": application })] {
        let before = provider.token(&server, "ada");
        assert!(opens(&server, &before).await.is_success());
        let operator = server.operator().await;
        let (status, body) = operator.post("/api/v1/revocations", json!({ "filter": filter })).await;
        assert!(status.is_success(), "{body}");
        assert_eq!(opens(&server, &before).await, 401);
        let began: chrono::DateTime<chrono::Utc> =
            body["revocation"]["beganAt"].as_str().unwrap().parse().unwrap();
        let mut claims = provider.claims(&server, "ada");
        claims["iat"] = json!(began.timestamp());
        let same = provider.sign(&provider.header(), &claims);
        assert_eq!(opens(&server, &same).await, 401, "issued in the same second");
        later += 10;
        server = server.restart_after(later).await;
        assert_eq!(opens(&server, &before).await, 401);
        assert_eq!(opens(&server, &provider.token(&server, "ada")).await, 201);
    }
    let ada = provider.holder(&server, "ada");
    assert_eq!(agent.call_as(&ada, "heartbeat").await.0, 410);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_says_which_client_it_was_issued_to_and_one_that_says_it_oddly_is_of_none() {
    let provider = Provider::start().await;
    let server = trusting(&provider).await;
    let house = &server.running.as_ref().unwrap().house;
    let auth = &house.auth;
    let mut anchors = std::collections::BTreeMap::new();
    for (said, client) in [
        (json!({ "client_id": "desk", "azp": "other" }), Some("desk")),
        (json!({ "azp": "desk" }), Some("desk")),
        (json!({ "client_id": "", "azp": "desk" }), Some("desk")),
        (json!({ "client_id": 7, "azp": ["desk"] }), None),
        (json!({}), None),
    ] {
        let mut claims = provider.claims(&server, "ada");
        claims.as_object_mut().unwrap().remove("client_id");
        claims.as_object_mut().unwrap().extend(said.as_object().unwrap().clone());
        let caller = auth.bearer(&provider.sign(&provider.header(), &claims)).await.unwrap();
        assert_eq!(caller.client(), client, "{said}");
        // A session that is found by its anchor is found by the same client only.
        let anchor = house.sessions.gateway.anchor(&caller, &["same"]);
        assert_eq!(anchors.entry(client).or_insert_with(|| anchor.clone()), &anchor);
    }
    let different: std::collections::BTreeSet<_> = anchors.values().collect();
    assert_eq!((anchors.len(), different.len()), (2, 2));
    let own = auth.bearer(&server.token("mcp:invoke").await).await.unwrap();
    assert_eq!(own.client(), Some(crate::support::CLIENT_ID));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fresh_token_renews_its_own_session_and_a_disabled_principal_has_nothing() {
    let provider = Provider::start().await;
    let server = trusting(&provider).await;
    let agent = provider.holder(&server, "ada").connect(json!({})).await;
    server.turn(590);
    let fresh = provider.holder(&server, "ada");
    assert_eq!(agent.call_as(&fresh, "heartbeat").await.0, 200);
    server.turn(300);
    assert_eq!(agent.call_as(&fresh, "heartbeat").await.0, 200, "renewed beyond the first token");
    let operator = server.operator().await;
    let (_, people) = operator.get("/api/v1/principals?subject=ada").await;
    let path = format!("/api/v1/principals/{}/disable", people["items"][0]["id"].as_str().unwrap());
    assert_eq!(operator.post(&path, json!({})).await.0, 200);
    server.turn(2);
    let (status, body) = provider.holder(&server, "ada").post(SESSIONS, json!({})).await;
    assert_eq!((status.as_u16(), &body["code"]), (403, &json!("principal_disabled")));
    // Final for every MCP client: no challenge, which would have it authenticate again and again.
    let barred = provider.holder(&server, "ada");
    let path = format!("/mcp/{}", server.application().await);
    let initialize = json!({ "jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {} });
    let answer = barred.send(reqwest::Method::POST, &path, Some(&initialize)).await;
    assert_eq!(answer.status().as_u16(), 403);
    assert!(!answer.headers().contains_key("www-authenticate"));
    assert!(answer.text().await.unwrap().contains("disabled"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_of_the_organization_learns_what_a_token_is_worth() {
    let provider = Provider::start().await;
    let server = trusting(&provider).await;
    let token = provider.token(&server, "ada");
    let ask = async |server: &Server| -> Value {
        let request = server.http.post(server.url("/oauth2/introspect"));
        let request = request.basic_auth(crate::support::CLIENT_ID, Some(crate::support::CLIENT_SECRET));
        request.form(&[("token", &token)]).send().await.unwrap().json().await.unwrap()
    };
    let told = ask(&server).await;
    assert_eq!((&told["active"], &told["sub"]), (&json!(true), &json!("ada")));
    assert_eq!((&told["iss"], &told["scope"]), (&json!(provider.url), &json!("mcp:invoke")));
    assert!(told["exp"].is_i64());
    server.turn(700);
    assert_eq!(ask(&server).await, json!({ "active": false }));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_mcp_session_goes_on_with_a_refreshed_token_and_not_with_anothers() {
    let provider = Provider::start().await;
    let (house, _upstream) = House::with_fake(LOOPBACK).await;
    trust(&house.server, json!([provider.trusted()])).await;
    let mut client = house.client(&provider.token(&house.server, "ada"));
    client.initialize().await;
    house.server.turn(620);
    client.token = provider.token(&house.server, "ada");
    assert_eq!(client.call("echo").await.0, 200);
    client.token = provider.token(&house.server, "bob");
    assert_eq!(client.call("echo").await.0, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bar_takes_a_stolen_token_and_one_that_is_refreshed_is_kept_out_by_disabling_alone() {
    let provider = Provider::start().await;
    let server = trusting(&provider).await;
    let operator = server.operator().await;
    let ada = provider.holder(&server, "ada");
    let stolen = provider.token(&server, "ada");
    for bar in [false, true] {
        ada.connect(json!({ "hostname": "laptop" })).await;
        let body = json!({ "filter": { "hostname": "laptop" }, "bar": bar });
        let (status, done) = operator.post("/api/v1/revocations", body).await;
        assert_eq!(status, 201, "{done}");
        let words = done["revocation"]["credentials"]["mayComeBack"].to_string();
        assert!(words.contains("JWTs that an issuer refreshes"), "{words}");
        assert_eq!(words.contains("bar: true"), !bar, "{words}");
        assert_eq!(opens(&server, &stolen).await.is_success(), !bar);
    }
    server.turn(5);
    let refreshed = provider.token(&server, "ada");
    assert!(opens(&server, &refreshed).await.is_success(), "as the answer said");
    let operator = server.operator().await;
    let (_, people) = operator.get("/api/v1/principals?subject=ada").await;
    let path = format!("/api/v1/principals/{}", people["items"][0]["id"].as_str().unwrap());
    assert_eq!(operator.post(&format!("{path}/disable"), json!({})).await.0, 200);
    server.turn(5);
    for token in [&refreshed, &provider.token(&server, "ada")] {
        assert!(opens(&server, token).await.is_client_error());
    }
    assert_eq!(operator.post(&format!("{path}/enable"), json!({})).await.0, 200);
    assert!(opens(&server, &refreshed).await.is_client_error(), "it is from before");
    assert!(opens(&server, &provider.token(&server, "ada")).await.is_success());
}
