//! Webhooks out, as a receiver sees them.

pub mod addresses;
mod delivering;
mod failing;
mod killed;
mod managing;
mod rules;
mod tls;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use standardwebhooks::Webhook;
use tokio::net::{TcpListener, TcpSocket};
use tokio::task::JoinHandle;

use crate::support::{Holder, Inside, Server};

const WEBHOOKS: &str = "/api/v1/webhooks";
/// To this machine, impatient, and with sessions that do not end by themselves when a test turns the clock.
const FLAGS: [&str; 9] = [
    "--webhook-allow-loopback",
    "--webhook-timeout",
    "1s",
    "--stale-after",
    "200d",
    "--token-lifetime",
    "200d",
    "--absolute-lifetime",
    "300d",
];

/// One request as it came in.
#[derive(Debug, Clone)]
pub struct Taken {
    headers: HeaderMap,
    body: Bytes,
    /// Whether it was answered with 2xx.
    pub accepted: bool,
}

impl Taken {
    pub fn header(&self, name: &str) -> &str {
        self.headers[name].to_str().unwrap()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    fn position(&self) -> i64 {
        self.json()["sequence"].as_str().unwrap().parse().unwrap()
    }

    pub fn event(&self) -> String {
        self.json()["data"]["type"].as_str().unwrap().to_owned()
    }

    /// What the signature with this secret must be.
    pub fn signature(&self, secret: &str) -> String {
        let timestamp = self.header("webhook-timestamp").parse().unwrap();
        Webhook::new(secret).unwrap().sign(self.header("webhook-id"), timestamp, &self.body).unwrap()
    }
}

/// What a receiver does with a request.
#[derive(Debug, Clone, Copy)]
pub enum Answer {
    Status(u16),
    RetryAfter(u16, u32),
    Redirect,
    Hang,
    /// 204, after so many milliseconds.
    Slow(u64),
}

type Choose = Arc<dyn Fn(&Taken, usize) -> Answer + Send + Sync>;

/// A receiver on this machine that remembers what it got.
pub struct Receiver {
    address: SocketAddr,
    taken: Arc<Mutex<Vec<Taken>>>,
    choose: Arc<Mutex<Choose>>,
    task: Option<JoinHandle<()>>,
}

impl Receiver {
    pub async fn start() -> Self {
        Self::that(|_, _| Answer::Status(204)).await
    }

    /// One that answers as it is told: by the request and how many there were before.
    pub async fn that(choose: impl Fn(&Taken, usize) -> Answer + Send + Sync + 'static) -> Self {
        let choose: Choose = Arc::new(choose);
        let mut receiver = Self {
            address: "127.0.0.1:0".parse().unwrap(),
            taken: Arc::default(),
            choose: Arc::new(Mutex::new(choose)),
            task: None,
        };
        receiver.open().await;
        receiver
    }

    /// Opens, or opens again at the same address.
    async fn open(&mut self) {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        socket.bind(self.address).unwrap();
        let listener: TcpListener = socket.listen(64).unwrap();
        self.address = listener.local_addr().unwrap();
        let (taken, choose) = (self.taken.clone(), self.choose.clone());
        let handle = move |headers: HeaderMap, body: Bytes| {
            let (taken, choose) = (taken.clone(), choose.clone());
            async move { answer(&taken, &choose, headers, body).await }
        };
        let router = Router::new().fallback(handle);
        self.task = Some(tokio::spawn(async move { axum::serve(listener, router).await.unwrap() }));
    }

    /// Goes away, with all its connections that are idle.
    fn close(&mut self) {
        self.task.take().unwrap().abort();
    }

    fn now_answers(&self, choose: impl Fn(&Taken, usize) -> Answer + Send + Sync + 'static) {
        *self.choose.lock().unwrap() = Arc::new(choose);
    }

    pub fn url(&self) -> String {
        format!("http://{}/in", self.address)
    }

    fn taken(&self) -> Vec<Taken> {
        self.taken.lock().unwrap().clone()
    }

