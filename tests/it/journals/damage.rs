//! Damage is reported where it is, and nowhere else.

use std::io::{Seek, SeekFrom, Write};

use futures_util::TryStreamExt;
use sessiond::clock::Clock;
use sessiond::error::Error;
use sessiond::journals::{Code, Entry, Journal, Journals, Level, Page, Query, Start};
use sessiond_core::ids::SessionNumber;
use sessiond_store::StoreError;
use sessiond_store::block::{Block, Packer, Run};

use super::{Dice, FIRST, SECOND, Shelf, line, lines, moment, positions, texts};

fn pack(entries: Vec<Entry>) -> Block {
    let run = Run { journal: entries[0].journal(), session: FIRST, first: 7, entries };
    let mut blocks = vec![];
    Packer::new().unwrap().pack(&run, moment(0), &mut blocks).unwrap();
    assert_eq!(blocks.len(), 1);
    blocks.remove(0)
}

fn some_blocks() -> [Block; 2] {
    let levels = Level::ALL.into_iter().zip(0..).map(|(level, at)| Entry::line(moment(at), level, "ünder"));
    let codes = Code::ALL.into_iter().zip(0..).map(|(code, at)| Entry::chunk(at, code, "xyz".repeat(30)));
    [pack(levels.collect()), pack(codes.collect())]
}

fn is_damage(block: &Block) -> bool {
    matches!(block.unpack(), Err(StoreError::Damaged { position: 7, .. }))
}

#[test]
fn a_block_in_which_a_bit_has_flipped_is_damaged_or_says_what_it_said() {
    for block in some_blocks() {
        let entries = block.unpack().unwrap();
        let mut harmless = 0;
        for bit in 0..block.payload.len() * 8 {
            let mut flipped = block.clone();
            flipped.payload[bit / 8] ^= 1 << (bit % 8);
            match flipped.unpack() {
                Ok(read) => {
                    assert_eq!(read, entries);
                    harmless += 1;
                }
                Err(error) => assert!(matches!(error, StoreError::Damaged { .. }), "{error}"),
            }
        }
        assert!(harmless <= 2, "{harmless} bits mean nothing");
    }
}

#[test]
fn a_block_that_is_cut_off_or_noise_or_not_as_its_row_says_is_damaged() {
    let mut dice = Dice(1);
    for block in some_blocks() {
        for length in 0..block.payload.len() {
            assert!(is_damage(&Block { payload: block.payload[..length].to_vec(), ..block.clone() }));
        }
        for _ in 0..2_000 {
            let length = dice.below(200) as usize;
            let mut payload = dice.noise(length);
            // Half of them look like what they are not.
            if dice.below(2) == 0 {
                payload.splice(0..0, block.payload[..7].iter().copied());
            }
            assert!(is_damage(&Block { payload, ..block.clone() }));
        }
        for count in [i64::MIN, -1, 0, 4, 6, 1_000_000, i64::MAX] {
            assert!(is_damage(&Block { count, ..block.clone() }), "{count}");
        }
        for high in [block.high - 1, block.high + 1, i64::MIN, i64::MAX] {
            assert!(is_damage(&Block { high, ..block.clone() }));
        }
        assert!(is_damage(&Block { low: block.low + 1, ..block.clone() }));
    }
    // Lines that are read as a recording would be no damage to see; a recording that is no text is none of lines.
    let [_, recording] = some_blocks();
    let bytes = pack(vec![Entry::chunk(0, Code::Output, [0xff, 0xfe])]);
    assert!(is_damage(&Block { journal: Journal::Lines, ..bytes }));
    assert!(Block { journal: Journal::Lines, ..recording }.unpack().is_ok());
}

#[test]
fn a_block_holds_times_from_one_end_to_the_other() {
    let entries: Vec<_> = [i64::MIN, -1, 0, 1, i64::MAX].map(|at| Entry::chunk(at, Code::Marker, "")).into();
    assert_eq!(pack(entries.clone()).unpack().unwrap(), entries);
    assert!(entries[0].time() < moment(0) && entries[4].time() > moment(0));
}

#[tokio::test]
async fn what_of_a_journal_is_damaged_is_named_and_the_rest_still_reads() {
    let shelf = Shelf::new();
    let shelved = shelf.open().await;
    for number in 0..5 {
        let two = vec![line(number, format!("{number}a")), line(number, format!("{number}b"))];
        shelved.append(Journal::Lines, FIRST, two.clone()).await.unwrap();
        shelved.append(Journal::Lines, SECOND, two).await.unwrap();
    }
    let damaged = "update block set payload = cast(substr(payload, 1, 12) || x'00' || substr(payload, 14) as blob) \
                   where session = 1 and first_position = 5";
    assert_eq!(shelf.execute(damaged).await, 1);
    let page = shelved.page(Journal::Lines, FIRST, &Query::default()).await.unwrap();
    assert_eq!(texts(&page), ["0a", "0b", "1a", "1b", "3a", "3b", "4a", "4b"]);
    assert_eq!(positions(&page), [1, 2, 3, 4, 7, 8, 9, 10]);
    assert_eq!(page.damaged, [(5, 6)]);
    let pieces: Vec<Page> =
        shelved.download(Journal::Lines, FIRST, Query::default()).try_collect().await.unwrap();
    assert_eq!(pieces.iter().flat_map(texts).count(), 8);
    assert_eq!(pieces.iter().flat_map(|piece| piece.damaged.clone()).collect::<Vec<_>>(), [(5, 6)]);
    // Whoever does not ask for it is not told of it.
    for (start, descending, damaged) in [
        (Start::Beyond(6), false, vec![]),
        (Start::At(4), true, vec![]),
        (Start::At(6), false, vec![(6, 6)]),
        (Start::At(5), true, vec![(5, 5)]),
    ] {
        let query = Query { start: Some(start), descending, ..Query::default() };
        assert_eq!(shelved.page(Journal::Lines, FIRST, &query).await.unwrap().damaged, damaged);
    }
    let page = shelved.page(Journal::Lines, SECOND, &Query::default()).await.unwrap();
    assert_eq!((page.entries.len(), page.damaged), (10, vec![]), "another session's is whole");
    assert_eq!(shelved.append(Journal::Lines, FIRST, lines(&["on"])).await.unwrap().first, 11);
    shelved.stop().await;
}

