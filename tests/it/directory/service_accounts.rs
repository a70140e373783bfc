//! Service accounts, through their whole life.

use reqwest::StatusCode;
use serde_json::{Value, json};

use super::{ACCOUNTS, UNKNOWN, created, names, plain, text};
use crate::support::Server;

#[tokio::test(flavor = "multi_thread")]
async fn a_new_service_account_shows_all_of_itself_and_its_secret_once() {
    let server = Server::start().await;
    let operator = server.operator().await;
    let application = server.application().await;
    let body = json!({ "name": "ci", "scopes": ["mcp:invoke"], "applicationId": application });
    let answer = created(&operator, ACCOUNTS, body).await;
    assert_eq!(text(&answer, "/serviceAccount/applicationId"), application);
    let id = text(&answer, "/serviceAccount/id").to_owned();
    let account = json!({
        "id": "<id>", "name": "ci", "clientId": "sa_<id>", "scopes": ["mcp:invoke"], "applicationId": "<id>",
        "createdAt": "<time>", "archivedAt": null,
    });
    let shown = plain(answer.clone(), &server);
    let credentials = json!({ "clientId": "sa_<id>", "clientSecret": "<secret>" });
    let expected =
        json!({ "serviceAccount": account.clone(), "clientSecret": "<secret>", "credentials": credentials });
    assert_eq!(shown, expected);
    let (status, read) = operator.get(&format!("{ACCOUNTS}/{id}")).await;
    assert_eq!((status, plain(read, &server)), (StatusCode::OK, json!({ "serviceAccount": account })));
    let (client, secret) = (text(&answer, "/serviceAccount/clientId"), text(&answer, "/clientSecret"));
    let agent = server.holder(server.token_for(client, secret, "").await).connect(json!({})).await;
    assert_eq!(agent.application, application, "it creates where it is bound");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_account_may_manage_if_nothing_is_said_and_is_bound_to_nothing() {
    let server = Server::start().await;
    let operator = server.operator().await;
    let answer = created(&operator, ACCOUNTS, json!({ "name": "ops" })).await;
    assert_eq!(answer["serviceAccount"]["scopes"], json!(["management:all"]));
    assert_eq!(answer["serviceAccount"]["applicationId"], Value::Null);
    let (_, list) = operator.get(ACCOUNTS).await;
    assert_eq!(names(&list), ["ops", "bootstrap"]);
    let (_, page) = operator.get(&format!("{ACCOUNTS}?limit=1")).await;
    let (_, rest) = operator.get(&format!("{ACCOUNTS}?limit=1&cursor={}", text(&page, "/nextCursor"))).await;
    assert_eq!((names(&page), names(&rest)), (vec!["ops"], vec!["bootstrap"]));
    for (body, status) in [
        (json!({}), 400),
        (json!({ "name": "x", "scopes": [] }), 400),
        (json!({ "name": "x", "scopes": ["root"] }), 400),
        (json!({ "name": "x", "scope": "management:all" }), 400),
        (json!({ "name": "x", "applicationId": "nonsense" }), 400),
        (json!({ "name": "x", "applicationId": UNKNOWN }), 404),
    ] {
        let (got, answer) = operator.post(ACCOUNTS, body.clone()).await;
        assert_eq!(got, status, "{body}: {answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archived_service_account_opens_nothing_any_more() {
    let server = Server::start().await;
    let operator = server.operator().await;
    let made = created(&operator, ACCOUNTS, json!({ "name": "ci" })).await;
    let (client, old) = (text(&made, "/serviceAccount/clientId"), text(&made, "/clientSecret"));
    let path = format!("{ACCOUNTS}/{}", text(&made, "/serviceAccount/id"));
    let (status, rotated) = operator.post(&format!("{path}/rotate-secret"), json!({})).await;
    assert_eq!(status, 200, "{rotated}");
    let secret = text(&rotated, "/clientSecret");
    assert_ne!(secret, old);
    let holder = server.holder(server.token_for(client, secret, "").await);
    assert_eq!(holder.get(ACCOUNTS).await.0, 200);
    assert_eq!(operator.delete(&path).await, (StatusCode::NO_CONTENT, json!("")));
    assert_eq!(operator.delete(&path).await.0, 204, "archiving twice is success");
    assert_eq!(holder.get(ACCOUNTS).await.0, 401);
    for secret in [old, secret] {
        let form = [("grant_type", "client_credentials")];
        let asked =
            server.http.post(server.url("/oauth2/token")).basic_auth(client, Some(secret)).form(&form);
        assert_eq!(asked.send().await.unwrap().status(), 401);
    }
    let (_, read) = operator.get(&path).await;
    assert!(read["serviceAccount"]["archivedAt"].is_string(), "{read}");
    assert_eq!(names(&operator.get(ACCOUNTS).await.1), ["bootstrap"]);
    assert_eq!(
        names(&operator.get(&format!("{ACCOUNTS}?includeArchived=true")).await.1),
        ["ci", "bootstrap"]
    );
    let (status, body) = operator.post(&format!("{path}/rotate-secret"), json!({})).await;
    assert_eq!((status, text(&body, "/message")), (StatusCode::NOT_FOUND, "Service account not found"));
}
