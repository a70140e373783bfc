//! The load: many keep-alive connections, each sending its next request when the last one was answered. Requests are
//! made beforehand and answers are read no further than necessary, so that most of the two cores is left to the server.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde_json::Value;
use tokio::task::JoinSet;

use crate::connection::{Connection, block_on, contains, request};

// ---- what is sent ----

/// Where the next request comes from.
pub enum Requests {
    /// One of these, chosen uniformly.
    AnyOf(Vec<Vec<u8>>),
    Connects(Connects),
    /// Calls of MCP tools: one of its own for each connection, answered with a result of at least so many bytes.
    Tools {
        own: Vec<Vec<u8>>,
        least: usize,
    },
    /// The same of a tool whose answer is streamed: what is timed is this text in it.
    Streams {
        own: Vec<Vec<u8>>,
        first: &'static str,
    },
}

/// Connects, each with a `clientSessionId` of its own, for one of ten thousand users on one of a hundred hosts.
pub struct Connects {
    template: Vec<u8>,
    session_at: usize,
    user_at: usize,
    host_at: usize,
    next: AtomicU64,
}

const SESSION: &str = "run-0000000000000000";
const USER: &str = "user-0000@example.com";
const HOST: &str = "build-00.example.com";

impl Connects {
    pub fn new(token: &str, application: &str) -> Self {
        let body = serde_json::json!({
            "tokenIdentifier": "workstation",
            "authenticatedUserId": USER,
            "clientSessionId": SESSION,
            "hostname": HOST,
            "clientInfo": { "name": "inspector", "version": "1.4.2" },
            "applicationId": application,
        });
        let content = Some(("application/json", body.to_string()));
        let content = content.as_ref().map(|(kind, body)| (*kind, body.as_str()));
        let template = request("POST /api/v1/agent-sessions", &format!("Bearer {token}"), content);
        let find = |text: &str| {
            template.windows(text.len()).position(|bytes| bytes == text.as_bytes()).expect("it is in there")
        };
        let (session_at, user_at, host_at) = (find(SESSION) + 4, find(USER) + 5, find(HOST) + 6);
        Self { template, session_at, user_at, host_at, next: AtomicU64::new(1) }
    }

    fn write(&self, into: &mut Vec<u8>) {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        into.clone_from(&self.template);
        digits(&mut into[self.session_at..self.session_at + 16], number);
        digits(&mut into[self.user_at..self.user_at + 4], number.wrapping_mul(7_919) % 10_000);
        digits(&mut into[self.host_at..self.host_at + 2], number % 100);
    }
}

fn digits(into: &mut [u8], mut number: u64) {
    for digit in into.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

impl Requests {
    fn next<'a>(&'a self, connection: usize, dice: &mut Dice, scratch: &'a mut Vec<u8>) -> &'a [u8] {
        match self {
            Self::Tools { own, .. } | Self::Streams { own, .. } => &own[connection],
            Self::AnyOf(requests) => &requests[dice.below(requests.len())],
            Self::Connects(connects) => {
                connects.write(scratch);
                scratch
            }
        }
    }

    /// Sends a request and reads its answer.
    async fn call(
        &self,
        connection: &mut Connection,
        request: &[u8],
        epoch: Instant,
    ) -> anyhow::Result<Sample> {
        let began = Instant::now();
        if let Self::Streams { first, .. } = self {
            let status = connection.send(request).await?;
            ensure!(status == 200, "answered with {status}");
            connection.until(first.as_bytes()).await?;
            let sample = Sample::new(epoch, began);
            ensure!(connection.rest().await?, "a stream broke off");
            return Ok(sample);
        }
        let answer = connection.call(request).await?;
        if let Self::Tools { least, .. } = self {
            // A tool's error is answered with 200 as well.
            let begins = &answer[..answer.len().min(512)];
            let sound = answer.len() >= *least && contains(begins, b"\"result\"");
            let sound = sound && !contains(begins, b"\"isError\":true");
            ensure!(sound, "a call was answered with {}", String::from_utf8_lossy(begins));
        }
        Ok(Sample::new(epoch, began))
    }
}

/// Even enough, and the same in every run (splitmix64).
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: usize) -> Self {
        Self(seed as u64)
    }

    pub fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((u128::from(mixed ^ (mixed >> 31)) * limit as u128) >> 64) as usize
    }
}

// ---- what came of it ----

/// One call: when it began and how long it took; microseconds.
#[derive(Clone, Copy)]
pub struct Sample {
    began: u32,
    took: u32,
}

impl Sample {
    pub fn new(epoch: Instant, began: Instant) -> Self {
        let micros = |time: Duration| u32::try_from(time.as_micros()).unwrap_or(u32::MAX);
        Self { began: micros(began - epoch), took: micros(began.elapsed()) }
    }
}

/// All calls of a load.
pub struct Calls {
    pub epoch: Instant,
    pub samples: Vec<Sample>,
}

/// Calls in a window.
#[derive(Clone, Copy)]
pub struct Figures {
    /// Calls answered in it, a second.
    pub rate: f64,
    /// Of those that were under way in it.
    pub p50: Duration,
    pub p99: Duration,
    pub longest: Duration,
}

