//! kill -9 of nodes under load: what was acknowledged is there, and what was asked again of another node was done once.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use parking_lot::Mutex;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::{Cluster, PATIENCE};
use crate::idempotency::{Told, counts_are_exact, try_keyed};
use crate::support::{CLIENT_ID, CLIENT_SECRET, Holder, Inside, rounds};

const APPLICATIONS: &str = "/api/v1/applications";
const SESSIONS: &str = "/api/v1/agent-sessions";
/// How many sessions an application has, and how often each reports.
const AGENTS: usize = 8;
const REPORTS: usize = 3;

/// A client that goes on to the next node until it is answered, with each request to another.
struct Client {
    bases: Arc<Mutex<Vec<String>>>,
    next: AtomicUsize,
    http: reqwest::Client,
    token: Mutex<String>,
}

impl Client {
    fn base(&self) -> String {
        let bases = self.bases.lock();
        bases[self.next.fetch_add(1, Ordering::Relaxed) % bases.len()].clone()
    }

    async fn authenticate(&self) {
        let form = [("grant_type", "client_credentials"), ("scope", "management:all mcp:invoke")];
        let request = self.http.post(format!("{}/oauth2/token", self.base()));
        let Ok(answer) = request.basic_auth(CLIENT_ID, Some(CLIENT_SECRET)).form(&form).send().await else {
            return;
        };
        let Ok(body) = answer.json::<Value>().await else { return };
        body["access_token"].as_str().unwrap_or_default().clone_into(&mut self.token.lock());
    }

    /// Asks with one key until it is answered.
    async fn ask(&self, method: Method, path: &str, body: Option<Value>, key: &str) -> Value {
        let give_up = Instant::now() + PATIENCE;
        loop {
            let token = Some(self.token.lock().clone());
            let holder = Holder { base: self.base(), token, http: self.http.clone() };
            let told = try_keyed(&holder, method.clone(), path, body.as_ref(), key).await;
            match told {
                Ok(Told { status: 200..300, body, .. }) => return body,
                Ok(Told { status: 401, .. }) => self.authenticate().await,
                Ok(told) => assert!([409, 503].contains(&told.status), "{method} {path}: {told:?}"),
                Err(_) => {}
            }
            assert!(Instant::now() < give_up, "{method} {path} was not answered");
            sleep(Duration::from_millis(10)).await;
        }
    }
}

/// An application, its sessions and their reports, one terminated, the rest revoked; again and again until it is over. The
/// counts that were answered, by revocation, and the ids of the sessions.
async fn work(client: Client, worker: usize, over: Arc<AtomicBool>) -> (BTreeMap<String, i64>, Vec<String>) {
    let (mut counts, mut sessions) = (BTreeMap::new(), vec![]);
    let client = &client;
    for turn in 0.. {
        if over.load(Ordering::Relaxed) {
            break;
        }
        let key = |what: &str| format!("\"{worker}/{turn}/{what}\"");
        let name = json!({ "name": format!("{worker} {turn}") });
        let made = client.ask(Method::POST, APPLICATIONS, Some(name), &key("make")).await;
        let application = made["application"]["id"].as_str().unwrap();
        let opened = join_all((0..AGENTS).map(|agent| async move {
            let key = |what: &str| format!("\"{worker}/{turn}/{agent}/{what}\"");
            let body = json!({ "applicationId": application });
            let opened = client.ask(Method::POST, SESSIONS, Some(body), &key("connect")).await;
            let id = opened["id"].as_str().unwrap().to_owned();
            for report in 0..REPORTS {
                let path = format!("{SESSIONS}/{id}/activity");
                let body = json!({ "requests": 1 });
                client.ask(Method::POST, &path, Some(body), &key(&format!("report-{report}"))).await;
            }
            id
        }));
        let ids = opened.await;
        let path = format!("{APPLICATIONS}/{application}/sessions");
        let terminate = format!("{path}/{}/terminate", ids[0]);
        let ended = client.ask(Method::POST, &terminate, None, &key("end")).await;
        assert_eq!(ended["disconnectedCount"], 1);
        let revoked = client.ask(Method::DELETE, &path, None, &key("revoke")).await;
        let id = revoked["revocationId"].as_str().unwrap().to_owned();
        counts.insert(id, revoked["disconnectedCount"].as_i64().unwrap());
        sessions.extend(ids);
    }
    (counts, sessions)
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_that_are_killed_under_load_take_nothing_with_them_and_what_is_asked_again_elsewhere_is_done_once()
 {
    let mut cluster = Cluster::of(3).await;
    let bases = cluster.nodes.iter().map(|node| node.base.clone()).collect();
    let (bases, over) = (Arc::new(Mutex::new(bases)), Arc::new(AtomicBool::new(false)));
    let http = reqwest::Client::builder().timeout(Duration::from_secs(20)).build().unwrap();
    let workers: Vec<_> = (0..10)
        .map(|worker| {
            let (bases, http) = (bases.clone(), http.clone());
            let client = Client { bases, next: AtomicUsize::new(worker), http, token: Mutex::default() };
            tokio::spawn(work(client, worker, over.clone()))
        })
        .collect();
    for round in 0..rounds(3, 25) {
        sleep(Duration::from_millis(300 + (round * 9_973 % 700) as u64)).await;
        let killed = (round * 7 + round / 3) % 3;
        let database = cluster.database.url.clone();
        cluster.replace(killed, &database).await;
        cluster.nodes[killed].base.clone_into(&mut bases.lock()[killed]);
    }
    over.store(true, Ordering::Relaxed);
    let (mut counts, mut sessions) = (BTreeMap::new(), vec![]);
    for worker in join_all(workers).await {
        let (counted, opened) = worker.unwrap();
        counts.extend(counted);
        sessions.extend(opened);
    }
    assert!(counts.len() >= 10, "the load was a load: {}", counts.len());
    println!("{} applications, {} sessions", counts.len(), sessions.len());
    for (at, id) in sessions.iter().enumerate() {
        let (status, body) = cluster.at(at % 3).get(&format!("/api/v1/agent-instances/{id}")).await;
        assert_eq!(status, 200, "an acknowledged session is gone: {id}");
        assert_eq!(body["agentInstance"]["activity"]["requests"], REPORTS, "each report once: {body}");
    }
    let mut inside = Inside::of(&cluster.database.url).await;
    let sql = "select count(*) from event where type = $1";
    for (name, times) in [
        ("application_created", counts.len() + 1),
        ("connected", counts.len() * AGENTS),
        ("revocation_began", counts.len()),
        ("revocation_ended", counts.len()),
        ("disconnected", counts.len() * AGENTS),
    ] {
        assert_eq!(inside.number(sql, &[name.into()]).await, times as i64, "{name}");
    }
    counts_are_exact(&mut inside, counts, AGENTS as i64 - 1).await;
    drop(inside);
    cluster.is_sound().await;
}
