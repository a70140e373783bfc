//! What is left of sessions that have ended: no task, whatever their kind and however they ended.

use reqwest::Method;
use serde_json::json;

use super::{House, Stream};
use crate::support::Feed;

fn tasks() -> usize {
    tokio::runtime::Handle::current().metrics().num_alive_tasks()
}

/// The session that an agent or client has opened last.
async fn last(house: &House) -> String {
    let path = format!("/api/v1/applications/{}/sessions", house.application);
    let (_, body) = house.operator.get(&path).await;
    body["items"][0]["id"].as_str().unwrap().to_owned()
}

/// A session of the gateway with a standalone stream, ended in some way.
async fn gateway_session(house: &House, way: &str) {
    let client = house.connect().await;
    let mut standalone = Stream::of(client.listen().await);
    client.call("echo").await;
    match way {
        "deleted" => {
            client.request(Method::DELETE).send().await.unwrap();
        }
        "terminated" => house.terminate(&last(house).await).await,
        _ => {
            house.revoke_all().await;
        }
    }
    standalone.end().await;
}

/// An agent's session with a feed of its own, ended in some way.
async fn agents_session(house: &House, way: &str) {
    // After a revocation older credentials open nothing.
    let agent = house.server.operator().await.connect(json!({ "name": "agent" })).await;
    let path = format!("/api/v1/agent-sessions/{}/events", agent.id);
    let mut feed = Feed::open(&agent.holder, &path, None).await;
    match way {
        "deleted" => {
            agent.call("disconnect").await;
        }
        "terminated" => house.terminate(&agent.id).await,
        _ => {
            house.revoke_all().await;
        }
    }
    while feed.next().await.is_some_and(|frame| frame.event != "disconnected") {}
}

const WAYS: [&str; 3] = ["deleted", "terminated", "revoked"];

#[tokio::test(flavor = "multi_thread")]
async fn sessions_of_agents_and_of_the_gateway_leave_no_task_behind() {
    let (house, _upstream) = House::with_fake(&[]).await;
    for way in WAYS {
        gateway_session(&house, way).await;
        agents_session(&house, way).await;
    }
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    let before = tasks();
    for way in WAYS {
        for _ in 0..10 {
            gateway_session(&house, way).await;
            agents_session(&house, way).await;
        }
    }
    let (_, open) = house.operator.get(&format!("/api/v1/applications/{}/sessions", house.application)).await;
    assert_eq!(open["items"], json!([]));
    // Connections between the two ends come and go; sixty sessions had at least three tasks each.
    house.server.until("their tasks have ended", async || tasks() <= before + 15).await;
}
