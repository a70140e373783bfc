//! Who may do what with them.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::{ACCOUNTS, APPLICATIONS, UNKNOWN, created, names, text};
use crate::support::{Holder, Server};

/// Every operation here, with a body that would do.
fn operations(application: &str, account: &str) -> Vec<(Method, String, Option<Value>)> {
    let application = format!("{APPLICATIONS}/{application}");
    let account = format!("{ACCOUNTS}/{account}");
    vec![
        (Method::GET, APPLICATIONS.to_owned(), None),
        (Method::GET, application.clone(), None),
        (Method::POST, APPLICATIONS.to_owned(), Some(json!({ "name": "made" }))),
        (Method::PATCH, application.clone(), Some(json!({ "description": "changed" }))),
        (Method::POST, format!("{application}/rotate-secret"), None),
        (
            Method::PUT,
            format!("{application}/upstream"),
            Some(json!({ "url": "https://upstream.example/mcp" })),
        ),
        (Method::GET, ACCOUNTS.to_owned(), None),
        (Method::GET, account.clone(), None),
        (Method::POST, ACCOUNTS.to_owned(), Some(json!({ "name": "made" }))),
        (Method::POST, format!("{account}/rotate-secret"), None),
        (Method::DELETE, account, None),
        (Method::DELETE, application, None),
    ]
}

async fn first(holder: &Holder, path: &str) -> String {
    text(&holder.get(path).await.1, "/items/0/id").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_right_opens_what_it_should_and_is_asked_for_before_ids_and_bodies() {
    let server = Server::start().await;
    let operator = server.operator().await;
    let (application, account) = (server.application().await, first(&operator, ACCOUNTS).await);
    let reader_account = json!({ "name": "reader", "scopes": ["management:sessions:read"] });
    let reader = created(&operator, ACCOUNTS, reader_account).await;
    let (client, secret) = (text(&reader, "/serviceAccount/clientId"), text(&reader, "/clientSecret"));
    let reader = server.holder(server.token_for(client, secret, "").await);
    let agent = server.holder(server.token("mcp:invoke").await);
    for (number, (method, path, body)) in operations(&application, &account).into_iter().enumerate() {
        let status = async |holder: &Holder| holder.send(method.clone(), &path, body.as_ref()).await.status();
        assert_eq!(status(&server.stranger()).await, 401, "{method} {path}");
        assert_eq!(status(&agent).await, 403, "{method} {path}");
        let expected = if number < 2 { 200 } else { 403 };
        assert_eq!(status(&reader).await, expected, "{method} {path}");
    }
    for (method, path, _) in operations("nonsense", "nonsense") {
        let wrong = json!({ "wrong": true });
        let status = async |holder: &Holder| holder.send(method.clone(), &path, Some(&wrong)).await.status();
        assert_eq!(status(&server.stranger()).await, 401, "{method} {path}");
        assert_eq!(status(&agent).await, 403, "{method} {path}");
    }
    for (method, path, body) in operations("nonsense", "nonsense") {
        if path.contains("nonsense") {
            let response = operator.send(method.clone(), &path, body.as_ref()).await;
            assert_eq!(response.status(), 400, "{method} {path}");
            let body: Value = response.json().await.unwrap();
            assert_eq!(text(&body, "/message"), "Validation failed (uuid is expected)");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_applications_own_token_manages_nothing_beside_it() {
    let server = Server::start().await;
    let operator = server.operator().await;
    let (other, account) = (server.application().await, first(&operator, ACCOUNTS).await);
    let oauth = json!({ "type": "confidential", "redirectUris": [], "scopes": ["management:all"] });
    let made = created(&operator, APPLICATIONS, json!({ "name": "own", "oauth": oauth })).await;
    let id = text(&made, "/application/id");
    let token =
        server.token_for(text(&made, "/oauth/clientId"), text(&made, "/oauth/clientSecret"), "").await;
    let own = server.holder(token);
    assert_eq!(names(&own.get(APPLICATIONS).await.1), ["own"]);
    for (method, path, body) in operations(&other, &account) {
        let expected = match (method.as_str(), path.as_str()) {
            ("GET", APPLICATIONS) => 200,
            ("POST", APPLICATIONS) => 403,
            (_, path) if path.starts_with(ACCOUNTS) => 403,
            _ => 404,
        };
        let response = own.send(method.clone(), &path, body.as_ref()).await;
        assert_eq!(response.status(), expected, "{method} {path}");
    }
    let (status, body) = own.post(APPLICATIONS, json!({ "wrong": true })).await;
    assert_eq!((status, text(&body, "/code")), (StatusCode::FORBIDDEN, "confined_to_application"));
    let (status, _) = own.patch(&format!("{APPLICATIONS}/{id}"), json!({ "description": "mine" })).await;
    assert_eq!(status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_belongs_to_another_organization_is_not_found() {
    let server = Server::start().await;
    let operator = server.operator().await;
    let (application, account) = (server.application().await, first(&operator, ACCOUNTS).await);
    let founded =
        server.running.as_ref().unwrap().house.directory.organizations.create("other", None).await.unwrap();
    let foreigner = server.holder(server.token_for(&founded.client_id, &founded.client_secret, "").await);
    assert_eq!(names(&foreigner.get(APPLICATIONS).await.1), ["default"]);
    for (method, path, body) in operations(&application, &account) {
        if path == APPLICATIONS || path == ACCOUNTS {
            continue;
        }
        let response = foreigner.send(method.clone(), &path, body.as_ref()).await;
        assert_eq!(response.status(), 404, "{method} {path}");
        let (_, unknown) = foreigner.get(&format!("{APPLICATIONS}/{UNKNOWN}")).await;
        let body: Value = response.json().await.unwrap();
        if path.starts_with(APPLICATIONS) {
            assert_eq!(body, unknown, "it is told apart by nothing from one that does not exist");
        }
    }
    let body = json!({ "name": "spy", "applicationId": application });
    assert_eq!(foreigner.post(ACCOUNTS, body).await.0, 404);
    let (_, read) = operator.get(&format!("{APPLICATIONS}/{application}")).await;
    assert_eq!(read["application"]["description"], Value::Null);
}
