//! What a body is taken for, and where events end.

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use proptest::prelude::*;
use serde_json::{Value, json};
use sessiond::mcp::era::{self, Era};
use sessiond::mcp::event_id::EventId;
use sessiond::mcp::message::{answered, read};
use sessiond::mcp::meta::Meta;
use sessiond::mcp::speaks_of_lost_session;
use sessiond::mcp::sse_events::{Splitter, SseEvent};

fn text(value: &Value) -> Vec<u8> {
    value.to_string().into_bytes()
}

fn modern(method: &str, version: &str) -> Value {
    let meta = json!({
        "io.modelcontextprotocol/protocolVersion": version,
        "io.modelcontextprotocol/clientCapabilities": {},
    });
    json!({ "jsonrpc": "2.0", "id": "a", "method": method, "params": { "_meta": meta } })
}

#[test]
fn requests_notifications_and_answers_are_told_apart() {
    let request = read(&text(&json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/list" }))).unwrap();
    assert_eq!(request.ids, [json!(1)]);
    assert!(!request.batch && request.initialize.is_none() && !request.meta.claims());

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

/// The era of a body under these headers, or the code it is refused with.
fn era(body: &Value, headers: &[(&'static str, &str)]) -> Result<Era, i64> {
    let headers = headers
        .iter()
        .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::try_from(*value).unwrap()));
    let mut all = HeaderMap::new();
    headers.for_each(|(name, value)| {
        all.append(name, value);
    });
    era::of(&read(&text(body)).unwrap(), &all).map_err(|refusal| refusal.rpc_error.code)
}

const OLD: (&str, &str) = ("mcp-protocol-version", "2025-11-25");
const NEW: (&str, &str) = ("mcp-protocol-version", "2026-07-28");

#[test]
fn the_body_decides_the_era_and_the_header_only_of_what_claims_nothing() {
    for version in ["2024-11-05", "2026-07-28", "next"] {
        let params = json!({ "protocolVersion": version, "clientInfo": { "name": "x" } });
        let body = json!({ "jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params });
        assert_eq!(era(&body, &[NEW]), Ok(Era::Legacy), "{version}");
        let posted = read(&text(&body)).unwrap();
        assert_eq!(posted.initialize.unwrap().client_info, Some(json!({ "name": "x" })));
    }
    let plain = json!({ "jsonrpc": "2.0", "id": 3, "method": "ping" });
    let notification = json!({ "jsonrpc": "2.0", "method": "notifications/cancelled" });
    let answer = json!({ "jsonrpc": "2.0", "id": 3, "result": {} });
    for body in [&plain, &notification, &answer, &json!([plain, notification])] {
        assert_eq!(era(body, &[]), Ok(Era::Legacy), "{body}");
        assert_eq!(era(body, &[OLD]), Ok(Era::Legacy), "{body}");
        assert_eq!(era(body, &[("mcp-protocol-version", "1999-01-01")]), Err(-32000), "{body}");
        assert_eq!(era(body, &[OLD, ("mcp-protocol-version", "1999-01-01")]), Err(-32020), "{body}");
    }
    assert_eq!(era(&plain, &[NEW]), Err(-32602), "the header promises what the body does not hold");
    assert_eq!(era(&notification, &[NEW]), Ok(Era::Modern));
    assert_eq!(era(&notification, &[("mcp-protocol-version", "2027-01-01")]), Err(-32022));
    assert_eq!(era(&answer, &[NEW]), Err(-32600));
    // A claim of an older revision changes nothing, unless the header names the newer era.
    assert_eq!(era(&modern("ping", "2025-11-25"), &[OLD]), Ok(Era::Legacy));
    assert_eq!(era(&modern("ping", "2025-11-25"), &[NEW]), Err(-32020));
}

#[test]
fn a_modern_request_has_its_headers_and_they_say_what_the_body_says() {
    let list = modern("tools/list", "2026-07-28");
    let method = ("mcp-method", "tools/list");
    assert_eq!(era(&list, &[NEW, method]), Ok(Era::Modern));
    assert_eq!(era(&list, &[method]), Err(-32020), "without a revision");
    assert_eq!(era(&list, &[OLD, method]), Err(-32020), "with another one");
    assert_eq!(era(&list, &[NEW]), Err(-32020), "without its method");
    assert_eq!(era(&list, &[NEW, ("mcp-method", "Tools/List")]), Err(-32020), "with another one");
    assert_eq!(era(&list, &[NEW, method, method]), Err(-32020), "twice");
    assert_eq!(era(&json!([list]), &[NEW, method]), Err(-32600), "in a batch");
    assert_eq!(
        era(&modern("initialize", "2026-07-28"), &[NEW, ("mcp-method", "initialize")]),
        Ok(Era::Modern)
    );
    let later = ("mcp-protocol-version", "2099-01-01");
    assert_eq!(era(&modern("tools/list", "2099-01-01"), &[later, method]), Ok(Era::Unknown));

    let mut call = modern("tools/call", "2026-07-28");
    call["params"]["name"] = json!("grüß");
    let method = ("mcp-method", "tools/call");
    assert_eq!(era(&call, &[NEW, method, ("mcp-name", "=?base64?Z3LDvMOf?=")]), Ok(Era::Modern));
    for name in ["gruss", "=?base64?Z3LDvMOg?=", "=?base64?!?="] {
        assert_eq!(era(&call, &[NEW, method, ("mcp-name", name)]), Err(-32020), "{name}");
    }
    assert_eq!(era(&call, &[NEW, method]), Err(-32020));
    let mut read = modern("resources/read", "2026-07-28");
    read["params"]["uri"] = json!("test://a");
    assert_eq!(
        era(&read, &[NEW, ("mcp-method", "resources/read"), ("mcp-name", "test://a")]),
        Ok(Era::Modern)
    );

    let mut incapable = list.clone();
    incapable["params"]["_meta"]
        .as_object_mut()
        .unwrap()
        .remove("io.modelcontextprotocol/clientCapabilities");
    assert_eq!(era(&incapable, &[NEW, ("mcp-method", "tools/list")]), Err(-32602));
    incapable["params"]["_meta"]["io.modelcontextprotocol/protocolVersion"] = json!(7);
    assert_eq!(era(&incapable, &[NEW, ("mcp-method", "tools/list")]), Err(-32602));
}

#[test]
fn a_conversation_is_the_clients_own_key_else_its_baggage_else_its_trace() {
    let of = |meta: Value| Meta::read(&meta.to_string()).correlation();
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let baggage = "a=1, gen_ai.conversation.id = c-7 ;x=y,session.id=s";
    assert_eq!(of(json!({})), "");
    assert_eq!(of(json!({ "traceparent": trace })), "trace 0af7651916cd43dd8448eb211c80319c");
    assert_eq!(of(json!({ "traceparent": "nonsense" })), "");
    assert_eq!(of(json!({ "traceparent": trace, "baggage": baggage })), "baggage c-7");
    assert_eq!(
        of(json!({ "traceparent": trace, "baggage": "a=1" })),
        "trace 0af7651916cd43dd8448eb211c80319c"
    );
    assert_eq!(of(json!({ "baggage": baggage, "sessiond/correlation": "k" })), "own k");
    assert_eq!(of(json!({ "sessiond/correlation": "k".repeat(2_000) })), "");
}

#[test]
fn our_session_id_goes_into_every_request_and_replaces_a_forged_one() {
    let id = uuid::Uuid::from_u128(7);
    for params in [
        None,
        Some(json!({})),
        Some(json!({ "name": "}{" })),
        Some(json!({ "_meta": {} })),
        Some(json!({ "name": "x", "_meta": { "progressToken": 1, "deep": { "a": "{" } } })),
        Some(json!({ "_meta": { "sessiond/sessionId": "forged", "b": 1 } })),
    ] {
        let mut body = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call" });
        if let Some(params) = params {
            body["params"] = params;
        }
        let pretty = serde_json::to_vec_pretty(&body).unwrap();
        for bytes in [text(&body), pretty] {
            let insertion_point = read(&bytes).unwrap().insertion_point.unwrap();
            let named: Value = serde_json::from_slice(&insertion_point.insert(&bytes, id)).unwrap();
            body["params"]["_meta"]["sessiond/sessionId"] = json!(id);
            assert_eq!(named, body);
        }
    }
    // However it is written, also where none of ours belongs.
    let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
    for meta in [
        r#"{"sessiond\u002fsessionId":"forged"}"#.to_owned(),
        r#"{"sessiond\/sessionId":"forged","a":1}"#.to_owned(),
        format!(r#"{{"sessiond/sessionId":"forged","d":{deep}}}"#),
    ] {
        for id_member in [r#""id":1,"#, ""] {
            let body = format!(
                r#"{{"jsonrpc":"2.0",{id_member}"method":"x","params":{{"_meta":{meta},"a":{deep}}}}}"#
            );
            let named = read(body.as_bytes()).unwrap().insertion_point.unwrap().insert(body.as_bytes(), id);
            let named = String::from_utf8(named).unwrap();
            assert!(!named.contains("forged") && named.contains(&id.to_string()), "{named}");
        }
    }
    // Two readers may take it for two things.
    for twice in [
        r#"{"jsonrpc":"2.0","id":1,"method":"x","params":{"_meta":{},"_meta":{"sessiond/sessionId":"forged"}}}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"x","params":{"name":"a","name":"b"}}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"x","params":{"_meta":{"a":1,"a":2}}}"#,
        r#"[{"jsonrpc":"2.0","id":1,"method":"x","params":{"_meta":{"sessiond/sessionId":"forged"}}}]"#,
    ] {
        assert_eq!(read(twice.as_bytes()).unwrap_err().code, -32600, "{twice}");
    }
    // Not into what is no request, nor where there is no place for it.
    for other in [
        json!({ "jsonrpc": "2.0", "method": "notifications/initialized" }),
        json!({ "jsonrpc": "2.0", "id": 1, "method": "x", "params": [1] }),
        json!({ "jsonrpc": "2.0", "id": 1, "method": "x", "params": null }),
        json!({ "jsonrpc": "2.0", "id": 1, "method": "x", "params": { "_meta": null } }),
        json!([{ "jsonrpc": "2.0", "id": 1, "method": "x" }]),
    ] {
        assert_eq!(read(&text(&other)).unwrap().insertion_point, None, "{other}");
    }
}

#[test]
fn an_event_id_says_where_to_go_on_and_nothing_else_is_one() {
    let id = EventId {
        key: "0123456789abcdef".to_owned(),
        calls: vec![json!(1), json!("b")],
        number: 12,
        upstream: Some("stream_7".into()),
        session_digest: Some("0a1b2c3d".to_owned()),
    };
    let seal = [7; 32];
    let parse = |text: &str| EventId::parse(text, |_| seal);
    assert_eq!(parse(&id.sealed(&seal)), Some(id.clone()));
    assert_eq!(parse(&id.sealed(&[8; 32])), None, "of another stream");
    let bare = EventId { calls: vec![], upstream: None, session_digest: None, ..id.clone() };
    assert!(bare.sealed(&seal).starts_with("0123456789abcdef..12.."));
    assert_eq!(parse(&bare.sealed(&seal)), Some(bare.clone()));
    let changed = bare.sealed(&seal).replace("..12..", "..13..");
    for other in ["", "g-1", "0123456789abcdef..12.", &changed] {
        assert_eq!(parse(other), None, "{other}");
    }
    // Calls with long ids are left out rather than make every event long.
    let long = EventId { calls: vec![json!("x".repeat(1_000))], ..id };
    assert!(parse(&long.sealed(&seal)).unwrap().calls.is_empty());
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

fn split(pieces: &[&[u8]]) -> (Vec<SseEvent>, Vec<u8>) {
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
    assert!(events[0].data.is_empty() && events[0].id.is_none());
    assert_eq!(events[0].renamed("n"), events[0].raw, "a comment stays one");
    assert_eq!(
        (events[1].data.as_slice(), events[1].id.as_deref()),
        (b"a\nb".as_slice(), Some(b"7".as_slice()))
    );
    assert_eq!(events[1].renamed("n"), "id: n\nevent: message\ndata: a\ndata:b\n\n");
    let (events, _) = split(&[b"id: 7\r\ndata: a\r\nid:8\r\n\r\n"]);
    assert_eq!(events[0].renamed("n"), "id: n\ndata: a\r\n\r\n");
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
        let seen = |events: &[SseEvent]| -> Vec<_> { events.iter().map(|event| (event.data.clone(), event.id.clone())).collect() };
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
