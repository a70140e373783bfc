//! Sessions of agents, feeds and log lines on several nodes.

use futures_util::future::join_all;
use reqwest::StatusCode;
use serde_json::json;

use super::{Cluster, is_true_on, make_application, until};
use crate::support::{Daemon, Feed, Holder};
use crate::workloads::{Key, app, made};

#[tokio::test(flavor = "multi_thread")]
async fn what_a_client_got_from_one_node_is_good_at_the_next_at_once() {
    let cluster = Cluster::of(3).await;
    let mut ended = 0;
    for round in 0..30 {
        let (one, two, three) = (round % 3, (round + 1) % 3, (round + 2) % 3);
        let application = make_application(&cluster.at(one), &format!("tools {round}")).await;
        let session = cluster.at(two).connect(json!({ "applicationId": application, "name": "x" })).await;
        let elsewhere = cluster.moved(&session.holder, three);
        assert_eq!(session.call_as(&elsewhere, "heartbeat").await.0, StatusCode::OK);
        assert_eq!(cluster.at(one).get(&session.path()).await.0, StatusCode::OK);
        assert_eq!(session.call_as(&elsewhere, "disconnect").await.0, StatusCode::OK);
        let elsewhere = cluster.moved(&session.holder, one);
        let (status, body) = session.call_as(&elsewhere, "heartbeat").await;
        assert!(!status.is_success(), "{status} {body}");
        ended += 1;
    }
    assert_eq!(ended, 30);
    cluster.is_sound().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoke_on_one_node_is_true_on_all_when_it_is_answered_and_says_so() {
    let cluster = Cluster::of(3).await;
    let application = cluster.application().await;
    for round in 0..10 {
        let fresh = cluster.nodes[round % 3].operator().await;
        let sessions = join_all((0..9).map(|one| {
            let holder = cluster.moved(&fresh, one % 3);
            let body = json!({ "applicationId": application, "name": "x" });
            async move { holder.connect(body).await }
        }))
        .await;
        let mut feeds = vec![];
        for (at, session) in sessions.iter().enumerate() {
            let holder = cluster.moved(&session.holder, (at + 1) % 3);
            feeds.push(
                Feed::open(&holder, &format!("/api/v1/agent-sessions/{}/events", session.id), None).await,
            );
        }
        let revoker = cluster.at((round + 1) % 3);
        let (status, body) = revoker.delete(&format!("/api/v1/applications/{application}/sessions")).await;
        assert_eq!(status, StatusCode::OK, "{body}");
        assert_eq!(body["disconnectedCount"], 9, "{body}");
        is_true_on(&body, 3);
        for (at, session) in sessions.iter().enumerate() {
            for node in 0..3 {
                let holder = cluster.moved(&session.holder, node);
                let (status, told) = session.call_as(&holder, "heartbeat").await;
                assert_eq!(status, StatusCode::UNAUTHORIZED, "session {at} at node {node}: {told}");
            }
        }
        for feed in &mut feeds {
            assert_eq!(feed.next_named("disconnected").await.data["reason"], "revoked");
            while feed.next().await.is_some() {}
        }
        let path = format!("/api/v1/revocations/{}", body["revocationId"].as_str().unwrap());
        let (status, kept) = cluster.at(round % 3).get(&path).await;
        assert_eq!(status, StatusCode::OK, "{kept}");
        is_true_on(kept.get("revocation").unwrap_or(&kept), 3);
    }
    cluster.is_sound().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_nodes_that_start_for_the_first_time_at_once_one_makes_the_organization() {
    let mut cluster = Cluster::of(0).await;
    let starting = (0..3).map(|_| {
        let command = cluster.command();
        tokio::task::spawn_blocking(move || Daemon::spawn(command))
    });
    let starting: Vec<_> = starting.collect();
    for daemon in starting {
        cluster.nodes.push(daemon.await.unwrap());
    }
    for daemon in &cluster.nodes {
        super::ready(&daemon.base).await;
        daemon.operator().await;
    }
    let store = sessiond_store::open_to_look(&cluster.database.url).await.unwrap();
    let log = store.log(sessiond_core::ids::Position(0), 1_000).await.unwrap();
    let created = log.iter().filter(|entry| entry.recorded.event.name() == "organization_created").count();
    assert_eq!(created, 1);
    store.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cap_holds_exactly_under_connects_on_all_nodes_at_once() {
    let cluster = Cluster::of(3).await;
    let application = cluster.application().await;
    let path = format!("/api/v1/applications/{application}/policy");
    let (status, body) = cluster.at(0).put(&path, json!({ "maxPerApplication": 20 })).await;
    assert!(status.is_success(), "{status} {body}");
    let connects = (0..150).map(|one| {
        let (holder, application) = (cluster.at(one % 3), application.clone());
        async move {
            let body = json!({ "applicationId": application, "name": format!("{one}") });
            holder.post("/api/v1/agent-sessions", body).await.0
        }
    });
    let statuses = join_all(connects).await;
    assert_eq!(statuses.iter().filter(|status| status.is_success()).count(), 20, "{statuses:?}");
    cluster.is_sound().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_of_one_session_that_come_to_several_nodes_at_once_are_filed_without_a_gap() {
    let cluster = Cluster::of(3).await;
    let (text, _) = made(&cluster.at(0), json!({ "name": "cluster", "scopes": ["session"] })).await;
    let key = |node: usize| {
        let Holder { base, http, .. } = cluster.at(node);
        Key { base, http, text: Some(text.clone()) }
    };
    let path = key(0).begin("task", app("Planner")).await;
    let appends = (0..60).map(|one| {
        let (key, path) = (key(one % 3), path.clone());
        async move { key.log(&path, &[format!("line {one}"), format!("and its second {one}")]).await }
    });
    let mut firsts = vec![];
    for (status, filed) in join_all(appends).await {
        assert_eq!(status, StatusCode::CREATED, "{filed}");
        firsts.push(filed["first"].as_i64().unwrap());
    }
    firsts.sort_unstable();
    assert_eq!(firsts, (0..60).map(|one| 2 * one + 1).collect::<Vec<_>>());
    let page = key(1).see(&format!("{path}/logs?limit=1000")).await;
    let lines = page["lines"].as_array().unwrap();
    assert_eq!(lines.len(), 120);
    for (at, line) in lines.iter().enumerate() {
        assert_eq!(line["position"], at + 1);
        assert_eq!(line["text"].as_str().unwrap().starts_with("and its second"), at % 2 == 1, "{line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_is_sent_again_whichever_node_is_asked() {
    let receiver = Receiver::start().await;
    let cluster = Cluster::with(3, &["--webhook-allow-loopback"]).await;
    let (status, made) = cluster
        .at(0)
        .post("/api/v1/webhooks", json!({ "url": receiver.url, "types": ["application_created"] }))
        .await;
    assert_eq!(status, StatusCode::CREATED, "{made}");
    let webhook = made["webhook"]["id"].as_str().unwrap().to_owned();
    cluster.application().await;
    until("it was delivered", async || receiver.count() > 0).await;
    let path = format!("/api/v1/webhooks/{webhook}/deliveries");
    for node in 0..3 {
        let before = receiver.count();
        until("it is on record", async || !cluster.at(node).get(&path).await.1["items"][0].is_null()).await;
        let (_, page) = cluster.at(node).get(&path).await;
        let position = page["items"][0]["position"].as_i64().unwrap();
        let (status, body) = cluster.at(node).post(&format!("{path}/{position}/resend"), json!({})).await;
        assert_eq!(status, StatusCode::ACCEPTED, "{body}");
        until("it was sent again", async || receiver.count() > before).await;
    }
}

/// Whoever receives webhooks, and counts them.
struct Receiver {
    url: String,
    count: std::sync::Arc<std::sync::atomic::AtomicUsize>,
}

impl Receiver {
    async fn start() -> Self {
        let count = std::sync::Arc::<std::sync::atomic::AtomicUsize>::default();
        let seen = count.clone();
        let router = axum::Router::new().route(
            "/",
            axum::routing::post(move || async move {
                seen.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            }),
        );
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { url, count }
    }

    fn count(&self) -> usize {
        self.count.load(std::sync::atomic::Ordering::SeqCst)
    }
}
