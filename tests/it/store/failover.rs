//! A PostgreSQL whose primary dies, and whose standby takes its place.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use sessiond::clock::Clock;
use sessiond::error::Error;
use sqlx::{Connection, PgConnection};
use tokio::time::sleep;

use super::base::{Base, Opens, Running};
use crate::support::proxy::Proxy;
use crate::support::rounds;
use crate::support::standby::Pair;

/// How long it may take at the most until something is written to a primary that is new.
const BACK: Duration = Duration::from_secs(10);
const SLACK: Duration = Duration::from_secs(30);

async fn start(base: &Base, url: &str) -> Running {
    let node = base.start_on(sessiond_store::open_to_serve(url).await.unwrap(), Clock::system()).await;
    tokio::time::timeout(SLACK, node.gate.lease().begun()).await.expect("a node gets a lease");
    node
}

/// Names of sessions that were acknowledged, and of those of which nobody said what became of them.
#[derive(Default)]
struct Said {
    acknowledged: Vec<String>,
    open: BTreeSet<String>,
    last: Option<Instant>,
}

/// Connects one session after the other, for as long as it is let.
async fn write(node: &Running, name: String, said: &Mutex<Said>) {
    for one in 0.. {
        let name = format!("{name}/{one}");
        let opens = Opens { token_identifier: Some(name.clone()), ..Opens::default() };
        match node.connect(&opens).await {
            Ok(_) => {
                let mut said = said.lock().unwrap();
                said.acknowledged.push(name);
                said.last = Some(Instant::now());
            }
            // Nothing was written.
            Err(Error::Busy) => sleep(Duration::from_millis(10)).await,
            Err(Error::Internal(what)) if what.contains("nobody knows") => {
                said.lock().unwrap().open.insert(name);
            }
            Err(error) => panic!("{error:?}"),
        }
    }
}

/// Writes on two nodes while the primary is lost and the standby takes its place, so much later; then looks at what is there.
async fn fail_over(pair: Pair, url: &str, lose: impl FnOnce(&Pair), later: Duration, back: Duration) {
    let base = Base::new();
    let nodes = [start(&base, url).await, start(&base, url).await];
    nodes[0].found().await;
    let said = Mutex::<Said>::default();
    let writing = (0..8).map(|one| write(&nodes[one % 2], one.to_string(), &said));
    let failing = async {
        sleep(Duration::from_millis(300)).await;
        until_written(&said, None).await;
        lose(&pair);
        sleep(later).await;
        pair.promote().await;
        let promoted = Instant::now();
        let written = until_written(&said, Some(promoted));
        tokio::time::timeout(back, written).await.expect("something is written before long");
        // Both write, and follow one another.
        let until = promoted + back + SLACK;
        for (node, other) in [(&nodes[0], &nodes[1]), (&nodes[1], &nodes[0])] {
            let session = loop {
                assert!(Instant::now() < until, "one of the nodes does not write");
                if let Ok(session) = node.connect(&Opens::default()).await {
                    break session;
                }
            };
            while other.gate.known().session(session.number).is_none() {
                assert!(Instant::now() < until, "one of the nodes does not follow");
                sleep(Duration::from_millis(10)).await;
            }
        }
    };
    tokio::select! {
        _ = join_all(writing) => unreachable!("it goes on until it is let go"),
        () = failing => {}
    }
    for node in nodes {
        node.stop().await;
    }
    is_whole(&pair, &said.into_inner().unwrap()).await;
}

/// Waits until something was acknowledged, after a moment where one is named.
async fn until_written(said: &Mutex<Said>, after: Option<Instant>) {
    while said.lock().unwrap().last.is_none_or(|last| after.is_some_and(|after| last <= after)) {
        sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_acknowledged_is_lost_when_the_primary_is_killed_and_writing_goes_on_at_the_standby() {
    for round in 0..rounds(2, 10) {
        let pair = Pair::start().await;
        let (url, later) = (pair.url.clone(), Duration::from_millis(200 * round as u64));
        fail_over(pair, &url, Pair::kill_primary, later, BACK).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_acknowledged_is_lost_when_the_primary_falls_silent_and_writing_goes_on_at_the_standby() {
    for _ in 0..rounds(1, 5) {
        let pair = Pair::start().await;
        let way = Proxy::before(&pair.primary_url()).await;
        let url = pair.url_through(&way);
        let fall_silent = |pair: &Pair| pair.silence_primary(&way);
        // That it is silent is noticed only by waiting in vain.
        fail_over(pair, &url, fall_silent, Duration::from_millis(500), 2 * BACK).await;
    }
}

async fn is_whole(pair: &Pair, said: &Said) {
    let store = sessiond_store::open_to_look(&pair.url).await.unwrap();
    store.verify(&mut |_, _| ()).await.unwrap();
    store.close().await;
    let mut inside = PgConnection::connect(&pair.standby_url()).await.unwrap();
    let sql = "select token_identifier from session_detail where token_identifier is not null";
    let there: Vec<String> = sqlx::query_scalar(sql).fetch_all(&mut inside).await.unwrap();
    inside.close().await.unwrap();
    let names: BTreeSet<_> = there.iter().collect();
    assert_eq!(names.len(), there.len(), "nothing is there twice");
    let lost: Vec<_> = said.acknowledged.iter().filter(|name| !names.contains(name)).collect();
    assert!(lost.is_empty(), "acknowledged and lost: {lost:?}");
}
