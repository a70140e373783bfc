//! Several nodes on one PostgreSQL, each with a committer and a Gate of its own.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use sessiond::clock::Clock;
use sessiond::committer::{EndSessions, SessionEnd};
use sessiond_core::ending::Ending;
use sessiond_core::filter::Filter;
use sessiond_core::ids::SessionNumber;
use sessiond_core::reason::Reason;
use sessiond_core::revocation::Acknowledged;
use sessiond_core::session::Refusal;

use super::base::{Base, Opens, Running, by_account};
use super::disk::operator;
use crate::support::postgres::Database;

/// A lease, and what it may take to notice that it has run out.
const LEASE: Duration = Duration::from_secs(2);
const SLACK: Duration = Duration::from_secs(8);

/// Nodes on a database of their own.
struct Cluster {
    base: Base,
    database: Database,
    nodes: Vec<Running>,
}

impl Cluster {
    /// So many nodes, and an organization.
    async fn of(count: usize) -> Self {
        let mut cluster = Self { base: Base::new(), database: Database::new(), nodes: vec![] };
        for _ in 0..count {
            cluster.start().await;
        }
        cluster.nodes[0].found().await;
        cluster
    }

    async fn start(&mut self) {
        let open = sessiond_store::open_to_serve(&self.database.url).await.unwrap();
        let node = self.base.start_on(open, Clock::system()).await;
        tokio::time::timeout(SLACK, node.gate.lease().begun()).await.expect("a node gets a lease");
        self.nodes.push(node);
    }

    /// Waits until every node has applied what any of them has.
    async fn settle(&self) {
        let last = self.nodes.iter().map(|node| *node.applied.commit().borrow()).max().unwrap();
        for node in &self.nodes {
            let mut commit = node.applied.commit();
            tokio::time::timeout(SLACK, commit.wait_for(|commit| *commit >= last)).await.unwrap().unwrap();
        }
    }

    async fn is_sound(&self) {
        let store = sessiond_store::open_to_look(&self.database.url).await.unwrap();
        store.verify(&mut |_, _| ()).await.unwrap();
        store.close().await;
    }
}

