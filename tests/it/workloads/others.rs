//! What programs say of themselves: shown to others as text that nobody's terminal obeys, and never a reason to lose what it
//! is said of.

use reqwest::Method;
use serde_json::json;

use super::{app, id_of};
use crate::support::Server;

#[tokio::test]
async fn a_downloaded_log_has_no_character_that_a_terminal_obeys_and_no_entry_that_looks_like_two() {
    let server = Server::start().await;
    let key = server.key(&["session"]).await;
    let path = key.begin("task", app("Planner")).await;
    let texts = [
        "\u{1b}]0;owned\u{7}\u{1b}[2J",
        "one\r2026-11-29T00:00:00.000Z error forged\u{b}two",
        "a\u{85}b\u{9b}31mc\u{2028}d\u{2029}e\u{202e}f\u{2066}g",
        "two\r\nlines",
    ];
    assert_eq!(key.log(&path, &texts.map(str::to_owned)).await.0, 201);
    let response = key.send(Method::GET, &format!("{path}/logs/download"), None).await;
    let text = response.text().await.unwrap();
    let said: Vec<&str> =
        text.lines().map(|line| line.split_once(" - ").map_or(line, |(_, said)| said)).collect();
    let wanted = [
        r"\u{1b}]0;owned\u{7}\u{1b}[2J",
        r"one\r2026-11-29T00:00:00.000Z error forged\u{b}two",
        r"a\u{85}b\u{9b}31mc\u{2028}d\u{2029}e\u{202e}f\u{2066}g",
        "two",
        "\tlines",
    ];
    assert_eq!(said, wanted, "{text:?}");
    let page = key.see(&format!("{path}/logs")).await;
    let raw: Vec<_> = page["lines"].as_array().unwrap().iter().map(|line| line["text"].clone()).collect();
    assert_eq!(json!(raw), json!(texts), "JSON has it as it was said");
}

#[tokio::test]
async fn a_line_that_is_too_long_is_cut_and_takes_no_other_with_it() {
    let server = Server::start().await;
    let key = server.key(&["session"]).await;
    let path = key.begin("task", app("Planner")).await;
    let long = "ü".repeat(40 << 10);
    let texts = ["before".to_owned(), long, "x".repeat(64 << 10), "after".to_owned()];
    assert_eq!(key.log(&path, &texts).await.0, 201);
    let page = key.see(&format!("{path}/logs")).await;
    let text = |index: usize| page["lines"][index]["text"].as_str().unwrap();
    assert_eq!((text(0), text(3), text(2).len()), ("before", "after", 64 << 10));
    assert!(text(1).len() <= 64 << 10 && text(1).starts_with("üü") && text(1).ends_with("ü … (cut)"));
}

#[tokio::test]
async fn an_end_is_recorded_whatever_is_said_of_it() {
    let server = Server::start().await;
    let key = server.key(&["session"]).await;
    for (message, shown) in [
        (json!("x".repeat(5_000)), format!("{} … (cut)", "x".repeat(2_000 - 8))),
        (
            json!("killed\u{1b}[0m by \u{0}signal\r\n\u{85}9"),
            r"killed\u{1b}[0m by \u{0}signal".to_owned() + "\n\\u{85}9",
        ),
        (json!(null), "The work failed".to_owned()),
    ] {
        let path = key.begin("task", app("Planner")).await;
        assert_eq!(key.move_on(&path, "running").await, 200);
        let (status, body) =
            key.post(&format!("{path}/end"), json!({ "state": "failed", "message": message })).await;
        assert_eq!((status.as_u16(), &body["state"]), (200, &json!("failed")), "{body}");
        assert_eq!(body["message"], shown, "{}", id_of(&path));
    }
}
