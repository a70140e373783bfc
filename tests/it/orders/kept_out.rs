//! Bars: thieves who are kept out until the bar ends or is lifted, by each form of the act, with all that they hold.

use chrono::TimeDelta;
use serde_json::{Value, json};

use super::session;
use crate::issuers::{ISSUERS, LOOPBACK, Provider};
use crate::support::{Holder, Server};

const SESSIONS: &str = "/api/v1/agent-sessions";
pub(super) const BARS: &str = "/api/v1/bars";
const REVOCATIONS: &str = "/api/v1/revocations";
pub(super) const MESSAGE: &str = "Come to the help desk, room 12";

/// What the thief of a laptop has: a client with its secret, a person's key, and a JWT that its issuer refreshes.
pub(super) struct Thief {
    provider: Provider,
    client: (String, String),
    key: String,
    pub(super) jwt: String,
    /// Principals of the person of the key and of the JWT.
    pub(super) people: [String; 2],
}

/// An application, an operator, and a thief who has a session with each of the three, all on the laptop.
pub(super) async fn theft() -> (Server, Thief) {
    let provider = Provider::start().await;
    let server = Server::with(LOOPBACK).await;
    let operator = server.operator().await;
    let (status, said) = operator.put(ISSUERS, json!({ "issuers": [provider.trusted()] })).await;
    assert_eq!(status, 200, "{said}");
    let application = server.application().await;
    let body = json!({ "name": "laptop", "scopes": ["mcp:invoke"], "applicationId": application });
    let (_, account) = operator.post("/api/v1/service-accounts", body).await;
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let client = (text(&account["serviceAccount"]["clientId"]), text(&account["clientSecret"]));
    let body = json!({ "name": "key", "scopes": ["mcp:invoke"], "user": { "id": "ada", "email": "ada@example.com" } });
    let (_, key) = operator.post("/api/v1/api-keys", body).await;
    let mut thief = Thief {
        jwt: provider.token(&server, "ada"),
        provider,
        client,
        key: text(&key["key"]),
        people: [text(&key["apiKey"]["user"]["principalId"]), String::new()],
    };
    for holder in thief.holders(&server).await {
        holder.connect(json!({ "applicationId": application, "hostname": "laptop" })).await;
    }
    let (_, people) = operator.get("/api/v1/principals?subject=ada").await;
    let theirs = |one: &&Value| one["issuer"] == json!(thief.provider.trusted()["issuer"]);
    let found = people["items"].as_array().unwrap().iter().find(theirs).unwrap();
    thief.people[1] = text(&found["id"]);
    (server, thief)
}

impl Thief {
    /// What the thief comes back with: a new token of the client, the key, a refreshed JWT.
    pub(super) async fn holders(&self, server: &Server) -> Vec<Holder> {
        let (id, secret) = &self.client;
        let request = server.http.post(server.url("/oauth2/token")).basic_auth(id, Some(secret));
        let answer = request.form(&[("grant_type", "client_credentials")]).send().await.unwrap();
        let token: Value = answer.json().await.unwrap();
        let token = token["access_token"].as_str().unwrap_or("none").to_owned();
        let jwt = self.provider.token(server, "ada");
        [token, self.key.clone(), jwt].map(|token| server.holder(token)).into()
    }

    /// How each of these is answered that opens a session: its status, and the code.
    pub(super) async fn comes_back(&self, server: &Server) -> Vec<(u16, String)> {
        server.turn(2);
        let application = server.application().await;
        let mut answers = vec![];
        for holder in self.holders(server).await {
            let body = json!({ "applicationId": application, "hostname": "elsewhere" });
            let (status, said) = holder.post(SESSIONS, body).await;
            answers.push((status.as_u16(), said["code"].as_str().unwrap_or_default().to_owned()));
        }
        answers
    }
}

pub(super) fn all(status: u16, code: &str) -> Vec<(u16, String)> {
    vec![(status, code.to_owned()); 3]
}

/// A moment to come, as answers tell it.
pub(super) fn in_seconds(server: &Server, seconds: i64) -> String {
    (server.clock.now() + TimeDelta::seconds(seconds)).to_rfc3339_opts(chrono::SecondsFormat::Millis, true)
}

fn in_an_hour(server: &Server) -> String {
    in_seconds(server, 3_600)
}

/// A client that is barred gets no token to begin with.
pub(super) fn kept_out() -> Vec<(u16, String)> {
    vec![(401, "unauthorized".to_owned()), (403, "barred".to_owned()), (403, "barred".to_owned())]
}

