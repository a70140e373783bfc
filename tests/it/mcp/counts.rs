//! What was counted is on record with the end, whoever ends the session and however soon.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::{Client, House, Stream};

/// Calls that are made within the window in which traffic waits to become an event.
const CALLS: u64 = 20;

async fn calls(client: &Client) {
    for _ in 0..CALLS {
        assert_eq!(client.call("echo").await.0, StatusCode::OK);
    }
}

/// What the one session of a house came to: as it is shown, as its row has it after a restart, and as its events add up.
async fn figures(house: House) -> Value {
    let shown = house.sessions().await[0].clone();
    assert_eq!(shown["derivedStatus"], "disconnected", "{shown}");
    let log = house.server.log().await;
    let activity: Vec<&Value> =
        log.iter().filter(|(name, _)| name == "activity_recorded").map(|(_, body)| body).collect();
    let sum: u64 = activity.iter().filter_map(|body| body["requests"].as_u64()).sum();
    assert_eq!(json!(sum), shown["activity"]["requests"], "{log:?}");
    let last = log.iter().rposition(|(name, _)| name == "activity_recorded").unwrap();
    assert!(last < log.iter().rposition(|(name, _)| name == "disconnected").unwrap(), "{log:?}");
    let house = house.restart().await;
    assert_eq!(house.sessions().await[0]["activity"], shown["activity"], "after a restart");
    shown["activity"].clone()
}

async fn ended(by: impl AsyncFnOnce(&House, &Client)) {
    let (house, _upstream) = House::with_fake(&["--absolute-lifetime", "10m"]).await;
    let client = house.connect().await;
    calls(&client).await;
    by(&house, &client).await;
    let figures = figures(house).await;
    // The handshake is a request too.
    assert_eq!(figures["requests"], CALLS + 1, "{figures}");
    assert!(figures["bytesIn"].as_u64().unwrap() > CALLS * 80, "{figures}");
    assert!(figures["bytesOut"].as_u64().unwrap() > CALLS * 60, "{figures}");
}

async fn id(house: &House) -> String {
    house.sessions().await[0]["id"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminated_sessions_figures_are_whole() {
    ended(async |house, _| house.terminate(&id(house).await).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_sessions_figures_are_whole() {
    ended(async |house, _| {
        let path = format!("/api/v1/applications/{}/sessions/{}", house.application, id(house).await);
        assert_eq!(house.operator.delete(&path).await.0, 200);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_figures_of_sessions_that_are_all_revoked_are_whole() {
    ended(async |house, _| assert_eq!(house.revoke_all().await["disconnectedCount"], 1)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_figures_of_sessions_that_a_filter_revokes_are_whole() {
    ended(async |house, _| {
        let body = json!({ "filter": { "hostname": "laptop" } });
        assert!(house.operator.post("/api/v1/revocations", body).await.0.is_success());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_figures_of_an_archived_applications_sessions_are_whole() {
    ended(async |house, _| {
        let path = format!("/api/v1/applications/{}", house.application);
        assert!(house.operator.delete(&path).await.0.is_success());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_figures_of_one_that_says_goodbye_are_whole() {
    ended(async |_, client| {
        assert_eq!(client.request(Method::DELETE).send().await.unwrap().status(), StatusCode::NO_CONTENT);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_figures_of_one_that_reaches_its_lifetime_are_whole() {
    ended(async |house, _| {
        house.server.turn(601);
        let over = async || house.sessions().await[0]["derivedStatus"] == "disconnected";
        house.server.until("the end", over).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_of_an_answer_that_is_cut_off_are_counted_as_far_as_they_were_handed_on() {
    let (house, _upstream) = House::with_fake(&[]).await;
    let client = house.connect().await;
    let mut stream = Stream::of(client.begin(json!(1), "hang in an event").await);
    stream.until(&"x".repeat(1_000_000)).await;
    house.terminate(&id(&house).await).await;
    assert!(stream.end().await);
    let figures = figures(house).await;
    assert!(figures["bytesOut"].as_u64().unwrap() > 1_000_000, "{figures}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_operator_does_is_no_sign_of_life() {
    let (house, _upstream) = House::with_fake(&[]).await;
    let client = house.connect().await;
    calls(&client).await;
    let before = house.sessions().await[0]["lastActiveAt"].clone();
    house.server.turn(60);
    house.terminate(&id(&house).await).await;
    assert_eq!(house.sessions().await[0]["lastActiveAt"], before);
}
