//! Pages and downloads, beside a filter that looks at everything.

use futures_util::TryStreamExt;
use proptest::prelude::*;
use sessiond::journals::{Code, Content, Entry, Filed, Journal, Journals, Level, Marks, Page, Query, Start};

use super::{Dice, FIRST, SECOND, Shelf, line, lines, moment, positions, texts, whole};

/// A page or a download, by looking at everything.
fn naive(all: &[Filed], query: &Query) -> Vec<Filed> {
    let mut found: Vec<Filed> = all
        .iter()
        .filter(|Filed { position, entry }| {
            let begun = match (query.start, query.descending) {
                (None, _) => true,
                (Some(Start::At(at)), false) => *position >= at,
                (Some(Start::Beyond(at)), false) => *position > at,
                (Some(Start::At(at)), true) => *position <= at,
                (Some(Start::Beyond(at)), true) => *position < at,
            };
            begun
                && query.since.is_none_or(|since| entry.at >= since)
                && query.until.is_none_or(|until| entry.at < until)
                && query.only.has(entry.mark())
        })
        .cloned()
        .collect();
    if query.descending {
        found.reverse();
    }
    found
}

/// Every page from here on.
async fn pages(lines: &Journals, journal: Journal, query: &Query) -> Vec<Filed> {
    let (mut all, mut query) = (Vec::new(), query.clone());
    loop {
        let page = lines.page(journal, FIRST, &query).await.unwrap();
        assert!(page.entries.len() <= query.limit);
        assert!(!page.more || page.entries.len() == query.limit, "a page is full where there is more");
        all.extend(page.entries);
        if !page.more {
            return all;
        }
        query.start = Some(Start::At(page.next));
    }
}

async fn downloaded(lines: &Journals, journal: Journal, query: &Query) -> Vec<Filed> {
    let pieces: Vec<Page> = lines.download(journal, FIRST, query.clone()).try_collect().await.unwrap();
    pieces.into_iter().flat_map(|piece| piece.entries).collect()
}

/// An append: how long each entry comes after the one before it, its mark and how long it is.
type Batch = Vec<(u16, u8, u16)>;

fn batches() -> impl Strategy<Value = Vec<Batch>> {
    // Many of a moment; some long, so that there are blocks of one entry and blocks of hundreds.
    let entry = (
        prop_oneof![3 => Just(0_u16), 2 => 0..50_u16],
        0..5_u8,
        prop_oneof![4 => 0..40_u16, 1 => 0..20_000_u16],
    );
    prop::collection::vec(prop::collection::vec(entry, 1..60), 1..12)
}

/// A question, in parts of the journal: where to begin, from and until when, of what, how many.
type Asked = (Option<(bool, f64)>, Option<f64>, Option<f64>, u8, usize, bool);

fn questions() -> impl Strategy<Value = Vec<Asked>> {
    let part = || -0.1..1.1_f64;
    let one = (
        prop::option::of((any::<bool>(), part())),
        prop::option::weighted(0.4, part()),
        prop::option::weighted(0.4, part()),
        prop_oneof![2 => Just(0x1f_u8), 1 => 0..0x20_u8],
        1..200_usize,
        any::<bool>(),
    );
    prop::collection::vec(one, 12)
}

fn entry(journal: Journal, at: i64, mark: u8, text: String) -> Entry {
    match journal {
        Journal::Lines => Entry::line(moment(at), Level::ALL[usize::from(mark)], text),
        Journal::Recording => {
            let at = moment(0).timestamp_micros() + at;
            Entry::chunk(at, Code::ALL[usize::from(mark)], text)
        }
    }
}

fn question(all: &[Filed], asked: &Asked) -> Query {
    let (start, since, until, marks, limit, descending) = asked;
    let (first, last) = (all[0].entry.at as f64, all[all.len() - 1].entry.at as f64);
    let time = |part: &f64| (first + (last - first + 1.0) * part) as i64;
    let place = |(at, part): &(bool, f64)| {
        let position = (all.len() as f64 * part) as i64;
        if *at { Start::At(position) } else { Start::Beyond(position) }
    };
    let only = (0..5).filter(|bit| marks & (1 << bit) != 0).fold(Marks::NONE, Marks::with);
    Query {
        start: start.as_ref().map(place),
        since: since.as_ref().map(time),
        until: until.as_ref().map(time),
        only: if *marks == 0x1f { Marks::ALL } else { only },
        limit: *limit,
        descending: *descending,
    }
}

