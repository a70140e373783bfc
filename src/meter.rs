//! What is measured, for Prometheus: the names, what they mean, and in which steps durations are counted. Whoever has
//! something to count does so by these names; while nobody listens, counting costs next to nothing. No id is ever a label.

use std::sync::OnceLock;

use metrics::{Key, Label, Metadata, Recorder, describe_counter, describe_gauge, describe_histogram, gauge};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use metrics_process::Collector;
use sessiond_core::{event, streams};

pub const SESSIONS: &str = "sessiond_sessions";
pub const SESSIONS_LET_GO: &str = "sessiond_sessions_let_go_total";
pub const EVENTS_LET_GO: &str = "sessiond_events_let_go_total";
pub const SESSIONS_OPEN: &str = "sessiond_sessions_open";
pub const EVENTS: &str = "sessiond_events_appended_total";
pub const APPEND: &str = "sessiond_append_duration_seconds";
pub const BATCH: &str = "sessiond_commit_batch_size";
pub const EXPIRY_DELAY: &str = "sessiond_expiry_delay_seconds";
pub const REVOCATIONS: &str = "sessiond_revocations_total";
pub const REVOCATIONS_UNFINISHED: &str = "sessiond_revocations_unfinished";
pub const REVOKED: &str = "sessiond_sessions_revoked_total";
const STREAMS: &str = "sessiond_stream_clients";
pub const LIMITS_REACHED: &str = "sessiond_limits_reached_total";
pub const EXPORTS: &str = "sessiond_exports";
pub const REQUESTS: &str = "sessiond_http_request_duration_seconds";
pub const REFUSED: &str = "sessiond_requests_refused_total";
pub const AFTER_END: &str = "sessiond_use_after_end_total";
pub const FOREIGN_SESSION: &str = "sessiond_foreign_session_total";
pub const DELIVERIES: &str = "sessiond_webhook_deliveries_total";
pub const DELIVERIES_WAITING: &str = "sessiond_webhook_deliveries_waiting";
pub const WEBHOOKS: &str = "sessiond_webhooks";
pub const STATISTICS_BEHIND: &str = "sessiond_statistics_events_behind";
pub const GOODBYES: &str = "sessiond_upstream_goodbyes_total";
pub const GOODBYES_WAITING: &str = "sessiond_upstream_goodbyes_waiting";
pub const NODES: &str = "sessiond_nodes";
pub const LEASE: &str = "sessiond_node_lease_seconds";
pub const BARRIER: &str = "sessiond_barrier_duration_seconds";
pub const HANDED_ON: &str = "sessiond_handed_on_total";
pub const HELD: &str = "sessiond_mcp_held_bytes";
pub const GIVEN_UP: &str = "sessiond_mcp_given_up_total";
pub const STORE_ERRORS: &str = "sessiond_store_errors_total";
pub const STORE_BYTES: &str = "sessiond_store_bytes";
pub const JOB_SUCCESS: &str = "sessiond_job_last_success_timestamp_seconds";
pub const CERTIFICATE_EXPIRY: &str = "sessiond_certificate_expiry_timestamp_seconds";
pub const LOG_LINES_LEFT_OUT: &str = "sessiond_log_lines_left_out_total";
pub const CONNECTIONS: &str = "sessiond_connections";
pub const CONNECTIONS_TAKEN: &str = "sessiond_connections_taken_total";
pub const CONNECTIONS_FULL: &str = "sessiond_connections_full_total";
pub const CONNECTIONS_OVERDUE: &str = "sessiond_connections_overdue_total";
pub const BODY_BYTES: &str = "sessiond_body_bytes";
pub const BODIES_REFUSED: &str = "sessiond_bodies_refused_total";
const BUILD: &str = "sessiond_build_info";

const APPEND_STEPS: &[f64] =
    &[0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0];
