//! What is old is forgotten, and what is forgotten leaves no trace but how far it went.

use std::time::Duration;

use chrono::TimeDelta;
use sessiond::journals::{Code, Entry, Journal, Query};
use sessiond_core::ids::SessionNumber;

use super::{Dice, FIRST, SECOND, Shelf, line, lines, moment, texts, whole};

const LINES: Journal = Journal::Lines;
const RECORDING: Journal = Journal::Recording;

#[tokio::test]
async fn what_was_recorded_before_is_forgotten_whoever_said_it_and_the_rest_stays() {
    let shelf = Shelf::new();
    let shelved = shelf.open().await;
    // More blocks than one transaction forgets.
    for number in 0..700 {
        let session = SessionNumber(number % 7);
        shelved.append(LINES, session, vec![line(number, format!("old {number}"))]).await.unwrap();
    }
    shelved.append(RECORDING, FIRST, vec![Entry::chunk(0, Code::Output, "old")]).await.unwrap();
    shelf.clock.turn(TimeDelta::hours(1));
    let between = shelf.clock.now();
    shelf.clock.turn(TimeDelta::hours(1));
    // Old in what it says, new here.
    shelved.append(LINES, FIRST, vec![line(0, "new")]).await.unwrap();
    assert_eq!(shelved.forget(moment(0) - TimeDelta::days(9_000)).await.unwrap().blocks, 0);
    let forgotten = shelved.forget(between).await.unwrap();
    assert_eq!((forgotten.blocks, forgotten.entries), (701, 701));
    let page = shelved.page(LINES, FIRST, &Query::default()).await.unwrap();
    assert_eq!(texts(&page), ["new"]);
    assert_eq!(page.entries[0].position, 101);
    assert_eq!(page.entries[0].entry.time(), moment(694), "times do not fall for what is forgotten either");
    let bounds = shelved.bounds(LINES, FIRST).await.unwrap();
    assert_eq!((bounds.first, bounds.last, bounds.count()), (101, 101, 1));
    let bounds = shelved.bounds(LINES, SECOND).await.unwrap();
    assert_eq!((bounds.first, bounds.last, bounds.count()), (101, 100, 0), "there was something once");
    assert_eq!(shelved.forget(between).await.unwrap().blocks, 0, "nothing is forgotten twice");
    shelved.stop().await;
}

#[tokio::test]
async fn positions_go_on_and_times_do_not_fall_after_all_was_forgotten_also_over_a_restart() {
    let shelf = Shelf::new();
    let mut shelved = shelf.open().await;
    for round in 0..4 {
        let appended = shelved.append(LINES, FIRST, vec![line(500, "a"), line(100, "b")]).await.unwrap();
        let moved = if round == 0 { 0 } else { 1 };
        assert_eq!((appended.first, appended.last, appended.moved), (2 * round + 1, 2 * round + 2, moved));
        shelf.clock.turn(TimeDelta::minutes(1));
        assert_eq!(shelved.forget(shelf.clock.now()).await.unwrap().entries, 2);
        assert!(whole(&shelved, LINES, FIRST).await.is_empty());
        assert_eq!(shelved.bounds(LINES, FIRST).await.unwrap().last, 2 * round + 2);
        if round % 2 == 1 {
            shelved.stop().await;
            shelved = shelf.open().await;
        }
    }
    shelved.stop().await;
}

#[tokio::test]
async fn a_session_is_forgotten_with_both_journals_and_nobody_else_is() {
    let shelf = Shelf::new();
    let shelved = shelf.open().await;
    for _ in 0..300 {
        for session in [FIRST, SECOND] {
            shelved.append(LINES, session, lines(&["a", "b"])).await.unwrap();
        }
    }
    let chunk = Entry::chunk(0, Code::Output, "a secret that was typed");
    shelved.append(RECORDING, FIRST, vec![chunk]).await.unwrap();
    let forgotten = shelved.forget_session(FIRST).await.unwrap();
    assert_eq!((forgotten.blocks, forgotten.entries), (301, 601));
    for journal in Journal::ALL {
        assert!(whole(&shelved, journal, FIRST).await.is_empty());
        assert_eq!(shelved.bounds(journal, FIRST).await.unwrap().count(), 0);
    }
    assert_eq!(whole(&shelved, LINES, SECOND).await.len(), 600);
    assert_eq!(shelved.append(LINES, FIRST, lines(&["more"])).await.unwrap().first, 601);
    shelved.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_file_shrinks_to_a_size_oldest_first_and_the_write_ahead_log_stays_bounded() {
    const MIB: u64 = 1 << 20;
    let shelf = Shelf::new();
    let shelved = shelf.open().await;
    let mut dice = Dice(11);
    let wal = shelf.directory.path().join("sessiond.db.lines-wal");
    let mut longest = 0;
    for _ in 0..40 {
        let entries = (0..60).map(|at| Entry::chunk(at, Code::Output, dice.noise(60_000))).collect();
        shelved.append(RECORDING, FIRST, entries).await.unwrap();
        longest = longest.max(std::fs::metadata(&wal).unwrap().len());
    }
    assert!(longest < 80 * MIB, "{} MiB of WAL for {} MiB", longest / MIB, 40 * 60 * 60_000 / MIB);
    let used = shelved.used_bytes().await.unwrap();
    assert!((135 * MIB..180 * MIB).contains(&used), "{} MiB", used / MIB);
    let forgotten = shelved.shrink_to(20 * MIB).await.unwrap();
    let used = shelved.used_bytes().await.unwrap();
    assert!((19 * MIB..=20 * MIB).contains(&used), "not more than needed: {} KiB", used >> 10);
    let bounds = shelved.bounds(RECORDING, FIRST).await.unwrap();
    assert_eq!((bounds.first, bounds.last), (forgotten.entries as i64 + 1, 2_400), "the newest stay");
    assert_eq!(whole(&shelved, RECORDING, FIRST).await.len() as u64, bounds.count());
    shelved.stop().await;
    let size = std::fs::metadata(shelf.file()).unwrap().len();
    assert!(size < 45 * MIB, "{} MiB of file for {} MiB", size / MIB, used / MIB);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_makes_room_in_the_write_ahead_log_while_others_write() {
    let shelf = Shelf::new();
    let shelved = shelf.open().await;
    let mut dice = Dice(5);
    let mut sizes = vec![];
    for _ in 0..12 {
        for _ in 0..6 {
            let entries = (0..50).map(|at| Entry::chunk(at, Code::Output, dice.noise(60_000))).collect();
            shelved.append(RECORDING, FIRST, entries).await.unwrap();
        }
        sizes.push(shelf.wal_bytes() >> 20);
        shelved.maintain().await.unwrap();
        // Whoever writes next begins the log anew.
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let longest = sizes.iter().max().unwrap();
    assert!(*longest < 45, "{sizes:?} MiB: it is used again");
    shelved.stop().await;
}
