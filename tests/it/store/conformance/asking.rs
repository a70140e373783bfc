//! Reading the log and the rows.

use sessiond_core::filter::Filter;
use sessiond_core::ids::{Position, PrincipalNumber, RevocationNumber, SessionNumber};
use sessiond_core::kind::Kind;
use sessiond_core::organization::OrganizationEvent;
use sessiond_core::retention::{account, folded};
use sessiond_core::session::Session;
use sessiond_core::session::event::ACTIVITY;
use sessiond_store::{
    Addressed, Cut, EndedBefore, EndedOrder, EndedPage, Entry, Foldable, LogHead, Open, SideWrite, Store,
};
use uuid::Uuid;

use super::super::base::{APPLICATION, ORGANIZATION};
use super::Place;
use super::author::{Author, Connects, NOBODY, moment};

fn positions<'entry>(entries: impl IntoIterator<Item = &'entry Entry>) -> Vec<i64> {
    entries.into_iter().map(|entry| entry.recorded.position.0).collect()
}

fn addressed(events: &[Addressed]) -> Vec<i64> {
    positions(events.iter().map(|event| &event.entry))
}

/// Two sessions with activity, one of which ends.
async fn stories(place: &dyn Place) -> (Author, Open) {
    let (mut author, founding) = Author::found();
    let mut open = place.open().await;
    open.writer.commit(&founding).await.unwrap();
    let (one, other) = (author.connect(1, &Connects::default()), author.connect(2, &Connects::default()));
    open.writer.commit(&author.done()).await.unwrap();
    for _ in 0..3 {
        author.act(one, 1);
        author.act(other, 2);
        open.writer.commit(&author.done()).await.unwrap();
    }
    author.disconnect(one);
    open.writer.commit(&author.done()).await.unwrap();
    (author, open)
}

pub async fn log(place: &dyn Place) {
    let (author, Open { store, writer: _writer, .. }) = stories(place).await;
    let all = &author.entries;
    let stored = store.log(Position(0), 1_000).await.unwrap();
    assert_eq!(positions(&stored), (1..=author.head().0).collect::<Vec<_>>());
    for (stored, written) in stored.iter().zip(all) {
        assert_eq!(
            (&stored.recorded, &stored.body, stored.digest, stored.hash, stored.commit_hash),
            (&written.recorded, &written.body, written.digest, written.hash, written.commit_hash)
        );
    }
    assert_eq!(positions(&store.log(Position(4), 3).await.unwrap()), [5, 6, 7]);
    assert!(store.log(author.head(), 3).await.unwrap().is_empty());
    assert!(store.event(Position(author.head().0 + 1)).await.unwrap().is_none());
    assert_eq!(store.event(Position(3)).await.unwrap().unwrap().hash, all[2].hash);
    // An event a millisecond.
    assert_eq!(store.last_recorded_before(moment(0)).await.unwrap(), Position(0));
    assert_eq!(store.last_recorded_before(moment(5)).await.unwrap(), Position(5));
    assert_eq!(store.last_recorded_before(moment(1_000)).await.unwrap(), author.head());

    let one = SessionNumber(1);
    for activity in [true, false] {
        let fits = |entry: &&Entry| activity || entry.recorded.event.name() != ACTIVITY;
        let own = |entry: &&Entry| fits(entry) && entry.recorded.stream == one.into();
        let whole = positions(all.iter().filter(fits));
        let after = |position: i64, of: &[i64]| -> Vec<i64> {
            of.iter().copied().filter(|at| *at > position).take(3).collect()
        };
        let of_application =
            positions(all.iter().filter(fits).filter(|entry| entry.recorded.application.is_some()));
        let mut of_session = positions(all.iter().filter(own));
        for from in 0..=author.head().0 {
            let at = Position(from);
            let page = store.addressed_log(at, Position(6), activity, 3).await.unwrap();
            let expected: Vec<_> =
                whole.iter().copied().filter(|at| *at > from && *at <= 6).take(3).collect();
            assert_eq!(addressed(&page), expected);
            let page =
                store.organization_log(ORGANIZATION, None, at, Position(6), activity, 3).await.unwrap();
            assert_eq!(addressed(&page), expected);
            let page = store.addressed_application_log(APPLICATION, at, activity, 3).await.unwrap();
            assert_eq!(addressed(&page), after(from, &of_application));
            assert!(page.iter().all(|event| event.application_id.is_some()));
            let page = store.addressed_session_log(one, at, activity, 3).await.unwrap();
            assert_eq!(addressed(&page), after(from, &of_session));
            assert!(page.iter().all(|event| event.session_id == Some(author.sessions[&one].id)));
        }
        of_session.reverse();
        let newest = author.sessions[&one].head.position;
        let history = store.session_history(one, newest, activity, 2).await.unwrap();
        assert_eq!(addressed(&history), of_session[..2]);
    }
    let (end, app) = (author.head(), Some(APPLICATION));
    let page = store.organization_log(ORGANIZATION, app, Position(0), end, true, 2).await.unwrap();
    assert_eq!(addressed(&page), [2, 3]);
    assert!(store.organization_log(NOBODY, None, Position(0), end, true, 9).await.unwrap().is_empty());
}

