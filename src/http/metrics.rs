//! What Prometheus reads, at an address of its own: who may use the service need not see how it fares.

use std::net::IpAddr;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use metrics::gauge;
use metrics_exporter_prometheus::PrometheusHandle;
use url::Url;

use super::{App, request_layer, surface};
use crate::config::Config;
use crate::meter;

/// `/metrics` and nothing else.
pub fn router(app: App, handle: PrometheusHandle) -> Router {
    let tell = move |State(app): State<App>| async move {
        look(&app).await;
        let media_type = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
        ([(header::CONTENT_TYPE, media_type)], meter::render(&handle)).into_response()
    };
    let secure = axum::middleware::map_response(async |mut response: Response| {
        request_layer::secure(response.headers_mut(), surface::PLAIN.security_headers, false);
        response
    });
    let names = Names::new(&app.config);
    let check = axum::middleware::from_fn(move |request: Request, next: Next| {
        let named = names.hold(request.headers());
        async move { if named { next.run(request).await } else { not_here() } }
    });
    Router::new().route("/metrics", get(tell)).layer(check).layer(secure).with_state(app)
}

/// Looks at what nobody counts because it is there to be looked at. What cannot be found out keeps its last figure.
async fn look(app: &App) {
    let maintenance = &app.sessions.maintenance;
    let counts = maintenance.counts();
    for (status, count) in counts.by_status {
        gauge!(meter::SESSIONS, "status" => status).set(count as f64);
    }
    for (kind, count) in counts.by_kind {
        gauge!(meter::SESSIONS_OPEN, "kind" => kind.word()).set(count as f64);
    }
    gauge!(meter::REVOCATIONS_UNFINISHED).set(app.sessions.revocations.unfinished() as f64);
    for (name, job) in app.job_status.jobs() {
        let at = job.last_success.map_or(0.0, |at| at.timestamp_millis() as f64 / 1_000.0);
        gauge!(meter::JOB_SUCCESS, "job" => name).set(at);
    }
    if let Some(left) = app.gate.lease().left() {
        gauge!(meter::LEASE).set(left.as_secs_f64());
        if let Ok(nodes) = app.peers.nodes().await {
            for (state, leased) in [("serves", true), ("gone", false)] {
                let count = nodes.iter().filter(|node| node.leased == leased).count();
                gauge!(meter::NODES, "state" => state).set(count as f64);
            }
        }
    }
    let sizes = [maintenance.sizes().await, app.lines.sizes().await];
    for (what, bytes) in sizes.into_iter().flatten().flatten() {
        gauge!(meter::STORE_BYTES, "what" => what).set(bytes as f64);
    }
}

/// The names under which whoever may read here asks. A page in a browser that has its own name point to this machine asks by
/// that, and never by an address.
#[derive(Clone)]
struct Names(Vec<String>);

impl Names {
    fn new(config: &Config) -> Self {
        let mut names = vec!["localhost".to_owned()];
        let urls = config.public_url.iter().filter_map(|url| Url::parse(url).ok());
        names.extend(urls.filter_map(|url| url.host_str().map(str::to_owned)));
        names.extend(config.metrics_host.iter().map(|name| name.to_ascii_lowercase()));
        Self(names)
    }

    fn hold(&self, headers: &HeaderMap) -> bool {
        let mut hosts = headers.get_all(header::HOST).iter();
        let (Some(host), None) = (hosts.next(), hosts.next()) else { return false };
        let Ok(host) = Authority::try_from(host.as_bytes()) else { return false };
        let name = host.host().trim_end_matches('.').to_ascii_lowercase();
        let bare = name.trim_start_matches('[').trim_end_matches(']');
        bare.parse::<IpAddr>().is_ok() || self.0.contains(&name)
    }
}

fn not_here() -> Response {
    let text = "Forbidden: the Host is not one of this server's names; see --metrics-host\n";
    (StatusCode::FORBIDDEN, text).into_response()
}
