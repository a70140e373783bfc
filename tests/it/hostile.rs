//! Requests that nobody means well with: refused, and nothing breaks.

use std::time::Duration;

use reqwest::Method;
use serde_json::json;

use crate::support::Server;

fn sessions(application: &str) -> String {
    format!("/api/v1/applications/{application}/sessions")
}

fn url(base: &str, path: &str) -> Result<reqwest::Url, ()> {
    reqwest::Url::parse(&format!("{base}{path}")).map_err(|_| ())
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_requests_are_refused_and_never_break_anything() {
    let server = Server::start().await;
    let operator = server.operator().await;
    let agent = operator.connect(json!({})).await;
    let pieces = [
        "",
        "%00",
        "%ff%fe",
        "..",
        "%2e%2e%2f",
        "'",
        "\"",
        ";drop%20table%20session",
        "%0d%0aSet-Cookie:x",
        "🦀",
        "-1",
        "00000000-0000-0000-0000-000000000000",
        "00000000000000000000000000000000",
        "{}",
        "%7B%7D",
        "a%20b",
        "%",
        "%zz",
        "1e309",
        "null",
        "*",
        "?",
        "#",
        &"9".repeat(4_000),
    ];
    let good = [agent.application.as_str(), agent.id.as_str()];
    let mut asked = 0;
    let mut paths: Vec<String> = vec![];
    for piece in pieces {
        for template in [
            "/api/v1/applications/{}",
            "/api/v1/applications/{}/sessions",
            "/api/v1/applications/A/sessions/{}",
            "/api/v1/applications/A/sessions/{}/terminate",
            "/api/v1/applications/A/sessions?limit={}",
            "/api/v1/applications/A/sessions?status={}",
            "/api/v1/applications/A/sessions?cursor={}",
            "/api/v1/applications/A/sessions?limit=1&limit={}",
            "/api/v1/applications/A/sessions?{}={}",
            "/api/v1/agent-sessions/{}/heartbeat",
            "/api/v1/agent-sessions/S/{}",
            "/api/v1/agent-instances/{}",
            "/api/v1/agent-instances?applicationId={}",
            "/api/v1/service-accounts/{}",
            "/api/v1/applications?cursor={}",
            "/mcp/{}",
            "/.well-known/oauth-protected-resource/mcp/{}",
            "/.well-known/oauth-authorization-server/mcp/{}",
            "/{}",
            "/api/v1/applications/A/sessions/events?types={}",
            "/api/v1/applications/A/sessions/events?lastEventId=x{}",
        ] {
            paths.push(
                template
                    .replace("/A/", &format!("/{}/", good[0]))
                    .replace("/S/", &format!("/{}/", good[1]))
                    .replace("{}", piece),
            );
        }
    }
    let bodies = [
        "",
        "{",
        "[]",
        "null",
        "\"x\"",
        "{\"name\":null}",
        "{\"clientInfo\":{\"a\":1e999}}",
        "\u{0}",
        "{\"name\":\"\\ud800\"}",
    ];
    let deep = format!("{{\"clientInfo\":{}{}}}", "{\"a\":".repeat(5_000), "}".repeat(5_000));
    for path in &paths {
        for method in [Method::GET, Method::POST, Method::DELETE, Method::HEAD, Method::OPTIONS] {
            let path = path.trim_start_matches('?');
            let Ok(url) = url(&operator.base, path) else { continue };
            let request =
                operator.http.request(method.clone(), url).bearer_auth(operator.token.as_ref().unwrap());
            let request = request.body(bodies[asked % bodies.len()]).timeout(Duration::from_secs(5));
            asked += 1;
            // What the client itself will not send is no request.
            let Ok(answer) = request.send().await else { continue };
            let status = answer.status();
            assert!(!status.is_server_error(), "{method} {path}: {status}");
        }
    }
    for body in bodies.iter().copied().chain([deep.as_str()]) {
        for path in
            ["/api/v1/agent-sessions", "/api/v1/applications", "/api/v1/service-accounts", "/oauth2/token"]
        {
            let request = operator.http.post(format!("{}{path}", operator.base)).body(body.to_owned());
            let status = request.bearer_auth(operator.token.as_ref().unwrap()).send().await.unwrap().status();
            assert!(status.is_success() || status.is_client_error(), "{path} {body:.40}: {status}");
        }
    }
    for value in
        ["\u{7f}", "Bearer", "Bearer  ", "Basic eA==", "bearer sat_", "Bearer sat_\t", "Bearer sst_0_0", "é"]
    {
        let Ok(value) = reqwest::header::HeaderValue::from_bytes(value.as_bytes()) else { continue };
        for path in [sessions(good[0]), "/mcp".to_owned(), "/api/v1/policy".to_owned()] {
            let request = operator.http.get(format!("{}{path}", operator.base));
            let status = request.header("authorization", &value).send().await.unwrap().status();
            assert!(status == 401, "{value:?} on {path}: {status}");
        }
    }
    assert!(asked > 2_000, "{asked}");
    // The application may have been archived on the way; the service is as it was.
    assert_eq!(server.stranger().get("/livez").await.0, 200);
    let (status, text) = server.stranger().get("/readyz?verbose").await;
    assert_eq!(status, 200, "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_character_nought_which_not_every_database_keeps_is_refused_or_left_out_and_nothing_fails_for_it()
{
    let server = Server::start().await;
    let operator = server.operator().await;
    let client = json!({ "clientInfo": { "name": "in\u{0}spector", "version": "1" } });
    let agent = operator.connect(client).await;
    let application = format!("/api/v1/applications/{}", agent.application);
    let (status, answer) = operator.patch(&application, json!({ "description": "a\u{0}b" })).await;
    assert_eq!((status.as_u16(), &answer["field"]), (400, &json!("description")), "{answer}");
    let (status, session) = operator.get(&agent.path()).await;
    assert_eq!((status.as_u16(), &session["session"]["clientInfo"]["name"]), (200, &json!("in\u{0}spector")));
    // A revocation does not fail for the words that it came with.
    let revoke = json!({ "filter": { "kind": "agent" }, "reason": "stolen\u{0} laptop" });
    let (status, answer) = operator.post("/api/v1/revocations", revoke).await;
    assert_eq!((status.as_u16(), &answer["revocation"]["disconnectedCount"]), (201, &json!(1)), "{answer}");
    assert_eq!(answer["revocation"]["reason"], "stolen laptop");
}
