//! The surface's own contract, item by item.

use std::collections::BTreeSet;

use reqwest::Method;
use serde_json::{Value, json};

use super::{Key, ROOT, app, hyphenated, id_of, made};
use crate::openapi::document::Document;
use crate::support::Server;

fn refused(body: &Value, status: u16) {
    let members: BTreeSet<&str> = body.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(members, BTreeSet::from(["errorCode", "errorId", "message"]), "{body}");
    assert_eq!(body["errorCode"], status, "{body}");
    assert!(!body["message"].as_str().unwrap().is_empty() && !body["errorId"].as_str().unwrap().is_empty());
}

#[tokio::test]
async fn item_1_without_a_key_401_and_without_the_scope_403_in_the_bodies_of_the_surface() {
    let server = Server::start().await;
    let operator = server.operator().await;
    let at = (server.clock.now() + chrono::TimeDelta::hours(1)).to_rfc3339();
    let (late, _) = made(&operator, json!({ "name": "late", "scopes": ["session"], "expiresAt": at })).await;
    let (gone, made_gone) = made(&operator, json!({ "name": "gone", "scopes": ["session"] })).await;
    let path = format!("/api/v1/api-keys/{}", made_gone["apiKey"]["id"].as_str().unwrap());
    assert_eq!(operator.delete(&path).await.0, 204);
    server.turn(2 * 3_600);
    for text in [None, Some("nonsense".to_owned()), Some(late), Some(gone)] {
        let response = server.holds(text).send(Method::GET, "/sessions/webui", None).await;
        assert_eq!(response.status(), 401);
        assert!(response.headers()["www-authenticate"].to_str().unwrap().starts_with("ApiKey "));
        let id = response.headers()["x-request-id"].to_str().unwrap().to_owned();
        let body: Value = response.json().await.unwrap();
        refused(&body, 401);
        assert_eq!(body["errorId"], id.as_str());
    }
    // Where others expect a key, here is none.
    let key = server.key(&["session"]).await;
    let bearer = server.holder(key.text.clone().unwrap()).get(&format!("{ROOT}/sessions/webui")).await;
    assert_eq!(bearer.0, 401);
    for scope in ["media", "terminal", "management:all", "mcp:invoke"] {
        let (status, body) = server.key(&[scope]).await.get("/sessions/task").await;
        assert_eq!(status, 403, "{scope}: {body}");
        refused(&body, 403);
    }
    assert_eq!(key.get("/sessions/task").await.0, 200);
    // The name of a header is the same in any case, and so is the scope in a request for a key.
    let other = server.http.get(server.url(&format!("{ROOT}/sessions/task")));
    assert_eq!(other.header("APIKEY", key.text.as_ref().unwrap()).send().await.unwrap().status(), 200);
    for (path, status) in [("/nothing", 404), ("/sessions/solve", 404), ("/sessions/logs", 404)] {
        let (found, body) = key.get(path).await;
        assert_eq!(found, status, "{path}");
        refused(&body, status);
    }
    let (status, body) = key.ask(Method::PUT, "/sessions/webui", None).await;
    assert_eq!(status, 405);
    refused(&body, 405);
}

