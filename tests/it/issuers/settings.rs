//! Whom an organization trusts.

use serde_json::{Value, json};

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_token_opens_only_while_its_issuer_is_trusted() {
    let provider = Provider::start().await;
    let server = Server::with(LOOPBACK).await;
    let token = provider.token(&server, "ada");
    assert_eq!(opens(&server, &token).await, 401);
    assert_eq!(provider.hits(), 0, "nobody asked an issuer that nobody trusts");
    trust(&server, json!([provider.trusted()])).await;
    let server = server.restart().await;
    assert_eq!(opens(&server, &token).await, 201);
    let (_, shown) = server.operator().await.get(ISSUERS).await;
    assert_eq!(shown, json!({ "issuers": [provider.trusted()] }));
    trust(&server, json!([])).await;
    assert_eq!(opens(&server, &token).await, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_field_is_checked_and_nobody_trusts_for_more_than_they_may() {
    let server = Server::with(LOOPBACK).await;
    let operator = server.operator().await;
    let application = server.application().await;
    let wrong: [(&str, Value); 14] = [
        ("issuer", json!("http://issuer.example")),
        ("issuer", json!("https://10.0.0.1")),
        ("issuer", json!("https://issuer.example/?tenant=1")),
        ("issuer", json!("issuer.example")),
        ("jwksUri", json!("http://issuer.example/keys")),
        ("jwksUri", json!("https://169.254.169.254/keys")),
        ("audience", json!("")),
        ("algorithms", json!([])),
        ("algorithms", json!(["none"])),
        ("algorithms", json!(["HS256"])),
        ("scopes", json!([])),
        ("scopes", json!(["openid"])),
        ("scopes", json!(["platform:admin"])),
        ("applicationId", json!("00000000-0000-4000-8000-000000000000")),
    ];
    let good = json!({
        "issuer": "https://issuer.example", "audience": "a", "algorithms": ["ES256"], "scopes": ["mcp:invoke"],
        "jwksUri": "https://issuer.example/keys", "applicationId": application,
    });
    for (field, value) in wrong {
        let mut issuer = good.clone();
        issuer[field] = value.clone();
        let (status, body) = operator.put(ISSUERS, json!({ "issuers": [issuer] })).await;
        assert_eq!((status.as_u16(), &body["field"]), (400, &json!(field)), "{value} {body}");
    }
    let (status, body) = operator.put(ISSUERS, json!({ "issuers": [good, good] })).await;
    assert_eq!((status.as_u16(), &body["field"]), (400, &json!("issuers")));
    assert_eq!(operator.put(ISSUERS, json!({ "issuers": [good] })).await.0, 200);
    let reader = server.holder(server.token("mcp:invoke").await);
    assert_eq!(reader.get(ISSUERS).await.0, 403);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pair_of_issuer_and_audience_is_one_organizations() {
    let provider = Provider::start().await;
    let server = trusting(&provider).await;
    let founded = server.running.as_ref().unwrap().house.directory.found("other", None).await.unwrap();
    let other = server.holder(server.token_for(&founded.client_id, &founded.client_secret, "").await);
    let (status, body) = other.put(ISSUERS, json!({ "issuers": [provider.trusted()] })).await;
    assert_eq!((status.as_u16(), &body["code"]), (409, &json!("issuer_taken")));
    let mut own = provider.trusted();
    own["audience"] = json!("https://own.example");
    assert_eq!(other.put(ISSUERS, json!({ "issuers": [own] })).await.0, 200);
    let agent = provider.holder(&server, "ada").connect(json!({})).await;
    let mut claims = provider.claims(&server, "ada");
    claims["aud"] = json!("https://own.example");
    let stranger = server.holder(provider.sign(&provider.header(), &claims));
    assert_eq!(agent.call_as(&stranger, "heartbeat").await.0, 404);
    claims["aud"] = json!(["https://own.example", AUDIENCE]);
    let unclear = provider.sign(&provider.header(), &claims);
    assert_eq!(opens(&server, &unclear).await, 401, "meant for both");
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_that_are_confined_act_in_one_application_only() {
    let provider = Provider::start().await;
    let server = trusting(&provider).await;
    let operator = server.operator().await;
    let (_, made) = operator.post("/api/v1/applications", json!({ "name": "second" })).await;
    let second = made["application"]["id"].as_str().unwrap();
    let ada = provider.holder(&server, "ada");
    let first = ada.connect(json!({ "applicationId": server.application().await })).await;
    let mut confined = provider.trusted();
    confined["applicationId"] = json!(second);
    trust(&server, json!([confined])).await;
    assert_eq!(first.call_as(&ada, "heartbeat").await.0, 404);
    assert_eq!(ada.connect(json!({})).await.application, second);
}
