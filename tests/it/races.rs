//! Everybody at once: revokers, those who come back with the revoked credential, those who leave, renew and expire.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use futures_util::future::join_all;
use reqwest::StatusCode;
use serde_json::json;

use crate::support::{Agent, Holder, Server};

const SESSIONS: usize = 10_000;

/// What a caller saw, and when it asked.
struct Seen {
    asked: Instant,
    status: StatusCode,
}

struct Race {
    agents: Vec<Agent>,
    next: AtomicUsize,
    over: AtomicBool,
}

impl Race {
    /// Walks over the sessions with strides of its own.
    fn pick(&self) -> &Agent {
        &self.agents[(self.next.fetch_add(7_919, Ordering::Relaxed)) % self.agents.len()]
    }

    async fn call_until_over(self: Arc<Self>, verb: &'static str) -> Vec<Seen> {
        let mut seen = vec![];
        while !self.over.load(Ordering::Relaxed) {
            let asked = Instant::now();
            let (status, _) = self.pick().call(verb).await;
            seen.push(Seen { asked, status });
        }
        seen
    }

    async fn connect_until_over(self: Arc<Self>, old: Holder) -> Vec<Seen> {
        let mut seen = vec![];
        while !self.over.load(Ordering::Relaxed) {
            let asked = Instant::now();
            let (status, _) = old.post("/api/v1/agent-sessions", json!({})).await;
            seen.push(Seen { asked, status });
        }
        seen
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_revokers_among_connectors_leavers_renewers_and_expiry_count_exactly_what_the_log_holds() {
    let server = Server::with(&["--stale-after", "10h", "--token-lifetime", "1h"]).await;
    let early = server.operator().await;
    let mut agents = open(&early, SESSIONS / 4).await;
    server.turn(1_800);
    let old = server.operator().await;
    agents.extend(open(&old, SESSIONS - SESSIONS / 4).await);
    let path = format!("/api/v1/applications/{}/sessions", agents[0].application);
    let race = Arc::new(Race { agents, next: AtomicUsize::new(0), over: AtomicBool::new(false) });
    let calls: Vec<_> = ["heartbeat", "heartbeat", "disconnect", "renew"]
        .map(|verb| tokio::spawn(race.clone().call_until_over(verb)))
        .into_iter()
        .collect();
    let connects: Vec<_> =
        (0..2).map(|_| tokio::spawn(race.clone().connect_until_over(old.clone()))).collect();
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    // A quarter of the sessions expires now: the job announces them while the revokers end them.
    server.turn(1_801);
    let revoker = server.operator().await;
    let (first, second) = tokio::join!(revoker.delete(&path), revoker.delete(&path));
    let answered = Instant::now();
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    race.over.store(true, Ordering::Relaxed);

    for seen in
        join_all(connects).await.into_iter().flat_map(Result::unwrap).filter(|seen| seen.asked > answered)
    {
        assert_eq!(
            seen.status,
            StatusCode::UNAUTHORIZED,
            "connected with an old credential after the answer"
        );
    }
    let calls: Vec<Vec<Seen>> = join_all(calls).await.into_iter().map(Result::unwrap).collect();
    for seen in [&calls[0], &calls[1], &calls[3]].into_iter().flatten().filter(|seen| seen.asked > answered) {
        assert_eq!(seen.status, StatusCode::UNAUTHORIZED, "served after the answer");
    }
    let count = |answer: &(StatusCode, serde_json::Value)| {
        assert_eq!(answer.0, StatusCode::OK, "{}", answer.1);
        answer.1["disconnectedCount"].as_i64().unwrap()
    };
    let (first, second) = (count(&first), count(&second));
    assert!(first + second > 0);
    let (_, live) = revoker.get(&path).await;
    assert_eq!(live["items"], json!([]), "nobody is left: every connector used an old credential");
    compare_with_the_log(&server, &mut [first, second]).await;
}

async fn open(holder: &Holder, count: usize) -> Vec<Agent> {
    let mut agents = vec![];
    while agents.len() < count {
        agents.extend(holder.connect_many(count.min(250)).await);
    }
    agents
}

/// The counts that were answered are those of the events, revocation by revocation, and no session ended twice.
async fn compare_with_the_log(server: &Server, answered: &mut [i64]) {
    let mut inside = server.look_inside().await;
    let carried = "select revocation, count(*) from event where type = 'disconnected' and revocation is not null group by 1";
    let carried: Vec<(i64, i64)> = inside.rows(carried, &[]).await;
    let ended = "select revocation, body from event where type = 'revocation_ended'";
    let ended: Vec<(i64, String)> = inside.rows(ended, &[]).await;
    let carried: HashMap<i64, i64> = carried.into_iter().collect();
    let mut counts: Vec<i64> = ended
        .iter()
        .map(|(revocation, body)| {
            let body: serde_json::Value = serde_json::from_str(body).unwrap();
            let count = body["disconnectedCount"].as_i64().unwrap();
            assert_eq!(carried.get(revocation).copied().unwrap_or(0), count);
            count
        })
        .collect();
    counts.sort_unstable();
    answered.sort_unstable();
    assert_eq!(counts, answered);
    let twice = "select count(*) from \
        (select 1 from event where type = 'disconnected' group by stream_number having count(*) > 1) as ended_twice";
    assert_eq!(inside.number(twice, &[]).await, 0);
    let reader = sessiond_store::open_to_look(&server.database()).await.unwrap();
    reader.verify(&mut |_, _| {}).await.unwrap();
}
