//! What stands beside the log.

use chrono::TimeDelta;
use futures_util::TryStreamExt;
use sessiond_core::actor::ActorKind;
use sessiond_core::delivery::{Delivery, DeliveryStatus};
use sessiond_core::idempotency::{KEPT, RecordedOutcome};
use sessiond_core::ids::{Position, PrincipalNumber, SessionNumber};
use sessiond_core::token::{AccessToken, SessionToken};
use sessiond_store::{
    ClientSecret, Confirmation, McpSession, Open, Sealed, SealedFor, SideWrite, StoreError, WebhookSecret,
};
use uuid::Uuid;

use super::super::base::{APPLICATION, ORGANIZATION};
use super::Place;
use super::author::{Author, Connects, beside, moment, principal};

const ONE: SessionNumber = SessionNumber(1);

async fn founded(place: &dyn Place) -> (Author, Open) {
    let (mut author, founding) = Author::found();
    let mut open = place.open().await;
    open.writer.commit(&founding).await.unwrap();
    author.connect(1, &Connects::default());
    open.writer.commit(&author.done()).await.unwrap();
    (author, open)
}

fn access_token(id: u128, expires: i64) -> AccessToken {
    AccessToken {
        id: Uuid::from_u128(id),
        secret_hash: [3; 32],
        organization: ORGANIZATION,
        client_kind: ActorKind::Application,
        client: 1,
        scopes: "mcp:invoke".to_owned().into(),
        issued_at: Position(2),
        expires_at: moment(expires),
        barred: false,
        audience: Some(Uuid::from_u128(0xa0d)),
    }
}

pub async fn secrets(place: &dyn Place) {
    let (mut author, Open { mut writer, store, .. }) = founded(place).await;
    let token =
        |hash| SessionToken { secret_hash: [hash; 32], issued_at: Position(3), expires_at: moment(9) };
    let mcp = McpSession { id_hash: [5; 32], sealed: vec![6, 7] };
    let (webhook, machine) = (Uuid::from_u128(1), Uuid::from_u128(2));
    let written = [
        SideWrite::ClientSecret { client_id: "desk".into(), secret_hash: [1; 32], before_until: None },
        SideWrite::ClientSecret {
            client_id: "desk".into(),
            secret_hash: [2; 32],
            before_until: Some(moment(70)),
        },
        SideWrite::SessionToken(ONE, token(1)),
        SideWrite::McpSession(ONE, mcp.clone()),
        SideWrite::UpstreamSecret { application: APPLICATION, sealed: Some(vec![8]) },
        SideWrite::MachineSecret { id: machine, sealed: vec![9] },
        SideWrite::WebhookSecret { id: webhook, sealed: vec![10] },
        SideWrite::AccessToken(access_token(1, 50)),
        SideWrite::AccessToken(access_token(2, 100)),
        SideWrite::AccessToken(access_token(3, 100)),
        SideWrite::BarAccessToken(Uuid::from_u128(2)),
        SideWrite::RevokeAccessToken(Uuid::from_u128(3)),
        SideWrite::Confirmation(Confirmation { session: ONE, at: moment(1), message: None }),
        SideWrite::Confirmation(Confirmation { session: ONE, at: moment(2), message: Some("late".into()) }),
    ];
    writer.commit(&beside(written)).await.unwrap();
    let secret = ClientSecret { hash: [2; 32], before: Some(([1; 32], moment(70))) };
    assert_eq!(
        store.client_secret("desk").await.unwrap(),
        Some(secret),
        "the later one, and the one before for a while"
    );
    assert_eq!(store.session_token(ONE).await.unwrap(), Some(token(1)));
    assert_eq!(store.mcp_session(ONE).await.unwrap(), Some(mcp));
    assert_eq!(store.upstream_secret(APPLICATION).await.unwrap(), Some(vec![8]));
    assert_eq!(store.machine_secret(machine).await.unwrap(), Some(vec![9]));
    let confirmations = store.confirmations(&[ONE]).await.unwrap();
    assert_eq!(confirmations, [Confirmation { session: ONE, at: moment(1), message: None }], "the first one");
    let tokens = async || {
        use futures_util::TryStreamExt;
        let mut tokens: Vec<_> = store.all_access_tokens().try_collect().await.unwrap();
        tokens.sort_by_key(|token: &AccessToken| token.id);
        tokens
    };
    let barred = AccessToken { barred: true, ..access_token(2, 100) };
    assert_eq!(tokens().await, [access_token(1, 50), barred.clone()]);
    let witnesses = store.witnesses().await.unwrap();
    assert_eq!((witnesses.people.len(), witnesses.sealed.len()), (1, 3));

    // Nothing is untold of a session that goes on.
    assert!(store.untold_mcp(SessionNumber(0), 9).await.unwrap().is_empty());
    author.disconnect(ONE);
    author.beside(SideWrite::SessionToken(ONE, token(2)));
    writer.commit(&author.done()).await.unwrap();
    let untold = store.untold_mcp(SessionNumber(0), 9).await.unwrap();
    assert_eq!(untold, [(ONE, author.sessions[&ONE].id, APPLICATION)]);
    let forgotten = [
        SideWrite::ForgetMcp(vec![ONE]),
        SideWrite::UpstreamSecret { application: APPLICATION, sealed: None },
        SideWrite::ForgetMachine(machine),
        SideWrite::ForgetTokens(moment(60)),
        SideWrite::RotateWebhookSecret { id: webhook, sealed: vec![11], before_until: Some(moment(70)) },
    ];
    writer.commit(&beside(forgotten)).await.unwrap();
    let third =
        SideWrite::ClientSecret { client_id: "desk".into(), secret_hash: [3; 32], before_until: None };
    writer.commit(&beside([third])).await.unwrap();
    let secret = ClientSecret { hash: [3; 32], before: None };
    assert_eq!(store.client_secret("desk").await.unwrap(), Some(secret), "none before it is good any more");
    assert!(store.untold_mcp(SessionNumber(0), 9).await.unwrap().is_empty());
    assert_eq!(store.mcp_session(ONE).await.unwrap().unwrap().sealed, Vec::<u8>::new());
    assert!(store.upstream_secret(APPLICATION).await.unwrap().is_none());
    assert!(store.machine_secret(machine).await.unwrap().is_none());
    assert_eq!(store.session_token(ONE).await.unwrap(), Some(token(2)));
    assert_eq!(tokens().await, [barred]);
    let rotated = WebhookSecret { sealed: vec![11], before: Some((vec![10], moment(70))) };
    assert_eq!(store.webhook_secret(webhook).await.unwrap(), Some(rotated));
    store.verify(&mut |_, _| ()).await.unwrap();
}

