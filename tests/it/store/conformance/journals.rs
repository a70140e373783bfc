//! Journals.

use sessiond_core::ids::SessionNumber;
use sessiond_core::journal::{Entry, Journal, Level, Marks};
use sessiond_store::block::{Block, Packer, Run};
use sessiond_store::{Bounds, Forget, Forgotten, JournalReader, OpenJournals, Stretch, Tail};

use super::Place;
use super::author::moment;

const ONE: SessionNumber = SessionNumber(1);
const OTHER: SessionNumber = SessionNumber(2);

/// Two lines, as one block that begins at a position and was recorded at a time.
fn block(session: SessionNumber, first: i64, level: Level, recorded: i64) -> Block {
    let line = |at| Entry::line(moment(10 * (first + at)), level, format!("line {}", first + at));
    let run = Run { journal: Journal::Lines, session, first, entries: vec![line(0), line(1)] };
    let mut blocks = Vec::new();
    Packer::new().unwrap().pack(&run, moment(recorded), &mut blocks).unwrap();
    blocks.remove(0)
}

/// Three blocks of one session and two of another.
async fn filled(place: &dyn Place) -> (Vec<Block>, OpenJournals) {
    let mut open = place.open_journals().await;
    let blocks = vec![
        block(ONE, 1, Level::Info, 1),
        block(OTHER, 1, Level::Info, 2),
        block(ONE, 3, Level::Error, 3),
        block(OTHER, 3, Level::Info, 4),
        block(ONE, 5, Level::Info, 5),
    ];
    open.writer.commit(&blocks[..2]).await.unwrap();
    open.writer.commit(&blocks[2..]).await.unwrap();
    open.writer.maintain().await.unwrap();
    (blocks, open)
}

pub async fn going_on(place: &dyn Place) {
    let mut open = place.open_journals().await;
    assert_eq!(open.writer.last_recorded_at().await.unwrap(), None);
    assert_eq!(open.writer.tails(&[(Journal::Lines, ONE)]).await.unwrap(), [Tail::EMPTY]);
    let nothing = Bounds { first: 1, last: 0 };
    assert_eq!(open.reader.bounds(Journal::Lines, ONE).await.unwrap(), nothing);
    open.reader.close().await;
    open.writer.close().await.unwrap();

    let (blocks, open) = filled(place).await;
    drop(open);
    let OpenJournals { mut writer, reader } = place.open_journals().await;
    assert_eq!(writer.last_recorded_at().await.unwrap(), Some(moment(5)));
    let asked = [(Journal::Lines, OTHER), (Journal::Recording, ONE), (Journal::Lines, ONE)];
    let tails = writer.tails(&asked).await.unwrap();
    let tail = |block: &Block| Tail { last: block.last(), at: block.high };
    assert_eq!(tails, [tail(&blocks[3]), Tail::EMPTY, tail(&blocks[4])]);
    assert_eq!(reader.bounds(Journal::Lines, ONE).await.unwrap(), Bounds { first: 1, last: 6 });
    assert!(reader.used_bytes().await.unwrap() > 0);
    assert!(!reader.maintain().await.unwrap().is_empty());
    // A block whose place is taken takes those with it that are written beside it.
    let both = [block(OTHER, 5, Level::Info, 6), block(ONE, 5, Level::Info, 6)];
    assert!(writer.commit(&both).await.is_err());
    assert_eq!(reader.bounds(Journal::Lines, OTHER).await.unwrap(), Bounds { first: 1, last: 4 });
    reader.close().await;
    writer.close().await.unwrap();
}

