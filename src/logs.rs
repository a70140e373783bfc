//! What the service says of itself on standard error. It never waits for whoever reads that: a thread of its own writes
//! from a bounded queue, what does not fit or cannot be written is left out and counted, and so is what the same place in
//! the code says again and again.

use std::collections::HashMap;
use std::io::{IsTerminal, Write};
use std::panic::PanicHookInfo;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use anyhow::Context as _;
use metrics::counter;
use parking_lot::Mutex;
use tracing::callsite::Identifier;
use tracing::{Event, Level, Subscriber};
use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, fmt};

use crate::core::shown;
use crate::meter;

/// Lines that wait for standard error to take them.
const WAITING: usize = 4_096;
/// What one place in the code may say at once after quiet, and then in a second.
const AT_ONCE: f64 = 20.0;
const A_SECOND: f64 = 5.0;
/// How much is said where `RUST_LOG` says nothing.
const DEFAULT: &str = "info,tokio_cron_scheduler=warn";

/// Writes what waits when it goes.
static WORKER: Mutex<Option<WorkerGuard>> = Mutex::new(None);
/// Lines for which there was no room.
static NO_ROOM: OnceLock<ErrorCounter> = OnceLock::new();
/// Writes that failed.
static FAILED: AtomicU64 = AtomicU64::new(0);
/// Lines that were one too many from their place.
static REPEATED: AtomicU64 = AtomicU64::new(0);
/// How much of each was told last.
static TOLD: Mutex<[u64; 3]> = Mutex::new([0; 3]);

/// Begins to log: for people on a terminal, JSON lines otherwise. `RUST_LOG` says how much.
pub fn start() -> anyhow::Result<()> {
    let filter = filter(std::env::var("RUST_LOG").ok().as_deref())?;
    let for_people = std::io::stderr().is_terminal();
    let (writer, worker) = NonBlockingBuilder::default()
        .lossy(true)
        .buffered_lines_limit(WAITING)
        .finish(StandardError { for_people });
    NO_ROOM.set(writer.error_counter()).ok();
    *WORKER.lock() = Some(worker);
    let registry = tracing_subscriber::registry().with(filter).with(Sparing::default());
    if for_people {
        registry.with(fmt::layer().with_writer(writer).with_target(false)).init();
    } else {
        registry.with(fmt::layer().with_writer(writer).json().flatten_event(true)).init();
    }
    // The hook that is there before writes to standard error itself, and waits until it can.
    std::panic::set_hook(Box::new(panicked));
    Ok(())
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

/// Ends the process, after what was said last was written, or could not be for a second.
pub fn end(code: i32) -> ! {
    flush();
    std::process::exit(code)
}

/// Writes what waits, for a second at most. Nothing is logged after that.
pub fn flush() {
    drop(WORKER.lock().take());
}

/// Counts what was left out since this was asked last, and says so if it was anything.
pub fn tell() -> u64 {
    let no_room = NO_ROOM.get().map_or(0, ErrorCounter::dropped_lines) as u64;
    let now = [no_room, FAILED.load(Ordering::Relaxed), REPEATED.load(Ordering::Relaxed)];
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

/// Standard error, whatever becomes of it.
struct StandardError {
    /// What comes from elsewhere is shown in a line, and obeyed by nobody's terminal.
    for_people: bool,
}

impl Write for StandardError {
    /// Gets a whole line at a time.
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let outcome = if self.for_people {
            let text = String::from_utf8_lossy(bytes);
            let line = shown::coloured(text.strip_suffix('\n').unwrap_or(&text)).into_owned() + "\n";
            std::io::stderr().write_all(line.as_bytes())
        } else {
            std::io::stderr().write_all(bytes)
        };
        if outcome.is_err() {
            FAILED.fetch_add(1, Ordering::Relaxed);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
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
