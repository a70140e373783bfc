//! Who is let in, and in which order others are turned away.

use std::time::Duration;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::{Client, House, NOT_FOUND, call, not_found, refused};
use crate::support::Daemon;

#[tokio::test]
async fn anothers_session_cannot_be_told_from_one_that_never_was() {
    let (house, upstream) = House::with_fake(&[]).await;
    let client = house.connect().await;
    let thief = Client { token: house.token_of_another().await, ..client.clone() };
    let mut made_up = thief.clone();
    made_up.session = Some(format!("smc_{}_{}", "0".repeat(32), "A".repeat(43)));
    let mut guessed = thief.clone();
    let genuine = client.session.clone().unwrap();
    guessed.session = Some(format!("{}{}", &genuine[..genuine.len() - 43], "A".repeat(43)));
    let before = upstream.sent().len();
    for method in [Method::GET, Method::POST, Method::DELETE] {
        for knocking in [&thief, &made_up, &guessed] {
            let answer = knocking.request(method.clone()).json(&call(json!(1), "echo")).send().await.unwrap();
            assert_eq!(refused(answer).await, (StatusCode::NOT_FOUND, NOT_FOUND.to_owned()), "{method}");
        }
    }
    assert_eq!(upstream.sent().len(), before);
    // The owner with the wrong secret is no better off; with a fresh token it goes on.
    guessed.token = client.token.clone();
    assert_eq!(refused(guessed.listen().await).await, (StatusCode::NOT_FOUND, NOT_FOUND.to_owned()));
    let fresh = Client { token: house.token().await, ..client.clone() };
    assert_eq!(fresh.call("echo").await.0, StatusCode::OK);
    client.request(Method::DELETE).send().await.unwrap();
    assert_eq!(refused(thief.listen().await).await, (StatusCode::NOT_FOUND, NOT_FOUND.to_owned()));
    assert_eq!(refused(client.listen().await).await, (StatusCode::NOT_FOUND, not_found("client")));
}