#[tokio::test]
async fn item_2_the_document_has_every_path_and_filter_in_yaml_and_in_json() {
    let server = Server::start().await;
    let nobody = server.holds(None);
    let response = nobody.send(Method::GET, "/openapi.yaml", None).await;
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "application/yaml");
    let yaml = response.text().await.unwrap();
    assert!(yaml.starts_with("openapi: 3."), "{}", &yaml[..80]);
    let json = nobody.see("/openapi.json").await;
    let wants =
        server.http.get(server.url(&format!("{ROOT}/openapi.yaml"))).header("accept", "application/json");
    let chosen: Value = wants.send().await.unwrap().json().await.unwrap();
    assert_eq!(chosen, json);
    for path in json["paths"].as_object().unwrap().keys() {
        assert!(yaml.contains(&format!("\n  {path}:\n")), "{path}");
    }
    // Exactly what the whole document has of this surface, and nothing that is not used.
    let whole = Document::new().0;
    let own: BTreeSet<_> =
        whole["paths"].as_object().unwrap().keys().filter(|path| path.starts_with(ROOT)).collect();
    assert_eq!(json["paths"].as_object().unwrap().keys().collect::<BTreeSet<_>>(), own);
    assert_eq!(own.len(), 17, "{own:?}");
    for name in json["components"]["schemas"].as_object().unwrap().keys() {
        assert!(json.to_string().contains(&format!("schemas/{name}\"")), "nothing uses {name}");
    }
    for at in json.to_string().split("#/components/").skip(1) {
        let at = at.split('"').next().unwrap();
        assert!(json.pointer(&format!("/components/{at}")).is_some(), "{at} leads nowhere");
    }
    assert_eq!(json["components"]["securitySchemes"]["apiKey"]["name"], "apiKey");
    let parameters = |path: &str| -> Vec<String> {
        let item = &json["paths"][format!("{ROOT}{path}")];
        // What all operations of the path take, and what this one does.
        let all = [item, &item["get"]].into_iter().flat_map(|one| one["parameters"].as_array()).flatten();
        let described = all.map(|one| one["$ref"].as_str().map_or(one, |at| json.pointer(&at[1..]).unwrap()));
        described.map(|one| one["name"].as_str().unwrap().to_owned()).collect()
    };
    for kind in ["webui", "task"] {
        assert_eq!(
            parameters(&format!("/sessions/{kind}")),
            [
                "offset",
                "limit",
                "sort",
                "after",
                "before",
                "state_equal_ci",
                "state_in",
                "state_not_in",
                "app_equal_cs",
                "app_equal_ci",
                "version_equal_cs",
                "owner_equal_cs"
            ]
        );
        let logs = ["session_id", "from", "to", "level_in", "after", "limit", "sort"];
        assert_eq!(parameters(&format!("/sessions/logs/{kind}/{{session_id}}")), logs);
        assert_eq!(parameters(&format!("/sessions/{kind}/{{session_id}}/logs")), logs);
    }
}

#[tokio::test]
async fn item_3_lists_have_one_kind_with_filters_order_and_pages_and_the_total() {
    let server = Server::start().await;
    let key = server.key(&["session"]).await;
    let mut webui = vec![];
    for number in 0..5 {
        server.turn(10);
        webui.push(key.begin("webui", app(["Planner", "Router"][number % 2])).await);
    }
    let task = key.begin("task", app("Planner")).await;
    let newest: Vec<_> = webui.iter().rev().map(|path| id_of(path).to_owned()).collect();
    assert_eq!(key.listed("/sessions/webui").await, (newest.clone(), 5));
    assert_eq!(key.listed("/sessions/task").await, (vec![id_of(&task).to_owned()], 1));
    assert_eq!(key.listed("/sessions/webui?limit=2&offset=1").await, (newest[1..3].to_vec(), 5));
    let oldest: Vec<_> = newest.iter().rev().cloned().collect();
    assert_eq!(key.listed("/sessions/webui?sort=created_at").await, (oldest.clone(), 5));
    key.beat(&webui[2]).await;
    let (active, _) = key.listed("/sessions/webui?sort=-last_active_at&limit=1").await;
    assert_eq!(active, [id_of(&webui[2])]);
    let planner = [4, 2, 0].map(|number| id_of(&webui[number]).to_owned());
    assert_eq!(key.listed("/sessions/webui?app_equal_cs=Planner").await, (planner.to_vec(), 3));
    assert_eq!(key.listed("/sessions/webui?app_equal_ci=pLANNER").await, (planner.to_vec(), 3));
    assert_eq!(key.listed("/sessions/webui?app_equal_cs=pLANNER").await, (vec![], 0));
    // From the third on, and before the fourth: the one instant belongs, the other does not.
    let at = |path: &str| {
        let (key, path) = (key.clone(), path.to_owned());
        async move { key.see(&path).await["created_at"].as_str().unwrap().to_owned() }
    };
    let (third, fourth) = (at(&webui[2]).await, at(&webui[3]).await);
    let between = format!("/sessions/webui?after={third}&before={fourth}");
    assert_eq!(key.listed(&between).await, (vec![id_of(&webui[2]).to_owned()], 1));
}

