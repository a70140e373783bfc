//! What a body is taken for, and where events end.

use proptest::prelude::*;
use serde_json::{Value, json};
use sessiond::mcp::events::{Event, Splitter};
use sessiond::mcp::message::{SUPPORTED, answered, read};
use sessiond::mcp::speaks_of_lost_session;

fn text(value: &Value) -> Vec<u8> {
    value.to_string().into_bytes()
}

fn modern(method: &str, version: &str) -> Value {
    let meta = json!({ "io.modelcontextprotocol/protocolVersion": version });
    json!({ "jsonrpc": "2.0", "id": "a", "method": method, "params": { "_meta": meta } })
}

#[test]
fn requests_notifications_and_answers_are_told_apart() {
    let request = read(&text(&json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/list" }))).unwrap();
    assert_eq!(request.ids, [json!(1)]);
    assert!(!request.batch && request.initialize.is_none() && request.modern.is_none());

    let notification =
        read(&text(&json!({ "jsonrpc": "2.0", "method": "notifications/initialized" }))).unwrap();
    assert!(notification.ids.is_empty());

    let answer = read(&text(&json!({ "jsonrpc": "2.0", "id": 4, "result": {} }))).unwrap();
    assert!(answer.ids.is_empty());

    let batch = read(&text(&json!([
        { "jsonrpc": "2.0", "id": 1, "method": "ping" },
        { "jsonrpc": "2.0", "method": "notifications/cancelled" },
        { "jsonrpc": "2.0", "id": "x", "method": "ping" },
    ])));
    let batch = batch.unwrap();
    assert_eq!((batch.ids, batch.batch), (vec![json!(1), json!("x")], true));
}

#[test]
fn what_is_no_message_is_refused_with_json_rpcs_codes() {
    let code = |body: &str| read(body.as_bytes()).unwrap_err().code;
    assert_eq!(code(""), -32700);
    assert_eq!(code("{"), -32700);
    assert_eq!(code("\u{feff}{}"), -32700);
    for wrong in [
        "[]",
        "{}",
        "null",
        "7",
        r#"{"jsonrpc":"1.0","id":1,"method":"ping"}"#,
        r#"{"jsonrpc":"2.0","id":null,"method":"ping"}"#,
        r#"{"jsonrpc":"2.0","id":{},"method":"ping"}"#,
        r#"{"jsonrpc":"2.0","id":1}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"ping","method":"initialize"}"#,
        r#"[{"jsonrpc":"2.0","id":1,"method":"initialize","params":{}}]"#,
    ] {
        assert_eq!(code(wrong), -32600, "{wrong}");
    }
}

#[test]
fn the_handshake_is_the_old_one_whatever_it_names_and_a_claim_is_a_newer_revision() {
    let old = |version: &str| {
        let params = json!({ "protocolVersion": version, "clientInfo": { "name": "x" } });
        read(&text(&json!({ "jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params }))).unwrap()
    };
    for version in ["2024-11-05", "2026-07-28", "next"] {
        let posted = old(version);
        assert_eq!(posted.initialize.as_ref().unwrap().client_info, Some(json!({ "name": "x" })));
        assert_eq!(posted.unsupported(Some("2026-07-28")), None);
    }
    for method in ["server/discover", "tools/list", "initialize"] {
        let posted = read(&text(&modern(method, "2026-07-28"))).unwrap();
        assert_eq!(posted.unsupported(None), Some((json!("a"), "2026-07-28".to_owned())), "{method}");
    }
    // A claim of a revision that is spoken here changes nothing.
    assert_eq!(read(&text(&modern("tools/list", "2025-11-25"))).unwrap().unsupported(None), None);
    // Without a claim the method gives it away, or the header.
    let bare = read(&text(&json!({ "jsonrpc": "2.0", "id": 3, "method": "server/discover" }))).unwrap();
    assert_eq!(bare.unsupported(None), Some((json!(3), "2026-07-28".to_owned())));
    let plain = read(&text(&json!({ "jsonrpc": "2.0", "id": 3, "method": "ping" }))).unwrap();
    assert_eq!(plain.unsupported(Some("1999-01-01")), Some((json!(3), "1999-01-01".to_owned())));
    for version in SUPPORTED {
        assert_eq!(plain.unsupported(Some(version)), None);
    }
}

#[test]
fn only_answers_count_as_answers() {
    let ids = |value: Value| answered(&text(&value));
    assert_eq!(ids(json!({ "jsonrpc": "2.0", "id": 1, "result": {} })), [json!(1)]);
    assert_eq!(
        ids(json!({ "jsonrpc": "2.0", "id": "e", "error": { "code": 1, "message": "" } })),
        [json!("e")]
    );
    // A request of the server's own may have the same id.
    assert!(ids(json!({ "jsonrpc": "2.0", "id": 1, "method": "sampling/createMessage" })).is_empty());
    assert_eq!(
        ids(json!([{ "id": 1, "result": 0 }, { "method": "x" }, { "id": 2, "result": 0 }])),
        [json!(1), json!(2)]
    );
    assert!(answered(b"not json").is_empty());
}

#[test]
fn the_texts_by_which_servers_say_that_a_session_is_lost_are_known() {
    for lost in [
        "Bad Request: No valid session ID provided",
        "Invalid session",
        "Session 1f2e not found",
        "Session not found",
        "Bad Request: Server not initialized",
    ] {
        assert!(speaks_of_lost_session(lost.as_bytes()), "{lost}");
    }
    for other in ["Tool not found", "Invalid params", "Bad Request: Unsupported protocol version"] {
        assert!(!speaks_of_lost_session(other.as_bytes()), "{other}");
    }
}

fn split(pieces: &[&[u8]]) -> (Vec<Event>, Vec<u8>) {
    let (mut splitter, mut events) = (Splitter::default(), vec![]);
    for piece in pieces {
        splitter.push(piece);
        while let Some(event) = splitter.next() {
            events.push(event);
        }
    }
    (events, splitter.take().to_vec())
}

#[test]
fn an_events_data_lines_and_id_are_read() {
    let (events, rest) = split(&[b": hi\n\nid: 7\nevent: message\ndata: a\ndata:b\n\ndata: half"]);
    assert_eq!(events.len(), 2);
    assert!(events[0].data.is_empty() && !events[0].has_id);
    assert_eq!((events[1].data.as_slice(), events[1].has_id), (b"a\nb".as_slice(), true));
    assert_eq!(rest, b"data: half");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn events_are_the_same_however_the_stream_is_cut(
        lines in prop::collection::vec(("(data: ?|id: |: |event:|)[a-c{}]{0,4}", 0..4_usize), 0..12),
        cuts in prop::collection::vec(0..200_usize, 0..8),
    ) {
        let ends = ["\n", "\r\n", "\r", "\n\n"];
        let text: String = lines.iter().flat_map(|(line, end)| [line.as_str(), ends[*end]]).collect();
        let (whole, rest) = split(&[text.as_bytes()]);
        // Nothing is lost, nothing is added.
        let all: Vec<u8> = whole.iter().flat_map(|event| event.raw.to_vec()).chain(rest).collect();
        prop_assert_eq!(&all, text.as_bytes());

        let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(text.len())).collect();
        cuts.extend([0, text.len()]);
        cuts.sort_unstable();
        let pieces: Vec<_> = cuts.windows(2).map(|cut| &text.as_bytes()[cut[0]..cut[1]]).collect();
        let (cut, rest) = split(&pieces);
        let seen = |events: &[Event]| -> Vec<_> { events.iter().map(|event| (event.data.clone(), event.has_id)).collect() };
        prop_assert_eq!(seen(&cut), seen(&whole));
        let all: Vec<u8> = cut.iter().flat_map(|event| event.raw.to_vec()).chain(rest).collect();
        prop_assert_eq!(&all, text.as_bytes());
    }

    #[test]
    fn no_body_breaks_the_reader(body in prop::collection::vec(any::<u8>(), 0..200)) {
        read(&body).ok();
        answered(&body);
        split(&[&body]);
    }
}