#[tokio::test]
async fn a_row_that_makes_no_sense_is_damage_too() {
    let shelf = Shelf::new();
    let shelved = shelf.open().await;
    for number in 0..3 {
        shelved.append(Journal::Lines, FIRST, vec![line(number, format!("{number}"))]).await.unwrap();
    }
    for count in ["0", "-7", "9223372036854775807"] {
        shelf.execute(&format!("update block set count = {count} where first_position = 2")).await;
        let query = Query { start: Some(Start::At(3)), ..Query::default() };
        let page = shelved.page(Journal::Lines, FIRST, &query).await.unwrap();
        assert_eq!(texts(&page), ["2"], "with {count} entries before it");
        for descending in [false, true] {
            let query = Query { descending, ..Query::default() };
            let outcome = shelved.page(Journal::Lines, FIRST, &query).await;
            let Err(Error::Internal(what)) = outcome else { panic!("{outcome:?}") };
            assert!(what.contains("damaged at position 2"), "{what}");
        }
    }
    shelved.stop().await;
}

/// Overwrites the page of the file where a table or index begins.
async fn spoil(shelf: &Shelf, name: &str) {
    let mut raw = shelf.raw().await;
    let sql = "select rootpage from sqlite_schema where name = ?";
    let page: i64 = sqlx::query_scalar(sql).bind(name).fetch_one(&mut raw).await.unwrap();
    sqlx::query("pragma wal_checkpoint(truncate)").execute(&mut raw).await.unwrap();
    sqlx::Connection::close(raw).await.unwrap();
    let mut file = std::fs::File::options().write(true).open(shelf.file()).unwrap();
    file.seek(SeekFrom::Start((page as u64 - 1) * 4096)).unwrap();
    file.write_all(&[0x5a; 4096]).unwrap();
}

#[tokio::test]
async fn a_damaged_page_closes_the_room_for_those_who_write_and_the_process_goes_on() {
    let shelf = Shelf::new();
    let shelved = shelf.open().await;
    shelved.append(Journal::Lines, FIRST, lines(&["before"])).await.unwrap();
    shelved.stop().await;
    spoil(&shelf, "block_by_time").await;
    let shelved = shelf.open().await;
    assert!(shelved.fault().is_none());
    let outcome = shelved.append(Journal::Lines, FIRST, lines(&["after"])).await;
    assert!(matches!(outcome, Err(Error::Internal(_))), "{outcome:?}");
    assert!(shelved.fault().is_some_and(|what| what.contains("malformed")), "{:?}", shelved.fault());
    for _ in 0..2 {
        let outcome = shelved.append(Journal::Lines, SECOND, lines(&["after"])).await;
        assert!(matches!(outcome, Err(Error::Internal(_))), "{outcome:?}");
        assert!(shelved.forget_session(FIRST).await.is_err());
    }
    let page = shelved.page(Journal::Lines, FIRST, &Query::default()).await.unwrap();
    assert_eq!(texts(&page), ["before"], "what can be read is read");
    shelved.stop().await;
}

#[tokio::test]
async fn a_file_that_is_none_of_ours_is_told_apart_from_one_of_a_newer_release() {
    let shelf = Shelf::new();
    std::fs::write(shelf.file(), "a letter to somebody, quite long and full of words".repeat(100)).unwrap();
    let opened = Journals::open(&shelf.url(), Clock::system()).await;
    assert!(matches!(opened.err(), Some(StoreError::Corrupt(_))));
    let shelf = Shelf::new();
    shelf.open().await.stop().await;
    shelf.execute("insert into _sqlx_migrations values (9999, 'from the future', 0, true, x'00', 0)").await;
    let Err(StoreError::Failed(what)) = Journals::open(&shelf.url(), Clock::system()).await else {
        panic!("it opened")
    };
    assert!(what.contains("newer sessiond"), "{what}");
}

#[tokio::test]
async fn closed_lines_refuse_everything_at_once() {
    let closed = Journals::closed("the cat sat on it".to_owned());
    assert_eq!(closed.fault(), Some("the cat sat on it"));
    let session = SessionNumber(1);
    assert!(matches!(
        closed.append(Journal::Lines, session, lines(&["x"])).await,
        Err(Error::Internal(what)) if what.contains("the cat sat on it")
    ));
    assert!(closed.page(Journal::Lines, session, &Query::default()).await.is_err());
    assert!(closed.bounds(Journal::Lines, session).await.is_err());
    let download = closed.download(Journal::Lines, session, Query::default());
    assert!(download.try_collect::<Vec<_>>().await.is_err());
    assert!(closed.forget(moment(0)).await.is_err());
    assert!(closed.maintain().await.is_err());
    closed.stop().await;
}
