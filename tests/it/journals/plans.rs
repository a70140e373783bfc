//! No statement about lines scans a table, however long it has become.

use chrono::TimeDelta;
use futures_util::TryStreamExt;
use sessiond::journals::{Code, Entry, Journal, Level, Marks, Query, Start};

use super::{FIRST, SECOND, Shelf, line, moment};
use crate::store::plans::{overhear, plans, scans};

#[test]
fn no_statement_about_lines_scans_a_table() {
    overhear("journals::plans::no_statement_about_lines_scans_a_table", async |overheard| {
        let shelf = Shelf::new();
        let lines = shelf.open().await;
        // What was prepared to start up may read whole tables.
        overheard.forget();
        for number in 0..20 {
            lines.append(Journal::Lines, FIRST, vec![line(number, "x"), line(number, "y")]).await.unwrap();
            let chunk = Entry::chunk(number, Code::Output, "x");
            lines.append(Journal::Recording, SECOND, vec![chunk]).await.unwrap();
        }
        for start in [None, Some(Start::At(4)), Some(Start::Beyond(4))] {
            for descending in [false, true] {
                let (since, until) = (moment(2).timestamp_micros(), moment(9).timestamp_micros());
                let query = Query {
                    start,
                    since: Some(since),
                    until: Some(until),
                    only: Marks::at_least(Level::Info),
                    limit: 5,
                    descending,
                };
                lines.page(Journal::Lines, FIRST, &query).await.unwrap();
                let download = lines.download(Journal::Lines, FIRST, query);
                download.try_collect::<Vec<_>>().await.unwrap();
            }
        }
        lines.bounds(Journal::Lines, FIRST).await.unwrap();
        lines.forget(shelf.clock.now() + TimeDelta::hours(1)).await.unwrap();
        lines.append(Journal::Lines, SECOND, vec![line(0, "x")]).await.unwrap();
        lines.forget_session(SECOND).await.unwrap();
        lines.append(Journal::Lines, SECOND, vec![line(0, "x")]).await.unwrap();
        lines.shrink_to(0).await.unwrap();
        lines.maintain().await.unwrap();
        let statements = overheard.take();
        lines.stop().await;
        for word in ["into block", "into tail", "delete from block", "block_by_time", "payload"] {
            let heard = statements.iter().any(|sql| sql.contains(word));
            assert!(heard, "{word} was not overheard: {statements:#?}");
        }
        let mut raw = shelf.raw().await;
        // How many pages there are is no table.
        let about_rows = statements.into_iter().filter(|sql| !sql.contains("pragma_page_count"));
        for (sql, step) in plans(&mut raw, about_rows).await {
            assert!(!scans(&step), "{step}: {sql}");
        }
    });
}
