//! What the surface promises, number by number, and to the byte where its documents show bytes.

use reqwest::Method;
use serde_json::{Value, json};

use super::{PATIENT, SESSIONS, STATISTICS, STREAM, basic, caller, key, with_session};
use crate::support::Server;

/// Every path with the methods it takes.
const ROUTES: [(&str, &str); 18] = [
    ("GET", "/v1/vhosts"),
    ("GET", "/v1/vhosts/default/apps"),
    ("GET", "/v1/vhosts/default/apps/app/streams"),
    ("PUT", STREAM),
    ("GET", SESSIONS),
    ("POST", SESSIONS),
    ("POST", "/v1/vhosts/default/apps/app/streams/stream/sessions:report"),
    ("POST", "/v1/vhosts/default/apps/app/sessions:report"),
    ("DELETE", "/v1/vhosts/default/apps/app/streams/stream/sessions/one"),
    ("POST", "/v1/vhosts/default/apps/app/streams/stream/sessions/one:report"),
    ("GET", "/v1/vhosts/default/apps/app/streams/stream/sessions/one/throughput"),
    ("GET", "/v1/vhosts/default/apps/app/streams/stream/throughput"),
    ("GET", "/v1/vhosts/default/apps/app/throughput"),
    ("GET", "/v1/vhosts/default/throughput"),
    ("GET", "/v1/stats/current/vhosts/default"),
    ("GET", "/v1/stats/current/vhosts/default/apps/app"),
    ("GET", "/v1/stats/current/vhosts/default/apps/app/streams/stream"),
    ("GET", "/v1/stats/current/vhosts/default/apps/app/streams/stream/sessions/one"),
];

const REALM: &str = "Basic realm=\"OvenMediaEngine\"";
const NO_SESSION: &str =
    r#"{"message":"Not Found","response":"Could not find the session","statusCode":404}"#;

fn method(name: &str) -> Method {
    Method::from_bytes(name.as_bytes()).unwrap()
}

