//! Whatever one organization asks for, with whatever it knows of another: nothing of the other is told, and nothing in it
//! changes.

use std::collections::{BTreeMap, BTreeSet};

use reqwest::Method;
use serde_json::{Value, json};

use super::world::{self, Ids, Side};
use super::{Door, Role, door};
use crate::openapi::document::{Document, Operation, filled};
use crate::support::{Feed, Holder, Server};

const CALLS: usize = 2_000;

/// The same numbers each time (xorshift).
struct Chance(u64);

impl Chance {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % end as u64).unwrap()
    }

    fn one<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len())]
    }
}

/// Every text in a value.
fn texts(value: &Value, all: &mut BTreeSet<String>) {
    match value {
        Value::String(text) => drop(all.insert(text.clone())),
        Value::Array(items) => items.iter().for_each(|item| texts(item, all)),
        Value::Object(members) => members.values().for_each(|member| texts(member, all)),
        _ => {}
    }
}

fn is_id(text: &str) -> bool {
    let is_uuid = text.len() == 36 && text.matches('-').count() == 4 && !text.starts_with("00000000-");
    is_uuid || text.starts_with("sess_") || text.starts_with("mch_")
}

/// Every id that a side is shown.
async fn ids(side: &Side) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    side.whole().await.values().flatten().for_each(|item| texts(item, &mut all));
    all.extend(side.ids.values().cloned());
    all.into_iter().filter(|text| is_id(text)).collect()
}

/// What one side has that the other must not learn.
struct Secrets {
    marker: String,
    ids: Vec<String>,
}

impl Secrets {
    /// What one side has. Whoever runs the installation founded both, and stands in both logs: nothing else does.
    async fn of(side: &Side, founded: &Side) -> Self {
        let (own, others) = (ids(side).await, ids(founded).await);
        let shared: Vec<_> = own.intersection(&others).collect();
        assert_eq!(shared.len(), 1, "{shared:?}");
        let ids: Vec<_> = own.difference(&others).cloned().collect();
        assert!(ids.len() > 20, "{} has many things", side.marker);
        Self { marker: side.marker.to_lowercase(), ids }
    }

    /// What of them stands in a text, save what whoever asked has said.
    fn told(&self, answer: &str, said: &str) -> Option<&str> {
        let (answer, said) = (answer.to_lowercase(), said.to_lowercase());
        // Ids of some surfaces have no hyphens.
        let (bare_answer, bare_said) = (answer.replace('-', ""), said.replace('-', ""));
        let told = |one: &&String| {
            let bare = one.replace('-', "");
            (answer.contains(*one) || bare_answer.contains(&bare)) && !bare_said.contains(&bare)
        };
        self.ids.iter().chain([&self.marker]).find(told).map(String::as_str)
    }
}

/// One call with the other's ids in it: path and query, body, and a key that the other side has used.
struct Call {
    path: String,
    body: Option<Value>,
    key: Option<&'static str>,
}

/// A key under which the other side has made something.
const KEY: &str = "made-once";

fn call(chance: &mut Chance, operation: &Operation<'_>, own: &Side, ids: &Ids, all: &[String]) -> Call {
    let mut picked = || if chance.below(4) == 0 { Some(chance.one(all).clone()) } else { None };
    let ids: Vec<(&str, String)> =
        ids.iter().map(|(name, id)| (*name, picked().unwrap_or_else(|| id.clone()))).collect();
    let ids: Ids = world::ids_for(operation.id, &ids.into_iter().collect());
    let borrowed: Vec<_> = ids.iter().map(|(name, id)| (*name, id.as_str())).collect();
    let mut path = filled(operation.path, &borrowed, "");
    let any = chance.one(all).clone();
    let by_name = |name: &str| ids[name].clone();
    let queries = [
        String::new(),
        format!("?applicationId={}", by_name("applicationId")),
        format!("?principal={}", by_name("principalId")),
        format!("?revocation={}", by_name("revocationId")),
        format!("?applicationId={any}&status=all"),
        format!("?after={}", by_name("position")),
        "?status=all&limit=200".to_owned(),
    ];
    path.push_str(chance.one(&queries).as_str());
    let filters = [
        json!({ "applicationId": by_name("applicationId") }),
        json!({ "sessionId": by_name("sessionId") }),
        json!({ "principal": by_name("principalId") }),
        json!({ "hostname": "nowhere", "except": [by_name("sessionId")] }),
    ];
    let mut body = own.body(operation.id);
    if let Some(body) = body.as_mut().filter(|_| chance.below(3) > 0) {
        for (name, value) in [
            ("applicationId", json!(by_name("applicationId"))),
            ("filter", chance.one(&filters).clone()),
            ("items", json!([{ "sessionId": by_name("sessionId"), "requests": 1 }])),
            ("clientSessionId", json!("the-same-run")),
        ] {
            let takes = body.get(name).is_some() || operation.id.ends_with(".create") && chance.below(2) == 0;
            if takes && (name != "clientSessionId" || operation.id == "agent.create") {
                body[name] = value;
            }
        }
    }
    Call { path, body, key: (chance.below(5) == 0).then_some(KEY) }
}

async fn send(holder: &Holder, operation: &Operation<'_>, call: &Call) -> (u16, String) {
    let mut request = holder.http.request(operation.method.clone(), format!("{}{}", holder.base, call.path));
    if let Some(token) = &holder.token {
        request = operation.presenting(request, token);
    }
    if let Some(key) = call.key {
        request = request.header("idempotency-key", key);
    }
    if operation.path.starts_with("/oauth2/") {
        request = request.form(call.body.as_ref().unwrap());
    } else if let Some(body) = &call.body {
        request = request.json(body);
    }
    let response = request.send().await.unwrap();
    let (status, headers) = (response.status().as_u16(), format!("{:?}", response.headers()));
    (status, headers + &response.text().await.unwrap())
}