/// Walks ended sessions page by page.
async fn walk(
    store: &dyn Store,
    filter: &Filter,
    order: EndedOrder,
    descending: bool,
    limit: usize,
) -> Vec<Session> {
    let (mut after, mut all) = (None, Vec::new());
    loop {
        let page = EndedPage { application: APPLICATION, filter, order, descending, after, limit };
        let page = store.ended(&page).await.unwrap();
        assert!(page.len() <= limit);
        let Some(last) = page.last() else { return all };
        after = Some((ordered_by(&last.session, order), last.session.number));
        all.extend(page.into_iter().map(|row| row.session));
    }
}

fn ordered_by(session: &Session, order: EndedOrder) -> sessiond_core::Time {
    match order {
        EndedOrder::Connected => session.connected_at,
        EndedOrder::LastActive => session.last_active_at,
        EndedOrder::Expires => session.token_expires_at,
    }
}

/// Twelve sessions of several kinds, of which every third goes on.
async fn crowd(place: &dyn Place) -> (Author, Open) {
    let (mut author, founding) = Author::found();
    let mut open = place.open().await;
    open.writer.commit(&founding).await.unwrap();
    for number in 1..=12 {
        let connects = Connects {
            hostname: Some(if number % 2 == 0 { "even.example" } else { "odd.example" }),
            resource: (number % 4 == 0).then_some("fourth"),
            kind: (number % 4 == 1).then_some(Kind::Task),
            // Ties are told apart by number.
            expires: 1_000_000 + 1_000 * (number % 3),
        };
        author.connect(number, &connects);
    }
    open.writer.commit(&author.done()).await.unwrap();
    for number in [5, 1, 8, 2, 11, 4, 7, 10] {
        author.act(SessionNumber(number), 1);
        author.now -= number % 2;
    }
    for number in (1..=12).filter(|number| number % 3 != 0) {
        author.disconnect(SessionNumber(number));
    }
    open.writer.commit(&author.done()).await.unwrap();
    (author, open)
}

pub async fn ended(place: &dyn Place) {
    let (author, Open { store, writer: _writer, .. }) = crowd(place).await;
    for order in [EndedOrder::Connected, EndedOrder::LastActive, EndedOrder::Expires] {
        for descending in [true, false] {
            let over = author.sessions.values().filter(|session| session.ended.is_some());
            let mut expected: Vec<_> = over.cloned().collect();
            expected.sort_by_key(|session| match order {
                EndedOrder::Connected => (sessiond_core::Time::default(), session.number),
                _ => (ordered_by(session, order), session.number),
            });
            if descending {
                expected.reverse();
            }
            for limit in [1, 3, 100] {
                let found = walk(store.as_ref(), &Filter::default(), order, descending, limit).await;
                assert_eq!(found, expected, "{order:?} {descending} by {limit}");
            }
        }
    }
    let of_principal = async |after, limit| {
        let numbers = store.ended_of_principal(APPLICATION, PrincipalNumber(1), SessionNumber(after), limit);
        numbers.await.unwrap().into_iter().map(|number| number.0).collect::<Vec<_>>()
    };
    assert_eq!(of_principal(0, 3).await, [1, 2, 4]);
    assert_eq!(of_principal(4, 100).await, [5, 7, 8, 10, 11]);
}

