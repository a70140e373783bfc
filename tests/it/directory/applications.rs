//! Applications, through their whole life.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::{APPLICATIONS, created, names, plain, text};
use crate::support::Server;

#[tokio::test(flavor = "multi_thread")]
async fn a_new_application_shows_all_of_itself_and_its_secret_once() {
    let server = Server::start().await;
    let operator = server.operator().await;
    let answer = created(&operator, APPLICATIONS, json!({ "name": " crm " })).await;
    let id = text(&answer, "/application/id").to_owned();
    assert_eq!(text(&answer, "/application/clientId"), format!("app_{id}"));
    assert_eq!(text(&answer, "/oauth/gatewayUrl"), server.url(&format!("/mcp/{id}")));
    let application = json!({
        "id": "<id>", "name": "crm", "description": null, "clientId": "app_<id>", "createdAt": "<time>",
        "updatedAt": "<time>", "archivedAt": null, "upstreamUrl": null, "upstreamCredential": null,
        "upstreamHeaders": null,
        "sessions": { "active": 0, "idle": 0, "live": 0, "total": 0 },
    });
    let oauth = json!({
        "type": "confidential", "clientId": "app_<id>", "clientSecret": "<secret>", "pkceRequired": true,
        "scopes": ["mcp:invoke"], "authorizationUrl": "<base>/oauth2/authorize", "tokenUrl": "<base>/oauth2/token",
        "gatewayUrl": "<base>/mcp/<id>", "redirectUris": [], "allowedResources": [],
    });
    assert_eq!(plain(answer, &server), json!({ "application": application.clone(), "oauth": oauth }));
    let (status, read) = operator.get(&format!("{APPLICATIONS}/{id}")).await;
    assert_eq!((status, plain(read, &server)), (StatusCode::OK, json!({ "application": application })));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_said_about_oauth_is_kept_and_echoed() {
    let server = Server::start().await;
    let operator = server.operator().await;
    let oauth = json!({
        "type": "public", "redirectUris": ["https://app.example.com/callback", "com.example.app:/done"],
        "pkceRequired": false, "scopes": ["mcp:invoke", "management:sessions:read"],
        "allowedResources": ["https://mcp.example.com"],
    });
    let answer = created(&operator, APPLICATIONS, json!({ "name": "spa", "oauth": oauth })).await;
    for (field, value) in oauth.as_object().unwrap() {
        assert_eq!(&answer["oauth"][field], value, "{field}");
    }
    assert_eq!(answer["oauth"]["clientSecret"], Value::Null);
    let path = format!("{APPLICATIONS}/{}/rotate-secret", text(&answer, "/application/id"));
    let (status, body) = operator.post(&path, json!({})).await;
    assert_eq!((status, text(&body, "/code")), (StatusCode::CONFLICT, "public_application"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_application_that_is_described_wrongly_is_refused_with_the_fields_name() {
    let server = Server::start().await;
    let operator = server.operator().await;
    let long = "n".repeat(201);
    for (body, says) in [
        (json!({}), "missing field `name`"),
        (json!({ "name": 7 }), "name"),
        (json!({ "name": "" }), "name must be 1 to 200 characters"),
        (json!({ "name": long }), "name must be 1 to 200 characters"),
        (json!({ "name": "a\nb" }), "without control characters"),
        (json!({ "name": "x", "colour": "red" }), "unknown field `colour`"),
        (json!({ "name": "x", "oauth": { "type": "secret" } }), "secret"),
        (json!({ "name": "x", "oauth": { "type": "public", "redirects": [] } }), "unknown field `redirects`"),
        (json!({ "name": "x", "oauth": { "scopes": ["everything"] } }), "unknown scope \"everything\""),
        (json!({ "name": "x", "oauth": { "redirectUris": ["/relative"] } }), "oauth.redirectUris"),
        (
            json!({ "name": "x", "oauth": { "redirectUris": ["https://a.example/#top"] } }),
            "oauth.redirectUris",
        ),
        (json!(["x"]), "In the body"),
    ] {
        let (status, answer) = operator.post(APPLICATIONS, body.clone()).await;
        assert_eq!((status, text(&answer, "/code")), (StatusCode::BAD_REQUEST, "invalid_request"), "{body}");
        assert!(text(&answer, "/message").contains(says), "{body}: {answer}");
        assert_eq!(answer["statusCode"], 400);
    }
    let (_, list) = operator.get(APPLICATIONS).await;
    assert_eq!(names(&list), ["default"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_live_applications_of_an_organization_never_share_a_name() {
    let server = Server::start().await;
    let operator = server.operator().await;
    let crm = created(&operator, APPLICATIONS, json!({ "name": "crm" })).await;
    let other = created(&operator, APPLICATIONS, json!({ "name": "other" })).await;
    let crm = format!("{APPLICATIONS}/{}", text(&crm, "/application/id"));
    let other = format!("{APPLICATIONS}/{}", text(&other, "/application/id"));
    let (status, body) = operator.post(APPLICATIONS, json!({ "name": "crm" })).await;
    assert_eq!((status, text(&body, "/code")), (StatusCode::CONFLICT, "name_taken"));
    let (status, body) = operator.patch(&other, json!({ "name": "crm" })).await;
    assert_eq!((status, text(&body, "/code")), (StatusCode::CONFLICT, "name_taken"));
    let (status, _) = operator.patch(&crm, json!({ "name": "crm" })).await;
    assert_eq!(status, 200, "its own name is not in its way");
    assert_eq!(operator.delete(&crm).await.0, 204);
    let (status, _) = operator.patch(&other, json!({ "name": "crm" })).await;
    assert_eq!(status, 200, "an archived application gives its name free");
}

#[tokio::test(flavor = "multi_thread")]
async fn applications_are_listed_newest_first_page_by_page() {
    let server = Server::start().await;
    let operator = server.operator().await;
    for name in ["one", "two", "three"] {
        created(&operator, APPLICATIONS, json!({ "name": name })).await;
    }
    let (status, all) = operator.get(APPLICATIONS).await;
    assert_eq!((status, names(&all)), (StatusCode::OK, vec!["three", "two", "one", "default"]));
    assert!(all.get("nextCursor").is_none(), "the last page has no cursor: {all}");
    let (_, first) = operator.get(&format!("{APPLICATIONS}?limit=3")).await;
    assert_eq!(names(&first), ["three", "two", "one"]);
    let cursor = text(&first, "/nextCursor");
    let (_, second) = operator.get(&format!("{APPLICATIONS}?limit=3&cursor={cursor}")).await;
    assert_eq!(names(&second), ["default"]);
    assert!(second.get("nextCursor").is_none());
    for (query, field) in [
        ("limit=0", "limit"),
        ("limit=201", "limit"),
        ("limit=-1", "limit"),
        ("limit=abc", "limit"),
        ("cursor=nonsense", "cursor"),
        ("includeArchived=banana", "includeArchived"),
    ] {
        let (status, body) = operator.get(&format!("{APPLICATIONS}?{query}")).await;
        assert_eq!((status, text(&body, "/field")), (StatusCode::BAD_REQUEST, field), "{query}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_changes_what_it_names_and_nothing_else() {
    let server = Server::start().await;
    let operator = server.operator().await;
    let path = format!("{APPLICATIONS}/{}", server.application().await);
    let (_, before) = operator.get(&path).await;
    server.turn(5);
    let (status, same) = operator.patch(&path, json!({})).await;
    assert_eq!((status, &same), (StatusCode::OK, &before), "nothing was asked for");
    let (_, named) = operator.patch(&path, json!({ "name": "renamed" })).await;
    assert_eq!(
        (text(&named, "/application/name"), &named["application"]["description"]),
        ("renamed", &Value::Null)
    );
    assert!(text(&named, "/application/updatedAt") > text(&before, "/application/updatedAt"));
    let (_, described) = operator.patch(&path, json!({ "description": "what it is" })).await;
    assert_eq!(text(&described, "/application/name"), "renamed");
    assert_eq!(text(&described, "/application/description"), "what it is");
    let (_, bare) = operator.patch(&path, json!({ "description": null })).await;
    assert_eq!(bare["application"]["description"], Value::Null);
    assert_eq!(operator.get(&path).await.1, bare);
    for body in [json!({ "nome": "x" }), json!({ "name": "" }), json!({ "description": "d".repeat(1_001) })] {
        assert_eq!(operator.patch(&path, body.clone()).await.0, 400, "{body}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn archiving_ends_every_session_and_closes_the_application_for_good() {
    let server = Server::start().await;
    let operator = server.operator().await;
    let made = created(&operator, APPLICATIONS, json!({ "name": "crm" })).await;
    let (id, client) = (text(&made, "/application/id"), text(&made, "/application/clientId"));
    let path = format!("{APPLICATIONS}/{id}");
    let own = server.holder(server.token_for(client, text(&made, "/oauth/clientSecret"), "").await);
    let agent = own.connect(json!({})).await;
    let response = operator.send(Method::DELETE, &path, None).await;
    assert_eq!(response.status(), 204);
    assert_eq!(response.bytes().await.unwrap().len(), 0);
    let (_, session) = operator.get(&agent.path()).await;
    assert_eq!(text(&session, "/session/disconnectReason"), "archived", "{session}");
    assert_eq!(own.post("/api/v1/agent-sessions", json!({})).await.0, 401);
    let (status, read) = operator.get(&path).await;
    assert_eq!(status, 200);
    assert!(read["application"]["archivedAt"].is_string(), "{read}");
    assert_eq!(read["application"]["sessions"], json!({ "active": 0, "idle": 0, "live": 0, "total": 1 }));
    assert_eq!(names(&operator.get(APPLICATIONS).await.1), ["default"]);
    assert_eq!(
        names(&operator.get(&format!("{APPLICATIONS}?includeArchived=true")).await.1),
        ["crm", "default"]
    );
    for (method, path, body) in [
        (Method::DELETE, path.clone(), None),
        (Method::PATCH, path.clone(), Some(json!({ "name": "again" }))),
        (Method::POST, format!("{path}/rotate-secret"), None),
        (Method::PUT, format!("{path}/upstream"), Some(json!({ "url": "http://127.0.0.1:1/mcp" }))),
    ] {
        let response = operator.send(method.clone(), &path, body.as_ref()).await;
        assert_eq!(response.status(), 404, "{method} {path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotated_secret_is_the_only_one_that_opens() {
    let server = Server::start().await;
    let operator = server.operator().await;
    let made = created(&operator, APPLICATIONS, json!({ "name": "crm" })).await;
    let (client, old) = (text(&made, "/application/clientId"), text(&made, "/oauth/clientSecret"));
    let holder = server.holder(server.token_for(client, old, "").await);
    let path = format!("{APPLICATIONS}/{}/rotate-secret", text(&made, "/application/id"));
    let (status, rotated) = operator.post(&path, json!({})).await;
    assert_eq!(status, 200);
    assert_eq!(rotated["oauth"].as_object().unwrap().len(), 10, "{rotated}");
    let new = text(&rotated, "/oauth/clientSecret");
    assert_ne!(new, old);
    server.token_for(client, new, "").await;
    let form = [("grant_type", "client_credentials")];
    let refused =
        server.http.post(server.url("/oauth2/token")).basic_auth(client, Some(old)).form(&form).send().await;
    assert_eq!(refused.unwrap().status(), 401);
    holder.connect(json!({})).await; // the token issued before lives on
}

#[tokio::test(flavor = "multi_thread")]
async fn the_upstream_is_shown_once_it_is_set_and_checked_before() {
    let server = Server::start().await;
    let operator = server.operator().await;
    let application = format!("{APPLICATIONS}/{}", server.application().await);
    let path = format!("{application}/upstream");
    let (status, answer) = operator.put(&path, json!({ "url": "http://127.0.0.1:4000/mcp" })).await;
    assert_eq!(
        (status, text(&answer, "/application/upstreamUrl")),
        (StatusCode::OK, "http://127.0.0.1:4000/mcp")
    );
    for url in ["nonsense", "ftp://127.0.0.1/", "http://169.254.169.254/latest", "http://203.0.113.7/mcp"] {
        let (status, body) = operator.put(&path, json!({ "url": url })).await;
        assert_eq!((status, text(&body, "/code")), (StatusCode::BAD_REQUEST, "invalid_request"), "{url}");
    }
    for body in [json!({}), json!({ "url": 7 }), json!({ "url": "http://127.0.0.1:4000/", "token": "x" })] {
        assert_eq!(operator.put(&path, body.clone()).await.0, 400, "{body}");
    }
    let (_, read) = operator.get(&application).await;
    assert_eq!(text(&read, "/application/upstreamUrl"), "http://127.0.0.1:4000/mcp");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_application_counts_its_sessions_as_they_are_now() {
    let server = Server::start().await;
    let operator = server.operator().await;
    let path = format!("{APPLICATIONS}/{}", server.application().await);
    let agents = operator.connect_many(4).await;
    assert_eq!(agents[0].call("disconnect").await.0, 200);
    server.turn(400);
    assert_eq!(agents[1].call("heartbeat").await.0, 200);
    let (_, read) = operator.get(&path).await;
    assert_eq!(read["application"]["sessions"], json!({ "active": 1, "idle": 2, "live": 3, "total": 4 }));
    let server = server.restart().await;
    let (_, read) = server.operator().await.get(&path).await;
    let after = &read["application"]["sessions"];
    assert_eq!((&after["live"], &after["total"]), (&json!(3), &json!(4)), "a restart loses no count");
}
