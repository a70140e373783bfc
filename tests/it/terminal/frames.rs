//! What is said on the WebSocket, and text out of bytes.

use proptest::prelude::*;
use serde_json::{Value, json};
use sessiond::terminal::frame::{self, ClientFrame, LARGEST, MOST, Mode, ServerFrame, Size};
use sessiond::terminal::text::Text;

fn fault(text: &str) -> (&'static str, String) {
    let fault = frame::read(text).unwrap_err();
    let told: Value = serde_json::from_str(&fault.to_frame().to_json()).unwrap();
    assert_eq!(told, json!({ "type": "error", "code": fault.code, "message": fault.message }));
    (fault.code, fault.message.into_owned())
}

#[test]
fn the_documented_frames_are_read() {
    let auth = |text: &str| frame::read(text).unwrap();
    let expected = ClientFrame::Auth { token: "t".into(), mode: Mode::Text, after: None };
    assert_eq!(auth(r#"{"type":"auth","token":"t"}"#), expected);
    let expected = ClientFrame::Auth { token: "t".into(), mode: Mode::Binary, after: Some(42) };
    assert_eq!(auth(r#"{"type":"auth","token":"t","mode":"binary","after":42,"later":[]}"#), expected);
    assert_eq!(
        frame::read(r#"{"data":"ls -la\n","type":"input"}"#),
        Ok(ClientFrame::Input("ls -la\n".into()))
    );
    let size = Size { cols: 120, rows: 40 };
    assert_eq!(frame::read(r#" {"type":"resize","cols":120,"rows":40}"#), Ok(ClientFrame::Resize(size)));
}

#[test]
fn what_a_client_is_told_is_as_documented() {
    let told = |told: ServerFrame<'_>| serde_json::from_str::<Value>(&told.to_json()).unwrap();
    let output = ServerFrame::Output { data: "\u{1b}[1mé\r\n".into() };
    assert_eq!(told(output), json!({ "type": "output", "data": "\u{1b}[1mé\r\n" }));
    let disconnect = ServerFrame::Disconnect { reason: "terminated", message: None };
    assert_eq!(told(disconnect), json!({ "type": "disconnect", "reason": "terminated" }));
    let ready =
        ServerFrame::Ready { position: 7, cols: 80, rows: 24, mode: Mode::Binary, read_only: false, lost: 0 };
    let expected = json!({ "type": "ready", "position": 7, "cols": 80, "rows": 24, "mode": "binary", "read_only": false });
    assert_eq!(told(ready), expected);
    let ready =
        ServerFrame::Ready { position: 7, cols: 80, rows: 24, mode: Mode::Text, read_only: true, lost: 5 };
    assert_eq!(told(ready)["lost"], 5);
}

#[test]
fn what_is_wrong_with_a_frame_is_said() {
    assert_eq!(fault("hello").0, "INVALID_JSON");
    assert_eq!(fault(r#"{"type":"input","data":"#).0, "INVALID_JSON");
    assert_eq!(fault("[]").0, "INVALID_FRAME");
    assert_eq!(fault("7").0, "INVALID_FRAME");
    assert_eq!(fault(r#"{"type":7}"#).0, "INVALID_FRAME");
    assert_eq!(fault("{}").0, "INVALID_FRAME");
    let (code, message) = fault(r#"{"type":"shout"}"#);
    assert_eq!((code, message.contains("shout")), ("UNKNOWN_TYPE", true));
    assert!(fault(r#"{"type":"\u0000\u001b[2J"}"#).1.is_ascii(), "nothing of it reaches a terminal as it is");
    assert!(fault(r#"{"type":"input"}"#).1.contains("data"));
    assert!(fault(r#"{"type":"input","data":5}"#).1.starts_with("data: "));
    assert!(fault(r#"{"type":"auth"}"#).1.contains("token"));
    assert!(fault(r#"{"type":"auth","token":""}"#).1.contains("token"));
    assert!(fault(r#"{"type":"auth","token":"t","mode":"shouted"}"#).1.starts_with("mode: "));
    assert!(fault(r#"{"type":"auth","token":"t","after":-1}"#).1.starts_with("after: "));
    let long = format!(r#"{{"type":"auth","token":"{}"}}"#, "x".repeat(2_000));
    assert!(fault(&long).1.contains("token"));
    let large = format!(r#"{{"type":"input","data":"{}"}}"#, "x".repeat(LARGEST));
    assert_eq!(fault(&large).0, "FRAME_TOO_LARGE");
}

#[test]
fn a_size_has_bounds() {
    for (cols, rows, culprit) in
        [(0, 24, "cols"), (80, 0, "rows"), (-1, 24, "cols"), (80, 1_001, "rows"), (1i64 << 40, 1, "cols")]
    {
        let (code, message) = fault(&format!(r#"{{"type":"resize","cols":{cols},"rows":{rows}}}"#));
        assert_eq!((code, message.starts_with(culprit)), ("INVALID_FRAME", true), "{message}");
    }
    assert!(fault(r#"{"type":"resize","cols":80.5,"rows":24}"#).1.starts_with("cols: "));
    assert_eq!(Size::new(1, MOST.into()), Ok(Size { cols: 1, rows: MOST }));
}

#[test]
fn binary_messages_are_for_the_binary_mode() {
    assert_eq!(frame::read_binary(Mode::Binary, b"\xff\0"), Ok(()));
    assert_eq!(frame::read_binary(Mode::Text, b"x").unwrap_err().code, "INVALID_FRAME");
    assert_eq!(frame::read_binary(Mode::Binary, &vec![0; LARGEST + 1]).unwrap_err().code, "FRAME_TOO_LARGE");
}

/// Bytes that are text mostly.
fn nearly_text() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        4 => "\\PC{0,8}".prop_map(String::into_bytes),
        2 => "[aé日🦀\u{301}]{0,8}".prop_map(String::into_bytes),
        1 => proptest::collection::vec(any::<u8>(), 0..6),
        1 => proptest::collection::vec(0x80u8..=0xff, 0..6),
    ];
    proptest::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn whatever_is_sent_is_read_or_refused(text in "\\PC{0,60}") {
        let _ = frame::read(&text);
    }

    #[test]
    fn whatever_is_nearly_a_frame_is_read_or_refused(
        kind in "(auth|input|resize|[a-z]{0,6})",
        fields in proptest::collection::btree_map(
            "(type|token|data|cols|rows|mode|after)",
            "(null|true|-?[0-9]{1,20}|[0-9]\\.[0-9]|\"[a-z]{0,8}\"|\\[\\]|\\{\\})", 0..6),
    ) {
        let fields: Vec<_> = fields.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
        let text = format!("{{\"type\":\"{kind}\"{}{}}}", if fields.is_empty() { "" } else { "," }, fields.join(","));
        match frame::read(&text) {
            Ok(ClientFrame::Resize(size)) => prop_assert!((1..=MOST).contains(&size.cols) && (1..=MOST).contains(&size.rows)),
            Ok(_) => {}
            Err(fault) => prop_assert!(serde_json::from_str::<Value>(&fault.to_frame().to_json()).is_ok()),
        }
    }

    #[test]
    fn input_comes_through_as_it_was_said(data in any::<String>()) {
        let text = json!({ "type": "input", "data": data }).to_string();
        prop_assert_eq!(frame::read(&text), Ok(ClientFrame::Input(data)));
    }

    #[test]
    fn bytes_become_the_same_text_however_they_are_cut(
        bytes in nearly_text(),
        lengths in proptest::collection::vec(1usize..9, 1..8),
    ) {
        let (mut text, mut whole) = (Text::default(), String::new());
        let (mut rest, mut lengths) = (&bytes[..], lengths.iter().cycle());
        while !rest.is_empty() {
            let (piece, after) = rest.split_at((*lengths.next().unwrap()).min(rest.len()));
            let frame = ServerFrame::Output { data: text.push(piece) }.to_json();
            let frame: Value = serde_json::from_str(&frame).unwrap();
            whole += frame["data"].as_str().unwrap();
            rest = after;
        }
        whole += text.finish();
        prop_assert_eq!(whole, String::from_utf8_lossy(&bytes));
        prop_assert!(!text.waits());
    }
}

#[test]
fn no_character_is_split_and_what_is_none_shows() {
    let mut text = Text::default();
    assert_eq!(text.push(b"gr\xc3"), "gr");
    assert_eq!(text.push(b"\xbc\xc3\x9fe \xf0\x9f\xa6"), "üße ");
    assert!(text.waits());
    assert_eq!(text.push(b"\x80!"), "🦀!");
    assert_eq!(text.push(b"\xff\xc3("), "\u{fffd}\u{fffd}(");
    assert_eq!(text.push(b"\xe6\x97"), "");
    assert_eq!(text.finish(), "\u{fffd}");
    assert_eq!(text.finish(), "");
}
