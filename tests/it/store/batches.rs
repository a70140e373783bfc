//! What meets in one batch, and what may go wrong in one: each unit is as if it were alone.

use futures_util::future::join_all;
use sessiond::committer::{Done, Work};
use sessiond::core::Time;
use sessiond::core::command::Command;
use sessiond::core::ids::SessionNumber;
use sessiond::core::reason::Reason;

use super::base::{Base, session_work};

async fn commits(base: &Base) -> i64 {
    let mut raw = base.raw().await;
    sqlx::query_scalar("select count(commit_hash) from event").fetch_one(&mut raw).await.unwrap()
}

#[tokio::test]
async fn goodbyes_that_meet_share_a_transaction() {
    let base = Base::new();
    let running = base.founded().await;
    let sessions = join_all((0..200).map(|_| running.open())).await;
    let before = commits(&base).await;
    let goodbye = |number: SessionNumber| {
        let items = vec![(number, Command::Disconnect { reason: Reason::Client })];
        running.submit(Work::Bulk { items, revocation: None })
    };
    let outcomes = join_all(sessions.iter().map(|session| goodbye(session.number))).await;
    assert!(outcomes.iter().all(|outcome| matches!(outcome, Ok(Done::Bulk(1)))));
    let taken = commits(&base).await - before;
    assert!(taken < 50, "200 goodbyes took {taken} transactions");
    running.stop().await;
    base.verify().await.unwrap();
}

#[tokio::test]
async fn a_decision_that_panics_fails_alone() {
    let base = Base::new();
    let running = base.founded().await;
    let session = running.open().await;
    // A time beyond the calendar: adding the stale timeout to it panics.
    let hostile =
        || session_work(session.number, Command::EndStale { not_before: Time::MAX_UTC, seen_at: None });
    let works = (0..30).map(|index| match index % 10 {
        5 => hostile(),
        _ => running.activity(session.number, 1),
    });
    let outcomes = join_all(works.map(|work| running.submit(work))).await;
    for (index, outcome) in outcomes.iter().enumerate() {
        assert_eq!(outcome.is_err(), index % 10 == 5, "unit {index}: {outcome:?}");
    }
    assert_eq!(running.gate.known().session(session.number).unwrap().total.requests, 27);
    running.stop().await;
    base.verify().await.unwrap();
}
