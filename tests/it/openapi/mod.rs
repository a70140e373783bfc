//! The document of the API: the file holds it, the service keeps to it, and generators make clients of it.

pub mod document;
mod generated;
mod names;
mod size;
mod tried;

use std::collections::{BTreeMap, BTreeSet};

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{CLIENT_ID, CLIENT_SECRET, Holder, Server};
use crate::terminal::sshd::{Sshd, user};
use document::{Document, Operation, ask, filled};

const UNKNOWN: &str = "44444444-4444-4444-8444-444444444444";

// ---- the document by itself ----

#[test]
fn openapi_yaml_is_what_the_code_says() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/openapi.yaml");
    let file = std::fs::read_to_string(path).unwrap_or_default();
    let code = sessiond::http::openapi_yaml();
    let differs = file.lines().zip(code.lines()).position(|(file, code)| file != code);
    assert!(
        file == code,
        "openapi.yaml is not what the code says, from line {differs:?} on; write it: make openapi"
    );
    assert!(code.ends_with('\n') && !code.ends_with("\n\n"));
}

#[test]
fn every_operation_says_what_it_is_and_whoever_reads_it_finds_what_it_names() {
    let document = Document::new();
    let tags: BTreeSet<&str> =
        document.0["tags"].as_array().unwrap().iter().map(|tag| tag["name"].as_str().unwrap()).collect();
    let mut used = BTreeSet::new();
    let mut ids = BTreeSet::new();
    for Operation { id, described, path, .. } in document.operations() {
        assert!(ids.insert(id), "{id} is there twice");
        assert!(
            described["summary"].as_str().is_some_and(|summary| !summary.ends_with('.')),
            "{id}: summary"
        );
        let tag = described["tags"][0].as_str().unwrap();
        assert!(tags.contains(tag), "{id}: {tag}");
        used.insert(tag);
        assert!(described["security"].is_array(), "{id} does not say who may");
        let parameters = described["parameters"].as_array().cloned().unwrap_or_default();
        let named = |place: &str| parameters.iter().filter(|one| one["in"] == place).count();
        assert_eq!(named("path"), path.matches('{').count(), "{id}");
        for thing in parameters.iter().chain(described["responses"].as_object().unwrap().values()) {
            let text = thing["description"].as_str().unwrap_or_default();
            assert!(text.ends_with(['.', '`']), "{id}: {thing}");
        }
    }
    assert_eq!(used, tags, "tags that no operation has");
    let text = document.0.to_string();
    for kind in ["schemas", "securitySchemes"] {
        for name in document.0["components"][kind].as_object().unwrap().keys() {
            let uses = [format!("#/components/{kind}/{name}\""), format!("{{\"{name}\":[]}}")];
            assert!(uses.iter().any(|used| text.contains(used)), "nothing uses {name}");
        }
    }
}

#[test]
fn operations_that_need_no_credential_are_these() {
    let document = Document::new();
    let by_scheme = document.operations().fold(BTreeMap::<String, Vec<&str>>::new(), |mut all, operation| {
        let scheme = operation.described["security"].to_string();
        all.entry(scheme).or_default().push(operation.id);
        all
    });
    let open = &by_scheme["[{}]"];
    assert_eq!(open, &["oauth.authorizationServer", "service.live", "service.ready"]);
    assert_eq!(by_scheme["[{\"client\":[]}]"], ["oauth.token"]);
    let either = &by_scheme["[{\"client\":[]},{\"bearer\":[]}]"];
    assert_eq!(either, &["oauth.introspect", "oauth.revoke"]);
    assert_eq!(by_scheme["[{\"hookSignature\":[]}]"], ["media.callHook"]);
    let media = &by_scheme["[{\"accessToken\":[]}]"];
    assert!(media.iter().all(|id| id.starts_with("media.")), "{media:?}");
    assert!(by_scheme["[{\"apiKey\":[]}]"].iter().all(|id| id.starts_with("workloads.")));
    let terminals = &by_scheme["[{\"terminalKey\":[]}]"];
    assert!(terminals.iter().all(|id| id.starts_with("terminals.")), "{terminals:?}");
    assert_eq!(by_scheme.len(), 8, "{by_scheme:?}");
}

