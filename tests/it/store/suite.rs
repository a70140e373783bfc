//! The store's own suite: what goes in comes out, in the order and the pages that were promised.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::TimeDelta;
use futures_util::future::join_all;
use sessiond::cli::fill::fill;
use sessiond::clock::Clock;
use sessiond::committer::{CreateApplication, EndSessions, Origin, SessionEnd, WriteBeside};
use sessiond::error::Error;
use sessiond::gate::{Gate, Order, Slice};
use sessiond::http::health::Progress;
use sessiond_core::Time;
use sessiond_core::actor::Actor;
use sessiond_core::chain::commit_hash;
use sessiond_core::command::Command;
use sessiond_core::event::{Event, Recorded};
use sessiond_core::filter::Filter;
use sessiond_core::ids::{OrganizationNumber, Position, PrincipalNumber, SessionNumber, StreamId};
use sessiond_core::organization::{OrganizationCreated, OrganizationEvent};
use sessiond_core::presented::Presented;
use sessiond_core::reason::Reason;
use sessiond_core::retention::{LetGo, Retention};
use sessiond_core::revocation::Revocation;
use sessiond_core::session::Session;
use sessiond_core::session::event::{ACTIVITY, SessionEvent};
use sessiond_core::streams::{AnyEvent, AnyStream, Registered};
use sessiond_core::token::Principal;
use sessiond_store::{Batch, EndedOrder, EndedPage, Entry, Open, Organization, SideWrite, StoreError};
use uuid::Uuid;

use super::base::{APPLICATION, Base, Opens, Running, application};
use super::conformance;
use super::disk::operator;

#[tokio::test]
async fn sqlite_keeps_what_the_seam_promises() {
    if crate::support::store::has_no_file("it is about SQLite") {
        return;
    }
    conformance::keep(|| Box::new(Base::new())).await;
}

#[tokio::test]
async fn a_url_of_no_store_says_which_there_are() {
    for url in ["mysql://localhost/sessiond", "sessiond.db"] {
        let Err(error) = sessiond_store::open(url).await else { panic!("it was opened") };
        assert!(error.to_string().contains("sqlite:sessiond.db"), "{error}");
    }
}

// ---- writing ----

fn founding(position: i64) -> Entry {
    let id = Uuid::from_u128(position.unsigned_abs().into());
    let recorded = Recorded {
        position: Position(position),
        stream: OrganizationNumber(position).into(),
        version: 1,
        previous_position: Position(0),
        occurred_at: Time::from_timestamp_millis(1_700_000_000_000).unwrap(),
        recorded_at: Time::from_timestamp_millis(1_700_000_000_000).unwrap(),
        organization: OrganizationNumber(position),
        application: None,
        actor: Actor::OPERATOR,
        revocation: None,
        request_id: None,
        traceparent: None,
        event: Event::Stream(AnyEvent::Organization(OrganizationEvent::Created(OrganizationCreated {
            id,
            name: "Acme".into(),
        }))),
        personal: None,
    };
    Entry::seal(recorded, &[0; 32])
}

fn row(entry: &Entry) -> AnyStream {
    let organization = Organization {
        number: entry.recorded.organization,
        id: Uuid::from_u128(entry.recorded.organization.0.unsigned_abs().into()),
        name: "Acme".into(),
        created_at: entry.recorded.occurred_at,
        valid_from: Position(0),
        restored_at: Position(0),
        issuers: vec![],
        retention: Retention::default(),
        let_go: LetGo::default(),
        head: entry.head(),
    };
    organization.any()
}

fn principal(number: i64) -> SideWrite {
    SideWrite::Principal(Principal {
        number: PrincipalNumber(number),
        organization: OrganizationNumber(1),
        issuer: "issuer".into(),
        subject_digest: [9; 32],
        subject: None,
        kept_id: None,
    })
}

