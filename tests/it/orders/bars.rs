//! Thieves: what a revocation leaves in their hands, says that it leaves, and takes when it is told to.

use serde_json::{Value, json};

use super::{begin, caused};
use crate::support::{Holder, Server};

const SESSIONS: &str = "/api/v1/agent-sessions";
const REVOCATIONS: &str = "/api/v1/revocations";

/// Everything that whoever took a laptop holds, and two that have nothing to do with it.
struct Laptop {
    client: (String, String),
    /// A token that opened a session there, and another of the same client.
    tokens: [Holder; 2],
    /// A key that opened a session there, one of a person who has one there, and another of that person.
    keys: [Holder; 3],
    ada: String,
    elsewhere: [Holder; 2],
}

async fn key(server: &Server, operator: &Holder, name: &str, user: Option<&str>) -> (Holder, Value) {
    let mut body = json!({ "name": name, "scopes": ["mcp:invoke"] });
    if let Some(user) = user {
        body["user"] = json!({ "id": user });
    }
    let (status, made) = operator.post("/api/v1/api-keys", body).await;
    assert_eq!(status, 201, "{made}");
    (server.holder(made["key"].as_str().unwrap()), made)
}

async fn client(operator: &Holder, name: &str, application: &str) -> (String, String) {
    let body = json!({ "name": name, "scopes": ["mcp:invoke"], "applicationId": application });
    let (status, made) = operator.post("/api/v1/service-accounts", body).await;
    assert_eq!(status, 201, "{made}");
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    (text(&made["serviceAccount"]["clientId"]), text(&made["clientSecret"]))
}

impl Laptop {
    async fn of(server: &Server, operator: &Holder, application: &str) -> Self {
        let own = client(operator, "laptop", application).await;
        let other = client(operator, "elsewhere", application).await;
        let token =
            async |(id, secret): &(String, String)| server.holder(server.token_for(id, secret, "").await);
        let tokens = [token(&own).await, token(&own).await];
        let (first, _) = key(server, operator, "machine", None).await;
        let (second, made) = key(server, operator, "ada one", Some("ada")).await;
        let (third, _) = key(server, operator, "ada two", Some("ada")).await;
        let (theirs, _) = key(server, operator, "bob", Some("bob")).await;
        let laptop = Self {
            client: own,
            tokens,
            keys: [first, second, third],
            ada: made["apiKey"]["user"]["principalId"].as_str().unwrap().to_owned(),
            elsewhere: [token(&other).await, theirs],
        };
        for one in [&laptop.tokens[0], &laptop.keys[0], &laptop.keys[1]] {
            one.connect(json!({ "applicationId": application, "hostname": "laptop" })).await;
        }
        for one in &laptop.elsewhere {
            one.connect(json!({ "applicationId": application, "hostname": "desk" })).await;
        }
        laptop
    }
}

/// Which of these open a session now.
async fn open<const N: usize>(application: &str, holders: &[Holder; N]) -> [bool; N] {
    let mut opened = [false; N];
    for (opened, holder) in opened.iter_mut().zip(holders) {
        let body = json!({ "applicationId": application, "hostname": "thief" });
        let (status, said) = holder.post(SESSIONS, body).await;
        assert!(status == 201 || status == 401, "{status} {said}");
        *opened = status == 201;
    }
    opened
}

