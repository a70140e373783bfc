//! A revoke while one of the nodes is cut off, paused, slow or dead: nothing of an upstream comes from anywhere after its answer,
//! which says on how many nodes it is true.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::future::join_all;
use parking_lot::Mutex;
use reqwest::{Method, Response};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::gateway::House;
use super::{PATIENCE, ready, until};
use crate::mcp::upstream::clock;
use crate::mcp::{Client, Stream, call};
use crate::support::proxy::{Proxy, Way};
use crate::support::{Agent, Feed, Inside, rounds};

/// The node that something happens to; the others are well.
const STRUCK: usize = 1;

/// What happens to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Blow {
    /// Its connections to the database break, and no new one is made.
    CutOff,
    /// Nothing gets through to the database any more, and nobody says so.
    Silenced,
    Paused,
    /// Whatever it says to the database, or hears from it, takes so long.
    Slow(Duration),
    Killed,
}

/// What came on a stream, and when.
type Came = Arc<Mutex<Vec<(u64, String)>>>;

/// Those who are served while a revoke comes.
struct Served {
    came: Vec<Came>,
    reading: Vec<JoinHandle<()>>,
    /// When each call was made, and whether it was served.
    calling: Vec<JoinHandle<Vec<(u64, bool)>>>,
    over: Arc<AtomicBool>,
    feeds: Vec<Feed>,
    agents: Vec<Agent>,
    clients: Vec<Client>,
}

impl Served {
    async fn by(house: &House) -> Self {
        let over = Arc::<AtomicBool>::default();
        let (came, reading, calling) = (vec![], vec![], vec![]);
        let (feeds, agents, clients) = (vec![], vec![], vec![]);
        let mut served = Self { came, reading, calling, over, feeds, agents, clients };
        for node in 0..3 {
            let client = house.connect(node).await;
            served.read(client.begin(json!(1), "tick").await);
            served.resume(house, &client, (node + 1) % 3).await;
            served.call(house.connect(node).await);
            served.clients.push(client);
            let fresh = house.cluster.nodes[node].operator().await;
            let body = json!({ "applicationId": house.application, "name": "x" });
            let agent = fresh.connect(body).await;
            let path = format!("/api/v1/agent-sessions/{}/events", agent.id);
            served.feeds.push(Feed::open(&agent.holder, &path, None).await);
            served.agents.push(agent);
        }
        let came = served.came.clone();
        until("all streams are read", async || came.iter().all(|came| !came.lock().is_empty())).await;
        served
    }

    /// Opens a stream, and reads it by way of a node that it does not live on.
    async fn resume(&mut self, house: &House, client: &Client, node: usize) {
        let mut stream = Stream::of(client.begin(json!(2), "tick").await);
        stream.until("\"at\"").await;
        stream.until("id: ").await;
        let id = stream.text.lines().rev().find_map(|line| line.strip_prefix("id: ")).unwrap().to_owned();
        drop(stream);
        let elsewhere = house.moved(client, node).request(Method::GET);
        self.read(elsewhere.header("last-event-id", &id).send().await.unwrap());
    }

    fn read(&mut self, answer: Response) {
        assert_eq!(answer.status(), 200);
        let came = Came::default();
        self.came.push(came.clone());
        self.reading.push(tokio::spawn(async move {
            let mut bytes = answer.bytes_stream();
            while let Some(Ok(more)) = bytes.next().await {
                came.lock().push((clock(), String::from_utf8_lossy(&more).into_owned()));
            }
        }));
    }

    /// Has a client call, one call after the other.
    fn call(&mut self, client: Client) {
        let over = self.over.clone();
        self.calling.push(tokio::spawn(async move {
            let mut seen = vec![];
            while !over.load(Ordering::Relaxed) {
                let asked = clock();
                let request = client.request(Method::POST).json(&call(json!(asked), "echo"));
                let answer = request.timeout(PATIENCE).send().await;
                seen.push((asked, answer.is_ok_and(|answer| answer.status().is_success())));
                sleep(Duration::from_millis(20)).await;
            }
            seen
        }));
    }

    /// That nothing was served after the answer. Whatever was under way came until then.
    async fn nothing_after(self, answered: u64, healed: u64) {
        for (at, read) in self.reading.into_iter().enumerate() {
            timeout(PATIENCE, read).await.unwrap_or_else(|_| panic!("stream {at} goes on")).unwrap();
            let came = std::mem::take(&mut *self.came[at].lock());
            let text: String = came.iter().map(|(_, text)| text.as_str()).collect();
            let ticks = text.lines().filter_map(|line| line.strip_prefix("data: "));
            let sent =
                ticks.filter_map(|tick| serde_json::from_str::<Value>(tick).ok()?["params"]["at"].as_u64());
            let last = sent.max().unwrap();
            assert!(last <= answered, "stream {at}: {last} after {answered}");
            // Nor anything that the upstream had said before, when the node is itself again.
            for (when, text) in came.iter().filter(|(when, _)| *when > healed) {
                assert!(!text.contains("\"at\""), "stream {at}: at {when}, after {healed}: {text}");
            }
        }
        for mut feed in self.feeds {
            while feed.next().await.is_some() {}
        }
        self.over.store(true, Ordering::Relaxed);
        for (at, calls) in join_all(self.calling).await.into_iter().enumerate() {
            let calls = calls.unwrap();
            assert!(calls.iter().any(|(_, served)| *served), "caller {at} was served before");
            let after = calls.iter().filter(|(asked, served)| *asked > answered && *served).count();
            assert_eq!(after, 0, "caller {at} was served after {answered}");
        }
    }
}