async fn compare(journal: Journal, batches: Vec<Batch>, questions: Vec<Asked>) -> Result<(), TestCaseError> {
    let shelf = Shelf::new();
    let lines = shelf.open().await;
    let (mut all, mut at) = (Vec::new(), 0);
    for batch in batches {
        let mut entries = Vec::new();
        for (after, mark, length) in batch {
            at += i64::from(after);
            let text = format!("{}{}", all.len() + entries.len(), "-".repeat(length.into()));
            entries.push(entry(journal, at, mark, text));
        }
        let expected = (all.len() as i64 + 1..).zip(entries.clone());
        all.extend(expected.map(|(position, entry)| Filed { position, entry }));
        lines.append(journal, FIRST, entries).await.unwrap();
        // Another journal of the same session, and the same of another one, are not in the way.
        let (other, beside) = match journal {
            Journal::Lines => (Journal::Recording, Entry::chunk(0, Code::Output, "beside")),
            Journal::Recording => (Journal::Lines, line(0, "beside")),
        };
        lines.append(other, FIRST, vec![beside]).await.unwrap();
        lines.append(journal, SECOND, vec![entry(journal, at, 1, "beside".into())]).await.unwrap();
    }
    prop_assert_eq!(&whole(&lines, journal, FIRST).await, &all);
    for asked in &questions {
        let query = question(&all, asked);
        let expected = naive(&all, &query);
        prop_assert_eq!(&pages(&lines, journal, &query).await, &expected, "{:?}", query);
        prop_assert_eq!(&downloaded(&lines, journal, &query).await, &expected, "{:?}", query);
    }
    lines.stop().await;
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn pages_by_position_and_time_are_what_a_look_at_everything_finds(
        recording in any::<bool>(), batches in batches(), questions in questions()
    ) {
        let journal = if recording { Journal::Recording } else { Journal::Lines };
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        runtime.block_on(compare(journal, batches, questions))?;
    }
}

#[tokio::test]
async fn whoever_has_read_to_the_end_goes_on_from_there_and_misses_nothing() {
    let shelf = Shelf::new();
    let shelved = shelf.open().await;
    let errors = Query { only: Marks::at_least(Level::Error), ..Query::default() };
    let mut queries = [Query::default(), errors, Query { since: Some(0), ..Query::default() }];
    let mut found = [vec![], vec![], vec![]];
    for round in 0..5 {
        for (query, found) in queries.iter_mut().zip(&mut found) {
            let page = shelved.page(Journal::Lines, FIRST, query).await.unwrap();
            assert!(!page.more);
            assert_eq!(page.next, 3 * round + 1, "all before it was looked at");
            query.start = Some(Start::At(page.next));
            found.extend(positions(&page));
        }
        let loud = Entry::line(moment(0), Level::Error, "loud");
        let mut entries = lines(&["quiet", "quiet"]);
        entries.insert(1, loud);
        shelved.append(Journal::Lines, FIRST, entries).await.unwrap();
    }
    assert_eq!(found[0], (1..=12).collect::<Vec<_>>());
    assert_eq!(found[1], [2, 5, 8, 11]);
    assert_eq!(found[2], found[0]);
    // Whoever is told of a position that is not there yet is not sent back.
    let query = Query { start: Some(Start::Beyond(100)), ..Query::default() };
    let page = shelved.page(Journal::Lines, FIRST, &query).await.unwrap();
    assert_eq!((page.entries.len(), page.next, page.more), (0, 101, false));
    shelved.stop().await;
}

#[tokio::test]
async fn all_of_a_moment_are_found_however_many_blocks_they_are_in() {
    let shelf = Shelf::new();
    let shelved = shelf.open().await;
    for at in [1, 2, 2, 2, 2, 3] {
        shelved.append(Journal::Lines, FIRST, vec![line(at, format!("{at}"))]).await.unwrap();
    }
    let at = |milliseconds| Some(moment(milliseconds).timestamp_micros());
    for descending in [false, true] {
        for (since, until, expected) in [
            (at(2), None, "22223"),
            (at(2), at(3), "2222"),
            (None, at(2), "1"),
            (None, at(3), "12222"),
            (at(3), at(2), ""),
            (at(4), None, ""),
        ] {
            let query = Query { since, until, descending, ..Query::default() };
            let page = shelved.page(Journal::Lines, FIRST, &query).await.unwrap();
            let mut found = texts(&page);
            if descending {
                found.reverse();
            }
            assert_eq!(found.concat(), expected, "{query:?}");
        }
    }
    shelved.stop().await;
}

