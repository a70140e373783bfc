//! Whoever hands out a credential, or ends one, gives and takes its rights: nobody does that with more rights than the own.

use std::collections::BTreeSet;

use reqwest::Method;
use serde_json::{Value, json};

use super::world::{made, text};
use crate::openapi::document::Document;
use crate::support::{Holder, Server};

/// Members of answers that are credentials.
const CREDENTIALS: [&str; 6] = ["token", "secret", "clientSecret", "key", "access_token", "signingSecret"];

/// Operations whose answers hold a credential, or that end one, and why nobody gets more by them than the own rights.
const JUDGED: [(&str, &str); 28] = [
    ("applications.create", "judged by the client's scopes"),
    ("applications.rotateSecret", "judged by the client's scopes"),
    ("applications.archive", "judged by the client's scopes"),
    ("serviceAccounts.create", "judged by its scopes"),
    ("serviceAccounts.rotateSecret", "judged by its scopes"),
    ("serviceAccounts.archive", "judged by its scopes"),
    ("apiKeys.create", "judged by its scopes"),
    ("apiKeys.revoke", "judged by its scopes"),
    ("apiKeys.rotateSecret", "judged by its scopes"),
    ("principals.disable", "judged by what the person's keys open"),
    ("principals.enable", "judged by what the person's keys open"),
    ("bars.place", "judged by what the principal's keys open, or the client may"),
    ("bars.lift", "the same"),
    ("oauth.token", "its client asks for no more than it may"),
    ("oauth.revoke", "judged by the token's scopes"),
    ("issuers.set", "judged by the issuer's scopes, which are never the installation's"),
    (
        "organizations.create",
        "founding is the installation's; its account has rights in that organization alone",
    ),
    ("agent.create", "the token of the session that the caller keeps"),
    ("agent.renew", "the token of the session that the caller keeps"),
    ("terminals.createSession", "the token of the terminal that the caller opens"),
    ("terminals.createViewer", "shows what the caller may look at"),
    ("webhooks.create", "a key to check our signatures with, which opens nothing"),
    ("webhooks.rotateSecret", "a key to check our signatures with, which opens nothing"),
    ("webhooks.delete", "the same"),
    ("hooks.create", "opens viewers' sessions, within what `management:all` may"),
    ("hooks.delete", "the same"),
    ("hooks.rotateSecret", "the same"),
    ("terminals.deleteMachine", "a machine's credential is another system's"),
];

/// Operations that end something that is no credential, or of a session that the caller may end.
const NO_CREDENTIAL: [&str; 18] = [
    "agentInstances.revoke",
    "agentInstances.revokeAll",
    "agentSessions.revoke",
    "agentSessions.revokeAll",
    "agentSessions.terminate",
    "scheduledRevocations.delete",
    "workloads.deleteWebuiSession",
    "workloads.deleteTaskSession",
    "workloads.terminateWebuiSession",
    "workloads.terminateTaskSession",
    "workloads.endWebuiSession",
    "workloads.endTaskSession",
    "terminals.terminateSession",
    "media.terminateSession",
    "agent.disconnect",
    "me.endSession",
    "principals.erase",
    "revocations.create",
];

/// Whether somewhere in a schema there is a member that is a credential.
fn holds_a_credential(document: &Value, schema: &Value, seen: &mut BTreeSet<String>) -> bool {
    if let Some(name) = schema["$ref"].as_str() {
        let pointer = name.trim_start_matches('#').to_owned();
        return seen.insert(pointer.clone())
            && document.pointer(&pointer).is_some_and(|inner| holds_a_credential(document, inner, seen));
    }
    match schema {
        Value::Object(members) => members.iter().any(|(name, member)| {
            let property = name == "properties"
                && member
                    .as_object()
                    .is_some_and(|all| all.keys().any(|key| CREDENTIALS.contains(&key.as_str())));
            property || holds_a_credential(document, member, seen)
        }),
        Value::Array(items) => items.iter().any(|item| holds_a_credential(document, item, seen)),
        _ => false,
    }
}

