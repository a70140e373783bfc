//! The service itself: whether it is alive and ready, and the document of its API.

use std::fmt::Display;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{RawQuery, State};
use axum::http::{StatusCode, header};
use axum::routing::get;
use sessiond_core::Time;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};
use url::form_urlencoded;
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::App;
use super::document::yaml;
use super::problem::Problem;
use super::surface::{PLAIN, Routes, Surface};
use super::words::PlainText;
use crate::sessions::Job;

/// The surface of all paths that are below no prefix of another.
static SERVICE: Surface = Surface { prefixes: &[""], ..PLAIN };
/// The part for probes, which must be answered whatever happens.
static PROBES: Surface = Surface { limits: false, ..SERVICE };

pub fn surface() -> Routes {
    Routes::of(&SERVICE, OpenApiRouter::new())
        .with(&PROBES, OpenApiRouter::new().routes(routes!(live)).routes(routes!(ready)))
        .with_later(&SERVICE, |_, all| documents(&all.document))
}

/// How long the writer may take to say that it is well.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long such an answer of the writer counts.
const FRESH: Duration = Duration::from_secs(1);

/// Tell that the process runs
///
/// Looks at nothing else: restart what does not answer.
#[utoipa::path(
    get, path = "/livez", operation_id = "service.live", tag = "service",
    security(()),
    responses((status = 200, description = "`ok`.", body = PlainText, content_type = "text/plain")),
)]
pub async fn live() -> &'static str {
    "ok\n"
}

/// Tell whether requests can be served
///
/// With `?verbose`, one line for each thing looked at: `[+]` good, `[-]` not; any that is not makes the answer 503.
#[utoipa::path(
    get, path = "/readyz", operation_id = "service.ready", tag = "service",
    security(()),
    params(("verbose" = Option<String>, Query, description = "Say what was looked at.")),
    responses(
        (status = 200, description = "`ok`.", body = PlainText, content_type = "text/plain"),
        (status = 503, description = "`not ready`.", body = PlainText, content_type = "text/plain"),
    ),
)]
pub async fn ready(State(app): State<App>, RawQuery(query): RawQuery) -> (StatusCode, String) {
    let query = query.unwrap_or_default();
    let verbose =
        form_urlencoded::parse(query.as_bytes()).any(|(name, value)| name == "verbose" && value != "false");
    let mut report = app.health.writer(&app).await;
    let now = app.clock.now();
    for (name, job) in app.job_status.jobs() {
        report.job(name, &job, now);
    }
    report.nodes(&app).await;
    report.line(true, format_args!("open sessions: {}", app.sessions.maintenance.open_sessions()));
    if app.stopping.is_cancelled() {
        report.line(false, "stopping");
    }
    let (status, word) =
        if report.bad { (StatusCode::SERVICE_UNAVAILABLE, "not ready\n") } else { (StatusCode::OK, "ok\n") };
    let lines = if verbose { report.lines } else { String::new() };
    (status, lines + word)
}

/// How far the start of the service has come.
#[derive(Default)]
pub struct Progress {
    /// How many open sessions are in memory.
    done: AtomicU64,
    /// How many open sessions there are.
    of: AtomicU64,
}

impl Progress {
    /// Notes how many open sessions there are.
    pub fn expect(&self, sessions: u64) {
        self.of.store(sessions, Ordering::Relaxed);
    }

    /// Notes that one more is in memory.
    pub fn loaded(&self) {
        self.done.fetch_add(1, Ordering::Relaxed);
    }
}

/// The router until everything is in memory: it says that the process lives, and asks all others to come back.
pub fn starting(progress: Arc<Progress>) -> Router {
    let ready = move || async move {
        let (done, of) = (progress.done.load(Ordering::Relaxed), progress.of.load(Ordering::Relaxed));
        (
            StatusCode::SERVICE_UNAVAILABLE,
            format!("[-]starting: {done} of {of} open sessions loaded\nnot ready\n"),
        )
    };
    let later = || async {
        let problem = Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "starting",
            "The service is starting and will be there soon; /readyz says how far it has come",
        );
        ([(header::RETRY_AFTER, "1")], problem)
    };
    Router::new().route("/livez", get(live)).route("/readyz", get(ready)).fallback(later)
}

/// What the writer said last. Each question costs the writer a turn, and anybody may ask here.
#[derive(Default)]
pub struct Cache(Mutex<Option<(Instant, Report)>>);

impl Cache {
    async fn writer(&self, app: &App) -> Report {
        let mut last = self.0.lock().await;
        if let Some((at, report)) = &*last
            && at.elapsed() < FRESH
        {
            return report.clone();
        }
        let mut report = Report::default();
        report.writer(app).await;
        *last = Some((Instant::now(), report.clone()));
        report
    }
}