/// Ends a session, and waits until that is true everywhere.
async fn end(node: &Running, number: SessionNumber) -> Acknowledged {
    let ends = vec![(number, SessionEnd::Disconnect(Reason::Terminated))];
    let ending = EndSessions { ends, revocation: None };
    node.committer.submit(by_account(), ending).await.unwrap().landed().await
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_one_node_commits_the_others_know_and_decide_on() {
    let cluster = Cluster::of(3).await;
    let [one, two, three] = &cluster.nodes[..] else { panic!() };
    let mut numbers = vec![];
    for round in 0..40 {
        let node = [one, two, three][round % 3];
        numbers.push(node.open().await.number);
        let next = [two, three, one][round % 3];
        // A decision is taken on the whole truth, whoever wrote it, and however soon after.
        next.record(numbers[round], 1).await;
        if round % 4 == 3 {
            three.disconnect(numbers[round - 1], Reason::Terminated).await;
        }
        if round % 10 == 9 {
            let revocation =
                two.begin(Filter { session: Some(numbers[round]), ..Filter::default() }, Reason::Revoked);
            let revocation = revocation.await.unwrap();
            assert_eq!(one.carry_out(&revocation).await, 1, "another node carries it out");
        }
    }
    assert_eq!(numbers.iter().collect::<BTreeSet<_>>().len(), numbers.len(), "each number is given out once");
    cluster.settle().await;
    let now = one.now();
    for other in [two, three] {
        assert_eq!(one.gate.known_at(now).differences(&other.gate.known_at(now)), [""; 0]);
    }
    cluster.is_sound().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_ended_on_one_node_is_over_on_all_when_that_is_answered() {
    let cluster = Cluster::of(3).await;
    for round in 0..30 {
        let (node, others) = (&cluster.nodes[round % 3], [(round + 1) % 3, (round + 2) % 3]);
        let session = node.open().await;
        cluster.settle().await;
        let passes: Vec<_> = others
            .iter()
            .map(|other| &cluster.nodes[*other])
            .map(|other| other.gate.enter(&operator(other), session.number, other.now()).unwrap())
            .collect();
        // Whoever is cut off lets go, as a stream does.
        let landing = passes.into_iter().map(|pass| {
            tokio::spawn(async move {
                let ending = pass.ended().await;
                assert_eq!(ending, Ending::Session(Reason::Terminated));
                Instant::now()
            })
        });
        let landing: Vec<_> = landing.collect();
        let answered = end(node, session.number).await;
        let at = Instant::now();
        assert_eq!(answered, Acknowledged { asked: 3, acknowledged: 3, expired: 0 });
        for landed in join_all(landing).await {
            assert!(landed.unwrap() <= at, "what was open had let go before the answer");
        }
        for other in others.map(|other| &cluster.nodes[other]) {
            assert!(other.gate.enter(&operator(other), session.number, other.now()).is_err());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_hears_nothing_lets_nobody_in_by_the_time_an_end_is_answered_elsewhere() {
    let cluster = Cluster::of(2).await;
    let [one, two] = &cluster.nodes[..] else { panic!() };
    let (ends, stays) = (one.open().await, one.open().await);
    cluster.settle().await;
    let pass = two.gate.enter(&operator(two), stays.number, two.now()).unwrap();
    two.node.as_ref().unwrap().living.abort();
    let begun = Instant::now();
    let answered = end(one, ends.number).await;
    assert_eq!(answered, Acknowledged { asked: 2, acknowledged: 1, expired: 1 });
    assert!(begun.elapsed() < LEASE + SLACK, "{:?}", begun.elapsed());
    let refused = two.gate.enter(&operator(two), ends.number, two.now()).err();
    assert_eq!(
        refused,
        Some(Refusal::Lapsed),
        "it does not know that the session has ended, but lets nobody in"
    );
    assert_eq!(pass.ending(), Some(Ending::Lapsed), "nor does it go on with what was open");
    assert!(one.gate.known().session(stays.number).is_some(), "no session ends by that");
    // Of a node that is known to let nobody in nobody waits.
    let begun = Instant::now();
    assert_eq!(end(one, stays.number).await, Acknowledged { asked: 1, acknowledged: 1, expired: 0 });
    assert!(begun.elapsed() < SLACK);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_starts_while_others_write_knows_what_they_know() {
    let mut cluster = Cluster::of(1).await;
    for _ in 0..3 {
        let writer = &cluster.nodes[0];
        let numbers = join_all((0..200).map(|_| writer.open())).await;
        let ending = async {
            for session in &numbers {
                end(writer, session.number).await;
                writer.open().await;
            }
        };
        let open = async {
            let open = sessiond_store::open_to_serve(&cluster.database.url).await.unwrap();
            cluster.base.start_on(open, Clock::system()).await
        };
        let ((), node) = tokio::join!(ending, open);
        tokio::time::timeout(SLACK, node.gate.lease().begun()).await.expect("a node gets a lease");
        cluster.nodes.push(node);
        cluster.settle().await;
        let (one, other) = (&cluster.nodes[0], cluster.nodes.last().unwrap());
        let now = one.now();
        assert_eq!(one.gate.known_at(now).differences(&other.gate.known_at(now)), [""; 0]);
    }
    cluster.is_sound().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_who_come_with_one_key_on_all_nodes_at_once_one_session_is_made() {
    let cluster = Cluster::of(3).await;
    for round in 0..5 {
        let opens =
            Opens { subject: "ada", client_session_id: Some(format!("desk-{round}")), ..Opens::default() };
        let connects = (0..60).map(|one| cluster.nodes[one % 3].connect(&opens));
        let numbers: BTreeSet<_> =
            join_all(connects).await.into_iter().map(|one| one.unwrap().number).collect();
        assert_eq!(numbers.len(), 1, "{numbers:?}");
    }
    cluster.settle().await;
    cluster.is_sound().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_by_a_node_that_is_killed_is_there_and_nothing_twice() {
    let mut cluster = Cluster::of(2).await;
    let mut count = 0;
    for _ in 0..5 {
        let killed = cluster.nodes.pop().unwrap();
        let acknowledged = Mutex::new(vec![]);
        let open = || async {
            let session = killed.connect(&Opens::default()).await.unwrap();
            acknowledged.lock().unwrap().push(session.number);
        };
        let opening = join_all((0..2_000).map(|_| open()));
        // On a machine whose cores are taken the first of them may take a while.
        let begun = async {
            while acknowledged.lock().unwrap().is_empty() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        tokio::select! {
            _ = opening => {}
            () = begun => {}
        }
        killed.crash().await;
        let one = &cluster.nodes[0];
        // The turn of the one that was killed is over when the server has noticed.
        let there = one.open().await;
        let acknowledged = acknowledged.into_inner().unwrap();
        count += acknowledged.len();
        for number in acknowledged {
            assert!(one.gate.known().session(number).is_some(), "it was acknowledged");
            assert!(number < there.number);
        }
        cluster.start().await;
    }
    assert!(count >= 5, "something was acknowledged before each kill");
    cluster.settle().await;
    cluster.is_sound().await;
}
