//! AdmissionWebhooks of an OvenMediaEngine, and the hooks that take them.

use std::time::Duration;

use aws_lc_rs::hmac;
use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE, BASE64_URL_SAFE_NO_PAD};
use futures_util::future::join_all;
use serde_json::{Value, json};

use super::{Caller, PATIENT, SESSIONS, STATISTICS, again, caller, key};
use crate::support::Server;

const HOOKS: &str = "/api/v1/hooks";

/// A hook as its media server knows it.
struct Hook {
    caller: Caller,
    id: String,
    path: String,
    secret: String,
}

fn signed(secret: &str, body: &[u8]) -> Vec<u8> {
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, secret.as_bytes());
    hmac::sign(&key, body).as_ref().to_vec()
}

impl Hook {
    async fn new(server: &Server, body: Value) -> Self {
        let (status, made) = server.operator().await.post(HOOKS, body).await;
        assert_eq!(status, 201, "{made}");
        let id = made["hook"]["id"].as_str().unwrap().to_owned();
        let path = format!("/v1/hooks/ome/{id}");
        assert_eq!(made["hook"]["url"], server.url(&path));
        let secret = made["secret"].as_str().unwrap().to_owned();
        Self { caller: caller(server, None), id, path, secret }
    }

    async fn call(&self, body: &str, signature: Option<String>) -> (u16, String) {
        let request =
            self.caller.http.post(format!("{}{}", self.caller.base, self.path)).body(body.to_owned());
        let request = request.header("content-type", "application/json").header("accept", "application/json");
        let request = match signature {
            Some(signature) => request.header("X-OME-Signature", signature),
            None => request,
        };
        let response = request.send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    }

    async fn signed(&self, body: &Value) -> Value {
        let body = body.to_string();
        let signature = BASE64_URL_SAFE_NO_PAD.encode(signed(&self.secret, body.as_bytes()));
        let (status, text) = self.call(&body, Some(signature)).await;
        assert_eq!(status, 200, "{text}");
        serde_json::from_str(&text).unwrap()
    }

    /// A viewer, by the port it comes from, opens or closes a URL.
    async fn viewer(&self, status: &str, port: u16, url: &str) -> Value {
        self.signed(&call("outgoing", status, port, url)).await
    }

    async fn opens(&self, port: u16, url: &str) -> Value {
        self.viewer("opening", port, url).await
    }

    async fn closes(&self, port: u16, url: &str) {
        assert_eq!(self.viewer("closing", port, url).await, json!({}));
    }
}

fn call(direction: &str, status: &str, port: u16, url: &str) -> Value {
    json!({
        "client": { "address": "211.233.58.86", "port": port, "real_ip": "192.0.2.7", "user_agent": "player/1" },
        "request": {
            "direction": direction, "protocol": "webrtc", "status": status, "url": url,
            "time": "2021-05-12T13:45:00.000Z", "more": true,
        },
    })
}

const URL: &str = "ws://ome-host:3333/app/stream?session=my_session";

#[test]
fn the_published_example_has_the_published_signature() {
    let body = concat!(
        r#"{"client":{"address":"211.233.58.86","port":29291},"request":{"direction":"outgoing","protocol":"webrtc","#,
        r#""status":"opening","time":"2021-05-12T13:45:00.000Z","url":"ws://ome-host:3333/app/stream?session=my_session"}}"#
    );
    assert_eq!(body.len(), 216);
    let published = "Is6zV6YCHIUqdJLqHcA138YMAW0";
    assert!(sessiond::secret::hook_signed(b"1234", body.as_bytes(), published));
    assert_eq!(BASE64_URL_SAFE_NO_PAD.encode(signed("1234", body.as_bytes())), published);
    for wrong in [format!("{published}="), published.to_lowercase(), String::new(), "!".repeat(27)] {
        assert!(!sessiond::secret::hook_signed(b"1234", body.as_bytes(), &wrong), "{wrong}");
    }
    assert!(!sessiond::secret::hook_signed(b"1235", body.as_bytes(), published));
    assert!(!sessiond::secret::hook_signed(b"1234", &body.as_bytes()[1..], published));
}