#[tokio::test]
async fn item_4_what_is_wrong_in_a_parameter_is_400_and_named() {
    let server = Server::start().await;
    let key = server.key(&["session"]).await;
    let path = key.begin("task", app("Planner")).await;
    for (query, named) in [
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("limit=x", "limit"),
        ("limit=1&limit=2", "limit"),
        ("offset=-1", "offset"),
        ("offset=10001", "created_at"),
        ("after=yesterday", "after"),
        ("before=2026-13-01T00:00:00Z", "before"),
        ("state_equal_ci=asleep", "state_equal_ci"),
        ("state_in=running,asleep", "state_in"),
        ("state_not_in=", "state_not_in"),
        ("sort=name", "sort"),
        ("environment_equal_cs=x", "environment_equal_cs"),
    ] {
        let (status, body) = key.get(&format!("/sessions/task?{query}")).await;
        assert_eq!(status, 400, "{query}: {body}");
        refused(&body, 400);
        assert!(body["message"].as_str().unwrap().contains(named), "{query}: {body}");
    }
    // Each kind knows its own states.
    let (status, body) = key.get("/sessions/webui?state_equal_ci=queued").await;
    assert_eq!(
        (status.as_u16(), body["message"].as_str().unwrap()),
        (400, "state_equal_ci: \"queued\" is no state; there are Running, Terminated")
    );
    for query in [
        "from=x",
        "to=x",
        "from=2026-01-02T00:00:00Z&to=2026-01-01T00:00:00Z",
        "after=-1",
        "limit=0",
        "level_in=loud",
        "sort=time",
        "offset=1",
    ] {
        let (status, body) = key.get(&format!("{path}/logs?{query}")).await;
        assert_eq!(status, 400, "{query}: {body}");
    }
    for id in ["nonsense", "68ce8ce7c4a6fd1afa97672e7080d64", "68ce8ce7c4a6fd1afa97672e7080d64g"] {
        assert_eq!(key.get(&format!("/sessions/task/{id}")).await.0, 400, "{id}");
    }
    for (body, named) in [
        (json!({}), "app"),
        (json!({ "app": { "name": "" } }), "name"),
        (json!({ "app": { "name": "x", "version": "\u{7}" } }), "app.version"),
        (json!({ "app": { "name": "x" }, "owner": "" }), "owner"),
        (json!({ "app": { "name": "x" }, "owner": null }), "owner"),
        (json!({ "app": { "name": "x" }, "lifetime": 0 }), "lifetime"),
        (json!({ "app": { "name": "x" }, "state": "finished" }), "state"),
        (json!({ "app": { "name": "x" }, "sate": "queued" }), "sate"),
    ] {
        let (status, answer) = key.post("/sessions/task", body.clone()).await;
        assert_eq!(status, 400, "{body}: {answer}");
        assert!(answer["message"].as_str().unwrap().contains(named), "{body}: {answer}");
    }
    assert_eq!(key.listed("/sessions/task").await.1, 1, "nothing was half made");
}

#[tokio::test]
async fn item_5_one_session_by_its_id_and_404_for_another_kind_and_for_none() {
    let server = Server::start().await;
    let key = server.key(&["session"]).await;
    let webui = key.begin("webui", app("Planner")).await;
    let task = json!({
        "app": { "name": "Planner", "version": "2.1" }, "owner": "ada@example.com", "environment": "production",
        "description": "nightly\nrun", "hostname": "node-7",
    });
    let task = key.begin("task", task).await;
    let id = id_of(&task);
    assert!(id.len() == 32 && id.bytes().all(|one| one.is_ascii_digit() || (b'a'..=b'f').contains(&one)));
    let seen = key.see(&task).await;
    let created = seen["created_at"].as_str().unwrap();
    assert_eq!(
        seen,
        json!({
            "id": id, "kind": "task", "state": "queued", "created_at": created, "last_active_at": created,
            "ended_at": null, "message": "", "app": { "name": "Planner", "version": "2.1" },
            "owner": "ada@example.com", "environment": "production", "description": "nightly\nrun",
            "hostname": "node-7",
        })
    );
    assert_eq!(key.see(&format!("/sessions/task/{}", hyphenated(&task))).await, seen);
    assert_eq!(key.see(&format!("/sessions/task/{}", id.to_uppercase())).await, seen);
    for path in [
        format!("/sessions/webui/{id}"),
        format!("/sessions/task/{}", id_of(&webui)),
        "/sessions/task/44444444444444448444444444444444".to_owned(),
    ] {
        let (status, body) = key.get(&path).await;
        assert_eq!(status, 404, "{path}");
        refused(&body, 404);
    }
    // Another organization's is nobody's.
    let platform = server.holder(server.token("platform:admin").await);
    let (_, founded) = platform.post("/api/v1/organizations", json!({ "name": "other" })).await;
    let text = |at: &str| founded["serviceAccount"][at].as_str().unwrap().to_owned();
    let token = server.token_for(&text("clientId"), &text("clientSecret"), "management:all").await;
    let other = made(&server.holder(token), json!({ "name": "other", "scopes": ["session"] })).await.0;
    let other = server.holds(Some(other));
    assert_eq!(other.get(&task).await.0, 404);
    assert_eq!(other.beat(&task).await, 404);
    assert_eq!(other.delete(&task).await, 404);
    assert_eq!(other.listed("/sessions/task").await, (vec![], 0));
    assert_eq!(key.state(&task).await, "queued");
}

