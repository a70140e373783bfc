//! Figures, and the table they are printed in.

use std::fmt::Write;
use std::time::Duration;

/// One line of the table.
pub enum Line {
    Title { name: &'static str, title: &'static str },
    Figure { what: String, ours: String, yardstick: String, ratio: String, aim: String, met: Option<bool> },
    Note(String),
}

impl Line {
    pub fn title(name: &'static str, title: &'static str) -> Self {
        Self::Title { name, title }
    }

    pub fn note(text: impl Into<String>) -> Self {
        Self::Note(text.into())
    }

    /// A figure per second beside its yardstick; the ratio has an aim, unless that is 0.
    pub fn rate(what: impl Into<String>, ours: f64, yardstick: f64, at_least: f64) -> Self {
        let (ratio, aimed) = (ours / yardstick, at_least > 0.0);
        Self::Figure {
            what: what.into(),
            ours: thousands(ours),
            yardstick: thousands(yardstick),
            ratio: format!("{ratio:.2}"),
            aim: if aimed { format!("ratio >= {at_least}") } else { String::new() },
            met: aimed.then_some(ratio >= at_least),
        }
    }

    /// A time that should not be longer than this; the yardstick's stands beside it where there is one.
    pub fn time(
        what: impl Into<String>,
        ours: Duration,
        yardstick: Option<Duration>,
        at_most: Duration,
    ) -> Self {
        Self::Figure {
            what: what.into(),
            ours: milliseconds(ours),
            yardstick: yardstick.map(milliseconds).unwrap_or_default(),
            ratio: String::new(),
            aim: format!("<= {}", milliseconds(at_most)),
            met: Some(ours <= at_most),
        }
    }

    /// A time that should be at most so many times its yardstick; infinity is no aim.
    pub fn times(what: impl Into<String>, ours: Duration, yardstick: Duration, at_most: f64) -> Self {
        let ratio = ours.as_secs_f64() / yardstick.as_secs_f64();
        let aimed = at_most.is_finite();
        Self::Figure {
            what: what.into(),
            ours: milliseconds(ours),
            yardstick: milliseconds(yardstick),
            ratio: format!("{ratio:.2}"),
            aim: if aimed { format!("ratio <= {at_most}") } else { String::new() },
            met: aimed.then_some(ratio <= at_most),
        }
    }

    /// Memory in KiB that should be at most so many times its yardstick.
    pub fn memory(what: impl Into<String>, ours: u64, yardstick: u64, at_most: f64) -> Self {
        let ratio = ours as f64 / yardstick as f64;
        Self::Figure {
            what: what.into(),
            ours: format!("{} MiB", ours >> 10),
            yardstick: format!("{} MiB", yardstick >> 10),
            ratio: format!("{ratio:.2}"),
            aim: format!("ratio <= {at_most}"),
            met: Some(ratio <= at_most),
        }
    }

    /// A figure without an aim.
    pub fn plain(what: impl Into<String>, ours: String, yardstick: String) -> Self {
        Self::Figure {
            what: what.into(),
            ours,
            yardstick,
            ratio: String::new(),
            aim: String::new(),
            met: None,
        }
    }
}

/// The table, as text.
pub fn print(lines: &[Line]) -> String {
    let mut text = format!(
        "{:<34}{:>14}{:>14}{:>8}   {:<16}{}\n{}\n",
        "median of the runs",
        "sessiond",
        "yardstick",
        "ratio",
        "aim",
        "met",
        "-".repeat(90)
    );
    for line in lines {
        match line {
            Line::Title { name, title } => writeln!(text, "{name}: {title}").unwrap(),
            Line::Figure { what, ours, yardstick, ratio, aim, met } => {
                let met = match met {
                    Some(true) => "yes",
                    Some(false) => "NO",
                    None => "",
                };
                let line = format!("  {what:<32}{ours:>14}{yardstick:>14}{ratio:>8}   {aim:<16}{met}");
                writeln!(text, "{}", line.trim_end()).unwrap();
            }
            Line::Note(note) => writeln!(text, "    {note}").unwrap(),
        }
    }
    text
}

/// The middle one; of an even number the upper of the two in the middle.
pub fn median<T: Copy + PartialOrd>(values: impl IntoIterator<Item = T>) -> T {
    let mut values: Vec<T> = values.into_iter().collect();
    values.sort_by(|left, right| left.partial_cmp(right).expect("a figure that is not a number"));
    values[values.len() / 2]
}

/// `12,345`
pub fn thousands(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut text = String::new();
    for (index, digit) in digits.char_indices() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

pub fn milliseconds(time: Duration) -> String {
    let milliseconds = time.as_secs_f64() * 1_000.0;
    if milliseconds < 10.0 {
        format!("{milliseconds:.2} ms")
    } else {
        format!("{} ms", thousands(milliseconds))
    }
}

/// The runs one by one, for a note.
pub fn runs(values: impl IntoIterator<Item = f64>) -> String {
    values.into_iter().map(thousands).collect::<Vec<_>>().join(" / ")
}
