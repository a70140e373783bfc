//! What owners of many sessions want done, over HTTP.

mod bars;
mod calendar;
mod filters;
mod kept_out;
mod kept_out_too;
mod limits;
mod names;
mod people_found;
mod reports;
mod revocations;
mod schedules;
mod stories;
mod suspension;

use serde_json::{Value, json};

use crate::support::{Agent, Holder, Server};

/// Makes another application and returns its id.
pub async fn application(operator: &Holder, name: &str) -> String {
    let (status, body) = operator.post("/api/v1/applications", json!({ "name": name })).await;
    assert_eq!(status, 201, "{body}");
    body["application"]["id"].as_str().unwrap().to_owned()
}

/// Ids of a list's items, in its order, page by page.
pub async fn listed(holder: &Holder, path: &str) -> Vec<String> {
    let mut all = vec![];
    let mut next = path.to_owned();
    loop {
        let response = holder.send(reqwest::Method::GET, &next, None).await;
        let status = response.status();
        let link = response.headers().get("link").map(|link| link.to_str().unwrap().to_owned());
        let body: Value = response.json().await.unwrap();
        assert_eq!(status, 200, "{next}: {body}");
        let items = body["items"].as_array().unwrap();
        all.extend(items.iter().map(|item| item["id"].as_str().unwrap().to_owned()));
        assert_eq!(link.is_some(), body["nextCursor"].is_string(), "a Link and a cursor go together");
        match link {
            Some(link) => {
                let (url, rest) = link.strip_prefix('<').unwrap().split_once('>').unwrap();
                assert_eq!(rest, "; rel=\"next\"");
                url.clone_into(&mut next);
            }
            None => return all,
        }
    }
}

/// The events that carry a revocation, of one type.
pub async fn caused(operator: &Holder, revocation: &str, name: &str) -> Vec<Value> {
    let mut all = vec![];
    let mut path = format!("/api/v1/events?revocation={revocation}&types={name}&limit=200");
    loop {
        let (status, body) = operator.get(&path).await;
        assert_eq!(status, 200, "{body}");
        all.extend(body["items"].as_array().unwrap().iter().cloned());
        match body["nextCursor"].as_str() {
            Some(cursor) => {
                path =
                    format!("/api/v1/events?revocation={revocation}&types={name}&limit=200&cursor={cursor}");
            }
            None => return all,
        }
    }
}

/// How a session stands.
pub async fn session(operator: &Holder, agent: &Agent) -> Value {
    let (status, body) = operator.get(&agent.path()).await;
    assert_eq!(status, 200, "{body}");
    body["session"].clone()
}

/// A server, its operator, and the first application.
pub async fn begin() -> (Server, Holder, String) {
    let server = Server::start().await;
    let operator = server.operator().await;
    let application = server.application().await;
    (server, operator, application)
}