#[tokio::test]
async fn item_6_a_webui_session_is_running_or_terminated_and_never_says_when_or_why() {
    let server = Server::start().await;
    let key = server.key(&["session"]).await;
    let mut ways = vec![];
    for how in ["delete", "end", "lifetime", "stale"] {
        let path = key.begin("webui", json!({ "app": { "name": "Planner" }, "lifetime": 80_000 })).await;
        let seen = key.see(&path).await;
        assert_eq!(
            (&seen["state"], &seen["ended_at"], &seen["message"]),
            (&json!("Running"), &json!(null), &json!(""))
        );
        ways.push((how, path));
    }
    assert_eq!(key.delete(&ways[0].1).await, 204);
    assert_eq!(key.ask(Method::POST, &format!("{}/end", ways[1].1), None).await.0, 200);
    let (status, body) = key.post(&format!("{}/end", ways[1].1), json!({ "state": "finished" })).await;
    assert_eq!(status, 400, "{body}");
    // The third is past its lifetime before anybody has recorded that.
    server.turn(80_001);
    for (how, path) in ways {
        let seen = key.see(&path).await;
        assert_eq!(seen["state"], "Terminated", "{how}");
        assert_eq!((&seen["ended_at"], &seen["message"]), (&json!(null), &json!("")), "{how}");
        assert_eq!(key.beat(&path).await, 410, "{how}");
    }
    assert_eq!(key.listed("/sessions/webui?state_equal_ci=terminated").await.1, 4);
    assert_eq!(key.listed("/sessions/webui?state_equal_ci=RUNNING").await.1, 0);
}

#[tokio::test]
async fn item_7_a_task_has_more_states_and_says_at_its_end_when_and_what() {
    let server = Server::start().await;
    let key = server.key(&["session"]).await;
    for (state, message) in
        [("finished", "optimal"), ("failed", "infeasible"), ("crashed", "killed by signal 9")]
    {
        let path = key.begin("task", app("Planner")).await;
        let mut states = vec![key.state(&path).await];
        for next in ["launching", "running"] {
            assert_eq!(key.move_on(&path, next).await, 200);
            states.push(key.state(&path).await);
        }
        assert_eq!(states, ["queued", "launching", "running"]);
        let (status, body) = key.patch(&path, json!({ "state": "queued" })).await;
        assert_eq!(status, 409, "it does not go back: {body}");
        assert_eq!(key.see(&path).await["ended_at"], Value::Null);
        server.turn(60);
        let ended = key.end(&path, state, message).await;
        let then = ended["ended_at"].as_str().unwrap().to_owned();
        assert_eq!((&ended["state"], &ended["message"]), (&json!(state), &json!(message)));
        server.turn(60);
        // What is over stays as it is, also where that is said again, or otherwise.
        let again = key.end(&path, "finished", "or was it?").await;
        assert_eq!(again, ended);
        assert_eq!(key.see(&path).await["ended_at"], then.as_str());
        assert_eq!(key.move_on(&path, "running").await, 410);
        assert_eq!(key.listed(&format!("/sessions/task?state_equal_ci={state}")).await.0, [id_of(&path)]);
    }
    let straight = key.begin("task", json!({ "app": { "name": "Planner" }, "state": "running" })).await;
    assert_eq!(key.state(&straight).await, "running");
    assert_eq!(key.end(&straight, "finished", "").await["message"], "");
}

