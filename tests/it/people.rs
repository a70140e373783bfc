//! Principals, as their organization sees them, and what each of them sees of itself.

use reqwest::StatusCode;
use serde_json::{Value, json};
use sessiond_core::barring::BarOptions;

use crate::support::{Holder, Server};

const PRINCIPALS: &str = "/api/v1/principals";
const MINE: &str = "/api/v1/me/sessions";

/// A person with a credential of the person's own.
struct Somebody {
    id: String,
    holder: Holder,
}

async fn somebody(operator: &Holder, id: &str) -> Somebody {
    let user = json!({ "id": id, "name": id, "email": format!("{id}@example.com") });
    let body = json!({ "name": id, "scopes": ["mcp:invoke"], "user": user });
    let (status, made) = operator.post("/api/v1/api-keys", body).await;
    assert_eq!(status, 201, "{made}");
    let holder = Holder { token: made["key"].as_str().map(str::to_owned), ..operator.clone() };
    Somebody { id: made["apiKey"]["user"]["principalId"].as_str().unwrap().to_owned(), holder }
}

fn ids(list: &Value) -> Vec<&str> {
    list["items"].as_array().unwrap().iter().map(|one| one["id"].as_str().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn principals_are_listed_in_pages_by_issuer_and_by_subject() {
    let server = Server::start().await;
    let operator = server.operator().await;
    let (ada, bob) = (somebody(&operator, "ada").await, somebody(&operator, "bob").await);
    ada.holder.connect(json!({})).await;
    operator.connect(json!({ "authenticatedUserId": "ada" })).await;
    let (_, all) = operator.get(PRINCIPALS).await;
    assert_eq!(all["items"].as_array().unwrap().len(), 3, "the same subject of another issuer is another");
    let shown = json!({
        "id": ada.id, "issuer": "sessiond:users", "subject": "ada", "name": "ada", "email": "ada@example.com",
        "disabledAt": null, "openSessions": 1,
    });
    assert_eq!(all["items"][0], shown);
    assert_eq!(operator.get(&format!("{PRINCIPALS}/{}", ada.id)).await.1["principal"], shown);
    let (_, own) = operator.get(&format!("{PRINCIPALS}?issuer=sessiond:users&limit=1")).await;
    let next = own["nextCursor"].as_str().unwrap();
    let (_, rest) = operator.get(&format!("{PRINCIPALS}?issuer=sessiond:users&limit=1&cursor={next}")).await;
    assert_eq!((ids(&own), ids(&rest)), (vec![ada.id.as_str()], vec![bob.id.as_str()]));
    assert_eq!(rest.get("nextCursor"), None);
    assert_eq!(
        operator.get(&format!("{PRINCIPALS}?subject=ada")).await.1["items"].as_array().unwrap().len(),
        2
    );
    let founded =
        server.running.as_ref().unwrap().house.directory.organizations.create("other", None).await.unwrap();
    let foreigner = server.holder(server.token_for(&founded.client_id, &founded.client_secret, "").await);
    assert_eq!(foreigner.get(PRINCIPALS).await.1["items"], json!([]));
    for (method, path) in [("get", ""), ("post", "/disable"), ("post", "/enable")] {
        let path = format!("{PRINCIPALS}/{}{path}", ada.id);
        let answer = match method {
            "get" => foreigner.get(&path).await,
            _ => foreigner.post(&path, json!({})).await,
        };
        assert_eq!(answer.0, 404, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disabled_principal_has_and_opens_nothing_until_it_is_enabled_also_after_a_restart() {
    let server = Server::start().await;
    let operator = server.operator().await;
    let (ada, bob) = (somebody(&operator, "ada").await, somebody(&operator, "bob").await);
    let named = json!({ "authenticatedUserId": "eve" });
    let (first, second) = (ada.holder.connect(json!({})).await, ada.holder.connect(json!({})).await);
    let others = bob.holder.connect(json!({})).await;
    let path = format!("{PRINCIPALS}/{}", ada.id);
    let (status, body) = operator.post(&format!("{path}/disable"), json!({})).await;
    assert_eq!((status, &body["disconnectedCount"]), (StatusCode::OK, &json!(2)), "{body}");
    assert!(body["revocationId"].is_string());
    for agent in [&first, &second] {
        assert_eq!(agent.call("heartbeat").await.0, 401);
    }
    assert_eq!(others.call("heartbeat").await.0, 200);
    operator.connect(named).await;
    let server = server.restart().await;
    let moved = |holder: &Holder| Holder { base: server.url(""), ..holder.clone() };
    let (operator, holder) = (moved(&operator), moved(&ada.holder));
    let (status, body) = holder.post("/api/v1/agent-sessions", json!({})).await;
    assert_eq!((status, &body["code"]), (StatusCode::FORBIDDEN, &json!("principal_disabled")));
    assert_eq!(holder.get(MINE).await.0, 403);
    assert!(operator.get(&path).await.1["principal"]["disabledAt"].is_string());
    for _ in 0..2 {
        let (status, body) = operator.post(&format!("{path}/enable"), json!({})).await;
        assert_eq!((status, &body["principal"]["disabledAt"]), (StatusCode::OK, &Value::Null));
    }
    let server = server.restart().await;
    let holder = Holder { base: server.url(""), ..holder };
    assert_eq!(holder.connect(json!({})).await.call("heartbeat").await.0, 200);
    let log = server.log().await;
    for (name, times) in
        [("principal_disabled", 1), ("principal_enabled", 1), ("principal_credentials_barred", 1)]
    {
        assert_eq!(log.iter().filter(|(one, _)| one == name).count(), times, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_from_before_a_principal_was_revoked_open_nothing_for_it_also_after_a_restart() {
    let server = Server::start().await;
    let old = server.operator().await;
    let eve = old.connect(json!({ "authenticatedUserId": "eve" })).await;
    let (_, shown) = old.get(&eve.path()).await;
    let ada = somebody(&old, "ada").await;
    let house = &server.running.as_ref().unwrap().house;
    let caller = house.auth.bearer(old.token.as_deref().unwrap()).await.unwrap();
    for id in [shown["session"]["principalId"].as_str().unwrap(), &ada.id] {
        let principal = Some(id.parse().unwrap());
        let wanted = sessiond::sessions::SessionQuery { principal, ..Default::default() };
        house
            .sessions
            .revocations
            .revoke_matching(&caller, &wanted, BarOptions::default(), None, None)
            .await
            .unwrap();
    }
    assert_eq!(eve.call("heartbeat").await.0, 401);
    let server = server.restart().await;
    let moved = |holder: &Holder| Holder { base: server.url(""), ..holder.clone() };
    let fresh = server.operator().await;
    let as_eve = json!({ "authenticatedUserId": "eve" });
    assert_eq!(moved(&old).post("/api/v1/agent-sessions", as_eve.clone()).await.0, 401);
    fresh.connect(as_eve).await;
    let agent = moved(&ada.holder).connect(json!({})).await;
    assert_eq!(agent.call("heartbeat").await.0, 200, "a key is no token");
}

#[tokio::test(flavor = "multi_thread")]
async fn people_see_and_end_their_own_sessions_and_nobody_elses() {
    let server = Server::start().await;
    let operator = server.operator().await;
    let (ada, bob) = (somebody(&operator, "ada").await, somebody(&operator, "bob").await);
    let (first, second) = (ada.holder.connect(json!({})).await, ada.holder.connect(json!({})).await);
    let others = bob.holder.connect(json!({})).await;
    let (_, mine) = ada.holder.get(MINE).await;
    assert_eq!(ids(&mine), [second.id.as_str(), first.id.as_str()]);
    let (_, still) = ada.holder.get(&format!("{MINE}?principal={}&status=all", bob.id)).await;
    assert_eq!(ids(&still).len(), 2, "whoever asks for another's gets the own");
    let (_, page) = ada.holder.get(&format!("{MINE}?limit=1")).await;
    let next = page["nextCursor"].as_str().unwrap();
    let (_, rest) = ada.holder.get(&format!("{MINE}?limit=1&cursor={next}")).await;
    assert_eq!(ids(&rest), [first.id.as_str()]);
    let (own, foreign) = (format!("{MINE}/{}", first.id), format!("{MINE}/{}", others.id));
    assert_eq!(ada.holder.get(&own).await.1["session"]["principalId"], json!(ada.id));
    assert_eq!(ada.holder.get(&foreign).await.0, 404);
    assert_eq!(ada.holder.delete(&foreign).await.0, 404);
    assert_eq!(others.call("heartbeat").await.0, 200);
    let (status, body) = ada.holder.delete(&own).await;
    assert_eq!((status, &body["disconnectedCount"]), (StatusCode::OK, &json!(1)));
    assert_eq!(ada.holder.delete(&own).await.1["disconnectedCount"], 0);
    assert_eq!(first.call("heartbeat").await.0, 401);
    assert_eq!(second.call("heartbeat").await.0, 200);
    for nobody in [&operator, &second.holder] {
        let (status, body) = nobody.get(MINE).await;
        assert_eq!((status, &body["code"]), (StatusCode::FORBIDDEN, &json!("no_person")));
    }
    assert_eq!(ada.holder.get(&first.path()).await.0, 403, "the management side stays closed");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_was_forgotten_is_nowhere_and_the_log_still_proves_itself() {
    let mut server = Server::start().await;
    let operator = server.operator().await;
    let ada = somebody(&operator, "ada-secret").await;
    let body = json!({
        "name": "ada-secret", "hostname": "ada-secret.local", "clientInfo": { "name": "ada-secret-client" },
    });
    let (open, ended) = (ada.holder.connect(body.clone()).await, ada.holder.connect(body.clone()).await);
    let bob = somebody(&operator, "bob").await;
    let others = bob.holder.connect(json!({ "name": "bob-name", "hostname": "bob.local" })).await;
    assert_eq!(ended.call("disconnect").await.0, 200);
    let found = "/api/v1/sessions?hostname=ada-secret.local&status=all";
    assert_eq!(ids(&operator.get(found).await.1).len(), 2);
    let path = format!("{PRINCIPALS}/{}/personal", ada.id);
    for _ in 0..2 {
        let (status, body) = operator.delete(&path).await;
        assert_eq!((status, &body["sessions"]), (StatusCode::OK, &json!(2)), "{body}");
    }
    assert_eq!(ids(&operator.get(found).await.1), Vec::<&str>::new());
    for agent in [&open, &ended] {
        let (_, shown) = operator.get(&agent.path()).await;
        assert!(!shown.to_string().contains("ada-secret"), "{shown}");
        assert_eq!(shown["session"]["principalId"], json!(ada.id));
    }
    let (_, shown) = operator.get(&format!("{PRINCIPALS}/{}", ada.id)).await;
    assert_eq!((&shown["principal"]["subject"], &shown["principal"]["name"]), (&Value::Null, &Value::Null));
    assert_eq!(operator.get(&others.path()).await.1["session"]["name"], "bob-name");
    assert_eq!(open.call("heartbeat").await.0, 200, "what is open stays open");
    assert_eq!(ada.holder.connect(body).await.call("heartbeat").await.0, 200, "and it is the same person");
    let (_, mine) = ada.holder.get(&format!("{MINE}?status=all")).await;
    assert_eq!(ids(&mine).len(), 3);
    server.stop().await;
    let reader = sessiond_store::open_to_look(&server.database()).await.unwrap();
    reader.verify(&mut |_, _| {}).await.unwrap();
    reader.close().await;
    sessiond_store::rebuild(&server.database(), &mut |_, _| {}).await.unwrap();
    let server = server.restart().await;
    let (_, shown) = server.operator().await.get(&ended.path()).await;
    assert_eq!(shown["session"]["name"], "(erased)");
}