pub async fn people(place: &dyn Place) {
    let (_, Open { mut writer, store, .. }) = founded(place).await;
    writer.commit(&beside((2..=5).map(principal).map(SideWrite::Principal))).await.unwrap();
    let page = async |issuer, subject, after, limit| -> Vec<i64> {
        let page = store.principals(ORGANIZATION, issuer, subject, PrincipalNumber(after), limit);
        page.await.unwrap().iter().map(|row| row.principal.number.0).collect()
    };
    assert_eq!(page(None, None, 0, 3).await, [1, 2, 3]);
    assert_eq!(page(None, None, 3, 3).await, [4, 5]);
    assert_eq!(page(Some("https://issuer.example"), Some("subject 4"), 0, 9).await, [4]);
    assert!(page(Some("https://other.example"), None, 0, 9).await.is_empty());
    let describe = |name: Option<&str>, email: Option<&str>| SideWrite::DescribePrincipal {
        number: PrincipalNumber(1),
        name: name.map(str::to_owned),
        email: email.map(str::to_owned),
    };
    writer.commit(&beside([describe(Some("Ann"), None), describe(None, Some("a@example"))])).await.unwrap();
    let row = store.principal(PrincipalNumber(1)).await.unwrap().unwrap();
    assert_eq!((row.name.as_deref(), row.email.as_deref()), (Some("Ann"), Some("a@example")));
    assert_eq!(row.principal, principal(1));
    let found = async |prefixes: &[&str], after| -> Vec<i64> {
        let prefixes: Vec<_> = prefixes.iter().map(|prefix| (*prefix).to_owned()).collect();
        let page = store.principals_found(ORGANIZATION, &prefixes, PrincipalNumber(after), 9).await.unwrap();
        page.iter().map(|row| row.principal.number.0).collect()
    };
    let called = async |called: &str| -> Vec<i64> {
        let found = store.principals_called(ORGANIZATION, called, 9).await.unwrap();
        found.into_iter().map(|number| number.0).collect()
    };
    assert_eq!((found(&["an"], 0).await, found(&["ann", "exam"], 0).await), (vec![1], vec![1]));
    for (prefixes, after) in [(&["ann", "bob"][..], 0), (&["ann"], 1), (&["nn"], 0), (&["anna"], 0)] {
        assert!(found(prefixes, after).await.is_empty(), "{prefixes:?}");
    }
    assert_eq!((called("A@EXAMPLE").await, called("subject 4").await), (vec![1], vec![4]));
    assert!(called("Subject 4").await.is_empty() && called("a@").await.is_empty());

    let erased = [SideWrite::ErasePrincipal(PrincipalNumber(1)), SideWrite::ErasePersonal(vec![ONE])];
    writer.commit(&beside(erased)).await.unwrap();
    writer.maintain().await.unwrap();
    let row = store.principal(PrincipalNumber(1)).await.unwrap().unwrap();
    assert_eq!((row.name, row.email, row.principal.subject), (None, None, None));
    assert_eq!(row.principal.subject_digest, principal(1).subject_digest);
    assert!(found(&["ann"], 0).await.is_empty() && called("a@example").await.is_empty());
    assert!(called("subject 1").await.is_empty());
    let row = store.session_by_number(ONE).await.unwrap().unwrap();
    assert_eq!((row.detail.name, row.detail.client), (None, None));
    let connected = store.event(Position(3)).await.unwrap().unwrap();
    assert!(connected.recorded.personal.is_none());
    store.verify(&mut |_, _| ()).await.unwrap();
}

