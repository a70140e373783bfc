//! Nobody gets what is another's: answers (CVE-2026-25536), sessions (CVE-2026-33946), ids that can be guessed
//! (CVE-2025-6515).

use std::collections::BTreeSet;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures_util::future::{join_all, try_join_all};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{Client, House, NOT_FOUND, Stream, messages, refused};

const CLIENTS: usize = 200;
const CALLS: usize = 100_000;
/// Calls of one client at a time: its own answers must not be mistaken for each other either.
const AT_ONCE: usize = 4;

/// Every message that answers a call, or belongs to it, carries the call's nonce and its id.
async fn call_with_a_nonce(client: &Client, id: usize) -> Result<(), String> {
    let nonce = Uuid::new_v4().to_string();
    let params = json!({ "name": "nonce", "arguments": { "nonce": nonce } });
    let answer =
        client.post(&json!({ "jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params })).await;
    let (status, text) = (answer.status(), answer.text().await.unwrap());
    let all = match serde_json::from_str::<Value>(&text) {
        Ok(answer) => vec![answer],
        Err(_) => messages(&text),
    };
    let last = all.last().is_some_and(|last| last["id"] == id && last["result"]["nonce"] == nonce);
    let notes = all.iter().rev().skip(1).all(|note| note["params"]["nonce"] == nonce);
    match status == StatusCode::OK && last && notes {
        true => Ok(()),
        false => Err(format!("call {id} with {nonce}: {status} {text}")),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_reply_is_its_callers_although_all_count_from_nought() {
    // The client keeps connections ready by which it has sent nothing yet. Where both are held up for long, the server must not
    // give one up in the moment in which the client takes it: a request may not be sent again by itself.
    let (house, _upstream) = House::with_fake(&["--head-timeout", "120s"]).await;
    let token = house.token().await;
    // Shared by all. It lets go of a connection long before the server does, so that none closes as it is taken up again.
    let http = reqwest::Client::builder().pool_idle_timeout(Duration::from_secs(5));
    let http = http.timeout(Duration::from_secs(120)).build().unwrap();
    let opened = (0..CLIENTS).map(|_| async {
        let mut client = Client { http: http.clone(), ..house.client(&token) };
        client.initialize().await;
        client
    });
    let callers = join_all(opened).await.into_iter().map(|client| {
        tokio::spawn(async move {
            for first in (0..CALLS / CLIENTS).step_by(AT_ONCE) {
                try_join_all((first..first + AT_ONCE).map(|id| call_with_a_nonce(&client, id))).await?;
            }
            Ok::<_, String>(())
        })
    });
    for caller in join_all(callers).await {
        caller.unwrap().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn anothers_session_id_opens_nothing_and_disturbs_nothing() {
    let (house, upstream) = House::with_fake(&[]).await;
    let own = house.connect().await;
    let mut listening = Stream::of(own.listen().await);
    listening.until("notifications/hello").await;
    let mut calling = Stream::of(own.begin(json!(1), "tick").await);
    calling.until("data: ").await;
    let thief = Client { token: house.token_of_another().await, ..own.clone() };
    let reached = upstream.sent().len();

    let resumed = thief.request(Method::GET).header("last-event-id", "g-1").send().await.unwrap();
    for answer in [
        thief.listen().await,
        resumed,
        thief.begin(json!(1), "echo").await,
        thief.post(&json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": { "requestId": 1 } })).await,
        thief.request(Method::DELETE).send().await.unwrap(),
    ] {
        assert_eq!(refused(answer).await, (StatusCode::NOT_FOUND, NOT_FOUND.to_owned()));
    }
    assert_eq!(upstream.sent().len(), reached, "nothing of the thief's reaches the server behind");

    // Both streams go on, and so does the session.
    calling.text.clear();
    calling.until("data: ").await;
    assert_eq!(own.call("echo").await.0, StatusCode::OK);
    assert_eq!(house.sessions().await[0]["derivedStatus"], "active");
    own.request(Method::DELETE).send().await.unwrap();
    assert!(listening.end().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn session_ids_are_256_random_bits_in_visible_characters() {
    const IDS: usize = 400;
    let (house, _upstream) = House::with_fake(&[]).await;
    let token = house.token().await;
    let opened = (0..IDS).map(|_| async {
        let mut client = house.client(&token);
        client.initialize().await;
        client.session.unwrap()
    });
    let ids = join_all(opened).await;
    assert!(ids.iter().flat_map(|id| id.bytes()).all(|byte| (0x21..=0x7E).contains(&byte)), "{ids:?}");
    // The random part is the end of it, 256 bits in base64.
    let secrets = ids.iter().map(|id| URL_SAFE_NO_PAD.decode(&id[id.len() - 43..]).unwrap());
    let secrets: BTreeSet<_> = secrets.collect();
    assert_eq!(secrets.len(), IDS, "no two are the same");
    // Each bit is set in about half of them: beyond seven standard deviations there is a pattern.
    for bit in 0..256 {
        let set = secrets.iter().filter(|secret| secret[bit / 8] >> (bit % 8) & 1 == 1).count();
        assert!((IDS / 2 - 70..=IDS / 2 + 70).contains(&set), "bit {bit} is set in {set} of {IDS}");
    }
}
