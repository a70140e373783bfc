//! Requests that take effect once, however often they are sent.

mod kills;

use std::collections::BTreeMap;

use futures_util::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::Connection;

use crate::support::{CLIENT_ID, CLIENT_SECRET, Holder, Inside, Server, store};

const SESSIONS: &str = "/api/v1/agent-sessions";
const APPLICATIONS: &str = "/api/v1/applications";
const ACCOUNTS: &str = "/api/v1/service-accounts";

/// What an answer is compared by.
#[derive(Debug, Clone, PartialEq)]
pub struct Told {
    pub status: u16,
    pub body: Value,
    pub replayed: bool,
}

impl Told {
    fn again(&self) -> Self {
        Self { replayed: true, ..self.clone() }
    }

    fn refused(&self) -> (u16, &str) {
        (self.status, self.body["code"].as_str().unwrap_or_default())
    }
}

pub async fn try_keyed(
    holder: &Holder,
    method: Method,
    path: &str,
    body: Option<&Value>,
    key: &str,
) -> reqwest::Result<Told> {
    let request = holder.http.request(method, format!("{}{path}", holder.base));
    let request = request.bearer_auth(holder.token.as_ref().unwrap()).header("idempotency-key", key);
    let request = if let Some(body) = body { request.json(body) } else { request };
    let response = request.send().await?;
    let status = response.status().as_u16();
    let replayed = response.headers().get("idempotency-replayed").is_some_and(|value| value == "true");
    let text = response.text().await?;
    Ok(Told { status, body: serde_json::from_str(&text).unwrap_or(Value::String(text)), replayed })
}

async fn keyed(holder: &Holder, method: Method, path: &str, body: Option<&Value>, key: &str) -> Told {
    try_keyed(holder, method, path, body, key).await.unwrap()
}

async fn post(holder: &Holder, path: &str, body: Value, key: &str) -> Told {
    keyed(holder, Method::POST, path, Some(&body), key).await
}

/// Sends a request twice; the second answer is the first, and the log has what one did.
async fn twice(server: &Server, method: Method, path: &str, body: Option<Value>) -> Value {
    let (operator, key) = (server.operator().await, format!("\"{method}:{path}\""));
    let before = server.log().await.len();
    let first = keyed(&operator, method.clone(), path, body.as_ref(), &key).await;
    assert!((200..300).contains(&first.status) && !first.replayed, "{method} {path}: {first:?}");
    let after = server.log().await.len();
    assert!(after > before, "{method} {path} did nothing");
    // Another credential of the same client is the same client.
    for holder in [&operator, &server.operator().await] {
        let second = keyed(holder, method.clone(), path, body.as_ref(), &key).await;
        assert_eq!(second, first.again(), "{method} {path}");
    }
    assert_eq!(server.log().await.len(), after, "{method} {path} happened again");
    let (other, target) = (json!({ "name": "another" }), format!("{path}?other=1"));
    let told = keyed(&operator, method.clone(), &target, body.as_ref(), &key).await;
    assert_eq!(told.refused(), (400, "invalid_request"), "{method} {path} knows no such parameter");
    let told = keyed(&operator, method.clone(), path, Some(&other), &key).await;
    assert_eq!(told.refused(), (422, "idempotency_key_reused"), "{method} {path}");
    assert_eq!(server.log().await.len(), after, "{method} {path}: what was refused did nothing");
    first.body
}

