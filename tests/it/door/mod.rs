//! The door, from the wire: how long a connection may be in which state, what is read before anybody is known, and when a
//! connection is kept.

mod bodies;
mod kept;
mod states;
mod twice;

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::support::{Daemon, Server};

/// Nothing here takes longer, however busy the machine is.
const LIVENESS: Duration = Duration::from_secs(60);

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// A connection of a client that says exactly what it is told to.
struct Wire {
    stream: Box<dyn Stream>,
    /// What has come and was not looked at.
    come: Vec<u8>,
}

/// One answer.
#[derive(Debug)]
struct Told {
    status: u16,
    /// In lower case.
    head: String,
    body: String,
}

impl Told {
    fn closes(&self) -> bool {
        self.head.contains("\r\nconnection: close\r\n")
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("{self:?}"))
    }
}

impl Wire {
    fn over(stream: impl Stream + 'static) -> Self {
        Self { stream: Box::new(stream), come: vec![] }
    }

    async fn to(address: SocketAddr) -> Self {
        Self::over(TcpStream::connect(address).await.unwrap())
    }

    /// Says something; where the other end has closed, to nobody.
    async fn say(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.stream.write_all(bytes.as_ref()).await.is_ok() && self.stream.flush().await.is_ok()
    }

    async fn more(&mut self) -> Option<()> {
        let mut some = [0; 16 << 10];
        let read = timeout(LIVENESS, self.stream.read(&mut some)).await.expect("something comes, or the end");
        let count = read.ok().filter(|count| *count > 0)?;
        self.come.extend_from_slice(&some[..count]);
        Some(())
    }

    /// The next answer; none if the connection ends before it.
    async fn told(&mut self) -> Option<Told> {
        let end = loop {
            match self.come.windows(4).position(|part| part == b"\r\n\r\n") {
                Some(place) => break place + 4,
                None => self.more().await?,
            }
        };
        let head = String::from_utf8_lossy(&self.come[..end]).to_ascii_lowercase();
        let length = head.split("\r\ncontent-length: ").nth(1);
        let length = length.map_or(0, |rest| rest.split("\r\n").next().unwrap().parse().unwrap());
        while self.come.len() < end + length {
            self.more().await?;
        }
        let body = String::from_utf8_lossy(&self.come[end..end + length]).into_owned();
        self.come.drain(..end + length);
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Some(Told { status, head, body })
    }

    /// Asks, and waits for the answer.
    async fn ask(&mut self, text: &str) -> Option<Told> {
        self.say(text).await;
        self.told().await
    }

    /// Waits until the other end closes. Returns what came before that.
    async fn until_closed(&mut self) -> String {
        while self.more().await.is_some() {}
        String::from_utf8_lossy(&self.come).into_owned()
    }
}

fn address_of(server: &Server) -> SocketAddr {
    server.running.as_ref().unwrap().address
}

fn address_at(daemon: &Daemon) -> SocketAddr {
    daemon.base.split("//").nth(1).unwrap().parse().unwrap()
}

/// Where a process says that its metrics are.
fn metrics_at(daemon: &Daemon) -> SocketAddr {
    let log = daemon.log();
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let found = lines.filter_map(|line| line["metrics"].as_str().map(str::to_owned)).next();
    found.expect("it says where").parse().unwrap()
}

/// The value of a metric, by its name with labels.
async fn metric(daemon: &Daemon, name: &str) -> f64 {
    let text =
        reqwest::get(format!("http://{}/metrics", metrics_at(daemon))).await.unwrap().text().await.unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {name} in {text}")).parse().unwrap()
}

/// Every operation of the document: method and path, with ids that nothing has.
fn operations(document: &Value) -> Vec<(String, String, Value)> {
    let mut found = vec![];
    for (path, item) in document["paths"].as_object().unwrap() {
        let mut filled = String::new();
        for (index, part) in path.split(['{', '}']).enumerate() {
            filled += if index % 2 == 0 { part } else { "00000000-0000-7000-8000-000000000000" };
        }
        for (method, operation) in item.as_object().unwrap() {
            if ["get", "post", "put", "patch", "delete"].contains(&method.as_str()) {
                found.push((method.to_ascii_uppercase(), filled.clone(), operation.clone()));
            }
        }
    }
    assert!(found.len() > 90, "{}", found.len());
    found
}

/// Whether an operation is for everybody.
fn is_open(operation: &Value) -> bool {
    let schemes = operation["security"].as_array();
    schemes.is_some_and(|schemes| schemes.iter().any(|scheme| scheme.as_object().unwrap().is_empty()))
}

async fn document(server: &Server) -> Value {
    server.stranger().get("/openapi.json").await.1
}