#[tokio::test]
async fn a_commit_is_all_or_nothing() {
    let base = Base::new();
    let Open { mut writer, store: reader } = base.open().await;
    let mut entry = founding(1);
    entry.commit_hash = Some(commit_hash(&[0; 32], [&entry.hash]));
    let streams = vec![row(&entry)];
    let mut batch =
        Batch { events: vec![entry], streams, side: vec![principal(1), principal(1)], ..Batch::default() };
    assert!(matches!(writer.commit(&batch).await, Err(StoreError::Failed(_))));
    assert_eq!(reader.head().await.unwrap(), Position(0));
    let loaded = reader.load().await.unwrap();
    assert!(loaded.streams.is_empty() && loaded.head.last_principal == 0);
    // The same writer goes on as if nothing had been.
    batch.side.pop();
    writer.commit(&batch).await.unwrap();
    assert_eq!(reader.head().await.unwrap(), Position(1));
    assert_eq!(reader.load().await.unwrap().head.last_principal, 1);
    reader.close().await;
    writer.close().await.unwrap();
    base.verify().await.unwrap();
}

#[tokio::test]
async fn one_unit_that_fails_does_not_fail_those_it_shares_a_batch_with() {
    let base = Base::new();
    let running = base.founded().await;
    running.open().await;
    let mut works = Vec::new();
    for index in 0..40 {
        // A principal with a number that is taken: the database refuses it, and with it the whole transaction.
        let spoils = index % 10 == 5;
        let opens = || running.boxed(running.opening(&Opens::default()));
        works.push(if spoils { running.boxed(WriteBeside(principal(1))) } else { opens() });
    }
    let outcomes = join_all(works).await;
    for (index, outcome) in outcomes.iter().enumerate() {
        assert_eq!(outcome.is_err(), index % 10 == 5, "unit {index}: {outcome:?}");
    }
    running.stop().await;
    assert_eq!(base.verify().await.unwrap().sessions, 37);
}

#[tokio::test]
async fn a_full_disk_refuses_writing_and_keeps_what_is_there_and_revokes_in_memory() {
    if crate::support::store::has_no_file("it limits the size of the file") {
        return;
    }
    let base = Base::new();
    let running = base.founded().await;
    let session = running.open().await;
    running.stop().await;
    let before = base.verify().await.unwrap();

    let running = base.start_with_pages(1).await;
    assert!(matches!(running.connect(&Opens::default()).await, Err(Error::DiskFull)));
    let outcome =
        running.begin(Filter { application: Some(APPLICATION), ..Filter::default() }, Reason::Revoked).await;
    assert!(matches!(outcome, Err(Error::DiskFull)));
    let barred = running.gate.enter(&operator(&running), session.number, running.now());
    assert!(barred.is_err(), "what was revoked is denied from memory");
    assert_eq!(running.head(), before.position);
    running.crash().await;

    assert_eq!(base.verify().await.unwrap(), before);
    let running = base.start().await;
    assert!(
        running.gate.enter(&operator(&running), session.number, running.now()).is_ok(),
        "it did not outlive the restart"
    );
    running.open().await;
    running.stop().await;
    base.verify().await.unwrap();
}

#[tokio::test]
async fn a_newer_database_is_refused() {
    if crate::support::store::has_no_file("it writes as SQLite spells it") {
        return;
    }
    let base = Base::new();
    base.founded().await.stop().await;
    base.execute(
        "insert into _sqlx_migrations (version, description, success, checksum, execution_time) \
         values (9999, 'tomorrow', true, x'00', 0)",
    )
    .await;
    let Err(error) = sessiond_store::open(&base.url()).await else { panic!("it was opened") };
    assert!(error.to_string().contains("newer sessiond"), "{error}");
}

#[tokio::test]
async fn the_live_connection_is_durable() {
    if crate::support::store::has_no_file("it asks for the pragmas") {
        return;
    }
    let base = Base::new();
    let checks = base.open().await.writer.health().await.unwrap();
    let value = |name| checks.iter().find(|check| check.name == name).unwrap().value.as_str();
    assert_eq!((value("journal_mode"), value("synchronous")), ("wal", "FULL"));
    assert!(checks.iter().all(|check| check.fault.is_none()), "{checks:?}");
}