pub async fn sealed_anew(place: &dyn Place) {
    let (_, Open { mut writer, store, .. }) = founded(place).await;
    let (webhook, machine) = (Uuid::from_u128(1), Uuid::from_u128(2));
    let written = [
        SideWrite::WebhookSecret { id: webhook, sealed: vec![1] },
        SideWrite::RotateWebhookSecret { id: webhook, sealed: vec![2], before_until: Some(moment(9)) },
        SideWrite::MachineSecret { id: machine, sealed: vec![3] },
        SideWrite::McpSession(ONE, McpSession { id_hash: [9; 32], sealed: vec![4] }),
        SideWrite::UpstreamSecret { application: APPLICATION, sealed: Some(vec![5]) },
    ];
    writer.commit(&beside(written)).await.unwrap();
    let all = async || {
        let mut all: Vec<Sealed> = store.all_sealed().try_collect().await.unwrap();
        all.sort_by_key(|one| one.bytes.clone());
        all
    };
    let before = all().await;
    let kinds: Vec<_> = before.iter().map(|one| (one.kind, one.bytes[0])).collect();
    use SealedFor::{Machine, McpSession as Gateway, Upstream, Webhook, WebhookBefore};
    assert_eq!(kinds, [(WebhookBefore, 1), (Webhook, 2), (Machine, 3), (Gateway, 4), (Upstream, 5)]);
    let anew = |one: Sealed| SideWrite::Reseal(Sealed { bytes: vec![one.bytes[0] + 10], ..one });
    let known = Uuid::from_u128(77);
    let redigest =
        SideWrite::Redigest { number: PrincipalNumber(1), subject_digest: [7; 32], kept_id: known };
    writer.commit(&beside(before.into_iter().map(anew).chain([redigest]))).await.unwrap();
    assert_eq!(all().await.iter().map(|one| one.bytes[0]).collect::<Vec<_>>(), [11, 12, 13, 14, 15]);
    let row = store.principal(PrincipalNumber(1)).await.unwrap().unwrap();
    assert_eq!((row.principal.id(), row.principal.subject_digest), (known, [7; 32]));
    // What is forgotten is sealed no more.
    let forgotten = [
        SideWrite::ForgetWebhook(webhook),
        SideWrite::ForgetMachine(machine),
        SideWrite::ForgetMcp(vec![ONE]),
        SideWrite::UpstreamSecret { application: APPLICATION, sealed: None },
    ];
    writer.commit(&beside(forgotten)).await.unwrap();
    assert_eq!(all().await, []);
}

pub async fn outcomes(place: &dyn Place) {
    let (_, Open { mut writer, store, .. }) = founded(place).await;
    let outcome = |key: u8, at: i64, done: &str| RecordedOutcome {
        key: [key; 32],
        fingerprint: [2; 32],
        salt: [3; 16],
        done: done.into(),
        session: Some(ONE),
        recorded_at: moment(at),
    };
    let write =
        |outcome: &RecordedOutcome| beside([principal_of(outcome), SideWrite::Outcome(outcome.clone())]);
    let first = outcome(1, 0, "once");
    writer.commit(&write(&first)).await.unwrap();
    let kept = (KEPT - TimeDelta::milliseconds(1)).num_milliseconds();
    let again = outcome(1, kept, "twice");
    assert!(matches!(writer.commit(&write(&again)).await, Err(StoreError::Failed(_))));
    assert_eq!(store.outcome(&[1; 32]).await.unwrap(), Some(first));
    assert!(store.principal(number_of(&again)).await.unwrap().is_none(), "nothing of the batch");
    let later = outcome(1, kept + 1, "a day later");
    writer.commit(&write(&later)).await.unwrap();
    assert_eq!(store.outcome(&[1; 32]).await.unwrap(), Some(later.clone()));

    assert!(!store.has_outcomes(moment(kept)).await.unwrap());
    assert!(store.has_outcomes(later.recorded_at).await.unwrap());
    writer.commit(&beside([SideWrite::ForgetOutcomes(later.recorded_at)])).await.unwrap();
    assert!(store.outcome(&[1; 32]).await.unwrap().is_none());
}

