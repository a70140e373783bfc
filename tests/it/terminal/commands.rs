//! Which commands were entered, read off real shells.

use proptest::prelude::*;
use sessiond::terminal::commands::{HOLD, Recognised, Recogniser};
use sessiond::terminal::frame::Size;
use sessiond::terminal::screen::Screen;
use sessiond::terminal::text::Text;

use super::pty::{Happened, Pty};
use super::recordings;
use super::shell_scenarios::{SCENES, SIZE, Scene, shell};

fn recogniser_of(story: &[Happened]) -> Recogniser {
    let mut recogniser = Recogniser::new(SIZE);
    for happened in story {
        match happened {
            Happened::Typed(at, bytes) => recogniser.typed(*at, bytes),
            Happened::Printed(at, bytes) => recogniser.printed(*at, bytes),
            Happened::Resized(_, size) => recogniser.resized(*size),
        }
    }
    recogniser
}

/// The commands of a story, and the input that may be recorded.
fn recognised(story: &[Happened]) -> (Vec<String>, String) {
    let (mut commands, mut input) = (Vec::new(), Vec::new());
    for seen in recogniser_of(story).take() {
        match seen {
            Recognised::Command { text, .. } => commands.push(text),
            Recognised::Input { at, bytes } => input.push((at, bytes)),
        }
    }
    input.sort_by_key(|(at, _)| *at);
    let input: Vec<u8> = input.into_iter().flat_map(|(_, bytes)| bytes).collect();
    (commands, String::from_utf8_lossy(&input).into_owned())
}

/// What is wrong with what is recognised in a story.
fn faults(scene: &Scene, story: &[Happened]) -> Vec<String> {
    let (commands, input) = recognised(story);
    let mut faults = Vec::new();
    if commands != scene.commands {
        faults.push(format!("{}: {commands:#?} instead of {:#?}", scene.name, scene.commands));
    }
    let wrong = |text: &&&str, there: bool| input.contains(**text) == there;
    faults.extend(
        scene
            .hidden
            .iter()
            .filter(|text| wrong(text, true))
            .map(|text| format!("{}: recorded {text:?}", scene.name)),
    );
    faults.extend(
        scene
            .shown
            .iter()
            .filter(|text| wrong(text, false))
            .map(|text| format!("{}: not recorded {text:?}, but {input:?}", scene.name)),
    );
    faults
}