#[tokio::test]
async fn the_newest_come_first_where_that_is_asked_for_page_by_page() {
    let shelf = Shelf::new();
    let shelved = shelf.open().await;
    for number in 0..7 {
        shelved.append(Journal::Lines, FIRST, vec![line(number, format!("{number}"))]).await.unwrap();
    }
    let mut query = Query { limit: 3, descending: true, ..Query::default() };
    let mut seen = vec![];
    for more in [true, true, false] {
        let page = shelved.page(Journal::Lines, FIRST, &query).await.unwrap();
        assert_eq!(page.more, more);
        query.start = Some(Start::At(page.next));
        seen.push(texts(&page));
    }
    assert_eq!(seen, [vec!["6", "5", "4"], vec!["3", "2", "1"], vec!["0"]]);
    shelved.stop().await;
}

#[tokio::test]
async fn a_page_is_bounded_in_bytes_and_says_that_there_is_more() {
    let shelf = Shelf::new();
    let shelved = shelf.open().await;
    for _ in 0..4 {
        let large = vec![line(0, "x".repeat(64 << 10)); 30];
        shelved.append(Journal::Lines, FIRST, large).await.unwrap();
    }
    let query = Query { limit: 1_000, ..Query::default() };
    let page = shelved.page(Journal::Lines, FIRST, &query).await.unwrap();
    assert!(page.more && (60..70).contains(&page.entries.len()), "{}", page.entries.len());
    assert_eq!(whole(&shelved, Journal::Lines, FIRST).await.len(), 120);
    shelved.stop().await;
}

#[tokio::test]
async fn a_download_goes_on_while_others_append_and_forget() {
    let shelf = Shelf::new();
    let shelved = shelf.open().await;
    let mut dice = Dice(3);
    for number in 0..40 {
        let entry = Entry::chunk(number, Code::Output, dice.noise(40_000));
        shelved.append(Journal::Recording, FIRST, vec![entry]).await.unwrap();
    }
    let mut download = shelved.download(Journal::Recording, FIRST, Query::default());
    let first = download.try_next().await.unwrap().unwrap();
    assert_eq!(positions(&first), [1], "a block at a time");
    // The file shrinks under it, and grows.
    shelved.shrink_to(shelved.used_bytes().await.unwrap() / 2).await.unwrap();
    let kept = shelved.bounds(Journal::Recording, FIRST).await.unwrap().first;
    assert!(kept > 10);
    shelved.append(Journal::Recording, FIRST, vec![Entry::chunk(99, Code::Exit, "0")]).await.unwrap();
    let rest: Vec<Page> = download.try_collect().await.unwrap();
    let rest: Vec<i64> = rest.iter().flat_map(positions).collect();
    assert_eq!(rest, (kept..=41).collect::<Vec<_>>(), "what is left, and what came");
    shelved.stop().await;
}

#[tokio::test]
async fn levels_and_codes_are_told_apart_by_their_words() {
    for level in Level::ALL {
        assert_eq!(Level::from_word(level.word()), Some(level));
    }
    for code in Code::ALL {
        assert_eq!(Code::from_letter(code.letter()), Some(code));
    }
    assert_eq!(Code::ALL.map(Code::letter), ['o', 'i', 'r', 'x', 'm']);
    assert_eq!((Level::from_word("loud"), Code::from_letter('z')), (None, None));
    let shelf = Shelf::new();
    let shelved = shelf.open().await;
    let entries = Code::ALL.into_iter().zip(0..).map(|(code, at)| Entry::chunk(at, code, [])).collect();
    shelved.append(Journal::Recording, FIRST, entries).await.unwrap();
    let query = Query { only: Marks::codes(&[Code::Output, Code::Resize]), ..Query::default() };
    let page = shelved.page(Journal::Recording, FIRST, &query).await.unwrap();
    let codes: Vec<_> = page.entries.iter().map(|filed| filed.entry.content.clone()).collect();
    let [output, resize] = [Code::Output, Code::Resize].map(|code| Content::Chunk { code, bytes: vec![] });
    assert_eq!(codes, [output, resize], "entries may be empty");
    let nothing = Query { only: Marks::NONE, ..Query::default() };
    assert!(shelved.page(Journal::Recording, FIRST, &nothing).await.unwrap().entries.is_empty());
    shelved.stop().await;
}