#[tokio::test(flavor = "multi_thread")]
async fn number_17_a_viewer_comes_in_by_a_hook_and_leaves_by_it() {
    let server = Server::with(&PATIENT).await;
    let key = key(&server).await;
    let hook = Hook::new(&server, json!({ "name": "edge", "lifetime": 3_600 })).await;
    let told = hook.opens(29_291, URL).await;
    let lifetime = told["lifetime"].as_i64().unwrap();
    assert_eq!(told["allowed"], true);
    assert!((3_590_000..=3_600_000).contains(&lifetime), "{told}");
    assert_eq!(key.response(SESSIONS).await, json!(["my_session"]));
    let (_, all) = server.operator().await.get("/api/v1/sessions?kind=media").await;
    let session = &all["items"][0];
    assert_eq!(session["clientInfo"], json!({ "name": "webrtc", "port": 29_291 }));
    assert_eq!((&session["userAgent"], &session["policy"]["staleAfter"]), (&json!("player/1"), &Value::Null));
    // The same again, because its answer was lost: the same session. From elsewhere: taken.
    assert_eq!(hook.opens(29_291, URL).await["allowed"], true);
    let told = hook.opens(29_292, URL).await;
    let wanted =
        json!({ "allowed": false, "reason": "A session of this name is live on the stream: [my_session]" });
    assert_eq!(told, wanted);
    assert_eq!(key.response(SESSIONS).await, json!(["my_session"]));
    // Whoever was refused says goodbye too, and ends nobody else's session.
    hook.closes(29_292, URL).await;
    assert_eq!(key.response(SESSIONS).await, json!(["my_session"]));
    hook.closes(29_291, URL).await;
    assert_eq!(key.response(SESSIONS).await, json!([]));
    let (_, all) = server.operator().await.get("/api/v1/sessions?kind=media&status=all").await;
    assert_eq!(
        (all["items"].as_array().unwrap().len(), &all["items"][0]["disconnectReason"]),
        (1, &json!("client"))
    );
    hook.closes(29_291, URL).await;
    assert_eq!(hook.opens(29_292, URL).await["allowed"], true, "the name is free again");
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_signed_with_a_hooks_old_secret_are_good_until_its_time_and_no_longer() {
    let server = Server::start().await;
    let mut hook = Hook::new(&server, json!({ "name": "edge" })).await;
    let rotate = async |body: Value| {
        let path = format!("{HOOKS}/{}/rotate-secret", hook.id);
        let (status, made) = server.operator().await.post(&path, body).await;
        assert_eq!(status, 200, "{made}");
        made["secret"].as_str().unwrap().to_owned()
    };
    let until = server.clock.now() + chrono::TimeDelta::seconds(60);
    let new =
        rotate(json!({ "expireOldAt": until, "secret": "chosen by the operator".replace(' ', "-") })).await;
    assert_eq!(new, "chosen-by-the-operator");
    let last = rotate(json!({})).await;
    let old = std::mem::replace(&mut hook.secret, last.clone());
    let body = call("outgoing", "opening", 9, "rtmp://h/app/cam").to_string();
    for (secret, status) in [(&old, 401), (&new, 401), (&last, 200)] {
        let signature = BASE64_URL_SAFE_NO_PAD.encode(signed(secret, body.as_bytes()));
        assert_eq!(
            hook.call(&body, Some(signature)).await.0,
            status,
            "a rotation at once ends all before it"
        );
    }
    let until = server.clock.now() + chrono::TimeDelta::seconds(60);
    let path = format!("{HOOKS}/{}/rotate-secret", hook.id);
    let (_, made) = server.operator().await.post(&path, json!({ "expireOldAt": until })).await;
    let newest = made["secret"].as_str().unwrap().to_owned();
    for (seconds, secret, status) in [(0, &last, 200), (0, &newest, 200), (61, &last, 401), (0, &newest, 200)]
    {
        server.turn(seconds);
        let signature = BASE64_URL_SAFE_NO_PAD.encode(signed(secret, body.as_bytes()));
        assert_eq!(hook.call(&body, Some(signature)).await.0, status);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_signed_with_the_hooks_secret_is_401_and_recorded_nowhere() {
    let server = Server::start().await;
    let hook =
        Hook::new(&server, json!({ "name": "edge", "secret": "a secret of its own".replace(' ', "-") }))
            .await;
    let before = server.log().await.len();
    let body = call("outgoing", "opening", 1, URL).to_string();
    let good = signed(&hook.secret, body.as_bytes());
    let told = "{\"message\":\"[HTTP] Not signed with the secret of this hook (401)\",\"statusCode\":401}";
    for signature in [
        None,
        Some(BASE64_URL_SAFE.encode(&good)),
        Some(BASE64_STANDARD.encode(&good)),
        Some(BASE64_URL_SAFE_NO_PAD.encode(signed("1234", body.as_bytes()))),
        Some(BASE64_URL_SAFE_NO_PAD.encode(signed(&hook.secret, b"{}"))),
    ] {
        assert_eq!(hook.call(&body, signature.clone()).await, (401, told.to_owned()), "{signature:?}");
    }
    let signature = BASE64_URL_SAFE_NO_PAD.encode(&good);
    for id in ["00000000-0000-7000-8000-000000000000", "nonsense"] {
        let unknown = Hook {
            caller: hook.caller.clone(),
            id: id.to_owned(),
            path: format!("/v1/hooks/ome/{id}"),
            secret: hook.secret.clone(),
        };
        assert_eq!(unknown.call(&body, Some(signature.clone())).await.0, 401, "{id}");
    }
    assert_eq!(server.log().await.len(), before, "nothing was recorded");
    // Signed, but nothing that it could mean.
    for wrong in ["", "[]", "nonsense", "{}", r#"{"client":{"address":"x","port":-1},"request":{}}"#] {
        let signature = BASE64_URL_SAFE_NO_PAD.encode(signed(&hook.secret, wrong.as_bytes()));
        assert_eq!(hook.call(wrong, Some(signature)).await.0, 400, "{wrong}");
    }
    let large = format!("{{\"x\":\"{}\"}}", "x".repeat(16 << 10));
    let signature = BASE64_URL_SAFE_NO_PAD.encode(signed(&hook.secret, large.as_bytes()));
    assert_eq!(hook.call(&large, Some(signature)).await.0, 413);
    assert_eq!(server.log().await.len(), before, "nothing was recorded");
    // A hook that was deleted lets nobody in, also after a restart.
    let operator = server.operator().await;
    assert_eq!(operator.delete(&format!("{HOOKS}/{}", hook.id)).await.0, 204);
    assert_eq!(hook.call(&body, Some(BASE64_URL_SAFE_NO_PAD.encode(&good))).await.0, 401);
    let server = server.restart().await;
    let hook = Hook { caller: again(&server, &hook.caller), ..hook };
    assert_eq!(hook.call(&body, Some(BASE64_URL_SAFE_NO_PAD.encode(&good))).await.0, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_and_sessions_are_found_in_every_form_of_url() {
    let server = Server::with(&PATIENT).await;
    let key = key(&server).await;
    let hook = Hook::new(&server, json!({ "name": "edge", "vhost": "v" })).await;
    let names = [
        ("ws://host:3333/app/s1?session=a", "app/streams/s1", "a"),
        ("wss://host:3334/app/s2/webrtc?transport=tcp&session=b%20c", "app/streams/s2", "b c"),
        ("https://host/app/s3/llhls.m3u8?session=a", "app/streams/s3", "a"),
        ("http://host:80/live%2B/s%C3%BC/playlist?session=a", "live+/streams/sü", "a"),
        ("rtmp://host:1935/app/s5?session=a", "app/streams/s5", "a"),
        ("srt://host:9999?streamid=default%2Fapp%2Fs6%3Fsession%3Da", "app/streams/s6", "a"),
        ("srt://host:9999?streamid=default%2Fapp%2Fs7%2Fplaylist&session=a", "app/streams/s7", "a"),
        ("srt://host:9999?streamid=app%2Fs8&session=a", "app/streams/s8", "a"),
        ("srt://host:9999?streamid=srt%3A%2F%2Fhost%3A9999%2Fapp%2Fs9%3Fsession%3Da", "app/streams/s9", "a"),
    ];
    for (port, (url, place, name)) in (1..).zip(names) {
        assert_eq!(hook.opens(port, url).await["allowed"], true, "{url}");
        assert_eq!(
            key.response(&format!("/v1/vhosts/v/apps/{place}/sessions")).await,
            json!([name]),
            "{url}"
        );
        hook.closes(port, url).await;
        assert_eq!(key.response(&format!("/v1/vhosts/v/apps/{place}/sessions")).await, json!([]), "{url}");
    }
    for url in [
        "",
        "nonsense",
        "ws://host:3333",
        "ws://host/app",
        "ws://host/app/",
        "srt://host:9999?streamid=app",
        "ws://host/app/%FF",
    ] {
        let told = hook.opens(99, url).await;
        assert_eq!(
            told,
            json!({ "allowed": false, "reason": format!("The url names no app and stream: [{url}]") })
        );
        hook.closes(99, url).await;
    }
    let told = hook.opens(99, "ws://host/app/s?session=a%2Fb").await;
    assert_eq!(told["allowed"], false, "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_name_a_session_is_the_connections() {
    let server = Server::with(&PATIENT).await;
    let key = key(&server).await;
    let hook = Hook::new(&server, json!({ "name": "edge" })).await;
    let url = "ws://host:3333/app/stream";
    for port in [1, 2] {
        assert_eq!(hook.opens(port, url).await["allowed"], true);
        assert_eq!(hook.opens(port, url).await["allowed"], true, "said again");
    }
    let names = key.response(SESSIONS).await;
    let names: Vec<_> =
        names.as_array().unwrap().iter().map(|name| name.as_str().unwrap().to_owned()).collect();
    assert_eq!(names.len(), 2);
    for name in &names {
        assert_eq!(uuid::Uuid::parse_str(name).unwrap().get_version_num(), 4, "{name}");
    }
    // Also across a restart; and one that was sent elsewhere says where.
    let server = server.restart().await;
    let (hook, key) = (Hook { caller: again(&server, &hook.caller), ..hook }, again(&server, &key));
    let mut body = call("outgoing", "closing", 1, "ws://host:3333/app/elsewhere");
    body["request"]["new_url"] = json!(url);
    assert_eq!(hook.signed(&body).await, json!({}));
    assert_eq!(key.response(SESSIONS).await, json!([names[1]]));
    body["client"]["port"] = json!(2);
    body["request"]["url"] = json!(url);
    body["request"]["new_url"] = json!("ws://host:3333/app/elsewhere");
    assert_eq!(hook.signed(&body).await, json!({}));
    assert_eq!(key.response(SESSIONS).await, json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_sends_a_stream_declares_it_and_is_no_session() {
    let server = Server::start().await;
    let key = key(&server).await;
    let hook = Hook::new(&server, json!({ "name": "edge", "lifetime": 60 })).await;
    let url = "rtmp://host:1935/app/stream";
    assert_eq!(hook.signed(&call("incoming", "opening", 1, url)).await, json!({ "allowed": true }));
    assert_eq!(key.response(SESSIONS).await, json!([]));
    assert_eq!(hook.signed(&call("incoming", "closing", 1, url)).await, json!({}));
    assert_eq!(key.response("/v1/vhosts/default/apps/app/streams").await, json!(["stream"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lifetime_ends_a_session_of_a_hook_and_its_silence_does_not() {
    let server = Server::with(&["--stale-after", "60s"]).await;
    let key = key(&server).await;
    let hook = Hook::new(&server, json!({ "name": "edge", "lifetime": 600 })).await;
    hook.opens(1, URL).await;
    server.turn(500);
    assert_eq!(
        key.response(SESSIONS).await,
        json!(["my_session"]),
        "nothing is ever heard of it, and it stays"
    );
    let told = hook.opens(1, URL).await;
    assert!(told["lifetime"].as_i64().unwrap() <= 100_000, "what is left: {told}");
    server.turn(100);
    assert_eq!(key.response(SESSIONS).await, json!([]));
    assert_eq!(key.get(&format!("{STATISTICS}/my_session")).await.status, 404);
    assert_eq!(hook.opens(2, URL).await["allowed"], true, "the name is free at once");
    let ended = async || {
        let (_, all) = server.operator().await.get("/api/v1/sessions?kind=media&status=disconnected").await;
        all["items"][0]["disconnectReason"] == "lifetime"
    };
    server.until("the end of the first", ended).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn at_a_limit_the_hook_says_no() {
    let server = Server::with(&PATIENT).await;
    let (key, operator) = (key(&server).await, server.operator().await);
    let hook = Hook::new(&server, json!({ "name": "edge" })).await;
    hook.signed(&call("incoming", "opening", 1, "rtmp://host/app/stream")).await;
    let id = super::application(&operator, "default/app").await;
    let policy = json!({ "maxPerApplication": 2, "onLimit": "reject" });
    let (status, body) = operator.put(&format!("/api/v1/applications/{id}/policy"), policy).await;
    assert_eq!(status, 200, "{body}");
    let opened: Vec<Value> = vec![
        hook.opens(1, "ws://host/app/stream").await,
        hook.opens(2, "ws://host/app/stream").await,
        hook.opens(3, "ws://host/app/stream").await,
    ];
    assert_eq!((&opened[0]["allowed"], &opened[1]["allowed"]), (&json!(true), &json!(true)));
    assert_eq!(
        opened[2],
        json!({ "allowed": false, "reason": "the application allows 2 live sessions at a time; end one first" })
    );
    let told = key.post(SESSIONS, json!({ "name": "one" })).await;
    assert_eq!((told.status, told.text.contains("allows 2 live sessions")), (409, true), "{told:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn hooks_are_made_listed_and_deleted_by_who_manages() {
    let server = Server::start().await;
    let operator = server.operator().await;
    let first = Hook::new(&server, json!({ "name": "first" })).await;
    let second = Hook::new(&server, json!({ "name": "second", "vhost": "v", "lifetime": 60 })).await;
    assert!(first.secret.starts_with("osh_") && first.secret != second.secret);
    let (_, list) = operator.get(&format!("{HOOKS}?limit=1")).await;
    assert_eq!((&list["items"][0]["name"], &list["items"][0]["vhost"]), (&json!("second"), &json!("v")));
    let path = format!("{HOOKS}?limit=1&cursor={}", list["nextCursor"].as_str().unwrap());
    let (_, list) = operator.get(&path).await;
    assert_eq!((&list["items"][0]["name"], &list["items"][0]["lifetime"]), (&json!("first"), &Value::Null));
    assert!(!list.to_string().contains("osh_"), "a secret is shown once");
    for (body, field) in [
        (json!({ "name": "" }), "name"),
        (json!({ "name": "x", "vhost": "a/b" }), "vhost"),
        (json!({ "name": "x", "lifetime": 0 }), "lifetime"),
        (json!({ "name": "x", "secret": "short" }), "secret"),
        (json!({ "name": "x", "secret": "sixteen letters é" }), "secret"),
    ] {
        let (status, told) = operator.post(HOOKS, body).await;
        assert_eq!((status.as_u16(), &told["field"]), (400, &json!(field)), "{told}");
    }
    assert_eq!(operator.delete(&format!("{HOOKS}/{}", first.id)).await.0, 204);
    assert_eq!(operator.get(&format!("{HOOKS}/{}", first.id)).await.0, 404);
    assert_eq!(operator.delete(&format!("{HOOKS}/{}", first.id)).await.0, 404);
    let server = server.restart().await;
    let (_, list) = server.operator().await.get(HOOKS).await;
    assert_eq!(list["items"].as_array().unwrap().len(), 1);
    let told = Hook { caller: again(&server, &second.caller), ..second };
    assert_eq!(told.opens(1, URL).await["allowed"], true, "its secret is still the one");
    for number in 1..100 {
        let (status, _) = server.operator().await.post(HOOKS, json!({ "name": format!("{number}") })).await;
        assert_eq!(status, 201, "{number}");
    }
    let (status, told) = server.operator().await.post(HOOKS, json!({ "name": "one more" })).await;
    assert_eq!((status.as_u16(), &told["code"]), (409, &json!("hook_limit_reached")));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_older_engines_say_and_what_an_engine_asks_for_itself_is_taken() {
    let server = Server::with(&PATIENT).await;
    let key = key(&server).await;
    let hook = Hook::new(&server, json!({ "name": "edge" })).await;
    // Without a status, which is newer than the hooks are.
    let mut older = call("outgoing", "opening", 29_291, URL);
    older["request"].as_object_mut().unwrap().remove("status");
    assert_eq!(hook.signed(&older).await["allowed"], true);
    assert_eq!(key.response(SESSIONS).await, json!(["my_session"]));
    hook.closes(29_291, URL).await;
    // Without a client, as for a stream that the engine pulls.
    for direction in ["incoming", "outgoing"] {
        let mut pulled = call(direction, "opening", 0, URL);
        pulled["client"] = Value::Null;
        assert_eq!(hook.signed(&pulled).await["allowed"], true, "{direction}");
    }
    assert_eq!(key.response(SESSIONS).await, json!(["my_session"]));
    let mut left = call("outgoing", "closing", 0, URL);
    left["client"] = Value::Null;
    assert_eq!(hook.signed(&left).await, json!({}));
    assert_eq!(key.response(SESSIONS).await, json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_comes_in_by_a_hook_after_the_event_that_deleted_it() {
    let server = Server::with(&PATIENT).await;
    let operator = server.operator().await;
    for round in 0..8 {
        let hook = Hook::new(&server, json!({ "name": "edge" })).await;
        let come_in = async |port: u16| {
            let url = format!("ws://host/app/stream?session=round-{round}-{port}");
            let body = call("outgoing", "opening", port, &url).to_string();
            let signature = BASE64_URL_SAFE_NO_PAD.encode(signed(&hook.secret, body.as_bytes()));
            for _ in 0..20 {
                if hook.call(&body, Some(signature.clone())).await.0 != 200 {
                    return;
                }
            }
        };
        let delete = async {
            tokio::time::sleep(Duration::from_millis(10)).await;
            assert_eq!(operator.delete(&format!("{HOOKS}/{}", hook.id)).await.0, 204);
        };
        tokio::join!(join_all((1..=24).map(come_in)), delete);
        let mut inside = server.look_inside().await;
        let id = uuid::Uuid::parse_str(&hook.id).unwrap();
        let deleted = inside.number("select max(position) from event where type = 'hook_deleted'", &[]).await;
        let last = "select coalesce(max(position), 0) from event where actor_id = $1";
        let last = inside.number(last, &[id.into()]).await;
        assert!(0 < last && last < deleted, "round {round}: {last} beside {deleted}");
    }
}
