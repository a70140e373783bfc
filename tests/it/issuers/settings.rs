//! Whom an organization trusts.

use serde_json::{Value, json};
use sessiond_core::organization::Organization;

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

/// An organization beside the first, and who manages it: its id, and the caller.
async fn another(server: &Server, name: &str) -> (String, Holder) {
    let founded =
        server.running.as_ref().unwrap().house.directory.organizations.create(name, None).await.unwrap();
    let token = server.token_for(&founded.client_id, &founded.client_secret, "").await;
    (founded.organization.id.to_string(), server.holder(token))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_organization_takes_tokens_for_its_own_url_and_no_audience_that_others_could_name_too() {
    let provider = Provider::start().await;
    let server = trusting(&provider).await;
    let (id, other) = another(&server, "other").await;
    let put = async |audience: &str| {
        let mut issuer = provider.trusted();
        issuer["audience"] = json!(audience);
        other.put(ISSUERS, json!({ "issuers": [issuer] })).await
    };
    // What the first organization trusts is answered as what nobody trusts: nobody learns of it.
    let (status, taken) = put(AUDIENCE).await;
    assert_eq!((status.as_u16(), &taken["code"]), (403, &json!("audience_not_own")));
    assert_eq!(put("https://nobody.example").await, (status, taken));
    // The URLs of others are not one's own, the first organization's or nobody's.
    let gateway = server.url(&format!("/mcp/{}", server.application().await));
    assert_eq!(put(&gateway).await.0, 403);
    assert_eq!(put(&server.url("/mcp/44444444-4444-4444-8444-444444444444")).await.0, 403);
    let mut theirs = provider.trusted();
    let url = server.url(&format!("/api/v1/organizations/{id}"));
    theirs["audience"] = json!(url);
    let (status, body) = server.operator().await.put(ISSUERS, json!({ "issuers": [theirs] })).await;
    assert_eq!(
        (status.as_u16(), &body["code"]),
        (403, &json!("audience_not_own")),
        "nor the first takes another's"
    );
    // The own are.
    let made = other.post("/api/v1/applications", json!({ "name": "mine" })).await.1;
    let gateway = server.url(&format!("/mcp/{}", made["application"]["id"].as_str().unwrap()));
    assert_eq!(put(&gateway).await.0, 200);
    assert_eq!(put(&url).await.0, 200);
    trust(&server, json!([provider.trusted()])).await;
    let agent = provider.holder(&server, "ada").connect(json!({})).await;
    let mut claims = provider.claims(&server, "ada");
    claims["aud"] = json!(url);
    let stranger = server.holder(provider.sign(&provider.header(), &claims));
    assert_eq!(agent.call_as(&stranger, "heartbeat").await.0, 404);
    claims["aud"] = json!([url, AUDIENCE]);
    let unclear = provider.sign(&provider.header(), &claims);
    assert_eq!(opens(&server, &unclear).await, 401, "meant for both");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_audience_that_others_could_name_is_given_by_the_operator_and_then_to_one_organization_alone() {
    let provider = Provider::start().await;
    let mut server = Server::with(LOOPBACK).await;
    let (id, _) = another(&server, "other").await;
    let claim = format!("{id} {} {AUDIENCE}", provider.url);
    server.flags.extend(["--issuer-claim".to_owned(), claim]);
    let server = server.restart().await;
    let (_, third) = another(&server, "third").await;
    let issuers = json!({ "issuers": [provider.trusted()] });
    assert_eq!(third.put(ISSUERS, issuers.clone()).await.0, 403);
    assert_eq!(
        server.operator().await.put(ISSUERS, issuers).await.0,
        403,
        "it is another's by the operator's word"
    );
    let house = &server.running.as_ref().unwrap().house;
    let given = house.gate.known().stream_by_id::<Organization>(id.parse().unwrap()).unwrap().number;
    assert!(!given.is_operators());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_allowance_of_a_person_is_not_used_up_by_what_another_organization_takes_for_the_same() {
    let provider = Provider::start().await;
    let flags = [LOOPBACK, &["--rate-limit", "5"][..]].concat();
    let server = Server::with(&flags).await;
    trust(&server, json!([provider.trusted()])).await;
    let (id, other) = another(&server, "other").await;
    let url = server.url(&format!("/api/v1/organizations/{id}"));
    let mut issuer = provider.trusted();
    issuer["audience"] = json!(url);
    assert_eq!(other.put(ISSUERS, json!({ "issuers": [issuer] })).await.0, 200);
    // A token of the same issuer and subject, as the other organization takes it.
    let mut claims = provider.claims(&server, "victim");
    claims["aud"] = json!(url);
    let forged = server.holder(provider.sign(&provider.header(), &claims));
    let victim = provider.holder(&server, "victim");
    assert_eq!(victim.get("/api/v1/me/sessions").await.0, 200);
    assert_eq!(forged.get("/api/v1/me/sessions").await.0, 200);
    let mut limited = false;
    for _ in 0..60 {
        limited |= forged.get("/api/v1/me/sessions").await.0 == 429;
        if limited {
            break;
        }
    }
    assert!(limited, "there is a limit");
    assert_eq!(victim.get("/api/v1/me/sessions").await.0, 200);
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
