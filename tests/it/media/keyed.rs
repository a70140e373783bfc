//! Requests of the surface that are to take effect once.

use reqwest::Method;
use serde_json::{Value, json};

use super::{PATIENT, SESSIONS, STATISTICS, again, application, key, with_session};
use crate::support::Server;

/// Sends a request twice: the second is answered as the first.
async fn twice(caller: &super::Caller, method: Method, path: &str, body: Option<Value>) -> super::Told {
    let length = body.as_ref().map_or(0, |body| body.to_string().len());
    let once = format!("{method}:{path}:{length}");
    let first = caller.keyed(method.clone(), path, body.as_ref(), Some(&once)).await;
    let second = caller.keyed(method, path, body.as_ref(), Some(&once)).await;
    assert!(first.said() == second.said(), "{}", second.status);
    assert_eq!(second.headers["idempotency-replayed"], "true");
    assert!(!first.headers.contains_key("idempotency-replayed"));
    first
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_sent_again_under_its_key_is_done_once() {
    let server = Server::with(&PATIENT).await;
    let key = key(&server).await;
    let one = twice(&key, Method::POST, SESSIONS, Some(json!({ "protocol": "webrtc" }))).await;
    assert_eq!(one.status, 201);
    let many: Vec<Value> = (0..700).map(|number| json!({ "name": format!("s{number}") })).collect();
    let told = twice(&key, Method::POST, SESSIONS, Some(json!(many))).await;
    assert_eq!((told.status, key.response(SESSIONS).await.as_array().unwrap().len()), (201, 701));
    // Readings too, whatever happened since to the sessions they are of, and also of those that there never were.
    let mut readings: Vec<Value> =
        (0..700).map(|number| json!({ "session": format!("s{number}"), "totalBytesOut": 5 })).collect();
    readings.insert(3, json!({ "session": "never", "totalBytesOut": 5 }));
    let path = format!("{SESSIONS}:report");
    let (body, once) = (json!(readings), Some("readings"));
    let first = key.keyed(Method::POST, &path, Some(&body), once).await;
    assert_eq!((first.status, &first.json()[3]["statusCode"]), (207, &json!(404)));
    for number in [1, 600] {
        twice(&key, Method::DELETE, &format!("{SESSIONS}/s{number}"), None).await;
    }
    let second = key.keyed(Method::POST, &path, Some(&body), once).await;
    assert!(second.said() == first.said());
    assert_eq!(key.response(&format!("{STATISTICS}/s2")).await["totalBytesOut"], 5);
    // Also where the place itself is gone, and after a restart.
    let operator = server.operator().await;
    let id = application(&operator, "default/app").await;
    operator.delete(&format!("/api/v1/applications/{id}")).await;
    let server = server.restart().await;
    let key = again(&server, &key);
    let third = key.keyed(Method::POST, &path, Some(&body), once).await.json();
    // What was refused is decided afresh, and now even the stream is missing.
    assert!(third[3]["message"].as_str().unwrap().starts_with("Could not find the stream"), "{}", third[3]);
    let before = first.json();
    assert!((4..701).all(|index| third[index] == before[index]));
    assert_eq!(key.response("/v1/vhosts").await, json!([]));
    let other = key.keyed(Method::POST, &path, Some(&json!([])), once).await;
    assert_eq!(other.status, 422, "{other:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_request_under_the_key_is_refused_in_the_surfaces_shape() {
    let (_server, key) = with_session("one", &[]).await;
    let path = format!("{SESSIONS}/one:report");
    let reading = json!({ "totalBytesOut": 1 });
    assert_eq!(key.keyed(Method::POST, &path, Some(&reading), Some("k")).await.status, 200);
    let other = key.keyed(Method::POST, &path, Some(&json!({ "totalBytesOut": 2 })), Some("k")).await;
    let wanted = "{\"message\":\"[HTTP] Another request came with this Idempotency-Key; each needs a key of its own \
                  (422)\",\"statusCode\":422}";
    assert_eq!(other.said(), (422, wanted));
    let wrong = key.keyed(Method::DELETE, &format!("{SESSIONS}/one"), None, Some("a b")).await;
    assert_eq!(wrong.status, 400);
    assert_eq!(key.response(SESSIONS).await, json!(["one"]));
}
