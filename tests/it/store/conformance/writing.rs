//! Committing, crashing, starting.

use futures_util::TryStreamExt;
use sessiond_core::ids::{Position, PrincipalNumber, SessionNumber};
use sessiond_store::{Open, OpenSession, SideWrite, Store, StoreError};

use super::super::base::ORGANIZATION;
use super::Place;
use super::author::{Author, Connects, beside, principal};

pub async fn looking(place: &dyn Place) {
    for _ in 0..2 {
        let contents = place.look().await;
        assert!(!contents.exists && !contents.events && contents.key_check.is_none());
    }
    let Open { mut writer, store, .. } = place.open().await;
    let contents = place.look().await;
    assert!(contents.exists && !contents.events && contents.key_check.is_none());
    for digest in [[1; 32], [2; 32]] {
        writer.commit(&beside([SideWrite::KeyCheck(digest)])).await.unwrap();
    }
    writer.commit(&Author::found().1).await.unwrap();
    store.close().await;
    writer.close().await.unwrap();
    let contents = place.look().await;
    assert!(contents.exists && contents.events);
    assert_eq!(contents.key_check, Some([2; 32]));
}

pub async fn whole(place: &dyn Place) {
    let Open { mut writer, store, .. } = place.open().await;
    let (_, good) = Author::found();
    let mut bad = Author::found().1;
    bad.side.push(SideWrite::Principal(principal(1)));
    assert!(matches!(writer.commit(&bad).await, Err(StoreError::Failed(_))));
    assert_eq!(store.head().await.unwrap(), Position(0));
    let loaded = store.load().await.unwrap();
    assert!(loaded.streams.is_empty() && loaded.head.last_principal == 0);
    // The writer goes on as if it had not been asked.
    writer.commit(&good).await.unwrap();
    assert_eq!(store.head().await.unwrap(), Position(2));
    assert_eq!(store.load().await.unwrap().streams, good.streams);
    store.verify(&mut |_, _| ()).await.unwrap();
}

pub async fn after_a_crash(place: &dyn Place) {
    let (mut author, founding) = Author::found();
    let Open { mut writer, store, .. } = place.open().await;
    writer.commit(&founding).await.unwrap();
    let number = author.connect(1, &Connects::default());
    writer.commit(&author.done()).await.unwrap();
    drop((writer, store));
    for _ in 0..2 {
        let Open { writer, store, .. } = place.open().await;
        assert_eq!(store.log(Position(0), 100).await.unwrap().len(), 3);
        let row = store.session_by_number(number).await.unwrap().unwrap();
        assert_eq!(row.session, author.sessions[&number]);
        let loaded = store.load().await.unwrap();
        assert_eq!((loaded.head, loaded.open_sessions), (author.log, 1));
        assert_eq!((loaded.head.last_session, loaded.head.last_session_id), (number, row.session.id));
        let report = store.verify(&mut |_, _| ()).await.unwrap();
        assert_eq!((report.events, report.sessions, report.position), (3, 1, author.head()));
        // Once in order.
        store.close().await;
        writer.close().await.unwrap();
    }
    let report = place.rebuild().await.unwrap();
    assert_eq!((report.events, report.position), (3, author.head()));
}

pub async fn raced(place: &dyn Place) {
    let (mut author, founding) = Author::found();
    let Open { mut writer, store, .. } = place.open().await;
    writer.commit(&founding).await.unwrap();
    author.connect(1, &Connects::default());
    let mut late = author.done();
    late.events[0].recorded.position = Position(2);
    let error = writer.commit(&late).await.unwrap_err();
    assert!(matches!(error, StoreError::Raced(_)) && error.ends_all(), "{error}");
    assert_eq!(store.head().await.unwrap(), Position(2));
}

/// All open sessions.
async fn started(store: &dyn Store) -> Vec<OpenSession> {
    let slices: Vec<_> = store.open_sessions().try_collect().await.unwrap();
    slices.into_iter().flatten().collect()
}

pub async fn activity(place: &dyn Place) {
    let (mut author, founding) = Author::found();
    let Open { mut writer, store, .. } = place.open().await;
    writer.commit(&founding).await.unwrap();
    for number in 1..=300 {
        author.connect(number, &Connects::default());
    }
    writer.commit(&author.done()).await.unwrap();
    for round in 1..=3 {
        for number in (1..=300).step_by(round) {
            author.act(SessionNumber(number), 1);
        }
        writer.commit(&author.done()).await.unwrap();
        writer.idle().await.unwrap();
    }
    author.act(SessionNumber(2), 5);
    author.disconnect(SessionNumber(3));
    author.disconnect(SessionNumber(2));
    writer.commit(&author.done()).await.unwrap();
    drop((writer, store));

    let open = |author: &Author| -> Vec<_> {
        author.sessions.values().filter(|session| session.ended.is_none()).cloned().collect()
    };
    let Open { mut writer, store, .. } = place.open().await;
    let sessions: Vec<_> = started(store.as_ref()).await.into_iter().map(|open| open.row.session).collect();
    assert_eq!(sessions, open(&author));
    store.verify(&mut |_, _| ()).await.unwrap();
    // Ended ones are as the log says, wherever their activity was.
    let ended = store.session_by_number(SessionNumber(2)).await.unwrap().unwrap().session;
    assert_eq!(ended, author.sessions[&SessionNumber(2)]);
    // And those that go on do so from there.
    author.act(SessionNumber(7), 1);
    writer.commit(&author.done()).await.unwrap();
    store.close().await;
    writer.close().await.unwrap();
    let Open { store, .. } = place.open().await;
    let sessions: Vec<_> = started(store.as_ref()).await.into_iter().map(|open| open.row.session).collect();
    assert_eq!(sessions, open(&author));
    store.verify(&mut |_, _| ()).await.unwrap();
}

pub async fn upkeep(place: &dyn Place) {
    let (mut author, founding) = Author::found();
    let Open { mut writer, store, .. } = place.open().await;
    writer.commit(&founding).await.unwrap();
    let number = author.connect(1, &Connects::default());
    for _ in 0..200 {
        author.act(number, 1);
        writer.maintain().await.unwrap();
        writer.commit(&author.done()).await.unwrap();
        writer.idle().await.unwrap();
    }
    assert!(!store.maintain().await.unwrap().is_empty());
    let checks = writer.health().await.unwrap();
    assert!(checks.iter().all(|check| check.fault.is_none()), "{checks:?}");
    assert_eq!(store.load().await.unwrap().streams[0].organization(), ORGANIZATION);
    assert!(store.principal(PrincipalNumber(1)).await.unwrap().is_some());
    assert_eq!(store.verify(&mut |_, _| ()).await.unwrap().position, author.head());
}
