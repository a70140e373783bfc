//! What is made on the way, because somebody named it: how much of it there may be, and what it is not taken for.

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::support::{Holder, Server};

async fn key(operator: &Holder, user: &str, scopes: &[&str]) -> Holder {
    let body = json!({ "name": "k", "scopes": scopes, "user": { "id": user } });
    let (status, made) = operator.post("/api/v1/api-keys", body).await;
    assert_eq!(status, 201, "{made}");
    Holder { token: made["key"].as_str().map(str::to_owned), ..operator.clone() }
}

async fn begin(key: &Holder, application: &str) -> (u16, Value) {
    let url = format!("{}/pro/session-manager/v1/sessions/task", key.base);
    let request = key.http.post(url).header("apiKey", key.token.clone().unwrap());
    let answer = request.json(&json!({ "app": { "name": application } })).send().await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap())
}

fn count(statuses: &[u16], status: u16) -> usize {
    statuses.iter().filter(|one| **one == status).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_who_name_new_applications_at_once_as_many_make_one_as_there_may_be() {
    let server = Server::with(&["--max-made-applications", "5"]).await;
    let operator = server.operator().await;
    let ada = key(&operator, "ada", &["session"]).await;
    let names: Vec<String> = (0..40).map(|number| format!("app-{number}")).collect();
    let answers = join_all(names.iter().map(|name| begin(&ada, name))).await;
    let statuses: Vec<u16> = answers.iter().map(|(status, _)| *status).collect();
    assert_eq!((count(&statuses, 201), count(&statuses, 409)), (5, 35), "{statuses:?}");
    let (_, refused) = answers.iter().find(|(status, _)| *status == 409).unwrap();
    assert!(refused["message"].as_str().unwrap().contains("--max-made-applications"), "{refused}");
    let all = operator.get("/api/v1/applications").await.1;
    let all = all["items"].as_array().unwrap().clone();
    assert_eq!(all.len(), 6, "the five, and the first");
    // What there is goes on, what is made on purpose is no part of it, and what is archived makes room.
    let (index, _) = answers.iter().enumerate().find(|(_, (status, _))| *status == 201).unwrap();
    assert_eq!(begin(&ada, &names[index]).await.0, 201);
    assert_eq!(operator.post("/api/v1/applications", json!({ "name": "mine" })).await.0, 201);
    assert_eq!(begin(&ada, "mine").await.0, 201);
    let one = all.iter().find(|one| one["name"] == names[index].as_str()).unwrap();
    let path = format!("/api/v1/applications/{}", one["id"].as_str().unwrap());
    assert_eq!(operator.delete(&path).await.0, 204);
    assert_eq!(begin(&ada, "another").await.0, 201);
    assert_eq!(begin(&ada, "one more").await.0, 409);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_who_name_new_streams_at_once_as_many_make_one_as_there_may_be() {
    let server = Server::with(&["--max-made-streams", "5", "--max-made-applications", "1"]).await;
    let operator = server.operator().await;
    let ada = key(&operator, "ada", &["media"]).await;
    let basic = crate::media::basic(ada.token.as_deref().unwrap());
    let watch = async |path: String| {
        let url = format!("{}/v1/vhosts/v/apps/{path}/sessions", ada.base);
        let request = ada.http.post(url).header("authorization", &basic).json(&json!({}));
        request.send().await.unwrap().status().as_u16()
    };
    let statuses = join_all((0..30).map(|number| watch(format!("a/streams/s{number}")))).await;
    assert_eq!((count(&statuses, 201), count(&statuses, 409)), (5, 25), "{statuses:?}");
    assert_eq!(watch("b/streams/s".to_owned()).await, 409, "neither a stream nor an application");
    assert_eq!(operator.get("/api/v1/applications").await.1["items"].as_array().unwrap().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_organization_meets_as_many_people_as_it_may_and_those_it_knows_get_in() {
    let server = Server::with(&["--max-principals", "5"]).await;
    let operator = server.operator().await;
    let open = async |user: String| {
        let body = json!({ "authenticatedUserId": user });
        operator.post("/api/v1/agent-sessions", body).await.0.as_u16()
    };
    let statuses = join_all((0..20).map(|number| open(format!("user-{number}")))).await;
    assert_eq!((count(&statuses, 201), count(&statuses, 403)), (5, 15), "{statuses:?}");
    let known = statuses.iter().position(|status| *status == 201).unwrap();
    assert_eq!(open(format!("user-{known}")).await, 201);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_application_made_on_the_way_is_nobodys_only_one() {
    let server = Server::start().await;
    let operator = server.operator().await;
    let agent = key(&operator, "ada", &["mcp:invoke", "media", "session"]).await;
    assert_eq!(agent.post("/api/v1/agent-sessions", json!({})).await.0, 201);
    let basic = crate::media::basic(agent.token.as_deref().unwrap());
    let url = format!("{}/v1/vhosts/v/apps/a/streams/s/sessions", agent.base);
    let request = agent.http.post(url).header("authorization", basic).json(&json!({}));
    assert_eq!(request.send().await.unwrap().status(), 201);
    assert_eq!(begin(&agent, "work").await.0, 201);
    let (status, body) = agent.post("/api/v1/agent-sessions", json!({})).await;
    assert_eq!(status, 201, "{body}");
    // Nor after a start.
    let server = server.restart().await;
    let agent = server.holder(agent.token.unwrap());
    assert_eq!(agent.post("/api/v1/agent-sessions", json!({})).await.0, 201);
    server.operator().await.post("/api/v1/applications", json!({ "name": "second" })).await;
    let (status, body) = agent.post("/api/v1/agent-sessions", json!({})).await;
    assert_eq!((status.as_u16(), &body["field"]), (400, &json!("applicationId")));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_only_this_machine_can_reach_is_the_first_organizations_unless_the_operator_says_otherwise() {
    for (flags, allowed) in
        [(&[][..], false), (&["--allow-upstream", "127.0.0.0/8", "--allow-machine", "127.0.0.0/8"][..], true)]
    {
        let server = Server::with(flags).await;
        let other = server.another_organization().await;
        for (holder, first) in [(server.operator().await, true), (other, false)] {
            let may = first || allowed;
            let name = json!({ "name": "gateway" });
            let made = holder.post("/api/v1/applications", name).await.1;
            let path =
                format!("/api/v1/applications/{}/upstream", made["application"]["id"].as_str().unwrap());
            for url in ["http://127.0.0.1:4000/mcp", "https://127.0.0.1:4000/mcp", "http://[::1]:4000/mcp"] {
                let (status, body) = holder.put(&path, json!({ "url": url })).await;
                let good = if may && (first || !url.contains("::1")) { 200 } else { 400 };
                assert_eq!(status, good, "{url}: {body}");
            }
            let credential = json!({
                "type": "client_credentials", "tokenUrl": "http://127.0.0.1:1/token", "clientId": "c",
                "clientSecret": "s",
            });
            let body = json!({ "url": "https://upstream.example/mcp", "credential": credential });
            let (status, body) = holder.put(&path, body).await;
            assert_eq!(status, if may { 200 } else { 400 }, "{body}");
            let terminal = json!({ "name": "t", "scopes": ["terminal"] });
            let key = holder.post("/api/v1/api-keys", terminal).await.1["key"].as_str().unwrap().to_owned();
            let machine = json!({
                "name": "m", "host": "127.0.0.1", "port": 22, "user": "u",
                "credential": { "type": "password", "password": "p" },
            });
            let (status, body) = server.holder(key).post("/v1/machines", machine).await;
            assert_eq!(status, if may { 201 } else { 400 }, "{body}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_leads_to_this_machine_leads_another_organizations_calls_nowhere() {
    let upstream = crate::mcp::upstream::Upstream::start().await;
    let server = Server::start().await;
    let founded =
        server.running.as_ref().unwrap().house.directory.organizations.create("other", None).await.unwrap();
    let other = server.holder(server.token_for(&founded.client_id, &founded.client_secret, "").await);
    let port = upstream.url.split(':').nth(2).unwrap();
    let initialize = json!({
        "jsonrpc": "2.0", "id": 1, "method": "initialize",
        "params": { "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": { "name": "c", "version": "1" } },
    });
    for (holder, reached) in [(server.operator().await, true), (other, false)] {
        let made = holder.post("/api/v1/applications", json!({ "name": "gateway" })).await.1;
        let id = made["application"]["id"].as_str().unwrap();
        let url = format!("http://localhost:{port}");
        let (status, body) =
            holder.put(&format!("/api/v1/applications/{id}/upstream"), json!({ "url": url })).await;
        assert_eq!(status, 200, "{body}");
        let key = holder.post("/api/v1/api-keys", json!({ "name": "k", "scopes": ["mcp:invoke"] })).await.1;
        let request =
            server.http.post(server.url(&format!("/mcp/{id}"))).bearer_auth(key["key"].as_str().unwrap());
        let request = request.header("accept", "application/json, text/event-stream").json(&initialize);
        let answer = request.send().await.unwrap().text().await.unwrap();
        // What cannot be reached is said in a JSON-RPC error.
        assert_eq!(answer.contains("serverInfo"), reached, "{answer}");
        assert_eq!(answer.contains("upstream_unreachable"), !reached, "{answer}");
    }
}
