//! From an event back to the request that caused it.

use reqwest::Method;
use serde_json::json;

use crate::mcp::House;
use crate::support::Server;

const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// Type, traceparent and request id of each event after a position.
async fn causes(server: &Server, after: i64) -> Vec<(String, Option<String>, Option<String>)> {
    let query = "select type, traceparent, request_id from event where position > $1 order by position";
    server.look_inside().await.rows(query, &[after.into()]).await
}

/// A request with a traceparent and an id, as the operator.
async fn ask(server: &Server, method: Method, path: &str, traces: &[&[u8]]) -> u16 {
    let token = server.operator().await.token.unwrap();
    let mut request = server.http.request(method, server.url(path)).bearer_auth(token);
    for trace in traces {
        request = request.header("traceparent", *trace);
    }
    let request = request.header("x-request-id", "from-outside").json(&json!({}));
    request.send().await.unwrap().status().as_u16()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_valid_traceparent_is_kept_with_the_event_and_any_other_is_as_if_it_were_not_there() {
    let server = Server::start().await;
    let future = "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let longer = format!("{future}-what-comes-then");
    let wrong: &[&[&[u8]]] = &[
        &[],
        &[b""],
        &[b"nonsense"],
        &[b"\xff\xfe"],
        &[b"ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"],
        &[b"00-00000000000000000000000000000000-00f067aa0ba902b7-01"],
        &[b"00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01"],
        &[b"00-4BF92F3577B34DA6A3CE929D0E0E4736-00F067AA0BA902B7-01"],
        &[b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more"],
        &[b"00-4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-01"],
        &[b"cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01.more"],
        &[TRACE.as_bytes(), TRACE.as_bytes()],
    ];
    for trace in wrong {
        assert_eq!(ask(&server, Method::POST, "/api/v1/agent-sessions", trace).await, 201, "{trace:?}");
    }
    for trace in [TRACE, future, longer.as_str()] {
        assert_eq!(ask(&server, Method::POST, "/api/v1/agent-sessions", &[trace.as_bytes()]).await, 201);
    }
    let causes = causes(&server, 0).await;
    let kept: Vec<_> = causes.iter().filter(|(name, ..)| name == "connected").collect();
    assert_eq!(kept.len(), wrong.len() + 3);
    assert!(kept[..wrong.len()].iter().all(|(_, trace, _)| trace.is_none()), "{kept:?}");
    let traces: Vec<_> = kept[wrong.len()..].iter().map(|(_, trace, _)| trace.as_deref().unwrap()).collect();
    assert_eq!(traces, [TRACE, future, future]);
    assert!(kept.iter().all(|(_, _, id)| id.as_deref() == Some("from-outside")));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_event_of_a_revocation_names_the_request_that_began_it() {
    let server = Server::start().await;
    let agents = server.operator().await.connect_many(3).await;
    let before = *server.positions_of(&["connected"]).await.last().unwrap();
    let path = format!("/api/v1/applications/{}/sessions", agents[0].application);
    assert_eq!(ask(&server, Method::DELETE, &path, &[TRACE.as_bytes()]).await, 200);
    let causes = causes(&server, before).await;
    let names: Vec<_> = causes.iter().map(|(name, ..)| name.as_str()).collect();
    assert_eq!(names.iter().filter(|name| **name == "disconnected").count(), 3, "{names:?}");
    for name in ["revocation_began", "application_credentials_barred", "revocation_ended"] {
        assert!(names.contains(&name), "{name}: {names:?}");
    }
    for (name, trace, id) in &causes {
        assert_eq!((trace.as_deref(), id.as_deref()), (Some(TRACE), Some("from-outside")), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_of_the_gateway_keeps_the_trace_and_the_address_it_came_from() {
    let (house, _upstream) = House::with_fake(&["--trusted-proxy", "127.0.0.1/32"]).await;
    let client = house.client(&house.token().await);
    let initialize = json!({ "jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {
        "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": { "name": "test", "version": "1" } } });
    let request = client.request(Method::POST).json(&initialize);
    let request = request.header("traceparent", TRACE).header("x-forwarded-for", "203.0.113.9");
    let answer = request.send().await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["content-security-policy"], "default-src 'none'; frame-ancestors 'none'");
    let mut inside = house.server.look_inside().await;
    let query = "select traceparent, personal from event where type = 'connected'";
    let mut rows: Vec<(Option<String>, String)> = inside.rows(query, &[]).await;
    let (trace, personal) = rows.remove(0);
    assert_eq!(trace.as_deref(), Some(TRACE));
    let personal: serde_json::Value = serde_json::from_str(&personal).unwrap();
    assert_eq!(personal["ip"], "203.0.113.9");
}
