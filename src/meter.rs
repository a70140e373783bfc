//! What is measured, for Prometheus: the names, what they mean, and in which steps durations are counted. Whoever has
//! something to count does so by these names; while nobody listens, counting costs next to nothing. No id is ever a label.

use std::sync::OnceLock;

use metrics::{counter, describe_counter, describe_gauge, describe_histogram, gauge};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};

pub const SESSIONS: &str = "sessiond_sessions";
pub const SESSIONS_LET_GO: &str = "sessiond_sessions_let_go_total";
pub const EVENTS_LET_GO: &str = "sessiond_events_let_go_total";
pub const EVENTS: &str = "sessiond_events_appended_total";
pub const APPEND: &str = "sessiond_append_duration_seconds";
pub const BATCH: &str = "sessiond_commit_batch_size";
pub const EXPIRY_DELAY: &str = "sessiond_expiry_delay_seconds";
pub const REVOCATIONS: &str = "sessiond_revocations_total";
pub const REVOKED: &str = "sessiond_sessions_revoked_total";
const STREAMS: &str = "sessiond_stream_clients";
pub const LIMITS_REACHED: &str = "sessiond_limits_reached_total";
pub const REQUESTS: &str = "sessiond_http_request_duration_seconds";
pub const AFTER_END: &str = "sessiond_use_after_end_total";
pub const FOREIGN_SESSION: &str = "sessiond_foreign_session_total";
pub const DELIVERIES: &str = "sessiond_webhook_deliveries_total";
pub const GOODBYES: &str = "sessiond_upstream_goodbyes_total";
pub const GOODBYES_WAITING: &str = "sessiond_upstream_goodbyes_waiting";
pub const HELD: &str = "sessiond_mcp_held_bytes";
pub const GIVEN_UP: &str = "sessiond_mcp_given_up_total";
pub const STORE_ERRORS: &str = "sessiond_store_errors_total";
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
const DELAY_STEPS: &[f64] = &[0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0];
const REQUEST_STEPS: &[f64] =
    &[0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0];

static RECORDER: OnceLock<PrometheusHandle> = OnceLock::new();

/// Begins to count; the handle writes what was counted. There is one recorder in a process, however many servers.
pub fn install() -> Result<PrometheusHandle, BuildError> {
    if let Some(handle) = RECORDER.get() {
        return Ok(handle.clone());
    }
    let steps = [
        (APPEND, APPEND_STEPS),
        (BATCH, BATCH_STEPS),
        (EXPIRY_DELAY, DELAY_STEPS),
        (REQUESTS, REQUEST_STEPS),
    ];
    let builder = steps.into_iter().try_fold(PrometheusBuilder::new(), |builder, (name, steps)| {
        builder.set_buckets_for_metric(Matcher::Full(name.to_owned()), steps)
    })?;
    let handle = builder.install_recorder()?;
    describe();
    gauge!(BUILD, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    Ok(RECORDER.get_or_init(|| handle).clone())
}

fn describe() {
    describe_gauge!(SESSIONS, "Sessions by what they are now: active, idle, expired or disconnected.");
    describe_counter!(EVENTS, "Events written to the log, by type.");
    describe_counter!(SESSIONS_LET_GO, "Ended sessions that were let go, because they are kept no longer.");
    describe_counter!(
        EVENTS_LET_GO,
        "Events that were let go: of such sessions (session), or of activity that a later event says as well (activity)."
    );
    counter!(SESSIONS_LET_GO).absolute(0);
    for kind in ["session", "activity"] {
        counter!(EVENTS_LET_GO, "kind" => kind).absolute(0);
    }
    describe_histogram!(APPEND, "How long a commit to the log took until it was on disk.");
    describe_histogram!(BATCH, "Events in one commit.");
    describe_histogram!(EXPIRY_DELAY, "From the moment a session's token ran out until that was announced.");
    describe_counter!(REVOCATIONS, "Revocations begun, by what they cover.");
    describe_counter!(REVOKED, "Sessions that revocations disconnected.");
    describe_gauge!(STREAMS, "Event streams that are open: feeds, and those of the MCP gateway.");
    describe_histogram!(REQUESTS, "From a request's head until the head of its answer, by route.");
    describe_counter!(AFTER_END, "Requests refused because their session or credential is over.");
    describe_counter!(FOREIGN_SESSION, "Requests that presented the id of another's MCP session.");
    describe_counter!(
        DELIVERIES,
        "Attempts to deliver an event to a webhook: delivered, failed or given_up."
    );
    describe_counter!(
        LIMITS_REACHED,
        "What was refused because there is as much of it as there may be, by limit."
    );
    describe_counter!(
        GOODBYES,
        "What upstream MCP servers were told (cancelled, delete), and whether they heard: told, refused or failed."
    );
    describe_gauge!(
        GOODBYES_WAITING,
        "Sessions of which upstream MCP servers are still to be told something."
    );
    describe_gauge!(HELD, "Bytes that the MCP gateway holds for calls and streams.");
    describe_counter!(
        GIVEN_UP,
        "Calls and streams of the MCP gateway that were given up, by what held too much: stream, session, application or all."
    );
    describe_counter!(STORE_ERRORS, "Failures of the store, by kind.");
    describe_counter!(
        LOG_LINES_LEFT_OUT,
        "Log lines that were not written: slow, because nobody took them, failed, or repeated too often."
    );
    describe_gauge!(CONNECTIONS, "Connections that are open, by door and by what they are doing.");
    describe_counter!(CONNECTIONS_TAKEN, "Connections that were accepted, by door.");
    describe_counter!(
        CONNECTIONS_FULL,
        "How often all places at a door were taken, so that the next connection had to wait."
    );
    describe_counter!(
        CONNECTIONS_OVERDUE,
        "Connections given up: no whole head came in time (head), or no next request (idle)."
    );
    describe_gauge!(BODY_BYTES, "Bytes of requests' bodies that are held in memory.");
    describe_counter!(BODIES_REFUSED, "Requests refused because all bodies together took too much memory.");
    describe_gauge!(BUILD, "Always 1; the release is in the label.");
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
