//! Recordings as asciicasts, replayed by another terminal.

use proptest::prelude::*;
use serde_json::{Value, json};
use sessiond::terminal::asciicast::{About, Asciicast, Version};
use sessiond::terminal::frame::Size;
use sessiond::terminal::text::Text;
use sessiond_core::journal::Code;

use super::pty::Happened;
use super::recordings::{self, events};
use super::shell_scenarios::SIZE;

#[test]
fn a_cast_says_what_was_when() {
    let about = About { timestamp: 1_700_000_000, title: Some("a \"b\"".into()), kind: None };
    let mut cast = Asciicast::default();
    let mut lines = cast.header(Size { cols: 120, rows: 40 }, &about);
    lines += &cast.entry(0, Code::Output, b"$ ");
    lines += &cast.entry(1_500_000, Code::Input, b"l\x7f");
    lines += &cast.entry(1_500_001, Code::Output, b"caf\xc3");
    lines += &cast.entry(1_600_000, Code::Output, b"\xa9\r\n\x1b[0m");
    lines += &cast.entry(1_500_000, Code::Output, b"late");
    lines += &cast.entry(2_000_000, Code::Resize, b"80x24");
    lines += &cast.entry(2_000_000, Code::Marker, b"");
    lines += &cast.entry(2_000_000, Code::Output, b"");
    lines += &cast.entry(3_000_000, Code::Output, b"\xe6");
    lines += &cast.entry(61_000_000, Code::Exit, b"130");
    lines += &cast.finish();
    let expected = r#"{"version":3,"term":{"cols":120,"rows":40},"timestamp":1700000000,"title":"a \"b\""}
[0.000000, "o", "$ "]
[1.500000, "i", "l"]
[0.000001, "o", "caf"]
[0.099999, "o", "é\r\n\u001b[0m"]
[0.000000, "o", "late"]
[0.400000, "r", "80x24"]
[0.000000, "m", ""]
[59.000000, "o", "�"]
[0.000000, "x", "130"]
"#;
    assert_eq!(lines, expected.replace("\"l\"", "\"l\u{7f}\""));
}

#[test]
fn the_header_names_the_terminal() {
    let about = About { kind: Some("xterm-256color".into()), ..About::default() };
    let header: Value = serde_json::from_str(&Asciicast::default().header(Size::USUAL, &about)).unwrap();
    let term = json!({ "cols": 80, "rows": 24, "type": "xterm-256color" });
    assert_eq!(header, json!({ "version": 3, "term": term, "timestamp": 0 }));
}

#[test]
fn older_players_are_told_the_time_since_the_beginning_and_of_no_exit() {
    let about = About { timestamp: 7, title: None, kind: Some("xterm".into()) };
    let mut cast = Asciicast::new(Version::Two);
    let mut lines = cast.header(Size { cols: 120, rows: 40 }, &about);
    lines += &cast.entry(500_000, Code::Output, b"$ ");
    lines += &cast.entry(1_500_000, Code::Input, b"l");
    lines += &cast.entry(2_000_000, Code::Resize, b"80x24");
    lines += &cast.entry(2_000_000, Code::Marker, b"ls");
    lines += &cast.entry(61_000_000, Code::Exit, b"0");
    lines += &cast.finish();
    let expected = r#"{"version":2,"width":120,"height":40,"timestamp":7,"env":{"TERM":"xterm"}}
[0.500000, "o", "$ "]
[1.500000, "i", "l"]
[2.000000, "r", "80x24"]
[2.000000, "m", "ls"]
"#;
    assert_eq!(lines, expected);
}

/// A terminal that knows nothing of ours.
struct Other(avt::Terminal);

impl Other {
    fn new(cols: u64, rows: u64) -> Self {
        Self(avt::Terminal::new(cols as usize, rows as usize).unwrap())
    }

    fn resize(&mut self, size: &str) {
        let (cols, rows) = size.split_once('x').unwrap();
        self.0.resize(cols.parse().unwrap(), rows.parse().unwrap());
    }

    /// What it shows, colours and all.
    fn shows(&self) -> String {
        self.0.dump()
    }
}

fn replayed(cast: &str) -> Other {
    let header: Value = serde_json::from_str(cast.lines().next().unwrap()).unwrap();
    assert_eq!(header["version"], 3);
    let size = |name: &str| header["term"][name].as_u64().unwrap();
    let mut other = Other::new(size("cols"), size("rows"));
    for (_, code, data) in events(cast) {
        match code.as_str() {
            "o" => other.0.feed(&*data),
            "r" => other.resize(&data),
            _ => {}
        }
    }
    other
}

#[test]
fn a_replayed_cast_gives_the_screen_that_was_seen() {
    for shell in ["bash", "old-bash", "zsh", "dash"] {
        for (scene, story) in recordings::read(shell) {
            let (mut direct, mut text) = (Other::new(SIZE.cols.into(), SIZE.rows.into()), Text::default());
            let mut cast = Asciicast::default();
            let mut lines = cast.header(SIZE, &About::default());
            for happened in &story {
                match happened {
                    Happened::Printed(at, bytes) => {
                        direct.0.feed(&*text.push(bytes));
                        // Cut where characters are cut, too.
                        for piece in bytes.chunks(5) {
                            lines += &cast.entry(*at, Code::Output, piece);
                        }
                    }
                    Happened::Typed(at, bytes) => lines += &cast.entry(*at, Code::Input, bytes),
                    Happened::Resized(at, Size { cols, rows }) => {
                        let size = format!("{cols}x{rows}");
                        direct.resize(&size);
                        lines += &cast.entry(*at, Code::Resize, size.as_bytes());
                    }
                }
            }
            lines += &cast.finish();
            assert_eq!(replayed(&lines).shows(), direct.shows(), "{} in {shell}", scene.name);
        }
    }
}

proptest! {
    #[test]
    fn a_cast_has_all_bytes_and_all_times(
        entries in proptest::collection::vec((0u64..5_000_000, any::<bool>(), proptest::collection::vec(any::<u8>(), 0..12)), 0..30),
    ) {
        let mut cast = Asciicast::default();
            let mut lines = cast.header(SIZE, &About::default());
        let (mut now, mut sent) = (0, [Vec::new(), Vec::new()]);
        for (later, is_input, bytes) in entries {
            now += later;
            sent[usize::from(is_input)].extend_from_slice(&bytes);
            lines += &cast.entry(now, if is_input { Code::Input } else { Code::Output }, &bytes);
        }
        lines += &cast.finish();
        let got = |wanted: &str| events(&lines).filter(|(_, code, _)| code == wanted).map(|(.., data)| data).collect::<String>();
        prop_assert_eq!(got("o"), String::from_utf8_lossy(&sent[0]));
        prop_assert_eq!(got("i"), String::from_utf8_lossy(&sent[1]));
        let last = events(&lines).last().map_or(0, |(at, ..)| at);
        prop_assert!(last <= now);
    }
}
