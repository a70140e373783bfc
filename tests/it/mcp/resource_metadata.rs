//! Where to get a token for a gateway, and which tokens are for it.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::{Client, House};
use crate::support::{CLIENT_ID, CLIENT_SECRET};

const PLACE: &str = "/.well-known/oauth-protected-resource";
const NOBODY: &str = "44444444-4444-4444-8444-444444444444";

impl House {
    async fn document(&self, path: &str) -> Value {
        let (status, document) = self.server.stranger().get(&format!("{PLACE}{path}")).await;
        assert_eq!(status, StatusCode::OK, "{path}: {document}");
        document
    }

    async fn another_application(&self, name: &str) -> String {
        let (status, made) = self.operator.post("/api/v1/applications", json!({ "name": name })).await;
        assert_eq!(status, StatusCode::CREATED, "{made}");
        made["application"]["id"].as_str().unwrap().to_owned()
    }

    /// What comes of asking for a token for these resources.
    async fn ask_for(&self, resources: &[&str]) -> Value {
        let mut form = vec![("grant_type", "client_credentials")];
        form.extend(resources.iter().map(|one| ("resource", *one)));
        let request = self.server.http.post(self.server.url("/oauth2/token"));
        request
            .basic_auth(CLIENT_ID, Some(CLIENT_SECRET))
            .form(&form)
            .send()
            .await
            .unwrap()
            .json()
            .await
            .unwrap()
    }

    async fn token_for(&self, path: &str) -> String {
        let answer = self.ask_for(&[&self.server.url(path)]).await;
        answer["access_token"].as_str().unwrap_or_else(|| panic!("{path}: {answer}")).to_owned()
    }
}

#[tokio::test]
async fn each_resource_has_its_document_where_its_own_url_leads_to() {
    let (house, _upstream) = House::with_fake(&[]).await;
    let id = &house.application;
    let paths = ["".to_owned(), "/mcp".to_owned(), format!("/mcp/{id}"), format!("/mcp/{id}/sse")];
    // An id is an id in any spelling, and a client compares the one it used.
    let loud = [format!("/mcp/{}", id.to_uppercase()), format!("/mcp/{}", id.replace('-', ""))];
    for path in paths.iter().chain(&loud) {
        let expected = json!({
            "resource": house.server.url(path),
            "authorization_servers": [house.server.url("")],
            "scopes_supported": ["mcp:invoke"],
            "bearer_methods_supported": ["header"],
            "resource_name": "sessiond MCP gateway",
        });
        assert_eq!(house.document(path).await, expected);
    }
    // The challenge names the document of the very URL.
    for path in [&paths[1], &paths[2], &loud[0]] {
        let answer = house.server.http.get(house.server.url(path)).send().await.unwrap();
        let challenge = answer.headers()["www-authenticate"].to_str().unwrap().to_owned();
        let place = house.server.url(&format!("{PLACE}{path}"));
        assert_eq!(challenge, format!("Bearer resource_metadata=\"{place}\", scope=\"mcp:invoke\""));
    }
    for path in ["/mcp/one", "/mcp/%7B44444444-4444-4444-8444-444444444444%7D", "/elsewhere"] {
        assert_eq!(house.server.stranger().get(&format!("{PLACE}{path}")).await.0, 404, "{path}");
    }
    let url = house.server.url(&format!("{PLACE}/mcp/{id}"));
    for method in [Method::GET, Method::OPTIONS] {
        let answer = house.server.http.request(method, &url).send().await.unwrap();
        assert!(answer.status().is_success());
        assert_eq!(answer.headers()["access-control-allow-origin"], "*");
    }
}

#[tokio::test]
async fn the_issuers_that_can_open_a_gateway_are_named_for_it_and_no_others() {
    let (house, _upstream) = House::with_fake(&[]).await;
    let (own, other) = (house.application.clone(), house.another_application("other").await);
    let issuer = |name: &str, audience: &str, scope: &str, application: Option<&str>| {
        let mut issuer = json!({
            "issuer": format!("https://{name}.example"), "audience": audience, "algorithms": ["ES256"],
            "scopes": [scope],
        });
        if let Some(application) = application {
            issuer["applicationId"] = json!(application);
        }
        issuer
    };
    let issuers = json!({ "issuers": [
        issuer("everywhere", "one", "mcp:invoke", None),
        issuer("everywhere", "two", "mcp:invoke", None),
        issuer("here", "one", "mcp:invoke", Some(&own)),
        issuer("elsewhere", "one", "mcp:invoke", Some(&other)),
        issuer("reading", "one", "management:sessions:read", None),
    ] });
    let (status, body) = house.operator.put("/api/v1/organization/issuers", issuers).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    let base = house.server.url("");
    let servers = async |path: &str| house.document(path).await["authorization_servers"].clone();
    let both = json!(["https://everywhere.example", "https://here.example", base]);
    assert_eq!(servers(&format!("/mcp/{own}")).await, both);
    assert_eq!(servers(&format!("/mcp/{own}/sse")).await, both);
    let others = json!(["https://elsewhere.example", "https://everywhere.example", base]);
    assert_eq!(servers(&format!("/mcp/{other}")).await, others);
    assert_eq!(house.operator.delete(&format!("/api/v1/applications/{other}")).await.0, 204);
    for nobody in ["", "/mcp", &format!("/mcp/{other}"), &format!("/mcp/{NOBODY}")] {
        assert_eq!(servers(nobody).await, json!([base]), "{nobody}");
    }
}

