//! Lists that are long, and filters that meet.

use std::collections::BTreeSet;

use serde_json::json;

use super::{app, id_of};
use crate::support::Server;

#[tokio::test(flavor = "multi_thread")]
async fn pages_by_offset_show_each_session_once_whatever_has_ended() {
    let server = Server::start().await;
    let key = server.key(&["session"]).await;
    let mut paths = vec![];
    for number in 0..60 {
        let name = ["Planner", "Router", "planner"][number % 3];
        let version = ["1", "2"][number % 2];
        let body = json!({ "app": { "name": name, "version": version }, "state": "running" });
        paths.push(key.begin("task", body).await);
    }
    for (number, path) in paths.iter().enumerate() {
        match number % 4 {
            0 => drop(key.end(path, ["finished", "failed", "crashed"][number % 3], "").await),
            1 => assert_eq!(key.delete(path).await, 204),
            _ => {}
        }
    }
    server.turn(6);
    let state = |number: usize| match number % 4 {
        0 => ["finished", "failed", "crashed"][number % 3],
        1 => "terminated",
        _ => "running",
    };
    for (query, wanted) in [
        ("", Box::new(|_: usize| true) as Box<dyn Fn(usize) -> bool>),
        ("state_in=Failed,terminated", Box::new(|number| matches!(state(number), "failed" | "terminated"))),
        ("state_not_in=running,crashed", Box::new(|number| !matches!(state(number), "running" | "crashed"))),
        ("state_in=running,failed&state_not_in=failed", Box::new(|number| state(number) == "running")),
        ("state_equal_ci=running&state_not_in=running", Box::new(|_| false)),
        ("app_equal_ci=PLANNER", Box::new(|number| number % 3 != 1)),
        ("app_equal_ci=planner&app_equal_cs=Planner", Box::new(|number| number % 3 == 0)),
        ("app_equal_cs=Router&version_equal_cs=2", Box::new(|number| number % 3 == 1 && number % 2 == 1)),
        ("version_equal_cs=3", Box::new(|_| false)),
        ("app_equal_cs=Nothing", Box::new(|_| false)),
    ] {
        let expected: Vec<_> =
            (0..60).filter(|number| wanted(*number)).map(|number| id_of(&paths[number]).to_owned()).collect();
        for sort in ["created_at", "-created_at"] {
            let mut all = vec![];
            for offset in (0..70).step_by(7) {
                let path = format!("/sessions/task?{query}&sort={sort}&limit=7&offset={offset}");
                let (page, total) = key.listed(&path.replace("?&", "?")).await;
                assert_eq!(total, expected.len() as u64, "{path}");
                all.extend(page);
            }
            if sort == "-created_at" {
                all.reverse();
            }
            assert_eq!(all, expected, "{query} {sort}");
        }
        let by_activity = format!("/sessions/task?{query}&sort=last_active_at&limit=1000").replace("?&", "?");
        let found: BTreeSet<_> = key.listed(&by_activity).await.0.into_iter().collect();
        assert_eq!(found, expected.into_iter().collect(), "{query} by activity");
    }
    let (status, body) = key.get("/sessions/task?offset=10001").await;
    assert_eq!(status, 400);
    assert!(body["message"].as_str().unwrap().contains("before"), "{body}");
}

#[tokio::test]
async fn other_kinds_and_other_applications_are_not_counted() {
    let server = Server::start().await;
    let key = server.key(&["session"]).await;
    let operator = server.operator().await;
    for agent in operator.connect_many(5).await {
        agent.call("disconnect").await;
    }
    operator.connect_many(3).await;
    key.begin("webui", app("default")).await;
    let task = key.begin("task", app("default")).await;
    key.end(&task, "finished", "").await;
    assert_eq!(key.listed("/sessions/webui").await.1, 1);
    assert_eq!(key.listed("/sessions/task").await.1, 1);
    assert_eq!(key.listed("/sessions/task?app_equal_cs=default").await.1, 1);
    // What is spoken of is the application of that name that was there.
    let (_, applications) = operator.get("/api/v1/applications").await;
    assert_eq!(applications["items"].as_array().unwrap().len(), 1, "{applications}");
}