async fn works(server: &Server, id: &str, secret: &str) -> bool {
    let form = [("grant_type", "client_credentials")];
    let request = server.http.post(server.url("/oauth2/token")).basic_auth(id, Some(secret)).form(&form);
    request.send().await.unwrap().status() == 200
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_said_in_another_way_is_the_same_request() {
    let server = Server::start().await;
    let operator = server.operator().await;
    let send = async |query: &str, body: &str| {
        let url = format!("{}/api/v1/revocations{query}", operator.base);
        let request = operator.http.post(url).bearer_auth(operator.token.as_ref().unwrap());
        let request = request.header("idempotency-key", "one").header("content-type", "application/json");
        let response = request.body(body.to_owned()).send().await.unwrap();
        let status = response.status().as_u16();
        (status, response.json::<Value>().await.unwrap())
    };
    let (status, first) = send("", r#"{"filter":{"hostname":"é","client":"a"},"reason":"x"}"#).await;
    assert_eq!(status, 201, "{first}");
    for same in [
        r#"{"reason":"x","filter":{"client":"a","hostname":"é"}}"#,
        "{ \"filter\": {\n\"client\": \"a\", \"hostname\": \"\\u00e9\" }, \"reason\": \"x\" }\n",
    ] {
        let (status, again) = send("", same).await;
        assert_eq!(
            (status, &again["revocation"]["id"]),
            (201, &first["revocation"]["id"]),
            "{same}: {again}"
        );
    }
    for other in [
        r#"{"filter":{"hostname":"é","client":"b"},"reason":"x"}"#,
        r#"{"filter":{"hostname":"é"},"client":"a","reason":"x"}"#,
        r#"{"filter":{"hostname":"é","client":"a"},"reason":"x","dryRun":false}"#,
        r#"[{"filter":{"hostname":"é","client":"a"},"reason":"x"}]"#,
    ] {
        assert_eq!(send("", other).await.0, 422, "{other}");
    }
    assert_eq!(
        send("?dryRun=false", r#"{"filter":{"hostname":"é","client":"a"},"reason":"x"}"#).await.0,
        422
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn every_write_sent_twice_under_one_key_happens_once_and_is_answered_the_same() {
    let mut server = Server::start().await;
    let text = |body: &Value, pointer: &str| body.pointer(pointer).unwrap().as_str().unwrap().to_owned();
    let mut secrets = vec![server.token("management:all").await];

    let made = twice(&server, Method::POST, APPLICATIONS, Some(json!({ "name": "made" }))).await;
    let (client, secret) = (text(&made, "/oauth/clientId"), text(&made, "/oauth/clientSecret"));
    assert!(works(&server, &client, &secret).await);
    secrets.push(secret);
    let application = format!("{APPLICATIONS}/{}", text(&made, "/application/id"));
    let rotated = twice(&server, Method::POST, &format!("{application}/rotate-secret"), None).await;
    assert!(works(&server, &client, &text(&rotated, "/oauth/clientSecret")).await);
    assert!(!works(&server, &client, secrets.last().unwrap()).await, "the old one is dead");
    secrets.push(text(&rotated, "/oauth/clientSecret"));

    let account = twice(&server, Method::POST, ACCOUNTS, Some(json!({ "name": "account" }))).await;
    let (client, path) = (text(&account, "/serviceAccount/clientId"), text(&account, "/serviceAccount/id"));
    assert!(works(&server, &client, &text(&account, "/clientSecret")).await);
    secrets.push(text(&account, "/clientSecret"));
    let path = format!("{ACCOUNTS}/{path}");
    let rotated = twice(&server, Method::POST, &format!("{path}/rotate-secret"), None).await;
    assert!(works(&server, &client, &text(&rotated, "/clientSecret")).await);
    secrets.push(text(&rotated, "/clientSecret"));
    twice(&server, Method::DELETE, &path, None).await;

    let body = json!({ "name": "one", "applicationId": made["application"]["id"], "clientSessionId": "one" });
    let opened = twice(&server, Method::POST, SESSIONS, Some(body)).await;
    let one = format!("{SESSIONS}/{}", text(&opened, "/id"));
    twice(&server, Method::POST, &format!("{one}/heartbeat"), None).await;
    let report = json!({ "requests": 3 });
    twice(&server, Method::POST, &format!("{one}/activity"), Some(report)).await;
    let holder = server.holder(text(&opened, "/token"));
    assert_eq!(holder.post(&format!("{one}/heartbeat"), json!({})).await.0, 200, "its token works");
    let renewed = twice(&server, Method::POST, &format!("{one}/renew"), None).await;
    assert_eq!(holder.post(&format!("{one}/heartbeat"), json!({})).await.0, 401, "its old token does not");
    let holder = server.holder(text(&renewed, "/token"));
    assert_eq!(holder.post(&format!("{one}/heartbeat"), json!({})).await.0, 200);
    secrets.extend([text(&opened, "/token"), text(&renewed, "/token")]);

    let sessions = format!("{application}/sessions");
    let terminate = format!("{sessions}/{}/terminate", text(&opened, "/id"));
    assert_eq!(twice(&server, Method::POST, &terminate, None).await["disconnectedCount"], 1);
    let operator = server.operator().await;
    let mut ids = vec![];
    for _ in 0..3 {
        let agent = operator.connect(json!({ "applicationId": made["application"]["id"] })).await;
        secrets.push(agent.holder.token.clone().unwrap());
        ids.push(agent.id);
    }
    let revoked = twice(&server, Method::DELETE, &format!("{sessions}/{}", ids[0]), None).await;
    assert_eq!(revoked["disconnectedCount"], 1);
    twice(&server, Method::DELETE, &format!("/api/v1/agent-instances/{}", ids[1]), None).await;
    assert_eq!(twice(&server, Method::DELETE, &sessions, None).await["disconnectedCount"], 1);
    twice(&server, Method::DELETE, &application, None).await;

    server.stop().await;
    nothing_of(&secrets, server.directory.path()).await;
}

/// An outcome as releases before typed operations recorded it: within the name of its kind.
fn as_before(outcome: &Value) -> Value {
    match outcome {
        Value::Number(_) => json!({ "bulk": outcome }),
        Value::Null => json!("nothing"),
        _ if outcome.get("opened").is_some() => json!({ "session": outcome }),
        _ if outcome.get("oauth").is_some() => json!({ "application": outcome }),
        _ if outcome.get("scopes").is_some() => json!({ "item": { "ApiKey": outcome } }),
        _ => json!({ "session": { "session": outcome, "opened": false } }),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_release_before_recorded_is_answered_after_an_upgrade() {
    let mut server = Server::start().await;
    let operator = server.operator().await;
    let opened = post(&operator, SESSIONS, json!({ "name": "one" }), "connect").await;
    let one = format!("{SESSIONS}/{}", opened.body["id"].as_str().unwrap());
    let application = server.application().await;
    let terminate = format!("{APPLICATIONS}/{application}/sessions/{}/terminate", &one[SESSIONS.len() + 1..]);
    let key = json!({ "name": "portal", "scopes": ["media"] });
    let requests = [
        (SESSIONS.to_owned(), json!({ "name": "one" }), "connect"),
        (format!("{one}/heartbeat"), json!({}), "heartbeat"),
        (APPLICATIONS.to_owned(), json!({ "name": "made" }), "application"),
        ("/api/v1/api-keys".to_owned(), key, "key"),
        (terminate, json!({}), "terminate"),
    ];
    let mut first = vec![];
    for (path, body, key) in &requests {
        let told = post(&operator, path, body.clone(), key).await;
        assert!((200..300).contains(&told.status), "{path}: {told:?}");
        first.push(told);
    }
    if store::has_no_file("it writes into the file as an earlier release did") {
        return;
    }
    let base = server.url("");
    server.stop().await;
    let mut file = sqlx::SqliteConnection::connect(&server.database()).await.unwrap();
    let recorded: Vec<(Vec<u8>, String)> =
        sqlx::query_as("select key, outcome from idempotency").fetch_all(&mut file).await.unwrap();
    assert_eq!(recorded.len(), requests.len());
    for (key, outcome) in recorded {
        let before = as_before(&serde_json::from_str(&outcome).unwrap()).to_string();
        let sql = "update idempotency set outcome = ? where key = ?";
        sqlx::query(sql).bind(before).bind(key).execute(&mut file).await.unwrap();
    }
    file.close().await.unwrap();
    let server = server.restart().await;
    let operator = server.operator().await;
    for ((path, body, key), first) in requests.into_iter().zip(first) {
        let told = post(&operator, &path, body, key).await;
        // It listens on another port.
        let elsewhere = |body: &Value| body.to_string().replace(&server.url(""), &base);
        assert!(told.replayed, "{path}: {told:?}");
        assert_eq!((told.status, elsewhere(&told.body)), (first.status, first.body.to_string()), "{path}");
    }
}

/// Nothing that was issued is in anything that is stored.
async fn nothing_of(secrets: &[String], directory: &std::path::Path) {
    for (place, bytes) in store::stored(directory).await {
        for secret in secrets {
            let (_, secret) = secret.rsplit_once('_').unwrap_or(("", secret));
            // The last part of a token may hold an underscore; what is left of it is long enough to be found.
            let found = bytes.windows(secret.len()).any(|part| part == secret.as_bytes());
            assert!(secret.len() < 8 || !found, "{place}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_ended_since_is_answered_for_as_it_was_opened_and_renewed() {
    let server = Server::start().await;
    let operator = server.operator().await;
    let opened = post(&operator, SESSIONS, json!({ "hostname": "host" }), "open").await;
    assert_eq!(opened.status, 201);
    let path = format!("{SESSIONS}/{}", opened.body["id"].as_str().unwrap());
    let renewed = post(&operator, &format!("{path}/renew"), json!({}), "renew").await;
    let gone = post(&operator, &format!("{path}/disconnect"), json!({}), "gone").await;
    assert_eq!((renewed.status, gone.status), (200, 200));
    assert_eq!(post(&operator, SESSIONS, json!({ "hostname": "host" }), "open").await, opened.again());
    assert_eq!(post(&operator, &format!("{path}/renew"), json!({}), "renew").await, renewed.again());
    assert_eq!(post(&operator, &format!("{path}/disconnect"), json!({}), "gone").await, gone.again());
    assert_eq!(post(&operator, &format!("{path}/renew"), json!({}), "another").await.status, 410);
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_at_once_under_one_key_open_one_session() {
    let server = Server::start().await;
    let operator = server.operator().await;
    let all = join_all((0..50).map(|_| post(&operator, SESSIONS, json!({}), "\"k\""))).await;
    let first = all.iter().find(|told| told.status == 201 && !told.replayed).unwrap();
    for told in &all {
        let under_way = told.refused() == (409, "idempotency_in_flight");
        assert!(under_way || told == first || *told == first.again(), "{told:?}");
    }
    assert_eq!(all.iter().filter(|told| told.status == 201 && !told.replayed).count(), 1);
    assert_eq!(post(&operator, SESSIONS, json!({}), "k").await, first.again(), "quotes are not of the key");
    assert_eq!(server.positions_of(&["connected"]).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_client_s_same_key_is_its_own() {
    let server = Server::start().await;
    let operator = server.operator().await;
    let founded =
        server.running.as_ref().unwrap().house.directory.organizations.create("other", None).await.unwrap();
    let foreigner = server.token_for(&founded.client_id, &founded.client_secret, "").await;
    let (_, account) = operator.post(ACCOUNTS, json!({ "name": "sister" })).await;
    let text = |pointer: &str| account.pointer(pointer).unwrap().as_str().unwrap().to_owned();
    let sister = server.token_for(&text("/serviceAccount/clientId"), &text("/clientSecret"), "").await;
    let mut ids = std::collections::BTreeSet::new();
    for holder in [operator, server.holder(foreigner), server.holder(sister)] {
        let told = post(&holder, SESSIONS, json!({}), "same").await;
        assert_eq!((told.status, told.replayed), (201, false));
        ids.insert(told.body["token"].as_str().unwrap().rsplit('_').next().unwrap().to_owned());
    }
    assert_eq!(ids.len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_day_a_key_is_forgotten_and_its_secrets_do_not_come_again() {
    let server = Server::with(&["--stale-after", "40h", "--absolute-lifetime", "40h"]).await;
    let kept = async || {
        let mut inside = server.look_inside().await;
        inside.number("select count(*) from idempotency", &[]).await
    };
    let body = || json!({ "clientSessionId": "one" });
    let first = post(&server.operator().await, SESSIONS, body(), "daily").await;
    server.turn(86_390);
    let operator = server.operator().await;
    assert_eq!(post(&operator, SESSIONS, body(), "daily").await, first.again());
    server.turn(20);
    let second = post(&operator, SESSIONS, body(), "daily").await;
    assert_eq!((second.status, second.replayed), (200, false), "it attached afresh");
    assert_eq!(second.body["id"], first.body["id"]);
    assert_ne!(second.body["token"], first.body["token"], "the token of the day before stays dead");
    assert_eq!(kept().await, 1, "in place of the old one");
    server.turn(86_500);
    server.running.as_ref().unwrap().house.sessions.idempotency.forget_outcomes().await.unwrap();
    assert_eq!(kept().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_refused_did_nothing_and_is_decided_afresh() {
    let server = Server::start().await;
    let operator = server.operator().await;
    let refused = post(&operator, APPLICATIONS, json!({ "name": "default" }), "k").await;
    assert_eq!(refused.status, 409);
    let path = format!("{APPLICATIONS}/{}", server.application().await);
    assert_eq!(operator.patch(&path, json!({ "name": "former" })).await.0, 200);
    let made = post(&operator, APPLICATIONS, json!({ "name": "default" }), "k").await;
    assert_eq!((made.status, made.replayed), (201, false));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_one_to_255_visible_characters_quoted_or_not() {
    let server = Server::start().await;
    let operator = server.operator().await;
    let longest = "k".repeat(255);
    for good in ["k", "\"k1\"", "\"a\\\"b\\\\\"", &longest, &format!("\"{longest}\"")] {
        assert_eq!(post(&operator, SESSIONS, json!({}), good).await.status, 201, "{good}");
    }
    let too_long = "k".repeat(256);
    for bad in ["", "\"\"", "\"k", "\"k\" ; a=1", "\"k\\n\"", "two words", "\"two words\"", &too_long] {
        let told = post(&operator, SESSIONS, json!({}), bad).await;
        assert_eq!(told.refused(), (400, "invalid_request"), "{bad}");
        assert_eq!(told.body["field"], "Idempotency-Key");
    }
    let request = server.http.post(server.url(SESSIONS)).bearer_auth(operator.token.as_ref().unwrap());
    let two = request.header("idempotency-key", "one").header("idempotency-key", "two");
    assert_eq!(two.send().await.unwrap().status(), 400);
    let stranger = server.holder("sat_nonsense");
    assert_eq!(post(&stranger, SESSIONS, json!({}), "").await.status, 401, "who asks comes first");
    let large = json!({ "name": "x".repeat(70_000) });
    assert_eq!(post(&operator, SESSIONS, large, "large").await.status, 413);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_only_reads_or_is_the_same_anyway_ignores_the_key() {
    let server = Server::start().await;
    let operator = server.operator().await;
    let path = format!("{APPLICATIONS}/{}", server.application().await);
    for name in ["a", "b"] {
        let told = keyed(&operator, Method::PATCH, &path, Some(&json!({ "name": name })), "k").await;
        assert_eq!((told.status, told.replayed), (200, false));
        let told = keyed(&operator, Method::GET, &path, None, "k").await;
        assert_eq!(told.body["application"]["name"], name);
    }
    let (id, secret) = (CLIENT_ID, CLIENT_SECRET);
    let form = [("grant_type", "client_credentials")];
    let ask = || server.http.post(server.url("/oauth2/token")).basic_auth(id, Some(secret)).form(&form);
    let token = async || {
        let answer = ask().header("idempotency-key", "k").send().await.unwrap();
        answer.json::<Value>().await.unwrap()["access_token"].clone()
    };
    assert_ne!(token().await, token().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_left_a_revocation_and_asks_again_gets_its_count() {
    let server = Server::start().await;
    let operator = server.operator().await;
    let mut application = String::new();
    for _ in 0..12 {
        application = operator.connect_many(250).await[0].application.clone();
    }
    let path = format!("{APPLICATIONS}/{application}/sessions");
    let asked = tokio::spawn({
        let (operator, path) = (operator.clone(), path.clone());
        async move { keyed(&operator, Method::DELETE, &path, None, "k").await }
    });
    server.until("it began", async || !server.positions_of(&["revocation_began"]).await.is_empty()).await;
    asked.abort();
    let told = loop {
        let told = keyed(&operator, Method::DELETE, &path, None, "k").await;
        if told.refused() != (409, "idempotency_in_flight") {
            break told;
        }
    };
    assert_eq!((told.status, &told.body["disconnectedCount"]), (200, &json!(3_000)));
    assert!(told.replayed);
    assert_eq!(server.positions_of(&["revocation_began"]).await.len(), 1);
    assert_eq!(server.positions_of(&["disconnected"]).await.len(), 3_000);
    let waits = keyed(&operator, Method::DELETE, &path, None, "k").await;
    assert_eq!(waits, told, "and again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_of_two_thousand_sent_again_adds_nothing_also_where_a_session_ended_since() {
    let server = Server::start().await;
    let operator = server.operator().await;
    let agents = operator.connect_many(20).await;
    assert_eq!(agents[0].call("disconnect").await.0, 200);
    let item = |index: usize| json!({ "sessionId": agents[index % 20].id, "requests": 1 });
    let items: Vec<Value> = (0..2_000).map(item).collect();
    let (path, body) = (format!("{SESSIONS}/activity"), json!({ "items": items }));
    let first = post(&operator, &path, body.clone(), "k").await;
    assert_eq!((first.status, &first.body["recorded"]), (200, &json!(1_900)));
    assert_eq!(agents[1].call("disconnect").await.0, 200);
    assert_eq!(post(&operator, &path, body, "k").await, first.again());
    let (_, session) = operator.get(&agents[2].path()).await;
    assert_eq!(session["session"]["activity"]["requests"], 100);
    assert_eq!(post(&operator, &path, json!({ "items": [item(2)] }), "k").await.status, 422);
}

/// That each revocation, by its id, was answered with so many sessions as its events in the log are, and how many that is.
pub async fn counts_are_exact(inside: &mut Inside, counts: BTreeMap<String, i64>, each: i64) {
    let sql = "select count(*) from event join revocation on revocation.number = event.revocation \
               where event.type = 'disconnected' and revocation.id = $1";
    for (id, count) in counts {
        let id = uuid::Uuid::parse_str(&id).unwrap();
        let found = inside.number(sql, &[id.into()]).await;
        assert_eq!((found, count), (each, each));
    }
}