#[tokio::test]
async fn a_client_id_that_meets_itself_in_a_batch_is_given_to_one() {
    let base = Base::new();
    let running = base.founded().await;
    let create = |name: &str| CreateApplication {
        organization: OrganizationNumber(1),
        created: sessiond_core::application::ApplicationCreated { name: name.into(), ..application("same") },
        secret_hash: None,
    };
    let (one, other) = tokio::join!(running.submit(create("one")), running.submit(create("other")));
    assert!(one.is_ok() != other.is_ok(), "{one:?} {other:?}");
    running.stop().await;
    base.verify().await.unwrap();
}

// ---- starting ----

#[tokio::test]
async fn loading_folds_the_tail_that_is_not_settled() {
    if crate::support::store::has_no_file("activity does not settle there") {
        return;
    }
    let base = Base::new();
    let running = base.founded().await;
    let (one, other) = (running.open().await, running.open().await);
    for _ in 0..5 {
        running.record(one.number, 2).await;
    }
    running.renew(other.number).await;
    running.record(other.number, 1).await;
    running.crash().await;

    let reader = base.store().await;
    let gate = Gate::default();
    let loaded = fill(&gate, &reader, Clock::system().now(), &Progress::default()).await.unwrap();
    assert!(base.mark("settled").await < loaded.head.position, "nothing is left to fold");
    assert_eq!(loaded.open_sessions, 2);
    let total = |number: SessionNumber| {
        let session = gate.known().session(number).cloned().unwrap();
        (session.total.requests, session.head.version, session.total.bytes_out)
    };
    assert_eq!(total(one.number), (10, 6, 1000));
    assert_eq!(total(other.number), (1, 3, 100));
    let stored = reader.session(one.id).await.unwrap().unwrap();
    assert_eq!(stored.session.total.requests, 0, "its row has not settled");
    reader.close().await;
    base.verify().await.unwrap();

    let running = base.start().await;
    running.record(one.number, 1).await;
    running.stop().await;
    base.verify().await.unwrap();
    let reader = base.store().await;
    assert_eq!(reader.session(one.id).await.unwrap().unwrap().session.total.requests, 11);
    assert_eq!(base.mark("settled").await, reader.head().await.unwrap());
}

#[tokio::test]
async fn a_committer_whose_sessions_all_ended_before_they_settled_still_stops() {
    let base = Base::new();
    let running = base.founded().await;
    let opening = |_| running.opening(&Opens::default());
    join_all((0..300).map(opening).map(|work| running.submit(work))).await;
    let activity = |number| running.activity(SessionNumber(number), 1);
    join_all((1..=300).map(activity).map(|work| running.submit(work))).await;
    let revocation = running.begin(Filter::default(), Reason::Revoked).await.unwrap();
    assert_eq!(running.carry_out(&revocation).await, 300);
    tokio::time::timeout(Duration::from_secs(20), running.stop()).await.unwrap();
    base.verify().await.unwrap();
}

#[tokio::test]
async fn a_natural_key_survives_a_crash() {
    let base = Base::new();
    let running = base.founded().await;
    let keyed = [
        Opens { subject: "ann", client_session_id: Some("run-1".into()), ..Opens::default() },
        Opens { subject: "ann", anchor: Some("run-1".into()), ..Opens::default() },
    ];
    let mut sessions = vec![];
    for opens in &keyed {
        sessions.push(running.connect(opens).await.unwrap().number);
    }
    assert_ne!(sessions[0], sessions[1], "the same text as another kind of key is another key");
    running.crash().await;
    let running = base.start().await;
    for (opens, number) in keyed.into_iter().zip(sessions) {
        let again = running.connect(&opens).await.unwrap();
        assert_eq!((again.number, again.head.version), (number, 2));
        let other = running.connect(&Opens { subject: "ben", ..opens.clone() }).await;
        if opens.anchor.is_some() {
            assert!(matches!(other, Err(Error::KeyTaken(_))));
        } else {
            assert_ne!(other.unwrap().number, number, "another's is another session");
        }
        running.disconnect(number, Reason::Client).await;
        let anew = running.connect(&Opens { subject: "ben", ..opens }).await.unwrap();
        assert!(anew.number > number, "an ended session holds no key");
    }
    running.stop().await;
    base.verify().await.unwrap();
}

// ---- counting ----

