//! What is right between a client and an upstream in small things.

use std::time::Duration;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::scripted_upstream::{Scripted, bytes, usual};
use super::{Client, House, messages};

const JSON: (&str, &str) = ("content-type", "application/json");
const EVENTS: (&str, &str) = ("content-type", "text/event-stream");

#[tokio::test]
async fn a_notification_is_accepted_with_202_and_no_body_whatever_the_upstream_calls_its_success() {
    for status in [200, 201, 202, 204] {
        let upstream = Scripted::start(move |heard| {
            let asks_nothing = heard.method == Method::POST && heard.body["id"].is_null();
            let body = if status == 204 { "" } else { "{\"taken\":true}" };
            asks_nothing.then(|| bytes(status, &[JSON], body))
        })
        .await;
        let house = House::before(&upstream.url, &[]).await;
        let (client, modern) = (house.connect().await, house.modern().await);
        assert!(modern.call("say").await.1["result"].is_object());
        let mut told = modern.body(Value::Null, "notifications/progress", json!({}));
        told.as_object_mut().unwrap().remove("id");
        let said = json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": {} });
        let answers = json!({ "jsonrpc": "2.0", "id": 1, "result": {} });
        for answer in [
            client.post(&said).await,
            client.post(&answers).await,
            modern.request(&told).send().await.unwrap(),
        ] {
            assert_eq!(answer.status(), StatusCode::ACCEPTED, "upstream: {status}");
            assert!(answer.headers().get("content-type").is_none());
            assert_eq!(answer.text().await.unwrap(), "");
        }
    }
}

#[tokio::test]
async fn an_answer_that_takes_longer_than_it_may_is_too_slow_and_one_that_takes_its_time_is_not_cut() {
    let upstream = Scripted::start(|heard| {
        let name = heard.body["params"]["name"].as_str()?.to_owned();
        let whole = heard.answer().to_string();
        let slow = futures_util::stream::unfold(0, move |turn| {
            let (whole, name) = (whole.clone(), name.clone());
            async move {
                let half = whole.len() / 2;
                let piece = match turn {
                    0 => whole[..half].to_owned(),
                    1 => {
                        let pause = if name == "never" { 3_600_000 } else { 300 };
                        tokio::time::sleep(Duration::from_millis(pause)).await;
                        whole[half..].to_owned()
                    }
                    _ => return None,
                };
                Some((Ok::<_, std::convert::Infallible>(piece), turn + 1))
            }
        });
        Some(bytes(200, &[JSON], axum::body::Body::from_stream(slow)))
    })
    .await;
    let house = House::before(&upstream.url, &["--upstream-timeout", "2s"]).await;
    let client = house.connect().await;
    assert!(client.call("soon").await.1["result"].is_object());
    let (_, said) = client.call("never").await;
    assert_eq!(said["error"]["data"]["reason"], "upstream_slow", "{said}");
    assert!(said["error"]["message"].as_str().unwrap().contains("too slow"), "{said}");
}

#[tokio::test]
async fn an_upstreams_words_about_the_connection_are_not_the_gateways() {
    let upstream = Scripted::start(|heard| {
        let status = heard.body["params"]["name"].as_str()?.parse().ok()?;
        Some(bytes(status, &[], ""))
    })
    .await;
    let house = House::before(&upstream.url, &[]).await;
    let client = house.connect().await;
    for status in [401, 403, 404, 406, 407, 411, 415, 417, 421, 426, 505, 511] {
        let (status_of_answer, said) = client.call(&status.to_string()).await;
        assert_eq!((status_of_answer, &said["id"]), (StatusCode::OK, &json!(7)), "{status}: {said}");
        assert_eq!(said["error"]["code"], -32603, "{status}: {said}");
    }
}

#[tokio::test]
async fn a_redirect_is_refused_and_said_where_to() {
    for (location, words) in [
        (
            Some("https://tools.example/v2/mcp?key=secret"),
            "has moved to https://tools.example/v2/mcp (HTTP 308)",
        ),
        (Some("/elsewhere"), "has moved to /elsewhere (HTTP 308)"),
        (Some("https://user:secret@tools.example/"), "does not say where to"),
        (None, "does not say where to"),
    ] {
        let upstream = Scripted::start(move |heard| {
            let headers: Vec<_> = location.iter().map(|to| ("location", *to)).collect();
            (heard.rpc() == "initialize").then(|| bytes(308, &headers, ""))
        })
        .await;
        let house = House::before(&upstream.url, &[]).await;
        let answer = house.client(&house.token().await).try_initialize().await;
        assert!(answer.headers().get("location").is_none());
        let said: Value = answer.json().await.unwrap();
        let message = said["error"]["message"].as_str().unwrap();
        assert!(message.contains(words) && !message.contains("secret"), "{message}");
    }
}