/// Plays all scenes at a real shell.
fn play(name: &str) {
    let (program, prompt) = shell(name);
    let (mut stories, mut wrong) = (Vec::new(), Vec::new());
    for scene in SCENES.iter().filter(|scene| scene.shells.contains(&name)) {
        let home = tempfile::TempDir::new().unwrap();
        if name == "old-bash" {
            // As bash was up to 5.0.
            std::fs::write(home.path().join(".inputrc"), "set enable-bracketed-paste off\n").unwrap();
        }
        let mut pty = Pty::start(program, home.path(), SIZE);
        pty.until(prompt);
        (scene.act)(&mut pty, prompt);
        wrong.extend(faults(scene, &pty.story));
        stories.push((scene.name, std::mem::take(&mut pty.story)));
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    if std::env::var_os("WRITE_RECORDINGS").is_some() {
        recordings::write(name, &stories);
    }
}

#[test]
fn commands_are_read_off_bash() {
    play("bash");
}

#[test]
fn commands_are_read_off_a_bash_that_does_not_bracket_pastes() {
    play("old-bash");
}

#[test]
fn commands_are_read_off_zsh() {
    play("zsh");
}

#[test]
fn commands_are_read_off_a_shell_without_a_line_editor() {
    play("dash");
}

#[test]
fn commands_are_read_off_fish() {
    play("fish");
}

const SHELLS: [&str; 4] = ["bash", "old-bash", "zsh", "dash"];

#[test]
fn recorded_stories_are_read_as_they_were() {
    for shell in SHELLS {
        let stories = recordings::read(shell);
        assert!(stories.len() > 10, "{shell}");
        let wrong: Vec<_> = stories.iter().flat_map(|(scene, story)| faults(scene, story)).collect();
        assert!(wrong.is_empty(), "{shell}\n{}", wrong.join("\n"));
    }
}

/// Cuts what was printed into pieces of these lengths, over and over.
fn cut(story: &[Happened], lengths: &[usize]) -> Vec<Happened> {
    let mut lengths = lengths.iter().copied().cycle();
    let mut cut = Vec::new();
    for happened in story {
        let Happened::Printed(at, bytes) = happened else {
            cut.push(happened.clone());
            continue;
        };
        let mut rest = &bytes[..];
        loop {
            let (piece, after) = rest.split_at(lengths.next().unwrap().min(rest.len()));
            cut.push(Happened::Printed(*at, piece.to_vec()));
            rest = after;
            if rest.is_empty() {
                break;
            }
        }
    }
    cut
}

#[test]
fn the_screen_is_what_another_terminal_shows() {
    for shell in SHELLS {
        for (scene, story) in recordings::read(shell) {
            if scene.name == "resized" {
                continue; // The other one moves lines about.
            }
            let mut ours = (vte::Parser::<1024>::default(), Drawn(Screen::new(SIZE)));
            let mut other = avt::Terminal::new(SIZE.cols.into(), SIZE.rows.into()).unwrap();
            let mut text = Text::default();
            for happened in story {
                if let Happened::Printed(_, bytes) = happened {
                    ours.0.advance(&mut ours.1, &bytes);
                    other.feed(&*text.push(&bytes));
                    if !ours.1.0.is_alternate() {
                        let expected: Vec<_> = other
                            .primary_screen()
                            .visible_lines()
                            .map(|line| line.text().trim_end().to_owned())
                            .collect();
                        assert_eq!(ours.1.0.rows(), expected, "{} in {shell}", scene.name);
                    }
                }
            }
        }
    }
}

/// A screen and nothing else.
struct Drawn(Screen);

impl vte::Perform for Drawn {
    fn print(&mut self, c: char) {
        self.0.print(c);
    }

    fn execute(&mut self, byte: u8) {
        self.0.execute(byte);
    }

    fn csi_dispatch(&mut self, params: &vte::Params, intermediates: &[u8], _: bool, action: char) {
        self.0.control(params, intermediates, action);
    }

    fn esc_dispatch(&mut self, intermediates: &[u8], _: bool, byte: u8) {
        self.0.escape(intermediates, byte);
    }
}

fn select(texts: &'static [&'static str]) -> impl Strategy<Value = Vec<u8>> {
    prop::sample::select(texts).prop_map(|text| text.as_bytes().to_vec())
}

/// Bytes of the kind that terminals are sent, mostly.
fn hostile() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        4 => "[ -~]{0,12}".prop_map(String::into_bytes),
        2 => proptest::collection::vec(any::<u8>(), 0..8),
        2 => "\u{1b}\\[[?>!]?[0-9;:]{0,8}[@-~]".prop_map(String::into_bytes),
        2 => select(&["\r\n", "\r", "\n", "\t", "\x08", "\x7f", "\x03", "\x04", "\x15", "\x1b[M", "\x1bO"]),
        1 => "\u{1b}\\]133;[A-D];?[ -~]{0,20}\u{7}".prop_map(String::into_bytes),
        1 => "\u{1b}[\\[\\]PX^_()78cDEM]".prop_map(String::into_bytes),
        1 => "\\PC{0,6}".prop_map(String::into_bytes),
        2 => select(&["\x1b[?2004h", "\x1b[?2004l", "\x1b[?1049h", "\x1b[?1049l", "\x1b[200~", "\x1b[201~", "$ "]),
    ];
    proptest::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

fn story() -> impl Strategy<Value = Vec<Happened>> {
    let size = (1u16..200, 1u16..300).prop_map(|(cols, rows)| Size { cols, rows });
    let happened = prop_oneof![
        4 => (0u64..2_000_000, hostile()).prop_map(|(at, bytes)| Happened::Typed(at, bytes)),
        8 => (0u64..2_000_000, hostile()).prop_map(|(at, bytes)| Happened::Printed(at, bytes)),
        1 => (0u64..2_000_000, size).prop_map(|(at, size)| Happened::Resized(at, size)),
    ];
    proptest::collection::vec(happened, 0..30).prop_map(|mut story| {
        // Time goes on.
        let mut now = 0;
        for happened in &mut story {
            let (Happened::Typed(at, _) | Happened::Printed(at, _) | Happened::Resized(at, _)) = happened;
            now += *at;
            *at = now;
        }
        story
    })
}