/// The result of a look at the service.
#[derive(Default, Clone)]
struct Report {
    lines: String,
    bad: bool,
}

impl Report {
    fn line(&mut self, good: bool, text: impl Display) {
        self.bad |= !good;
        self.lines += &format!("[{}]{text}\n", if good { '+' } else { '-' });
    }

    async fn writer(&mut self, app: &App) {
        match timeout(PATIENCE, app.sessions.maintenance.health()).await {
            Ok(Ok(checks)) => {
                for check in &checks {
                    self.line(check.fault.is_none(), format_args!("{} {}", check.name, check.value));
                }
                match checks.iter().find_map(|check| check.fault.as_deref()) {
                    None => self.line(true, "writer ok"),
                    Some(fault) => self.line(false, format_args!("writer: {fault}")),
                }
            }
            Ok(Err(error)) => self.line(false, format_args!("writer: {error}")),
            Err(_) => self.line(false, format_args!("writer: no answer within {} s", PATIENCE.as_secs())),
        }
    }

    /// Looks at the nodes, where there may be several. Only this one's own lease decides whether it is ready.
    async fn nodes(&mut self, app: &App) {
        let Some((own, left)) = app.peers.own().zip(app.gate.lease().left()) else { return };
        match left.as_secs_f64() {
            left if left > 0.0 => {
                self.line(true, format_args!("node {own}: this one; its lease runs for {left:.1} s more"))
            }
            _ => self.line(false, format_args!("node {own}: this one; without a lease, it lets nobody in")),
        }
        let how = if app.peers.told_at_once() { "told at once" } else { "looked for every 100 ms" };
        self.line(true, format_args!("commits of other nodes: {how}"));
        let nodes = match timeout(PATIENCE, app.peers.nodes()).await {
            Ok(Ok(nodes)) => nodes,
            Ok(Err(error)) => return self.line(true, format_args!("other nodes: not known: {error}")),
            Err(_) => return self.line(true, "other nodes: not known: the database does not answer"),
        };
        let applied = app.catch_up.at().unwrap_or_default();
        for node in nodes.iter().filter(|node| node.number != own) {
            let behind = (applied - node.applied).max(0);
            let state = if node.leased { "serves" } else { "gone, or it lets nobody in" };
            let (number, version) = (node.number, &node.version);
            self.line(
                true,
                format_args!("node {number}: {state}; release {version}; {behind} commits behind"),
            );
        }
    }

    fn job(&mut self, name: &str, job: &Job, now: Time) {
        let last = match job.last_run {
            Some(at) => format!("last run {:.1}s ago", (now - at).as_seconds_f64()),
            None => "last run never".to_owned(),
        };
        let late = if job.is_overdue(now) { ", late" } else { "" };
        match &job.outcome {
            Ok(did) => self.line(late.is_empty(), format_args!("job {name}: {last}{late}: {did}")),
            Err(error) => self.line(false, format_args!("job {name}: {last}{late}: failed: {error}")),
        }
    }
}

/// The page that the `type` of a problem points to, of this very version.
const PROBLEMS: &str = include_str!("../../docs/problems.md");

/// The page for somebody who opens the address in a browser: where they are, and where to go on.
const WELCOME: &str = concat!(
    "sessiond ",
    env!("CARGO_PKG_VERSION"),
    ": the durable record of who is connected to what.\n\n\
     This is its API; a credential opens it.\n\n\
     /openapi.yaml      everything that can be asked, and how to begin\n\
     /problems          what each error means, and what to do about it\n\
     /readyz?verbose    how the service is\n\
     /oauth2/token      access tokens, for a client id and its secret\n\
     /mcp/{application} the gateway, for MCP clients\n"
);

/// The routes of the document, at the places where clients look for it, of the page about problems, and of the welcome page.
/// They are for everybody: some problems are about having no credential.
fn documents(document: &OpenApi) -> Router<App> {
    let yaml = Bytes::from(yaml(document));
    let json = Bytes::from(document.to_pretty_json().unwrap_or_default());
    let serve = |media_type: &'static str, bytes: Bytes| {
        get(move || async move { ([(header::CONTENT_TYPE, media_type)], bytes) })
    };
    Router::new()
        .route("/", get(|| async { WELCOME }))
        .route("/openapi.yaml", serve("application/yaml", yaml))
        .route("/openapi.json", serve("application/json", json.clone()))
        .route("/api/openapi.json", serve("application/json", json))
        .route("/problems", serve("text/markdown; charset=utf-8", Bytes::from_static(PROBLEMS.as_bytes())))
}
