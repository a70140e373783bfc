//! Which commands were entered, read off real shells.

use proptest::prelude::*;
use sessiond::terminal::commands::{Recogniser, Seen};
use sessiond::terminal::frame::Size;
use sessiond::terminal::screen::Screen;
use sessiond::terminal::text::Text;

use super::pty::{Happened, Pty};
use super::recordings;
use super::scenes::{SCENES, SIZE, Scene, shell};

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
            Seen::Command { text, .. } => commands.push(text),
            Seen::Input { at, bytes } => input.push((at, bytes)),
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
            let mut recogniser = Recogniser::new(Size { cols: 1000, rows: 1000 });
            for at in 0..400 {
                let bytes = bytes.repeat(1 + 10_000 / bytes.len());
                if typed {
                    recogniser.typed(at, &bytes);
                } else {
                    recogniser.printed(at, &bytes);
                }
            }
            assert!(recogniser.memory() < 8 << 20, "{what}: {}", recogniser.memory());
        }
    }
}