pub async fn reading(place: &dyn Place) {
    let (blocks, OpenJournals { reader, writer: _writer }) = filled(place).await;
    let all = Stretch {
        journal: Journal::Lines,
        session: ONE,
        from: 1,
        to: i64::MAX,
        marks: Marks::ALL,
        descending: false,
        blocks: 9,
    };
    let own = [&blocks[0], &blocks[2], &blocks[4]];
    let read = async |stretch: &Stretch| -> Vec<i64> {
        let found = reader.blocks(stretch).await.unwrap();
        let same = |block: &Block| own.contains(&block);
        assert!(found.iter().all(same), "{found:?}");
        found.iter().map(|block| block.first).collect()
    };
    assert_eq!(read(&all).await, [1, 3, 5]);
    assert_eq!(read(&Stretch { descending: true, ..all.clone() }).await, [5, 3, 1]);
    assert_eq!(read(&Stretch { from: 2, to: 3, ..all.clone() }).await, [1, 3]);
    assert_eq!(read(&Stretch { from: 4, to: 4, descending: true, ..all.clone() }).await, [3]);
    assert_eq!(read(&Stretch { blocks: 2, ..all.clone() }).await, [1, 3]);
    assert_eq!(read(&Stretch { blocks: 2, descending: true, ..all.clone() }).await, [5, 3]);
    let errors = Marks::at_least(Level::Error);
    assert_eq!(read(&Stretch { marks: errors, ..all.clone() }).await, [3]);
    assert!(read(&Stretch { from: 7, ..all.clone() }).await.is_empty());
    assert!(read(&Stretch { journal: Journal::Recording, ..all.clone() }).await.is_empty());
    let at = async |milliseconds| {
        let at = moment(milliseconds).timestamp_micros();
        reader.block_at(Journal::Lines, ONE, at).await.unwrap()
    };
    assert_eq!(at(0).await, Some((1, 2)));
    assert_eq!(at(20).await, Some((1, 2)));
    assert_eq!(at(21).await, Some((3, 4)));
    assert_eq!(at(61).await, None);
}

async fn bounds(reader: &dyn JournalReader, session: SessionNumber) -> (i64, i64) {
    let Bounds { first, last } = reader.bounds(Journal::Lines, session).await.unwrap();
    (first, last)
}

pub async fn forgetting(place: &dyn Place) {
    let (_, OpenJournals { mut writer, reader }) = filled(place).await;
    let reader = reader.as_ref();
    let mut forget = async |forget: Forget| {
        let (mut blocks, mut entries) = (0, 0);
        loop {
            let some = writer.forget(forget.clone()).await.unwrap();
            if some.blocks == 0 {
                while writer.give_back().await.unwrap() {}
                return (blocks, entries);
            }
            blocks += some.blocks;
            entries += some.entries;
        }
    };
    assert_eq!(forget(Forget::Before(moment(1))).await, (0, 0));
    assert_eq!(forget(Forget::Before(moment(3))).await, (2, 4));
    assert_eq!((bounds(reader, ONE).await, bounds(reader, OTHER).await), ((3, 6), (3, 4)));
    assert_eq!(forget(Forget::Session(ONE)).await, (2, 4));
    assert_eq!((bounds(reader, ONE).await, bounds(reader, OTHER).await), ((7, 6), (3, 4)));
    assert_eq!(forget(Forget::ShrinkTo(u64::MAX)).await, (0, 0));
    assert_eq!(forget(Forget::ShrinkTo(0)).await, (1, 2));
    assert_eq!(bounds(reader, OTHER).await, (5, 4));
    // Positions and times go on from where they were.
    let [tail] = writer.tails(&[(Journal::Lines, ONE)]).await.unwrap()[..] else { panic!() };
    assert_eq!((tail.last, tail.at), (6, moment(60).timestamp_micros()));
    writer.commit(&[block(ONE, 7, Level::Info, 9)]).await.unwrap();
    assert_eq!(bounds(reader, ONE).await, (7, 8));

    // What is old is found, and by name it goes too; of what was let go nothing stays.
    assert!(reader.old_blocks(0, moment(9), 9).await.unwrap().is_empty());
    let [(number, ONE)] = reader.old_blocks(0, moment(10), 9).await.unwrap()[..] else { panic!() };
    assert!(reader.old_blocks(number, moment(10), 9).await.unwrap().is_empty());
    let gone = writer.forget(Forget::Blocks([number].into())).await.unwrap();
    assert_eq!((gone.blocks, gone.entries), (1, 2));
    assert_eq!(bounds(reader, ONE).await, (9, 8));
    writer.commit(&[block(ONE, 9, Level::Info, 10)]).await.unwrap();
    let let_go = Forget::LetGo([ONE].into());
    assert_eq!(writer.forget(let_go.clone()).await.unwrap().entries, 2);
    assert_eq!(writer.forget(let_go).await.unwrap(), Forgotten::default());
    assert_eq!(writer.tails(&[(Journal::Lines, ONE)]).await.unwrap(), [Tail::EMPTY]);
}
