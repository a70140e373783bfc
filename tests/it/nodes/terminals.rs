//! Terminals whose node is not the one that is asked.

use reqwest::StatusCode;
use serde_json::{Value, json};
use sessiond::clock::Clock;

use super::{Cluster, until};
use crate::support::Holder;
use crate::terminal::sshd::Sshd;
use crate::terminals::websocket_client::TerminalClient;
use crate::terminals::{Opened, machine, machine_body, opened};

const SESSIONS: &str = "/v1/sessions";

/// Nodes, a machine, and a key that opens terminals.
async fn house(count: usize) -> (Cluster, Sshd, Holder, String) {
    let (cluster, sshd) = (Cluster::of(count).await, Sshd::start());
    let (_, made) =
        cluster.at(0).post("/api/v1/api-keys", json!({ "name": "own", "scopes": ["terminal"] })).await;
    let own = Holder { token: made["key"].as_str().map(str::to_owned), ..cluster.at(0) };
    let machine = machine(&own, &machine_body(&sshd)).await;
    let pinned = own.post(&format!("/v1/machines/{machine}/test"), json!({ "pin_host_key": true })).await;
    assert_eq!(pinned.0, 200, "{pinned:?}");
    (cluster, sshd, own, machine)
}

/// The same terminal, by way of another node.
fn by_way_of(cluster: &Cluster, terminal: &Opened, node: usize) -> Opened {
    let base = cluster.nodes[node].base.replace("http://", "ws://");
    Opened { url: format!("{base}{SESSIONS}/{}/ws", terminal.id), ..terminal.clone() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_is_used_watched_and_ended_by_way_of_nodes_that_it_does_not_live_on() {
    let (cluster, _sshd, own, machine) = house(3).await;
    let terminal = opened(own.post(SESSIONS, json!({ "machine_id": machine })).await);
    let mut client = TerminalClient::take(&by_way_of(&cluster, &terminal, 1)).await;
    client.run("echo on-$((40+2))", "on-42").await;
    let elsewhere = cluster.moved(&own, 2);
    let (status, viewer) = elsewhere.post(&format!("{SESSIONS}/{}/viewers", terminal.id), json!({})).await;
    assert_eq!(status, StatusCode::CREATED, "{viewer}");
    let viewer = Opened { token: viewer["data"]["token"].as_str().unwrap().to_owned(), ..terminal.clone() };
    let mut watching = TerminalClient::take(&by_way_of(&cluster, &viewer, 2)).await;
    client.input("echo seen-$((1+1))\r").await;
    watching.until("seen-2").await;
    let (status, body) = cluster.moved(&own, 1).delete(&format!("{SESSIONS}/{}", terminal.id)).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    assert_eq!(client.farewell().await["reason"], "terminated");
    assert_eq!(watching.farewell().await["reason"], "terminated");
    cluster.is_sound().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_whose_node_is_gone_has_failed_and_those_of_others_go_on() {
    let (mut cluster, _sshd, own, machine) = house(3).await;
    let body = json!({ "machine_id": machine });
    let lost = opened(cluster.moved(&own, 2).post(SESSIONS, body.clone()).await);
    let kept = opened(own.post(SESSIONS, body).await);
    let mut client = TerminalClient::take(&by_way_of(&cluster, &kept, 1)).await;
    cluster.nodes.pop().unwrap().kill();
    let shown = async |id: &str| own.get(&format!("{SESSIONS}/{id}")).await.1["data"].clone();
    until("its end is on record", async || shown(&lost.id).await["status"] == "ended").await;
    let ended: Value = shown(&lost.id).await;
    assert_eq!(ended["ended_reason"], "failed", "{ended}");
    client.run("echo still-$((2+2))", "still-4").await;
    // One that starts leaves them alone.
    cluster.start().await;
    client.run("echo again-$((3+3))", "again-6").await;
    assert_eq!(shown(&kept.id).await["status"], "active");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_printed_by_way_of_another_node_after_the_end_of_the_credential_was_answered_at_a_third() {
    let (cluster, _sshd, own, machine) = house(3).await;
    for round in 0..4 {
        let body = json!({ "name": format!("lent {round}"), "scopes": ["terminal"] });
        let (_, made) = cluster.at(0).post("/api/v1/api-keys", body).await;
        let lent = Holder { token: made["key"].as_str().map(str::to_owned), ..own.clone() };
        let terminal = opened(lent.post(SESSIONS, json!({ "machine_id": machine })).await);
        let mut client = TerminalClient::take(&by_way_of(&cluster, &terminal, 1)).await;
        client.input("while :; do date +at-%s%N; done\r").await;
        client.until("\nat-1").await;
        let reading = tokio::spawn(async move {
            let farewell = client.rest().await;
            (client.text(), farewell)
        });
        let path = format!("/api/v1/api-keys/{}", made["apiKey"]["id"].as_str().unwrap());
        let (status, body) = cluster.at(2).delete(&path).await;
        let answered = Clock::system().wall().timestamp_micros() * 1_000;
        assert!(status.is_success(), "{status} {body}");
        let (text, farewell) = reading.await.unwrap();
        assert_eq!(farewell.last().unwrap()["type"], "disconnect", "{farewell:?}");
        let whole = text.rsplit_once('\n').unwrap().0;
        let printed = whole.lines().filter_map(|line| line.trim().strip_prefix("at-")?.parse::<i64>().ok());
        let last = printed.max().unwrap();
        assert!(last <= answered, "{last} after {answered}");
    }
}
