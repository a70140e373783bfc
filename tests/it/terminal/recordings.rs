//! Stories that were recorded, as asciicasts with what was typed in them. `WRITE_RECORDINGS=1` writes them anew.

use std::path::PathBuf;

use serde_json::Value;
use sessiond::terminal::asciicast::{About, Asciicast};
use sessiond::terminal::frame::Size;
use sessiond_core::journal::Code;

use super::pty::Happened;
use super::shell_scenarios::{SCENES, SIZE, Scene};

fn path(shell: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("tests/it/terminal/recordings/{shell}.cast"))
}

/// Writes the stories of a shell down, one after the other, each behind a marker with its name.
pub fn write(shell: &str, stories: &[(&str, Vec<Happened>)]) {
    let about = About {
        title: Some(format!("{shell} in the tests")),
        kind: Some("xterm-256color".into()),
        timestamp: 0,
    };
    let (mut cast, mut begun) = (Asciicast::default(), 0);
    let mut lines = cast.header(SIZE, &about);
    for (name, story) in stories {
        lines += &cast.entry(begun, Code::Marker, name.as_bytes());
        let mut last = begun;
        for happened in story {
            let (at, code, bytes) = match happened {
                Happened::Typed(at, bytes) => (at, Code::Input, bytes.clone()),
                Happened::Printed(at, bytes) => (at, Code::Output, bytes.clone()),
                Happened::Resized(at, Size { cols, rows }) => {
                    (at, Code::Resize, format!("{cols}x{rows}").into_bytes())
                }
            };
            last = begun + at;
            lines += &cast.entry(last, code, &bytes);
        }
        begun = last;
    }
    lines += &cast.finish();
    std::fs::create_dir_all(path(shell).parent().unwrap()).unwrap();
    std::fs::write(path(shell), lines).unwrap();
}

/// The events of an asciicast: time in microseconds, code and data.
pub fn events(cast: &str) -> impl Iterator<Item = (u64, String, String)> {
    let mut now = 0.0;
    cast.lines().skip(1).map(move |line| {
        let event: Value = serde_json::from_str(line).unwrap();
        now += event[0].as_f64().unwrap();
        let text = |at: usize| event[at].as_str().unwrap().to_owned();
        ((now * 1e6f64).round() as u64, text(1), text(2))
    })
}

/// The recorded stories of a shell.
pub fn read(shell: &str) -> Vec<(&'static Scene, Vec<Happened>)> {
    let cast = std::fs::read_to_string(path(shell)).unwrap();
    let mut stories: Vec<(&Scene, Vec<Happened>)> = Vec::new();
    for (at, code, data) in events(&cast) {
        let happened = match code.as_str() {
            "m" => {
                stories.push((SCENES.iter().find(|scene| scene.name == data).unwrap(), Vec::new()));
                continue;
            }
            "i" => Happened::Typed(at, data.into_bytes()),
            "o" => Happened::Printed(at, data.into_bytes()),
            _ => {
                let (cols, rows) = data.split_once('x').unwrap();
                Happened::Resized(at, Size { cols: cols.parse().unwrap(), rows: rows.parse().unwrap() })
            }
        };
        stories.last_mut().unwrap().1.push(happened);
    }
    stories
}