async fn strike(house: &mut House, way: &Proxy, blow: Blow) {
    match blow {
        Blow::CutOff => way.becomes(Way::Cut),
        Blow::Silenced => way.becomes(Way::Swallowing),
        Blow::Slow(by) => way.becomes(Way::Slow(by)),
        Blow::Paused => house.cluster.signal(STRUCK, "-STOP"),
        Blow::Killed => house.cluster.nodes[STRUCK].child.kill().unwrap(),
    }
}

async fn heal(house: &mut House, way: &Proxy, blow: Blow) {
    match blow {
        Blow::CutOff | Blow::Silenced | Blow::Slow(_) => way.becomes(Way::Well),
        Blow::Paused => house.cluster.signal(STRUCK, "-CONT"),
        Blow::Killed => house.cluster.replace(STRUCK, &way.url).await,
    }
}

/// That the answer says on how many nodes it is true.
fn tells_the_truth(body: &Value, blow: Blow, took: Duration) {
    let count = |what: &str| body["nodes"][what].as_u64().unwrap_or_else(|| panic!("{body}"));
    let told = (count("asked"), count("acknowledged"), count("expired"));
    match (blow, told) {
        // It may have been quick enough.
        (Blow::Slow(_), (3, 2, 1) | (3, 3, 0)) | (_, (3, 2, 1)) => {}
        // It had the append lock when it was struck: when that was free again, its lease had run out.
        (_, (2, 2, 0)) if took > Duration::from_secs(1) => {}
        _ => panic!("{blow:?}: {body} after {took:?}"),
    }
}

/// Waits until the lease of whoever was killed has run out, and whoever took its place has one.
async fn three_serve(house: &House) {
    let leased =
        "select count(*) from node where lease_expires_at > extract(epoch from clock_timestamp()) * 1000";
    until("three nodes serve", async || {
        Inside::of(&house.cluster.database.url).await.number(leased, &[]).await == 3
    })
    .await;
}

async fn a_revoke_holds_everywhere_under(blows: &[Blow]) {
    let mut house = House::with(3, &[]).await;
    let way = Proxy::before(&house.cluster.database.url).await;
    house.cluster.replace(STRUCK, &way.url).await;
    let mut longest = Duration::ZERO;
    for round in 0..rounds(2, 50) {
        let blow = blows[round % blows.len()];
        three_serve(&house).await;
        let served = Served::by(&house).await;
        strike(&mut house, &way, blow).await;
        let begun = Instant::now();
        let body = house.revoke_all(2 * (round / 2 % 2)).await;
        let (answered, took) = (clock(), begun.elapsed());
        assert!(took < Duration::from_secs(12), "{blow:?}: {took:?}");
        tells_the_truth(&body, blow, took);
        assert_eq!(body["disconnectedCount"], 9, "{body}");
        longest = longest.max(took);
        // What came until now is read by now.
        sleep(Duration::from_millis(500)).await;
        let (healed, agents, clients) = (clock(), served.agents.clone(), served.clients.clone());
        heal(&mut house, &way, blow).await;
        served.nothing_after(answered, healed).await;
        ready(&house.cluster.nodes[STRUCK].base).await;
        for node in 0..3 {
            let (status, told) =
                agents[node].call_as(&house.cluster.moved(&agents[node].holder, STRUCK), "heartbeat").await;
            assert_eq!(status, 401, "{told}");
            let (status, told) = house.moved(&clients[node], STRUCK).call("echo").await;
            assert_eq!(status, 401, "{told}");
        }
    }
    println!("{blows:?}: the longest answer took {longest:?}");
    house.cluster.is_sound().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_comes_after_a_revoke_by_way_of_a_node_that_is_cut_off_from_the_database() {
    a_revoke_holds_everywhere_under(&[Blow::CutOff, Blow::Silenced]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_comes_after_a_revoke_by_way_of_a_node_that_was_paused_and_goes_on() {
    a_revoke_holds_everywhere_under(&[Blow::Paused]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_comes_after_a_revoke_by_way_of_a_node_that_hears_of_it_late() {
    let slow = |milliseconds| Blow::Slow(Duration::from_millis(milliseconds));
    a_revoke_holds_everywhere_under(&[slow(1_500), slow(750)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_comes_after_a_revoke_by_way_of_a_node_that_is_killed() {
    a_revoke_holds_everywhere_under(&[Blow::Killed]).await;
}
