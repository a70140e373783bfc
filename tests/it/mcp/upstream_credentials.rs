//! How the gateway authenticates at an upstream, and who never learns how.

use std::sync::Arc;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use axum::{Router, routing};
use futures_util::future::join_all;
use parking_lot::Mutex;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::upstream::Upstream;
use super::{Client, House, Stream};

const SECRET: &str = "hush-hush+never/shown";

/// A token endpoint that answers as it is told.
struct Endpoint {
    url: String,
    asked: Arc<Asked>,
}

#[derive(Default)]
struct Asked {
    /// `authorization` and the form, of each request.
    seen: Mutex<Vec<(String, String)>>,
    /// Answered instead of a token.
    instead: Mutex<Option<(u16, String)>>,
    expires_in: Mutex<Option<u64>>,
}

impl Endpoint {
    async fn start() -> Self {
        let asked = Arc::new(Asked { expires_in: Mutex::new(Some(3_600)), ..Asked::default() });
        let router = Router::new().route("/token", routing::post(answer)).with_state(asked.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/token", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { url, asked }
    }

    fn count(&self) -> usize {
        self.asked.seen.lock().len()
    }

    fn credential(&self) -> Value {
        json!({
            "type": "client_credentials", "tokenUrl": self.url, "clientId": "gate way", "clientSecret": SECRET,
            "scope": "tools read", "resource": "https://tools.example/mcp",
        })
    }
}

async fn answer(State(asked): State<Arc<Asked>>, headers: HeaderMap, form: String) -> Response {
    let authorization = headers["authorization"].to_str().unwrap().to_owned();
    let number = {
        let mut seen = asked.seen.lock();
        seen.push((authorization, form));
        seen.len()
    };
    if let Some((status, text)) = asked.instead.lock().clone() {
        return (StatusCode::from_u16(status).unwrap(), text).into_response();
    }
    let mut token = json!({ "access_token": format!("token-{number}"), "token_type": "bearer" });
    if let Some(seconds) = *asked.expires_in.lock() {
        token["expires_in"] = json!(seconds);
    }
    axum::Json(token).into_response()
}

fn authorizations(upstream: &Upstream, method: &str) -> Vec<String> {
    let sent = upstream.sent_rpc(method).into_iter();
    sent.map(|one| one.header("authorization").unwrap_or("none").to_owned()).collect()
}

#[tokio::test]
async fn a_header_credential_goes_with_every_request_and_what_the_client_presents_with_none() {
    let (house, upstream) = House::with_fake(&[]).await;
    let bare = house.connect().await;
    assert_eq!(authorizations(&upstream, "initialize"), ["none"]);
    let key = json!({ "type": "header", "name": "X-Api-Key", "value": "one" });
    house.set_upstream_with(&upstream.url, key).await;
    // The session that was open before shows it too, and the client cannot show another.
    bare.request(Method::POST)
        .header("x-api-key", "the client's")
        .json(&super::call(json!(1), "echo"))
        .send()
        .await
        .unwrap();
    let keys = |method: &str| {
        let sent = upstream.sent_rpc(method).into_iter();
        sent.map(|one| one.header("x-api-key").unwrap_or("none").to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(keys("tools/call"), ["one"]);

    // Another value is in force at once, here the one that the upstream wants.
    let authorization = |value: &str| json!({ "type": "header", "name": "Authorization", "value": value });
    house.set_upstream_with(&upstream.url, authorization("Key 1")).await;
    house.set_upstream_with(&upstream.url, authorization("Key 2")).await;
    *upstream.told.wants.lock() = Some("Key 2".to_owned());
    let client = house.connect().await;
    assert_eq!(client.call("echo").await.0, StatusCode::OK);
    Stream::of(client.listen().await).until("hello").await;
    upstream.forget();
    assert_eq!(client.call("echo").await.1["result"]["content"][0]["text"], "done", "healed");
    client.request(Method::DELETE).send().await.unwrap();
    upstream.until(|sent| sent.method == Method::DELETE).await;
    for sent in upstream.sent().iter().skip_while(|sent| sent.header("authorization").is_none()) {
        assert_eq!(sent.header("authorization"), Some("Key 2"), "{sent:?}");
    }

    // Left out, it is gone.
    house.set_upstream(&upstream.url).await;
    *upstream.told.wants.lock() = None;
    assert_eq!(bare.call("echo").await.0, StatusCode::OK);
    assert_eq!(authorizations(&upstream, "tools/call").last().unwrap(), "none");
}

#[tokio::test]
async fn of_a_credential_everything_is_shown_and_recorded_but_its_secret_which_outlives_a_restart() {
    let (house, upstream) = House::with_fake(&[]).await;
    let endpoint = Endpoint::start().await;
    let application = format!("/api/v1/applications/{}", house.application);
    let mut shown = endpoint.credential();
    shown.as_object_mut().unwrap().remove("clientSecret");
    let value = format!("Key {SECRET}");
    for (given, shown) in [
        (endpoint.credential(), shown),
        (
            json!({ "type": "header", "name": "Authorization", "value": value }),
            json!({ "type": "header", "name": "Authorization" }),
        ),
    ] {
        let answer = house.set_upstream_with(&upstream.url, given).await;
        let (_, read) = house.operator.get(&application).await;
        for told in [answer, read] {
            assert_eq!(told["application"]["upstreamCredential"], shown);
        }
        let last = house.server.log().await.pop().unwrap();
        assert_eq!(last.0, "application_upstream_set");
        assert_eq!(last.1, json!({ "url": upstream.url, "credential": shown }));
    }
    for (place, bytes) in crate::support::store::stored(house.server.directory.path()).await {
        assert!(!bytes.windows(SECRET.len()).any(|part| part == SECRET.as_bytes()), "in {place}");
    }
    let house = house.restart().await;
    *upstream.told.wants.lock() = Some(value);
    assert_eq!(house.connect().await.call("echo").await.0, StatusCode::OK);

    let kept = async || {
        let mut inside = house.server.look_inside().await;
        inside.number("select count(*) from upstream_secret", &[]).await
    };
    assert_eq!(kept().await, 1);
    assert_eq!(house.operator.delete(&application).await.0, 204);
    assert_eq!(kept().await, 0, "an archived application's is forgotten");
}

#[tokio::test]
async fn what_cannot_be_a_credential_is_refused_by_its_field() {
    let (house, upstream) = House::with_fake(&[]).await;
    let path = format!("/api/v1/applications/{}/upstream", house.application);
    let header = |name: &str, value: &str| json!({ "type": "header", "name": name, "value": value });
    let mut wrong = vec![];
    for name in [
        "",
        "two words",
        "näme",
        "host",
        "Content-Type",
        "content-length",
        "Accept",
        "accept-encoding",
        "Connection",
        "transfer-encoding",
        "TE",
        "upgrade",
        "Mcp-Session-Id",
        "mcp-protocol-version",
        "Last-Event-ID",
        "Sessiond-Session-Id",
        "Origin",
        "Proxy-Authorization",
        "traceparent",
        "X-Forwarded-For",
        &"x".repeat(101),
    ] {
        wrong.push(("credential.name", header(name, "v")));
    }
    for value in ["", " padded", "two\nlines", "smörgås", &"x".repeat(8_193)] {
        wrong.push(("credential.value", header("X-Api-Key", value)));
    }
    let endpoint = Endpoint::start().await;
    for (field, name, value) in [
        ("credential.tokenUrl", "tokenUrl", "http://10.0.0.1/token"),
        ("credential.tokenUrl", "tokenUrl", "https://169.254.169.254/token"),
        ("credential.tokenUrl", "tokenUrl", "token"),
        ("credential.clientId", "clientId", ""),
        ("credential.clientSecret", "clientSecret", ""),
        ("credential.scope", "scope", "a\nb"),
        ("credential.resource", "resource", "tools"),
    ] {
        let mut credential = endpoint.credential();
        credential[name] = json!(value);
        wrong.push((field, credential));
    }
    for (field, credential) in wrong {
        let body = json!({ "url": upstream.url, "credential": credential });
        let (status, answer) = house.operator.put(&path, body).await;
        assert_eq!((status.as_u16(), &answer["field"]), (400, &json!(field)), "{credential} {answer}");
    }
    for credential in [json!({ "type": "none" }), json!({ "name": "X" }), json!("X")] {
        let body = json!({ "url": upstream.url, "credential": credential });
        assert_eq!(house.operator.put(&path, body).await.0, 400, "{credential}");
    }
    let (_, read) = house.operator.get(&format!("/api/v1/applications/{}", house.application)).await;
    assert_eq!(read["application"]["upstreamCredential"], Value::Null);
}

#[tokio::test]
async fn a_token_is_fetched_once_for_all_and_again_shortly_before_it_expires() {
    let (house, upstream) = House::with_fake(&[]).await;
    let endpoint = Endpoint::start().await;
    house.set_upstream_with(&upstream.url, endpoint.credential()).await;
    let token = house.token().await;
    let opened = (0..12).map(|_| async {
        let mut client = house.client(&token);
        client.initialize().await;
        client
    });
    let clients: Vec<Client> = join_all(opened).await;
    let (authorization, form) = endpoint.asked.seen.lock()[0].clone();
    assert_eq!(endpoint.count(), 1);
    // "gate+way" and the secret, each form-encoded, in HTTP Basic.
    use base64::Engine;
    let basic = base64::engine::general_purpose::STANDARD.encode("gate+way:hush-hush%2Bnever%2Fshown");
    assert_eq!(authorization, format!("Basic {basic}"));
    let resource = "resource=https%3A%2F%2Ftools.example%2Fmcp";
    assert_eq!(form, format!("grant_type=client_credentials&scope=tools+read&{resource}"));
    assert!(authorizations(&upstream, "initialize").iter().all(|one| one == "Bearer token-1"));

    // The same credential set again, or the application renamed, needs no other: what it is has not changed.
    let path = format!("/api/v1/applications/{}", house.application);
    house.operator.patch(&path, json!({ "description": "renamed" })).await;
    house.server.turn(3_500);
    clients[0].call("echo").await;
    assert_eq!(endpoint.count(), 1);
    house.server.turn(45);
    let fresh = Client { token: house.token().await, ..clients[0].clone() };
    assert_eq!(fresh.call("echo").await.0, StatusCode::OK);
    assert_eq!(endpoint.count(), 2);
    assert_eq!(authorizations(&upstream, "tools/call"), ["Bearer token-1", "Bearer token-2"]);
    // Another secret is another client.
    let mut other = endpoint.credential();
    other["clientSecret"] = json!("another");
    house.set_upstream_with(&upstream.url, other).await;
    assert_eq!(fresh.call("echo").await.0, StatusCode::OK);
    assert_eq!(authorizations(&upstream, "tools/call").last().unwrap(), "Bearer token-3");
}

#[tokio::test]
async fn a_token_that_the_upstream_refuses_is_fetched_anew_once_and_the_request_repeated_once() {
    let (house, upstream) = House::with_fake(&[]).await;
    let endpoint = Endpoint::start().await;
    *endpoint.asked.expires_in.lock() = None;
    house.set_upstream_with(&upstream.url, endpoint.credential()).await;
    let client = house.connect().await;
    *upstream.told.wants.lock() = Some("Bearer token-2".to_owned());
    let calls: Vec<_> = (0..8).map(|_| client.call("echo")).collect();
    for (status, answer) in join_all(calls).await {
        assert_eq!((status, &answer["result"]["content"][0]["text"]), (StatusCode::OK, &json!("done")));
    }
    assert_eq!(endpoint.count(), 2);
    *upstream.told.wants.lock() = Some("Bearer of another kind".to_owned());
    let before = upstream.sent().len();
    let (status, answer) = client.call("echo").await;
    assert_eq!((status, &answer["error"]["data"]["reason"]), (StatusCode::OK, &json!("upstream_refused")));
    assert_eq!((endpoint.count(), upstream.sent().len()), (3, before + 2));
}

#[tokio::test]
async fn a_token_that_cannot_be_fetched_is_an_error_of_the_call_without_details() {
    let (house, upstream) = House::with_fake(&[]).await;
    let endpoint = Endpoint::start().await;
    house.set_upstream_with(&upstream.url, endpoint.credential()).await;
    let refusal = r#"{"error":"invalid_client","error_description":"secret of gate way is wrong"}"#;
    for (status, text) in [
        (401, refusal),
        (400, refusal),
        (200, refusal),
        (200, "<html>"),
        (200, r#"{"access_token":"t"}"#),
        (200, r#"{"access_token":"t","token_type":"mac"}"#),
        (200, r#"{"access_token":"two\nlines","token_type":"bearer"}"#),
        (302, ""),
        (500, &"x".repeat(100_000)),
    ] {
        *endpoint.asked.instead.lock() = Some((status, text.to_owned()));
        let answer = house.client(&house.token().await).try_initialize().await;
        assert_eq!(answer.status(), StatusCode::OK);
        let answer: Value = answer.json().await.unwrap();
        assert_eq!(answer["error"]["data"], json!({ "reason": "upstream_credential" }), "{status} {text}");
        let message = answer["error"]["message"].as_str().unwrap();
        assert!(message.contains("wants a token that could not be fetched"), "{message}");
        assert!(!message.contains("gate way") && !message.contains(&endpoint.url), "{message}");
    }
    assert_eq!(upstream.sent().len(), 0);
    *endpoint.asked.instead.lock() = None;
    assert_eq!(house.connect().await.call("echo").await.0, StatusCode::OK);
}

#[tokio::test]
async fn a_credential_is_shown_to_the_upstream_it_was_set_for_and_to_no_other() {
    let (house, first) = House::with_fake(&[]).await;
    let key = json!({ "type": "header", "name": "Authorization", "value": "for the first" });
    house.set_upstream_with(&first.url, key).await;
    let client = house.connect().await;
    let second = Upstream::start().await;
    house.set_upstream(&second.url).await;
    assert_eq!(client.call("echo").await.0, StatusCode::OK);
    let key = json!({ "type": "header", "name": "Authorization", "value": "for the second" });
    house.set_upstream_with(&second.url, key).await;
    assert_eq!(client.call("echo").await.0, StatusCode::OK);
    house.set_upstream(&first.url).await;
    assert_eq!(client.call("echo").await.0, StatusCode::OK);
    assert_eq!(authorizations(&first, "initialize"), ["for the first", "none"]);
    assert_eq!(authorizations(&first, "tools/call"), ["none"]);
    assert_eq!(authorizations(&second, "tools/call"), ["none", "for the second"]);
}