#[tokio::test]
async fn requests_are_refused_in_the_order_of_the_house() {
    let (house, _upstream) = House::with_fake(&[]).await;
    let client = house.connect().await;
    let none = client.http.post(&client.url).json(&call(json!(1), "echo")).send().await.unwrap();
    assert_eq!(none.status(), StatusCode::UNAUTHORIZED);
    let metadata = house.server.url(&format!("/.well-known/oauth-protected-resource{}", house.path()));
    let challenge = none.headers()["www-authenticate"].to_str().unwrap();
    assert_eq!(challenge, format!("Bearer resource_metadata=\"{metadata}\", scope=\"mcp:invoke\""));
    let document: Value = client.http.get(&metadata).send().await.unwrap().json().await.unwrap();
    assert_eq!(document["resource"], json!(client.url));
    assert_eq!(document["authorization_servers"], json!([house.server.url("")]));

    let wrong = Client { token: "sat_nothing".to_owned(), ..client.clone() };
    let wrong = wrong.listen().await;
    assert_eq!(wrong.status(), StatusCode::UNAUTHORIZED);
    assert!(wrong.headers()["www-authenticate"].to_str().unwrap().contains("error=\"invalid_token\""));

    let manager = Client { token: house.server.token("management:all").await, ..client.clone() };
    let forbidden = manager.listen().await;
    assert!(
        forbidden.headers()["www-authenticate"].to_str().unwrap().contains("error=\"insufficient_scope\"")
    );
    assert_eq!(forbidden.status(), StatusCode::FORBIDDEN);

    let elsewhere =
        Client { url: house.server.url(&format!("/mcp/{}", uuid::Uuid::nil())), ..client.clone() };
    assert_eq!(elsewhere.listen().await.status(), StatusCode::NOT_FOUND);
    // Without an id, the one that the credential is bound to.
    let bound = Client { url: house.server.url("/mcp"), ..client.clone() };
    assert_eq!(bound.call("echo").await.0, StatusCode::OK);
    let unbound = Client { token: house.token_of_another().await, ..bound };
    let (status, body) = refused(unbound.listen().await).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert!(body.contains("bound to no application"), "{body}");

    let nameless = Client { session: None, ..client.clone() };
    for answer in [nameless.begin(json!(1), "echo").await, nameless.listen().await] {
        let (status, body) = refused(answer).await;
        assert_eq!(status, StatusCode::BAD_REQUEST);
        assert!(
            body.contains(r#""code":-32000,"message":"Bad Request: Mcp-Session-Id header is required""#),
            "{body}"
        );
    }
    let put = client.request(Method::PUT).send().await.unwrap();
    assert_eq!(put.status(), StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(put.headers()["allow"], "GET, POST, DELETE, OPTIONS");
    let version =
        client.http.get(&client.url).bearer_auth(&client.token).header("accept", "text/event-stream");
    let version = version.header("mcp-protocol-version", "1999-01-01").send().await.unwrap();
    assert_eq!(version.status(), StatusCode::BAD_REQUEST);
    let json_only =
        client.http.post(&client.url).bearer_auth(&client.token).header("accept", "application/json");
    let json_only = json_only.json(&call(json!(1), "echo")).send().await.unwrap();
    assert_eq!(json_only.status(), StatusCode::NOT_ACCEPTABLE);
    let plain =
        client.request(Method::POST).header("content-type", "text/plain").body("{}").send().await.unwrap();
    assert_eq!(plain.status(), StatusCode::UNSUPPORTED_MEDIA_TYPE);
}

#[tokio::test]
async fn an_application_without_upstream_says_what_to_do() {
    let (house, _upstream) = House::with_fake(&[]).await;
    let (status, body) = house
        .operator
        .post("/api/v1/applications", json!({ "name": "bare", "oauth": { "type": "confidential" } }))
        .await;
    assert!(status.is_success(), "{body}");
    let id = body["application"]["id"].as_str().unwrap();
    let (client_id, secret) =
        (body["oauth"]["clientId"].as_str().unwrap(), body["oauth"]["clientSecret"].as_str().unwrap());
    let token = house.server.token_for(client_id, secret, "mcp:invoke").await;
    // Its own token is enough at /mcp.
    let client = Client { url: house.server.url("/mcp"), ..house.client(&token) };
    let (status, body) = refused(client.try_initialize().await).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert!(body.contains(&format!("PUT /api/v1/applications/{id}/upstream")), "{body}");
    // And for another application's gateway it is worth nothing.
    assert_eq!(house.client(&token).try_initialize().await.status(), StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn strange_hosts_and_origins_are_turned_away_first() {
    let (house, upstream) = House::with_fake(&["--allow-origin", "https://app.example"]).await;
    let client = house.connect().await;
    let before = upstream.sent().len();
    let ask = |name: &'static str, value: String| {
        let request = client.request(Method::POST).header(name, value).json(&call(json!(1), "echo"));
        async move { request.send().await.unwrap() }
    };
    for host in ["evil.example", "evil.example:80", "127.0.0.1.evil.example"] {
        assert_eq!(ask("host", host.to_owned()).await.status(), StatusCode::FORBIDDEN, "{host}");
    }
    for origin in
        ["https://evil.example", "null", "http://localhost:1", "http://127.0.0.1", "https://app.example.evil"]
    {
        assert_eq!(ask("origin", origin.to_owned()).await.status(), StatusCode::FORBIDDEN, "{origin}");
    }
    assert_eq!(upstream.sent().len(), before);
    for origin in ["https://app.example".to_owned(), house.server.url("")] {
        let answer = ask("origin", origin.clone()).await;
        assert_eq!(
            (answer.status(), answer.headers()["access-control-allow-origin"].to_str().unwrap()),
            (StatusCode::OK, origin.as_str())
        );
        assert!(
            answer.headers()["access-control-expose-headers"].to_str().unwrap().contains("Mcp-Session-Id")
        );
    }
    let preflight = client.http.request(Method::OPTIONS, &client.url).header("origin", "https://app.example");
    let preflight = preflight.send().await.unwrap();
    assert_eq!(preflight.status(), StatusCode::NO_CONTENT);
    assert!(preflight.headers()["access-control-allow-headers"].to_str().unwrap().contains("Mcp-Session-Id"));
}

#[tokio::test]
async fn bodies_up_to_four_mebibytes_pass_and_larger_ones_do_not() {
    let (house, upstream) = House::with_fake(&[]).await;
    let client = house.connect().await;
    let of_size = |size: usize| {
        let mut body = call(json!(1), "echo").to_string();
        body.push_str(&" ".repeat(size - body.len()));
        client.request(Method::POST).header("content-type", "application/json").body(body)
    };
    assert_eq!(of_size(4 << 20).send().await.unwrap().status(), StatusCode::OK);
    let before = upstream.sent().len();
    let (status, body) = refused(of_size((4 << 20) + 1).send().await.unwrap()).await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
    assert!(body.contains("-32600"), "{body}");
    assert_eq!(upstream.sent().len(), before);
    // An answer may be as large as it likes.
    let (_, answer) = client.call("large").await;
    assert_eq!(answer["result"]["text"].as_str().unwrap().len(), 3 << 20);
}

#[tokio::test]
async fn a_batch_passes_with_all_its_answers() {
    let (house, _upstream) = House::with_fake(&[]).await;
    let client = house.connect().await;
    let answer = client.post(&json!([call(json!(1), "echo"), call(json!("b"), "echo")])).await;
    let answers: Value = answer.json().await.unwrap();
    assert_eq!((&answers[0]["id"], &answers[1]["id"]), (&json!(1), &json!("b")));
}

#[tokio::test]
async fn whoever_presents_anothers_session_id_is_noted_by_name_and_counted() {
    let upstream = super::upstream::Upstream::start().await;
    let directory = tempfile::TempDir::new().unwrap();
    let daemon = Daemon::start(directory.path(), &["--metrics-listen", "127.0.0.1:0"]);
    let operator = daemon.operator().await;
    let (_, applications) = operator.get("/api/v1/applications").await;
    let application = applications["items"][0]["id"].as_str().unwrap().to_owned();
    let path = format!("/api/v1/applications/{application}/upstream");
    assert!(operator.put(&path, json!({ "url": upstream.url })).await.0.is_success());
    let url = format!("{}/mcp/{application}", daemon.base);
    let token = operator.token.clone().unwrap();
    let mut owner = Client { url, token, session: None, http: reqwest::Client::new() };
    owner.initialize().await;
    let key = json!({ "name": "stranger", "scopes": ["mcp:invoke"] });
    let (_, stranger) = operator.post("/api/v1/api-keys", key).await;
    let thief = Client { token: stranger["key"].as_str().unwrap().to_owned(), ..owner.clone() };
    assert_eq!(refused(thief.listen().await).await, (StatusCode::NOT_FOUND, NOT_FOUND.to_owned()));
    let lines = || {
        daemon
            .log()
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap_or_default())
            .collect::<Vec<_>>()
    };
    let noted = || lines().into_iter().find(|line| line["event"] == "session_use_by_another");
    for _ in 0..1_000 {
        if noted().is_some() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let noted = noted().expect("a line in the log");
    assert_eq!(noted["actor"], stranger["apiKey"]["id"]);
    let (_, sessions) = operator.get(&format!("/api/v1/applications/{application}/sessions")).await;
    assert_eq!(noted["session"], sessions["items"][0]["id"]);
    let metrics = lines().into_iter().find_map(|line| line["metrics"].as_str().map(str::to_owned)).unwrap();
    let metrics = reqwest::get(format!("http://{metrics}/metrics")).await.unwrap().text().await.unwrap();
    assert!(metrics.contains("sessiond_foreign_session_total 1\n"), "{metrics}");
}