#[tokio::test]
async fn a_null_result_is_an_answer_and_the_only_one() {
    let upstream = Scripted::start(|heard| {
        let null = json!({ "jsonrpc": "2.0", "id": heard.body["id"], "result": null });
        (heard.rpc() == "tools/call").then(|| bytes(200, &[EVENTS], format!("data: {null}\n\n")))
    })
    .await;
    let house = House::before(&upstream.url, &[]).await;
    let (client, modern) = (house.connect().await, house.modern().await);
    for answer in [client.begin(json!(7), "say").await, modern.begin(json!(7), "say").await] {
        let text = answer.text().await.unwrap();
        let said: Vec<_> = messages(&text).into_iter().filter(|one| one["id"] == 7).collect();
        assert_eq!(said, [json!({ "jsonrpc": "2.0", "id": 7, "result": null })], "{text}");
    }
}

#[tokio::test]
async fn only_events_of_the_type_message_are_messages() {
    let upstream = Scripted::start(|heard| {
        let forged = json!({ "jsonrpc": "2.0", "id": heard.body["id"], "result": { "forged": true } });
        let (true_one, kind) = (heard.answer(), heard.rpc().to_owned());
        let text = format!("event: ping\ndata: {forged}\n\nevent: message\ndata: {true_one}\n\n");
        let headers: &[_] =
            if kind == "initialize" { &[EVENTS, ("mcp-session-id", "far")] } else { &[EVENTS] };
        ["initialize", "tools/call"].contains(&heard.rpc()).then(|| bytes(200, headers, text))
    })
    .await;
    let house = House::before(&upstream.url, &[]).await;
    // A handshake is not read from one.
    let client = house.connect().await;
    let text = client.begin(json!(7), "say").await.text().await.unwrap();
    assert!(text.contains("said"), "{text}");

    // On HTTP+SSE, where each event becomes a message, it becomes none.
    let mut stream = super::Stream::of(
        house
            .server
            .http
            .get(format!("{}/sse", client.url))
            .bearer_auth(&client.token)
            .header("accept", "text/event-stream")
            .send()
            .await
            .unwrap(),
    );
    stream.until("sessionId=").await;
    let endpoint = stream.text.lines().find_map(|line| line.strip_prefix("data: ")).unwrap().to_owned();
    let speaker = Client { url: house.server.url(&endpoint), session: None, ..client.clone() };
    assert_eq!(speaker.try_initialize().await.status(), StatusCode::ACCEPTED);
    stream.until("scripted").await;
    speaker.post(&json!({ "jsonrpc": "2.0", "method": "notifications/initialized" })).await;
    speaker.begin(json!(8), "say").await;
    stream.until("\"said\"").await;
    assert!(!stream.text.contains("forged"), "{}", stream.text);
}

#[tokio::test]
async fn what_strangers_send_is_read_as_objects_and_never_by_place() {
    let upstream = Scripted::start(|_| None).await;
    let house = House::before(&upstream.url, &[]).await;
    let client = house.connect().await;
    // By place these would be a revision, a client's name and capabilities, and a message.
    let meta = json!(["2026-07-28", { "name": "by place" }, {}]);
    let call = json!({ "jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": { "name": "say", "_meta": meta } });
    let answer = client.post(&call).await;
    assert_eq!(answer.status(), StatusCode::OK, "it is of the session, and the upstream's to judge");
    for message in [json!([["2.0", 7, "tools/call", {}]]), json!(["2.0", 7, "tools/call", {}])] {
        let answer = client.post(&message).await;
        assert_eq!(answer.status(), StatusCode::BAD_REQUEST, "{message}");
        let said: Value = answer.json().await.unwrap();
        assert_eq!(said["error"]["code"], -32600, "{said}");
    }
    assert_eq!(upstream.heard().iter().filter(|heard| heard.rpc() == "tools/call").count(), 1);
}

#[tokio::test]
async fn a_coded_body_is_415_with_words() {
    let upstream = Scripted::start(|_| None).await;
    let house = House::before(&upstream.url, &[]).await;
    let client = house.connect().await;
    for coding in ["gzip", "br", "x-what"] {
        let request = client.request(Method::POST).header("content-encoding", coding);
        let answer =
            request.header("content-type", "application/json").body(vec![0x1f, 0x8b]).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::UNSUPPORTED_MEDIA_TYPE);
        let said: Value = answer.json().await.unwrap();
        assert!(said["error"]["message"].as_str().unwrap().contains(coding), "{said}");
    }
}

