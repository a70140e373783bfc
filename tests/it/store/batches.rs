//! What meets in one batch, and what may go wrong in one: each unit is as if it were alone.

use chrono::TimeDelta;
use futures_util::FutureExt;
use futures_util::future::join_all;
use sessiond::clock::Clock;
use sessiond::committer::{Answer, EndRevocation, EndSessions, IssueToken, Origin, SessionEnd};
use sessiond::error::Error;
use sessiond_core::Time;
use sessiond_core::actor::ActorKind;
use sessiond_core::command::Command;
use sessiond_core::filter::Filter;
use sessiond_core::ids::{Position, PrincipalNumber, SessionNumber};
use sessiond_core::reason::Reason;
use sessiond_core::scope::{Scope, Scopes};
use sessiond_core::token::AccessToken;
use sessiond_store::{Batch, Principal, SideWrite};
use sqlx::Connection;
use uuid::Uuid;

use super::base::{APPLICATION, Base, ORGANIZATION, Opens, Running};
use super::disk::operator;
use crate::support::Inside;
use crate::support::store::has_no_file;

async fn commits(base: &Base) -> i64 {
    Inside::of(&base.url()).await.number("select count(commit_hash) from event", &[]).await
}

#[tokio::test]
async fn goodbyes_that_meet_share_a_transaction() {
    let base = Base::new();
    let running = base.founded().await;
    let sessions = join_all((0..200).map(|_| running.open())).await;
    let before = commits(&base).await;
    let goodbye = |number: SessionNumber| {
        let ends = vec![(number, SessionEnd::Disconnect(Reason::Client))];
        running.submit(EndSessions { ends, revocation: None })
    };
    let outcomes = join_all(sessions.iter().map(|session| goodbye(session.number))).await;
    assert!(outcomes.iter().all(|outcome| matches!(outcome, Ok(1))));
    let taken = commits(&base).await - before;
    assert!(taken < 50, "200 goodbyes took {taken} transactions");
    running.stop().await;
    base.verify().await.unwrap();
}

#[tokio::test]
async fn a_decision_that_panics_fails_alone() {
    let base = Base::new();
    let running = base.founded().await;
    let session = running.open().await;
    // A time beyond the calendar: adding the stale timeout to it panics.
    let hostile = Command::EndStale { not_before: Time::MAX_UTC, seen_at: None };
    let works = (0..30).map(|index| match index % 10 {
        5 => running.command(session.number, hostile.clone()),
        _ => running.boxed(running.activity(session.number, 1)),
    });
    let outcomes = join_all(works).await;
    for (index, outcome) in outcomes.iter().enumerate() {
        assert_eq!(outcome.is_err(), index % 10 == 5, "unit {index}: {outcome:?}");
    }
    assert_eq!(running.gate.known().session(session.number).unwrap().total.requests, 27);
    running.stop().await;
    base.verify().await.unwrap();
}

async fn issue(running: &Running) -> AccessToken {
    let token = AccessToken {
        id: Uuid::now_v7(),
        secret_hash: [3; 32],
        organization: ORGANIZATION,
        client_kind: ActorKind::ServiceAccount,
        client: 1,
        scopes: Scopes::default().with(Scope::McpInvoke),
        issued_at: Position(0),
        expires_at: running.now() + TimeDelta::hours(1),
        barred: false,
        audience: None,
    };
    let id = token.id;
    running.submit(IssueToken { token, as_of: Position(i64::MAX) }).await.unwrap();
    running.gate.known().access_token(id).cloned().unwrap()
}

#[tokio::test]
async fn revoking_a_session_bars_the_token_that_attached_to_it_in_the_same_batch() {
    let base = Base::new();
    let running = base.founded().await;
    for round in 0..20 {
        let opens = Opens { client_session_id: Some(format!("run-{round}")), ..Opens::default() };
        let session = running.connect(&opens).await.unwrap();
        let token = issue(&running).await;
        let mut attach = running.opening(&opens);
        attach.connect.presented.access_token = Some(token.id);
        attach.connect.presented.expires_at = token.expires_at + TimeDelta::minutes(1);
        let filter =
            Filter { application: Some(APPLICATION), session: Some(session.number), ..Filter::default() };
        // The first one keeps the committer busy while the two wait together.
        let (_, attached, revocation) =
            tokio::join!(running.open(), running.submit(attach), running.begin(filter, Reason::Revoked));
        assert!(!attached.unwrap().opened);
        running.carry_out(&revocation.unwrap()).await;
        assert!(running.gate.known().access_token(token.id).unwrap().barred, "round {round}");
    }
    running.stop().await;
    base.verify().await.unwrap();
}

