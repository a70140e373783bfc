//! What happens when a receiver does not take what it gets.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};
use sessiond_core::delivery::RETRIES;

use super::{Answer, Made, Receiver, deliveries, last_of, server, webhook};
use crate::support::{Holder, Server};

async fn connects(operator: &Holder, receiver: &Receiver) -> Made {
    webhook(operator, json!({ "url": receiver.url(), "types": ["connected"] })).await
}

async fn shown(operator: &Holder, made: &Made) -> Value {
    operator.get(&made.path).await.1["webhook"].clone()
}

/// How often the newest delivery was tried.
async fn attempts(operator: &Holder, made: &Made) -> u64 {
    let all = deliveries(operator, made, "").await;
    all.first().and_then(|newest| newest["attempts"].as_u64()).unwrap_or(0)
}

async fn until_disabled(server: &Server, operator: &Holder, made: &Made, because: &str) {
    server
        .until("the webhook to be disabled", || async {
            shown(operator, made).await["disabledBecause"] == because
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_is_tried_ten_times_over_days_then_given_up_and_the_webhook_disabled() {
    let server = server().await;
    let operator = server.operator().await;
    let receiver = Receiver::that(|_, _| Answer::Status(500)).await;
    let made = connects(&operator, &receiver).await;
    operator.connect(json!({})).await;
    for (attempt, delay) in RETRIES.iter().enumerate() {
        receiver.until(attempt + 1).await;
        server
            .until("the attempt on record", || async {
                attempts(&operator, &made).await == attempt as u64 + 1
            })
            .await;
        // Not before nine tenths of the delay have passed, and not after eleven; time goes on by itself, too.
        let early = delay * 9 / 10 - 3;
        server.turn(early);
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        assert_eq!(receiver.taken().len(), attempt + 1, "too early after attempt {}", attempt + 1);
        server.turn(delay * 11 / 10 + 1 - early);
    }
    receiver.until(10).await;
    until_disabled(&server, &operator, &made, "failing").await;
    server
        .until("that it was given up on record", || async {
            !deliveries(&operator, &made, "&status=failed").await.is_empty()
        })
        .await;
    let failed = &deliveries(&operator, &made, "&status=failed").await[0];
    assert_eq!((&failed["attempts"], &failed["lastStatus"]), (&json!(10), &json!(500)));
    assert_eq!(failed["nextAttemptAt"], Value::Null);
    // Enabled and sent again by hand, it arrives.
    receiver.now_answers(|_, _| Answer::Status(200));
    operator.patch(&made.path, json!({ "enabled": true })).await;
    let resend = format!("{}/deliveries/{}/resend", made.path, failed["position"]);
    assert_eq!(operator.post(&resend, json!({})).await.0, 202);
    let taken = receiver.until(11).await;
    assert!(taken.iter().all(|one| one.header("webhook-id") == taken[0].header("webhook-id")));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_is_gone_disables_its_webhook_and_enabling_it_resumes() {
    let server = server().await;
    let operator = server.operator().await;
    let receiver = Receiver::that(|_, _| Answer::Status(410)).await;
    let made = connects(&operator, &receiver).await;
    let first = operator.connect(json!({})).await;
    until_disabled(&server, &operator, &made, "gone").await;
    let meanwhile = operator.connect(json!({})).await;
    let before = receiver.taken().len();
    receiver.now_answers(|_, _| Answer::Status(200));
    server.turn(48 * 3_600);
    tokio::time::sleep(std::time::Duration::from_millis(600)).await;
    assert_eq!(receiver.taken().len(), before, "nothing is sent while it is disabled");
    operator.patch(&made.path, json!({ "enabled": true })).await;
    let taken = receiver.until(before + 2).await;
    for agent in [first, meanwhile] {
        assert!(taken.iter().any(|taken| taken.accepted && taken.json()["subject"] == agent.id));
    }
    let log = server.log().await;
    let disabled = log.iter().find(|(name, _)| name == "webhook_disabled").unwrap();
    assert_eq!(disabled.1, json!({ "because": "gone" }));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_asks_to_wait_is_left_alone_so_long() {
    let server = server().await;
    let operator = server.operator().await;
    let receiver = Receiver::that(|_, _| Answer::RetryAfter(503, 600)).await;
    let made = connects(&operator, &receiver).await;
    operator.connect(json!({})).await;
    receiver.until(1).await;
    server.until("the attempt on record", || async { attempts(&operator, &made).await == 1 }).await;
    // Another event waits too: it is the endpoint that asked.
    operator.connect(json!({})).await;
    server.turn(590);
    tokio::time::sleep(std::time::Duration::from_millis(600)).await;
    assert_eq!(receiver.taken().len(), 1);
    receiver.now_answers(|_, _| Answer::Status(200));
    server.turn(11);
    receiver.until(3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_is_a_failure_and_is_not_followed() {
    let server = server().await;
    let operator = server.operator().await;
    let receiver = Receiver::that(|_, _| Answer::Redirect).await;
    let made = connects(&operator, &receiver).await;
    operator.connect(json!({})).await;
    server
        .until("the attempt on record", || async {
            let delivery = deliveries(&operator, &made, "").await;
            delivery.first().is_some_and(|one| one["lastStatus"] == json!(307))
        })
        .await;
    let error = deliveries(&operator, &made, "").await[0]["lastError"].clone();
    assert_eq!(error, "answered 307: redirects are not followed");
    assert_eq!(receiver.taken().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_hangs_does_not_keep_others_waiting() {
    let server = server().await;
    let operator = server.operator().await;
    let hanging = Receiver::that(|_, _| Answer::Hang).await;
    let receiver = Receiver::start().await;
    let made = connects(&operator, &hanging).await;
    connects(&operator, &receiver).await;
    operator.connect_many(20).await;
    let began = std::time::Instant::now();
    receiver.until(20).await;
    assert!(began.elapsed().as_secs() < 5, "{:?}", began.elapsed());
    server
        .until("a time-out on record", || async {
            let all = deliveries(&operator, &made, "").await;
            all.iter().any(|one| one["lastError"] == "no answer within 1 s")
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_happens_to_a_webhook_is_not_told_to_itself() {
    let server = server().await;
    let operator = server.operator().await;
    let (receiver, watcher) = (Receiver::start().await, Receiver::start().await);
    let all =
        json!({ "url": watcher.url(), "types": ["webhook_changed", "webhook_disabled", "webhook_enabled"] });
    webhook(&operator, all).await;
    let made = webhook(&operator, json!({ "url": receiver.url() })).await;
    operator.patch(&made.path, json!({ "description": "noisy" })).await;
    operator.patch(&made.path, json!({ "enabled": false })).await;
    operator.patch(&made.path, json!({ "enabled": true })).await;
    let agent = operator.connect(json!({})).await;
    watcher.until(3).await;
    let last = last_of(&server.database(), "connected").await;
    let taken =
        receiver.until_that("the connect", |taken| taken.iter().any(|taken| taken.position() == last)).await;
    assert!(taken.iter().all(|taken| !taken.event().starts_with("webhook_")), "{taken:?}");
    assert!(taken.iter().any(|taken| taken.json()["subject"] == agent.id));
    assert_eq!(watcher.taken()[0].json()["subject"], made.id);
}

#[tokio::test(flavor = "multi_thread")]
async fn old_deliveries_are_forgotten_and_failed_ones_later() {
    let server = server().await;
    let operator = server.operator().await;
    let receiver = Receiver::start().await;
    let made = connects(&operator, &receiver).await;
    operator.connect(json!({})).await;
    server
        .until("it on record", || async {
            deliveries(&operator, &made, "&status=delivered").await.len() == 1
        })
        .await;
    let directory = server.running.as_ref().unwrap().house.directory.clone();
    directory.webhooks.forget_deliveries().await.unwrap();
    assert_eq!(deliveries(&operator, &made, "").await.len(), 1);
    server.turn(8 * 24 * 3_600);
    directory.webhooks.forget_deliveries().await.unwrap();
    assert!(deliveries(&operator, &made, "").await.is_empty());
    // Of a webhook that is deleted, at once.
    operator.connect(json!({})).await;
    server.until("another on record", || async { deliveries(&operator, &made, "").await.len() == 1 }).await;
    assert_eq!(operator.delete(&made.path).await.0, 204);
    directory.webhooks.forget_deliveries().await.unwrap();
    let mut inside = server.look_inside().await;
    for table in ["webhook_secret", "webhook_progress", "webhook_delivery"] {
        let left = inside.number(&format!("select count(*) from {table}"), &[]).await;
        assert_eq!(left, 0, "{table}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn when_an_endpoint_that_was_down_is_back_nothing_waits_any_longer() {
    let server = server().await;
    let operator = server.operator().await;
    let receiver = Receiver::that(|_, _| Answer::Status(503)).await;
    let made = connects(&operator, &receiver).await;
    operator.connect_many(8).await;
    receiver.until(8).await;
    server
        .until("all attempts on record", || async {
            let all = deliveries(&operator, &made, "&status=pending").await;
            all.len() == 8 && all.iter().all(|one| one["attempts"].as_u64() >= Some(1))
        })
        .await;
    server.turn(6);
    receiver.until(16).await;
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    receiver.now_answers(|_, _| Answer::Status(200));
    // Those wait for five minutes more; this one shows that they need not.
    operator.connect(json!({})).await;
    receiver.until(25).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_of_what_was_let_go_is_dropped_and_is_no_failure_of_its_webhook() {
    let server = server().await;
    let operator = server.operator().await;
    let down = Arc::new(AtomicBool::new(true));
    let is_down = down.clone();
    let status = move || if is_down.load(Ordering::Relaxed) { 500 } else { 204 };
    let receiver = Receiver::that(move |_, _| Answer::Status(status())).await;
    let made = connects(&operator, &receiver).await;
    let agent = operator.connect(json!({})).await;
    agent.call("disconnect").await;
    server.until("the attempt on record", || async { attempts(&operator, &made).await == 1 }).await;
    let (set, _) = operator.put("/api/v1/organization/retention", json!({ "endedAfter": 60 })).await;
    assert_eq!(set, 200);
    server.turn(61);
    server
        .until_within(30, "the session to be let go", || async { operator.get(&agent.path()).await.0 == 404 })
        .await;
    down.store(false, Ordering::Relaxed);
    let later = operator.connect(json!({})).await;
    server.turn(1_800);
    receiver
        .until_that("what came later", |taken| {
            taken.iter().any(|one| one.json()["data"]["sessionId"] == later.id)
        })
        .await;
    server
        .until("that to be all there is", || async {
            let all = deliveries(&operator, &made, "").await;
            all.len() == 1 && !all[0]["deliveredAt"].is_null()
        })
        .await;
    assert!(shown(&operator, &made).await["disabledBecause"].is_null());
}