#[tokio::test]
async fn what_two_revocations_cover_is_counted_for_the_one_that_ends_it() {
    let base = Base::new();
    let running = base.founded().await;
    for _ in 0..5 {
        running.open().await;
    }
    let one = running.begin(Filter::default(), Reason::Revoked).await.unwrap();
    let two = running
        .begin(Filter { application: Some(APPLICATION), ..Filter::default() }, Reason::Terminated)
        .await
        .unwrap();
    running.chunk(&two, &[SessionNumber(1), SessionNumber(2)]).await;
    // A goodbye is nobody's doing but the client's.
    running.disconnect(SessionNumber(3), Reason::Client).await;
    assert_eq!(running.carry_out(&one).await, 2);
    assert_eq!(running.carry_out(&two).await, 2);
    let reasons = running.reader.log(Position(0), 1000).await.unwrap().into_iter().filter_map(|entry| {
        match entry.recorded.event {
            Event::Session(SessionEvent::Disconnected(event)) => {
                Some((entry.recorded.revocation.map(|number| number.0), event.reason))
            }
            _ => None,
        }
    });
    let mut counts = BTreeMap::new();
    for reason in reasons.map(|reason| format!("{reason:?}")) {
        *counts.entry(reason).or_insert(0) += 1;
    }
    let expected = [("(None, Client)", 1), ("(Some(1), Revoked)", 2), ("(Some(2), Terminated)", 2)];
    assert_eq!(counts, expected.map(|(reason, count)| (reason.to_owned(), count)).into());
    running.stop().await;
    base.verify().await.unwrap();
}

#[tokio::test]
async fn calls_that_meet_in_a_batch_lose_no_count() {
    let base = Base::new();
    let running = base.founded().await;
    let session = running.open().await;
    let calls = (0..100).map(|_| running.submit(running.activity(session.number, 1)));
    assert!(join_all(calls).await.iter().all(Result::is_ok));
    let log = running.reader.log(Position(0), 1000).await.unwrap();
    let sum: u64 = log
        .iter()
        .filter_map(|entry| match &entry.recorded.event {
            Event::Session(SessionEvent::ActivityRecorded(activity)) => Some(activity.counts.requests),
            _ => None,
        })
        .sum();
    assert_eq!(sum, 100);
    running.stop().await;
    base.verify().await.unwrap();
}

// ---- asking ----

/// Walks the ended sessions of the application page by page.
async fn ended(running: &Running, filter: &Filter, sort: (Order, bool), limit: usize) -> Vec<Session> {
    let (order, descending) = sort;
    let ordered = match order {
        Order::Connected => EndedOrder::Connected,
        Order::LastActive => EndedOrder::LastActive,
        Order::Expires => EndedOrder::Expires,
    };
    let mut after = None;
    let mut all = Vec::new();
    loop {
        let page = EndedPage { application: APPLICATION, filter, order: ordered, descending, after, limit };
        let page = running.reader.ended(&page).await.unwrap();
        let Some(last) = page.last() else { return all };
        assert!(page.len() <= limit);
        after = Some((place(&last.session, order), last.session.number));
        all.extend(page.into_iter().map(|row| row.session));
    }
}

/// Walks the open sessions page by page.
fn open(running: &Running, filter: &Filter, sort: (Order, bool), limit: usize) -> Vec<Session> {
    let (order, descending) = sort;
    let mut after = None;
    let mut all = Vec::new();
    loop {
        let slice = Slice { order, descending, after, limit };
        let known = running.gate.known_at(running.now());
        let page = known.page(OrganizationNumber(1), filter, &slice, running.now());
        assert!(page.len() <= limit);
        let Some(last) = page.last() else { return all };
        after = Some(*last);
        all.extend(page.iter().map(|(_, number)| known.session(*number).unwrap().clone()));
    }
}

fn place(session: &Session, order: Order) -> Time {
    match order {
        Order::Connected => session.connected_at,
        Order::LastActive => session.last_active_at,
        Order::Expires => session.token_expires_at,
    }
}