proptest! {
    #[test]
    fn where_output_is_cut_makes_no_difference(shell in 0..4usize, nth in any::<prop::sample::Index>(), lengths in proptest::collection::vec(1usize..40, 1..10)) {
        let stories = recordings::read(SHELLS[shell]);
        let (_, story) = nth.get(&stories);
        prop_assert_eq!(recogniser_of(&cut(story, &lengths)).take(), recogniser_of(story).take());
    }

    #[test]
    fn whatever_comes_it_goes_on_within_bounds(story in story(), lengths in proptest::collection::vec(1usize..20, 1..10)) {
        let mut recogniser = recogniser_of(&story);
        prop_assert!(recogniser.memory() < 4 << 20);
        prop_assert_eq!(recogniser_of(&cut(&story, &lengths)).take(), recogniser.take());
    }
}

fn typed(at: u64, text: &str) -> Happened {
    Happened::Typed(at, text.as_bytes().to_vec())
}

fn printed(at: u64, text: &str) -> Happened {
    Happened::Printed(at, text.as_bytes().to_vec())
}

#[test]
fn input_that_is_not_shown_in_time_is_let_go_of() {
    let mut recogniser = recogniser_of(&[printed(0, "Password: "), typed(10, "s"), typed(20, "e")]);
    assert!(recogniser.holds());
    recogniser.advance_to(10 + HOLD - 1);
    assert!(recogniser.holds(), "not before its time");
    recogniser.advance_to(10 + HOLD);
    assert!(!recogniser.holds());
    // Nor is the rest of the line, though it should be shown.
    recogniser.typed(11 + HOLD, b"same\r");
    recogniser.printed(12 + HOLD, b"sesame\r\n$ ");
    assert!(!recogniser.take().iter().any(|seen| matches!(seen, Recognised::Input { .. })));
    // The next line is another.
    recogniser.typed(13 + HOLD, b"ls\r");
    recogniser.printed(14 + HOLD, b"ls\r\n");
    let at = 13 + HOLD;
    let expected =
        [Recognised::Input { at, bytes: b"ls\r".to_vec() }, Recognised::Command { at, text: "ls".into() }];
    assert_eq!(recogniser.take(), expected);
}

#[test]
fn a_command_has_the_time_at_which_it_was_entered() {
    let story = [
        printed(0, "$ "),
        typed(100, "sleep 1"),
        printed(120, "sleep 1"),
        typed(200, "\r"),
        printed(220, "\r\n"),
        // Ahead, and shown when it is read.
        typed(300, "date\r"),
        printed(1_220, "$ date\r\nThu\r\n$ "),
    ];
    let commands: Vec<_> = recogniser_of(&story)
        .take()
        .into_iter()
        .filter(|seen| matches!(seen, Recognised::Command { .. }))
        .collect();
    let command = |at, text: &str| Recognised::Command { at, text: text.into() };
    assert_eq!(commands, [command(200, "sleep 1"), command(300, "date")]);
}

#[test]
fn a_shell_that_says_what_it_runs_is_believed() {
    let prompt = "\x1b]133;A\x07host> ";
    let story = [
        printed(0, prompt),
        typed(1, "ls\r"),
        printed(2, "ls\r\n\x1b]133;C;cmdline_url=ls\x07file\r\n\x1b]133;D;0\x07"),
        printed(3, prompt),
        typed(4, "ec\x1b[C\r"),
        printed(5, "echo grüße; x\r\n\x1b]133;C;cmdline_url=echo%20gr%C3%BC%C3%9Fe%3B%20x\x07grüße\r\n"),
        printed(6, prompt),
        typed(7, "\r"),
        printed(8, "\r\n"),
    ];
    assert_eq!(recognised(&story).0, ["ls", "echo grüße; x"]);
}

