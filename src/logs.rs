//! What the service says of itself on standard error. It never waits for whoever reads that: a thread of its own writes
//! from a bounded queue, what does not fit or cannot be written is left out and counted, and so is what the same place in
//! the code says again and again.

use std::collections::HashMap;
use std::io::{self, IsTerminal, Write};
use std::panic::PanicHookInfo;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use metrics::counter;
use parking_lot::Mutex;
use sessiond_core::shown;
use tracing::callsite::Identifier;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, fmt};

use crate::config::LogFormat;
use crate::meter;

/// Lines that wait for standard error to take them.
const WAITING: usize = 4_096;
/// How long the last of them may take when the process ends.
const LAST: Duration = Duration::from_secs(1);
/// What one place in the code may say at once after quiet, and then in a second.
const AT_ONCE: f64 = 20.0;
const A_SECOND: f64 = 5.0;
/// How much is said where `RUST_LOG` says nothing.
const DEFAULT: &str = "info,tokio_cron_scheduler=warn";

/// The target of lines that say who changed what.
pub const AUDIT: &str = "sessiond::audit";

/// The way to the thread that writes.
static QUEUE: OnceLock<SyncSender<Message>> = OnceLock::new();
/// Lines for which there was no room.
static NO_ROOM: AtomicU64 = AtomicU64::new(0);
/// Writes that failed.
static FAILED: AtomicU64 = AtomicU64::new(0);
/// Lines that were one too many from their place.
static REPEATED: AtomicU64 = AtomicU64::new(0);
/// How much of each was told last.
static TOLD: Mutex<[u64; 3]> = Mutex::new([0; 3]);

/// What the thread that writes is handed.
enum Message {
    Line(Vec<u8>),
    /// To be answered once all before it was written.
    Written(SyncSender<()>),
}

/// Begins to log; where no format is named, for people on a terminal and as JSON otherwise. `RUST_LOG` says how much.
pub fn start(format: Option<LogFormat>) -> anyhow::Result<()> {
    let filter = filter(std::env::var("RUST_LOG").ok().as_deref())?;
    let on_terminal = io::stderr().is_terminal();
    let for_people = format.map_or(on_terminal, |format| format == LogFormat::Text);
    let (queue, waiting) = sync_channel(WAITING);
    let writing = move || write(waiting, for_people);
    thread::Builder::new().name("logs".to_owned()).spawn(writing).context("cannot begin to log")?;
    let writer = Lines(queue.clone());
    QUEUE.set(queue).ok();
    let registry = tracing_subscriber::registry().with(filter).with(Sparing::default());
    if for_people {
        registry
            .with(fmt::layer().with_writer(move || writer.clone()).with_target(false).with_ansi(on_terminal))
            .init();
    } else {
        registry.with(fmt::layer().with_writer(move || writer.clone()).json().flatten_event(true)).init();
    }
    // The hook that is there before writes to standard error itself, and waits until it can.
    std::panic::set_hook(Box::new(panicked));
    Ok(())
}

/// Writes to standard error, whatever becomes of it. For people, what comes from elsewhere is shown in a line, and obeyed by
/// nobody's terminal.
fn write(waiting: Receiver<Message>, for_people: bool) {
    for message in waiting {
        match message {
            Message::Line(line) => {
                let line = if for_people { readable(&line) } else { line };
                if io::stderr().write_all(&line).is_err() {
                    FAILED.fetch_add(1, Ordering::Relaxed);
                }
            }
            // Whoever asked may have waited long enough.
            Message::Written(reply) => drop(reply.try_send(())),
        }
    }
}

fn readable(line: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(line);
    (shown::coloured(text.strip_suffix('\n').unwrap_or(&text)).into_owned() + "\n").into_bytes()
}

/// Hands a line over, each in one piece as the formatter writes them.
#[derive(Clone)]
struct Lines(SyncSender<Message>);

impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.0.try_send(Message::Line(line.to_vec())).is_err() {
            NO_ROOM.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn filter(wanted: Option<&str>) -> anyhow::Result<EnvFilter> {
    let text = wanted.filter(|text| !text.trim().is_empty()).unwrap_or(DEFAULT);
    EnvFilter::builder().parse(text).with_context(|| {
        format!("RUST_LOG is {text:?}, which cannot be read; write a level such as info or debug, or target=level,…")
    })
}

fn panicked(panic: &PanicHookInfo<'_>) {
    let said = panic.payload_as_str().unwrap_or("without words");
    let at = panic.location().map(ToString::to_string).unwrap_or_default();
    tracing::error!(at, said, "a panic: this is a bug");
}

/// Ends the process with words, after these were written, or could not be for a second.
pub fn end(code: i32, why: &str) -> ! {
    tracing::error!("{why}; ending");
    if QUEUE.get().is_none() {
        // Nobody writes the log where the service is part of another program, a test's say: it is to know all the same.
        std::io::stderr().write_all(format!("sessiond: {why}; ending\n").as_bytes()).ok();
    }
    flush();
    std::process::exit(code)
}

/// Waits until what waits was written, for a second at most.
pub fn flush() {
    let Some(queue) = QUEUE.get() else { return };
    let (reply, written) = sync_channel(1);
    let begun = Instant::now();
    while begun.elapsed() < LAST {
        if queue.try_send(Message::Written(reply.clone())).is_ok() {
            written.recv_timeout(LAST.saturating_sub(begun.elapsed())).ok();
            return;
        }
        thread::sleep(LAST / 100);
    }
}

/// Counts what was left out since this was asked last, and says so if it was anything.
pub fn tell() -> u64 {
    let now = [&NO_ROOM, &FAILED, &REPEATED].map(|count| count.load(Ordering::Relaxed));
    let mut told = TOLD.lock();
    let mut more = [0; 3];
    for ((more, now), (told, reason)) in
        more.iter_mut().zip(now).zip(told.iter_mut().zip(["slow", "failed", "repeated"]))
    {
        *more = now.saturating_sub(*told);
        *told = now;
        counter!(meter::LOG_LINES_LEFT_OUT, "reason" => reason).increment(*more);
    }
    let [slow, failed, repeated] = more;
    if slow + failed + repeated > 0 {
        tracing::warn!(slow, failed, repeated, "log lines were left out");
    }
    slow + failed + repeated
}

/// Lets each place in the code say so much and no more, whoever makes it speak: most lines can be caused from outside.
/// Details (debug and trace) are asked for by whoever wants all of them.
#[derive(Default)]
struct Sparing {
    places: Mutex<HashMap<Identifier, Allowance>>,
}

/// What one place may still say.
struct Allowance {
    left: f64,
    at: Instant,
}

impl Allowance {
    fn take(&mut self, now: Instant) -> bool {
        let more = now.duration_since(self.at).as_secs_f64() * A_SECOND;
        (self.left, self.at) = ((self.left + more).min(AT_ONCE), now);
        let enough = self.left >= 1.0;
        if enough {
            self.left -= 1.0;
        }
        enough
    }
}

impl<S: Subscriber> Layer<S> for Sparing {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        if *event.metadata().level() > Level::INFO {
            return true;
        }
        let now = Instant::now();
        let mut places = self.places.lock();
        let allowance =
            places.entry(event.metadata().callsite()).or_insert(Allowance { left: AT_ONCE, at: now });
        let enough = allowance.take(now);
        if !enough {
            REPEATED.fetch_add(1, Ordering::Relaxed);
        }
        enough
    }
}
