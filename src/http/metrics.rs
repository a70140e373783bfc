//! What Prometheus reads, at an address of its own: who may use the service need not see how it fares.

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::IntoResponse;
use axum::routing::get;
use metrics::gauge;
use metrics_exporter_prometheus::PrometheusHandle;

use super::{App, frame};
use crate::meter;

/// `/metrics` and nothing else.
pub fn router(app: App, handle: PrometheusHandle) -> Router {
    let tell = move |State(app): State<App>| async move {
        for (status, count) in app.sessions.counts_by_status() {
            gauge!(meter::SESSIONS, "status" => status).set(count as f64);
        }
        let media_type = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
        ([(header::CONTENT_TYPE, media_type)], handle.render()).into_response()
    };
    let secure = axum::middleware::map_response(async |mut response: axum::response::Response| {
        frame::secure(response.headers_mut(), false);
        response
    });
    Router::new().route("/metrics", get(tell)).layer(secure).with_state(app)
}
