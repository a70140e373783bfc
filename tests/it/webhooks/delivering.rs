//! What arrives, in which form, order and number.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use standardwebhooks::Webhook;

use super::{Answer, Receiver, Taken, committed_after, deliveries, last_of, server, webhook, webhook_to};
use crate::support::Server;

#[tokio::test(flavor = "multi_thread")]
async fn an_event_arrives_as_a_signed_cloud_event() {
    let server = server().await;
    let operator = server.operator().await;
    let receiver = Receiver::start().await;
    let made = webhook_to(&operator, &receiver).await;
    let agent = operator.connect(json!({ "name": "build agent" })).await;
    let taken =
        receiver.until_that("a connect", |taken| taken.iter().any(|taken| taken.event() == "connected"));
    let taken = taken.await;
    let taken = taken.iter().find(|taken| taken.event() == "connected").unwrap();
    Webhook::new(&made.secret).unwrap().verify(&taken.body, &taken.headers).unwrap();
    assert_eq!(taken.header("content-type"), "application/cloudevents+json");
    assert!(taken.header("user-agent").starts_with("sessiond/"));
    let body = taken.json();
    let sequence = format!("{:020}", last_of(&server.database(), "connected").await);
    let id = taken.header("webhook-id").to_owned();
    let (position, hash) = id.strip_prefix("evt_").unwrap().split_once('_').unwrap();
    assert_eq!(position, sequence);
    let (_, history) = operator.get(&format!("{}/history", agent.path())).await;
    let whole = history["items"].as_array().unwrap().last().unwrap()["hash"].as_str().unwrap().to_owned();
    assert!(hash.len() == 16 && whole.starts_with(hash), "{id}: another log has other hashes: {whole}");
    assert_eq!((&body["specversion"], &body["id"]), (&json!("1.0"), &json!(id)));
    assert_eq!((&body["sequence"], &body["subject"]), (&json!(sequence), &json!(agent.id)));
    assert_eq!(body["type"], "dev.sessiond.session.connected.v1");
    assert_eq!(body["datacontenttype"], "application/json");
    let source = body["source"].as_str().unwrap();
    let begin = format!("{}/organizations/", server.url(""));
    assert!(source.starts_with(&begin), "{source}");
    assert!(source.ends_with(&format!("/applications/{}", agent.application)), "{source}");
    assert_eq!(
        (&body["time"], &body["recordedtime"]),
        (&body["data"]["occurredAt"], &body["data"]["recordedAt"])
    );
    assert_eq!(body["data"]["sessionId"], agent.id);
    assert!(!String::from_utf8_lossy(&taken.body).contains("build agent"), "a name is a personal fact");
    let known: Vec<_> = body.as_object().unwrap().keys().map(String::as_str).collect();
    assert!(known.iter().all(|name| name.bytes().all(|byte| byte.is_ascii_lowercase())), "{known:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_is_asked_for_arrives_and_only_what_happened_after_the_webhook() {
    let server = server().await;
    let operator = server.operator().await;
    let receiver = Receiver::start().await;
    operator.connect(json!({})).await;
    let (_, other) = operator.post("/api/v1/applications", json!({ "name": "other" })).await;
    let other = other["application"]["id"].as_str().unwrap().to_owned();
    let body =
        json!({ "url": receiver.url(), "applicationId": other, "types": ["connected", "activity_recorded"] });
    let made = webhook(&operator, body).await;
    let elsewhere = operator.connect(json!({})).await;
    let agent = operator.connect(json!({ "applicationId": other })).await;
    assert_eq!(agent.application, other);
    for agent in [&elsewhere, &agent] {
        let (status, _) = agent
            .holder
            .post(&format!("/api/v1/agent-sessions/{}/activity", agent.id), json!({ "requests": 3 }))
            .await;
        assert!(status.is_success());
        agent.call("disconnect").await;
    }
    receiver.until(2).await;
    operator.connect(json!({ "applicationId": other })).await;
    let taken = receiver.until(3).await;
    let events: Vec<_> = taken.iter().map(Taken::event).collect();
    assert_eq!(events, ["connected", "activity_recorded", "connected"]);
    operator.patch(&made.path, json!({ "types": ["disconnected"] })).await;
    operator.connect(json!({ "applicationId": other })).await.call("disconnect").await;
    let taken = receiver.until(4).await;
    assert_eq!(taken[3].event(), "disconnected");
}

/// Lets time pass, by as much as the second retry waits for, until something is so; up to three minutes of ours.
async fn in_the_end(server: &Server, done: impl Fn() -> bool) {
    for _ in 0..600 {
        if done() {
            return;
        }
        server.turn(330);
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_delivered_equals_what_was_committed_whatever_the_receiver_does() {
    let server = server().await;
    let operator = server.operator().await;
    // Hangs now and then, redirects, fails, and takes most.
    let mut receiver = Receiver::that(|_, before| match before % 11 {
        3 => Answer::Redirect,
        5 => Answer::Status(500),
        7 if before < 40 => Answer::Hang,
        9 => Answer::Status(404),
        _ => Answer::Status(200),
    })
    .await;
    let made = webhook_to(&operator, &receiver).await;
    let from = last_of(&server.database(), "webhook_created").await;
    let agents = operator.connect_many(60).await;
    receiver.until(30).await;
    receiver.close();
    for agent in &agents[..40] {
        assert_eq!(agent.call("disconnect").await.0, 200);
    }
    receiver.open().await;
    let committed = committed_after(&server.database(), from).await;
    in_the_end(&server, || receiver.positions() == committed).await;
    assert_eq!(receiver.positions(), committed);
    in_order(&receiver.accepted());
    same_id_each_time(&receiver.taken());
    let (operator, made) = (&operator, &made);
    server
        .until("every delivery on record", || async {
            deliveries(operator, made, "&status=delivered").await.len() == committed.len()
        })
        .await;
    assert!(deliveries(operator, made, "&status=pending").await.is_empty());
    let first = &deliveries(operator, made, "").await[0];
    assert_eq!(first["position"], *committed.last().unwrap());
}

/// Of each session, events were accepted in their order, duplicates aside.
pub fn in_order(accepted: &[Taken]) {
    let mut last: BTreeMap<String, i64> = BTreeMap::new();
    let mut seen = std::collections::BTreeSet::new();
    for taken in accepted {
        let (subject, position) = (taken.json()["subject"].to_string(), taken.position());
        if seen.insert(position) {
            let before = last.insert(subject.clone(), position).unwrap_or(0);
            assert!(before < position, "{subject}: {position} after {before}");
        }
    }
}

fn same_id_each_time(taken: &[Taken]) {
    let mut ids: BTreeMap<i64, String> = BTreeMap::new();
    for taken in taken {
        let id = taken.header("webhook-id").to_owned();
        assert_eq!(*ids.entry(taken.position()).or_insert(id.clone()), id);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_later_event_of_a_session_waits_for_the_earlier_one_and_other_sessions_do_not() {
    let server = server().await;
    let operator = server.operator().await;
    let receiver = Receiver::that(|_, _| Answer::Status(500)).await;
    let made =
        webhook(&operator, json!({ "url": receiver.url(), "types": ["connected", "disconnected"] })).await;
    let held = operator.connect(json!({})).await;
    receiver.until(1).await;
    let held_id = held.id.clone();
    receiver.now_answers(move |taken, _| match taken.json()["subject"] == held_id {
        true => Answer::Status(500),
        false => Answer::Status(200),
    });
    held.call("disconnect").await;
    let other = operator.connect(json!({})).await;
    other.call("disconnect").await;
    let of = |taken: &[Taken], id: &str| -> Vec<String> {
        let of = taken.iter().filter(|one| one.accepted && one.json()["subject"] == id);
        of.map(Taken::event).collect()
    };
    let in_order = ["connected", "disconnected"];
    receiver.until_that("the other's", |taken| of(taken, &other.id) == in_order).await;
    // What is on record comes a moment after what happens, and one thing at a time.
    server
        .until("what waits on record", || async {
            let pending = deliveries(&operator, &made, "&status=pending").await;
            // However often the first was tried by now.
            pending.len() == 2
                && pending.iter().any(|one| one["attempts"] == 0)
                && pending.iter().any(|one| one["lastError"] == "answered 500")
        })
        .await;
    let later = |taken: &&Taken| taken.event() == "disconnected" && taken.json()["subject"] == held.id;
    assert_eq!(receiver.taken().iter().filter(later).count(), 0, "it waits");
    receiver.now_answers(|_, _| Answer::Status(200));
    server.turn(400);
    receiver.until_that("both in order", |taken| of(taken, &held.id) == in_order).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_asked_for_again_while_it_is_under_way_is_sent_again() {
    let server = server().await;
    let operator = server.operator().await;
    let receiver =
        Receiver::that(|_, before| if before == 0 { Answer::Slow(700) } else { Answer::Status(200) }).await;
    let made = webhook(&operator, json!({ "url": receiver.url(), "types": ["connected"] })).await;
    operator.connect(json!({})).await;
    let first = receiver.until(1).await[0].clone();
    let resend = format!("{}/deliveries/{}/resend", made.path, first.position());
    assert_eq!(operator.post(&resend, json!({})).await.0, 202);
    receiver.until(2).await;
    server
        .until("it on record", || async {
            deliveries(&operator, &made, "&status=delivered").await.len() == 1
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_rotation_both_secrets_sign_for_a_day_and_then_the_new_one_alone() {
    let server = server().await;
    let operator = server.operator().await;
    let receiver = Receiver::start().await;
    let made = webhook(&operator, json!({ "url": receiver.url(), "types": ["connected"] })).await;
    let (status, rotated) = operator.post(&format!("{}/rotate-secret", made.path), json!({})).await;
    assert_eq!(status, 200, "{rotated}");
    let new = rotated["secret"].as_str().unwrap();
    assert_ne!(new, made.secret);
    operator.connect(json!({})).await;
    let taken = &receiver.until(1).await[0];
    let both = format!("{} {}", taken.signature(new), taken.signature(&made.secret));
    assert_eq!(taken.header("webhook-signature"), both);
    for secret in [new, &made.secret] {
        Webhook::new(secret).unwrap().verify(&taken.body, &taken.headers).unwrap();
    }
    server.turn(24 * 3_600 + 1);
    server.operator().await.connect(json!({})).await;
    let taken = &receiver.until(2).await[1];
    assert_eq!(taken.header("webhook-signature"), taken.signature(new));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_can_be_sent_again_and_keeps_its_id() {
    let server = server().await;
    let operator = server.operator().await;
    let receiver = Receiver::start().await;
    let made = webhook(&operator, json!({ "url": receiver.url(), "types": ["connected"] })).await;
    operator.connect(json!({})).await;
    let first = receiver.until(1).await[0].clone();
    let resend = format!("{}/deliveries/{}/resend", made.path, first.position());
    let (status, answer) = operator.post(&resend, json!({})).await;
    assert_eq!((status.as_u16(), &answer["delivery"]["status"]), (202, &json!("pending")), "{answer}");
    let again = receiver.until(2).await[1].clone();
    assert_eq!((again.header("webhook-id"), &again.body), (first.header("webhook-id"), &first.body));
    let missing = format!("{}/deliveries/1/resend", made.path);
    assert_eq!(operator.post(&missing, json!({})).await.0, 404);
    assert_eq!(operator.post(&format!("{}/deliveries/x/resend", made.path), json!({})).await.0, 400);
    operator.patch(&made.path, json!({ "enabled": false })).await;
    let (status, answer) = operator.post(&resend, json!({})).await;
    assert_eq!((status.as_u16(), &answer["code"]), (409, &Value::from("webhook_disabled")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_sends_what_waits_and_nothing_twice() {
    let server = server().await;
    let operator = server.operator().await;
    let receiver = Receiver::start().await;
    let made = webhook_to(&operator, &receiver).await;
    let from = last_of(&server.database(), "webhook_created").await;
    operator.connect_many(20).await;
    receiver.until(20).await;
    receiver.now_answers(|_, _| Answer::Status(500));
    let late = operator.connect(json!({})).await;
    receiver.until(21).await;
    let server = server.restart().await;
    receiver.now_answers(|_, _| Answer::Status(200));
    // However often it was tried before the restart.
    let came = |taken: &Taken| taken.accepted && taken.json()["subject"] == late.id;
    in_the_end(&server, || receiver.taken().iter().any(came)).await;
    let committed = committed_after(&server.database(), from).await;
    assert_eq!(receiver.positions(), committed);
    assert_eq!(receiver.accepted().len(), committed.len());
    let operator = server.operator().await;
    server
        .until("all on record", || async {
            deliveries(&operator, &made, "&status=delivered").await.len() == committed.len()
        })
        .await;
}
