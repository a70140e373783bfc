//! Tokens: who gets one, for what, and what the others are told.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use reqwest::{RequestBuilder, StatusCode};
use serde_json::{Value, json};

use crate::support::{CLIENT_ID, CLIENT_SECRET, Server};

const GRANT: (&str, &str) = ("grant_type", "client_credentials");

fn asking(server: &Server) -> RequestBuilder {
    server.http.post(server.url("/oauth2/token"))
}

/// Status and body; every answer forbids keeping it and is JSON.
async fn answer(request: RequestBuilder) -> (StatusCode, Value) {
    let response = request.send().await.unwrap();
    let status = response.status();
    assert_eq!(response.headers()["cache-control"], "no-store");
    assert_eq!(response.headers()["content-type"], "application/json");
    let challenge =
        response.headers().get("www-authenticate").map(|value| value.to_str().unwrap().to_owned());
    let expected = (status == 401).then(|| "Basic realm=\"sessiond\"".to_owned());
    assert_eq!(challenge, expected);
    (status, response.json().await.unwrap())
}

fn basic(text: &str) -> String {
    format!("Basic {}", STANDARD.encode(text))
}

fn encoded(text: &str) -> String {
    url::form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_gets_a_token_with_basic_or_in_the_form() {
    let server = Server::start().await;
    let in_form = [GRANT, ("client_id", CLIENT_ID), ("client_secret", CLIENT_SECRET)];
    for request in [
        asking(&server).basic_auth(CLIENT_ID, Some(CLIENT_SECRET)).form(&[GRANT]),
        asking(&server).form(&in_form),
        asking(&server).basic_auth(CLIENT_ID, Some(CLIENT_SECRET)).form(&[GRANT, ("client_id", CLIENT_ID)]),
        asking(&server).basic_auth(CLIENT_ID, Some(CLIENT_SECRET)).form(&[
            GRANT,
            ("scope", ""),
            ("audience", ""),
        ]),
    ] {
        let (status, mut body) = answer(request).await;
        assert_eq!(status, 200, "{body}");
        let token = body["access_token"].take();
        let token = token.as_str().unwrap();
        assert!(token.starts_with("sat_"), "{token}");
        let rest = json!({
            "access_token": null, "token_type": "Bearer", "expires_in": 3_600, "scope": "management:all mcp:invoke platform:admin",
        });
        assert_eq!(body, rest);
        assert_eq!(server.holder(token).get("/api/v1/applications").await.0, 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_has_the_scopes_that_were_asked_for_and_lives_as_long_as_it_says() {
    let server = Server::with(&["--token-lifetime", "10m"]).await;
    let form = [GRANT, ("scope", "mcp:invoke")];
    let (_, body) = answer(asking(&server).basic_auth(CLIENT_ID, Some(CLIENT_SECRET)).form(&form)).await;
    assert_eq!((&body["scope"], &body["expires_in"]), (&json!("mcp:invoke"), &json!(600)));
    let holder = server.holder(body["access_token"].as_str().unwrap());
    assert_eq!(holder.get("/api/v1/applications").await.0, 403);
    server.turn(599);
    assert_eq!(holder.get("/api/v1/applications").await.0, 403);
    server.turn(1);
    assert_eq!(holder.get("/api/v1/applications").await.0, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_not_the_client_is_told_no_more_than_that() {
    let server = Server::start().await;
    let operator = server.operator().await;
    let public = json!({ "name": "public", "oauth": { "type": "public", "redirectUris": [] } });
    let (_, public) = operator.post("/api/v1/applications", public).await;
    let public = public["oauth"]["clientId"].as_str().unwrap();
    let failed = json!({ "error": "invalid_client", "error_description": "Client authentication failed" });
    for (name, request) in [
        ("nobody", asking(&server).form(&[GRANT])),
        ("unknown client", asking(&server).basic_auth("nobody", Some(CLIENT_SECRET)).form(&[GRANT])),
        ("wrong secret", asking(&server).basic_auth(CLIENT_ID, Some("wrong")).form(&[GRANT])),
        ("no secret", asking(&server).basic_auth(CLIENT_ID, None::<&str>).form(&[GRANT])),
        ("public client", asking(&server).basic_auth(public, None::<&str>).form(&[GRANT])),
        ("only an id", asking(&server).form(&[GRANT, ("client_id", CLIENT_ID)])),
        ("not basic", asking(&server).header("authorization", "Bearer x").form(&[GRANT])),
        ("no base64", asking(&server).header("authorization", "Basic ***").form(&[GRANT])),
        ("no colon", asking(&server).header("authorization", basic("operator")).form(&[GRANT])),
    ] {
        assert_eq!(answer(request).await, (StatusCode::UNAUTHORIZED, failed.clone()), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_a_request_is_said_in_oauths_words() {
    let server = Server::start().await;
    let client = || asking(&server).basic_auth(CLIENT_ID, Some(CLIENT_SECRET));
    let secret = ("client_secret", CLIENT_SECRET);
    let plain = "grant_type=client_credentials";
    for (name, request, error) in [
        ("no grant", client().form(&[("scope", "mcp:invoke")]), "invalid_request"),
        ("empty grant", client().form(&[("grant_type", "")]), "invalid_request"),
        ("other grant", client().form(&[("grant_type", "password")]), "unsupported_grant_type"),
        ("no body", client(), "invalid_request"),
        ("json", client().json(&json!({ "grant_type": "client_credentials" })), "invalid_request"),
        ("no media type", client().body(plain), "invalid_request"),
        ("twice", client().form(&[GRANT, GRANT]), "invalid_request"),
        ("authenticated twice", client().form(&[GRANT, secret]), "invalid_request"),
        ("two clients", client().form(&[GRANT, ("client_id", "another")]), "invalid_request"),
        ("unknown scope", client().form(&[GRANT, ("scope", "everything")]), "invalid_scope"),
        ("too wide a scope", client().form(&[GRANT, ("scope", "management:sessions:read")]), "invalid_scope"),
        (
            "foreign audience",
            client().form(&[GRANT, ("audience", "https://other.example/api/v1")]),
            "invalid_target",
        ),
        (
            "no place of ours",
            client().form(&[GRANT, ("resource", &server.url("/elsewhere"))]),
            "invalid_target",
        ),
        ("no application", client().form(&[GRANT, ("resource", &server.url("/mcp/one"))]), "invalid_target"),
        (
            "foreign resource",
            client().form(&[GRANT, ("resource", "https://other.example/mcp")]),
            "invalid_target",
        ),
    ] {
        let (status, body) = answer(request).await;
        assert_eq!(
            (status, body["error"].as_str()),
            (StatusCode::BAD_REQUEST, Some(error)),
            "{name}: {body}"
        );
        assert!(body["error_description"].as_str().unwrap().len() > 10, "{name}: {body}");
        assert_eq!(body.as_object().unwrap().len(), 2, "{name}: {body}");
    }
    let large = client().header("content-type", "application/x-www-form-urlencoded").body("x".repeat(70_000));
    assert_eq!(answer(large).await.0, 413);
    let charset = "Application/x-www-form-urlencoded; charset=UTF-8";
    assert_eq!(answer(client().header("content-type", charset).body(plain)).await.0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_and_the_gateway_are_the_audiences_there_are() {
    let server = Server::start().await;
    let application = server.application().await;
    let targets =
        ["", "/", "/api/v1", "/api/v1/", "/mcp", &format!("/mcp/{application}")].map(|path| server.url(path));
    for name in ["audience", "resource"] {
        for target in targets.iter().map(String::as_str).chain(["mcp-gateway"]) {
            let form = [GRANT, (name, target)];
            let request = asking(&server).basic_auth(CLIENT_ID, Some(CLIENT_SECRET)).form(&form);
            assert_eq!(answer(request).await.0, 200, "{name}={target}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ids_and_secrets_in_basic_may_be_encoded_or_as_they_are() {
    let secret = "sign+s & per%cents=that:mean something";
    let server =
        Server::with(&["--bootstrap-client-id", "cli+ent/1", "--bootstrap-client-secret", secret]).await;
    let as_they_are = basic(&format!("cli+ent/1:{secret}"));
    let both_encoded = basic(&format!("{}:{}", encoded("cli+ent/1"), encoded(secret)));
    for header in [as_they_are, both_encoded] {
        let (status, body) = answer(asking(&server).header("authorization", header).form(&[GRANT])).await;
        assert_eq!(status, 200, "{body}");
    }
    let form = [GRANT, ("client_id", "cli+ent/1"), ("client_secret", secret)];
    assert_eq!(answer(asking(&server).form(&form)).await.0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_can_learn_where_tokens_are_to_be_had() {
    let server = Server::start().await;
    let stranger = server.stranger();
    let metadata = |issuer: String| {
        json!({
            "issuer": issuer,
            // The SDKs of MCP clients read no document without it.
            "authorization_endpoint": server.url("/oauth2/authorize"),
            "token_endpoint": server.url("/oauth2/token"),
            "grant_types_supported": ["client_credentials"],
            "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post"],
            "scopes_supported": [
                "management:all", "management:sessions:read", "management:sessions:write", "mcp:invoke",
                "platform:admin",
            ],
            "introspection_endpoint": server.url("/oauth2/introspect"),
            "introspection_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post", "Bearer"],
            "revocation_endpoint": server.url("/oauth2/revoke"),
            "revocation_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post"],
            "response_types_supported": [],
        })
    };
    for path in ["", "/mcp", "/mcp/44444444-4444-4444-8444-444444444444"] {
        let answer = stranger.get(&format!("/.well-known/oauth-authorization-server{path}")).await;
        assert_eq!(answer, (StatusCode::OK, metadata(server.url(path))), "{path:?}");
    }
}