    fn accepted(&self) -> Vec<Taken> {
        self.taken().into_iter().filter(|taken| taken.accepted).collect()
    }

    /// Positions of what was accepted.
    fn positions(&self) -> BTreeSet<i64> {
        self.accepted().iter().map(Taken::position).collect()
    }

    /// Waits until so many were taken, accepted or not.
    async fn until(&self, count: usize) -> Vec<Taken> {
        self.until_that(&format!("{count} requests"), |taken| taken.len() >= count).await
    }

    pub async fn until_that(&self, what: &str, done: impl Fn(&[Taken]) -> bool) -> Vec<Taken> {
        for _ in 0..2_000 {
            let taken = self.taken();
            if done(&taken) {
                return taken;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let taken: Vec<_> = self.taken().iter().map(|one| (one.position(), one.accepted)).collect();
        panic!("waited twenty seconds in vain for {what}: {taken:?}");
    }
}

async fn answer(
    taken: &Mutex<Vec<Taken>>,
    choose: &Mutex<Choose>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let mut one = Taken { headers, body, accepted: false };
    let chosen = {
        let choose = choose.lock().unwrap().clone();
        let mut taken = taken.lock().unwrap();
        let chosen = choose(&one, taken.len());
        one.accepted = matches!(chosen, Answer::Status(200..=299) | Answer::Slow(_));
        taken.push(one);
        chosen
    };
    match chosen {
        Answer::Status(status) => StatusCode::from_u16(status).unwrap().into_response(),
        Answer::RetryAfter(status, seconds) => {
            let headers = [("retry-after", seconds.to_string())];
            (StatusCode::from_u16(status).unwrap(), headers).into_response()
        }
        Answer::Redirect => (StatusCode::TEMPORARY_REDIRECT, [("location", "/elsewhere")]).into_response(),
        Answer::Hang => std::future::pending().await,
        Answer::Slow(milliseconds) => {
            tokio::time::sleep(Duration::from_millis(milliseconds)).await;
            StatusCode::NO_CONTENT.into_response()
        }
    }
}

/// A webhook, with its secret.
pub struct Made {
    id: String,
    path: String,
    pub secret: String,
}

pub async fn webhook(operator: &Holder, body: Value) -> Made {
    let (status, body) = operator.post(WEBHOOKS, body).await;
    assert_eq!(status, 201, "{body}");
    let id = body["webhook"]["id"].as_str().unwrap().to_owned();
    let path = format!("{WEBHOOKS}/{id}");
    Made { id, path, secret: body["secret"].as_str().unwrap().to_owned() }
}

pub async fn webhook_to(operator: &Holder, receiver: &Receiver) -> Made {
    webhook(operator, json!({ "url": receiver.url() })).await
}

/// A server whose webhooks may go to this machine.
async fn server() -> Server {
    Server::with(&FLAGS).await
}

/// A webhook's deliveries, of all pages.
async fn deliveries(operator: &Holder, made: &Made, status: &str) -> Vec<Value> {
    let (mut items, mut cursor) = (vec![], String::new());
    loop {
        let path = format!("{}/deliveries?limit=100{status}{cursor}", made.path);
        let (code, body) = operator.get(&path).await;
        assert_eq!(code, 200, "{body}");
        items.extend(body["items"].as_array().unwrap().iter().cloned());
        match body["nextCursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return items,
        }
    }
}

/// Lifecycle events after a position: what a webhook that wants everything must get.
async fn committed_after(database: &str, position: i64) -> BTreeSet<i64> {
    let sql = "select position from event where position > $1 and type <> 'activity_recorded' \
               and stream_kind <> 9";
    let rows: Vec<(i64,)> = Inside::of(database).await.rows(sql, &[position.into()]).await;
    rows.into_iter().map(|(position,)| position).collect()
}

/// Where the last event of this type is.
async fn last_of(database: &str, name: &str) -> i64 {
    let sql = "select max(position) from event where type = $1";
    Inside::of(database).await.number(sql, &[name.into()]).await
}
