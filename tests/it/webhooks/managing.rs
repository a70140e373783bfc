//! What owners do with their webhooks.

use reqwest::Method;
use serde_json::{Value, json};
use sessiond::directory::Chosen;

use super::{Receiver, WEBHOOKS, deliveries, server, webhook, webhook_to};
use crate::support::{Holder, Server};

async fn second_organization(server: &Server) -> Holder {
    let secret = "another secret of thirty-two characters";
    let chosen = Chosen { client_id: "second".to_owned(), client_secret: secret.to_owned() };
    let directory = &server.running.as_ref().unwrap().house.directory;
    directory.organizations.create("second", Some(chosen)).await.unwrap();
    server.holder(server.token_for("second", secret, "management:all").await)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_is_created_shown_changed_listed_and_deleted() {
    let server = server().await;
    let operator = server.operator().await;
    let application = server.application().await;
    let body = json!({ "url": "https://hooks.example/in", "applicationId": application,
                       "types": ["disconnected"], "description": "to the pager" });
    let made = webhook(&operator, body).await;
    assert!(made.secret.starts_with("whsec_") && made.secret.len() == 50, "{}", made.secret);
    let (status, shown) = operator.get(&made.path).await;
    assert_eq!(status, 200);
    let mut expected = json!({ "id": made.id, "url": "https://hooks.example/in", "applicationId": application,
        "types": ["disconnected"], "description": "to the pager", "enabled": true, "disabledBecause": null });
    for field in ["createdAt", "updatedAt"] {
        expected[field] = shown["webhook"][field].clone();
    }
    assert_eq!(shown["webhook"], expected);
    let change = json!({ "url": "https://hooks.example/other", "types": [], "description": null,
                         "enabled": false });
    let (status, changed) = operator.patch(&made.path, change).await;
    assert_eq!(status, 200, "{changed}");
    let changed = &changed["webhook"];
    assert_eq!(changed["url"], "https://hooks.example/other");
    assert_eq!((&changed["types"], &changed["description"]), (&json!([]), &Value::Null));
    assert_eq!((&changed["enabled"], &changed["disabledBecause"]), (&json!(false), &json!("owner")));
    let newer = webhook(&operator, json!({ "url": "https://hooks.example/newer" })).await;
    let (_, page) = operator.get(&format!("{WEBHOOKS}?limit=1")).await;
    assert_eq!(page["items"][0]["id"], newer.id);
    let next = page["nextCursor"].as_str().unwrap();
    let (_, page) = operator.get(&format!("{WEBHOOKS}?limit=1&cursor={next}")).await;
    assert_eq!((&page["items"][0]["id"], page.get("nextCursor")), (&json!(made.id), None));
    assert_eq!(operator.delete(&made.path).await.0, 204);
    for path in [made.path.clone(), format!("{}/deliveries", made.path)] {
        assert_eq!(operator.get(&path).await.0, 404);
    }
    assert_eq!(operator.delete(&made.path).await.0, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_webhook_cannot_be_is_refused_with_the_reason() {
    let server = server().await;
    let operator = server.operator().await;
    let refused = async |body: Value| {
        let (status, answer) = operator.post(WEBHOOKS, body).await;
        assert_eq!(status, 400, "{answer}");
        answer
    };
    let answer =
        refused(json!({ "url": "https://hooks.example/", "types": ["connected", "vanished"] })).await;
    assert_eq!(answer["field"], "types");
    let message = answer["message"].as_str().unwrap();
    assert!(message.contains("\"vanished\"") && message.contains("connected, disconnected"), "{message}");
    assert_eq!(refused(json!({ "url": "http://hooks.example/" })).await["field"], "url");
    refused(json!({ "types": [] })).await;
    let long = "x".repeat(1_001);
    let answer = refused(json!({ "url": "https://hooks.example/", "description": long })).await;
    assert_eq!(answer["field"], "description");
    let unknown =
        json!({ "url": "https://hooks.example/", "applicationId": "44444444-4444-4444-8444-444444444444" });
    assert_eq!(operator.post(WEBHOOKS, unknown).await.0, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_organizations_webhook_is_not_found_and_gets_nothing_of_ours() {
    let server = server().await;
    let operator = server.operator().await;
    let (ours, theirs) = (Receiver::start().await, Receiver::start().await);
    let foreigner = second_organization(&server).await;
    let made = webhook_to(&operator, &ours).await;
    let foreign = webhook_to(&foreigner, &theirs).await;
    operator.connect(json!({})).await;
    ours.until(1).await;
    server
        .until("the delivery on record", || async { deliveries(&operator, &made, "").await.len() == 1 })
        .await;
    let position = deliveries(&operator, &made, "").await[0]["position"].clone();
    for (method, rest, body) in [
        (Method::GET, String::new(), None),
        (Method::PATCH, String::new(), Some(json!({ "enabled": false }))),
        (Method::DELETE, String::new(), None),
        (Method::POST, "/rotate-secret".to_owned(), None),
        (Method::POST, "/test".to_owned(), None),
        (Method::GET, "/deliveries".to_owned(), None),
        (Method::POST, format!("/deliveries/{position}/resend"), None),
    ] {
        let path = format!("{}{rest}", made.path);
        let response = foreigner.send(method.clone(), &path, body.as_ref()).await;
        assert_eq!(response.status(), 404, "{method} {path}");
        assert_eq!(server.stranger().send(method.clone(), &path, body.as_ref()).await.status(), 401);
    }
    let agent = server.holder(server.token("mcp:invoke").await);
    assert_eq!(agent.get(WEBHOOKS).await.0, 403);
    assert_eq!(foreigner.get(WEBHOOKS).await.1["items"].as_array().unwrap().len(), 1);
    assert!(theirs.taken().is_empty(), "{:?}", theirs.taken());
    assert!(deliveries(&foreigner, &foreign, "").await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_test_is_sent_at_once_and_its_outcome_answered() {
    let server = server().await;
    let operator = server.operator().await;
    let receiver = Receiver::start().await;
    let made = webhook_to(&operator, &receiver).await;
    operator.patch(&made.path, json!({ "enabled": false })).await;
    let (status, answer) = operator.post(&format!("{}/test", made.path), json!({})).await;
    assert_eq!((status.as_u16(), &answer["delivered"], &answer["status"]), (200, &json!(true), &json!(204)));
    assert!(answer["latencyMilliseconds"].as_u64().unwrap() < 1_000, "{answer}");
    let taken = &receiver.taken()[0];
    assert_eq!(taken.json()["type"], "dev.sessiond.webhook.test.v1");
    assert_eq!(taken.header("webhook-id"), answer["id"]);
    assert_eq!(taken.header("webhook-signature"), taken.signature(&made.secret));
    receiver.now_answers(|_, _| super::Answer::Status(500));
    let (_, answer) = operator.post(&format!("{}/test", made.path), json!({})).await;
    assert_eq!((&answer["delivered"], &answer["error"]), (&json!(false), &json!("answered 500")));
    assert!(deliveries(&operator, &made, "").await.is_empty());
}
