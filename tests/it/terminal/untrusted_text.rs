//! Text of others where a line or a terminal shows it: nothing of it is obeyed, whatever it is and however it is cut.

use proptest::prelude::*;
use sessiond_core::shown::{self, Indented};

fn is_obeyed(c: char) -> bool {
    c.is_control()
        || "\u{2028}\u{2029}\u{61c}\u{200e}\u{200f}".contains(c)
        || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[test]
fn what_a_terminal_obeys_is_written_out_and_all_else_stays() {
    for (text, line) in [
        ("plain, grüße 日本 👩‍💻\twith a tab", "plain, grüße 日本 👩‍💻\twith a tab"),
        ("\u{1b}[31mred", r"\u{1b}[31mred"),
        ("a\rb\nc\u{b}d\u{c}e\u{7}f\u{0}g\u{7f}h", r"a\rb\nc\u{b}d\u{c}e\u{7}f\u{0}g\u{7f}h"),
        ("\u{85}\u{9b}\u{9d}0;x\u{9c}", r"\u{85}\u{9b}\u{9d}0;x\u{9c}"),
        (
            "\u{2028}\u{2029}\u{202e}\u{2066}\u{200f}\u{61c}",
            r"\u{2028}\u{2029}\u{202e}\u{2066}\u{200f}\u{61c}",
        ),
    ] {
        assert_eq!(shown::line(text), line);
    }
    assert_eq!(shown::lines("a\nb\r\n"), "a\nb\\r\n");
    // A log's own colours stay, and nothing else that begins like them.
    let coloured = "\u{1b}[2m12:00\u{1b}[0m \u{1b}[33m WARN\u{1b}[0m \u{1b}[2J\u{1b}]0;x\u{7}\u{1b}[3";
    let wanted = "\u{1b}[2m12:00\u{1b}[0m \u{1b}[33m WARN\u{1b}[0m \\u{1b}[2J\\u{1b}]0;x\\u{7}\\u{1b}[3";
    assert_eq!(shown::coloured(coloured), wanted);
}

#[test]
fn what_is_too_long_is_cut_between_characters_and_says_so() {
    assert_eq!(shown::cut("ü".repeat(20), 20), "ü".repeat(20));
    assert_eq!(shown::cut("ü".repeat(21), 20), "ü".repeat(12) + " … (cut)");
    assert_eq!(shown::cut_bytes("ü".repeat(10), 20), "ü".repeat(10));
    let cut = shown::cut_bytes("ü".repeat(11), 20);
    assert!(cut.len() <= 20 && cut.ends_with(" … (cut)"), "{cut}");
}

proptest! {
    #[test]
    fn nothing_that_is_shown_is_obeyed(text in "(\\PC|[\u{0}-\u{1f}\u{7f}-\u{9f}\u{2028}\u{2029}\u{200e}\u{202a}-\u{202e}\u{2066}-\u{2069}]){0,60}") {
        prop_assert!(!shown::line(&text).contains(|c| is_obeyed(c) && c != '\t'));
        prop_assert!(!shown::lines(&text).contains(|c| is_obeyed(c) && c != '\t' && c != '\n'));
    }

    #[test]
    fn output_is_indented_alike_however_it_is_cut(text in "[a\r\n\t\u{1b}é]{0,30}", at in 0_usize..30) {
        let at = text.floor_char_boundary(at.min(text.len()));
        let (mut whole, mut parts) = (String::new(), String::new());
        let mut indented = Indented::default();
        indented.push(&text, &mut whole);
        indented.end(&mut whole);
        let mut indented = Indented::default();
        indented.push(&text[..at], &mut parts);
        indented.push(&text[at..], &mut parts);
        indented.end(&mut parts);
        prop_assert_eq!(&whole, &parts);
        let is_plain = |line: &str| line.starts_with('\t') || line.is_empty();
        prop_assert!(whole.lines().all(is_plain), "{:?}", whole);
        prop_assert!(!whole.contains(|c| is_obeyed(c) && c != '\t' && c != '\n'));
    }
}