#[tokio::test]
async fn item_8_logs_come_with_times_and_in_pages_and_404_for_none() {
    let server = Server::start().await;
    let key = server.key(&["session"]).await;
    for kind in ["webui", "task"] {
        let path = key.begin(kind, app("Planner")).await;
        let logs = format!("/sessions/logs/{kind}/{}", id_of(&path));
        assert_eq!(
            key.see(&logs).await,
            json!({ "total_lines": 0, "lines": [], "has_more": false, "next_after": 0 })
        );
        let minute = |minute: u32| format!("2026-03-01T10:{minute:02}:00.000Z");
        let lines: Vec<_> = (0..10)
            .map(|at| {
                let level = if at % 2 == 0 { "info" } else { "ERROR" };
                json!({ "time": minute(at), "level": level, "text": format!("line {at}") })
            })
            .collect();
        let (status, filed) = key.post(&format!("{path}/logs"), json!({ "lines": lines })).await;
        assert_eq!((status.as_u16(), filed), (201, json!({ "first": 1, "last": 10, "moved": 0 })));
        let page = key.see(&format!("{logs}?limit=3&after=2")).await;
        assert_eq!(
            page["lines"][0],
            json!({ "position": 3, "time": minute(2), "level": "info", "text": "line 2" })
        );
        assert_eq!(
            (&page["total_lines"], &page["has_more"], &page["next_after"]),
            (&json!(10), &json!(true), &json!(5))
        );
        let texts = |page: Value| -> Vec<String> {
            page["lines"]
                .as_array()
                .unwrap()
                .iter()
                .map(|line| line["text"].as_str().unwrap().to_owned())
                .collect()
        };
        let between = format!("{logs}?from={}&to={}", minute(4), minute(7));
        assert_eq!(texts(key.see(&between).await), ["line 4", "line 5", "line 6"]);
        assert_eq!(
            texts(key.see(&format!("{logs}?level_in=Error,debug&limit=2")).await),
            ["line 1", "line 3"]
        );
        assert_eq!(texts(key.see(&format!("{logs}?sort=-position&limit=2")).await), ["line 9", "line 8"]);
        // They stay after the end.
        key.ask(Method::POST, &format!("{path}/end"), Some(json!({ "state": "terminated" }))).await;
        assert_eq!(key.see(&logs).await["total_lines"], 10);
        let other = if kind == "webui" { "task" } else { "webui" };
        for path in [
            format!("/sessions/logs/{other}/{}", id_of(&path)),
            format!("/sessions/logs/{kind}/44444444444444448444444444444444"),
        ] {
            assert_eq!(key.get(&path).await.0, 404, "{path}");
        }
    }
}

#[tokio::test]
async fn item_9_deleting_a_webui_session_terminates_it_and_a_second_time_is_409() {
    let server = Server::start().await;
    let key = server.key(&["session"]).await;
    let path = key.begin("webui", app("Planner")).await;
    assert_eq!(key.beat(&path).await, 200);
    assert_eq!(key.delete(&path).await, 204);
    assert_eq!(key.state(&path).await, "Terminated");
    let (status, body) = key.ask(Method::DELETE, &path, None).await;
    assert_eq!(status, 409);
    refused(&body, 409);
    // The portal is told, whatever it asks for; the record stays.
    let (status, body) = key.ask(Method::POST, &format!("{path}/heartbeat"), None).await;
    assert_eq!(status, 410);
    assert!(body["message"].as_str().unwrap().contains("terminated"), "{body}");
    assert_eq!(key.log(&path, &["too late".to_owned()]).await.0, 410);
    assert_eq!(key.listed("/sessions/webui").await.1, 1);
}

