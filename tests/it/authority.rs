//! What authorises a wish is judged where it is decided: what came before it, in the same batch or since it was presented,
//! may have replaced or ended the credential.

use std::time::Duration;

use futures_util::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};

use crate::issuers::Provider;
use crate::support::{Agent, Holder, Server};

#[tokio::test(flavor = "multi_thread")]
async fn of_ten_who_renew_with_one_token_at_once_one_gets_another() {
    let server = Server::start().await;
    let operator = server.operator().await;
    for round in 0..20 {
        let agent = operator.connect(json!({})).await;
        let answers = join_all((0..10).map(|_| agent.call("renew"))).await;
        let renewed: Vec<_> = answers.iter().filter(|(status, _)| *status == 200).collect();
        assert_eq!(renewed.len(), 1, "round {round}: {answers:?}");
        assert!(answers.iter().all(|(status, _)| matches!(status.as_u16(), 200 | 401)), "{answers:?}");
        let token = renewed[0].1["token"].as_str().unwrap();
        assert_eq!(
            agent.call_as(&server.holder(token), "heartbeat").await.0,
            200,
            "the one that was given works"
        );
        assert_eq!(agent.call("heartbeat").await.0, 401, "and the old one does not");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_goodbye_with_a_token_that_was_just_replaced_ends_nothing() {
    let server = Server::start().await;
    let operator = server.operator().await;
    for _ in 0..20 {
        let agent = operator.connect(json!({})).await;
        let (renewed, left) = tokio::join!(agent.call("renew"), agent.call("disconnect"));
        match (renewed.0.as_u16(), left.0.as_u16()) {
            // Whichever came first is all that happened.
            (200, 401) => {
                let token = renewed.1["token"].as_str().unwrap();
                assert_eq!(agent.call_as(&server.holder(token), "heartbeat").await.0, 200);
            }
            (401 | 410, 200) => assert_eq!(agent.call("disconnect").await.0, 200),
            other => panic!("{other:?}"),
        }
    }
}

/// Where in the log a credential ended, and the last that was done with it.
async fn last_of(server: &Server, actor: &str, ended: &str) -> (i64, i64) {
    let mut inside = server.look_inside().await;
    let id = uuid::Uuid::parse_str(actor).unwrap();
    let ended = inside.number("select max(position) from event where type = $1", &[ended.into()]).await;
    let last = "select coalesce(max(position), 0) from event where actor_id = $1";
    (ended, inside.number(last, &[id.into()]).await)
}

/// Reports with a credential from many sides until it is refused, while it is ended.
async fn race(agents: &[Agent], holder: &Holder, end: impl Future<Output = u16>) {
    let report = async |agent: &Agent| {
        for _ in 0..40 {
            if agent.call_as(holder, "heartbeat").await.0 != 200 {
                return;
            }
        }
    };
    let end = async {
        tokio::time::sleep(Duration::from_millis(15)).await;
        assert!((200..300).contains(&end.await));
    };
    tokio::join!(join_all(agents.iter().map(report)), end);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_recorded_of_a_credential_after_the_event_that_ended_it() {
    let provider = Provider::start().await;
    let server = Server::with(&["--issuer-allow-loopback"]).await;
    let operator = server.operator().await;
    for _ in 0..8 {
        // An API key is revoked.
        let body = json!({ "name": "k", "scopes": ["mcp:invoke"] });
        let made = operator.post("/api/v1/api-keys", body).await.1;
        let (id, key) = (made["apiKey"]["id"].as_str().unwrap(), made["key"].as_str().unwrap());
        let holder = server.holder(key);
        let agents = holder.connect_many(24).await;
        let path = format!("/api/v1/api-keys/{id}");
        race(&agents, &holder, async { operator.delete(&path).await.0.as_u16() }).await;
        let (ended, last) = last_of(&server, id, "api_key_revoked").await;
        assert!(last < ended, "a key: {last} after {ended}");
        // A service account is archived.
        let made = operator
            .post("/api/v1/service-accounts", json!({ "name": "a", "scopes": ["mcp:invoke"] }))
            .await
            .1;
        let text = |at: &str| made.pointer(at).and_then(Value::as_str).unwrap().to_owned();
        let id = text("/serviceAccount/id");
        let token = server.token_for(&text("/serviceAccount/clientId"), &text("/clientSecret"), "").await;
        let holder = server.holder(token);
        let agents = holder.connect_many(24).await;
        let path = format!("/api/v1/service-accounts/{id}");
        race(&agents, &holder, async { operator.delete(&path).await.0.as_u16() }).await;
        let (ended, last) = last_of(&server, &id, "service_account_archived").await;
        assert!(last < ended, "an account: {last} after {ended}");
        // An issuer is trusted no more.
        let issuers = json!({ "issuers": [provider.trusted()] });
        assert_eq!(operator.put("/api/v1/organization/issuers", issuers).await.0, 200);
        let holder = server.holder(provider.sign(&provider.header(), &provider.claims(&server, "ada")));
        let agents = holder.connect_many(24).await;
        let none = json!({ "issuers": [] });
        race(&agents, &holder, async { operator.put("/api/v1/organization/issuers", none).await.0.as_u16() })
            .await;
        let people = operator.get("/api/v1/principals?subject=ada").await.1;
        let person = people["items"][0]["id"].as_str().unwrap().to_owned();
        let (ended, last) = last_of(&server, &person, "organization_issuers_set").await;
        assert!(last < ended, "an issuer: {last} after {ended}");
        // The person of a key is disabled.
        let body = json!({ "name": "k", "scopes": ["mcp:invoke"], "user": { "id": "grace" } });
        let made = operator.post("/api/v1/api-keys", body).await.1;
        let text = |at: &str| made.pointer(at).and_then(Value::as_str).unwrap().to_owned();
        let (key, person) = (text("/apiKey/id"), text("/apiKey/user/principalId"));
        let holder = server.holder(text("/key"));
        let agents = holder.connect_many(24).await;
        let path = format!("/api/v1/principals/{person}/disable");
        race(&agents, &holder, async { operator.post(&path, json!({})).await.0.as_u16() }).await;
        let (ended, last) = last_of(&server, &key, "principal_disabled").await;
        assert!(0 < last && last < ended, "a person: {last} after {ended}");
        let path = format!("/api/v1/principals/{person}/enable");
        assert!(operator.post(&path, json!({})).await.0.is_success());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_recorded_of_a_token_after_the_answer_that_it_is_given_up() {
    let server = Server::start().await;
    let operator = server.operator().await;
    let body = json!({ "name": "a", "scopes": ["mcp:invoke"] });
    let made = operator.post("/api/v1/service-accounts", body).await.1;
    let text = |at: &str| made.pointer(at).and_then(Value::as_str).unwrap().to_owned();
    let (id, client, secret) =
        (text("/serviceAccount/id"), text("/serviceAccount/clientId"), text("/clientSecret"));
    for _ in 0..8 {
        let token = server.token_for(&client, &secret, "").await;
        let holder = server.holder(token.clone());
        let agents = holder.connect_many(24).await;
        let mut then = 0;
        let give_up = async {
            let request = server.http.post(server.url("/oauth2/revoke")).bearer_auth(&token);
            let answer = request.form(&[("token", &token)]).send().await.unwrap();
            // There is no event of it: what is recorded when the answer is there is all.
            then = last_of(&server, &id, "connected").await.1;
            answer.status().as_u16()
        };
        race(&agents, &holder, give_up).await;
        assert_eq!(last_of(&server, &id, "connected").await.1, then);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_is_given_no_token_for_a_secret_that_was_replaced() {
    let server = Server::start().await;
    let operator = server.operator().await;
    let made =
        operator.post("/api/v1/service-accounts", json!({ "name": "a", "scopes": ["mcp:invoke"] })).await.1;
    let text = |at: &str| made.pointer(at).and_then(Value::as_str).unwrap().to_owned();
    let (id, client, mut secret) =
        (text("/serviceAccount/id"), text("/serviceAccount/clientId"), text("/clientSecret"));
    let ask = async |secret: &str| {
        let form = [("grant_type", "client_credentials")];
        let request = server.http.post(server.url("/oauth2/token")).basic_auth(&client, Some(secret));
        request.form(&form).send().await.unwrap().status().as_u16()
    };
    for _ in 0..10 {
        let path = format!("/api/v1/service-accounts/{id}/rotate-secret");
        let (rotated, asked) =
            tokio::join!(operator.send(Method::POST, &path, None), join_all((0..8).map(|_| ask(&secret))),);
        assert!(asked.iter().all(|status| matches!(status, 200 | 401)), "{asked:?}");
        let rotated: Value = rotated.json().await.unwrap();
        let new = rotated["clientSecret"].as_str().unwrap().to_owned();
        assert_eq!(ask(&secret).await, 401, "after the answer the old one opens nothing");
        assert_eq!(ask(&new).await, 200);
        secret = new;
    }
}
