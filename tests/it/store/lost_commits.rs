//! Connections to PostgreSQL that are lost in the middle of a COMMIT: whatever was answered is true.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use sessiond::clock::Clock;
use sessiond::error::Error;
use sessiond_core::ids::SessionNumber;
use sqlx::{Connection, PgConnection};
use tokio::time::sleep;

use super::base::{Base, Opens, Running};
use crate::support::postgres::Database;
use crate::support::proxy::{Fault, Proxy, Way};
use crate::support::rounds;

/// Connects that are wanted at the same time, so that they meet in few commits.
const AT_ONCE: usize = 10;
/// How long an operation may be tried again and again.
const PATIENCE: Duration = Duration::from_secs(60);

/// What becomes of the commits of a node, one after the other.
const FAULTS: [Fault; 6] = [
    Fault::CutBefore,
    Fault::CutAfter,
    Fault::CutAnswer,
    Fault::Delay(Duration::from_millis(1_500)),
    Fault::CutAnswer,
    Fault::CutAfter,
];

async fn start(base: &Base, url: &str) -> Running {
    let node = base.start_on(sessiond_store::open_to_serve(url).await.unwrap(), Clock::system()).await;
    tokio::time::timeout(PATIENCE, node.gate.lease().begun()).await.expect("a node gets a lease");
    node
}

/// A client of a node, that asks until it is answered, and looks beside the node at what an answer is worth.
struct Client<'node> {
    node: &'node Running,
    database: &'node Database,
    name: String,
    /// The session that calls are counted for.
    counted: SessionNumber,
    acknowledged: u64,
}

impl<'node> Client<'node> {
    async fn new(name: String, node: &'node Running, database: &'node Database) -> Self {
        let counted = node.open().await.number;
        Self { node, database, name, counted, acknowledged: 0 }
    }

    /// Connects so many sessions at the same time, each by a name of its own.
    async fn connect(&self, round: usize) {
        join_all((0..AT_ONCE).map(|one| self.connect_one(format!("{}/{round}/{one}", self.name)))).await;
    }