/// Two organizations, of which the second has made something under a key and runs under a name that the first uses too.
async fn two(server: &Server) -> (Side, Side) {
    let (own, other) = (Side::found(server, "Amber").await, Side::found(server, "Basalt").await);
    let body = json!({ "name": other.named("account") });
    let path = format!("{}/api/v1/service-accounts", server.url(""));
    let request = other.manager.http.post(path).bearer_auth(other.manager.token.as_ref().unwrap());
    let made = request.header("idempotency-key", KEY).json(&body).send().await.unwrap();
    assert_eq!(made.status(), 201);
    let body = json!({ "clientSessionId": "the-same-run", "name": other.named("run"), "applicationId": other.application });
    other.holder(Role::UserKey).connect(body).await;
    // Its deliveries would be tried again meanwhile.
    let path = format!("/api/v1/webhooks/{}", other.ids["webhookId"]);
    assert_eq!(other.manager.patch(&path, json!({ "enabled": false })).await.0, 200);
    (own, other)
}

#[tokio::test(flavor = "multi_thread")]
async fn two_thousand_calls_with_ids_of_another_organization_tell_nothing_of_it_and_change_nothing_in_it() {
    let server = world::server().await;
    let (own, other) = two(&server).await;
    let (live, id) = other.open(&server, Role::Application).await;
    let tokens: Vec<String> =
        [&live, &other.manager, &other.holder(Role::MediaKey)].map(|one| one.token.clone().unwrap()).to_vec();
    let secrets = Secrets::of(&other, &own).await;
    let before = other.whole().await;
    let document = Document::new();
    // Organizations are no organization's own, and what asks for no credential knows of none.
    let operations: Vec<_> = document
        .operations()
        .filter(|one| !one.id.starts_with("organizations.") && one.described["security"] != json!([{}]))
        // Whatever name is said there, it is one's own then.
        .filter(|one| !matches!(one.id, "media.declareStream" | "media.createSessions"))
        .collect();
    let session = own.open(&server, Role::Application).await.0;
    let mut chance = Chance(0x5eed);
    let mut statuses = BTreeMap::<u16, usize>::new();
    for number in 0..CALLS {
        let operation = &operations[chance.below(operations.len())];
        // The manager half of the time: who may do most could be told most.
        let most = if door(operation.id) == Door::Work { Role::SessionKey } else { Role::Manager };
        let role = if number % 2 == 0 { most } else { *chance.one(&Role::ALL) };
        let holder = if role == Role::Session { session.clone() } else { own.holder(role) };
        let mut call = call(&mut chance, operation, &own, &other.ids, &secrets.ids);
        if let (true, Some(body)) = (operation.path.starts_with("/oauth2/"), &mut call.body) {
            body["token"] = json!(chance.one(&tokens));
        }
        let said = format!("{} {:?}", call.path, call.body);
        let (status, answer) = send(&holder, operation, &call).await;
        *statuses.entry(status).or_default() += 1;
        let told = secrets.told(&answer, &said);
        assert!(told.is_none(), "{role:?} {}: {told:?} in {status} {answer}", operation.id);
        assert!(status < 500, "{role:?} {} {said}: {status} {answer}", operation.id);
        let found = (200..300).contains(&status) && operation.path.contains('{');
        assert!(!found, "{role:?} {} {said}: {status} {answer}", operation.id);
    }
    for status in [200, 201, 400, 401, 403, 404] {
        assert!(statuses.contains_key(&status), "{statuses:?}");
    }
    let after = other.whole().await;
    for (path, items) in &before {
        assert_eq!(&after[path], items, "{path}");
    }
    assert_eq!(own.manager.get("/api/v1/applications").await.0, 200, "it was asked in earnest to the end");
    let heartbeat = format!("/api/v1/agent-sessions/{id}/heartbeat");
    let status = live.send(Method::POST, &heartbeat, None).await.status();
    assert_eq!(status, 200, "the other's session goes on, with its token");
}

#[tokio::test(flavor = "multi_thread")]
async fn feeds_lists_and_deliveries_carry_nothing_of_another_organization() {
    let server = world::server().await;
    let (own, other) = two(&server).await;
    let path = format!("/api/v1/applications/{}/sessions/events", own.application);
    let mut feed = Feed::open(&own.manager, &path, Some(0)).await;
    for side in [&other, &own, &other] {
        let (agent, id) = side.open(&server, Role::Application).await;
        agent.send(Method::POST, &format!("/api/v1/agent-sessions/{id}/heartbeat"), None).await;
        agent.send(Method::POST, &format!("/api/v1/agent-sessions/{id}/disconnect"), None).await;
    }
    let last = own.open(&server, Role::Application).await.1;
    let secrets = Secrets::of(&other, &own).await;
    let mut seen = String::new();
    while !seen.contains(&last) {
        let frame = feed.next().await.expect("the feed goes on");
        seen = frame.data.to_string();
        assert_eq!(secrets.told(&seen, ""), None, "{seen}");
    }
    for (path, items) in own.whole().await {
        let items = json!(items).to_string();
        assert_eq!(secrets.told(&items, ""), None, "{path}: {items}");
    }
}