#[test]
fn what_was_typed_blindly_is_not_recorded_because_something_is_printed_there() {
    for secret in ["sesame", "sesame\x1b[D", "sesame\x17", "geheimnißvoll"] {
        let story = [
            printed(0, "PIN: "),
            typed(1, &format!("{secret}\r")),
            printed(2, "checking...\r\n"),
            printed(3, "$ "),
            typed(4, "ls\r"),
            printed(5, "ls\r\n"),
        ];
        assert_eq!(recognised(&story).1, "ls\r", "{secret:?}");
    }
}

#[test]
fn in_full_screen_programs_only_what_they_show_is_recorded() {
    let story = [
        printed(0, "$ \x1b[?1049h\x1b[2J\x1b[HPassword:"),
        typed(1, "sesame"),
        typed(2, "\r"),
        printed(3, "\x1b[5;1Hwelcome"),
        typed(4, "hello"),
        printed(5, "\x1b[7mhello\x1b[m"),
        typed(6, "\r"),
        printed(7, "\x1b[?1049l"),
    ];
    let (commands, input) = recognised(&story);
    assert_eq!((commands, input.as_str()), (vec![], "hello\r"));
}

#[test]
fn what_runs_over_the_screen_is_read_as_if_it_had_been_drawn() {
    for (what, bulk) in [
        ("lines", "a line of some length\r\n".repeat(3_000)),
        ("long lines", format!("{}\r\n", "x".repeat(500)).repeat(400)),
        ("lines without returns", "a line\n".repeat(3_000)),
        ("wide", "日本語\r\n".repeat(3_000)),
        ("unfinished", format!("{}and some $ ", "a line\r\n".repeat(3_000))),
        ("a title", format!("\x1b]0;{}", "a title\r\n".repeat(3_000))),
    ] {
        for before in [
            "$ ",
            "\x1b]0;title",
            "\x1b[2;5r\x1b[20;1H",
            "\x1b[4h",
            "\x1b[?1049h",
            "\x1b]133;A\x07$ \x1b]133;B\x07",
        ] {
            let story = |pieces: usize| {
                let mut story = vec![Happened::Printed(0, before.as_bytes().to_vec())];
                story
                    .extend(bulk.as_bytes().chunks(pieces).map(|piece| Happened::Printed(0, piece.to_vec())));
                story.push(Happened::Printed(0, b"\x07\x1b[?1049l\r\nhost$ ".to_vec()));
                story.push(Happened::Typed(1, b"ls\r".to_vec()));
                story.push(Happened::Printed(2, b"ls\r\nfile\r\nhost$ ".to_vec()));
                story.push(Happened::Typed(3, b"\x1b[A\r".to_vec()));
                story.push(Happened::Printed(4, b"ls\r\nfile\r\nhost$ ".to_vec()));
                story
            };
            // In small pieces nothing is left out.
            let (large, small) = (recogniser_of(&story(32_768)).take(), recogniser_of(&story(1_000)).take());
            assert_eq!(large, small, "{what} after {before:?}");
            let found = large.contains(&Recognised::Command { at: 1, text: "ls".into() });
            assert!(found || before.contains("133;B"), "{what} after {before:?}: {large:?}");
        }
    }
}

#[test]
fn what_never_ends_takes_no_memory() {
    let endless: [(&str, &[u8]); 8] = [
        ("a command of the terminal's", b"\x1b]0;and so on"),
        ("a string", b"\x1bPand so on"),
        ("marks on one character", "\u{301}".as_bytes()),
        ("lines", b"a line\r\n"),
        ("wide lines", "日本".as_bytes()),
        ("numbers", b"\x1b[1;1;1;1;1;1;1;1;1;1;1;1;1;1;1;1;1"),
        ("prompts", b"\x1b]133;A;k=s\x07\x1b]133;B\x07"),
        ("insertions", b"\x1b[9999@x\x1b[9999L"),
    ];
    for (what, bytes) in endless {
        for typed in [false, true] {
            let mut recogniser = Recogniser::new(Size { cols: 200, rows: 50 });
            for at in 0..250 {
                let bytes = bytes.repeat(1 + 10_000 / bytes.len());
                if typed {
                    recogniser.typed(at, &bytes);
                } else {
                    recogniser.printed(at, &bytes);
                }
                recogniser.take();
            }
            assert!(recogniser.memory() < 3 << 19, "{what}: {}", recogniser.memory());
        }
    }
}
