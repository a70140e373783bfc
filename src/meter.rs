//! What is measured, for Prometheus: the names, what they mean, and in which steps durations are counted. Whoever has
//! something to count does so by these names; while nobody listens, counting costs next to nothing. No id is ever a label.

use std::sync::OnceLock;

use metrics::{describe_counter, describe_gauge, describe_histogram, gauge};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};

pub const SESSIONS: &str = "sessiond_sessions";
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
pub const STORE_ERRORS: &str = "sessiond_store_errors_total";
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
    describe_counter!(STORE_ERRORS, "Failures of the store, by kind.");
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
