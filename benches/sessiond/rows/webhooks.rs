//! How fast what happened is carried out of the house: a backlog of events to one receiver on this machine.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use axum::Router;
use axum::body::Bytes;
use serde_json::json;

use crate::Bench;
use crate::connection::{ask, request};
use crate::server::Server;
use crate::table::{Line, median, runs, thousands};

/// As many as sessiond has under way at one webhook.
const SIDE_BY_SIDE: usize = 8;
/// About as large as a delivery.
const BODY: usize = 800;

/// Counts what it gets, and answers 200.
struct Receiver {
    address: SocketAddr,
    count: Arc<AtomicUsize>,
}

impl Receiver {
    fn start() -> anyhow::Result<Self> {
        let count = Arc::new(AtomicUsize::new(0));
        let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        let (address, counting) = (listener.local_addr()?, count.clone());
        let router = Router::new().fallback(move |_body: Bytes| {
            counting.fetch_add(1, Ordering::Relaxed);
            async {}
        });
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                axum::serve(listener, router).await.unwrap();
            });
        });
        Ok(Self { address, count })
    }

    /// Waits until so many came; how long that took.
    fn until(&self, count: usize) -> anyhow::Result<Duration> {
        let began = Instant::now();
        while self.count.load(Ordering::Relaxed) < count {
            ensure!(
                began.elapsed() < Duration::from_secs(300),
                "only {} of {count} arrived",
                self.count.load(Ordering::Relaxed)
            );
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(began.elapsed())
    }
}

pub fn deliveries(bench: &Bench) -> anyhow::Result<Vec<Line>> {
    let server = Server::start(&bench.directory("webhooks"))?;
    let token = server.token()?;
    let bearer = format!("Bearer {token}");
    let application = server.first_application(&token)?;
    let receiver = Receiver::start()?;
    let body =
        json!({ "url": format!("http://{}/in", receiver.address), "types": ["connected"] }).to_string();
    let content = Some(("application/json", body.as_str()));
    let made = ask(server.address, &request("POST /api/v1/webhooks", &bearer, content))?;
    let id = made["webhook"]["id"].as_str().context("no webhook")?.to_owned();
    let enabled = |enabled: bool| {
        let (line, body) =
            (format!("PATCH /api/v1/webhooks/{id}"), json!({ "enabled": enabled }).to_string());
        ask(server.address, &request(&line, &bearer, Some(("application/json", body.as_str()))))
    };
    let (mut ours, mut yardstick) = (vec![], vec![]);
    for run in 0..bench.runs {
        enabled(false)?;
        server.open(&token, &application, bench.sessions)?;
        let plain = plain_posts(bench, receiver.address)?;
        receiver.count.store(0, Ordering::Relaxed);
        enabled(true)?;
        let took = receiver.until(bench.sessions)?;
        let rate = bench.sessions as f64 / took.as_secs_f64();
        eprintln!("  run {}: {} deliveries/s, plain {}", run + 1, thousands(rate), thousands(plain));
        ours.push(rate);
        yardstick.push(plain);
    }
    Ok(vec![
        Line::plain(
            "webhook deliveries/s",
            thousands(median(ours.clone())),
            thousands(median(yardstick.clone())),
        ),
        Line::note(
            "yardstick: unsigned POSTs as large, by the same client to the same receiver, 8 side by side",
        ),
        Line::note(format!("runs: {}; plain {}", runs(ours), runs(yardstick))),
        Line::note(format!("a backlog of {} events to one webhook", thousands(bench.sessions as f64))),
        Line::note(format!("server {}", server.process.memory())),
    ])
}

/// POSTs a second that do nothing else.
fn plain_posts(bench: &Bench, to: SocketAddr) -> anyhow::Result<f64> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let client = reqwest::Client::builder().no_proxy().build()?;
    let (url, window) = (format!("http://{to}/in"), bench.window);
    let body = Bytes::from(vec![b'x'; BODY]);
    let began = Instant::now();
    let counts = runtime.block_on(async {
        let senders = (0..SIDE_BY_SIDE).map(|_| {
            let (client, url, body) = (client.clone(), url.clone(), body.clone());
            tokio::spawn(async move {
                let mut count = 0_usize;
                while began.elapsed() < window {
                    client.post(&url).body(body.clone()).send().await?.error_for_status()?;
                    count += 1;
                }
                Ok::<_, reqwest::Error>(count)
            })
        });
        futures_util::future::join_all(senders).await
    });
    let mut total = 0;
    for count in counts {
        total += count??;
    }
    Ok(total as f64 / began.elapsed().as_secs_f64())
}