async fn dying(server: &Server, key: &Key, path: &str) -> Value {
    for _ in 0..2 {
        let seen = key.see(path).await;
        assert_eq!(
            (&seen["state"], &seen["ended_at"], &seen["message"]),
            (&json!("running"), &json!(null), &json!(""))
        );
    }
    assert_eq!(key.beat(path).await, 410);
    assert_eq!(key.move_on(path, "running").await, 410);
    assert_eq!(key.log(path, &["too late".to_owned()]).await.0, 410);
    for logs in [
        format!("{path}/logs"),
        format!("{path}/logs/download"),
        format!("/sessions/logs/task/{}", id_of(path)),
    ] {
        assert_eq!(key.get(&logs).await.0, 409, "{logs}");
    }
    assert_eq!(key.delete(path).await, 409);
    // Where a state is asked for, it is in none.
    for query in ["state_equal_ci=terminated", "state_equal_ci=running", "state_not_in=finished"] {
        assert_eq!(key.listed(&format!("/sessions/task?{query}")).await, (vec![], 0), "{query}");
    }
    assert_eq!(key.listed("/sessions/task").await.0, [id_of(path)]);
    let operator = server.operator().await;
    operator.get("/api/v1/sessions?status=all&kind=task").await.1["items"][0]["disconnectedAt"].clone()
}

#[tokio::test]
async fn item_10_a_task_that_is_deleted_is_out_of_reach_at_once_and_its_state_follows() {
    for confirmed in [false, true] {
        // The clock that is turned decides, not the time a test takes.
        let server = Server::with(&["--workload-grace", "10m"]).await;
        let key = server.key(&["session"]).await;
        let path = key.begin("task", json!({ "app": { "name": "Planner" }, "state": "running" })).await;
        key.log(&path, &["hello".to_owned()]).await;
        assert_eq!(key.delete(&path).await, 204);
        let ended_at = dying(&server, &key, &path).await;
        let over = if confirmed {
            server.turn(100);
            key.end(&path, "terminated", "its process was killed").await
        } else {
            server.turn(590);
            assert_eq!(key.state(&path).await, "running");
            server.turn(11);
            key.see(&path).await
        };
        assert_eq!(over["state"], "terminated");
        assert_eq!(over["ended_at"], ended_at, "it ended when it was ended");
        let message = if confirmed { "its process was killed" } else { "Terminated on request" };
        assert_eq!(over["message"], message);
        assert_eq!(key.see(&path).await, over);
        assert_eq!(key.see(&format!("{path}/logs")).await["lines"][0]["text"], "hello");
        let only = (vec![id_of(&path).to_owned()], 1);
        assert_eq!(key.listed("/sessions/task?state_in=terminated,failed").await, only);
        // The first word stays, and what is said late is no other end.
        let late = key.end(&path, "crashed", "no, it broke").await;
        assert_eq!(late["message"], if confirmed { message } else { "no, it broke" });
        assert_eq!((&late["state"], &late["ended_at"]), (&over["state"], &over["ended_at"]));
    }
}

#[tokio::test]
async fn item_11_the_webui_path_terminates_a_task_too_and_says_that_this_is_deprecated() {
    let server = Server::start().await;
    let key = server.key(&["session"]).await;
    let task = key.begin("task", app("Planner")).await;
    let webui = key.begin("webui", app("Planner")).await;
    let delete = |path: String| {
        let key = key.clone();
        async move { key.send(Method::DELETE, &path, None).await }
    };
    let response = delete(format!("/sessions/webui/{}", id_of(&task))).await;
    assert_eq!(response.status(), 204);
    assert_eq!(response.headers()["deprecation"], "true");
    assert_eq!(key.move_on(&task, "running").await, 410, "what was queued never runs");
    let response = delete(webui.clone()).await;
    assert_eq!(response.status(), 204);
    assert!(!response.headers().contains_key("deprecation"));
    // The other way round there was never a line.
    let another = key.begin("webui", app("Planner")).await;
    assert_eq!(key.delete(&format!("/sessions/task/{}", id_of(&another))).await, 404);
    assert_eq!(key.state(&another).await, "Running");
    // Nothing but terminating is reached by the wrong path.
    assert_eq!(key.get(&format!("/sessions/webui/{}", id_of(&task))).await.0, 404);
}

