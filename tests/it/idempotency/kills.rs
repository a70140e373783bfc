//! kill -9 around keyed requests: whoever asks again until answered has had each thing done once.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::Mutex;

use super::{APPLICATIONS, SESSIONS, Told, counts_are_exact, try_keyed};
use crate::support::daemon::sessiond;
use crate::support::{CLIENT_ID, CLIENT_SECRET, Daemon, Holder, Inside, store};

const AGENTS: usize = 8;

/// A client that asks until it is answered, wherever the daemon listens by then.
struct Client {
    base: Arc<Mutex<String>>,
    http: reqwest::Client,
    token: Mutex<String>,
}

impl Client {
    async fn authenticate(&self) {
        let url = format!("{}/oauth2/token", self.base.lock().await);
        let form = [("grant_type", "client_credentials"), ("scope", "management:all mcp:invoke")];
        let request = self.http.post(url).basic_auth(CLIENT_ID, Some(CLIENT_SECRET)).form(&form);
        let Ok(answer) = request.send().await else { return };
        let Ok(body) = answer.json::<Value>().await else { return };
        body["access_token"].as_str().unwrap_or_default().clone_into(&mut *self.token.lock().await);
    }

    async fn ask(&self, method: Method, path: &str, body: Option<Value>, key: &str) -> Told {
        loop {
            let holder = Holder {
                base: self.base.lock().await.clone(),
                token: Some(self.token.lock().await.clone()),
                http: self.http.clone(),
            };
            match try_keyed(&holder, method.clone(), path, body.as_ref(), key).await {
                Ok(told) if told.status < 300 => return told,
                Ok(told) if told.status == 401 => self.authenticate().await,
                Ok(told) => assert!([409, 503].contains(&told.status), "{method} {path}: {told:?}"),
                Err(_) => {}
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// An application, its sessions, one terminated, the rest revoked; again and again until it is over. Returns the counts
/// that were answered, by revocation, and the ids of the sessions.
async fn work(client: Client, worker: usize, over: Arc<AtomicBool>) -> (BTreeMap<String, i64>, Vec<String>) {
    let (mut counts, mut sessions) = (BTreeMap::new(), vec![]);
    for turn in 0.. {
        if over.load(Ordering::Relaxed) {
            break;
        }
        let key = |what: &str| format!("\"{worker}/{turn}/{what}\"");
        let name = json!({ "name": format!("{worker} {turn}") });
        let made = client.ask(Method::POST, APPLICATIONS, Some(name), &key("make")).await.body;
        let application = made["application"]["id"].as_str().unwrap();
        let body = json!({ "applicationId": application });
        let opened = join_all((0..AGENTS).map(|agent| {
            let (body, key) = (body.clone(), key(&agent.to_string()));
            let client = &client;
            async move { client.ask(Method::POST, SESSIONS, Some(body), &key).await.body }
        }));
        let opened: Vec<Value> = opened.await;
        let ids: Vec<_> = opened.iter().map(|one| one["id"].as_str().unwrap().to_owned()).collect();
        let path = format!("{APPLICATIONS}/{application}/sessions");
        let terminate = format!("{path}/{}/terminate", ids[0]);
        let ended = client.ask(Method::POST, &terminate, None, &key("end")).await.body;
        assert_eq!(ended["disconnectedCount"], 1);
        let revoked = client.ask(Method::DELETE, &path, None, &key("revoke")).await.body;
        let id = revoked["revocationId"].as_str().unwrap().to_owned();
        counts.insert(id, revoked["disconnectedCount"].as_i64().unwrap());
        sessions.extend(ids);
    }
    (counts, sessions)
}

#[tokio::test(flavor = "multi_thread")]
async fn across_sixteen_kills_each_key_had_its_effect_once_and_every_count_is_that_of_the_events() {
    let directory = TempDir::new().unwrap();
    let (base, over) = (Arc::new(Mutex::new(String::new())), Arc::new(AtomicBool::new(false)));
    let http = reqwest::Client::builder().timeout(Duration::from_secs(20)).build().unwrap();
    let workers: Vec<_> = (0..4)
        .map(|worker| {
            let client = Client { base: base.clone(), http: http.clone(), token: Mutex::default() };
            tokio::spawn(work(client, worker, over.clone()))
        })
        .collect();
    for round in 0..16_u64 {
        let daemon = Daemon::start(directory.path(), &[]);
        daemon.base.clone_into(&mut *base.lock().await);
        tokio::time::sleep(Duration::from_millis(60 + round * 9_973 % 240)).await;
        daemon.kill();
    }
    let daemon = Daemon::start(directory.path(), &[]);
    daemon.base.clone_into(&mut *base.lock().await);
    over.store(true, Ordering::Relaxed);
    let (mut counts, mut sessions) = (BTreeMap::new(), vec![]);
    for worker in join_all(workers).await {
        let (counted, opened) = worker.unwrap();
        counts.extend(counted);
        sessions.extend(opened);
    }
    assert!(daemon.terminate().success());
    assert!(counts.len() >= 4, "the load was a load: {}", counts.len());

    let url = store::url(directory.path());
    let mut inside = Inside::of(&url).await;
    let sql = "select count(*) from event where type = $1";
    for (name, times) in [
        ("application_created", counts.len() + 1),
        ("connected", counts.len() * AGENTS),
        ("revocation_began", counts.len()),
        ("disconnected", counts.len() * AGENTS),
    ] {
        let found = inside.number(sql, &[name.into()]).await;
        assert_eq!(found, times as i64, "{name}");
    }
    assert_eq!(sessions.len(), counts.len() * AGENTS);
    counts_are_exact(&mut inside, counts, AGENTS as i64 - 1).await;
    drop(inside);
    let output = sessiond(&["verify", "--database", &url]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