const BATCH_STEPS: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0];
const BARRIER_STEPS: &[f64] = &[0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0];
const DELAY_STEPS: &[f64] = &[0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0];
const REQUEST_STEPS: &[f64] =
    &[0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0];

/// One thing that is measured: its name, what sort of figure it is, and what it says, for people.
struct Metric {
    name: &'static str,
    figure: Figure,
    help: &'static str,
}

/// What sort of figure a metric is.
enum Figure {
    /// It only grows. All its labels are known beforehand, so that each is there from the start: a first failure that also
    /// brings its series into being is no increase to whoever watches.
    Counter(Labels),
    /// It goes up and down. Without labels, it is there from the start.
    Gauge(Labels),
    /// It is counted in these steps.
    Histogram(&'static [f64]),
}

/// The labels of a figure.
enum Labels {
    None,
    /// One label, and every value it takes.
    One(&'static str, fn() -> Vec<&'static str>),
    /// Two labels, and every value of each.
    Two([(&'static str, &'static [&'static str]); 2]),
    /// Whoever counts says at its own start which there are.
    Own,
}

const fn counter(name: &'static str, labels: Labels, help: &'static str) -> Metric {
    Metric { name, figure: Figure::Counter(labels), help }
}

const fn gauge(name: &'static str, labels: Labels, help: &'static str) -> Metric {
    Metric { name, figure: Figure::Gauge(labels), help }
}

const fn histogram(name: &'static str, steps: &'static [f64], help: &'static str) -> Metric {
    Metric { name, figure: Figure::Histogram(steps), help }
}

const METRICS: &[Metric] = &[
    gauge(EXPORTS, Labels::None, "Exports under way, of --max-exports."),
    gauge(SESSIONS, Labels::Own, "Sessions by what they are now: active, idle, expired or disconnected."),
    gauge(SESSIONS_OPEN, Labels::Own, "Sessions that are not disconnected, by kind."),
    counter(EVENTS, Labels::One("type", || event::names().collect()), "Events written to the log, by type."),
    counter(
        SESSIONS_LET_GO,
        Labels::None,
        "Ended sessions that were let go, because they are kept no longer.",
    ),
    counter(
        EVENTS_LET_GO,
        Labels::One("kind", || vec!["session", "activity"]),
        "Events that were let go: of such sessions (session), or of activity that a later event says as well (activity).",
    ),
    histogram(APPEND, APPEND_STEPS, "How long a commit to the log took until it was on disk."),
    histogram(BATCH, BATCH_STEPS, "Events in one commit."),
    histogram(
        EXPIRY_DELAY,
        DELAY_STEPS,
        "From the moment a session's token ran out until that was announced.",
    ),
    counter(
        REVOCATIONS,
        Labels::One("scope", || vec!["session", "application", "principal", "organization", "filter"]),
        "Revocations begun, by what they cover.",
    ),
    gauge(REVOCATIONS_UNFINISHED, Labels::None, "Revocations that were begun and are not carried out yet."),
    counter(REVOKED, Labels::None, "Sessions that revocations disconnected."),
    gauge(
        STREAMS,
        Labels::One("kind", || vec!["feed", "mcp"]),
        "Event streams that are open: feeds, and those of the MCP gateway.",
    ),
    histogram(REQUESTS, REQUEST_STEPS, "From a request's head until the head of its answer, by route."),
    counter(
        REFUSED,
        Labels::One("reason", || REFUSALS.to_vec()),
        "Requests refused: without a genuine credential (unauthenticated), or with one that may not do this (forbidden) or asks \
         too often (rate); from an address that failed too often (address); for want of room (busy, disk_full).",
    ),
    counter(AFTER_END, Labels::None, "Requests refused because their session or credential is over."),
    counter(FOREIGN_SESSION, Labels::None, "Requests that presented the id of another's MCP session."),
    counter(
        DELIVERIES,
        Labels::One("outcome", || vec!["delivered", "failed", "given_up"]),
        "Attempts to deliver an event to a webhook: delivered, failed or given_up.",
    ),
    gauge(
        DELIVERIES_WAITING,
        Labels::None,
        "Deliveries to webhooks that wait in memory; further ones wait in the log.",
    ),
    gauge(
        STATISTICS_BEHIND,
        Labels::None,
        "Events of the log that statistics have not counted yet, on the node that counts.",
    ),
    gauge(
        WEBHOOKS,
        Labels::Own,
        "Webhooks by how they fare: ok, failing (the last attempt failed) or disabled.",
    ),
    counter(
        LIMITS_REACHED,
        Labels::One("limit", || LIMITS.into_iter().chain(streams::limit_codes()).collect()),
        "What was refused because there is as much of it as there may be, by limit.",
    ),
    counter(
        GOODBYES,
        Labels::Two([("what", &["cancelled", "delete"]), ("outcome", &["told", "refused", "failed"])]),
        "What upstream MCP servers were told (cancelled, delete), and whether they heard: told, refused or failed.",
    ),
    gauge(
        GOODBYES_WAITING,
        Labels::None,
        "Sessions of which upstream MCP servers are still to be told something.",
    ),
    gauge(
        NODES,
        Labels::Own,
        "Processes that serve this database, by whether they let people in (serves) or not (gone).",
    ),
    gauge(
        LEASE,
        Labels::Own,
        "For how long this node may let people in unless it renews that; 0: it lets nobody in.",
    ),
    histogram(
        BARRIER,
        BARRIER_STEPS,
        "How long whoever ended something waited until it was true on every other node.",
    ),
    counter(
        HANDED_ON,
        Labels::One("outcome", || vec!["answered", "unreachable"]),
        "Requests that were handed on to the node on which lives what they are for.",
    ),
    gauge(HELD, Labels::None, "Bytes that the MCP gateway holds for calls and streams."),
    counter(
        GIVEN_UP,
        Labels::One("beyond", || vec!["stream", "session", "application", "all"]),
        "Calls and streams of the MCP gateway that were given up, by what held too much: stream, session, application or all.",
    ),
    counter(
        STORE_ERRORS,
        Labels::One("kind", || vec!["full", "broken", "damaged", "failed"]),
        "Failures of the store, by kind.",
    ),
    gauge(STORE_BYTES, Labels::Own, "Bytes on disk, by what of the store they are."),
    gauge(
        JOB_SUCCESS,
        Labels::Own,
        "When each job of the scheduler last did its work, in seconds since 1970; 0 if it has not yet.",
    ),
    gauge(CERTIFICATE_EXPIRY, Labels::Own, "When the certificate in force ends, in seconds since 1970."),
    counter(
        LOG_LINES_LEFT_OUT,
        Labels::One("reason", || vec!["slow", "failed", "repeated"]),
        "Log lines that were not written: slow, because nobody took them, failed, or repeated too often.",
    ),
    gauge(CONNECTIONS, Labels::Own, "Connections that are open, by door and by what they are doing."),
    counter(CONNECTIONS_TAKEN, Labels::Own, "Connections that were accepted, by door."),
    counter(
        CONNECTIONS_FULL,
        Labels::Own,
        "How often all places at a door were taken, so that the next connection had to wait.",
    ),
    counter(
        CONNECTIONS_OVERDUE,
        Labels::Own,
        "Connections given up: no whole head came in time (head), or no next request (idle).",
    ),
    gauge(BODY_BYTES, Labels::None, "Bytes of requests' bodies that are held in memory."),
    counter(
        BODIES_REFUSED,
        Labels::None,
        "Requests refused because all bodies together took too much memory.",
    ),
    gauge(BUILD, Labels::Own, "Always 1; the release is in the label."),
];

/// Why requests are refused, whatever they ask for.
const REFUSALS: [&str; 6] = ["unauthenticated", "forbidden", "rate", "address", "busy", "disk_full"];

/// The codes of what is refused for a limit, as clients are answered with them, beside those of the kinds of streams.
const LIMITS: [&str; 4] =
    ["application_limit_reached", "principal_limit_reached", "session_limit_reached", "stream_limit_reached"];

/// Where series come from that are there before anything was counted.
static METADATA: Metadata<'static> =
    Metadata::new(module_path!(), metrics::Level::INFO, Some(module_path!()));

static RECORDER: OnceLock<PrometheusHandle> = OnceLock::new();

/// Begins to count; the handle writes what was counted. There is one recorder in a process, however many servers.
pub fn install() -> Result<PrometheusHandle, BuildError> {
    if let Some(handle) = RECORDER.get() {
        return Ok(handle.clone());
    }
    let builder =
        METRICS.iter().try_fold(PrometheusBuilder::new(), |builder, metric| match metric.figure {
            Figure::Histogram(steps) => {
                builder.set_buckets_for_metric(Matcher::Full(metric.name.to_owned()), steps)
            }
            Figure::Counter(_) | Figure::Gauge(_) => Ok(builder),
        })?;
    let handle = builder.install_recorder()?;
    METRICS.iter().for_each(Metric::describe);
    Collector::default().describe();
    gauge!(BUILD, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    Ok(RECORDER.get_or_init(|| handle).clone())
}

/// Writes what was counted, with what the process takes of the machine as it is now.
pub fn render(handle: &PrometheusHandle) -> String {
    Collector::default().collect();
    handle.render()
}

impl Metric {
    /// Says what it is, and lets a counter begin at 0.
    fn describe(&self) {
        match &self.figure {
            Figure::Gauge(labels) => {
                describe_gauge!(self.name, self.help);
                begin(labels, self.name, |recorder, key| {
                    recorder.register_gauge(key, &METADATA).increment(0.0)
                });
            }
            Figure::Histogram(_) => describe_histogram!(self.name, self.help),
            Figure::Counter(labels) => {
                describe_counter!(self.name, self.help);
                begin(labels, self.name, |recorder, key| {
                    recorder.register_counter(key, &METADATA).increment(0)
                });
            }
        }
    }
}

fn begin(labels: &Labels, name: &'static str, register: fn(&dyn Recorder, &Key)) {
    for key in labels.keys(name) {
        metrics::with_recorder(|recorder| register(recorder, &key));
    }
}

impl Labels {
    /// The keys of all series, so far as they are known beforehand.
    fn keys(&self, name: &'static str) -> Vec<Key> {
        let key = |labels: Vec<Label>| Key::from_parts(name, labels);
        match self {
            Self::None => vec![key(vec![])],
            Self::One(label, values) => {
                values().into_iter().map(|value| key(vec![Label::new(*label, value)])).collect()
            }
            Self::Two([(one, ones), (other, others)]) => {
                let pairs = ones.iter().flat_map(|value| others.iter().map(move |beside| (*value, *beside)));
                pairs
                    .map(|(value, beside)| key(vec![Label::new(*one, value), Label::new(*other, beside)]))
                    .collect()
            }
            Self::Own => vec![],
        }
    }
}

/// An event stream that is open, counted as long as this is held.
#[derive(Debug)]
pub struct Stream(&'static str);

impl Stream {
    /// `kind` is `feed` or `mcp`.
    pub fn begin(kind: &'static str) -> Self {
        gauge!(STREAMS, "kind" => kind).increment(1);
        Self(kind)
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        gauge!(STREAMS, "kind" => self.0).decrement(1);
    }
}

/// Moves what was measured into its steps: without it, memory grows until somebody asks. Says whether anything is measured.
pub fn tidy() -> &'static str {
    match RECORDER.get() {
        Some(handle) => {
            handle.run_upkeep();
            "tidied"
        }
        None => "nothing is measured",
    }
}
