//! A pooler between sessiond and PostgreSQL: one that hands out another connection for each transaction is refused, and one
//! that keeps a connection for its client is as good as none.

use std::time::Duration;

use sessiond::clock::Clock;
use sessiond::committer::{EndSessions, SessionEnd};
use sessiond_core::reason::Reason;
use sessiond_core::revocation::Acknowledged;
use sqlx::{Connection, PgConnection};

use super::base::{Base, Running, by_account};
use crate::support::daemon::sessiond;
use crate::support::pooler::Pooler;
use crate::support::postgres::Database;

const SLACK: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread")]
async fn a_pooler_that_hands_out_a_connection_for_each_transaction_is_refused_before_anything_is_set_there() {
    let database = Database::new();
    let pooler = Pooler::before(&database.url, "transaction").await;
    // Others use it too, as in life.
    let mut others = vec![];
    for _ in 0..3 {
        others.push(PgConnection::connect(&pooler.url).await.unwrap());
    }
    for command in ["verify", "rebuild"] {
        let output = sessiond(&[command, "--database", &pooler.url]);
        let told = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success());
        for words in ["pooler", "PgBouncer", "name the server itself", "pool_mode = session"] {
            assert!(told.contains(words), "{command}: {told}");
        }
    }
    for open in [sessiond_store::open(&pooler.url).await, sessiond_store::open_to_serve(&pooler.url).await] {
        let told = open.err().unwrap().to_string();
        assert!(told.contains("there is a pooler before it"), "{told}");
    }
    let told = sessiond_store::open_journals(&pooler.url).await.err().unwrap().to_string();
    assert!(told.contains("there is a pooler before it"), "{told}");
    for other in &mut others {
        let sql =
            "select current_setting('default_transaction_read_only') || current_setting('lock_timeout')";
        let row = sqlx::raw_sql(sql).fetch_one(other).await.unwrap();
        assert_eq!(sqlx::Row::get::<String, _>(&row, 0), "off0", "nobody else has what we would have set");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_a_pooler_that_keeps_a_connection_for_its_client_a_node_hears_and_is_heard() {
    let (base, database) = (Base::new(), Database::new());
    let pooler = Pooler::before(&database.url, "session").await;
    let open = sessiond_store::open_to_serve(&pooler.url).await.unwrap();
    let known = open.nodes.clone().unwrap();
    let behind = base.start_on(open, Clock::system()).await;
    let direct =
        base.start_on(sessiond_store::open_to_serve(&database.url).await.unwrap(), Clock::system()).await;
    for node in [&behind, &direct] {
        tokio::time::timeout(SLACK, node.gate.lease().begun()).await.expect("a node gets a lease");
    }
    behind.found().await;
    let ends_everywhere = async |node: &Running, other: &Running| {
        let session = node.open().await.number;
        let ends = vec![(session, SessionEnd::Disconnect(Reason::Terminated))];
        let ending = EndSessions { ends, revocation: None };
        let answered = node.committer.submit(by_account(), ending).await.unwrap().landed().await;
        assert_eq!(answered, Acknowledged { asked: 2, acknowledged: 2, expired: 0 });
        assert!(other.gate.known().session(session).is_none());
    };
    for _ in 0..5 {
        ends_everywhere(&behind, &direct).await;
        ends_everywhere(&direct, &behind).await;
    }
    let hears = async {
        while !known.hears() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(SLACK, hears).await.expect("a word comes through");
}