#[tokio::test]
async fn only_who_cut_something_off_waits_for_it() {
    let base = Base::new();
    let running = base.founded().await;
    let (one, other, third) = (running.open().await, running.open().await, running.open().await);
    // A connection that does not let go of what was cut off.
    let _pass = running.gate.enter(&operator(&running), one.number, running.now()).unwrap();
    let end = |number: SessionNumber| {
        let ends = vec![(number, SessionEnd::Disconnect(Reason::Client))];
        running.committer.submit(Origin::system(), EndSessions { ends, revocation: None })
    };
    // The first one keeps the committer busy while the others wait together; two end the same session.
    let before = commits(&base).await;
    let (_, first, same, next, last) =
        tokio::join!(running.open(), end(one.number), end(one.number), end(other.number), end(third.number));
    assert!(commits(&base).await - before <= 2, "they met in a batch");
    let waits = |answer: Result<Answer<u64>, Error>| answer.unwrap().landed().now_or_never().is_none();
    assert!(waits(first), "it is not over yet");
    assert!(waits(same), "nor is it for whoever found it ended in the same batch");
    assert!(!waits(next) && !waits(last), "these have nothing to wait for");
    running.stop().await;
    base.verify().await.unwrap();
}

#[tokio::test]
async fn a_revocation_ends_once() {
    let base = Base::new();
    let running = base.founded().await;
    running.open().await;
    let revocation = running.begin(Filter::default(), Reason::Revoked).await.unwrap();
    running.chunk(&revocation, &[SessionNumber(1)]).await;
    let end = || {
        let end = EndRevocation { number: revocation.number, streams_closed: 0, nodes: None };
        running.submit_by(Origin::system(), end)
    };
    let (_, first, second) = tokio::join!(running.open(), end(), end());
    assert!(first.is_ok() && second.is_err(), "{first:?} {second:?}");
    running.stop().await;
    base.verify().await.unwrap();
}

#[tokio::test]
async fn an_event_recorded_by_a_clock_that_ran_ahead_stops_nobody_once_the_clock_is_right() {
    let base = Base::new();
    let clock = Clock::system();
    base.founded().await.stop().await;
    let running = base.start_with(clock.clone()).await;
    let early = running.open().await;
    clock.turn(TimeDelta::days(400));
    running.open().await;
    clock.turn(TimeDelta::days(-400));
    let late = running.open().await;
    assert!(late.connected_at < early.connected_at + TimeDelta::days(1));
    running.record(early.number, 1).await;
    running.stop().await;
    base.verify().await.unwrap();
    let running = base.start_with(clock).await;
    running.open().await;
    running.stop().await;
    base.verify().await.unwrap();
}

#[tokio::test]
async fn emptying_the_wal_waits_for_no_reader() {
    if has_no_file("it looks at the write-ahead log") {
        return;
    }
    let base = Base::new();
    base.founded().await.stop().await;
    let mut open = base.open().await;
    let mut reader = base.raw().await;
    sqlx::query("begin").execute(&mut reader).await.unwrap();
    sqlx::query("select * from event").fetch_all(&mut reader).await.unwrap();
    // After this the write-ahead log is to be emptied.
    let ann = Principal {
        number: PrincipalNumber(1),
        organization: ORGANIZATION,
        issuer: "issuer".into(),
        subject_digest: [9; 32],
        subject: Some("ann".into()),
        kept_id: None,
    };
    let side = vec![SideWrite::Principal(ann), SideWrite::ErasePrincipal(PrincipalNumber(1))];
    open.writer.commit(&Batch { side, ..Batch::default() }).await.unwrap();
    let asked = std::time::Instant::now();
    open.writer.maintain().await.unwrap();
    assert!(asked.elapsed().as_secs() < 2, "everybody's writes waited {:?}", asked.elapsed());
    assert!(base.wal_bytes() > 0, "somebody reads it");
    reader.close().await.unwrap();
    // At one of the next turns: after one in vain there is a pause.
    let asked = std::time::Instant::now();
    while base.wal_bytes() > 0 {
        assert!(asked.elapsed().as_secs() < 30, "nobody reads it any more");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        open.writer.maintain().await.unwrap();
    }
    open.store.close().await;
    open.writer.close().await.unwrap();
}