#[tokio::test(flavor = "multi_thread")]
async fn no_form_of_revoking_alone_keeps_a_thief_out_who_authenticates_anew() {
    let (server, thief) = theft().await;
    let filter = json!({ "hostname": "laptop" });
    for body in [
        json!({ "filter": { "principal": thief.people[1] } }),
        json!({ "filter": filter }),
        json!({ "filter": filter, "bar": true }),
    ] {
        let (status, done) = server.operator().await.post(REVOCATIONS, body.clone()).await;
        assert_eq!(status, 201, "{done}");
        assert!(!done["revocation"]["credentials"]["mayComeBack"].as_array().unwrap().is_empty(), "{done}");
        assert_eq!(thief.comes_back(&server).await, all(201, ""), "{body}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bars_on_whatever_a_filter_matches_keep_a_thief_out_until_they_end_also_after_a_restart() {
    let (server, thief) = theft().await;
    let operator = server.operator().await;
    let until = in_an_hour(&server);
    let body = json!({
        "filter": { "hostname": "laptop" }, "bar": true, "until": until, "message": MESSAGE, "reason": "stolen",
    });
    let (status, dry) = operator.post(&format!("{REVOCATIONS}?dryRun=true"), body.clone()).await;
    assert_eq!(status, 200, "{dry}");
    let kept = &dry["credentials"]["keptOut"];
    assert_eq!(kept, &json!({ "principals": 3, "clients": 1, "until": until }), "{dry}");
    for person in &thief.people {
        assert!(dry["wouldBar"]["principals"].as_array().unwrap().contains(&json!(person)), "{dry}");
    }
    assert_eq!(thief.comes_back(&server).await, all(201, ""), "nothing was done");

    let (status, done) = operator.post(REVOCATIONS, body).await;
    assert_eq!(status, 201, "{done}");
    assert_eq!(&done["revocation"]["credentials"]["keptOut"], kept, "{done}");
    assert_eq!(
        done["revocation"]["credentials"]["notBarred"]["apiKeys"], 0,
        "the key is kept out too: {done}"
    );
    assert_eq!(thief.comes_back(&server).await, kept_out());
    let stolen = server.holder(thief.jwt.clone());
    let (status, said) = stolen.post(SESSIONS, json!({})).await;
    assert_eq!(
        (status.as_u16(), &said["code"], &said["until"]),
        (403, &json!("barred"), &json!(until)),
        "{said}"
    );
    assert!(said["message"].as_str().unwrap().contains(MESSAGE), "{said}");

    let (_, bars) = operator.get(&format!("{BARS}?standing=true")).await;
    assert_eq!(bars["items"].as_array().unwrap().len(), 3, "{bars}");
    for bar in bars["items"].as_array().unwrap() {
        assert_eq!(
            (&bar["status"], &bar["until"], &bar["message"]),
            (&json!("standing"), &json!(until), &json!(MESSAGE))
        );
        assert_eq!((&bar["reason"], &bar["revocationId"]), (&json!("stolen"), &done["revocation"]["id"]));
    }
    let server = server.restart_after(10).await;
    assert_eq!(thief.comes_back(&server).await, kept_out(), "after a restart");
    server.turn(3_600);
    assert_eq!(thief.comes_back(&server).await, all(201, ""), "the bars are over");
    let (status, said) = server.holder(thief.jwt.clone()).post(SESSIONS, json!({})).await;
    assert_eq!(status, 401, "what was stolen stays put aside: {said}");
    let operator = server.operator().await;
    let (_, bars) = operator.get(&format!("{BARS}?standing=true")).await;
    assert_eq!(bars["items"], json!([]), "{bars}");
    let (_, bars) = operator.get(BARS).await;
    assert!(bars["items"].as_array().unwrap().iter().all(|bar| bar["status"] == "ended"), "{bars}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bar_on_a_person_ends_what_there_is_and_holds_until_it_is_lifted() {
    let (server, thief) = theft().await;
    let operator = server.operator().await;
    let ada = server.holder(thief.provider.token(&server, "ada"));
    let agent = ada.connect(json!({ "hostname": "another" })).await;
    let body = json!({ "principal": thief.people[1], "message": MESSAGE, "reason": "stolen" });
    let (status, placed) = operator.post(BARS, body).await;
    assert_eq!(status, 201, "{placed}");
    let bar = &placed["bar"];
    assert_eq!((&placed["disconnectedCount"], &bar["status"]), (&json!(2), &json!("standing")), "{placed}");
    assert_eq!((&bar["until"], &bar["actor"]["kind"]), (&Value::Null, &json!("service_account")), "{placed}");
    assert_eq!(bar["principal"]["id"], json!(thief.people[1]), "{placed}");
    assert_eq!(session(&operator, &agent).await["disconnectReason"], "revoked");
    let answers = thief.comes_back(&server).await;
    assert_eq!(
        answers,
        [(201, String::new()), (201, String::new()), (403, "barred".to_owned())],
        "it is the person's alone"
    );
    let introspected = async |token: String| -> Value {
        let request = server.http.post(server.url("/oauth2/introspect"));
        let request = request.basic_auth(crate::support::CLIENT_ID, Some(crate::support::CLIENT_SECRET));
        request.form(&[("token", &token)]).send().await.unwrap().json().await.unwrap()
    };
    assert_eq!(introspected(thief.provider.token(&server, "ada")).await, json!({ "active": false }));

    let path = format!("{BARS}/{}", bar["id"].as_str().unwrap());
    for _ in 0..2 {
        let (status, lifted) = operator.delete(&path).await;
        assert_eq!((status.as_u16(), &lifted["bar"]["status"]), (200, &json!("lifted")), "{lifted}");
    }
    assert_eq!(thief.comes_back(&server).await, all(201, ""));
    assert_eq!(introspected(thief.provider.token(&server, "ada")).await["active"], true);
    let (_, events) = operator.get("/api/v1/events?types=bar_placed,bar_lifted").await;
    let events = events["items"].as_array().unwrap();
    assert_eq!(
        (&events[0]["type"], &events[1]["type"], events.len()),
        (&json!("bar_placed"), &json!("bar_lifted"), 2)
    );
    assert_eq!((&events[0]["message"], &events[0]["note"]), (&json!(MESSAGE), &json!("stolen")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bar_on_a_client_closes_the_agent_side_and_its_tokens_and_leaves_what_it_manages() {
    let (server, thief) = theft().await;
    let operator = server.operator().await;
    let body = json!({ "name": "both", "scopes": ["mcp:invoke", "management:sessions:read"] });
    let (_, account) = operator.post("/api/v1/service-accounts", body).await;
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let (id, secret) = (text(&account["serviceAccount"]["clientId"]), text(&account["clientSecret"]));
    let both = server.holder(server.token_for(&id, &secret, "").await);
    let application = server.application().await;
    let (status, placed) = operator.post(BARS, json!({ "clientId": id, "message": MESSAGE })).await;
    assert_eq!((status.as_u16(), &placed["bar"]["clientId"]), (201, &json!(id)), "{placed}");
    for body in [json!({}), json!({ "authenticatedUserId": "somebody" })] {
        let mut body = body;
        body["applicationId"] = json!(application);
        let (status, said) = both.post(SESSIONS, body).await;
        assert_eq!((status.as_u16(), &said["code"]), (403, &json!("barred")), "{said}");
    }
    assert_eq!(both.get("/api/v1/sessions").await.0, 200, "what manages stays");
    let request = server.http.post(server.url("/oauth2/token")).basic_auth(&id, Some(&secret));
    let answer = request.form(&[("grant_type", "client_credentials")]).send().await.unwrap();
    assert_eq!(answer.status(), 403);
    let said: Value = answer.json().await.unwrap();
    assert_eq!(said["error"], "access_denied");
    assert!(said["error_description"].as_str().unwrap().contains(MESSAGE), "{said}");
    server.token_for(&id, &secret, "management:sessions:read").await;
    assert_eq!(thief.comes_back(&server).await, all(201, ""), "others are not concerned");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_bars_themselves_nor_who_may_more_and_nothing_half_said_is_done() {
    let (server, thief) = theft().await;
    let operator = server.operator().await;
    let refused = async |holder: &Holder, path: &str, body: Value, status: u16, what: &str| {
        let (got, said) = holder.post(path, body).await;
        assert_eq!(got, status, "{said}");
        assert!(said["field"] == what || said["code"] == what, "{what}: {said}");
    };
    let own = crate::support::CLIENT_ID;
    refused(&operator, BARS, json!({ "clientId": own }), 400, "principal").await;
    refused(&operator, BARS, json!({ "clientId": "nobody" }), 400, "clientId").await;
    refused(&operator, BARS, json!({}), 400, "principal").await;
    let person = &thief.people[0];
    refused(&operator, BARS, json!({ "principal": person, "clientId": own }), 400, "principal").await;
    let past = json!({ "principal": person, "until": "2020-01-01T00:00:00Z" });
    refused(&operator, BARS, past, 400, "until").await;
    let long = json!({ "principal": person, "message": "x".repeat(501) });
    refused(&operator, BARS, long, 400, "message").await;
    let filter = json!({ "hostname": "laptop" });
    let without = json!({ "filter": filter, "until": in_an_hour(&server) });
    refused(&operator, REVOCATIONS, without, 400, "until").await;

    let body = json!({ "name": "desk", "scopes": ["management:sessions:write"] });
    let (_, account) = operator.post("/api/v1/service-accounts", body).await;
    let (id, secret) =
        (account["serviceAccount"]["clientId"].as_str().unwrap(), account["clientSecret"].as_str().unwrap());
    let desk = server.holder(server.token_for(id, secret, "").await);
    refused(&desk, BARS, json!({ "clientId": own }), 403, "insufficient_scope").await;
    assert_eq!(thief.comes_back(&server).await, all(201, ""), "nothing was done");

    // The operator has a session on the laptop, too, and is left out.
    operator.connect(json!({ "applicationId": server.application().await, "hostname": "laptop" })).await;
    let body = json!({ "filter": filter, "bar": true, "message": MESSAGE });
    let (status, done) = operator.post(REVOCATIONS, body).await;
    assert_eq!(status, 201, "{done}");
    let words = done["revocation"]["credentials"]["mayComeBack"].to_string();
    assert!(words.contains("left out"), "{words}");
    let operator = server.operator().await;
    let (_, bars) = operator.get(BARS).await;
    assert_eq!(bars["items"].as_array().unwrap().len(), 3, "{bars}");
}
