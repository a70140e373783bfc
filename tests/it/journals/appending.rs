//! Positions and times of what is filed, and what is not.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use chrono::TimeDelta;
use futures_util::future::join_all;
use sessiond::error::Error;
use sessiond::journals::{Appended, Code, Entry, Journal, Journals, LARGEST_APPEND, LARGEST_ENTRY, Level};
use sessiond_core::ids::SessionNumber;
use tokio::sync::Mutex;

use super::{Dice, FIRST, SECOND, Shelf, line, lines, moment, texts, whole};

const LINES: Journal = Journal::Lines;
const RECORDING: Journal = Journal::Recording;

/// What was acknowledged of each journal: where, and what it was.
type Acknowledged = BTreeMap<(Journal, SessionNumber), Vec<(Appended, Vec<Vec<u8>>)>>;

async fn append_at_random(task: u64, lines: Journals, acknowledged: Arc<Mutex<Acknowledged>>) {
    let mut dice = Dice(task);
    for turn in 0..30 {
        let (journal, session) = (Journal::ALL[dice.below(2) as usize], SessionNumber(dice.below(4) as i64));
        let entries: Vec<Entry> = (0..=dice.below(40))
            .map(|number| {
                let text = format!("{task}/{turn}/{number} {}", "x".repeat(dice.below(2_000) as usize));
                match journal {
                    LINES => line(0, text),
                    RECORDING => Entry::chunk(0, Code::Output, text),
                }
            })
            .collect();
        let contents = entries.iter().map(|entry| entry.bytes().to_vec()).collect();
        let appended = lines.append(journal, session, entries).await.unwrap();
        acknowledged.lock().await.entry((journal, session)).or_default().push((appended, contents));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn appends_of_many_tasks_get_positions_without_gaps_and_each_entry_stands_where_it_was_said_to() {
    let shelf = Shelf::new();
    let lines = shelf.open().await;
    let acknowledged = Arc::new(Mutex::new(Acknowledged::new()));
    join_all((0..16).map(|task| append_at_random(task, lines.clone(), acknowledged.clone()))).await;
    let mut acknowledged = std::mem::take(&mut *acknowledged.lock().await);
    assert_eq!(acknowledged.len(), 8, "two journals of four sessions");
    for ((journal, session), appends) in &mut acknowledged {
        appends.sort_by_key(|(appended, _)| appended.first);
        let filed = whole(&lines, *journal, *session).await;
        let mut next = 1;
        for (appended, contents) in appends {
            assert_eq!(appended.first, next, "no gap and no overlap");
            assert_eq!(appended.last, next + contents.len() as i64 - 1);
            for content in contents {
                let found = &filed[next as usize - 1];
                assert_eq!((found.position, found.entry.bytes()), (next, content.as_slice()));
                next += 1;
            }
        }
        assert_eq!(filed.len() as i64, next - 1);
        let bounds = lines.bounds(*journal, *session).await.unwrap();
        assert_eq!((bounds.first, bounds.last, bounds.count()), (1, next - 1, filed.len() as u64));
    }
    lines.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_for_one_session_is_merged_into_few_blocks() {
    let shelf = Shelf::new();
    let lines = shelf.open().await;
    // While somebody else writes, everything waits.
    let mut other = shelf.raw().await;
    sqlx::query("begin immediate").execute(&mut other).await.unwrap();
    let waiting = join_all((0..500).map(|number| {
        let lines = lines.clone();
        async move { lines.append(LINES, FIRST, vec![line(0, format!("line {number}"))]).await }
    }));
    let release = async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        sqlx::query("rollback").execute(&mut other).await.unwrap();
    };
    let (appended, ()) = tokio::join!(waiting, release);
    assert!(appended.iter().all(Result::is_ok));
    let blocks: i64 = sqlx::query_scalar("select count(*) from block").fetch_one(&mut other).await.unwrap();
    assert!(blocks <= 10, "{blocks} blocks for 500 lines that waited together");
    assert_eq!(whole(&lines, LINES, FIRST).await.len(), 500);
    lines.stop().await;
}

#[tokio::test]
async fn entries_of_one_append_are_sorted_by_time_and_those_of_the_same_time_keep_their_order() {
    let shelf = Shelf::new();
    let lines = shelf.open().await;
    let entries = vec![line(20, "c"), line(10, "a"), line(20, "d"), line(10, "b")];
    let appended = lines.append(LINES, FIRST, entries).await.unwrap();
    assert_eq!(appended, Appended { first: 1, last: 4, moved: 0 }, "sorting moves no time");
    let filed = whole(&lines, LINES, FIRST).await;
    let found: Vec<_> = filed.iter().map(|filed| (filed.entry.time(), filed.entry.bytes())).collect();
    let expected: [(_, &[u8]); 4] =
        [(moment(10), b"a"), (moment(10), b"b"), (moment(20), b"c"), (moment(20), b"d")];
    assert_eq!(found, expected);
    lines.stop().await;
}

#[tokio::test]
async fn an_entry_older_than_the_last_one_filed_gets_that_ones_time_also_after_a_restart() {
    let shelf = Shelf::new();
    let mut lines = shelf.open().await;
    lines.append(LINES, FIRST, vec![line(1_000, "first")]).await.unwrap();
    for restarted in [false, true] {
        if restarted {
            lines.stop().await;
            lines = shelf.open().await;
        }
        let late = vec![line(400, "late"), line(1_000, "now"), line(999, "late too")];
        let appended = lines.append(LINES, FIRST, late).await.unwrap();
        assert_eq!(appended.moved, 2, "the two that were older");
        // Another session's times are its own.
        let appended = lines.append(LINES, SECOND, vec![line(if restarted { 5 } else { 0 }, "x")]).await;
        assert_eq!(appended.unwrap().moved, 0);
    }
    let filed = whole(&lines, LINES, FIRST).await;
    assert!(filed.iter().all(|filed| filed.entry.time() == moment(1_000)), "{filed:?}");
    assert_eq!(filed.len(), 7);
    lines.stop().await;
}

#[tokio::test]
async fn a_clock_that_is_years_ahead_does_not_hold_all_times_after_it() {
    let shelf = Shelf::new();
    let lines = shelf.open().await;
    let now = shelf.clock.now();
    let entries = vec![
        Entry::line(now + TimeDelta::days(4_000), Level::Info, "from the future"),
        Entry::line(now, Level::Info, "from now"),
        Entry::chunk(i64::MAX, Code::Output, "x"),
    ];
    let [future, present, chunk] = <[Entry; 3]>::try_from(entries).unwrap();
    let appended = lines.append(LINES, FIRST, vec![future, present]).await.unwrap();
    assert_eq!(appended.moved, 1);
    let later = shelf.clock.now() + TimeDelta::hours(2);
    let appended = lines.append(LINES, FIRST, vec![Entry::line(later, Level::Info, "a little ahead")]).await;
    assert_eq!(appended.unwrap().moved, 0, "two hours are believed");
    assert_eq!(lines.append(RECORDING, FIRST, vec![chunk]).await.unwrap().moved, 1);
    let filed = whole(&lines, LINES, FIRST).await;
    assert!(filed.iter().all(|filed| filed.entry.time() <= later), "{filed:?}");
    lines.stop().await;
}

#[tokio::test]
async fn positions_go_on_after_a_restart_and_both_journals_have_their_own() {
    let shelf = Shelf::new();
    for round in 0..3 {
        let lines = shelf.open().await;
        let appended = lines.append(LINES, FIRST, super::lines(&["a", "b"])).await.unwrap();
        assert_eq!((appended.first, appended.last), (2 * round + 1, 2 * round + 2));
        let chunk = Entry::chunk(round, Code::Input, [0xff, 0x00, b'\n']);
        assert_eq!(lines.append(RECORDING, FIRST, vec![chunk]).await.unwrap().last, round + 1);
        lines.stop().await;
    }
    let lines = shelf.open().await;
    let chunks = whole(&lines, RECORDING, FIRST).await;
    assert_eq!(chunks[2].entry, Entry::chunk(2, Code::Input, [0xff, 0x00, b'\n']));
    lines.stop().await;
}

#[tokio::test]
async fn what_cannot_be_filed_is_refused_with_the_field_and_nothing_of_it_is_filed() {
    let shelf = Shelf::new();
    let lines = shelf.open().await;
    let largest = line(0, "ü".repeat(LARGEST_ENTRY / 2));
    let many = vec![line(0, "x".repeat(1_000)); LARGEST_APPEND / 1_000];
    for (entries, wrong) in [
        (vec![], "entries"),
        (vec![line(0, "small"), line(0, "x".repeat(LARGEST_ENTRY + 1))], "text"),
        (many, "entries"),
    ] {
        match lines.append(LINES, FIRST, entries).await {
            Err(Error::Invalid { field, .. }) => assert_eq!(field, Some(wrong)),
            other => panic!("{other:?}"),
        }
    }
    let chunk = Entry::chunk(0, Code::Output, "x");
    assert!(matches!(lines.append(LINES, FIRST, vec![chunk]).await, Err(Error::Internal(_))));
    assert_eq!(lines.bounds(LINES, FIRST).await.unwrap().last, 0);
    assert_eq!(lines.append(LINES, FIRST, vec![largest.clone()]).await.unwrap().last, 1);
    assert_eq!(whole(&lines, LINES, FIRST).await[0].entry, largest);
    lines.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn more_than_may_wait_is_refused_as_busy_and_what_waited_is_filed() {
    let shelf = Shelf::new();
    let lines = shelf.open().await;
    let mut other = shelf.raw().await;
    sqlx::query("begin immediate").execute(&mut other).await.unwrap();
    let large = || vec![line(0, "x".repeat(LARGEST_ENTRY)); 63];
    let waiting: Vec<_> = (0..8)
        .map(|_| {
            let (lines, large) = (lines.clone(), large());
            tokio::spawn(async move { lines.append(LINES, FIRST, large).await })
        })
        .collect();
    // All eight are in once the ninth is refused.
    let mut ninth = 0;
    let refused = loop {
        let outcome = tokio::time::timeout(Duration::from_millis(20), lines.append(LINES, SECOND, large()));
        match outcome.await {
            Ok(outcome) => break outcome,
            Err(_) => ninth += 1,
        }
        assert!(ninth < 8, "nothing is ever refused");
    };
    assert!(matches!(refused, Err(Error::Busy)), "{refused:?}");
    sqlx::query("rollback").execute(&mut other).await.unwrap();
    let outcomes = join_all(waiting).await;
    let filed = outcomes.iter().filter(|outcome| outcome.as_ref().unwrap().is_ok()).count();
    assert!(filed + ninth >= 8, "{filed} filed");
    assert_eq!(lines.bounds(LINES, FIRST).await.unwrap().last, 63 * filed as i64);
    lines.append(LINES, FIRST, large()).await.unwrap();
    lines.stop().await;
}

#[tokio::test]
async fn a_full_disk_refuses_appends_whole_and_forgetting_makes_room() {
    let shelf = Shelf::new();
    let shelved = shelf.open_with_pages(60).await;
    let mut dice = Dice(7);
    let mut filed = 0;
    loop {
        let entries = (0..4).map(|at| Entry::chunk(at, Code::Output, dice.noise(5_000))).collect();
        match shelved.append(RECORDING, FIRST, entries).await {
            Ok(appended) => filed = appended.last,
            Err(Error::DiskFull) => break,
            Err(other) => panic!("{other:?}"),
        }
        assert!(filed < 1_000, "the disk does not get full");
    }
    assert!(filed >= 4);
    assert_eq!(shelved.bounds(RECORDING, FIRST).await.unwrap().last, filed);
    assert_eq!(whole(&shelved, RECORDING, FIRST).await.len() as i64, filed, "reading goes on");
    let refused = vec![Entry::chunk(0, Code::Output, dice.noise(60_000)); 2];
    assert!(matches!(shelved.append(RECORDING, SECOND, refused).await, Err(Error::DiskFull)));
    assert_eq!(shelved.bounds(RECORDING, SECOND).await.unwrap().last, 0, "nothing of it");
    assert!(shelved.fault().is_none(), "a full disk closes nothing");
    shelved.shrink_to(100_000).await.unwrap();
    let appended = shelved.append(RECORDING, FIRST, vec![Entry::chunk(9, Code::Output, "on")]).await.unwrap();
    assert_eq!(appended.first, filed + 1, "what was refused took no positions");
    shelved.stop().await;
}

#[tokio::test]
async fn what_waits_when_it_is_told_to_stop_is_filed_and_later_appends_are_refused() {
    let shelf = Shelf::new();
    let shelved = shelf.open().await;
    let waiting: Vec<_> = (0..50)
        .map(|_| {
            let shelved = shelved.clone();
            tokio::spawn(async move { shelved.append(LINES, FIRST, lines(&["x"])).await })
        })
        .collect();
    tokio::task::yield_now().await;
    shelved.stop().await;
    let outcomes = join_all(waiting).await;
    let filed = outcomes.iter().filter(|outcome| outcome.as_ref().unwrap().is_ok()).count();
    assert!(filed > 0);
    assert!(matches!(shelved.append(LINES, FIRST, lines(&["late"])).await, Err(Error::Busy)));
    assert!(!shelf.directory.path().join("sessiond.db.lines-wal").exists(), "closed in order");
    let shelved = shelf.open().await;
    let page = shelved.page(LINES, FIRST, &Default::default()).await.unwrap();
    assert_eq!(texts(&page), vec!["x"; filed], "as many as were acknowledged");
    shelved.stop().await;
}