impl Calls {
    pub fn during(&self, from: Instant, to: Instant) -> Figures {
        let offset = |at: Instant| u64::try_from((at - self.epoch).as_micros()).unwrap_or(u64::MAX);
        let (from_us, to_us) = (offset(from), offset(to));
        let mut answered = 0u64;
        let mut times = Vec::with_capacity(self.samples.len());
        for sample in &self.samples {
            let (began, ended) = (u64::from(sample.began), u64::from(sample.began) + u64::from(sample.took));
            answered += u64::from((from_us..to_us).contains(&ended));
            if began < to_us && ended > from_us {
                times.push(sample.took);
            }
        }
        times.sort_unstable();
        let quantile = |part: f64| {
            let index = (times.len() as f64 * part) as usize;
            let micros = times.get(index.min(times.len().saturating_sub(1))).copied().unwrap_or(0);
            Duration::from_micros(micros.into())
        };
        Figures {
            rate: answered as f64 / (to - from).as_secs_f64(),
            p50: quantile(0.50),
            p99: quantile(0.99),
            longest: quantile(1.0),
        }
    }
}

// ---- the load ----

/// A load under way.
pub struct Load {
    stop: Arc<AtomicBool>,
    epoch: Instant,
    threads: Vec<JoinHandle<anyhow::Result<Vec<Sample>>>>,
}

/// Two threads, each with half of the connections: as many as there are cores to share with the server.
const THREADS: usize = 2;
/// How long a call may take.
const PATIENCE: Duration = Duration::from_secs(60);

fn share(whole: usize, thread: usize) -> usize {
    whole / THREADS + usize::from(thread < whole % THREADS)
}

impl Load {
    pub fn start(address: SocketAddr, connections: usize, requests: &Arc<Requests>) -> Self {
        Self::over(&[address], connections, requests)
    }

    /// With the connections shared out among several servers.
    pub fn over(addresses: &[SocketAddr], connections: usize, requests: &Arc<Requests>) -> Self {
        let (stop, epoch) = (Arc::new(AtomicBool::new(false)), Instant::now());
        let threads = (0..THREADS)
            .map(|thread| {
                let (requests, stop, addresses) = (requests.clone(), stop.clone(), addresses.to_vec());
                std::thread::spawn(move || {
                    block_on(async move {
                        let mut tasks = JoinSet::new();
                        for index in 0..share(connections, thread) {
                            let seed = index * THREADS + thread;
                            let address = addresses[seed % addresses.len()];
                            tasks.spawn(repeat(address, requests.clone(), stop.clone(), epoch, seed));
                        }
                        let mut samples = Vec::new();
                        while let Some(one) = tasks.join_next().await {
                            samples.extend(one??);
                        }
                        Ok(samples)
                    })
                })
            })
            .collect();
        Self { stop, epoch, threads }
    }

    /// Lets every connection finish its call. One failed call fails the whole load.
    pub fn finish(self) -> anyhow::Result<Calls> {
        self.stop.store(true, Ordering::Relaxed);
        let mut samples = Vec::new();
        for thread in self.threads {
            samples.extend(thread.join().expect("the load panicked")?);
        }
        Ok(Calls { epoch: self.epoch, samples })
    }
}

async fn repeat(
    address: SocketAddr,
    requests: Arc<Requests>,
    stop: Arc<AtomicBool>,
    epoch: Instant,
    seed: usize,
) -> anyhow::Result<Vec<Sample>> {
    let mut connection = Connection::open(address).await?;
    let (mut dice, mut scratch, mut samples) = (Dice::new(seed), Vec::new(), Vec::with_capacity(1 << 14));
    while !stop.load(Ordering::Relaxed) {
        let request = requests.next(seed, &mut dice, &mut scratch);
        let called = tokio::time::timeout(PATIENCE, requests.call(&mut connection, request, epoch)).await;
        match called.unwrap_or_else(|_| Err(anyhow::anyhow!("a call was not answered within {PATIENCE:?}"))) {
            Ok(sample) => samples.push(sample),
            Err(error) => {
                stop.store(true, Ordering::Relaxed);
                return Err(error);
            }
        }
    }
    Ok(samples)
}

/// Opens sessions over many connections and returns the bytes of a heartbeat of each, with its own token.
pub fn open_sessions(address: SocketAddr, connects: Connects, count: usize) -> anyhow::Result<Vec<Vec<u8>>> {
    let (connects, left) = (Arc::new(connects), Arc::new(AtomicI64::new(i64::try_from(count)?)));
    let threads: Vec<_> = (0..THREADS)
        .map(|thread| {
            let (connects, left) = (connects.clone(), left.clone());
            std::thread::spawn(move || {
                block_on(async move {
                    let mut tasks = JoinSet::new();
                    for _ in 0..share(256, thread) {
                        tasks.spawn(open_some(address, connects.clone(), left.clone()));
                    }
                    let mut heartbeats = Vec::new();
                    while let Some(some) = tasks.join_next().await {
                        heartbeats.extend(some??);
                    }
                    anyhow::Ok(heartbeats)
                })
            })
        })
        .collect();
    let mut heartbeats = Vec::with_capacity(count);
    for thread in threads {
        heartbeats.extend(thread.join().expect("opening panicked")?);
    }
    ensure!(heartbeats.len() == count, "opened {} sessions, not {count}", heartbeats.len());
    Ok(heartbeats)
}

async fn open_some(
    address: SocketAddr,
    connects: Arc<Connects>,
    left: Arc<AtomicI64>,
) -> anyhow::Result<Vec<Vec<u8>>> {
    let mut connection = Connection::open(address).await?;
    let (mut scratch, mut heartbeats) = (Vec::new(), Vec::new());
    while left.fetch_sub(1, Ordering::Relaxed) > 0 {
        connects.write(&mut scratch);
        let opened: Value = serde_json::from_slice(connection.call(&scratch).await?)?;
        let text = |field: &str| opened[field].as_str().context("a connect's answer lacks a field");
        let line = format!("POST /api/v1/agent-sessions/{}/heartbeat", text("sessionId")?);
        heartbeats.push(request(&line, &format!("Bearer {}", text("token")?), None));
    }
    Ok(heartbeats)
}