pub async fn filters(place: &dyn Place) {
    let (author, Open { store, writer: _writer, .. }) = crowd(place).await;
    let instant = author.sessions[&SessionNumber(5)].connected_at;
    let filters: [(Filter, &dyn Fn(i64) -> bool); 9] = [
        (Filter::default(), &|_| true),
        (Filter { hostname: Some("even.example".into()), ..Filter::default() }, &|number| number % 2 == 0),
        (Filter { client: Some("inspector".into()), ..Filter::default() }, &|_| true),
        (Filter { client: Some("other".into()), ..Filter::default() }, &|_| false),
        (Filter { resource: Some("fourth".into()), ..Filter::default() }, &|number| number % 4 == 0),
        (Filter { kind: Some(Kind::Task), ..Filter::default() }, &|number| number % 4 == 1),
        (Filter { session: Some(SessionNumber(4)), ..Filter::default() }, &|number| number == 4),
        (Filter { connected_after: Some(instant), ..Filter::default() }, &|number| number >= 5),
        (
            Filter {
                connected_before: Some(instant),
                except: vec![SessionNumber(2)],
                hostname: Some("even.example".into()),
                ..Filter::default()
            },
            &|number| number == 4,
        ),
    ];
    for (filter, fits) in filters {
        let expected: Vec<_> = (1..=12).filter(|number| number % 3 != 0 && fits(*number)).collect();
        for order in [EndedOrder::Connected, EndedOrder::LastActive, EndedOrder::Expires] {
            let found = walk(store.as_ref(), &filter, order, false, 2).await;
            let mut found: Vec<_> = found.iter().map(|session| session.number.0).collect();
            found.sort_unstable();
            assert_eq!(found, expected, "{filter:?}");
        }
        let count = store.count_ended(APPLICATION, &filter).await.unwrap();
        assert_eq!(count, expected.len() as u64, "{filter:?}");
    }
}

pub async fn absent(place: &dyn Place) {
    let Open { store, writer: _writer, .. } = place.open().await;
    let (number, nobody) = (SessionNumber(9), PrincipalNumber(9));
    assert!(store.session(Uuid::max()).await.unwrap().is_none());
    assert!(store.session_by_number(number).await.unwrap().is_none());
    for numbers in [&[][..], &[number]] {
        assert!(store.sessions(numbers).await.unwrap().is_empty());
        assert!(store.details(numbers).await.unwrap().is_empty());
        assert!(store.confirmations(numbers).await.unwrap().is_empty());
    }
    assert!(store.principal(nobody).await.unwrap().is_none());
    assert!(store.principals_numbered(&[nobody]).await.unwrap().is_empty());
    assert!(store.principals(NOBODY, None, None, nobody, 9).await.unwrap().is_empty());
    assert!(store.principals_called(NOBODY, "ann", 9).await.unwrap().is_empty());
    assert!(store.principals_found(NOBODY, &["ann".to_owned()], nobody, 9).await.unwrap().is_empty());
    assert!(store.events(&[Position(9)]).await.unwrap().is_empty());
    assert!(store.beginnings(&[RevocationNumber(9)]).await.unwrap().is_empty());
    assert!(store.revocation(RevocationNumber(9)).await.unwrap().is_none());
    assert!(store.revocation_by_id(Uuid::max()).await.unwrap().is_none());
    assert!(store.revocations(NOBODY, None, None, 9).await.unwrap().is_empty());
    assert!(store.notes(&[Position(9)]).await.unwrap().is_empty());
    assert!(store.outcome(&[9; 32]).await.unwrap().is_none());
    assert!(store.client_secret("nobody").await.unwrap().is_none());
    assert!(store.session_token(number).await.unwrap().is_none());
    assert!(store.mcp_session(number).await.unwrap().is_none());
    assert!(store.untold_mcp(SessionNumber(0), 9).await.unwrap().is_empty());
    assert!(store.upstream_secret(APPLICATION).await.unwrap().is_none());
    assert!(store.machine_secret(Uuid::max()).await.unwrap().is_none());
    assert!(store.webhook_secret(Uuid::max()).await.unwrap().is_none());
    assert!(store.delivery(Uuid::max(), Position(1)).await.unwrap().is_none());
    assert!(store.pending_deliveries(Uuid::max()).await.unwrap().is_empty());
    assert!(store.ended_terminals(NOBODY, moment(0)).await.unwrap().is_empty());
    assert_eq!(store.foldable(&[NOBODY], Position(0), moment(0), 9).await.unwrap(), Foldable::default());
    assert_eq!(store.ended_before(NOBODY, moment(0)).await.unwrap(), EndedBefore::default());
    assert!(store.departing(NOBODY, moment(0), 9, 9).await.unwrap().is_empty());
    assert!(store.folded_to().await.unwrap().is_empty());
    let loaded = store.load().await.unwrap();
    assert_eq!((loaded.head, loaded.open_sessions), (LogHead::default(), 0));
    store.verify(&mut |_, _| ()).await.unwrap();
}