// ---- the document and the service ----

#[tokio::test(flavor = "multi_thread")]
async fn every_operation_with_security_answers_strangers_with_401() {
    let server = Server::with(&["--trusted-proxy", "127.0.0.0/8"]).await;
    let document = Document::new();
    let closed = document.operations().filter(|operation| operation.described["security"] != json!([{}]));
    for (number, operation) in closed.enumerate() {
        let path = filled(operation.path, &[], UNKNOWN);
        // From one address there are only so many failures.
        let from = format!("198.51.100.{number}").parse().unwrap();
        let headers = [("x-forwarded-for".parse().unwrap(), from)].into_iter().collect();
        let http = reqwest::Client::builder().default_headers(headers).build().unwrap();
        let stranger = Holder { http, ..server.stranger() };
        let response = ask(&stranger, &operation, &path, None).await;
        assert_eq!(response.status(), 401, "{}", operation.id);
        assert!(response.headers().contains_key("www-authenticate"), "{}", operation.id);
        document.check(&operation, response).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_refusal_is_described() {
    let server = Server::start().await;
    let document = Document::new();
    let operator = server.operator().await;
    let platform = server.holder(server.token("platform:admin").await);
    let key = json!({ "name": "x", "scopes": ["mcp:invoke"], "user": { "id": "u-1" } });
    let (_, key) = operator.post("/api/v1/api-keys", key).await;
    let person = server.holder(key["key"].as_str().unwrap());
    let (_, key) = operator.post("/api/v1/api-keys", json!({ "name": "x", "scopes": ["session"] })).await;
    let cluster = server.holder(key["key"].as_str().unwrap());
    let nothing = server.holder({
        let oauth = json!({ "type": "confidential", "redirectUris": [], "scopes": [] });
        let (_, made) = operator.post("/api/v1/applications", json!({ "name": "x", "oauth": oauth })).await;
        let text = |field: &str| made["oauth"][field].as_str().unwrap().to_owned();
        server.token_for(&text("clientId"), &text("clientSecret"), "").await
    });
    let [media, terminal] = ["media", "terminal"].map(|scope| json!({ "name": "x", "scopes": [scope] }));
    let (_, key) = operator.post("/api/v1/api-keys", media).await;
    let media = server.holder(key["key"].as_str().unwrap());
    let (_, key) = operator.post("/api/v1/api-keys", terminal).await;
    let terminal = server.holder(key["key"].as_str().unwrap());
    let body = json!({ "name": "made", "url": "http://127.0.0.1:4000/mcp" });
    for operation in document.operations().filter(|operation| operation.described["security"] != json!([{}]))
    {
        let id = operation.id;
        let known = filled(operation.path, &[], UNKNOWN);
        if id != "oauth.token" {
            let response = ask(&nothing, &operation, &known, None).await;
            assert_eq!(response.status(), if id == "media.callHook" { 401 } else { 403 }, "{id}");
            document.check(&operation, response).await;
        }
        // Who may ask is looked at before what is asked for.
        let operator = match id.split('.').next().unwrap() {
            "organizations" | "nodes" => &platform,
            "me" => &person,
            "media" => &media,
            "workloads" => &cluster,
            "terminals" => &terminal,
            _ => &operator,
        };
        if operation.path.contains('{') {
            let response = ask(operator, &operation, &filled(operation.path, &[], "nonsense"), None).await;
            let status = response.status();
            match id.split('.').next().unwrap() {
                // There names are free: what is not there is not found, or made.
                "media" => {}
                // There an id that cannot be one is the id of nothing.
                "terminals" => assert_eq!(status, 404, "{id}"),
                _ => assert_eq!(status, 400, "{id}"),
            }
            document.check(&operation, response).await;
            let response = ask(operator, &operation, &known, Some(&body)).await;
            document.check(&operation, response).await;
        }
        let parameters = operation.described["parameters"].as_array().into_iter().flatten();
        let wrong =
            [("limit", "0"), ("status", "x"), ("types", "x"), ("cursor", "x"), ("includeArchived", "x")];
        let taken: Vec<_> = parameters
            .filter_map(|one| wrong.iter().find(|(name, _)| one["in"] == "query" && one["name"] == *name))
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        let query = format!("{known}?{}", taken.join("&"));
        document.check(&operation, ask(operator, &operation, &query, Some(&json!([]))).await).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_path_takes_the_methods_that_are_described_and_no_others() {
    let server = Server::start().await;
    let document = Document::new();
    let operator = server.operator().await;
    let mut paths: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for operation in document.operations() {
        let methods = paths.entry(operation.path).or_default();
        methods.insert(operation.method.to_string());
        if operation.method == Method::GET {
            methods.insert("HEAD".to_owned());
        }
    }
    let key = json!({ "name": "x", "scopes": ["media"] });
    let key = operator.post("/api/v1/api-keys", key).await.1["key"].as_str().unwrap().to_owned();
    for (path, described) in paths {
        let trace = Method::from_bytes(b"PROPFIND").unwrap();
        let terminals = ["/v1/machines", "/v1/sessions"].iter().any(|prefix| path.starts_with(prefix));
        if path.starts_with("/v1/") && !terminals {
            // As in OvenMediaEngine, where nothing but 404 is said of it.
            let request = server.http.request(trace, server.url(&filled(path, &[], UNKNOWN)));
            let response = request.header("authorization", crate::media::basic(&key)).send().await.unwrap();
            assert_eq!(response.status(), 404, "{path}");
            continue;
        }
        let response = operator.send(trace, &filled(path, &[], UNKNOWN), None).await;
        assert_eq!(response.status(), 405, "{path}");
        let allowed = response.headers()["allow"].to_str().unwrap().split(',');
        assert_eq!(
            allowed.map(|method| method.trim().to_owned()).collect::<BTreeSet<_>>(),
            described,
            "{path}"
        );
    }
}

/// Asks for operations by id and holds every answer against the document.
struct Walk<'a> {
    document: &'a Document,
    ids: Vec<(&'static str, String)>,
    seen: BTreeSet<String>,
}

impl Walk<'_> {
    async fn go(&mut self, holder: &Holder, id: &str, body: Option<Value>, status: u16) -> Value {
        let document = self.document;
        let operation = document.operation(id);
        let ids: Vec<_> = self.ids.iter().map(|(name, id)| (*name, id.as_str())).collect();
        let response = ask(holder, &operation, &filled(operation.path, &ids, UNKNOWN), body.as_ref()).await;
        assert_eq!(response.status(), status, "{id}");
        self.seen.insert(id.to_owned());
        document.check(&operation, response).await
    }

    fn at(&mut self, name: &'static str, id: &Value) {
        self.ids.retain(|(known, _)| *known != name);
        self.ids.push((name, id.as_str().unwrap().to_owned()));
    }
}

/// The media surface, from a stream's declaration to a session's end, and a hook.
async fn walk_media(walk: &mut Walk<'_>, server: &Server, operator: &Holder) {
    let key = json!({ "name": "walk", "scopes": ["media"] });
    let key = walk.go(operator, "apiKeys.create", Some(key), 201).await;
    let media = server.holder(key["key"].as_str().unwrap());
    for (name, value) in [("vhost", "default"), ("app", "app"), ("stream", "stream"), ("session", "one")] {
        walk.at(name, &json!(value));
    }
    for id in ["sessionStatistics", "streamStatistics", "appStatistics", "vhostStatistics", "reportApp"] {
        walk.go(&media, &format!("media.{id}"), Some(json!([])), 404).await;
    }
    walk.go(&media, "media.declareStream", None, 201).await;
    walk.go(&media, "media.declareStream", None, 200).await;
    for id in ["listVhosts", "listApps", "listStreams", "listSessions"] {
        walk.go(&media, &format!("media.{id}"), None, 200).await;
    }
    walk.go(&media, "media.terminateSession", None, 404).await;
    let one = json!({ "name": "one", "client": { "address": "192.0.2.7" }, "lifetime": 0 });
    walk.go(&media, "media.createSessions", Some(json!([])), 200).await;
    walk.go(&media, "media.createSessions", Some(one.clone()), 201).await;
    walk.go(&media, "media.createSessions", Some(one.clone()), 409).await;
    walk.go(&media, "media.createSessions", Some(json!([one, { "name": "two" }])), 207).await;
    walk.go(&media, "media.createSessions", Some(json!([one, one])), 409).await;
    walk.go(&media, "media.createSessions", Some(json!([{ "name": "three" }])), 201).await;
    walk.go(&media, "media.createSessions", Some(json!({ "name": 1 })), 400).await;
    let reading = json!({ "stream": "stream", "session": "one", "totalBytesOut": 1 });
    for id in ["media.reportSession", "media.reportStream", "media.reportApp"] {
        walk.go(&media, id, Some(reading.clone()), 200).await;
        walk.go(&media, id, Some(json!({})), 400).await;
    }
    for id in ["media.reportStream", "media.reportApp"] {
        let unknown = json!({ "stream": "stream", "session": "x", "totalBytesOut": 1 });
        walk.go(&media, id, Some(json!([reading, reading])), 200).await;
        walk.go(&media, id, Some(json!([reading, unknown])), 207).await;
        walk.go(&media, id, Some(json!([unknown])), 404).await;
        walk.go(&media, id, Some(unknown), 404).await;
    }
    for id in [
        "sessionStatistics",
        "streamStatistics",
        "appStatistics",
        "vhostStatistics",
        "throughput",
        "currentThroughput",
        "streamThroughput",
        "appThroughput",
        "vhostThroughput",
    ] {
        walk.go(&media, &format!("media.{id}"), None, 200).await;
    }
    walk.go(&media, "media.terminateSession", None, 200).await;
    let hook = json!({ "name": "walk", "secret": "a-secret-for-a-walk" });
    let made = walk.go(operator, "hooks.create", Some(hook), 201).await;
    walk.at("hookId", &made["hook"]["id"]);
    walk.go(operator, "hooks.list", None, 200).await;
    walk.go(operator, "hooks.get", None, 200).await;
    walk_hook(walk, server).await;
    walk.go(operator, "hooks.rotateSecret", Some(json!({})), 200).await;
    walk.go(operator, "hooks.delete", None, 204).await;
    walk.go(operator, "hooks.get", None, 404).await;
}

/// The calls of a media server, signed.
async fn walk_hook(walk: &mut Walk<'_>, server: &Server) {
    let operation = walk.document.operation("media.callHook");
    let ids: Vec<_> = walk.ids.iter().map(|(name, id)| (*name, id.as_str())).collect();
    let path = filled(operation.path, &ids, UNKNOWN);
    for (url, status) in [("ws://host/app/stream", 200), ("nonsense", 200), ("", 400)] {
        let mut request = json!({ "direction": "outgoing", "status": "opening", "url": url });
        if status == 400 {
            request = json!({});
        }
        let body = json!({ "client": { "address": "192.0.2.7", "port": 1 }, "request": request }).to_string();
        let signature = crate::media::signature("a-secret-for-a-walk", body.as_bytes());
        let request = server.http.post(server.url(&path)).header("X-OME-Signature", signature).body(body);
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), status, "{url}");
        walk.document.check(&operation, response).await;
    }
    walk.seen.insert("media.callHook".to_owned());
}

/// The terminal surface, from a machine to the end of a session on it.
async fn walk_terminals(walk: &mut Walk<'_>, operator: &Holder) {
    let sshd = Sshd::start();
    let key = json!({ "name": "walk", "scopes": ["terminal"] });
    let key = walk.go(operator, "apiKeys.create", Some(key), 201).await;
    let own = Holder { token: key["key"].as_str().map(str::to_owned), ..operator.clone() };
    let credential = json!({ "type": "private_key", "private_key": sshd.pem("user") });
    let machine = json!({
        "name": "walk", "host": "127.0.0.1", "port": sshd.port, "user": user(), "credential": credential,
    });
    let made = walk.go(&own, "terminals.createMachine", Some(machine), 201).await;
    walk.at("machineId", &made["data"]["id"]);
    let session = json!({ "machine_id": made["data"]["id"], "terminal_size": { "cols": 120, "rows": 40 } });
    walk.go(&own, "terminals.createSession", Some(session.clone()), 409).await;
    walk.go(&own, "terminals.testMachine", Some(json!({})), 200).await;
    walk.go(&own, "terminals.testMachine", Some(json!({ "pin_host_key": true })), 200).await;
    for id in ["listMachines", "getMachine", "statistics", "listSessions"] {
        walk.go(&own, &format!("terminals.{id}"), None, 200).await;
    }
    let opened = walk.go(&own, "terminals.createSession", Some(session), 201).await;
    walk.at("sessionId", &opened["data"]["session_id"]);
    walk.go(&own, "terminals.createViewer", None, 201).await;
    for id in ["listSessions", "getSession", "getLogs", "getRecording", "terminateSession"] {
        walk.go(&own, &format!("terminals.{id}"), None, 200).await;
    }
    walk.go(&own, "terminals.terminateSession", None, 409).await;
    walk.go(&own, "terminals.createViewer", None, 409).await;
    walk.go(&own, "terminals.getSession", None, 200).await;
    walk.go(&own, "terminals.searchCommands", None, 400).await;
    let other = json!({ "host_key": sshd.public("other_host") });
    walk.go(&own, "terminals.updateMachine", Some(other), 200).await;
    walk.go(&own, "terminals.testMachine", Some(json!({})), 502).await;
    walk.go(&own, "terminals.deleteMachine", None, 200).await;
    walk.go(&own, "terminals.deleteMachine", None, 404).await;
}

/// One whose deliveries fail before they leave: a name of this machine has no address that is allowed.
async fn walk_webhooks(walk: &mut Walk<'_>, server: &Server, operator: &Holder) {
    let webhook = json!({ "url": "https://localhost:1/", "types": ["connected"], "description": "walked" });
    let made = walk.go(operator, "webhooks.create", Some(webhook), 201).await;
    walk.at("webhookId", &made["webhook"]["id"]);
    walk.go(operator, "webhooks.list", None, 200).await;
    walk.go(operator, "webhooks.get", None, 200).await;
    walk.go(operator, "webhooks.test", None, 200).await;
    walk.go(operator, "webhooks.rotateSecret", None, 200).await;
    operator.connect(json!({})).await;
    let path = format!("/api/v1/webhooks/{}/deliveries", made["webhook"]["id"].as_str().unwrap());
    let position = async || operator.get(&path).await.1["items"][0]["position"].as_i64();
    server.until("a delivery", async || position().await.is_some()).await;
    walk.at("position", &json!(position().await.unwrap().to_string()));
    walk.go(operator, "webhooks.deliveries", None, 200).await;
    walk.go(operator, "webhooks.resend", None, 202).await;
    walk.go(operator, "webhooks.update", Some(json!({ "enabled": false })), 200).await;
    walk.go(operator, "webhooks.resend", None, 409).await;
    walk.go(operator, "webhooks.delete", None, 204).await;
}

async fn walk_workloads(walk: &mut Walk<'_>, server: &Server, operator: &Holder) {
    let key = json!({ "name": "cluster", "scopes": ["session"] });
    let (_, key) = operator.post("/api/v1/api-keys", key).await;
    let cluster = server.holder(key["key"].as_str().unwrap());
    for kind in ["Webui", "Task"] {
        let new = json!({ "app": { "name": "walk", "version": "1" }, "owner": "ada", "environment": "test" });
        for ends in ["end", "delete", "terminate"] {
            let made =
                walk.go(&cluster, &format!("workloads.create{kind}Session"), Some(new.clone()), 201).await;
            walk.at("session_id", &made["id"]);
            if ends != "end" {
                walk.go(&cluster, &format!("workloads.{ends}{kind}Session"), None, 204).await;
                walk.go(&cluster, &format!("workloads.{ends}{kind}Session"), None, 409).await;
                continue;
            }
            let lines = json!({ "lines": [{ "text": "walked", "level": "info" }, { "text": "on" }] });
            walk.go(&cluster, &format!("workloads.log{kind}Session"), Some(lines), 201).await;
            walk.go(&cluster, &format!("workloads.heartbeat{kind}Session"), None, 200).await;
            for logs in ["get", "list", "download"] {
                walk.go(&cluster, &format!("workloads.{logs}{kind}Logs"), None, 200).await;
            }
            if kind == "Task" {
                walk.go(&cluster, "workloads.changeTaskState", Some(json!({ "state": "running" })), 200)
                    .await;
                walk.go(&cluster, "workloads.changeTaskState", Some(json!({ "state": "queued" })), 409).await;
            }
            let end = json!({ "state": "terminated" });
            walk.go(&cluster, &format!("workloads.end{kind}Session"), Some(end), 200).await;
            walk.go(&cluster, &format!("workloads.heartbeat{kind}Session"), None, 410).await;
        }
        walk.go(&cluster, &format!("workloads.get{kind}Session"), None, 200).await;
        walk.go(&cluster, &format!("workloads.list{kind}Sessions"), None, 200).await;
    }
    let beats = json!({ "sessions": [UNKNOWN, "nonsense"] });
    walk.go(&cluster, "workloads.heartbeats", Some(beats), 200).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_operation_answers_as_it_is_described() {
    let server = Server::start().await;
    let document = Document::new();
    let mut walk = Walk { document: &document, ids: vec![], seen: BTreeSet::new() };
    let (operator, stranger) = (server.operator().await, server.stranger());
    let client =
        json!({ "grant_type": "client_credentials", "client_id": CLIENT_ID, "client_secret": CLIENT_SECRET });
    walk.go(&stranger, "oauth.token", Some(client), 200).await;
    for id in ["oauth.authorizationServer", "service.live", "service.ready"] {
        walk.go(&stranger, id, None, 200).await;
    }
    walk.go(&operator, "policy.get", None, 200).await;

    let made = walk.go(&operator, "applications.create", Some(json!({ "name": "walk" })), 201).await;
    walk.at("applicationId", &made["application"]["id"]);
    walk.go(&operator, "applications.list", None, 200).await;
    walk.go(&operator, "applications.update", Some(json!({ "description": "walked" })), 200).await;
    walk.go(&operator, "applications.setUpstream", Some(json!({ "url": "http://127.0.0.1:4000/mcp" })), 200)
        .await;
    walk.go(&operator, "applications.get", None, 200).await;
    walk.go(&operator, "applications.rotateSecret", None, 200).await;

    let client =
        |token: &str| json!({ "token": token, "client_id": CLIENT_ID, "client_secret": CLIENT_SECRET });
    let spare = server.token("mcp:invoke").await;
    walk.go(&stranger, "oauth.introspect", Some(client(&spare)), 200).await;
    walk.go(&stranger, "oauth.revoke", Some(client(&spare)), 200).await;
    walk.go(&stranger, "oauth.introspect", Some(client(&spare)), 200).await;

    let user = json!({ "id": "u-1", "name": "Ada", "email": "ada@example.com" });
    let key = json!({ "name": "walk", "scopes": ["mcp:invoke"], "user": user });
    let key = walk.go(&operator, "apiKeys.create", Some(key), 201).await;
    walk.at("apiKeyId", &key["apiKey"]["id"]);
    walk.at("principalId", &key["apiKey"]["user"]["principalId"]);
    let person = server.holder(key["key"].as_str().unwrap());
    let mine = json!({ "applicationId": made["application"]["id"] });
    let mine = walk.go(&person, "agent.create", Some(mine), 201).await;
    walk.at("sessionId", &mine["id"]);
    for id in ["me.sessions", "me.session", "me.endSession"] {
        walk.go(&person, id, None, 200).await;
    }
    for id in
        ["principals.list", "principals.get", "principals.disable", "principals.enable", "principals.erase"]
    {
        walk.go(&operator, id, None, 200).await;
    }
    let issuer = json!({
        "issuer": "https://issuer.example", "audience": "a", "algorithms": ["ES256"], "scopes": ["mcp:invoke"],
    });
    walk.go(&operator, "issuers.set", Some(json!({ "issuers": [issuer] })), 200).await;
    walk.go(&operator, "issuers.get", None, 200).await;
    walk.go(&operator, "retention.set", Some(json!({ "endedAfter": 86_400, "journalsAfter": null })), 200)
        .await;
    walk.go(&operator, "retention.get", None, 200).await;
    walk.go(&operator, "apiKeys.list", None, 200).await;
    walk.go(&operator, "apiKeys.get", None, 200).await;
    walk.go(&operator, "apiKeys.rotateSecret", Some(json!({})), 200).await;
    walk.go(&operator, "apiKeys.revoke", None, 204).await;

    let platform = server.holder(server.token("platform:admin").await);
    let name = json!({ "name": "walk" });
    let founded = walk.go(&platform, "organizations.create", Some(name.clone()), 201).await;
    walk.at("organizationId", &founded["organization"]["id"]);
    walk.go(&platform, "organizations.list", None, 200).await;
    walk.go(&platform, "nodes.list", None, 200).await;
    walk.go(&platform, "organizations.get", None, 200).await;
    walk.go(&platform, "organizations.update", Some(name), 200).await;

    let account = walk.go(&operator, "serviceAccounts.create", Some(json!({ "name": "walk" })), 201).await;
    walk.at("serviceAccountId", &account["serviceAccount"]["id"]);
    walk.go(&operator, "serviceAccounts.list", None, 200).await;
    walk.go(&operator, "serviceAccounts.get", None, 200).await;
    walk.go(&operator, "serviceAccounts.rotateSecret", None, 200).await;
    walk.go(&operator, "serviceAccounts.archive", None, 204).await;

    walk_webhooks(&mut walk, &server, &operator).await;
    walk_media(&mut walk, &server, &operator).await;
    walk_workloads(&mut walk, &server, &operator).await;
    walk_terminals(&mut walk, &operator).await;

    let session = json!({
        "applicationId": made["application"]["id"], "clientSessionId": "one", "hostname": "host",
        "clientInfo": { "name": "walker", "version": "1", "more": [1, 2] },
    });
    walk.go(&operator, "agent.create", Some(session.clone()), 201).await;
    let opened = walk.go(&operator, "agent.create", Some(session), 200).await;
    walk.at("sessionId", &opened["id"]);
    let agent = server.holder(opened["token"].as_str().unwrap());
    walk.go(&agent, "agent.heartbeat", None, 200).await;
    walk.go(&agent, "agent.activity", Some(json!({ "requests": 2, "bytesIn": 1, "bytesOut": 3 })), 200).await;
    walk.go(&agent, "agent.events", None, 200).await;
    walk.go(&operator, "agentSessions.events", None, 200).await;
    let renewed = walk.go(&agent, "agent.renew", None, 200).await;
    let agent = server.holder(renewed["token"].as_str().unwrap());
    for id in [
        "agentSessions.list",
        "agentSessions.count",
        "agentSessions.get",
        "agentSessions.history",
        "agentSessions.export",
        "agentSessions.exportHistory",
        "sessions.export",
        "events.export",
        "agentSessions.suspend",
        "agentSessions.resume",
        "sessions.list",
        "sessions.count",
        "statistics.get",
        "statistics.ofApplication",
        "events.list",
        "agentInstances.list",
        "agentInstances.get",
        "applications.getPolicy",
    ] {
        walk.go(&operator, id, None, 200).await;
    }
    let reports =
        json!({ "items": [{ "sessionId": opened["id"], "requests": 1 }, { "sessionId": UNKNOWN }] });
    walk.go(&operator, "agent.activityMany", Some(reports), 200).await;
    let policy = json!({ "preset": "aal2", "maxPerPrincipal": 9, "onLimit": "evict-oldest" });
    walk.go(&operator, "applications.setPolicy", Some(policy), 200).await;
    let filter = json!({ "hostname": "nowhere" });
    let dry = json!({ "filter": filter, "dryRun": true });
    walk.go(&operator, "revocations.create", Some(dry), 200).await;
    let revoked = walk.go(&operator, "revocations.create", Some(json!({ "filter": filter })), 201).await;
    walk.at("revocationId", &revoked["revocation"]["id"]);
    walk.go(&operator, "revocations.get", None, 200).await;
    walk.go(&operator, "revocations.list", None, 200).await;
    let key = json!({ "name": "bystander", "scopes": ["mcp:invoke"], "user": { "id": "u-2" } });
    let (_, key) = operator.post("/api/v1/api-keys", key).await;
    let bar = json!({ "principal": key["apiKey"]["user"]["principalId"], "message": "room 12" });
    let placed = walk.go(&operator, "bars.place", Some(bar), 201).await;
    walk.at("barId", &placed["bar"]["id"]);
    for id in ["bars.get", "bars.list", "bars.lift"] {
        walk.go(&operator, id, None, 200).await;
    }
    let nightly = json!({
        "name": "nightly", "filter": filter, "cron": "0 3 * * *", "timeZone": "Europe/Berlin", "bar": true,
        "until": "2099-01-01T00:00:00Z", "message": "room 12",
    });
    let scheduled = walk.go(&operator, "scheduledRevocations.create", Some(nightly), 201).await;
    walk.at("scheduledRevocationId", &scheduled["scheduledRevocation"]["id"]);
    for id in ["list", "get", "pause", "resume"] {
        walk.go(&operator, &format!("scheduledRevocations.{id}"), None, 200).await;
    }
    walk.go(&operator, "scheduledRevocations.delete", None, 204).await;
    walk.go(&operator, "agentSessions.terminate", None, 200).await;
    walk.go(&agent, "agent.disconnect", None, 200).await;
    walk.go(&operator, "agentSessions.get", None, 200).await;
    walk.go(&operator, "agent.heartbeat", None, 410).await;

    // Revoking bars the token that was presented, so the last words are the operator's management ones.
    walk.go(&operator, "agentSessions.revoke", None, 200).await;
    walk.go(&operator, "agentInstances.revoke", None, 204).await;
    walk.go(&operator, "agentSessions.revokeAll", None, 200).await;
    walk.go(&operator, "agentInstances.revokeAll", None, 204).await;
    walk.go(&operator, "applications.archive", None, 204).await;

    let all: BTreeSet<String> = document.operations().map(|operation| operation.id.to_owned()).collect();
    assert_eq!(walk.seen, all, "each operation was asked for once at least");
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_are_problems_for_those_who_ask_for_problems() {
    let server = Server::start().await;
    let document = Document::new();
    let operation = document.operation("applications.get");
    let path = filled(operation.path, &[], UNKNOWN);
    let request =
        server.http.get(server.url(&path)).header("accept", "application/problem+json, application/json");
    let response = request.send().await.unwrap();
    assert_eq!(response.headers()["content-type"], "application/problem+json");
    document.check(&operation, response).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_service_gives_its_document_to_whoever_asks() {
    let server = Server::start().await;
    let get = async |path: &str| {
        let response = server.http.get(server.url(path)).send().await.unwrap();
        assert_eq!(response.status(), 200, "{path}");
        let media_type = response.headers()["content-type"].to_str().unwrap().to_owned();
        (media_type, response.text().await.unwrap())
    };
    assert_eq!(get("/openapi.yaml").await, ("application/yaml".to_owned(), sessiond::http::openapi_yaml()));
    for path in ["/openapi.json", "/api/openapi.json"] {
        let (media_type, text) = get(path).await;
        assert_eq!(media_type, "application/json");
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), Document::new().0, "{path}");
    }
}
