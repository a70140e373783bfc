//! Revocations as things.

use serde_json::{Value, json};

use super::{application, begin, caused, session};

#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_tells_what_it_did_and_its_count_can_be_proven() {
    let (_server, operator, first) = begin().await;
    let agents = operator.connect_many(5).await;
    agents[0].call("disconnect").await;
    let body = json!({ "filter": { "applicationId": first }, "reason": "spring cleaning" });
    let (status, made) = operator.post("/api/v1/revocations", body).await;
    assert_eq!(status, 201, "{made}");
    let id = made["revocation"]["id"].as_str().unwrap();
    let (status, got) = operator.get(&format!("/api/v1/revocations/{id}")).await;
    assert_eq!((status.as_u16(), &got), (200, &made));
    let revocation = &got["revocation"];
    assert_eq!(revocation["filter"], json!({ "applicationId": first }));
    assert_eq!(revocation["reason"], "spring cleaning");
    assert_eq!(revocation["actor"]["kind"], "service_account");
    assert_eq!(revocation["status"], "completed");
    assert_eq!(
        (&revocation["matched"], &revocation["disconnectedCount"], &revocation["alreadyEnded"]),
        (&json!(4), &json!(4), &json!(0))
    );
    assert_eq!(caused(&operator, id, "disconnected").await.len(), 4);
    let (_, list) = operator.get("/api/v1/revocations").await;
    assert_eq!(list["items"], json!([revocation]));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_short_delete_is_the_same_thing() {
    let (_server, operator, first) = begin().await;
    operator.connect_many(3).await;
    let path = format!("/api/v1/applications/{first}/sessions?reason=bye");
    let (_, short) = operator.delete(&path).await;
    let id = short["revocationId"].as_str().unwrap();
    let (_, got) = operator.get(&format!("/api/v1/revocations/{id}")).await;
    assert_eq!(got["revocation"]["disconnectedCount"], short["disconnectedCount"]);
    assert_eq!((&got["revocation"]["reason"], &got["revocation"]["matched"]), (&json!("bye"), &json!(3)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_changes_nothing() {
    let (server, operator, first) = begin().await;
    let mut agents = operator.connect_many(11).await;
    agents.push(operator.connect(json!({})).await);
    let before = server.log().await.len();
    let body = json!({ "filter": { "applicationId": first }, "dryRun": true });
    let (status, dry) = operator.post("/api/v1/revocations", body).await;
    assert_eq!((status.as_u16(), &dry["matched"], &dry["dryRun"]), (200, &json!(12), &json!(true)));
    assert_eq!(dry["sample"].as_array().unwrap().len(), 10);
    assert_eq!(dry["sample"][0]["id"], agents[11].id.as_str(), "newest first: {dry}");
    assert_eq!(server.log().await.len(), before);
    assert_eq!(agents[0].call("heartbeat").await.0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn revoking_a_principal_ends_its_sessions_everywhere_and_bars_what_was_issued_before() {
    let (server, operator, _) = begin().await;
    let second = application(&operator, "second").await;
    let first = server.application().await;
    let connect = |user: &str, application: &str| {
        operator.connect(json!({ "authenticatedUserId": user, "applicationId": application }))
    };
    let ann = [connect("ann", &first).await, connect("ann", &second).await];
    let ben = connect("ben", &first).await;
    let principal = session(&operator, &ann[0]).await["principalId"].clone();
    assert_eq!(session(&operator, &ann[1]).await["principalId"], principal);
    let body = json!({ "filter": { "principal": principal } });
    let (_, done) = operator.post("/api/v1/revocations", body).await;
    assert_eq!(done["revocation"]["disconnectedCount"], 2, "{done}");
    for one in &ann {
        assert_eq!(one.call("heartbeat").await.0, 401);
    }
    assert_eq!(ben.call("heartbeat").await.0, 200);
    let again = json!({ "authenticatedUserId": "ann", "applicationId": first });
    let (status, refused) = operator.post("/api/v1/agent-sessions", again.clone()).await;
    assert_eq!((status.as_u16(), &refused["code"]), (401, &json!("credential_revoked")), "{refused}");
    let ben_again = json!({ "authenticatedUserId": "ben", "applicationId": first });
    assert_eq!(operator.post("/api/v1/agent-sessions", ben_again).await.0, 201);
    let fresh = server.operator().await;
    assert_eq!(fresh.post("/api/v1/agent-sessions", again).await.0, 201, "welcome again");
}

#[tokio::test(flavor = "multi_thread")]
async fn revoking_the_organization_bars_every_token_of_its_agents() {
    let (server, operator, first) = begin().await;
    let second = application(&operator, "second").await;
    let agents = [
        operator.connect(json!({ "applicationId": first })).await,
        operator.connect(json!({ "applicationId": second })).await,
    ];
    let body = json!({ "filter": { "organization": true } });
    let (_, done) = operator.post("/api/v1/revocations", body).await;
    assert_eq!(done["revocation"]["disconnectedCount"], 2, "{done}");
    for agent in &agents {
        let body = json!({ "applicationId": agent.application });
        assert_eq!(operator.post("/api/v1/agent-sessions", body.clone()).await.0, 401);
        assert_eq!(server.operator().await.post("/api/v1/agent-sessions", body).await.0, 201);
    }
    // After a restart too: the position is in the log.
    let server = server.restart().await;
    let old = server.holder(operator.token.clone().unwrap());
    assert_eq!(old.post("/api/v1/agent-sessions", json!({ "applicationId": first })).await.0, 401);
    assert_eq!(old.get("/api/v1/sessions").await.0, 200, "management goes on");
}

#[tokio::test(flavor = "multi_thread")]
async fn all_but_these_leaves_these_and_their_tokens_alone() {
    let (_server, operator, first) = begin().await;
    let agents = operator.connect_many(4).await;
    let body = json!({ "filter": { "applicationId": first, "except": [agents[2].id] } });
    let (_, done) = operator.post("/api/v1/revocations", body).await;
    assert_eq!(done["revocation"]["disconnectedCount"], 3, "{done}");
    assert_eq!(agents[2].call("heartbeat").await.0, 200);
    assert_eq!(operator.post("/api/v1/agent-sessions", json!({})).await.0, 201, "no credential was barred");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_organizations_revocations_principals_and_sessions_are_not_found() {
    let (_server, operator, first) = begin().await;
    operator.connect(json!({})).await;
    let unknown = "00000000-0000-7000-8000-000000000000";
    for filter in ["applicationId", "sessionId", "principal"] {
        let body = json!({ "filter": { filter: unknown } });
        let (status, body) = operator.post("/api/v1/revocations", body).await;
        assert_eq!(status, 404, "{filter}: {body}");
    }
    assert_eq!(operator.get(&format!("/api/v1/revocations/{unknown}")).await.0, 404);
    assert_eq!(operator.get(&format!("/api/v1/events?revocation={unknown}")).await.0, 404);
    let (_, events) = operator.get(&format!("/api/v1/events?applicationId={first}&types=connected")).await;
    assert_eq!(events["items"].as_array().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn revocations_are_listed_page_by_page_newest_first() {
    let (_server, operator, first) = begin().await;
    let mut made: Vec<Value> = vec![];
    for number in 0..5 {
        let body = json!({ "filter": { "applicationId": first }, "reason": number.to_string() });
        made.push(operator.post("/api/v1/revocations", body).await.1["revocation"]["id"].clone());
    }
    made.reverse();
    let listed = super::listed(&operator, "/api/v1/revocations?limit=2").await;
    assert_eq!(json!(listed), json!(made));
}
