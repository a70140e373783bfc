//! What a request says that its operation does not know: refused and named, on every operation that the document has.

use reqwest::{Method, Response};
use serde_json::{Map, Value, json};
use sessiond::http::unknown::{LENIENT, Part, is_lenient};

use crate::openapi::document::{Document, Operation, ask, filled};
use crate::support::{Holder, Server};

const SOMEBODY: &str = "44444444-4444-4444-8444-444444444444";
/// Sorts before every member that there is, so that it is read first.
const SURPRISE: &str = "AAA_surprise";

/// Callers with the right to each operation.
struct Callers {
    operator: Holder,
    platform: Holder,
    person: Holder,
    media: Holder,
    cluster: Holder,
    terminal: Holder,
}

impl Callers {
    async fn of(server: &Server) -> Self {
        let operator = server.operator().await;
        let key = async |body: Value| {
            let (status, made) = operator.post("/api/v1/api-keys", body).await;
            assert_eq!(status, 201, "{made}");
            server.holder(made["key"].as_str().unwrap())
        };
        let scoped = async |scope: &str| key(json!({ "name": scope, "scopes": [scope] })).await;
        Self {
            platform: server.holder(server.token("platform:admin").await),
            person: key(json!({ "name": "x", "scopes": ["mcp:invoke"], "user": { "id": "u-1" } })).await,
            media: scoped("media").await,
            cluster: scoped("session").await,
            terminal: scoped("terminal").await,
            operator,
        }
    }

    fn for_operation(&self, id: &str) -> &Holder {
        match id.split('.').next().unwrap() {
            "organizations" | "nodes" => &self.platform,
            "me" => &self.person,
            "media" => &self.media,
            "workloads" => &self.cluster,
            "terminals" => &self.terminal,
            _ => &self.operator,
        }
    }
}

fn path_of(operation: &Operation<'_>) -> String {
    let simple = SOMEBODY.replace('-', "");
    let (session, machine) = (format!("sess_{simple}"), format!("mch_{simple}"));
    let ids = [("sessionId", session.as_str()), ("machineId", machine.as_str())];
    let ids = if operation.id.starts_with("terminals.") { &ids[..] } else { &[] };
    filled(operation.path, ids, SOMEBODY)
}

