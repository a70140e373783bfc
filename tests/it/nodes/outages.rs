//! Nodes that are killed, paused or cut off.

use std::time::{Duration, Instant};

use reqwest::StatusCode;
use serde_json::json;

use super::Cluster;
use crate::support::Feed;

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_killed_takes_nothing_with_it_that_was_answered() {
    let mut cluster = Cluster::of(3).await;
    let application = cluster.application().await;
    let mut sessions = vec![];
    for round in 0..4 {
        for one in 0..12 {
            let body = json!({ "applicationId": application, "name": format!("{round} {one}") });
            sessions.push(cluster.at(one % 3).connect(body).await);
        }
        let killed = cluster.nodes.pop().unwrap();
        killed.kill();
        for session in &sessions {
            let holder = cluster.moved(&session.holder, round % 2);
            assert_eq!(session.call_as(&holder, "heartbeat").await.0, StatusCode::OK);
        }
        cluster.start().await;
    }
    // The lease of the one that was killed last may not have run out: who revokes waits for that, and no longer.
    let begun = Instant::now();
    let (status, body) = cluster.at(0).delete(&format!("/api/v1/applications/{application}/sessions")).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    assert_eq!(body["disconnectedCount"], sessions.len(), "{body}");
    assert!(begun.elapsed() < Duration::from_secs(15));
    cluster.is_sound().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_paused_is_waited_for_as_long_as_its_lease_and_serves_nothing_when_it_goes_on() {
    let cluster = Cluster::of(2).await;
    let application = cluster.application().await;
    for _ in 0..3 {
        // A revoke bars the token that a session was opened with.
        let fresh = cluster.moved(&cluster.nodes[0].operator().await, 1);
        let session = fresh.connect(json!({ "applicationId": application, "name": "x" })).await;
        let path = format!("/api/v1/agent-sessions/{}/events", session.id);
        let mut feed = Feed::open(&session.holder, &path, None).await;
        cluster.signal(1, "-STOP");
        let begun = Instant::now();
        let (status, body) = cluster.at(0).delete(&session.path()).await;
        let took = begun.elapsed();
        assert_eq!(status, StatusCode::OK, "{body}");
        assert_eq!(body["nodes"], json!({ "asked": 2, "acknowledged": 1, "expired": 1 }), "{body}");
        assert!(took < Duration::from_secs(12), "{took:?}");
        // Its next request waits in its socket, and is served when it goes on: by then its lease has run out.
        let asking = tokio::spawn({
            let session = session.clone();
            async move { session.call("heartbeat").await }
        });
        tokio::time::sleep(Duration::from_millis(100)).await;
        cluster.signal(1, "-CONT");
        let (status, told) = asking.await.unwrap();
        assert!(matches!(status.as_u16(), 401 | 410 | 503), "{status} {told}");
        while feed.next().await.is_some() {}
        super::until("it has a lease again", async || {
            cluster.at(1).get("/api/v1/applications").await.0 == 200
        })
        .await;
    }
    cluster.is_sound().await;
}
