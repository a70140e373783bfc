//! The acceptance checklist of the surface, one test for each of its items.

use std::collections::BTreeSet;

use chrono::DateTime;
use reqwest::Method;
use serde_json::{Value, json};

use super::websocket_client::Received;
use super::{House, MACHINES, SESSIONS, TerminalClient, key, machine, machine_body, refusal};
use crate::support::Holder;

fn unauthorized() -> Value {
    json!({ "success": false, "error": { "code": "UNAUTHORIZED", "message": "Invalid or expired token" } })
}

fn keys(value: &Value) -> BTreeSet<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

/// A time of this surface: ISO 8601, UTC, whole seconds.
fn time(value: &Value) -> DateTime<chrono::Utc> {
    let text = value.as_str().unwrap();
    assert_eq!((text.len(), &text[19..]), (20, "Z"), "{text}");
    text.parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_token_and_a_bad_token_are_unauthorized_in_these_words() {
    let house = House::new().await;
    let opened = house.open(&house.own).await;
    let one = format!("{SESSIONS}/{}", opened.id);
    let machine = format!("{MACHINES}/{}", house.machine);
    let session_token = house.server.holder(opened.token.clone());
    let bad = house.server.holder("sak_nonsense");
    let another_surface = key(&house.server, json!({ "name": "m", "scopes": ["media"] })).await;
    let operations = [
        (Method::GET, SESSIONS.to_owned()),
        (Method::POST, SESSIONS.to_owned()),
        (Method::GET, format!("{SESSIONS}/stats")),
        (Method::GET, format!("{SESSIONS}/commands?q=x")),
        (Method::GET, one.clone()),
        (Method::DELETE, one.clone()),
        (Method::GET, format!("{one}/logs")),
        (Method::GET, format!("{one}/recording")),
        (Method::POST, format!("{one}/viewers")),
        (Method::GET, MACHINES.to_owned()),
        (Method::POST, MACHINES.to_owned()),
        (Method::GET, machine.clone()),
        (Method::PATCH, machine.clone()),
        (Method::DELETE, machine.clone()),
        (Method::POST, format!("{machine}/test")),
    ];
    for (method, path) in operations {
        for holder in [&house.server.stranger(), &bad, &session_token] {
            let answer = holder.send(method.clone(), &path, Some(&json!({}))).await;
            assert_eq!(answer.status(), 401, "{method} {path}");
            assert_eq!(answer.headers()["content-type"], "application/json");
            assert_eq!(answer.json::<Value>().await.unwrap(), unauthorized());
        }
        let answer = another_surface.send(method.clone(), &path, Some(&json!({}))).await;
        assert_eq!(answer.status(), 403, "{method} {path}");
        let body: Value = answer.json().await.unwrap();
        assert_eq!((&body["success"], body["error"]["code"].is_string()), (&json!(false), true), "{body}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_list_has_exactly_this_shape() {
    let house = House::new().await;
    let opened = house.open(&house.ada).await;
    let (status, body) = house.ada.get(SESSIONS).await;
    assert_eq!((status.as_u16(), &body["success"]), (200, &json!(true)));
    assert_eq!(body["data"]["pagination"], json!({ "page": 1, "limit": 100, "total": 1, "total_pages": 1 }));
    let item = &body["data"]["sessions"][0];
    let (user, started, last) = (&item["user"]["id"], &item["started_at"], &item["last_activity"]);
    assert!((time(last) - time(started)).num_seconds() <= 2);
    assert!(user.as_str().unwrap().starts_with("usr_") && opened.id.starts_with("sess_"));
    assert_eq!(
        *item,
        json!({
            "id": opened.id,
            "user": { "id": user, "name": "Ada Lovelace" },
            "machine": { "id": house.machine, "name": "Production Server" },
            "status": "active",
            "started_at": started,
            "last_activity": started,
            "ip_address": "127.0.0.1",
        })
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn filters_are_joined_by_and_and_what_cannot_be_read_is_refused() {
    let house = House::new().await;
    let second = machine(&house.own, &machine_body(&house.sshd)).await;
    house.own.post(&format!("{MACHINES}/{second}/test"), json!({ "pin_host_key": true })).await;
    let ended = house.open(&house.ada).await.id;
    assert_eq!(house.own.delete(&format!("{SESSIONS}/{ended}")).await.0, 200);
    house.server.turn(86_400);
    let (adas, owns) = (house.open(&house.ada).await.id, house.open(&house.own).await.id);
    let elsewhere = house.open_with(&house.ada, json!({ "machine_id": second })).await.id;
    let user = house.detail(&adas).await["user"]["id"].as_str().unwrap().to_owned();
    let first_day = house.detail(&ended).await["started_at"].as_str().unwrap()[..10].to_owned();
    let started = house.detail(&adas).await["started_at"].as_str().unwrap().to_owned();
    let today = started[..10].to_owned();
    let first = &house.machine;
    let unknown = format!("mch_{}", "0".repeat(32));
    for (query, wanted) in [
        ("?status=active".to_owned(), vec![&adas, &owns, &elsewhere]),
        ("?status=ended".to_owned(), vec![&ended]),
        (format!("?machine_id={first}"), vec![&adas, &owns]),
        (format!("?machine_id={second}"), vec![&elsewhere]),
        (format!("?machine_id={unknown}"), vec![]),
        ("?machine_id=nonsense".to_owned(), vec![]),
        (format!("?user_id={user}"), vec![&adas, &elsewhere]),
        ("?user_id=usr_1".to_owned(), vec![]),
        (format!("?user_id={user}&machine_id={first}"), vec![&adas]),
        (format!("?user_id={user}&machine_id={first}&status=ended"), vec![&ended]),
        (format!("?from={today}"), vec![&adas, &owns, &elsewhere]),
        (format!("?to={first_day}"), vec![]),
        (format!("?status=ended&to={first_day}"), vec![&ended]),
        (format!("?status=ended&from={first_day}&to={first_day}"), vec![&ended]),
        (format!("?status=ended&from={today}"), vec![]),
        (format!("?from={started}&to={today}"), vec![&adas, &owns, &elsewhere]),
    ] {
        let found: BTreeSet<String> = house.listed(&house.own, &query).await.into_iter().collect();
        assert_eq!(found, wanted.into_iter().cloned().collect(), "{query}");
    }
    let adas_own: BTreeSet<String> = house.listed(&house.ada, "").await.into_iter().collect();
    assert_eq!(adas_own, [adas, elsewhere].into(), "a person sees no one else's");
    for query in [
        "status=foo",
        "status=",
        "from=yesterday",
        "to=2024-13-01",
        "from=2024-01-02&to=2024-01-01",
        "page=0",
        "limit=101",
        "limit=x",
    ] {
        let refused = house.own.get(&format!("{SESSIONS}?{query}")).await;
        assert_eq!(refusal("VALIDATION_ERROR", refused).0, 400, "{query}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_filter_only_active_sessions_are_listed_page_by_page() {
    let house = House::new().await;
    let ended = house.open(&house.own).await.id;
    house.own.delete(&format!("{SESSIONS}/{ended}")).await;
    let mut open = vec![];
    for _ in 0..3 {
        open.insert(0, house.open(&house.own).await.id);
    }
    assert_eq!(house.listed(&house.own, "").await, open, "newest first");
    assert_eq!(house.listed(&house.own, "?page=1&limit=2").await, open[..2]);
    let (_, second) = house.own.get(&format!("{SESSIONS}?page=2&limit=2")).await;
    let pagination = json!({ "page": 2, "limit": 2, "total": 3, "total_pages": 2 });
    assert_eq!(second["data"]["pagination"], pagination);
    assert_eq!(second["data"]["sessions"][0]["id"], open[2]);
    assert_eq!(house.listed(&house.own, "?page=3&limit=2").await, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_shown_with_everything_and_an_unknown_one_is_not_found() {
    let house = House::new().await;
    let opened = house.open(&house.ada).await;
    let (status, body) = house.ada.get(&format!("{SESSIONS}/{}", opened.id)).await;
    let data = &body["data"];
    assert_eq!(status, 200, "{body}");
    let agent = data["user_agent"].clone();
    assert_eq!(
        body,
        json!({ "success": true, "data": {
            "id": opened.id,
            "user": { "id": data["user"]["id"], "name": "Ada Lovelace", "email": "ada@example.com" },
            "machine": { "id": house.machine, "name": "Production Server", "host": "127.0.0.1" },
            "status": "active",
            "started_at": data["started_at"],
            "last_activity": data["last_activity"],
            "ip_address": "127.0.0.1",
            "user_agent": agent,
            "commands_count": 0,
        }})
    );
    let bob = json!({ "name": "b", "scopes": ["terminal"], "user": { "id": "bob" } });
    let bob = key(&house.server, bob).await;
    let agent = house.server.operator().await.connect(json!({})).await.id;
    let agent = format!("sess_{}", agent.replace('-', ""));
    let unknown = format!("sess_{}", "1".repeat(32));
    let bare = opened.id.replace("sess_", "");
    for (holder, id) in [
        (&house.own, unknown.as_str()),
        (&house.own, bare.as_str()),
        (&house.own, "sess_1"),
        (&house.own, agent.as_str()),
        (&bob, opened.id.as_str()),
    ] {
        for tail in ["", "/logs", "/recording"] {
            let path = format!("{SESSIONS}/{id}{tail}");
            let (status, message) = refusal("NOT_FOUND", holder.get(&path).await);
            assert_eq!((status, message.as_str()), (404, "Session not found"), "{path}");
        }
        let path = format!("{SESSIONS}/{id}");
        assert_eq!(refusal("NOT_FOUND", holder.delete(&path).await).0, 404);
        assert_eq!(refusal("NOT_FOUND", holder.post(&format!("{path}/viewers"), json!({})).await).0, 404);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn stats_is_not_taken_for_an_id() {
    let house = House::new().await;
    let (status, body) = house.own.get(&format!("{SESSIONS}/stats")).await;
    assert_eq!(status, 200);
    let fields =
        ["total_sessions", "active_sessions", "total_duration_hours", "unique_users", "top_machines"];
    assert_eq!(keys(&body["data"]), fields.into());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_created_active_and_listed_with_a_token_for_its_websocket_alone() {
    let house = House::new().await;
    let opened = house.open(&house.own).await;
    assert_eq!(keys(&opened.body), ["success", "data"].into());
    let fields = ["session_id", "websocket_url", "token", "expires_at"];
    assert_eq!(keys(&opened.body["data"]), fields.into());
    assert_eq!(house.listed(&house.own, "").await, [opened.id.as_str()]);
    assert_ne!(Some(&opened.token), house.own.token.as_ref());
    let detail = house.detail(&opened.id).await;
    let lasts = time(&opened.body["data"]["expires_at"]) - time(&detail["started_at"]);
    assert_eq!(lasts.num_seconds(), 3_600);
    let client = TerminalClient::take(&opened).await;
    let usual =
        json!({ "type": "ready", "position": 0, "cols": 80, "rows": 24, "mode": "text", "read_only": false });
    assert_eq!(client.ready, usual);
    for (body, status, code) in [
        (json!({}), 400, "VALIDATION_ERROR"),
        (json!({ "machine_id": 7 }), 400, "VALIDATION_ERROR"),
        (json!([]), 400, "VALIDATION_ERROR"),
        (json!({ "machine_id": format!("mch_{}", "1".repeat(32)) }), 404, "NOT_FOUND"),
        (json!({ "machine_id": "mch_456" }), 404, "NOT_FOUND"),
        (sized(&house, json!({ "cols": 0, "rows": 40 })), 400, "VALIDATION_ERROR"),
        (sized(&house, json!({ "cols": 120, "rows": -1 })), 400, "VALIDATION_ERROR"),
        (sized(&house, json!({ "cols": 1_001, "rows": 40 })), 400, "VALIDATION_ERROR"),
        (sized(&house, json!({ "cols": 120 })), 400, "VALIDATION_ERROR"),
        (sized(&house, json!({ "cols": "120", "rows": 40 })), 400, "VALIDATION_ERROR"),
        (sized(&house, json!(null)), 400, "VALIDATION_ERROR"),
    ] {
        let shown = body.to_string();
        assert_eq!(refusal(code, house.own.post(SESSIONS, body).await).0, status, "{shown}");
    }
    assert_eq!(house.listed(&house.own, "").await.len(), 1, "nothing was opened by what was refused");
}

fn sized(house: &House, size: Value) -> Value {
    json!({ "machine_id": house.machine, "terminal_size": size })
}

#[tokio::test(flavor = "multi_thread")]
async fn the_websockets_url_is_absolute_from_the_public_url_and_ends_with_the_session() {
    let house = House::flagged(&["--public-url", "https://api.example.com/"]).await;
    let opened = house.open(&house.own).await;
    assert_eq!(opened.url, format!("wss://api.example.com/v1/sessions/{}/ws", opened.id));
    let plain = House::new().await;
    let opened = plain.open(&plain.own).await;
    let base = plain.server.url("").replace("http://", "ws://");
    assert_eq!(opened.url, format!("{base}/v1/sessions/{}/ws", opened.id));
}

/// What a connection is told that says this first.
async fn told(url: &str, first: Option<Value>) -> (Value, Option<u16>) {
    let mut client = TerminalClient::connect(url).await;
    if let Some(first) = first {
        client.say(first).await;
    }
    let rest = client.rest().await;
    assert_eq!(rest.len(), 1, "{rest:?}");
    assert_eq!(keys(&rest[0]), ["type", "code", "message"].into());
    (rest[0].clone(), client.closed.map(|frame| frame.code.into()))
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_say_who_it_is_first_is_told_so_and_let_go() {
    let house = House::new().await;
    let (opened, other) = (house.open(&house.own).await, house.open(&house.own).await);
    let auth = |token: &str| Some(json!({ "type": "auth", "token": token }));
    let key = house.own.token.clone().unwrap();
    let tampered = format!("{}x", &opened.token[..opened.token.len() - 1]);
    let elsewhere = opened.url.replace(&opened.id, &other.id);
    let nowhere = opened.url.replace(&opened.id, "sess_1");
    for (url, first) in [
        (&opened.url, Some(json!({ "type": "input", "data": "id\n" }))),
        (&opened.url, Some(json!({ "type": "resize", "cols": 1, "rows": 1 }))),
        (&opened.url, Some(json!("auth"))),
        (&opened.url, auth("nonsense")),
        (&opened.url, auth(&key)),
        (&opened.url, auth(&tampered)),
        (&opened.url, auth(&other.token)),
        (&elsewhere, auth(&opened.token)),
        (&nowhere, auth(&opened.token)),
        (&opened.url, None),
    ] {
        let (frame, code) = told(url, first.clone()).await;
        assert_eq!((&frame["type"], &frame["code"]), (&json!("error"), &json!("UNAUTHORIZED")), "{first:?}");
        assert_eq!(code, Some(1008), "{first:?}");
    }
    house.server.turn(3_600);
    assert_eq!(told(&opened.url, auth(&opened.token)).await.0["code"], "UNAUTHORIZED", "its time is over");
    let plain = house.own.get(&format!("{SESSIONS}/{}/ws", opened.id)).await;
    assert_eq!(refusal("UPGRADE_REQUIRED", plain).0, 426);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frame_that_is_wrong_is_told_so_and_the_connection_goes_on() {
    let house = House::new().await;
    let (_, mut client) = house.sit(&house.own).await;
    for (text, code) in [
        (r#"{"type":"dance"}"#, "UNKNOWN_TYPE"),
        ("{", "INVALID_JSON"),
        ("", "INVALID_JSON"),
        ("[]", "INVALID_FRAME"),
        (r#"{"data":"x"}"#, "INVALID_FRAME"),
        (r#"{"type":"input"}"#, "INVALID_FRAME"),
        (r#"{"type":"input","data":7}"#, "INVALID_FRAME"),
        (r#"{"type":"resize","cols":0,"rows":24}"#, "INVALID_FRAME"),
        (r#"{"type":"resize","cols":80}"#, "INVALID_FRAME"),
        (r#"{"type":"auth","token":"x"}"#, "CONFLICT"),
    ] {
        client.send_text(text).await;
        let frame = client.frame().await.unwrap();
        assert_eq!((&frame["type"], &frame["code"]), (&json!("error"), &json!(code)), "{text}: {frame}");
        assert!(frame["message"].as_str().is_some_and(|message| message.len() > 10));
    }
    client.send_bytes(b"x").await;
    assert_eq!(client.frame().await.unwrap()["code"], "INVALID_FRAME", "bytes need the binary mode");
    client.run("echo still h''ere", "still here").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn terminating_says_so_to_both_sides_and_happens_once() {
    let house = House::new().await;
    let (opened, mut client) = house.sit(&house.ada).await;
    client.until("$ ").await;
    let path = format!("{SESSIONS}/{}", opened.id);
    let (status, body) = house.ada.delete(&path).await;
    assert_eq!(status, 200);
    assert_eq!(body, json!({ "success": true, "message": "Session terminated successfully" }));
    assert_eq!(house.detail(&opened.id).await["status"], "ended", "by the time it is answered");
    let farewell = client.farewell().await;
    assert_eq!(farewell["reason"], "terminated");
    assert_eq!(client.closed.map(|frame| u16::from(frame.code)), Some(1000));
    assert_eq!(house.listed(&house.ada, "").await, [""; 0]);
    assert_eq!(house.listed(&house.ada, "?status=ended").await, [opened.id.as_str()]);
    let (status, message) = refusal("CONFLICT", house.ada.delete(&path).await);
    assert_eq!((status, message.as_str()), (409, "Session has already ended"));
    assert_eq!(refusal("CONFLICT", house.ada.post(&format!("{path}/viewers"), json!({})).await).0, 409);
    assert_eq!(house.disconnects(&opened.id).await, ["terminated"]);
    let auth = json!({ "type": "auth", "token": opened.token });
    assert_eq!(told(&opened.url, Some(auth)).await.0["code"], "UNAUTHORIZED", "its token has ended with it");
}

#[tokio::test(flavor = "multi_thread")]
async fn last_activity_moves_with_input_and_commands_are_counted() {
    let house = House::new().await;
    let (opened, mut client) = house.sit(&house.own).await;
    client.until("$ ").await;
    house.server.turn(30);
    client.run("echo o''ne", "one\r\n").await;
    let started = time(&house.detail(&opened.id).await["started_at"]);
    house
        .server
        .until("it moves", async || {
            let detail = house.detail(&opened.id).await;
            (time(&detail["last_activity"]) - started).num_seconds() >= 30
        })
        .await;
    house.server.until("one", async || house.detail(&opened.id).await["commands_count"] == 1).await;
    client.run("echo t''wo", "two\r\n").await;
    client.run("", "$ ").await;
    house.server.until("two", async || house.detail(&opened.id).await["commands_count"] == 2).await;
    let (_, list) = house.own.get(SESSIONS).await;
    assert!((time(&list["data"]["sessions"][0]["last_activity"]) - started).num_seconds() >= 30);
    client.input("exit\r").await;
    client.farewell().await;
    assert_eq!(house.ended(&opened.id).await["commands_count"], 3, "an empty line is no command");
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_have_commands_and_output_in_the_order_of_time_and_stay() {
    let house = House::new().await;
    let (opened, mut client) = house.sit(&house.ada).await;
    client.until("$ ").await;
    client.run("echo fi''rst", "first\r\n").await;
    client.run("echo se''cond", "second\r\n").await;
    client.input("exit\r").await;
    client.farewell().await;
    house.ended(&opened.id).await;
    let path = format!("{SESSIONS}/{}/logs", opened.id);
    let (status, body) = house.ada.get(&path).await;
    assert_eq!((status.as_u16(), &body["data"]["session_id"]), (200, &json!(opened.id)));
    let logs = body["data"]["logs"].as_array().unwrap().clone();
    let mut before = time(&logs[0]["timestamp"]);
    for entry in &logs {
        assert_eq!(keys(entry), ["timestamp", "type", "content"].into());
        let now = time(&entry["timestamp"]);
        assert!(before <= now, "{logs:?}");
        before = now;
    }
    let told: Vec<(&str, &str)> =
        logs.iter().map(|one| (one["type"].as_str().unwrap(), one["content"].as_str().unwrap())).collect();
    let at = |wanted: (&str, &str)| {
        told.iter().position(|one| one.0 == wanted.0 && one.1.contains(wanted.1)).unwrap_or(usize::MAX)
    };
    let order = [("command", "echo fi''rst"), ("output", "first\r\n"), ("command", "echo se''cond")].map(at);
    assert!(order.is_sorted() && order[2] < at(("output", "second\r\n")), "{told:?}");
    assert!(at(("output", "second\r\n")) < told.len());
    let (mut after, mut paged) = (0, vec![]);
    loop {
        let (_, page) = house.ada.get(&format!("{path}?limit=2&after={after}")).await;
        paged.extend(page["data"]["logs"].as_array().unwrap().clone());
        let Some(next) = page["data"]["next_after"].as_i64() else { break };
        after = next;
    }
    let content =
        |logs: &[Value]| logs.iter().map(|one| one["content"].as_str().unwrap()).collect::<String>();
    assert_eq!(content(&paged), content(&logs));
    let text = house.ada.send(Method::GET, &format!("{path}?format=text"), None).await;
    assert_eq!(text.headers()["content-type"], "text/plain; charset=utf-8");
    let text = text.text().await.unwrap();
    let first = text.find("Z] $ echo fi''rst\n").unwrap_or_else(|| panic!("{text}"));
    assert!(text[first..].contains("first\n"), "{text}");
    for query in ["format=xml", "format=", "limit=0", "limit=10001", "after=-1", "after=x"] {
        let refused = house.ada.get(&format!("{path}?{query}")).await;
        assert_eq!(refusal("VALIDATION_ERROR", refused).0, 400, "{query}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn statistics_are_of_the_period_and_have_the_most_used_machines_first() {
    let house = House::flagged(&["--terminal-lifetime", "30h"]).await;
    let second = machine(&house.own, &machine_body(&house.sshd)).await;
    let renamed = json!({ "name": "Second" });
    assert_eq!(house.own.patch(&format!("{MACHINES}/{second}"), renamed).await.0, 200);
    house.own.post(&format!("{MACHINES}/{second}/test"), json!({ "pin_host_key": true })).await;
    let first = house.open(&house.ada).await.id;
    house.server.turn(7_200);
    assert_eq!(house.own.delete(&format!("{SESSIONS}/{first}")).await.0, 200);
    house.server.turn(25 * 3_600);
    for holder in [&house.own, &house.ada] {
        house.open_with(holder, json!({ "machine_id": second })).await;
    }
    house.server.turn(26 * 3_600);
    let seen = async |holder: &Holder, query: &str| {
        let (status, body) = holder.get(&format!("{SESSIONS}/stats{query}")).await;
        assert_eq!(status, 200, "{body}");
        body["data"].clone()
    };
    let day = json!({
        "total_sessions": 2, "active_sessions": 2, "total_duration_hours": 48.0, "unique_users": 2,
        "top_machines": [{ "machine_id": second, "name": "Second", "sessions_count": 2 }],
    });
    assert_eq!(seen(&house.own, "?period=day").await, day);
    let both = json!([
        { "machine_id": second, "name": "Second", "sessions_count": 2 },
        { "machine_id": house.machine, "name": "Production Server", "sessions_count": 1 },
    ]);
    for query in ["", "?period=week", "?period=month"] {
        let data = seen(&house.own, query).await;
        assert_eq!((&data["total_sessions"], &data["top_machines"]), (&json!(3), &both), "{query}");
        assert_eq!(data["total_duration_hours"], 54.0, "{query}");
    }
    let own = seen(&house.ada, "?period=week").await;
    assert_eq!((&own["total_sessions"], &own["unique_users"]), (&json!(2), &json!(1)), "a person's own");
    for query in ["period=year", "period="] {
        let refused = house.own.get(&format!("{SESSIONS}/stats?{query}")).await;
        assert_eq!(refusal("VALIDATION_ERROR", refused).0, 400, "{query}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_says_what_is_left_and_who_asks_too_often_is_refused() {
    let house = House::flagged(&["--rate-limit", "30"]).await;
    let asker = key(&house.server, json!({ "name": "busy", "scopes": ["terminal"] })).await;
    let get = async |holder: &Holder, path: &str| {
        let answer = holder.send(Method::GET, path, None).await;
        let number = |name: &str| {
            let value = answer.headers().get(name);
            value.map(|value| value.to_str().unwrap().parse::<i64>().unwrap())
        };
        let headers = ["x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset"].map(number);
        (answer.status().as_u16(), headers, answer)
    };
    let now = house.server.clock.now().timestamp();
    for (path, status) in [
        (SESSIONS, 200),
        (MACHINES, 200),
        ("/v1/sessions/sess_1", 404),
        ("/v1/sessions?status=x", 400),
        ("/v1/machines/x/y/z", 404),
    ] {
        let (answered, [limit, remaining, reset], _) = get(&asker, path).await;
        assert_eq!((answered, limit), (status, Some(30)), "{path}");
        assert!((0..30).contains(&remaining.unwrap()) && (now..now + 10).contains(&reset.unwrap()), "{path}");
    }
    let (status, [limit, remaining, _], _) = get(&house.server.stranger(), SESSIONS).await;
    assert_eq!((status, limit), (401, Some(100)), "an address may fail so often at once");
    assert!(remaining.unwrap() < 100);
    let refused = loop {
        let answers = futures_util::future::join_all((0..60).map(|_| get(&asker, SESSIONS))).await;
        if let Some(refused) = answers.into_iter().find(|answer| answer.0 == 429) {
            break refused;
        }
    };
    assert_eq!((refused.1[0], refused.1[1]), (Some(30), Some(0)));
    assert_eq!(refused.2.headers()["retry-after"], "1");
    let body: Value = refused.2.json().await.unwrap();
    assert_eq!((&body["success"], &body["error"]["code"]), (&json!(false), &json!("RATE_LIMITED")));
    let unlimited = House::new().await;
    assert_eq!(get(&unlimited.own, SESSIONS).await.1, [None; 3], "where there is no limit none is named");
}

#[tokio::test(flavor = "multi_thread")]
async fn times_are_utc_in_whole_seconds() {
    let house = House::new().await;
    let (opened, mut client) = house.sit(&house.own).await;
    client.run("exit", "exit").await;
    client.farewell().await;
    let detail = house.ended(&opened.id).await;
    for field in ["started_at", "last_activity", "ended_at"] {
        time(&detail[field]);
    }
    time(&opened.body["data"]["expires_at"]);
    let (_, machine) = house.own.get(&format!("{MACHINES}/{}", house.machine)).await;
    for field in ["created_at", "updated_at"] {
        time(&machine["data"][field]);
    }
    for entry in house.logs(&opened.id).await {
        time(&entry["timestamp"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn output_comes_as_text_frames_of_type_and_data() {
    let house = House::new().await;
    let (_, mut client) = house.sit(&house.own).await;
    let Some(Received::Frame(frame)) = client.next().await else { panic!("no output") };
    assert_eq!(keys(&frame), ["type", "data"].into());
    assert_eq!(frame["type"], "output");
}
