//! Which headers pass: those that are on the lists, those that an application adds, and no others.

use reqwest::header::HeaderMap;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use sessiond::mcp::{TO_CLIENT, TO_UPSTREAM};

use super::House;
use super::scripted_upstream::{Heard, Scripted, bytes, usual};

/// What has been seen to pass from a client and must not, beside whatever nobody has thought of.
const NOT_INWARD: [&str; 34] = [
    "apiKey",
    "X-Real-IP",
    "True-Client-IP",
    "CF-Connecting-IP",
    "X-Remote-User",
    "X-Auth-Request-User",
    "X-Auth-Request-Email",
    "X-Original-URL",
    "X-HTTP-Method-Override",
    "Proxy",
    "Transfer_Encoding",
    "Sessiond_Session_Id",
    "Sessiond-Session-Id",
    "Cookie",
    "Origin2",
    "Referer",
    "Forwarded",
    "X-Forwarded-For",
    "X-Forwarded-Host",
    "X-Forwarded-Proto",
    "Content-Language",
    "If-None-Match",
    "Range",
    "Expect2",
    "Date",
    "X-Tenant",
    "X-Client-Cert",
    "X-Amzn-Oidc-Data",
    "Mcp_Session_Id",
    "Mcp-Session_Id",
    "Sec-Fetch-Site",
    "Priority",
    "DNT",
    "X-Nobody-Has-Thought-Of-This",
];

/// The same of an upstream's answers.
const NOT_OUTWARD: [&str; 28] = [
    "NEL",
    "Report-To",
    "Reporting-Endpoints",
    "Service-Worker-Allowed",
    "Origin-Trial",
    "Accept-CH",
    "Set-Cookie",
    "Set-Cookie2",
    "X-Lighttpd-Send-File",
    "X-Reproxy-URL",
    "X-Sendfile",
    "X-Accel-Redirect",
    "Access-Control-Allow-Credentials",
    "WWW-Authenticate",
    "Strict-Transport-Security",
    "Content-Security-Policy",
    "Alt-Svc",
    "Clear-Site-Data",
    "Refresh",
    "Location",
    "Link",
    "Server",
    "Via",
    "ETag",
    "Expires",
    "Pragma",
    "X-RateLimit-Remaining",
    "X-Nobody-Has-Thought-Of-This",
];

/// Set by the gateway itself, or by HTTP, on what it sends to an upstream.
const SAID_TO_UPSTREAM: [&str; 8] = [
    "accept",
    "accept-encoding",
    "content-length",
    "content-type",
    "host",
    "sessiond-session-id",
    "mcp-session-id",
    "via",
];
/// The same of what it answers to a client.
const SAID_TO_CLIENT: [&str; 15] = [
    "cache-control",
    "content-length",
    "content-security-policy",
    "date",
    "keep-alive",
    "mcp-session-id",
    "permissions-policy",
    "referrer-policy",
    "transfer-encoding",
    "vary",
    "x-accel-buffering",
    "x-content-type-options",
    "x-frame-options",
    "x-request-id",
    "cross-origin-resource-policy",
];

fn call(id: u64) -> Value {
    json!({ "jsonrpc": "2.0", "id": id, "method": "tools/call", "params": { "name": "say", "arguments": {} } })
}

/// Names of headers that are not expected among these.
fn strangers<'a>(headers: &'a HeaderMap, listed: &[&str], own: &[&str]) -> Vec<&'a str> {
    let names = headers.keys().map(|name| name.as_str());
    names.filter(|name| !listed.contains(name) && !own.contains(name) && !name.starts_with("mcp-")).collect()
}

#[tokio::test]
async fn of_what_a_client_sends_only_what_is_listed_reaches_the_upstream() {
    let upstream = Scripted::start(|_| None).await;
    let house = House::before(&upstream.url, &[]).await;
    let client = house.connect().await;
    let mut request = client.request(Method::POST).json(&call(1));
    // Two credentials are refused before anything is sent on.
    for name in NOT_INWARD.iter().filter(|name| **name != "apiKey") {
        request = request.header(*name, "forged");
    }
    for name in TO_UPSTREAM.iter().filter(|name| !["via", "last-event-id", "user-agent"].contains(name)) {
        request = request.header(*name, "listed");
    }
    request = request
        .header("user-agent", "a client/1")
        .header("mcp-param-region", "eu")
        .header("via", "1.1 front");
    assert_eq!(request.send().await.unwrap().status(), StatusCode::OK);

    let heard = upstream.last("tools/call");
    assert_eq!(strangers(&heard.headers, &TO_UPSTREAM, &SAID_TO_UPSTREAM), Vec::<&str>::new());
    for name in NOT_INWARD {
        let said = heard.headers.get_all(name).iter().any(|value| value == "forged");
        assert!(!said, "{name} passed");
    }
    for name in ["accept-language", "baggage", "traceparent", "tracestate"] {
        assert_eq!(heard.header(name), Some("listed"), "{name}");
    }
    assert_eq!(heard.header("mcp-param-region"), Some("eu"));
    assert_eq!(heard.header("user-agent"), Some("a client/1"));
    assert_eq!(heard.header("authorization"), None);
    let via: Vec<_> = heard.headers.get_all("via").iter().map(|value| value.to_str().unwrap()).collect();
    assert!(via.len() == 2 && via[0] == "1.1 front" && via[1].starts_with("1.1 sessiond-"), "{via:?}");
}