#[tokio::test]
async fn an_upstreams_cookies_go_back_to_it_in_their_own_session_and_nowhere_else() {
    // Two replicas behind a balancer that keeps a session at its replica by a cookie.
    let upstream = Scripted::start(|heard| {
        if heard.rpc() == "initialize" {
            let replica = heard.body["params"]["clientInfo"]["name"].as_str()?.to_owned();
            let mut response = usual(heard);
            let headers = response.headers_mut();
            headers.insert("mcp-session-id", format!("far-{replica}").parse().unwrap());
            headers.append("set-cookie", format!("lb={replica}; Path=/; HttpOnly; Secure").parse().unwrap());
            headers.append("set-cookie", "elsewhere=1; Path=/admin".parse().unwrap());
            headers.append("set-cookie", "others=1; Domain=tools.example".parse().unwrap());
            headers.append("set-cookie", "old=1; Max-Age=0".parse().unwrap());
            return Some(response);
        }
        let session = heard.header("mcp-session-id")?.strip_prefix("far-")?.to_owned();
        let cookie = heard.header("cookie").unwrap_or("none");
        (cookie != format!("lb={session}")).then(|| bytes(502, &[], format!("wrong replica: {cookie}")))
    })
    .await;
    let house = House::before(&upstream.url, &[]).await;
    let token = house.token().await;
    for _ in 0..2 {
        for name in ["blue", "green"] {
            let mut client = house.client(&token);
            let answer = client.try_initialize_as(json!({ "name": name, "version": "1" })).await;
            assert!(answer.headers().get("set-cookie").is_none());
            client.session = Some(answer.headers()["mcp-session-id"].to_str().unwrap().to_owned());
            for _ in 0..2 {
                assert!(client.call("say").await.1["result"].is_object());
            }
            let gone = client.request(Method::DELETE).header("cookie", "lb=forged").send().await.unwrap();
            assert_eq!(gone.status(), StatusCode::NO_CONTENT);
        }
    }
    let greetings = upstream.heard().into_iter().filter(|heard| heard.rpc() == "initialize");
    assert!(
        greetings.into_iter().all(|heard| heard.header("cookie").is_none()),
        "a new session has none yet"
    );
}

#[tokio::test]
async fn a_slash_at_the_end_makes_no_other_endpoint() {
    let upstream = Scripted::start(|_| None).await;
    let house = House::before(&upstream.url, &[]).await;
    let mut client = house.client(&house.token().await);
    client.url.push('/');
    client.initialize().await;
    assert!(client.call("say").await.1["result"].is_object());
    let stranger = house.server.http.post(&client.url).send().await.unwrap();
    let challenge = stranger.headers()["www-authenticate"].to_str().unwrap().to_owned();
    let place = challenge.split('"').nth(1).unwrap();
    assert!(place.ends_with(&format!("{}/", house.path())), "{challenge}");
    let document: Value = house.server.http.get(place).send().await.unwrap().json().await.unwrap();
    assert_eq!(document["resource"], client.url);
    let narrow = [("grant_type", "client_credentials"), ("resource", client.url.as_str())];
    let asked = house.server.http.post(house.server.url("/oauth2/token"));
    let asked =
        asked.basic_auth(crate::support::CLIENT_ID, Some(crate::support::CLIENT_SECRET)).form(&narrow);
    assert_eq!(asked.send().await.unwrap().status(), StatusCode::OK);
    let gone = client.request(Method::DELETE).send().await.unwrap();
    assert_eq!(gone.status(), StatusCode::NO_CONTENT);
    for path in ["sse/", "messages/"] {
        let answer = house.server.http.get(format!("{}{path}", client.url)).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::UNAUTHORIZED, "{path}");
    }
}

