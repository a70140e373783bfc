//! A disk that is full, and one that has space again.

use std::sync::Arc;
use std::time::Duration;

use chrono::TimeDelta;
use futures_util::future::join_all;
use sessiond::committer::{ChangeApplication, EndSessions, Origin, SessionEnd};
use sessiond::context::AppContext;
use sessiond::error::Error;
use sessiond::nodes::Claims;
use sessiond::secret::SecretKey;
use sessiond::sessions::Sessions;
use sessiond::telling::Telling;
use sessiond_core::actor::{Actor, ActorKind};
use sessiond_core::application::ApplicationChanged;
use sessiond_core::caller::{Caller, Credential, CredentialKind};
use sessiond_core::command::Command;
use sessiond_core::filter::Filter;
use sessiond_core::ids::{RevocationNumber, SessionNumber};
use sessiond_core::policy::Policy;
use sessiond_core::reason::Reason;
use sessiond_core::retention::Figures;
use sessiond_core::revocation::Revocation;
use sessiond_core::scope::{Scope, Scopes};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::base::{APPLICATION, Base, ORGANIZATION, Opens, Running};

fn all() -> Filter {
    Filter { application: Some(APPLICATION), ..Filter::default() }
}

/// A committer on a disk without space for anything but what `make_room` gives back.
async fn on_a_full_disk(base: &Base) -> Running {
    base.execute("create table filler (bytes blob)").await;
    base.execute("insert into filler values (zeroblob(1000000))").await;
    let running = base.start_with_pages(1).await;
    // What is left of pages that are begun goes first.
    for _ in 0..200 {
        let opens = Opens::default();
        let outcomes = join_all((0..3).map(|_| running.connect(&opens))).await;
        if outcomes.iter().all(|outcome| matches!(outcome, Err(Error::DiskFull))) {
            return running;
        }
    }
    panic!("the disk does not get full");
}

async fn make_room(base: &Base) {
    base.execute("drop table filler").await;
}

fn unfinished(running: &Running) -> Vec<RevocationNumber> {
    running.gate.known().streams::<Revocation>().map(|one| one.number).collect()
}

#[tokio::test]
async fn a_revocation_that_found_the_disk_full_is_recorded_once_there_is_space() {
    let base = Base::new();
    let running = base.founded().await;
    let session = running.open().await;
    running.open().await;
    running.stop().await;
    let running = on_a_full_disk(&base).await;
    let old = running.owner();
    let covered = running.gate.known().open_sessions() as u64;
    assert!(matches!(running.begin(all(), Reason::Revoked).await, Err(Error::DiskFull)));
    assert!(
        running.gate.enter(&operator(&running), session.number, running.now()).is_err(),
        "denied at once"
    );
    make_room(&base).await;
    for _ in 0..300 {
        if unfinished(&running) == [RevocationNumber(1)] {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(unfinished(&running), [RevocationNumber(1)], "recorded by itself");
    let renew = Command::RenewToken { presented: old };
    assert!(running.command(session.number, renew).await.is_err(), "denied all the while");
    let revocation = running.gate.known().stream::<Revocation>(1).cloned().unwrap();
    assert_eq!(running.carry_out(&revocation).await, covered);
    running.open().await;
    running.stop().await;
    base.verify().await.unwrap();
}

#[tokio::test]
async fn what_is_denied_in_memory_only_leaves_no_trace_in_log_or_rows() {
    let base = Base::new();
    let running = base.founded().await;
    let keyed = Opens { client_session_id: Some("run".into()), ..Opens::default() };
    let session = running.connect(&keyed).await.unwrap();
    running.stop().await;
    let running = on_a_full_disk(&base).await;
    running.begin(all(), Reason::Revoked).await.unwrap_err();
    // Before anything else happens: the committer must not take what it only remembers for what the log says.
    let provisional = running.gate.known().streams::<Revocation>().next().cloned().unwrap();
    make_room(&base).await;
    let numbers = running.gate.known().covered(&provisional);
    let ends = numbers.iter().map(|number| (*number, SessionEnd::Disconnect(Reason::Revoked)));
    let ending = EndSessions { ends: ends.collect(), revocation: Some(provisional.number) };
    running.submit_by(Origin::system(), ending).await.ok();
    let renamed = ApplicationChanged { name: Some("Lamp".into()), description: None };
    running.submit(ChangeApplication { number: APPLICATION, changed: renamed }).await.unwrap();
    assert_ne!(running.connect(&keyed).await.unwrap().number, session.number, "revoked, and back");
    running.stop().await;
    base.verify().await.unwrap();
}

#[tokio::test]
async fn what_was_under_way_is_cut_off_by_a_revocation_that_cannot_be_recorded() {
    let base = Base::new();
    let running = base.founded().await;
    let session = running.open().await;
    running.stop().await;
    let running = on_a_full_disk(&base).await;
    let pass = running.gate.enter(&operator(&running), session.number, running.now()).unwrap();
    running.begin(all(), Reason::Revoked).await.unwrap_err();
    assert_eq!(pass.reason(), Some(Reason::Revoked));
    running.crash().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_that_finds_no_space_midway_says_so_and_goes_on_when_there_is() {
    let base = Base::new();
    let running = base.founded().await;
    join_all((0..300).map(|_| running.open())).await;
    running.stop().await;
    let running = on_a_full_disk(&base).await;
    let key = SecretKey::random();
    let context = AppContext {
        committer: running.committer.clone(),
        gate: running.gate.clone(),
        store: running.reader.clone(),
        clock: running.clock.clone(),
        telling: Telling::new(running.reader.clone(), running.gate.clone()),
        key,
        policy: Policy::default(),
        retention: Figures::default(),
        claims: Claims::default(),
    };
    let revocations = Sessions::new(&Arc::new(context)).revocations;
    let stopping = CancellationToken::new();
    let worker = tokio::spawn({
        let (revocations, stopping) = (revocations.clone(), stopping.clone());
        async move { revocations.run(stopping).await }
    });
    let application = running.gate.known().application_id(APPLICATION);
    let caller = operator(&running);
    let revoked = revocations.revoke_all(&caller, application, None);
    let outcome = tokio::time::timeout(Duration::from_secs(5), revoked).await.expect("it waits for ever");
    assert!(matches!(outcome, Err(Error::DiskFull)), "{outcome:?}");
    assert!(running.gate.enter(&operator(&running), SessionNumber(1), running.now()).is_err());
    make_room(&base).await;
    for _ in 0..500 {
        revocations.wake();
        if running.gate.known().open_sessions() == 0 && revocations.unfinished() == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(running.gate.known().open_sessions(), 0, "it went on by itself");
    stopping.cancel();
    worker.await.unwrap();
    running.stop().await;
    base.verify().await.unwrap();
}

pub fn operator(running: &Running) -> Caller {
    let actor = Actor { kind: ActorKind::ServiceAccount, id: Uuid::nil() };
    Caller {
        organization: ORGANIZATION,
        organization_id: Uuid::nil(),
        actor,
        principal: None,
        scopes: Scopes::default().with(Scope::ManagementAll),
        confined_to: None,
        bound_to: None,
        credential: Credential {
            kind: CredentialKind::Access { token: Uuid::nil(), client: "operations".into(), audience: None },
            issued_at: running.head(),
            expires_at: running.now() + TimeDelta::hours(1),
            barred: false,
        },
        ended: None,
        request_id: None,
        traceparent: None,
        once: None,
    }
}