#[tokio::test]
async fn of_what_an_upstream_answers_only_what_is_listed_reaches_the_client() {
    // As JSON, and as a stream of events.
    for events in [false, true] {
        let upstream = Scripted::start(move |heard| {
            let mut response = match (heard.rpc(), events) {
                ("tools/call", true) => {
                    let said = format!("data: {}\n\n", heard.answer());
                    bytes(200, &[("content-type", "text/event-stream")], said)
                }
                ("tools/call" | "initialize", _) => usual(heard),
                _ => return None,
            };
            for name in NOT_OUTWARD {
                let name = axum::http::HeaderName::try_from(name).unwrap();
                response.headers_mut().append(name, "x=1".parse().unwrap());
            }
            for (name, value) in
                [("cache-control", "public, max-age=600"), ("retry-after", "7"), ("vary", "X-A")]
            {
                response.headers_mut().insert(name, value.parse().unwrap());
            }
            response.headers_mut().insert("mcp-protocol-version", "2025-11-25".parse().unwrap());
            Some(response)
        })
        .await;
        let house = House::before(&upstream.url, &[]).await;
        let greeted = house.client(&house.token().await).try_initialize().await;
        let client = house.connect().await;
        let answer = client.post(&call(1)).await;
        for headers in [greeted.headers(), answer.headers()] {
            assert_eq!(
                strangers(headers, &TO_CLIENT, &SAID_TO_CLIENT),
                Vec::<&str>::new(),
                "events: {events}"
            );
            assert!(!headers.values().any(|value| value == "x=1"), "{headers:?}");
            assert_eq!(headers["cache-control"], "no-store");
            assert_eq!(
                (&headers["retry-after"], &headers["mcp-protocol-version"]),
                (&"7".parse().unwrap(), &"2025-11-25".parse().unwrap())
            );
            assert!(!headers["vary"].to_str().unwrap().contains("X-A"));
        }
        assert!(answer.text().await.unwrap().contains("said"));
    }
}

#[tokio::test]
async fn an_application_names_more_headers_that_pass_in_either_direction() {
    let upstream = Scripted::start(|heard| {
        let mut response = usual(heard);
        response.headers_mut().insert("x-ratelimit-remaining", "41".parse().unwrap());
        Some(response)
    })
    .await;
    let house = House::before(&upstream.url, &[]).await;
    let path = format!("/api/v1/applications/{}/upstream", house.application);
    let set = async |headers: Value| {
        house.operator.put(&path, json!({ "url": upstream.url, "headers": headers })).await
    };
    let wanted = json!({ "toUpstream": ["X-Tenant", "x-tenant"], "toClient": ["X-RateLimit-Remaining"] });
    let (status, body) = set(wanted).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    let shown = json!({ "toUpstream": ["x-tenant"], "toClient": ["x-ratelimit-remaining"] });
    assert_eq!(body["application"]["upstreamHeaders"], shown);

    let house = house.restart().await;
    let client = house.connect().await;
    let send = async || {
        let request = client.request(Method::POST).header("x-tenant", "blue").header("x-other", "no");
        request.json(&call(1)).send().await.unwrap()
    };
    assert_eq!(send().await.headers()["x-ratelimit-remaining"], "41");
    let heard = upstream.last("tools/call");
    assert_eq!((heard.header("x-tenant"), heard.header("x-other")), (Some("blue"), None));

    // The last word counts, and leaving it out takes it away.
    let (_, body) = house.operator.put(&path, json!({ "url": upstream.url })).await;
    assert_eq!(body["application"]["upstreamHeaders"], Value::Null);
    assert!(send().await.headers().get("x-ratelimit-remaining").is_none());
    assert_eq!(upstream.last("tools/call").header("x-tenant"), None);
}

#[tokio::test]
async fn no_application_can_have_a_credential_or_an_order_to_others_passed() {
    let upstream = Scripted::start(|_| None).await;
    let house = House::before(&upstream.url, &[]).await;
    let path = format!("/api/v1/applications/{}/upstream", house.application);
    let never = [
        "Authorization",
        "authorization",
        "apiKey",
        "Cookie",
        "Host",
        "Content-Length",
        "Transfer-Encoding",
        "Transfer_Encoding",
        "Connection",
        "Mcp-Session-Id",
        "Sessiond-Session-Id",
        "Sessiond_Session_Id",
        "Via",
        "Forwarded",
        "X-Forwarded-For",
        "X-Real-IP",
        "X-Remote-User",
        "Set-Cookie",
        "Set-Cookie2",
        "Access-Control-Allow-Origin",
        "Location",
        "Clear-Site-Data",
        "NEL",
        "X-Accel-Redirect",
        "Cache-Control",
        "not a header",
        "",
    ];
    for direction in ["toUpstream", "toClient"] {
        for name in never {
            let body = json!({ "url": upstream.url, "headers": { direction: [name] } });
            let (status, body) = house.operator.put(&path, body).await;
            assert_eq!(status, StatusCode::BAD_REQUEST, "{direction} {name}: {body}");
            assert!(body.to_string().contains(&format!("headers.{direction}")), "{body}");
        }
        let many: Vec<_> = (0..33).map(|number| format!("x-{number}")).collect();
        let body = json!({ "url": upstream.url, "headers": { direction: many } });
        assert_eq!(house.operator.put(&path, body).await.0, StatusCode::BAD_REQUEST);
    }
}

