//! Coming, coming back, taking over, watching: who is at a terminal, and that nobody misses or doubles anything.

use std::time::Duration;

use serde_json::{Value, json};
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderValue;

use super::{House, Opened, SESSIONS, TerminalClient};

/// Counts in numbered lines, slowly enough to be interrupted in the middle of them.
const COUNTING: &str = "for i in $(seq 1 400); do echo line $i; sleep 0.005; done; echo all do''ne\r";

fn counted() -> String {
    let lines: String = (1..=400).map(|number| format!("line {number}\r\n")).collect();
    lines + "all done\r\n"
}

/// Runs the count through connections that break off again and again; all that was read.
async fn interrupted(opened: &Opened, auth: impl Fn(u64) -> Value) -> String {
    let mut client = TerminalClient::introduce(&opened.url, auth(0)).await;
    client.until("$ ").await;
    client.input(COUNTING).await;
    let mut all = std::mem::take(&mut client.bytes);
    for round in 0..6 {
        tokio::time::timeout(Duration::from_millis(150 + 70 * round), client.rest()).await.unwrap_err();
        all.append(&mut client.bytes);
        drop(client);
        client = TerminalClient::introduce(&opened.url, auth(all.len() as u64)).await;
        assert_eq!(client.ready["lost"], Value::Null, "{}", client.ready);
        let position = client.ready["position"].as_u64().unwrap();
        assert!(position <= all.len() as u64, "{} after {}", client.ready, all.len());
        // Who does not say what it has had may get some of it again: the position says how much.
        all.truncate(usize::try_from(position).unwrap());
    }
    client.until("all done\r\n").await;
    all.append(&mut client.bytes);
    String::from_utf8(all).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_comes_back_goes_on_where_it_was_with_nothing_lost_or_doubled() {
    let house = House::new().await;
    for mode in ["text", "binary"] {
        for says in [true, false] {
            let opened = house.open(&house.own).await;
            let auth = |had: u64| {
                let after = if says { json!(had) } else { Value::Null };
                json!({ "type": "auth", "token": opened.token, "mode": mode, "after": after })
            };
            let all = interrupted(&opened, auth).await;
            assert!(all.contains(&counted()), "{mode}, {says}: {all}");
            house.own.delete(&format!("{SESSIONS}/{}", opened.id)).await;
            let recorded = async || house.printed(&opened.id).await.starts_with(&all);
            house.server.until("it is as it was recorded", recorded).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_has_had_more_than_was_printed_is_at_the_wrong_terminal() {
    let house = House::new().await;
    let opened = house.open(&house.own).await;
    let mut client = TerminalClient::connect(&opened.url).await;
    client.say(json!({ "type": "auth", "token": opened.token, "after": 1_000_000 })).await;
    let rest = client.rest().await;
    assert_eq!((rest.len(), &rest[0]["code"]), (1, &json!("INVALID_FRAME")), "{rest:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_connection_with_the_same_token_takes_over() {
    let house = House::new().await;
    let (opened, mut first) = house.sit(&house.own).await;
    first.until("$ ").await;
    first.run("echo fi''rst", "first\r\n").await;
    let mut second = TerminalClient::return_after(&opened, first.bytes.len() as u64).await;
    let farewell = first.farewell().await;
    assert_eq!(farewell["reason"], "replaced", "{farewell}");
    second.run("echo sec''ond", "second\r\n").await;
    assert!(!second.text().contains("first"), "it has had that");
    assert_eq!(house.detail(&opened.id).await["status"], "active");
    assert_eq!(house.disconnects(&opened.id).await, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn viewers_see_what_is_printed_and_type_nothing() {
    let house = House::new().await;
    let (opened, mut client) = house.sit(&house.ada).await;
    client.until("$ ").await;
    client.run("echo be''fore", "before\r\n").await;
    let (status, body) = house.own.post(&format!("{SESSIONS}/{}/viewers", opened.id), json!({})).await;
    assert_eq!(status, 201, "{body}");
    let (data, url) = (&body["data"], body["data"]["websocket_url"].as_str().unwrap());
    assert_eq!(
        (&data["session_id"], &data["expires_at"]),
        (&json!(opened.id), &opened.body["data"]["expires_at"])
    );
    assert_ne!(data["token"], opened.token);
    let mut viewer = TerminalClient::introduce(url, json!({ "type": "auth", "token": data["token"] })).await;
    assert_eq!(viewer.ready["read_only"], true);
    viewer.until("before\r\n").await;
    client.run("echo wh''ile", "while\r\n").await;
    viewer.until("while\r\n").await;
    for frame in [
        json!({ "type": "input", "data": "echo in''truder\r" }),
        json!({ "type": "resize", "cols": 9, "rows": 9 }),
    ] {
        viewer.say(frame).await;
        assert_eq!(viewer.frame().await.unwrap()["code"], "READ_ONLY");
    }
    client.run("stty size", "24 80\r\n").await;
    assert!(!client.text().contains("intruder"));
    drop(client);
    viewer.until("24 80\r\n").await;
    house.own.delete(&format!("{SESSIONS}/{}", opened.id)).await;
    assert_eq!(viewer.farewell().await["reason"], "terminated");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_pages_of_allowed_origins_open_the_websocket() {
    let house = House::flagged(&["--allow-origin", "https://console.example.com"]).await;
    let opened = house.open(&house.own).await;
    let own = house.server.url("");
    for (origin, allowed) in [
        (own.as_str(), true),
        ("https://console.example.com", true),
        ("https://evil.example.com", false),
        ("https://console.example.com.evil.com", false),
        ("http://console.example.com", false),
        ("null", false),
    ] {
        let mut request = opened.url.as_str().into_client_request().unwrap();
        request.headers_mut().insert("origin", HeaderValue::from_str(origin).unwrap());
        let outcome = connect_async(request).await;
        match outcome {
            Ok(_) => assert!(allowed, "{origin} came in"),
            Err(tokio_tungstenite::tungstenite::Error::Http(response)) => {
                assert!(!allowed && response.status() == 403, "{origin}: {}", response.status());
                let body: Value = serde_json::from_slice(response.body().as_deref().unwrap()).unwrap();
                assert_eq!(body["error"]["code"], "FORBIDDEN");
            }
            Err(other) => panic!("{origin}: {other}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_binary_mode_carries_any_bytes_both_ways() {
    let house = House::new().await;
    let opened = house.open(&house.own).await;
    let mut client = TerminalClient::take_binary(&opened).await;
    assert_eq!(client.ready["mode"], "binary");
    client.until("$ ").await;
    client.send_bytes(b"printf '\\377\\376\\200'; echo; echo e''nd\r").await;
    client.until("end\r\n").await;
    assert!(super::websocket_client::find(&client.bytes, b"\xff\xfe\x80\r\n").is_some());
    client.send_bytes(b"stty raw -echo; echo rea''dy; head -c 4 | od -An -tx1; stty sane\r").await;
    client.until("ready").await;
    client.send_bytes(b"\x00\xff\xc3\x28").await;
    client.until("00 ff c3 28").await;
    client.send_bytes(b"").await;
    client.input("echo t''oo\r").await;
    client.until("too\r\n").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_text_mode_no_character_is_split_and_what_is_no_text_shows() {
    let house = House::new().await;
    let (_, mut client) = house.sit(&house.own).await;
    client.until("$ ").await;
    client.input("printf '\\360\\237'; sleep 0.3; printf '\\246\\200 \\377 \\303'; sleep 0.3; printf '\\244'; echo ' e''nd'\r")
        .await;
    client.until(" end\r\n").await;
    assert!(client.text().contains("\u{1F980} \u{FFFD} ä end\r\n"), "{}", client.text());
    client
        .run("echo größer 漢字 | od -An -tx1 | tr -d ' \\n'; echo", "6772c3b6c39f657220e6bca2e5ad970a")
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_page_sees_what_a_full_screen_program_shows() {
    let house = House::new().await;
    let (opened, mut client) = house.sit(&house.own).await;
    client.until("$ ").await;
    client.input("seq -f 'number %g' 1 50 > n; less n\r").await;
    client.until("number 20").await;
    // It answers the ping that comes every 15 s: all that it was shown counts as arrived, and is not told again.
    tokio::time::timeout(Duration::from_secs(17), client.rest()).await.ok();
    let shown = client.ready["position"].as_u64().unwrap() + client.bytes.len() as u64;
    drop(client);
    let mut empty = TerminalClient::take(&opened).await;
    assert_eq!(empty.ready["position"], shown, "nothing is left to be told");
    empty.until("number 20").await;
    // It is drawn again for either size; a key that comes in the middle of that may be lost to less.
    tokio::time::timeout(Duration::from_secs(1), empty.rest()).await.ok();
    empty.input("q").await;
    empty.run("stty size", "24 80\r\n").await;
    drop(empty);
    // Whoever says what it has had is shown nothing twice.
    let mut back =
        TerminalClient::introduce(&opened.url, json!({ "type": "auth", "token": opened.token, "after": 0 }))
            .await;
    back.until("24 80\r\n").await;
    back.run("exit", "exit\r\n").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_is_too_large_closes_the_connection_with_1009_and_the_terminal_stays() {
    use futures_util::{SinkExt, StreamExt};
    use tokio_tungstenite::tungstenite::Message;
    let house = House::new().await;
    let opened = house.open(&house.own).await;
    let (socket, _) = connect_async(&opened.url).await.unwrap();
    let (mut sink, mut stream) = socket.split();
    sink.send(Message::text(json!({ "type": "auth", "token": opened.token }).to_string())).await.unwrap();
    let large = json!({ "type": "input", "data": "x".repeat(2 << 20) }).to_string();
    let sending = tokio::spawn(async move {
        sink.send(Message::text(large)).await.ok();
        sink
    });
    let code = loop {
        match stream.next().await {
            Some(Ok(Message::Close(frame))) => break frame.map(|frame| u16::from(frame.code)),
            Some(Ok(_)) => {}
            other => panic!("not closed in words: {other:?}"),
        }
    };
    assert_eq!(code, Some(1009));
    drop((sending, stream));
    let mut client = TerminalClient::take(&opened).await;
    client.run("echo st''ill", "still\r\n").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_end_with_a_close_from_either_side_and_never_with_a_reset() {
    use futures_util::{SinkExt, StreamExt};
    use tokio_tungstenite::tungstenite::{Error, Message};
    let house = House::new().await;
    for round in 0..20 {
        let opened = house.open(&house.own).await;
        let (mut socket, _) = connect_async(&opened.url).await.unwrap();
        let said = json!({ "type": "auth", "token": opened.token }).to_string();
        socket.send(Message::text(said)).await.unwrap();
        socket.next().await.unwrap().unwrap();
        if round % 2 == 0 {
            // The other side goes on typing, and has not heard yet that it is over.
            let exits = json!({ "type": "input", "data": "exit\r" }).to_string();
            socket.send(Message::text(exits)).await.unwrap();
            for _ in 0..50 {
                let more = json!({ "type": "input", "data": "more " }).to_string();
                socket.send(Message::text(more)).await.ok();
            }
        } else {
            socket.close(None).await.unwrap();
        }
        let mut closed = false;
        loop {
            match socket.next().await {
                Some(Ok(Message::Close(_))) => closed = true,
                Some(Ok(_)) => {}
                None | Some(Err(Error::ConnectionClosed)) => break,
                Some(Err(error)) => panic!("round {round}: {error}"),
            }
        }
        assert!(closed, "round {round}: the connection ended without a close");
        house.own.delete(&format!("{SESSIONS}/{}", opened.id)).await;
    }
}
