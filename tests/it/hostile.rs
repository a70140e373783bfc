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
async fn a_text_with_the_character_nought_is_refused_wherever_it_is_said_and_what_means_it_is_not() {
    let server = Server::start().await;
    let operator = server.operator().await;
    let agent = operator.connect(json!({})).await;
    let all = sessions(&agent.application);
    let nul = "before\u{0}after";
    for (path, body) in [
        ("/api/v1/agent-sessions", json!({ "hostname": nul })),
        ("/api/v1/agent-sessions", json!({ "clientInfo": { "name": nul } })),
        ("/api/v1/agent-sessions", json!({ "clientSessionId": nul })),
        ("/api/v1/applications", json!({ "name": "Desk", "description": nul })),
        ("/api/v1/revocations", json!({ "filter": { "hostname": "desk" }, "reason": nul })),
        ("/api/v1/bars", json!({ "principal": nul, "message": nul })),
    ] {
        let (status, answer) = operator.post(path, body).await;
        assert_eq!(status, 400, "{path}: {answer}");
        assert!(answer.to_string().contains("U+0000"), "{path}: {answer}");
    }
    for query in ["hostname=%00", "client=a%00b", "principal=%00"] {
        let (status, answer) = operator.get(&format!("{all}?{query}")).await;
        assert_eq!(status, 400, "{query}: {answer}");
    }
    let (status, answer) = operator.delete(&format!("{all}?reason=%00")).await;
    assert_eq!(status, 400, "{answer}");
    // A backslash before it makes it five letters and a backslash.
    let said = json!({ "hostname": "c:\\u0000" });
    assert_eq!(operator.post("/api/v1/agent-sessions", said).await.0, 201);
}