#[tokio::test]
async fn what_the_gateway_sends_is_in_its_own_words_whatever_the_client_wrote() {
    let upstream = Scripted::start(|_| None).await;
    let house = House::before(&upstream.url, &[]).await;
    let (client, modern) = (house.connect().await, house.modern().await);
    let both = "application/json, text/event-stream";
    let says = |heard: &Heard| {
        let said = |name| heard.header(name).map(str::to_owned);
        (said("accept"), said("content-type"), said("accept-encoding"))
    };
    let ours = (Some(both.to_owned()), Some("application/json".to_owned()), Some("identity".to_owned()));
    for accept in
        [Some("*/*"), Some("text/event-stream;q=0.1, application/*"), Some("APPLICATION/JSON, TEXT/*"), None]
    {
        for content in ["Application/JSON", "application/json; charset=utf-8", "application/json"] {
            let request = client.http.post(&client.url).bearer_auth(&client.token);
            let request = request.header("mcp-session-id", client.session.as_deref().unwrap());
            let request = request.header("content-type", content).header("accept-encoding", "gzip, br");
            // The client library says */* by itself: a request without the header is written by hand below.
            let request = accept.iter().fold(request, |request, accept| request.header("accept", *accept));
            let answer = request.body(call(1).to_string()).send().await.unwrap();
            assert_eq!(answer.status(), StatusCode::OK, "{accept:?} {content}");
            assert_eq!(says(&upstream.last("tools/call")), ours, "{accept:?} {content}");
        }
    }
    assert_eq!(modern.call("say").await.0, StatusCode::OK);
    assert_eq!(says(&upstream.last("tools/call")), ours);
    client.listen().await;
    let get = upstream.heard().into_iter().rfind(|heard| heard.method == "GET").unwrap();
    assert_eq!(says(&get), (Some("text/event-stream".to_owned()), None, Some("identity".to_owned())));
}

#[tokio::test]
async fn a_request_without_an_accept_header_takes_everything() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let upstream = Scripted::start(|_| None).await;
    let house = House::before(&upstream.url, &[]).await;
    let client = house.connect().await;
    let body = call(1).to_string();
    let head = format!(
        "POST {} HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {}\r\nMcp-Session-Id: {}\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        house.path(),
        house.address(),
        client.token,
        client.session.as_deref().unwrap(),
        body.len(),
    );
    let mut connection = tokio::net::TcpStream::connect(house.address()).await.unwrap();
    connection.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

#[tokio::test]
async fn gateways_in_a_ring_refuse_what_has_passed_them() {
    let house = House::before("http://127.0.0.1:1/mcp", &[]).await;
    // An application whose upstream is its own gateway, and six whose upstreams are each other's.
    let mut ring = vec![house.application.clone()];
    for number in 1..6 {
        let (_, made) =
            house.operator.post("/api/v1/applications", json!({ "name": format!("ring {number}") })).await;
        ring.push(made["application"]["id"].as_str().unwrap().to_owned());
    }
    let token = house.token().await;
    for length in [1, 6] {
        for (place, id) in ring.iter().enumerate().take(length) {
            let next = house.server.url(&format!("/mcp/{}", ring[(place + 1) % length]));
            let credential =
                json!({ "type": "header", "name": "Authorization", "value": format!("Bearer {token}") });
            let body = json!({ "url": next, "credential": credential });
            let (status, body) =
                house.operator.put(&format!("/api/v1/applications/{id}/upstream"), body).await;
            assert!(status.is_success(), "{body}");
        }
        let legacy = house.client(&token).try_initialize().await;
        assert_eq!(legacy.status(), StatusCode::LOOP_DETECTED, "a ring of {length}");
        let said: Value = legacy.json().await.unwrap();
        assert_eq!(said["error"]["data"]["reason"], "gateway_loop");
        assert!(said["error"]["message"].as_str().unwrap().contains("Loop Detected"), "{said}");
        assert_eq!(house.connected().await, 0, "nothing came of the handshake");
    }
    let (_, said) = house.modern().await.call("say").await;
    assert!(said["error"].is_object(), "{said}");

    // A way that long leads nowhere.
    let way = vec!["1.1 another"; 16].join(", ");
    let client = house.client(&token);
    let answer = client.request(Method::POST).header("via", way).json(&call(1)).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::LOOP_DETECTED);
}