fn thrown(text: &str, status: u16) -> String {
    format!(r#"{{"message":"[HTTP] {text} ({status})","statusCode":{status}}}"#)
}

#[tokio::test(flavor = "multi_thread")]
async fn number_1_without_authorization_every_route_is_401_with_the_realm() {
    let server = Server::with(&["--trusted-proxy", "127.0.0.0/8"]).await;
    let nobody = caller(&server, None);
    let told =
        "{\"message\":\"[HTTP] Authorization header is required to call API (401)\",\"statusCode\":401}";
    for (name, path) in ROUTES {
        let answer = nobody.send(method(name), path, None).await;
        assert_eq!(answer.said(), (401, told), "{name} {path}");
        assert_eq!(answer.headers["www-authenticate"], REALM);
        assert_eq!(answer.headers.get_all("www-authenticate").iter().count(), 1);
        assert_eq!(answer.headers["content-type"], "application/json");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn number_2_the_other_four_refusals_say_what_is_wrong_with_the_header() {
    let server = Server::start().await;
    let key = key(&server).await;
    let good = key.authorization.clone().unwrap();
    for (authorization, text) in [
        ("Basic", "Invalid authorization header"),
        ("Basic a b", "Invalid authorization header"),
        ("Basic  YQ==", "Invalid authorization header"),
        ("Bearer abc", "Not supported credential type: Bearer"),
        ("dIGEST abc", "Not supported credential type: dIGEST"),
        ("Basic !!!", "Invalid credential format"),
        ("Basic b21lLWFjY2Vzcy10b2tlbg==", "Invalid credential"),
    ] {
        let answer = caller(&server, authorization.to_owned()).get("/v1/vhosts").await;
        assert_eq!(answer.said(), (401, thrown(text, 401).as_str()), "{authorization}");
        assert_eq!(answer.headers["www-authenticate"], REALM, "{authorization}");
    }
    for scheme in ["basic", "BASIC", "bAsIc"] {
        let other = good.replace("Basic", scheme);
        assert_eq!(caller(&server, other).get("/v1/vhosts").await.status, 200, "{scheme}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn number_3_unknown_paths_are_401_to_strangers_and_404_to_others() {
    let server = Server::start().await;
    let (key, nobody) = (key(&server).await, caller(&server, None));
    let told = thrown("Controller not found", 404);
    let unregistered = [
        ("GET", "/v1"),
        ("GET", "/v1/nothing/here"),
        ("POST", "/v1/vhosts"),
        ("PATCH", STREAM),
        ("PROPFIND", SESSIONS),
        ("GET", "/v1/vhosts/default/apps/app/streams/stream/sessions/one"),
        ("POST", "/v1/vhosts/default/apps/app/streams/stream/sessions/one"),
        ("POST", "/v1/vhosts/default/apps/app/streams/stream/sessions/one:end"),
        ("POST", "/v1/vhosts/default/apps/app/streams/stream/sessions/:report"),
    ];
    for (name, path) in unregistered {
        let body = json!({ "totalBytesOut": 1 });
        let answer = key.send(method(name), path, Some(&body)).await;
        assert_eq!(answer.said(), (404, told.as_str()), "{name} {path}");
    }
    for (name, path) in &unregistered[..4] {
        assert_eq!(nobody.send(method(name), path, None).await.status, 401, "{name} {path}");
    }
    // What begins alike is somebody else's.
    assert_eq!(nobody.get("/v1x").await.json()["code"], "not_found");
}

#[tokio::test(flavor = "multi_thread")]
async fn number_4_a_list_has_the_names_of_live_sessions_and_no_others() {
    let server = Server::start().await;
    let key = key(&server).await;
    assert_eq!(key.put(STREAM).await.status, 201);
    assert_eq!(key.get(SESSIONS).await.said(), (200, r#"{"message":"OK","response":[],"statusCode":200}"#));
    let names = ["3925d357-59b3-4b4e-b217-81c9f71e4674", "b", "a"];
    for name in names {
        key.post(SESSIONS, json!({ "name": name })).await;
    }
    let told = format!(r#"{{"message":"OK","response":["{}","b","a"],"statusCode":200}}"#, names[0]);
    assert_eq!(key.get(SESSIONS).await.said(), (200, told.as_str()));
    key.delete(&format!("{SESSIONS}/b")).await;
    key.delete(&format!("{SESSIONS}/a")).await;
    let told = format!(r#"{{"message":"OK","response":["{}"],"statusCode":200}}"#, names[0]);
    assert_eq!(key.get(SESSIONS).await.said(), (200, told.as_str()));
}

#[tokio::test(flavor = "multi_thread")]
async fn number_5_what_is_not_there_is_said_at_its_level() {
    let (_server, key) = with_session("one", &[]).await;
    for (path, text) in [
        ("/v1/vhosts/nope/apps", "Could not find the virtual host: [nope]"),
        ("/v1/vhosts/nope/apps/app/streams", "Could not find the virtual host: [nope]"),
        ("/v1/vhosts/nope/apps/app/streams/stream/sessions", "Could not find the virtual host: [nope]"),
        ("/v1/vhosts/default/apps/nope/streams", "Could not find the application: [default/nope]"),
        ("/v1/vhosts/default/apps/nope/streams/s/sessions", "Could not find the application: [default/nope]"),
        (
            "/v1/vhosts/default/apps/app/streams/nonexistent-stream/sessions",
            "Could not find the stream: [default/#default#app/nonexistent-stream]",
        ),
    ] {
        assert_eq!(key.get(path).await.said(), (404, thrown(text, 404).as_str()), "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_6_and_7_a_terminated_session_is_gone_and_cannot_be_terminated_again() {
    let (server, key) = with_session("one", &[]).await;
    let operator = server.operator().await;
    let path = format!("{SESSIONS}/one");
    assert_eq!(key.delete(&path).await.said(), (200, r#"{"message":"OK","statusCode":200}"#));
    assert_eq!(key.get(SESSIONS).await.json()["response"], json!([]));
    assert_eq!(key.get(&format!("{STATISTICS}/one")).await.said(), (404, NO_SESSION));
    assert_eq!(key.delete(&path).await.said(), (404, NO_SESSION));
    assert_eq!(key.delete(&format!("{SESSIONS}/never")).await.said(), (404, NO_SESSION));
    let (_, all) = operator.get("/api/v1/sessions?kind=media&status=all").await;
    assert_eq!(
        (&all["items"][0]["disconnectReason"], &all["items"][0]["resource"]),
        (&json!("terminated"), &json!("stream"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_8_and_11_whoever_goes_astray_on_the_way_to_a_session_is_told_where() {
    let (_server, key) = with_session("one", &[]).await;
    for (place, text) in [
        ("vhosts/x/apps/app/streams/stream", "Could not find the virtual host: [x]"),
        ("vhosts/default/apps/x/streams/stream", "Could not find the application: [default/x]"),
        ("vhosts/default/apps/app/streams/x", "Could not find the stream: [default/#default#app/x]"),
    ] {
        let told = thrown(text, 404);
        for (name, path) in [
            ("DELETE", format!("/v1/{place}/sessions/one")),
            ("GET", format!("/v1/stats/current/{place}/sessions/one")),
            ("GET", format!("/v1/{place}/sessions/one/throughput")),
            ("POST", format!("/v1/{place}/sessions/one:report")),
            ("POST", format!("/v1/{place}/sessions:report")),
        ] {
            let body = json!({ "session": "one", "totalBytesOut": 1 });
            let answer = key.send(method(name), &path, Some(&body)).await;
            assert_eq!(answer.said(), (404, told.as_str()), "{name} {path}");
        }
    }
    for (name, path) in [
        ("GET", format!("{STATISTICS}/two")),
        ("GET", format!("{SESSIONS}/two/throughput")),
        ("POST", format!("{SESSIONS}/two:report")),
    ] {
        let answer = key.send(method(name), &path, Some(&json!({ "totalBytesOut": 1 }))).await;
        assert_eq!(answer.said(), (404, NO_SESSION), "{name} {path}");
    }
}

/// Names of members in the order in which they stand in a text.
fn members(text: &str) -> Vec<String> {
    let mut rest = text;
    let mut names = vec![];
    while let Some((name, after)) = rest.split_once("\":") {
        names.push(name.rsplit('"').next().unwrap().to_owned());
        rest = after;
    }
    names
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_9_and_10_statistics_are_what_the_bytes_come_to() {
    let flags = [&PATIENT[..], &["--media-time-zone", "Asia/Seoul"]].concat();
    let (server, key) = with_session("one", &flags).await;
    let path = format!("{STATISTICS}/one");
    let fresh = key.get(&path).await;
    assert_eq!(
        members(&fresh.text),
        [
            "message",
            "response",
            "avgThroughputOut",
            "createdTime",
            "lastSentTime",
            "lastThroughputOut",
            "lastUpdatedTime",
            "maxThroughputOut",
            "totalBytesOut",
            "statusCode"
        ]
    );
    let fresh = fresh.json()["response"].clone();
    let created = fresh["createdTime"].as_str().unwrap().to_owned();
    assert_eq!((created.len(), &created[23..]), (29, "+09:00"), "{created}");
    assert_eq!((&fresh["lastSentTime"], &fresh["lastUpdatedTime"]), (&json!(created), &json!(created)));
    for figure in ["avgThroughputOut", "lastThroughputOut", "maxThroughputOut", "totalBytesOut"] {
        assert_eq!(fresh[figure], 0, "{figure}");
    }
    // The figures of the document: 149,971 bytes in all, the last 30,345 of them within 1.02307 s.
    server.turn(30);
    let began = chrono::DateTime::parse_from_rfc3339(&created).unwrap();
    let at = |milliseconds: i64| {
        let time = began + chrono::TimeDelta::milliseconds(milliseconds);
        time.to_rfc3339_opts(chrono::SecondsFormat::Millis, false)
    };
    for (time, total) in [(1_000, 30_000), (2_000, 60_099), (3_914, 119_626), (4_937, 149_971)] {
        let body = json!({ "totalBytesOut": total, "time": at(time) });
        let told = key.post(&format!("{SESSIONS}/one:report"), body).await;
        let wanted = r#"{"message":"OK","response":{"session":"one","reading":"counted"},"statusCode":200}"#;
        assert_eq!(told.said(), (200, wanted));
    }
    let told = key.get(&path).await.json()["response"].clone();
    let wanted = json!({
        "avgThroughputOut": 30_345 * 8_000 / 1_023,
        "createdTime": created,
        "lastSentTime": at(4_937),
        "lastThroughputOut": 30_345,
        "lastUpdatedTime": at(4_937),
        "maxThroughputOut": 59_527 * 8_000 / 1_914,
        "totalBytesOut": 149_971,
    });
    assert_eq!(told, wanted);
    // A reading without new bytes is an update and no sending.
    key.post(&format!("{SESSIONS}/one:report"), json!({ "totalBytesOut": 149_971, "time": at(6_500) })).await;
    let told = key.get(&path).await.json()["response"].clone();
    assert_eq!((&told["lastSentTime"], &told["lastUpdatedTime"]), (&json!(at(4_937)), &json!(at(6_500))));
    assert_eq!((&told["avgThroughputOut"], &told["lastThroughputOut"]), (&json!(0), &json!(0)));
    assert_eq!(told["maxThroughputOut"], wanted["maxThroughputOut"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn number_12_a_session_is_listed_by_the_name_it_asked_for_or_by_a_uuid() {
    let (_server, key) = with_session("my_session", &[]).await;
    let told = key.post(SESSIONS, json!({})).await;
    let name = told.json()["response"]["name"].as_str().unwrap().to_owned();
    let id = told.json()["response"]["id"].as_str().unwrap().to_owned();
    let wanted =
        format!(r#"{{"message":"Created","response":{{"name":"{name}","id":"{id}"}},"statusCode":201}}"#);
    assert_eq!(told.said(), (201, wanted.as_str()));
    assert_eq!(uuid::Uuid::parse_str(&name).unwrap().get_version_num(), 4);
    assert_eq!(key.response(SESSIONS).await, json!(["my_session", name]));
    // Nothing at all is as good as an empty object.
    let told = key.send(Method::POST, SESSIONS, None).await;
    assert_eq!(told.status, 201);
}

#[tokio::test(flavor = "multi_thread")]
async fn number_13_a_name_that_is_live_on_the_stream_is_refused_and_the_first_stays() {
    let (server, key) = with_session("one", &[]).await;
    let first = server.operator().await.get("/api/v1/sessions?kind=media").await.1["items"][0]["id"].clone();
    let told = thrown("A session of this name is live on the stream: [one]", 409);
    assert_eq!(key.post(SESSIONS, json!({ "name": "one" })).await.said(), (409, told.as_str()));
    assert_eq!(key.response(SESSIONS).await, json!(["one"]));
    let still = server.operator().await.get("/api/v1/sessions?kind=media").await.1["items"][0]["id"].clone();
    assert_eq!(first, still);
    for other in ["apps/app/streams/other", "apps/other/streams/stream"] {
        let path = format!("/v1/vhosts/default/{other}/sessions");
        assert_eq!(key.post(&path, json!({ "name": "one" })).await.status, 201, "{other}");
    }
    key.delete(&format!("{SESSIONS}/one")).await;
    assert_eq!(key.post(SESSIONS, json!({ "name": "one" })).await.status, 201);
    // In one call the first of two is the one.
    let told = key.post(SESSIONS, json!([{ "name": "two" }, { "name": "two" }, { "name": 3 }])).await;
    let statuses: Vec<_> =
        told.json().as_array().unwrap().iter().map(|item| item["statusCode"].clone()).collect();
    assert_eq!((told.status, statuses), (207, vec![json!(201), json!(409), json!(400)]));
    assert_eq!(
        told.json()[1],
        json!({ "message": "A session of this name is live on the stream: [two]", "statusCode": 409 })
    );
    let wrong = told.json()[2]["message"].as_str().unwrap().to_owned();
    assert!(wrong.starts_with("In the body, [2].name: invalid type"), "{wrong}");
    let told = key.post(SESSIONS, json!([{ "name": "three" }, { "name": "four" }])).await;
    assert_eq!((told.status, told.json()[1]["response"]["name"].as_str()), (201, Some("four")));
}

#[tokio::test(flavor = "multi_thread")]
async fn number_14_names_are_segments_of_paths() {
    let server = Server::start().await;
    let key = key(&server).await;
    let name = "Zürich: α/β"; // a slash must come encoded, and is refused
    let told = key.post(SESSIONS, json!({ "name": name })).await;
    assert_eq!(told.status, 400);
    assert!(told.text.contains("name must be 1 to 255 bytes, without slashes"), "{told:?}");
    for (name, path) in
        [("Zürich: α", "Z%C3%BCrich%3A%20%CE%B1"), ("50%", "50%25"), ("a:report", "a%3Areport")]
    {
        assert_eq!(key.post(SESSIONS, json!({ "name": name })).await.status, 201, "{name}");
        let told = key.post(&format!("{SESSIONS}/{path}:report"), json!({ "totalBytesOut": 7 })).await;
        assert_eq!((told.status, &told.json()["response"]["session"]), (200, &json!(name)));
        let told = key.response(&format!("{STATISTICS}/{path}")).await;
        assert_eq!(told["totalBytesOut"], 7, "{name}");
        assert_eq!(key.delete(&format!("{SESSIONS}/{path}")).await.status, 200, "{name}");
    }
    let stream = "/v1/vhosts/d%C3%A9faut/apps/%2523/streams/s%20t";
    assert_eq!(key.put(stream).await.status, 201);
    assert_eq!(key.response("/v1/vhosts").await, json!(["default", "défaut"]));
    assert_eq!(key.response("/v1/vhosts/d%C3%A9faut/apps").await, json!(["%23"]));
    for wrong in ["x%2Fy", "%20", "%00", "%2E%2E", &"x".repeat(256)] {
        let told = key.put(&format!("/v1/vhosts/default/apps/app/streams/{wrong}")).await;
        let found = told.status == 400 || told.status == 404;
        assert!(found, "{wrong}: {told:?}");
    }
    let told = key.get("/v1/vhosts/%FF/apps").await;
    assert_eq!((told.status, told.text.contains("UTF-8")), (400, true));
    assert_eq!(key.response("/v1/vhosts/default/apps/app/streams").await, json!(["stream"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn number_15_options_need_nobody_and_head_is_get_without_a_body() {
    let (server, key) = with_session("one", &[]).await;
    let nobody = caller(&server, None);
    for (_, path) in ROUTES {
        let told = nobody.send(Method::OPTIONS, path, None).await;
        assert_eq!(told.said(), (204, ""), "{path}");
    }
    assert_eq!(nobody.send(Method::OPTIONS, "/v1/nothing", None).await.status, 204);
    for (_, path) in ROUTES.iter().filter(|(name, _)| *name == "GET") {
        let told = key.send(Method::HEAD, path, None).await;
        assert_eq!(told.said(), (200, ""), "{path}");
        assert_eq!(nobody.send(Method::HEAD, path, None).await.status, 401, "{path}");
    }
}

/// A body of the documents, without the space that is there for people.
fn compact(shown: &str) -> String {
    let mut within = false;
    let kept = shown.chars().filter(|character| {
        within ^= *character == '"';
        within || !character.is_whitespace()
    });
    kept.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn number_16_bodies_are_those_of_the_documents() {
    let (server, key) = with_session("3925d357-59b3-4b4e-b217-81c9f71e4674", &[]).await;
    let list = compact(
        "{\n    \"message\": \"OK\",\n    \"response\": [\n        \"3925d357-59b3-4b4e-b217-81c9f71e4674\"\n    ],\n    \"statusCode\": 200\n}",
    );
    assert_eq!(key.get(SESSIONS).await.said(), (200, list.as_str()));
    let unauthorized = compact(
        "{\n    \"message\": \"[HTTP] Authorization header is required to call API (401)\",\n    \"statusCode\": 401\n}",
    );
    assert_eq!(caller(&server, None).get(SESSIONS).await.said(), (401, unauthorized.as_str()));
    let no_stream = compact(
        "{\n    \"message\": \"[HTTP] Could not find the stream: [default/#default#app/nonexistent-stream] (404)\",\n    \"statusCode\": 404\n}",
    );
    let path = "/v1/vhosts/default/apps/app/streams/nonexistent-stream/sessions";
    assert_eq!(key.get(path).await.said(), (404, no_stream.as_str()));
    let no_session = compact(
        "{\n    \"message\": \"Not Found\",\n    \"response\": \"Could not find the session\",\n    \"statusCode\": 404\n}",
    );
    assert_eq!(key.delete(&format!("{SESSIONS}/x")).await.said(), (404, no_session.as_str()));
    assert_eq!(key.get(&format!("{STATISTICS}/x")).await.said(), (404, no_session.as_str()));
    let done = compact("{\n    \"message\": \"OK\",\n    \"statusCode\": 200\n}");
    let path = format!("{SESSIONS}/3925d357-59b3-4b4e-b217-81c9f71e4674");
    assert_eq!(key.delete(&path).await.said(), (200, done.as_str()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_genuine_credential_without_the_scope_is_told_which_it_lacks() {
    let server = Server::start().await;
    let operator = server.operator().await;
    let (_, made) = operator.post("/api/v1/api-keys", json!({ "name": "x", "scopes": ["mcp:invoke"] })).await;
    let told = thrown("Insufficient scope: this needs media", 403);
    for token in [made["key"].as_str().unwrap(), operator.token.as_deref().unwrap()] {
        let answer = caller(&server, basic(token)).get("/v1/vhosts").await;
        assert_eq!(answer.said(), (403, told.as_str()));
    }
    // A key that is over, and one that was revoked.
    let body = json!({ "name": "x", "scopes": ["media"], "expiresAt": "2099-01-01T00:00:00Z" });
    let (_, made) = operator.post("/api/v1/api-keys", body).await;
    let key = caller(&server, basic(made["key"].as_str().unwrap()));
    assert_eq!(key.get("/v1/vhosts").await.status, 200);
    operator.delete(&format!("/api/v1/api-keys/{}", made["apiKey"]["id"].as_str().unwrap())).await;
    assert_eq!(key.get("/v1/vhosts").await.said(), (401, thrown("Invalid credential", 401).as_str()));
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_are_limited_and_a_genuine_key_from_the_same_address_is_not() {
    let server = Server::start().await;
    let (key, nobody) = (key(&server).await, caller(&server, basic("ome-access-token")));
    let mut last = nobody.get("/v1/vhosts").await;
    for _ in 0..200 {
        last = nobody.get("/v1/vhosts").await;
        if last.status == 429 {
            break;
        }
    }
    let text = thrown("Too many failed attempts to authenticate from this address", 429);
    assert_eq!(last.said(), (429, text.as_str()));
    assert!(last.headers.contains_key("retry-after"));
    assert_eq!(key.get("/v1/vhosts").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_come_with_their_first_declaration_and_go_with_their_application() {
    let server = Server::start().await;
    let (key, operator) = (key(&server).await, server.operator().await);
    assert_eq!(key.response("/v1/vhosts").await, json!([]));
    let first = key.put("/v1/vhosts/b/apps/one/streams/x").await;
    assert_eq!(first.status, 201);
    let second = key.put("/v1/vhosts/b/apps/one/streams/x").await;
    assert_eq!((second.status, &second.json()["response"]), (200, &first.json()["response"]));
    for path in ["b/apps/one/streams/a", "b/apps/two/streams/y", "a/apps/one/streams/z"] {
        key.put(&format!("/v1/vhosts/{path}")).await;
    }
    assert_eq!(key.response("/v1/vhosts").await, json!(["a", "b"]));
    assert_eq!(key.response("/v1/vhosts/b/apps").await, json!(["one", "two"]));
    assert_eq!(key.response("/v1/vhosts/b/apps/one/streams").await, json!(["a", "x"]));
    key.post("/v1/vhosts/b/apps/one/streams/x/sessions", json!({ "name": "one" })).await;
    let id = super::application(&operator, "b/one").await;
    assert_eq!(operator.delete(&format!("/api/v1/applications/{id}")).await.0, 204);
    assert_eq!(key.response("/v1/vhosts/b/apps").await, json!(["two"]));
    let gone = key.get("/v1/vhosts/b/apps/one/streams/x/sessions").await;
    assert_eq!(gone.said(), (404, thrown("Could not find the application: [b/one]", 404).as_str()));
    // Declared again it is another's, and has none of the sessions of before.
    assert_eq!(key.put("/v1/vhosts/b/apps/one/streams/x").await.status, 201);
    assert_eq!(key.response("/v1/vhosts/b/apps/one/streams").await, json!(["x"]));
    assert_eq!(key.response("/v1/vhosts/b/apps/one/streams/x/sessions").await, json!([]));
    let server = server.restart().await;
    let key = super::again(&server, &key);
    assert_eq!(key.response("/v1/vhosts/b/apps").await, json!(["one", "two"]));
    assert_ne!(super::application(&server.operator().await, "b/one").await, id);
}

#[tokio::test(flavor = "multi_thread")]
async fn names_are_free_within_an_organization_and_nobody_elses() {
    let (server, key) = with_session("one", &[]).await;
    let platform = server.holder(server.token("platform:admin").await);
    let (_, founded) = platform.post("/api/v1/organizations", json!({ "name": "other" })).await;
    let text = |at: &str| founded.pointer(at).and_then(Value::as_str).unwrap().to_owned();
    let (id, secret) = (text("/serviceAccount/clientId"), text("/serviceAccount/clientSecret"));
    let manager = server.holder(server.token_for(&id, &secret, "management:all").await);
    let (_, made) = manager.post("/api/v1/api-keys", json!({ "name": "m", "scopes": ["media"] })).await;
    let other = caller(&server, basic(made["key"].as_str().unwrap()));
    assert_eq!(other.response("/v1/vhosts").await, json!([]));
    let told = thrown("Could not find the virtual host: [default]", 404);
    assert_eq!(other.get(SESSIONS).await.said(), (404, told.as_str()));
    assert_eq!(other.delete(&format!("{SESSIONS}/one")).await.said(), (404, told.as_str()));
    assert_eq!(other.post(SESSIONS, json!({ "name": "one" })).await.status, 201, "the name is free there");
    other.delete(&format!("{SESSIONS}/one")).await;
    assert_eq!(key.response(SESSIONS).await, json!(["one"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_said_of_a_session_is_kept_or_refused_by_name() {
    let server = Server::start().await;
    let (key, operator) = (key(&server).await, server.operator().await);
    for (body, said) in [
        (json!({ "name": "" }), "name must be 1 to 255 bytes"),
        (json!({ "name": 3 }), "In the body, name: invalid type"),
        (json!({ "client": { "port": 70_000 } }), "In the body, client.port: invalid value"),
        (json!({ "client": { "address": "example.com" } }), "client.address must be an IP address"),
        (json!({ "lifetime": -1 }), "In the body, lifetime: invalid value"),
        (json!({ "protocol": "" }), "protocol must be 1 to 255 bytes"),
    ] {
        let told = key.post(SESSIONS, body).await;
        assert_eq!(told.status, 400, "{told:?}");
        assert!(told.json()["message"].as_str().unwrap().starts_with(&format!("[HTTP] {said}")), "{told:?}");
    }
    assert_eq!(key.response("/v1/vhosts").await, json!([]), "nothing was declared");
    let body = json!({
        "name": "one", "client": { "address": "192.0.2.7", "port": 29_291, "userAgent": "player/1" },
        "protocol": "webrtc", "lifetime": 60_000, "unknown": [1],
    });
    assert_eq!(key.post(SESSIONS, body).await.status, 201);
    let (_, all) = operator.get("/api/v1/sessions?client=webrtc&resource=stream").await;
    let session = &all["items"][0];
    assert_eq!(session["clientInfo"], json!({ "name": "webrtc", "port": 29_291 }));
    assert_eq!((&session["userAgent"], &session["name"]), (&json!("player/1"), &json!("one")));
    assert_eq!((&session["kind"], &session["tokenExpiresAt"]), (&json!("media"), &Value::Null));
    let items: Vec<Value> = (0..1_001).map(|number| json!({ "name": number.to_string() })).collect();
    let told = key.post(SESSIONS, json!(items)).await;
    assert_eq!(
        told.said(),
        (400, thrown("A call may hold at most 1000 items; this one holds 1001", 400).as_str())
    );
    let told = key.post(SESSIONS, json!(items[..1_000])).await;
    assert_eq!((told.status, key.response(SESSIONS).await.as_array().unwrap().len()), (201, 1_001));
    assert_eq!(key.post(SESSIONS, json!([])).await.said(), (200, "[]"));
}