#[tokio::test]
async fn lists_come_in_pages_in_every_order_without_a_gap_or_a_repeat() {
    let base = Base::new();
    let running = base.founded().await;
    let other = running
        .submit(CreateApplication {
            organization: OrganizationNumber(1),
            created: application("other"),
            secret_hash: None,
        })
        .await
        .unwrap();
    for round in 0..6 {
        // Several in one batch have the same moment: ties are told apart by id.
        let minutes = Some(TimeDelta::minutes(10 + 10 * round));
        let opens = Opens { expires_in: minutes, ..Opens::default() };
        let elsewhere = Opens { application: Some(other.number), ..opens.clone() };
        let mut works: Vec<_> = (0..4).map(|_| running.opening(&opens)).collect();
        works.push(running.opening(&elsewhere));
        join_all(works.into_iter().map(|work| running.submit(work))).await;
        running.clock.turn(TimeDelta::seconds(round % 2));
    }
    for number in [1, 7, 12, 20] {
        running.disconnect(SessionNumber(number), Reason::Client).await;
    }
    running.clock.turn(TimeDelta::minutes(25));
    let mut announced = 0;
    for (number, _) in running.gate.due(running.now(), running.now(), 3) {
        running.command(number, Command::Expire).await.unwrap();
        announced += 1;
    }
    assert_eq!(announced, 3, "some are announced");
    let mut all = Vec::new();
    for number in 1..=30 {
        all.extend(running.reader.session_by_number(SessionNumber(number)).await.unwrap());
    }
    let all: Vec<Session> =
        all.into_iter().map(|row| row.session).filter(|session| session.application == APPLICATION).collect();
    let ties = all.windows(2).filter(|pair| pair[0].connected_at == pair[1].connected_at).count();
    assert!(ties > 0, "no ties to tell apart");
    assert!(all.windows(2).all(|pair| pair[0].id < pair[1].id), "ids are in the order of numbers");
    let filter = Filter { application: Some(APPLICATION), ..Filter::default() };
    for order in [Order::Connected, Order::LastActive, Order::Expires] {
        for descending in [true, false] {
            let mut expected = all.clone();
            expected.sort_by_key(|session| (place(session, order), session.number));
            if descending {
                expected.reverse();
            }
            let (over, live): (Vec<_>, Vec<_>) =
                expected.into_iter().partition(|session| session.ended.is_some());
            for limit in [1, 2, 3, 7, 100] {
                let sort = (order, descending);
                assert_eq!(ended(&running, &filter, sort, limit).await, over, "{sort:?} by {limit}");
                assert_eq!(open(&running, &filter, sort, limit), live, "{sort:?} by {limit}");
            }
        }
    }
    running.stop().await;
}

