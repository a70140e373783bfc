//! Everybody at once on all nodes: revokers, those who come back with the revoked credential, those who leave, renew and expire.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use reqwest::StatusCode;
use serde_json::{Value, json};

use super::{Cluster, until};
use crate::support::{Agent, Holder, Inside, rounds};

/// How many machines the sessions are on: what is revoked by machine while all race.
const MACHINES: usize = 6;

/// What a caller saw, and when it asked.
struct Seen {
    asked: Instant,
    /// When it had got its credential.
    got: Instant,
    status: StatusCode,
}

struct Race {
    cluster: Cluster,
    application: String,
    agents: Vec<Agent>,
    next: AtomicUsize,
    over: AtomicBool,
}

impl Race {
    /// Walks over the sessions with strides of its own, each time at another node than the time before.
    fn pick(&self) -> (&Agent, Holder) {
        let at = self.next.fetch_add(7_919, Ordering::Relaxed);
        let agent = &self.agents[at % self.agents.len()];
        (agent, self.cluster.moved(&agent.holder, at / 7_919 % 3))
    }

    async fn call_until_over(self: Arc<Self>, verb: &'static str) -> Vec<Seen> {
        let (mut seen, got) = (vec![], Instant::now());
        while !self.over.load(Ordering::Relaxed) {
            let (agent, holder) = self.pick();
            let asked = Instant::now();
            let (status, _) = agent.call_as(&holder, verb).await;
            seen.push(Seen { asked, got, status });
            if verb == "disconnect" {
                // So that there is somebody left to revoke.
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
        seen
    }

    /// Connects at one node after the other, and authenticates anew only where it is told to.
    async fn connect_until_over(self: Arc<Self>, first: usize) -> Vec<Seen> {
        let mut seen = vec![];
        let (mut holder, mut got) = (self.fresh(first).await, Instant::now());
        for node in first.. {
            if self.over.load(Ordering::Relaxed) {
                break;
            }
            let here = self.cluster.moved(&holder, node % 3);
            let body =
                json!({ "applicationId": self.application, "hostname": format!("m-{}", node % MACHINES) });
            let asked = Instant::now();
            let (status, _) = here.post("/api/v1/agent-sessions", body).await;
            seen.push(Seen { asked, got, status });
            if status == StatusCode::UNAUTHORIZED && node % 7 == 0 {
                (holder, got) = (self.fresh(node).await, Instant::now());
            }
        }
        seen
    }

    async fn fresh(&self, node: usize) -> Holder {
        self.cluster.nodes[node % 3].operator().await
    }

    /// What was answered to a revoke of some of them.
    async fn revoke(&self, node: usize, which: &str) -> (String, i64) {
        let path = format!("/api/v1/applications/{}/sessions{which}", self.application);
        let (status, body) = self.fresh(node).await.delete(&path).await;
        assert_eq!(status, StatusCode::OK, "{body}");
        (body["revocationId"].as_str().unwrap().to_owned(), body["disconnectedCount"].as_i64().unwrap())
    }

    /// The status of each session, as a node's list has it.
    async fn list(&self, holder: &Holder, node: usize) -> BTreeMap<String, String> {
        let (holder, mut all) = (self.cluster.moved(holder, node), BTreeMap::new());
        let mut path = format!("/api/v1/applications/{}/sessions?status=all&limit=200", self.application);
        loop {
            let (status, page) = holder.get(&path).await;
            assert_eq!(status, StatusCode::OK, "{page}");
            let text = |item: &Value, field: &str| item[field].as_str().unwrap().to_owned();
            let items = page["items"].as_array().unwrap();
            all.extend(items.iter().map(|item| (text(item, "id"), text(item, "derivedStatus"))));
            let Some(cursor) = page["nextCursor"].as_str() else { return all };
            path = format!(
                "/api/v1/applications/{}/sessions?status=all&limit=200&cursor={cursor}",
                self.application
            );
        }
    }

    /// How many have ended, as a node counts them.
    async fn count_ended(&self, holder: &Holder, node: usize) -> i64 {
        let path = format!("/api/v1/applications/{}/sessions/count", self.application);
        let (status, body) = self.cluster.moved(holder, node).get(&path).await;
        assert_eq!(status, StatusCode::OK, "{body}");
        body["counts"]["disconnected"].as_i64().unwrap_or_else(|| panic!("{body}"))
    }
}

/// Opens sessions at all nodes, a batch with each token.
async fn open(cluster: &Cluster, application: &str, count: usize, batch: usize) -> Vec<Agent> {
    let mut agents = vec![];
    while agents.len() < count {
        let holder = cluster.nodes[agents.len() % 3].operator().await;
        let opened = (0..batch.min(count - agents.len())).map(|one| {
            let holder = cluster.moved(&holder, one % 3);
            let body = json!({ "applicationId": application, "hostname": format!("m-{}", one % MACHINES) });
            async move { holder.connect(body).await }
        });
        agents.extend(join_all(opened).await);
    }
    agents
}

#[tokio::test(flavor = "multi_thread")]
async fn revokers_at_three_nodes_among_connectors_leavers_renewers_and_expiry_count_exactly_what_the_log_holds()
 {
    let (sessions, lifetime) = (rounds(300, 10_000), rounds(10, 90) as u64);
    let cluster =
        Cluster::with(3, &["--stale-after", "10h", "--token-lifetime", &format!("{lifetime}s")]).await;
    let application = cluster.application().await;
    // A quarter of them expires while all race: those whose tokens are the first.
    let begun = Instant::now();
    let mut agents = open(&cluster, &application, sessions / 4, 250).await;
    agents.extend(open(&cluster, &application, sessions - sessions / 4, 250).await);
    println!("{sessions} sessions were opened in {:?}", begun.elapsed());
    let (next, over) = (AtomicUsize::new(0), AtomicBool::new(false));
    let race = Arc::new(Race { cluster, application, agents, next, over });
    let due = Duration::from_secs(lifetime).saturating_sub(begun.elapsed() + Duration::from_secs(1));
    tokio::time::sleep(due).await;
    let calls = ["heartbeat", "heartbeat", "disconnect", "renew", "renew"];
    let calls: Vec<_> = calls.map(|verb| tokio::spawn(race.clone().call_until_over(verb))).into();
    let connects: Vec<_> = (0..3).map(|node| tokio::spawn(race.clone().connect_until_over(node))).collect();
    tokio::time::sleep(Duration::from_millis(500)).await;

    let mut inside = Inside::of(&race.cluster.database.url).await;
    let mut answers = vec![];
    let machines = (0..MACHINES).flat_map(|machine| [(machine, machine), (machine + 1, machine)]);
    let by_machine = machines.map(|(node, machine)| {
        let race = race.clone();
        async move { race.revoke(node, &format!("?hostname=m-{machine}")).await }
    });
    answers.extend(join_all(by_machine).await);
    let expired = "select count(*) from event where type = 'expired'";
    let give_up = Instant::now() + super::PATIENCE;
    while inside.number(expired, &[]).await == 0 {
        assert!(Instant::now() < give_up, "nobody expired");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let asked = Instant::now();
    answers.extend(join_all((0..3).map(|node| race.revoke(node, ""))).await);
    let answered = Instant::now();
    tokio::time::sleep(Duration::from_millis(500)).await;
    race.over.store(true, Ordering::Relaxed);

    let served = |seen: &Seen| seen.asked > answered && seen.status.is_success();
    let connects: Vec<Seen> = join_all(connects).await.into_iter().flat_map(Result::unwrap).collect();
    for seen in connects.iter().filter(|seen| seen.got < asked) {
        assert!(!served(seen), "connected with an old credential after the answer");
    }
    let calls: Vec<Vec<Seen>> = join_all(calls).await.into_iter().map(Result::unwrap).collect();
    for seen in [&calls[0], &calls[1], &calls[3], &calls[4]].into_iter().flatten() {
        assert!(!served(seen), "served after the answer: {}", seen.status);
    }
    let good = |seen: &[Seen]| seen.iter().filter(|seen| seen.status.is_success()).count();
    println!(
        "{} connected, {} left, {} renewals and {} heartbeats in {} requests",
        good(&connects),
        good(&calls[2]),
        good(&calls[3]) + good(&calls[4]),
        good(&calls[0]) + good(&calls[1]),
        connects.len() + calls.iter().map(Vec::len).sum::<usize>()
    );
    assert!(answers.iter().map(|(_, count)| count).sum::<i64>() > 0);
    compare_with_the_log(&mut inside, &answers).await;
    agree(&race, &mut inside).await;
    race.cluster.is_sound().await;
}

/// The counts that were answered are those of the events, revocation by revocation, and no session ended twice.
async fn compare_with_the_log(inside: &mut Inside, answers: &[(String, i64)]) {
    let carried = "select count(*) from event join revocation on revocation.number = event.revocation \
                   where event.type = 'disconnected' and revocation.id = $1";
    for (id, count) in answers {
        let number = uuid::Uuid::parse_str(id).unwrap();
        assert_eq!(inside.number(carried, &[number.into()]).await, *count, "{id}");
    }
    let ended = "select count(*) from event where type = 'revocation_ended'";
    assert_eq!(inside.number(ended, &[]).await, answers.len() as i64);
    let carried = "select count(*) from event where type = 'disconnected' and revocation is not null";
    let sum: i64 = answers.iter().map(|(_, count)| count).sum();
    assert_eq!(inside.number(carried, &[]).await, sum);
    let twice = "select count(*) from \
        (select 1 from event where type = 'disconnected' group by stream_number having count(*) > 1) as ended_twice";
    assert_eq!(inside.number(twice, &[]).await, 0);
}

/// All nodes tell the same, and what the log holds.
async fn agree(race: &Race, inside: &mut Inside) {
    let holder = race.fresh(0).await;
    until("the nodes' lists agree", async || {
        let lists = join_all((0..3).map(|node| race.list(&holder, node))).await;
        lists[0] == lists[1] && lists[1] == lists[2]
    })
    .await;
    let events = "select count(*) from event where type = $1";
    let connected = inside.number(events, &["connected".into()]).await;
    let disconnected = inside.number(events, &["disconnected".into()]).await;
    for node in 0..3 {
        let list = race.list(&holder, node).await;
        assert_eq!(list.len() as i64, connected, "node {node}");
        let ended = list.values().filter(|status| *status == "disconnected").count();
        assert_eq!(ended as i64, disconnected, "node {node}");
        assert_eq!(race.count_ended(&holder, node).await, disconnected, "node {node}");
    }
}