/// A write that shows whether an outcome's batch was written.
fn principal_of(outcome: &RecordedOutcome) -> SideWrite {
    SideWrite::Principal(principal(number_of(outcome).0))
}

fn number_of(outcome: &RecordedOutcome) -> PrincipalNumber {
    PrincipalNumber(100 + outcome.done.len() as i64)
}

pub async fn deliveries(place: &dyn Place) {
    let (_, Open { mut writer, store, .. }) = founded(place).await;
    let (webhook, deleted) = (Uuid::from_u128(1), Uuid::from_u128(2));
    let delivery = |position: i64, status: DeliveryStatus| Delivery {
        webhook,
        position: Position(position),
        stream: "session 1".into(),
        attempts: 1,
        next_at: (status == DeliveryStatus::Pending).then(|| moment(5)),
        delivered_at: (status == DeliveryStatus::Delivered).then(|| moment(4)),
        failed_at: (status == DeliveryStatus::Failed).then(|| moment(4)),
        status: Some(500),
        error: Some("no".into()),
        created_at: moment(1),
        updated_at: moment(position),
    };
    let stand = |rows: Vec<Delivery>, progress| SideWrite::Deliveries { rows, progress };
    writer.commit(&beside([SideWrite::WebhookSecret { id: webhook, sealed: vec![1] }])).await.unwrap();
    let rows = vec![
        delivery(1, DeliveryStatus::Pending),
        delivery(2, DeliveryStatus::Failed),
        delivery(3, DeliveryStatus::Pending),
        delivery(4, DeliveryStatus::Pending),
    ];
    let of_deleted = Delivery { webhook: deleted, ..delivery(1, DeliveryStatus::Pending) };
    let batch = [
        stand(rows.clone(), vec![(webhook, Position(4)), (deleted, Position(4))]),
        stand(vec![of_deleted, delivery(3, DeliveryStatus::Delivered)], vec![(webhook, Position(5))]),
    ];
    writer.commit(&beside(batch)).await.unwrap();
    assert_eq!(store.webhook_progress().await.unwrap(), [(webhook, Position(5))]);
    assert_eq!(store.pending_deliveries(webhook).await.unwrap(), [rows[0].clone(), rows[3].clone()]);
    let position = Position(3);
    assert_eq!(
        store.delivery(webhook, position).await.unwrap(),
        Some(delivery(3, DeliveryStatus::Delivered))
    );
    assert!(store.delivery(deleted, Position(1)).await.unwrap().is_none());
    let page = async |status, before, limit| -> Vec<i64> {
        let page = store.deliveries(webhook, status, Position(before), limit).await.unwrap();
        page.iter().map(|delivery| delivery.position.0).collect()
    };
    assert_eq!(page(None, i64::MAX, 3).await, [4, 3, 2]);
    assert_eq!(page(None, 2, 3).await, [1]);
    assert_eq!(page(Some(DeliveryStatus::Pending), i64::MAX, 3).await, [4, 1]);
    assert_eq!(page(Some(DeliveryStatus::Delivered), i64::MAX, 3).await, [3]);
    assert_eq!(page(Some(DeliveryStatus::Failed), i64::MAX, 3).await, [2]);

    let forget = SideWrite::ForgetDeliveries { before: moment(10), failed_before: moment(0) };
    writer.commit(&beside([forget])).await.unwrap();
    assert_eq!(page(None, i64::MAX, 9).await, [4, 2, 1], "what failed is kept for longer");
    writer.commit(&beside([SideWrite::ForgetWebhook(webhook)])).await.unwrap();
    let late = stand(vec![delivery(9, DeliveryStatus::Pending)], vec![(webhook, Position(9))]);
    writer.commit(&beside([late, SideWrite::ForgetDeliveriesOf(webhook)])).await.unwrap();
    assert!(store.webhook_progress().await.unwrap().is_empty());
    assert!(page(None, i64::MAX, 9).await.is_empty());
    assert!(store.webhook_secret(webhook).await.unwrap().is_none());
}
