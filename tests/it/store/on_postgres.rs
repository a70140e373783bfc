//! A store in a database of a PostgreSQL server keeps what any store has to keep.

use futures_util::FutureExt;
use futures_util::future::LocalBoxFuture;
use sessiond_core::filter::Filter;
use sessiond_core::ids::{ApplicationNumber, SessionNumber};
use sessiond_store::check::{Fault, Report};
use sessiond_store::{Contents, Open, OpenJournals};

use super::conformance::{self, Place};
use crate::support::postgres::Database;

impl Place for Database {
    fn look(&self) -> LocalBoxFuture<'_, Contents> {
        async { sessiond_store::look(&self.url).await.unwrap() }.boxed_local()
    }

    fn open(&self) -> LocalBoxFuture<'_, Open> {
        async { sessiond_store::open(&self.url).await.unwrap() }.boxed_local()
    }

    fn open_journals(&self) -> LocalBoxFuture<'_, OpenJournals> {
        async { sessiond_store::open_journals(&self.url).await.unwrap() }.boxed_local()
    }

    fn rebuild(&self) -> LocalBoxFuture<'_, Result<Report, Fault>> {
        async { sessiond_store::rebuild(&self.url, &mut |_, _| ()).await }.boxed_local()
    }
}

#[tokio::test]
async fn the_store_in_postgresql_keeps_what_any_store_has_to_keep() {
    conformance::keep(|| Box::new(Database::new())).await;
}

#[test]
fn a_filter_begins_with_its_application_because_an_index_is_on_the_beginning_of_its_text() {
    let application = Some(ApplicationNumber(7));
    let filters = [
        Filter { application, ..Filter::default() },
        Filter {
            application,
            session: Some(SessionNumber(3)),
            hostname: Some("desk".into()),
            ..Filter::default()
        },
    ];
    for filter in filters {
        let text = serde_json::to_string(&filter).unwrap();
        assert!(text.starts_with("{\"application\":7,") || text == "{\"application\":7}", "{text}");
    }
}