#[test]
fn every_operation_that_hands_out_a_credential_or_ends_one_says_how_it_is_judged() {
    let document = Document::new();
    let judged: Vec<&str> = JUDGED.iter().map(|(operation, _)| *operation).collect();
    let ends = [
        "revoke",
        "archive",
        "delete",
        "disable",
        "enable",
        "rotate",
        "terminate",
        "disconnect",
        "end",
        "erase",
    ];
    for operation in document.operations() {
        let answers = operation.described["responses"].as_object().unwrap();
        let gives = answers.iter().any(|(status, answer)| {
            status.starts_with('2')
                && holds_a_credential(&document.0, &answer["content"], &mut BTreeSet::new())
        });
        let verb = operation.id.rsplit('.').next().unwrap();
        let ends = ends.iter().any(|word| verb.starts_with(word));
        assert!(
            !gives || judged.contains(&operation.id),
            "{} hands out a credential: say how it is judged",
            operation.id
        );
        let known = judged.contains(&operation.id) || NO_CREDENTIAL.contains(&operation.id);
        assert!(
            !ends || known,
            "{} ends something: say whether that is a credential, and how it is judged",
            operation.id
        );
    }
    let known: Vec<&str> = document.operations().map(|operation| operation.id).collect();
    for id in judged.iter().chain(&NO_CREDENTIAL) {
        assert!(known.contains(id), "there is no {id}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_manages_an_organization_neither_becomes_nor_locks_out_who_runs_the_installation() {
    let server = Server::start().await;
    let platform = server.holder(server.token("management:all platform:admin").await);
    let account = json!({ "name": "m", "scopes": ["management:all"] });
    let account = made(&platform, "/api/v1/service-accounts", account).await;
    let client = [text(&account, "/serviceAccount/clientId"), text(&account, "/clientSecret")];
    let manager = server.holder(server.token_for(&client[0], &client[1], "").await);
    let all = json!(["management:all", "platform:admin"]);
    let accounts = manager.get("/api/v1/service-accounts").await.1;
    let bootstrap =
        accounts["items"].as_array().unwrap().iter().find(|one| one["name"] != "m").unwrap()["id"].clone();
    let oauth = json!({ "type": "confidential", "redirectUris": [], "scopes": ["platform:admin"] });
    let application = json!({ "name": "over", "oauth": oauth });
    let application = text(&made(&platform, "/api/v1/applications", application).await, "/application/id");
    let key = json!({ "name": "k", "scopes": all, "user": { "id": "root" } });
    let key = made(&platform, "/api/v1/api-keys", key).await;
    let (key, person) = (text(&key, "/apiKey/id"), text(&key, "/apiKey/user/principalId"));
    let account = bootstrap.as_str().unwrap();
    for (method, path) in [
        (Method::POST, format!("/api/v1/service-accounts/{account}/rotate-secret")),
        (Method::DELETE, format!("/api/v1/service-accounts/{account}")),
        (Method::POST, format!("/api/v1/applications/{application}/rotate-secret")),
        (Method::DELETE, format!("/api/v1/applications/{application}")),
        (Method::DELETE, format!("/api/v1/api-keys/{key}")),
        (Method::POST, format!("/api/v1/principals/{person}/disable")),
        (Method::POST, format!("/api/v1/principals/{person}/enable")),
    ] {
        let answer = manager.send(method.clone(), &path, Some(&json!({}))).await;
        let status = answer.status();
        let body: Value = answer.json().await.unwrap();
        assert_eq!(status, 403, "{method} {path}: {body}");
        assert!(body["message"].as_str().unwrap().contains("platform:admin"), "{body}");
    }
    let form = [("token", platform.token.clone().unwrap())];
    let request = manager.http.post(server.url("/oauth2/revoke")).bearer_auth(manager.token.clone().unwrap());
    let status = request.form(&form).send().await.unwrap().status();
    assert_ne!(status, 200, "nor is the other's token given up");
    assert_eq!(platform.get("/api/v1/organizations").await.0, 200);
    // Who has the rights may.
    assert_eq!(platform.delete(&format!("/api/v1/api-keys/{key}")).await.0, 204);
    assert_eq!(platform.delete(&format!("/api/v1/applications/{application}")).await.0, 204);
    let path = format!("/api/v1/service-accounts/{account}/rotate-secret");
    let rotated: (_, Value) = Holder::post(&platform, &path, json!({})).await;
    assert_eq!(rotated.0, 200, "{}", rotated.1);
}
