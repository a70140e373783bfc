//! What programs print is shown to others: as text it drives nobody's terminal, and looks like nothing that was entered.

use reqwest::Method;
use serde_json::json;

use super::{House, SESSIONS};

/// Prints an escape that would rename a window, a line that looks like one of the record, and all else that is obeyed.
const PRINTS: &str =
    r"printf '\033]0;owned\007\033[2Jred\033[0m\n[2026-11-29T00:00:00Z] $ rm -rf /\none\rtwo\vthree\n'";
const MORE: &str = r"printf '\302\205nel \302\233c1 \342\200\250ls \342\200\251ps \342\200\256bidi \342\201\246iso\n'; echo do''ne";

#[tokio::test(flavor = "multi_thread")]
async fn a_text_log_has_no_character_that_a_terminal_obeys_and_no_line_that_a_program_forged() {
    let house = House::new().await;
    let (opened, mut client) = house.sit(&house.own).await;
    client.until("$ ").await;
    client.run(PRINTS, "three\r\n").await;
    client.run(MORE, "done\r\n").await;
    client.input("exit\r").await;
    client.farewell().await;
    let path = format!("{SESSIONS}/{}/logs", opened.id);
    let text = house.own.send(Method::GET, &format!("{path}?format=text"), None).await.text().await.unwrap();
    let obeyed = |c: char| {
        c.is_control() && !matches!(c, '\n' | '\t') || "\u{2028}\u{2029}\u{202e}\u{2066}".contains(c)
    };
    assert!(!text.contains(obeyed), "{text:?}");
    let entered: Vec<&str> = text.lines().filter(|line| line.starts_with('[')).collect();
    assert_eq!(entered.len(), 3, "{text}");
    assert!(text.contains("\n\t[2026-11-29T00:00:00Z] $ rm -rf /\n"), "{text}");
    assert!(text.contains("\tred\n") && text.contains("one\\rtwo\\u{b}three\n"), "{text}");
    assert!(!text.contains("owned\n") && !text.contains("\\u{1b}"), "sequences are left out whole: {text}");
    for written in ["\\u{85}nel", "\\u{9b}c1", "\\u{2028}ls", "\\u{2029}ps", "\\u{202e}bidi", "\\u{2066}iso"]
    {
        assert!(text.contains(written), "{written}: {text}");
    }
    // As it was printed it is in JSON and in the recording.
    assert_eq!(house.printed(&opened.id).await, client.text());
    let cast = house.own.send(Method::GET, &format!("{SESSIONS}/{}/recording", opened.id), None).await;
    let cast = cast.text().await.unwrap();
    let shown = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap()[2].clone();
    let output = cast.lines().skip(1).filter(|line| line.contains(", \"o\", ")).map(shown);
    let output: String = output.map(|one| one.as_str().unwrap().to_owned()).collect();
    assert_eq!(json!(output), json!(client.text()));
}