pub async fn retention(place: &dyn Place) {
    let (mut author, Open { writer, store, .. }) = stories(place).await;
    // A stop brings all activity into the rows, and then it can be looked at.
    store.close().await;
    writer.close().await.unwrap();
    let Open { mut writer, store, .. } = place.open().await;
    let before = moment(1_000);
    let page = store.foldable(&[ORGANIZATION], Position(0), before, 100).await.unwrap();
    let at: Vec<_> = page.events.iter().map(|one| (one.position.0, one.previous.0, one.next.0)).collect();
    // Each session's last activity stays.
    assert_eq!(at, [(5, 3, 7), (6, 4, 8), (7, 5, 9), (8, 6, 10)]);
    assert_eq!(page.up_to, Some(author.head()));
    assert!(store.foldable(&[NOBODY], Position(0), before, 100).await.unwrap().events.is_empty());
    assert_eq!(store.foldable(&[ORGANIZATION], author.head(), before, 9).await.unwrap(), Foldable::default());
    let (folding, positions) = folded(page.events.iter().map(|one| (one.position, one.hash))).unwrap();
    author.account(&*store, OrganizationEvent::ActivityFolded(folding)).await;
    author.beside(SideWrite::Fold { positions, cuts: Cut::made_by(&page.events) });
    author.beside(SideWrite::FoldedTo(vec![ORGANIZATION], Position(11)));
    writer.commit(&author.done()).await.unwrap();
    assert_eq!(store.folded_to().await.unwrap(), [(ORGANIZATION, Position(11))]);
    assert_eq!(store.verify(&mut |_, _| ()).await.unwrap().let_go, 4);

    let ended = store.ended_before(ORGANIZATION, before).await.unwrap();
    assert_eq!(ended, EndedBefore { sessions: 1, events: 5 });
    assert!(store.departing(ORGANIZATION, moment(1), 9, 9).await.unwrap().is_empty());
    assert_eq!(store.departing(ORGANIZATION, before, 9, 1).await.unwrap()[0].events.len(), 2, "one too many");
    assert!(store.foldable_of(ORGANIZATION, SessionNumber(1), 9).await.unwrap().is_empty());
    let departing = store.departing(ORGANIZATION, before, 9, 3).await.unwrap();
    let (letting, positions) = account(&departing).unwrap();
    assert_eq!(positions, [3, 9, 11].map(Position));
    author.account(&*store, OrganizationEvent::SessionsLetGo(Box::new(letting))).await;
    let sessions = vec![SessionNumber(1)];
    author.beside(SideWrite::LetSessionsGo { sessions, positions, resources: vec![] });
    writer.commit(&author.done()).await.unwrap();
    assert!(store.session_by_number(SessionNumber(1)).await.unwrap().is_none());
    let kept = store.log(Position(0), 100).await.unwrap();
    assert_eq!(self::positions(&kept), [1, 2, 4, 10, 12, 13]);
    assert_eq!(store.last_recorded_before(moment(6)).await.unwrap().0.min(4), 4);
    let report = store.verify(&mut |_, _| ()).await.unwrap();
    assert_eq!((report.events, report.let_go), (6, 7));
    store.close().await;
    writer.close().await.unwrap();
    assert_eq!(place.rebuild().await.unwrap(), report);
    let Open { store, writer: _writer, .. } = place.open().await;
    assert_eq!(store.verify(&mut |_, _| ()).await.unwrap(), report);
    let row = store.session_by_number(SessionNumber(2)).await.unwrap().unwrap();
    assert_eq!(row.session, author.sessions[&SessionNumber(2)]);
}

/// A row is written whole with a lifecycle event, at the end of its commit: activity that came in the same commit is what the
/// row stands at, and stays as long as it does.
pub async fn activity_of_a_row(place: &dyn Place) {
    let (mut author, founding) = Author::found();
    let Open { mut writer, store, .. } = place.open().await;
    writer.commit(&founding).await.unwrap();
    let one = author.connect(1, &Connects::default());
    author.act(one, 1);
    writer.commit(&author.done()).await.unwrap();
    for _ in 0..2 {
        author.act(one, 1);
        writer.commit(&author.done()).await.unwrap();
    }
    store.close().await;
    writer.close().await.unwrap();
    let Open { mut writer, store, .. } = place.open().await;
    let page = store.foldable(&[ORGANIZATION], Position(0), moment(1_000), 100).await.unwrap();
    let at: Vec<_> = page.events.iter().map(|one| one.position.0).collect();
    assert_eq!(at, [author.head().0 - 1], "neither the one that the row stands at, nor the last");
    let (folding, positions) = folded(page.events.iter().map(|one| (one.position, one.hash))).unwrap();
    author.account(&*store, OrganizationEvent::ActivityFolded(folding)).await;
    author.beside(SideWrite::Fold { positions, cuts: Cut::made_by(&page.events) });
    writer.commit(&author.done()).await.unwrap();
    let report = store.verify(&mut |_, _| ()).await.unwrap();
    store.close().await;
    writer.close().await.unwrap();
    assert_eq!(place.rebuild().await.unwrap(), report);
}
