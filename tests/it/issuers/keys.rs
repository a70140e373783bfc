//! Where keys come from: as rarely as may be, and from nowhere else.

use serde_json::json;

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_key_is_found_by_discovery_and_fetched_once() {
    for (pair, algorithm) in
        [(Pair::rsa(), "RS256"), (Pair::rsa(), "PS256"), (Pair::ec(), "ES256"), (Pair::ed(), "EdDSA")]
    {
        let provider = Provider::with(pair).await;
        let server = Server::with(LOOPBACK).await;
        let mut trusted = provider.trusted();
        trusted["algorithms"] = json!([algorithm]);
        trust(&server, json!([trusted])).await;
        let header = json!({ "alg": algorithm, "typ": "at+jwt", "kid": "one" });
        let token = provider.sign(&header, &provider.claims(&server, "ada"));
        let all = futures_util::future::join_all((0..8).map(|_| opens(&server, &token))).await;
        assert!(all.iter().all(|status| *status == 201), "{algorithm}: {all:?}");
        assert_eq!(provider.hits(), 3, "{algorithm}: two places for metadata, and the keys");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_key_makes_us_ask_at_most_once_in_thirty_seconds_and_rotation_is_noticed() {
    let provider = Provider::start().await;
    let server = Server::with(LOOPBACK).await;
    let mut trusted = provider.trusted();
    trusted["jwksUri"] = json!(format!("{}/keys", provider.url));
    trust(&server, json!([trusted])).await;
    let old = provider.token(&server, "ada");
    assert_eq!(opens(&server, &old).await, 201);
    assert_eq!(provider.hits(), 1);
    let header = json!({ "alg": "ES256", "typ": "at+jwt", "kid": "two" });
    let new = provider.sign(&header, &provider.claims(&server, "ada"));
    for _ in 0..5 {
        assert_eq!(opens(&server, &new).await, 401);
    }
    assert_eq!(provider.hits(), 1, "it was asked a moment ago");
    *provider.published.keys.lock() = json!([provider.pair.jwk("two")]);
    server.turn(31);
    assert_eq!(opens(&server, &new).await, 201);
    assert_eq!(opens(&server, &old).await, 401, "its key is gone");
    assert_eq!(provider.hits(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_kept_for_a_day_while_the_issuer_is_away() {
    let provider = Provider::start().await;
    let server = trusting(&provider).await;
    assert_eq!(opens(&server, &provider.token(&server, "ada")).await, 201);
    *provider.published.instead.lock() = Some((StatusCode::BAD_GATEWAY, String::new()));
    for _ in 0..3 {
        server.turn(7 * 3_600);
        assert_eq!(opens(&server, &provider.token(&server, "ada")).await, 201);
    }
    server.turn(7 * 3_600);
    assert_eq!(opens(&server, &provider.token(&server, "ada")).await, 401);
    *provider.published.instead.lock() = None;
    server.turn(31);
    assert_eq!(opens(&server, &provider.token(&server, "ada")).await, 201);
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_are_too_large_or_elsewhere_or_nonsense_are_none() {
    let provider = Provider::start().await;
    let server = trusting(&provider).await;
    let keys = json!({ "keys": [provider.pair.jwk("one")], "x": "x".repeat(256 << 10) }).to_string();
    let answers = [
        (StatusCode::OK, keys),
        (StatusCode::FOUND, format!("{}/elsewhere", provider.url)),
        (StatusCode::OK, "no JSON".to_owned()),
        (StatusCode::OK, json!({ "keys": [{ "kty": "oct", "kid": "one", "k": "AAAA" }] }).to_string()),
    ];
    for answer in answers {
        *provider.published.instead.lock() = Some(answer);
        server.turn(31);
        assert_eq!(opens(&server, &provider.token(&server, "ada")).await, 401);
    }
    *provider.published.instead.lock() = None;
    server.turn(31);
    assert_eq!(opens(&server, &provider.token(&server, "ada")).await, 201);
}
