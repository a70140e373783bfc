//! Whatever else goes on in a PostgreSQL server, nodes take no notice: no transaction of others takes part in the order of
//! commits.

use std::time::{Duration, Instant};

use sessiond::clock::Clock;
use sessiond::committer::{EndSessions, SessionEnd};
use sessiond_core::reason::Reason;
use sessiond_core::revocation::Acknowledged;
use sqlx::{Connection, PgConnection};

use super::base::{Base, Running, by_account};
use crate::support::postgres::Database;
use crate::support::rounds;

/// What an end on two nodes takes at the most, however busy the machine is.
const SHORTLY: Duration = Duration::from_secs(2);
const SLACK: Duration = Duration::from_secs(10);

async fn start(base: &Base, url: &str) -> Running {
    let node = base.start_on(sessiond_store::open_to_serve(url).await.unwrap(), Clock::system()).await;
    tokio::time::timeout(SLACK, node.gate.lease().begun()).await.expect("a node gets a lease");
    node
}

/// A transaction that has written, and reads one state of its database, for as long as it is there.
async fn transaction(url: &str) -> PgConnection {
    let mut connection = PgConnection::connect(url).await.unwrap();
    for sql in
        ["begin isolation level repeatable read", "select pg_current_xact_id()", "select from pg_class"]
    {
        sqlx::query(sql).execute(&mut connection).await.unwrap();
    }
    connection
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_of_somebody_else_that_stays_open_delays_no_end_and_hides_no_commit() {
    let (base, database, other) = (Base::new(), Database::new(), Database::new());
    let nodes = [start(&base, &database.url).await, start(&base, &database.url).await];
    nodes[0].found().await;
    let open = [transaction(&other.url).await, transaction(&database.url).await];
    for round in 0..rounds(20, 200) {
        let (node, follower) = (&nodes[round % 2], &nodes[(round + 1) % 2]);
        let begun = Instant::now();
        let session = node.open().await.number;
        let ending =
            EndSessions { ends: vec![(session, SessionEnd::Disconnect(Reason::Revoked))], revocation: None };
        let answered = node.committer.submit(by_account(), ending).await.unwrap().landed().await;
        assert_eq!(answered, Acknowledged { asked: 2, acknowledged: 2, expired: 0 });
        assert!(follower.gate.known().session(session).is_none(), "the other knows, and so not of it");
        assert!(begun.elapsed() < SHORTLY, "{:?}", begun.elapsed());
    }
    for connection in open {
        connection.close().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn where_no_connection_that_listens_lasts_nodes_follow_by_asking_and_ends_are_acknowledged() {
    let (base, database) = (Base::new(), Database::new());
    let (mut nodes, mut known) = (vec![], vec![]);
    for _ in 0..2 {
        let open = sessiond_store::open_to_serve(&database.url).await.unwrap();
        known.push(open.nodes.clone().unwrap());
        let node = base.start_on(open, Clock::system()).await;
        tokio::time::timeout(SLACK, node.gate.lease().begun()).await.expect("a node gets a lease");
        nodes.push(node);
    }
    nodes[0].found().await;
    let ending = async {
        let mut inside = PgConnection::connect(&database.url).await.unwrap();
        let sql = "select count(pg_terminate_backend(pid)) from pg_stat_activity \
                   where datname = current_database() and query ilike 'listen %'";
        loop {
            sqlx::query(sql).execute(&mut inside).await.unwrap();
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let ends = async {
        // The first connections are ended, and those that are made anew too.
        tokio::time::sleep(Duration::from_millis(100)).await;
        let mut unheard = 0;
        for round in 0..10 {
            let (node, follower) = (&nodes[round % 2], &nodes[(round + 1) % 2]);
            unheard += u32::from(!known[(round + 1) % 2].hears());
            let session = node.open().await.number;
            let ends = vec![(session, SessionEnd::Disconnect(Reason::Revoked))];
            let ending = EndSessions { ends, revocation: None };
            let answered = node.committer.submit(by_account(), ending).await.unwrap().landed().await;
            assert_eq!(answered, Acknowledged { asked: 2, acknowledged: 2, expired: 0 });
            assert!(follower.gate.known().session(session).is_none());
        }
        assert!(unheard > 0, "nodes hear all the same");
    };
    tokio::select! {
        () = ending => unreachable!("it goes on until it is let go"),
        () = ends => {}
    }
}