#[tokio::test]
async fn a_session_is_found_by_id_and_number_with_its_details_and_newest_figures() {
    let base = Base::new();
    let running = base.founded().await;
    let session = running
        .connect(&Opens { client_session_id: Some("run-1".into()), ..Opens::default() })
        .await
        .unwrap();
    running.record(session.number, 3).await;
    running.stop().await;
    let reader = base.store().await;
    let row = reader.session(session.id).await.unwrap().unwrap();
    assert_eq!(reader.session_by_number(session.number).await.unwrap(), Some(row.clone()));
    assert_eq!((row.session.total.requests, row.session.head.version), (3, 2));
    assert_eq!(row.detail.client_session_id.as_deref(), Some("run-1"));
    assert_eq!(row.detail.hostname.as_deref(), Some("desk-17.example"));
    assert_eq!(row.detail.client_info.as_deref(), Some(r#"{"name":"inspector","version":"1.2"}"#));
    assert_eq!(reader.session(Uuid::nil()).await.unwrap(), None);
    assert!(reader.session_token(session.number).await.unwrap().is_some());
}

fn positions(entries: &[Entry]) -> Vec<i64> {
    entries.iter().map(|entry| entry.recorded.position.0).collect()
}

#[tokio::test]
async fn the_log_is_read_whole_by_application_and_by_stream() {
    let base = Base::new();
    let running = base.founded().await;
    let (one, other) = (running.open().await, running.open().await);
    for round in 0..4 {
        running.record(one.number, 1).await;
        running.record(other.number, 1).await;
        if round % 2 == 0 {
            running.renew(one.number).await;
        }
    }
    running.disconnect(one.number, Reason::Client).await;
    let reader = &running.reader;
    let all = reader.log(Position(0), 1000).await.unwrap();
    assert_eq!(positions(&all), (1..=running.head().0).collect::<Vec<_>>());
    assert_eq!(positions(&reader.log(Position(4), 3).await.unwrap()), [5, 6, 7]);
    assert!(reader.log(running.head(), 10).await.unwrap().is_empty());

    let pick = |fits: &dyn Fn(&Entry) -> bool| {
        positions(&all.iter().filter(|entry| fits(entry)).cloned().collect::<Vec<_>>())
    };
    let lifecycle = |entry: &Entry| entry.recorded.event.name() != ACTIVITY;
    let expected = pick(&|entry| entry.recorded.application == Some(APPLICATION) && lifecycle(entry));
    assert!(expected.len() > 4);
    let mut found = Vec::new();
    while let Some(page) = {
        let after = Position(found.last().copied().unwrap_or(0));
        let page = reader.addressed_application_log(APPLICATION, after, false, 2).await.unwrap();
        Some(page).filter(|page| !page.is_empty())
    } {
        assert!(page.iter().all(|event| event.application_id.is_some()));
        found.extend(page.iter().map(|event| event.entry.recorded.position.0));
    }
    assert_eq!(found, expected);

    let stream: StreamId = one.number.into();
    let expected = pick(&|entry| entry.recorded.stream == stream && lifecycle(entry));
    let of_one = async |after: i64, activity: bool, limit: u32| -> Vec<i64> {
        let page = reader.addressed_session_log(one.number, Position(after), activity, limit).await.unwrap();
        assert!(page.iter().all(|event| event.session_id == Some(one.id)));
        page.iter().map(|event| event.entry.recorded.position.0).collect()
    };
    assert_eq!(of_one(0, false, 100).await, expected);
    assert_eq!(of_one(expected[0], false, 1).await, expected[1..2]);
    let whole = pick(&|entry| entry.recorded.stream == stream);
    assert_eq!(of_one(0, true, 100).await, whole);
    assert_eq!(of_one(whole[2], true, 2).await, whole[3..5]);
    running.stop().await;
}

#[tokio::test]
async fn a_revocation_in_force_survives_a_crash_and_is_finished_later() {
    let base = Base::new();
    let running = base.founded().await;
    for _ in 0..5 {
        running.open().await;
    }
    let revocation = running.begin(Filter::default(), Reason::Revoked).await.unwrap();
    running.chunk(&revocation, &[SessionNumber(1), SessionNumber(2)]).await;
    running.crash().await;
    base.verify().await.unwrap();
    let running = base.start().await;
    let fresh = running.open().await;
    let known = running.gate.known().streams::<Revocation>().next().cloned().unwrap();
    assert_eq!(known.disconnected_count, 2);
    let presented = Presented { issued_at: Position(i64::MAX), ..running.owner() };
    let renew = Command::RenewToken { presented };
    assert!(running.command(SessionNumber(3), renew).await.is_err(), "still in force");
    assert_eq!(running.carry_out(&known).await, 5);
    assert!(running.gate.known().session(fresh.number).is_some(), "it connected after the fence");
    running.stop().await;
    base.verify().await.unwrap();
}

#[tokio::test]
async fn who_did_it_and_for_whom_is_in_the_envelope() {
    let base = Base::new();
    let running = base.founded().await;
    let session = running.open().await;
    running
        .submit_by(
            Origin::system(),
            EndSessions {
                ends: vec![(session.number, SessionEnd::Disconnect(Reason::Stale))],
                revocation: None,
            },
        )
        .await
        .unwrap();
    let log = running.reader.addressed_session_log(session.number, Position(0), false, 10).await.unwrap();
    let [connected, disconnected] = log.as_slice() else { panic!("{log:?}") };
    assert_eq!(connected.entry.recorded.actor, super::base::by_account().actor);
    assert_eq!(connected.entry.recorded.request_id.as_deref(), Some("request-1"));
    assert_eq!(disconnected.entry.recorded.actor, Actor::SYSTEM);
    assert_eq!(disconnected.entry.recorded.request_id, None);
    running.stop().await;
}
