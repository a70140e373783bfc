//! Clients that get in by themselves: each official SDK with its own provider of client credentials, and Kontext's.

use serde_json::{Value, json};

use super::House;
use super::external::{ExternalProcess, Sdk, kontext, sign_in};
use crate::support::{CLIENT_ID, CLIENT_SECRET};

/// Each official SDK whose provider gets in with client credentials.
const SDKS: [Sdk; 5] = [Sdk::Python1, Sdk::Python2, Sdk::TypeScript1, Sdk::TypeScript2, Sdk::Rust];

/// An SDK that finds out where to get a token may take its time between two requests, on a machine with other things to do.
const PATIENT: &[&str] = &["--head-timeout", "60s"];

#[tokio::test]
async fn every_sdk_gets_in_with_its_own_provider_and_nothing_but_the_gateways_url() {
    let upstream = ExternalProcess::python(0).await;
    let house = House::before(&upstream.url, PATIENT).await;
    let url = house.server.url(&house.path());
    // With a slash at the end, and by the machine's other name, it is the same gateway.
    let local = url.replace("127.0.0.1", "localhost");
    for sdk in SDKS {
        for url in [&url, &format!("{url}/"), &local] {
            let shown = sign_in(sdk, &[url, CLIENT_ID, CLIENT_SECRET]).await;
            let tools = shown.unwrap_or_else(|said| panic!("{sdk:?} at {url}: {said}"));
            assert!(tools.as_array().unwrap().contains(&json!("echo")), "{sdk:?} at {url}: {tools}");
        }
        let refused = sign_in(sdk, &[&url, CLIENT_ID, "another secret of thirty-two characters"]).await;
        assert!(refused.is_err(), "{sdk:?}: {refused:?}");
    }
}

#[tokio::test]
async fn a_provider_that_insists_on_its_issuer_finds_it_under_each_name_of_ours() {
    let upstream = ExternalProcess::python(0).await;
    let house = House::before(&upstream.url, PATIENT).await;
    let url = house.server.url(&house.path());
    for (base, url) in [
        (house.server.url(""), url.clone()),
        (house.server.url("").replace("127.0.0.1", "localhost"), url.replace("127.0.0.1", "localhost")),
    ] {
        // rmcp's takes no issuer to insist on.
        for sdk in SDKS.into_iter().filter(|sdk| *sdk != Sdk::Rust) {
            let shown = sign_in(sdk, &[&url, CLIENT_ID, CLIENT_SECRET, &base]).await;
            assert!(shown.is_ok(), "{sdk:?} at {url}: {shown:?}");
        }
    }
}

#[tokio::test]
async fn people_who_come_to_sign_in_are_told_that_they_cannot_yet_and_are_sent_nowhere() {
    let (house, _upstream) = House::with_fake(&[]).await;
    let place = "/.well-known/oauth-authorization-server";
    let (_, metadata) = house.server.stranger().get(place).await;
    let endpoint = metadata["authorization_endpoint"].as_str().unwrap();
    assert_eq!(metadata["response_types_supported"], json!([]), "nobody is promised a code");
    assert_eq!(metadata["grant_types_supported"], json!(["client_credentials"]));
    let asked = [("response_type", "code"), ("client_id", "x"), ("redirect_uri", "https://evil.example/")];
    let answer = house.server.http.get(endpoint).query(&asked).send().await.unwrap();
    assert_eq!(answer.status(), 403);
    assert!(answer.headers().get("location").is_none());
    let said: Value = answer.json().await.unwrap();
    assert_eq!(said["code"], "sign_in_not_available");
    assert!(
        said["detail"].as_str().or(said["message"].as_str()).unwrap().contains("cannot sign in"),
        "{said}"
    );
}

#[tokio::test]
async fn kontexts_published_rust_client_lives_its_management_life_and_its_mcp_life() {
    let upstream = ExternalProcess::python(0).await;
    let house = House::before(&upstream.url, PATIENT).await;
    let passed = kontext(&house, CLIENT_ID, CLIENT_SECRET).await;
    let steps = passed.unwrap_or_else(|said| panic!("{said}"));
    assert!(steps.lines().count() > 25, "{steps}");
    assert!(steps.contains("agent_sessions.revoke_for_application"), "{steps}");
}