async fn said(response: Response) -> (u16, String) {
    (response.status().as_u16(), response.text().await.unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_operation_refuses_a_parameter_that_it_does_not_know_and_names_those_that_it_does() {
    let server = Server::start().await;
    let callers = Callers::of(&server).await;
    let document = Document::new();
    for operation in document.operations() {
        let id = operation.id;
        let caller = callers.for_operation(id);
        let path = format!("{}?{SURPRISE}=1", path_of(&operation));
        let (status, text) = said(ask(caller, &operation, &path, None).await).await;
        if is_lenient(id, Part::Query) {
            assert!(!text.contains(SURPRISE), "{id}: {text}");
            continue;
        }
        assert_eq!(status, 400, "{id}: {text}");
        assert!(text.contains(SURPRISE), "{id}: {text}");
        let parameters = operation.described["parameters"].as_array().into_iter().flatten();
        let names: Vec<&str> =
            parameters.filter(|one| one["in"] == "query").map(|one| one["name"].as_str().unwrap()).collect();
        assert!(names.iter().all(|name| text.contains(name)), "{id}: {text}");
        assert!(!names.is_empty() || text.contains("takes none"), "{id}: {text}");
        if let Some(name) = names.first() {
            let path = format!("{}?{name}=x&{name}=x", path_of(&operation));
            let (status, text) = said(ask(caller, &operation, &path, None).await).await;
            assert!(status == 400 && text.contains("more than once"), "{id}: {text}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_operation_refuses_a_member_that_it_does_not_know_however_deep() {
    let server = Server::start().await;
    let callers = Callers::of(&server).await;
    let document = Document::new();
    let mut looked_at = 0;
    for operation in document.operations() {
        let id = operation.id;
        let schema = &operation.described["requestBody"]["content"]["application/json"]["schema"];
        if !schema.is_object() {
            continue;
        }
        let bodies = surprised(&document, schema);
        assert!(!bodies.is_empty(), "{id} takes JSON without an object");
        for body in bodies {
            let caller = callers.for_operation(id);
            let (status, text) = said(ask(caller, &operation, &path_of(&operation), Some(&body)).await).await;
            if is_lenient(id, Part::Body) {
                assert!(!text.contains(SURPRISE), "{id}: {text}");
                continue;
            }
            assert_eq!(status, 400, "{id} takes {body}: {text}");
            assert!(text.contains(SURPRISE), "{id} says of {body}: {text}");
            looked_at += 1;
        }
    }
    assert!(looked_at > 30, "{looked_at}");
}

#[test]
fn the_document_says_of_every_body_whether_more_may_be_in_it() {
    let document = Document::new();
    for operation in document.operations() {
        let schema = &operation.described["requestBody"]["content"]["application/json"]["schema"];
        let lenient = is_lenient(operation.id, Part::Body);
        for object in objects(&document, schema) {
            let closed = object["additionalProperties"] == false;
            assert_eq!(closed, !lenient, "{}: {object:#}", operation.id);
        }
    }
}

#[test]
fn what_takes_more_than_it_knows_is_there_and_says_why() {
    let document = Document::new();
    for (id, _, reason) in LENIENT {
        assert!(document.operations().any(|operation| operation.id == id), "{id}");
        assert!(reason.len() > 20, "{id}: {reason}");
    }
}

// ---- the inputs that were reported ----

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_ended_by_a_misspelling() {
    let server = Server::start().await;
    let operator = server.operator().await;
    let agents = [operator.connect(json!({ "hostname": "laptop" })).await, operator.connect(json!({})).await];
    let sessions = format!("/api/v1/applications/{}/sessions", agents[0].application);
    let all = json!({ "filter": { "organization": true } });
    let laptop = json!({ "filter": { "hostnme": "laptop" } });
    let wrong = [
        (Method::DELETE, format!("{sessions}?hostnme=laptop"), None, "hostnme", "hostname"),
        (Method::DELETE, format!("{sessions}?dryrun=true"), None, "dryrun", "dryRun"),
        (Method::DELETE, format!("{}?dryRun=true", agents[0].path()), None, "dryRun", ""),
        (Method::POST, "/api/v1/revocations?dryrun=true".to_owned(), Some(&all), "dryrun", "dryRun"),
        (Method::POST, "/api/v1/revocations?dry_run=true".to_owned(), Some(&all), "dry_run", "dryRun"),
        (Method::POST, "/api/v1/revocations".to_owned(), Some(&laptop), "hostnme", "hostname"),
        (Method::GET, format!("{sessions}?hostnme=laptop"), None, "hostnme", "hostname"),
        (Method::GET, "/api/v1/events?principal=x".to_owned(), None, "principal", ""),
        (Method::GET, format!("{sessions}/count?limit=1"), None, "limit", ""),
        (Method::GET, format!("{sessions}?Status=all"), None, "Status", "status"),
    ];
    for (method, path, body, name, meant) in wrong {
        let response = operator.send(method, &path, body).await;
        assert_eq!(response.status(), 400, "{path}");
        let problem: Value = response.json().await.unwrap();
        let (field, message) = (problem["field"].as_str().unwrap(), problem["message"].as_str().unwrap());
        assert!(field.rsplit('.').next() == Some(name), "{path}: {problem}");
        assert!(message.contains(&format!("`{name}`")), "{path}: {message}");
        let hint = format!("did you mean `{meant}`?");
        assert_eq!(message.contains("did you mean"), !meant.is_empty(), "{path}: {message}");
        assert!(meant.is_empty() || message.contains(&hint), "{path}: {message}");
    }
    for agent in &agents {
        assert_eq!(agent.call("heartbeat").await.0, 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_no_right_learns_nothing_of_what_would_have_been_wrong() {
    let server = Server::start().await;
    let path = "/api/v1/revocations?dryrun=true";
    let body = json!({ "filter": { "organization": true } });
    assert_eq!(server.stranger().post(path, body.clone()).await.0, 401);
    let agent = server.holder(server.token("mcp:invoke").await);
    assert_eq!(agent.post(path, body).await.0, 403);
}

// ---- bodies with one member too many ----

/// A schema, with references followed and null left out of choices: each choice for itself.
fn choices<'a>(document: &'a Document, schema: &'a Value) -> Vec<&'a Value> {
    if let Some(reference) = schema["$ref"].as_str() {
        return choices(document, document.0.pointer(&reference[1..]).unwrap());
    }
    match schema["oneOf"].as_array().or(schema["anyOf"].as_array()) {
        Some(all) => all.iter().flat_map(|one| choices(document, one)).collect(),
        None if schema["type"] == "null" => vec![],
        None => vec![schema],
    }
}

/// Every object with members of its own that a schema describes.
fn objects<'a>(document: &'a Document, schema: &'a Value) -> Vec<&'a Value> {
    let mut all = vec![];
    for choice in choices(document, schema) {
        all.extend(
            choice["items"].is_object().then(|| objects(document, &choice["items"])).into_iter().flatten(),
        );
        if let Some(members) = choice["properties"].as_object() {
            all.push(choice);
            all.extend(members.values().flat_map(|member| objects(document, member)));
        }
    }
    all
}

/// Something that is as a schema says.
fn sample(document: &Document, schema: &Value) -> Value {
    let Some(choice) = choices(document, schema).first().copied() else { return Value::Null };
    of_choice(document, choice)
}

fn of_choice(document: &Document, choice: &Value) -> Value {
    if let Some(listed) = choice["enum"].as_array().and_then(|all| all.first()) {
        return listed.clone();
    }
    let kind = match &choice["type"] {
        Value::Array(all) => all.iter().find(|one| *one != "null").and_then(Value::as_str),
        one => one.as_str(),
    };
    match (kind.unwrap_or("object"), choice["format"].as_str()) {
        ("string", Some("uuid")) => json!(SOMEBODY),
        ("string", Some("date-time")) => json!("2026-11-30T00:00:00Z"),
        ("string", _) => json!("x"),
        ("integer" | "number", _) => json!(1),
        ("boolean", _) => json!(true),
        ("array", _) => json!([sample(document, &choice["items"])]),
        _ => Value::Object(members(document, choice)),
    }
}

fn members(document: &Document, object: &Value) -> Map<String, Value> {
    let properties = object["properties"].as_object().into_iter().flatten();
    properties.map(|(name, member)| (name.clone(), sample(document, member))).collect()
}

/// Samples of a schema, each with one member too many, in each of its objects.
fn surprised(document: &Document, schema: &Value) -> Vec<Value> {
    let mut all = vec![];
    for choice in choices(document, schema) {
        if choice["items"].is_object() {
            all.extend(surprised(document, &choice["items"]).into_iter().map(|item| json!([item])));
        }
        let Some(properties) = choice["properties"].as_object() else { continue };
        let mut whole = members(document, choice);
        whole.insert(SURPRISE.to_owned(), json!(1));
        all.push(Value::Object(whole));
        for (name, member) in properties {
            for inner in surprised(document, member) {
                let mut whole = members(document, choice);
                whole.insert(name.clone(), inner);
                all.push(Value::Object(whole));
            }
        }
    }
    all
}