/// Number of principals, access tokens and API keys.
fn counts(value: &Value) -> [u64; 3] {
    ["principals", "accessTokens", "apiKeys"].map(|name| value[name].as_u64().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filter_alone_leaves_the_thief_everything_and_says_so() {
    let (server, operator, application) = begin().await;
    let laptop = Laptop::of(&server, &operator, &application).await;
    let body = json!({ "filter": { "hostname": "laptop" }, "reason": "stolen" });
    let (status, done) = operator.post(REVOCATIONS, body).await;
    assert_eq!(status, 201, "{done}");
    let credentials = &done["revocation"]["credentials"];
    assert_eq!(done["revocation"]["disconnectedCount"], 3);
    assert_eq!(credentials["scope"], "nothing", "{credentials}");
    assert_eq!(counts(&credentials["barred"]), [0, 0, 0], "{credentials}");
    assert_eq!(counts(&credentials["notBarred"]), [3, 2, 3], "{credentials}");
    let words = credentials["mayComeBack"].to_string();
    assert!(words.contains("bar: true") && words.contains("includeKeys: true"), "{words}");
    assert_eq!(open(&application, &laptop.tokens).await, [true, true]);
    assert_eq!(open(&application, &laptop.keys).await, [true, true, true]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filter_with_a_bar_takes_the_tokens_and_with_keys_everything_also_after_a_restart() {
    let (server, operator, application) = begin().await;
    let laptop = Laptop::of(&server, &operator, &application).await;
    let body = json!({ "filter": { "hostname": "laptop" }, "bar": true });
    let (status, dry) = operator.post("/api/v1/revocations?dryRun=true", body.clone()).await;
    assert_eq!((status.as_u16(), &dry["matched"]), (200, &json!(3)), "{dry}");
    assert_eq!(dry["wouldBar"]["clients"], json!([laptop.client.0]), "{dry}");
    assert_eq!(dry["wouldBar"]["apiKeys"], json!([]), "{dry}");
    assert!(dry["wouldBar"]["principals"].as_array().unwrap().contains(&json!(laptop.ada)), "{dry}");

    let (status, done) = operator.post(REVOCATIONS, body).await;
    assert_eq!(status, 201, "{done}");
    let credentials = &done["revocation"]["credentials"];
    assert_eq!(credentials, &dry["credentials"], "what was said before is what was done");
    assert_eq!(credentials["scope"], "matched");
    assert_eq!(counts(&credentials["barred"]), [3, 2, 0], "{credentials}");
    assert_eq!(counts(&credentials["notBarred"]), [0, 0, 3], "{credentials}");
    assert_eq!(open(&application, &laptop.tokens).await, [false, false]);
    assert_eq!(open(&application, &laptop.keys).await, [true, true, true]);
    let (id, secret) = &laptop.client;
    let anew = server.holder(server.token_for(id, secret, "").await);
    assert_eq!(open(&application, &[anew]).await, [true], "who authenticates anew is welcome");

    // Sessions that keys opened on the thief's machine meanwhile.
    let body = json!({ "filter": { "hostname": "thief" }, "bar": true, "includeKeys": true });
    let (_, dry) = operator.post("/api/v1/revocations?dryRun=true", body.clone()).await;
    let mut names: Vec<_> = dry["wouldBar"]["apiKeys"]
        .as_array()
        .unwrap()
        .iter()
        .map(|key| key["name"].as_str().unwrap())
        .collect();
    names.sort_unstable();
    assert_eq!(names, ["ada one", "ada two", "machine"], "{dry}");
    let (status, done) = operator.post(REVOCATIONS, body).await;
    assert_eq!(status, 201, "{done}");
    let revocation = &done["revocation"];
    assert_eq!(revocation["credentials"]["barred"]["apiKeys"], 3, "{done}");
    assert_eq!(revocation["credentials"]["notBarred"]["apiKeys"], 0, "{done}");
    let id = revocation["id"].as_str().unwrap();
    assert_eq!(caused(&operator, id, "api_key_revoked").await.len(), 3);
    assert_eq!(caused(&operator, id, "principal_credentials_barred").await.len(), 3);
    let (_, again) = operator.get(&format!("{REVOCATIONS}/{id}")).await;
    assert_eq!(again["revocation"]["credentials"], revocation["credentials"]);

    assert_eq!(open(&application, &laptop.keys).await, [false, false, false]);
    assert_eq!(open(&application, &laptop.elsewhere).await, [true, true]);
    let server = server.restart().await;
    let again = |holder: &Holder| server.holder(holder.token.clone().unwrap());
    assert_eq!(open(&application, &laptop.tokens.each_ref().map(again)).await, [false, false]);
    assert_eq!(open(&application, &laptop.keys.each_ref().map(again)).await, [false, false, false]);
    assert_eq!(open(&application, &laptop.elsewhere.each_ref().map(again)).await, [true, true]);
}

#[tokio::test(flavor = "multi_thread")]
async fn ending_an_applications_sessions_by_a_filter_bars_what_it_is_told_to() {
    let (server, operator, application) = begin().await;
    let laptop = Laptop::of(&server, &operator, &application).await;
    let path =
        format!("/api/v1/applications/{application}/sessions?hostname=laptop&bar=true&includeKeys=true");
    let (status, dry) = operator.delete(&format!("{path}&dryRun=true")).await;
    assert_eq!(status, 200, "{dry}");
    assert_eq!(
        (&dry["dryRun"], &dry["matched"], &dry["disconnectedCount"]),
        (&json!(true), &json!(3), &json!(0))
    );
    assert_eq!(dry["sample"].as_array().unwrap().len(), 3);
    assert_eq!(open(&application, &laptop.tokens).await, [true, true], "nothing was done");
    let (status, done) = operator.delete(&path).await;
    assert_eq!((status.as_u16(), &done["disconnectedCount"]), (200, &json!(3)), "{done}");
    assert_eq!(done["credentials"], dry["credentials"], "{done}");
    assert_eq!(open(&application, &laptop.tokens).await, [false, false]);
    assert_eq!(open(&application, &laptop.keys).await, [false, false, false]);
    assert_eq!(open(&application, &laptop.elsewhere).await, [true, true]);

    // All of it: every token is barred from the application, and the keys that are left are told of.
    let (_, done) = operator.delete(&format!("/api/v1/applications/{application}/sessions")).await;
    assert_eq!(done["credentials"]["scope"], "application", "{done}");
    assert_eq!(done["credentials"]["notBarred"]["apiKeys"], 1, "{done}");
    assert_eq!(open(&application, &laptop.elsewhere).await, [false, true]);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_session_revoked_bars_what_was_presented_and_tells_of_the_rest() {
    let (server, operator, application) = begin().await;
    let laptop = Laptop::of(&server, &operator, &application).await;
    let agent = laptop.tokens[0].connect(json!({ "hostname": "laptop" })).await;
    let (status, done) = operator.delete(&agent.path()).await;
    assert_eq!(status, 200, "{done}");
    assert_eq!(done["credentials"]["scope"], "session", "{done}");
    assert_eq!(counts(&done["credentials"]["barred"]), [0, 1, 0], "{done}");
    assert_eq!(counts(&done["credentials"]["notBarred"]), [1, 1, 0], "{done}");
    assert_eq!(open(&application, &laptop.tokens).await, [false, true]);
    let agent = laptop.keys[1].connect(json!({ "applicationId": application })).await;
    let (status, done) = operator.delete(&format!("{}?bar=true&includeKeys=true", agent.path())).await;
    assert_eq!(status, 200, "{done}");
    assert_eq!(done["credentials"]["scope"], "matched", "{done}");
    assert_eq!(counts(&done["credentials"]["barred"]), [1, 0, 2], "{done}");
    assert_eq!(open(&application, &laptop.keys).await, [true, false, false]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_persons_keys_sleep_while_it_is_disabled_and_are_gone_if_that_is_said() {
    let (server, operator, application) = begin().await;
    let laptop = Laptop::of(&server, &operator, &application).await;
    let path = format!("/api/v1/principals/{}", laptop.ada);
    let keys = [&laptop.keys[1], &laptop.keys[2]];
    let refused = async || {
        for key in keys {
            let status = key.post(SESSIONS, json!({ "applicationId": application })).await.0;
            assert!(status == 401 || status == 403, "{status}");
        }
    };
    let by_principal = json!({ "filter": { "principal": laptop.ada } });
    let (_, done) = operator.post(REVOCATIONS, by_principal).await;
    assert_eq!(done["revocation"]["credentials"]["scope"], "principal", "{done}");
    assert_eq!(counts(&done["revocation"]["credentials"]["notBarred"]), [0, 0, 2], "{done}");
    for key in keys {
        key.connect(json!({ "applicationId": application })).await;
    }

    let (status, done) = operator.post(&format!("{path}/disable"), json!({})).await;
    assert_eq!((status.as_u16(), &done["disconnectedCount"]), (200, &json!(2)), "{done}");
    assert_eq!(counts(&done["credentials"]["notBarred"]), [0, 0, 2], "{done}");
    let words = done["credentials"]["mayComeBack"].to_string();
    assert!(words.contains("once the principal is enabled"), "{words}");
    refused().await;
    operator.post(&format!("{path}/enable"), json!({})).await;
    for key in keys {
        key.connect(json!({ "applicationId": application })).await;
    }
    let (_, done) = operator.post(&format!("{path}/disable?includeKeys=true"), json!({})).await;
    assert_eq!(counts(&done["credentials"]["barred"]), [1, 0, 2], "{done}");
    operator.post(&format!("{path}/enable"), json!({})).await;
    refused().await;
    assert_eq!(open(&application, &[laptop.keys[0].clone()]).await, [true], "it is not ada's");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_end_sessions_may_bar_but_takes_no_keys_and_an_application_bars_nothing() {
    let (server, operator, application) = begin().await;
    let laptop = Laptop::of(&server, &operator, &application).await;
    let body = json!({ "name": "desk", "scopes": ["management:sessions:write"] });
    let (_, made) = operator.post("/api/v1/service-accounts", body).await;
    let (id, secret) =
        (made["serviceAccount"]["clientId"].as_str().unwrap(), made["clientSecret"].as_str().unwrap());
    let desk = server.holder(server.token_for(id, secret, "").await);
    let filter = json!({ "hostname": "laptop" });
    let with_keys = json!({ "filter": filter, "bar": true, "includeKeys": true });
    assert_eq!(desk.post(REVOCATIONS, with_keys.clone()).await.0, 403);
    assert_eq!(desk.post("/api/v1/revocations?dryRun=true", with_keys.clone()).await.0, 403);
    let keys_alone = json!({ "filter": filter, "includeKeys": true });
    let (status, said) = operator.post(REVOCATIONS, keys_alone).await;
    assert_eq!((status.as_u16(), &said["field"]), (400, &json!("includeKeys")), "{said}");

    let oauth = json!({ "type": "confidential", "redirectUris": [], "scopes": ["management:all"] });
    let (_, own) = operator.post("/api/v1/applications", json!({ "name": "own", "oauth": oauth })).await;
    let text = |field: &str| own["oauth"][field].as_str().unwrap().to_owned();
    let own = server.holder(server.token_for(&text("clientId"), &text("clientSecret"), "").await);
    let (status, said) = own.post(REVOCATIONS, json!({ "filter": filter, "bar": true })).await;
    assert_eq!((status.as_u16(), &said["code"]), (403, &json!("confined_to_application")), "{said}");

    assert_eq!(open(&application, &laptop.tokens).await, [true, true], "nothing was done");
    let (status, said) = desk.post(REVOCATIONS, json!({ "filter": filter, "bar": true })).await;
    assert_eq!(status, 201, "{said}");
    assert_eq!(open(&application, &laptop.tokens).await, [false, false]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_servers_that_report_viewers_keep_their_keys() {
    let (server, operator, _) = begin().await;
    let (_, made) = operator.post("/api/v1/api-keys", json!({ "name": "engine", "scopes": ["media"] })).await;
    let basic = crate::media::basic(made["key"].as_str().unwrap());
    let streams = "/v1/vhosts/default/apps/app/streams/stream";
    let call = async |method: reqwest::Method, path: &str, body: Value| {
        let request = server.http.request(method, server.url(path)).header("authorization", &basic);
        request.json(&body).send().await.unwrap().status()
    };
    assert_eq!(call(reqwest::Method::PUT, streams, json!({})).await, 201);
    let sessions = format!("{streams}/sessions");
    assert_eq!(call(reqwest::Method::POST, &sessions, json!({ "name": "one" })).await, 201);
    let body = json!({ "filter": { "kind": "media" }, "bar": true, "includeKeys": true });
    let (status, done) = operator.post(REVOCATIONS, body).await;
    assert_eq!((status.as_u16(), &done["revocation"]["disconnectedCount"]), (201, &json!(1)), "{done}");
    assert_eq!(done["revocation"]["credentials"]["barred"]["apiKeys"], 0, "{done}");
    assert_eq!(call(reqwest::Method::POST, &sessions, json!({ "name": "two" })).await, 201);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scheduled_revocation_bars_at_each_run() {
    let (server, operator, application) = begin().await;
    let laptop = Laptop::of(&server, &operator, &application).await;
    let at = (server.clock.now() + chrono::TimeDelta::seconds(60)).to_rfc3339();
    let body = json!({
        "name": "tonight", "filter": { "hostname": "laptop" }, "at": at, "bar": true, "includeKeys": true,
    });
    let (status, made) = operator.post("/api/v1/scheduled-revocations", body).await;
    assert_eq!(status, 201, "{made}");
    let scheduled = &made["scheduledRevocation"];
    assert_eq!((&scheduled["bar"], &scheduled["includeKeys"]), (&json!(true), &json!(true)), "{made}");
    let path = format!("/api/v1/scheduled-revocations/{}", scheduled["id"].as_str().unwrap());
    server.turn(61);
    server.until("its run", async || operator.get(&path).await.1["scheduledRevocation"]["runs"] == 1).await;
    assert_eq!(open(&application, &laptop.tokens).await, [false, false]);
    assert_eq!(open(&application, &laptop.keys).await, [false, false, false]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_would_bar_too_many_one_by_one_is_refused_whole() {
    let (_server, operator, application) = begin().await;
    let people = (0..1_001).map(|number| {
        let body = json!({ "authenticatedUserId": format!("person {number}"), "hostname": "hall" });
        operator.connect(body)
    });
    let agents = futures_util::future::join_all(people).await;
    let body = json!({ "filter": { "hostname": "hall" }, "bar": true });
    for path in ["/api/v1/revocations?dryRun=true", REVOCATIONS] {
        let (status, said) = operator.post(path, body.clone()).await;
        assert_eq!((status.as_u16(), &said["code"]), (409, &json!("too_many_to_bar")), "{said}");
    }
    assert_eq!(agents[0].call("heartbeat").await.0, 200, "nothing was done");
    let whole = json!({ "filter": { "applicationId": application } });
    let (_, done) = operator.post(REVOCATIONS, whole).await;
    assert_eq!(done["revocation"]["disconnectedCount"], 1_001, "{done}");
    assert_eq!(done["revocation"]["credentials"]["barred"]["principals"], 1_001, "{done}");
}
