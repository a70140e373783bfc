//! kill -9 in the middle of it.

use std::collections::BTreeSet;
use std::sync::Mutex;

use serde_json::json;
use tempfile::TempDir;

use super::delivering::in_order;
use super::{Answer, FLAGS, Receiver, committed_after, last_of, webhook_to};
use crate::support::{Daemon, store};

#[tokio::test(flavor = "multi_thread")]
async fn everything_arrives_also_when_the_process_is_killed_again_and_again() {
    let directory = TempDir::new().unwrap();
    let url = store::url(directory.path());
    let met = Mutex::new(BTreeSet::new());
    // One of seven fails the first time it comes.
    let receiver = Receiver::that(move |taken, _| {
        let first = met.lock().unwrap().insert(taken.position());
        Answer::Status(if first && taken.position() % 7 == 6 { 500 } else { 200 })
    })
    .await;
    let mut daemon = Daemon::start(directory.path(), &FLAGS);
    let made = webhook_to(&daemon.operator().await, &receiver).await;
    let from = last_of(&url, "webhook_created").await;
    for round in 1..=3 {
        let operator = daemon.operator().await;
        let agents = operator.connect_many(40).await;
        for agent in &agents[..20] {
            assert_eq!(agent.call("disconnect").await.0, 200);
        }
        receiver.until(round * 20).await;
        daemon.kill();
        daemon = Daemon::start(directory.path(), &FLAGS);
    }
    let operator = daemon.operator().await;
    let (_, shown) = operator.get(&made.path).await;
    assert_eq!(shown["webhook"]["enabled"], json!(true));
    let committed = committed_after(&url, from).await;
    // What failed comes again after five seconds.
    receiver.until_that("all that was committed", |_| receiver.positions() == committed).await;
    in_order(&receiver.accepted());
    // Twice came only what was under way, or had just come back, when it was killed.
    let twice = receiver.accepted().len() - committed.len();
    assert!(twice <= 3 * 64, "{twice} came twice");
    assert!(daemon.terminate().success());
}