#[tokio::test]
async fn item_12_the_newer_paths_do_the_same() {
    let server = Server::start().await;
    let key = server.key(&["session"]).await;
    for kind in ["webui", "task"] {
        let path = key.begin(kind, app("Planner")).await;
        let texts = ["one", "two\nand a half", "three"].map(str::to_owned);
        assert_eq!(key.log(&path, &texts).await.0, 201);
        let older = key.see(&format!("/sessions/logs/{kind}/{}?limit=2&after=1", id_of(&path))).await;
        assert_eq!(key.see(&format!("{path}/logs?limit=2&after=1")).await, older);
        let response = key.send(Method::GET, &format!("{path}/logs/download"), None).await;
        assert_eq!(response.headers()["content-type"], "text/plain; charset=utf-8");
        let name = format!("attachment; filename=\"{}.log\"", id_of(&path));
        assert_eq!(response.headers()["content-disposition"], name.as_str());
        let text = response.text().await.unwrap();
        let at = older["lines"][0]["time"].as_str().unwrap();
        assert_eq!(text, format!("{at} - one\n{at} - two\n\tand a half\n{at} - three\n"));
        let terminate = format!("{path}/terminate");
        assert_eq!(key.ask(Method::PATCH, &terminate, None).await.0, 204);
        assert_eq!(key.beat(&path).await, 410);
        assert_eq!(key.ask(Method::PATCH, &terminate, None).await.0, 409);
        assert_eq!(key.delete(&path).await, 409, "as the older one says");
        let other = if kind == "webui" { "task" } else { "webui" };
        let elsewhere = format!("/sessions/{other}/{}/terminate", id_of(&path));
        assert_eq!(key.ask(Method::PATCH, &elsewhere, None).await.0, 404);
        // The record stays, whatever deletes.
        assert_eq!(key.get(&path).await.0, 200);
    }
}

#[tokio::test]
async fn item_13_a_persons_key_sees_that_persons_sessions_and_an_organizations_all() {
    let server = Server::start().await;
    let (ada, ben) = (server.persons_key("ada").await, server.persons_key("ben").await);
    let all = server.key(&["session"]).await;
    let mine = ada.begin("task", app("Planner")).await;
    let also = all.begin("task", json!({ "app": { "name": "Planner" }, "owner": "ada" })).await;
    let his = ben.begin("task", json!({ "app": { "name": "Planner" }, "owner": "ben" })).await;
    let nobodys = all.begin("task", app("Planner")).await;
    let two = vec![id_of(&also).to_owned(), id_of(&mine).to_owned()];
    assert_eq!(ada.listed("/sessions/task").await, (two.clone(), 2));
    assert_eq!(all.listed("/sessions/task?owner_equal_cs=ada").await, (two, 2));
    assert_eq!(ada.listed("/sessions/task?owner_equal_cs=ben").await, (vec![], 0));
    assert_eq!(ben.listed("/sessions/task").await, (vec![id_of(&his).to_owned()], 1));
    assert_eq!(all.listed("/sessions/task").await.1, 4);
    assert_eq!(all.listed("/sessions/task?owner_equal_cs=cleo").await, (vec![], 0));
    for path in [&his, &nobodys] {
        assert_eq!(ada.get(path).await.0, 404);
        assert_eq!(ada.beat(path).await, 404);
        assert_eq!(ada.move_on(path, "running").await, 404);
        assert_eq!(ada.log(path, &["x".to_owned()]).await.0, 404);
        assert_eq!(ada.get(&format!("{path}/logs")).await.0, 404);
        assert_eq!(ada.delete(path).await, 404);
        assert_eq!(ada.post(&format!("{path}/end"), json!({ "state": "failed" })).await.0, 404);
    }
    let (_, body) =
        ada.post("/sessions/heartbeats", json!({ "sessions": [id_of(&mine), id_of(&his)] })).await;
    let statuses: Vec<_> =
        body["sessions"].as_array().unwrap().iter().map(|one| one["status"].as_u64().unwrap()).collect();
    assert_eq!(statuses, [200, 404]);
    assert_eq!(all.see(&mine).await["owner"], "ada");
    assert_eq!(all.see(&nobodys).await["owner"], Value::Null);
    let (status, body) = ada.post("/sessions/task", json!({ "app": { "name": "x" }, "owner": "ben" })).await;
    assert_eq!(status, 403, "{body}");
    assert_eq!(ada.delete(&also).await, 204, "what is one's own may be ended, whoever began it");
    assert_eq!(ben.state(&his).await, "queued");
}