    async fn connect_one(&self, name: String) {
        let opens = Opens { token_identifier: Some(name.clone()), ..Opens::default() };
        while let Err(error) = self.node.connect(&opens).await {
            assert!(matches!(error, Error::Busy), "{error:?}");
            assert_eq!(self.count(&name).await, 0, "it was answered that it did not happen");
            sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(self.count(&name).await, 1, "it was acknowledged");
    }

    /// Counts a call. Its operation says nothing of which call it is: had it taken effect although the answer says that it
    /// has not, the count would tell.
    async fn call(&mut self) {
        while let Err(error) = self.node.submit(self.node.activity(self.counted, 1)).await {
            assert!(matches!(error, Error::Busy), "{error:?}");
            sleep(Duration::from_millis(20)).await;
        }
        self.acknowledged += 1;
    }

    /// Sessions of a name, as somebody sees who asks the server itself.
    async fn count(&self, name: &str) -> i64 {
        let mut inside = PgConnection::connect(&self.database.url).await.unwrap();
        let sql = "select count(*) from session_detail where token_identifier = $1";
        let count = sqlx::query_scalar(sql).bind(name).fetch_one(&mut inside).await.unwrap();
        inside.close().await.unwrap();
        count
    }
}

/// Compares what was acknowledged with what there is.
async fn is_whole(database: &Database, clients: &[Client<'_>], connected: usize) {
    let mut inside = PgConnection::connect(&database.url).await.unwrap();
    let sql =
        "select token_identifier, count(*) from session_detail where token_identifier is not null group by 1";
    let counts: Vec<(String, i64)> = sqlx::query_as(sql).fetch_all(&mut inside).await.unwrap();
    let counts: BTreeMap<_, _> = counts.into_iter().collect();
    assert_eq!(counts.len(), connected, "each is there");
    assert!(counts.values().all(|count| *count == 1), "none is there twice: {counts:?}");
    for client in clients {
        let sql = "select requests from session_activity where number = $1";
        let number = client.counted.0;
        let requests: i64 = sqlx::query_scalar(sql).bind(number).fetch_one(&mut inside).await.unwrap();
        assert_eq!(u64::try_from(requests).unwrap(), client.acknowledged, "calls are counted once");
    }
    let sql = "select count(*), coalesce(max(position), 0) from event";
    let (count, last): (i64, i64) = sqlx::query_as(sql).fetch_one(&mut inside).await.unwrap();
    assert_eq!(count, last, "positions are contiguous");
    inside.close().await.unwrap();
    let store = sessiond_store::open_to_look(&database.url).await.unwrap();
    store.verify(&mut |_, _| ()).await.unwrap();
    store.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_whose_answer_is_lost_takes_effect_once_or_not_at_all_and_is_answered_as_what_it_came_to() {
    let (base, database) = (Base::new(), Database::new());
    let times = rounds(1, 10);
    let mut nodes = vec![];
    for _ in 0..3 {
        let proxy = Proxy::before(&database.url).await;
        nodes.push((start(&base, &proxy.url).await, proxy));
    }
    nodes[0].0.found().await;
    let swallowing = [Fault::SwallowAnswer, Fault::SwallowCommit, Fault::SwallowAnswer];
    let at_work = nodes.iter().zip(swallowing).enumerate().map(|(number, ((node, proxy), swallows))| {
        let database = &database;
        async move {
            let mut client = Client::new(format!("node {number}"), node, database).await;
            let faults = (0..times).flat_map(|_| FAULTS.into_iter().chain([swallows]));
            for (round, fault) in faults.enumerate() {
                proxy.fail_next_commit(fault);
                client.connect(round).await;
                assert!(proxy.has_failed(), "{fault:?}");
                client.call().await;
            }
            client
        }
    });
    let clients = join_all(at_work).await;
    is_whole(&database, &clients, clients.len() * times * (FAULTS.len() + 1) * AT_ONCE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_answered_is_true_over_a_way_that_is_cut_or_slow_or_swallows_what_comes() {
    let (base, database) = (Base::new(), Database::new());
    let proxy = Proxy::before(&database.url).await;
    let nodes = [start(&base, &proxy.url).await, start(&base, &database.url).await];
    nodes[0].found().await;
    let (times, over) = (rounds(1, 10), AtomicBool::new(false));
    let ways = [
        (Way::Cut, 700),
        (Way::Slow(Duration::from_millis(100)), 1_500),
        (Way::Swallowing, 300),
        // For longer than a lease: the node lets nobody in meanwhile, and goes on after it.
        (Way::Swallowing, 3_000),
    ];
    let failing = async {
        for (way, milliseconds) in (0..times).flat_map(|_| ways) {
            sleep(Duration::from_millis(300)).await;
            proxy.becomes(way);
            sleep(Duration::from_millis(milliseconds)).await;
            proxy.becomes(Way::Well);
        }
        over.store(true, Ordering::Relaxed);
    };
    let at_work = nodes.iter().enumerate().map(|(number, node)| {
        let (database, over) = (&database, &over);
        async move {
            let mut client = Client::new(format!("node {number}"), node, database).await;
            let mut round = 0;
            while !over.load(Ordering::Relaxed) || round == 0 {
                client.connect(round).await;
                client.call().await;
                round += 1;
            }
            (client, round)
        }
    });
    let (clients, ()) = tokio::join!(join_all(at_work), failing);
    let connected = clients.iter().map(|(_, rounds)| rounds * AT_ONCE).sum();
    let clients: Vec<_> = clients.into_iter().map(|(client, _)| client).collect();
    is_whole(&database, &clients, connected).await;
    let begun = tokio::time::timeout(PATIENCE, nodes[0].gate.lease().begun()).await;
    begun.expect("the node lets somebody in again");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_answered_is_true_when_the_servers_processes_are_ended_while_they_write() {
    let (base, database) = (Base::new(), Database::new());
    let times = rounds(20, 200);
    let nodes = [start(&base, &database.url).await, start(&base, &database.url).await];
    nodes[0].found().await;
    let new = |(number, node)| Client::new(format!("node {number}"), node, &database);
    let clients = join_all(nodes.iter().enumerate().map(new)).await;
    let at_work = clients.into_iter().map(|mut client| async move {
        for round in 0..times {
            client.connect(round).await;
            client.call().await;
        }
        client
    });
    // Whoever has the turn, or waits for it, is ended: in whatever it does just then.
    let ending = async {
        let mut inside = PgConnection::connect(&database.url).await.unwrap();
        let sql = "select count(pg_terminate_backend(l.pid)) from pg_locks l join pg_stat_activity a on a.pid = l.pid \
                   where l.locktype = 'advisory' and a.datname = current_database()";
        for time in 0.. {
            sqlx::query(sql).execute(&mut inside).await.unwrap();
            sleep(Duration::from_millis(10 + 61 * time % 300)).await;
        }
    };
    let clients = tokio::select! {
        clients = join_all(at_work) => clients,
        () = ending => unreachable!("it goes on for as long as there is something to end"),
    };
    is_whole(&database, &clients, clients.len() * times * AT_ONCE).await;
}