#[tokio::test]
async fn whoever_opens_a_session_with_the_id_of_one_of_theirs_leaves_that_one() {
    let upstream = Scripted::start(|_| None).await;
    let house = House::before(&upstream.url, &[]).await;
    let first = house.connect().await;
    let mut again = first.clone();
    again.initialize().await;
    assert_ne!(again.session, first.session);
    let reasons = async || {
        let sessions = house.sessions().await;
        let mut reasons: Vec<_> = sessions
            .iter()
            .map(|one| one["disconnectReason"].as_str().unwrap_or("open").to_owned())
            .collect();
        reasons.sort();
        reasons
    };
    assert_eq!(reasons().await, ["open", "superseded"], "{:?}", house.sessions().await);
    assert_eq!(first.call("say").await.0, StatusCode::NOT_FOUND);
    assert!(again.call("say").await.1["result"].is_object());
    house
        .server
        .until("the upstream hears of it", || async {
            upstream.heard().iter().any(|heard| heard.method == Method::DELETE)
        })
        .await;

    // An id of somebody else's ends nothing.
    let mut another = house.client(&house.token_of_another().await);
    another.session = again.session.clone();
    another.initialize().await;
    assert_eq!(reasons().await, ["open", "open", "superseded"]);
}

#[tokio::test]
async fn a_browsers_script_may_send_what_2026_07_28_mirrors_and_the_headers_of_traces() {
    let (house, _upstream) = House::with_fake(&[]).await;
    let origin = house.server.url("");
    let asked =
        "authorization, mcp-param-region, Mcp-Param-Tenant, x-evil, mcp-param-a\u{e9}b, tracestate, baggage";
    let preflight = house
        .server
        .http
        .request(Method::OPTIONS, house.server.url(&house.path()))
        .header("origin", &origin)
        .header("access-control-request-method", "POST")
        .header("access-control-request-headers", asked.replace('\u{e9}', "("))
        .send()
        .await
        .unwrap();
    let allowed = preflight.headers()["access-control-allow-headers"].to_str().unwrap().to_lowercase();
    let allowed: Vec<_> = allowed.split(',').map(str::trim).collect();
    for name in ["mcp-param-region", "mcp-param-tenant", "tracestate", "baggage", "traceparent", "mcp-method"]
    {
        assert!(allowed.contains(&name), "{name} in {allowed:?}");
    }
    assert!(!allowed.iter().any(|name| name.contains("evil") || name.contains('(')), "{allowed:?}");
}

#[tokio::test]
async fn every_public_url_is_a_name_of_ours_and_documents_are_of_the_name_that_was_asked() {
    let flags =
        ["--public-url", "https://api.example.com/base", "--public-url", "http://sessiond.internal:8080"];
    let (house, _upstream) = House::with_fake(&flags).await;
    let get = async |path: &str, host: &str| {
        let request = house.server.http.get(house.server.url(path)).header("host", host);
        let answer = request.send().await.unwrap();
        (answer.status(), answer.headers().clone(), answer.json::<Value>().await.unwrap_or_default())
    };
    let path = house.path();
    for (host, base) in [
        ("api.example.com", "https://api.example.com/base"),
        ("API.example.com:443", "https://api.example.com/base"),
        ("sessiond.internal:8080", "http://sessiond.internal:8080"),
        // A proxy may leave the port out, or say its own name for this machine: then the client asked by the first.
        ("sessiond.internal", "http://sessiond.internal:8080"),
        ("localhost:9", "https://api.example.com/base"),
    ] {
        let (status, headers, _) = get(&path, host).await;
        assert_eq!(status, StatusCode::UNAUTHORIZED, "{host}");
        let challenge = headers["www-authenticate"].to_str().unwrap().to_owned();
        let place = format!("{base}/.well-known/oauth-protected-resource{path}");
        assert!(challenge.contains(&place), "{host}: {challenge}");
        let (_, _, document) = get(&format!("/.well-known/oauth-protected-resource{path}"), host).await;
        assert_eq!(document["resource"], format!("{base}{path}"), "{host}");
        assert_eq!(document["authorization_servers"], json!([base]), "{host}");
        let (_, _, server) = get("/.well-known/oauth-authorization-server", host).await;
        assert_eq!(
            (&server["issuer"], &server["token_endpoint"]),
            (&json!(base), &json!(format!("{base}/oauth2/token")))
        );
        // A token for the gateway under each of its names.
        let form = [("grant_type", "client_credentials"), ("resource", &format!("{base}{path}"))];
        let asked = house.server.http.post(house.server.url("/oauth2/token"));
        let asked =
            asked.basic_auth(crate::support::CLIENT_ID, Some(crate::support::CLIENT_SECRET)).form(&form);
        assert_eq!(asked.send().await.unwrap().status(), StatusCode::OK, "{host}");
    }
    let (status, _, _) = get(&path, "evil.example").await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    let (_, _, document) = get(&format!("/.well-known/oauth-protected-resource{path}"), "evil.example").await;
    assert_eq!(document["resource"], format!("https://api.example.com/base{path}"));
}