#[tokio::test]
async fn a_token_for_one_gateway_opens_that_one_alone() {
    let (house, _upstream) = House::with_fake(&[]).await;
    let other = house.another_application("other").await;
    let narrow = house.token_for(&house.path()).await;
    assert_eq!(house.token_for(&format!("{}/sse", house.path())).await.len(), narrow.len());
    let mut client = house.client(&narrow);
    client.initialize().await;
    assert_eq!(client.call("echo").await.0, StatusCode::OK);
    // Without an id in the path, the token says which application.
    let nameless = Client { url: house.server.url("/mcp"), ..client.clone() };
    assert_eq!(nameless.call("echo").await.0, StatusCode::OK);

    let house = house.restart().await;
    for path in [format!("/mcp/{other}"), format!("/mcp/{NOBODY}")] {
        let elsewhere = Client { url: house.server.url(&path), ..client.clone() };
        let answer = elsewhere.try_initialize().await;
        assert_eq!(answer.status(), StatusCode::UNAUTHORIZED, "{path}");
        let challenge = answer.headers()["www-authenticate"].to_str().unwrap().to_owned();
        let described = format!("the token is for the gateway {} alone", house.path());
        assert!(
            challenge.contains("error=\"invalid_token\"") && challenge.contains(&described),
            "{challenge}"
        );
        assert!(
            challenge.contains(&format!("resource_metadata=\"{}", house.server.url(PLACE))),
            "{challenge}"
        );
        assert!(challenge.contains("scope=\"mcp:invoke\""), "{challenge}");
    }
    let holder = house.server.holder(&narrow);
    for path in ["/api/v1/applications", "/api/v1/agent-sessions"] {
        let (status, body) = match path {
            "/api/v1/applications" => holder.get(path).await,
            _ => holder.post(path, json!({})).await,
        };
        assert_eq!((status.as_u16(), &body["code"]), (401, &json!("wrong_audience")), "{path} {body}");
    }
    let itself = [("token", narrow.as_str())];
    let asking = house.server.http.post(house.server.url("/oauth2/introspect")).bearer_auth(&narrow);
    assert_eq!(asking.form(&itself).send().await.unwrap().status(), 403);
    let form = [("token", narrow.as_str()), ("client_id", CLIENT_ID), ("client_secret", CLIENT_SECRET)];
    let asked = house.server.http.post(house.server.url("/oauth2/introspect")).form(&form);
    let told: Value = asked.send().await.unwrap().json().await.unwrap();
    assert_eq!(told["aud"], json!([house.server.url(&house.path())]));

    // One for all the gateways, or for anything wider beside the one, is not bound.
    for resources in [vec!["/mcp"], vec![""], vec![&*house.path(), "/api/v1"]] {
        let urls: Vec<_> = resources.iter().map(|path| house.server.url(path)).collect();
        let answer = house.ask_for(&urls.iter().map(String::as_str).collect::<Vec<_>>()).await;
        let wide = answer["access_token"].as_str().unwrap();
        assert_eq!(house.server.holder(wide).get("/api/v1/applications").await.0, 200, "{resources:?}");
        let elsewhere = Client { url: house.server.url(&format!("/mcp/{other}")), ..house.client(wide) };
        assert_eq!(elsewhere.try_initialize().await.status(), StatusCode::NOT_FOUND, "it has no upstream");
    }
}

#[tokio::test]
async fn no_token_is_issued_for_a_gateway_that_its_client_cannot_open() {
    let (house, _upstream) = House::with_fake(&[]).await;
    let (_, founded) = house.operator.post("/api/v1/organizations", json!({ "name": "others" })).await;
    let foreign = founded["application"]["id"].as_str().unwrap_or(NOBODY).to_owned();
    let archived = house.another_application("archived").await;
    assert_eq!(house.operator.delete(&format!("/api/v1/applications/{archived}")).await.0, 204);
    for id in [NOBODY, &foreign, &archived, "one"] {
        let answer = house.ask_for(&[&house.server.url(&format!("/mcp/{id}"))]).await;
        assert_eq!(answer["error"], "invalid_target", "{answer}");
    }
    let other = house.another_application("other").await;
    let both = [house.server.url(&house.path()), house.server.url(&format!("/mcp/{other}"))];
    let answer = house.ask_for(&[&both[0], &both[1]]).await;
    assert_eq!(answer["error"], "invalid_target", "{answer}");
}
