//! Whose a session is: every operation on one, asked by a person with an API key and with a JWT, about the own session,
//! another person's of the same organization, and another organization's; of every kind.

use std::fmt::Write as _;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::world::{made, text};
use crate::issuers::Provider;
use crate::mcp::House;
use crate::mcp::upstream::Upstream;
use crate::openapi::document::{Document, Operation, ask, filled};
use crate::support::Holder;
use crate::terminal::sshd::{SHELL, Sshd, user};

const KINDS: [&str; 6] = ["agent", "mcp", "media", "webui", "task", "terminal"];
const PLACE: &str = "/v1/vhosts/v/apps/a/streams/s/sessions";

/// By which way an operation asks for a session, and what it wants there.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Wants {
    /// The management surface: reads with its right, ends with another.
    Read,
    End,
    /// A person's own sessions.
    Mine,
    /// The agent side: keeps a session, renews its token, follows its feed.
    Keep,
    Renew,
    Follow,
    /// A surface with kinds of its own: shows or acts.
    Look(&'static [&'static str]),
    Act(&'static [&'static str]),
}

/// What an operation on a session wants. One that nobody thought about fails whatever asks.
fn wants(operation: &str) -> Wants {
    use Wants::*;
    const WEBUI: &[&str] = &["webui"];
    const TASK: &[&str] = &["task"];
    const BOTH: &[&str] = &["webui", "task"];
    const TERMINAL: &[&str] = &["terminal"];
    const MEDIA: &[&str] = &["media"];
    match operation {
        "agentSessions.get"
        | "agentSessions.history"
        | "agentSessions.exportHistory"
        | "agentInstances.get" => Read,
        "agentSessions.revoke"
        | "agentSessions.terminate"
        | "agentSessions.suspend"
        | "agentSessions.resume"
        | "agentInstances.revoke" => End,
        "me.session" | "me.endSession" => Mine,
        "agent.heartbeat" | "agent.activity" | "agent.disconnect" => Keep,
        "agent.renew" => Renew,
        "agent.events" => Follow,
        "workloads.getWebuiSession"
        | "workloads.getWebuiLogs"
        | "workloads.listWebuiLogs"
        | "workloads.downloadWebuiLogs" => Look(WEBUI),
        "workloads.getTaskSession"
        | "workloads.getTaskLogs"
        | "workloads.listTaskLogs"
        | "workloads.downloadTaskLogs" => Look(TASK),
        "workloads.heartbeatWebuiSession"
        | "workloads.endWebuiSession"
        | "workloads.terminateWebuiSession"
        | "workloads.logWebuiSession" => Act(WEBUI),
        "workloads.deleteWebuiSession" => Act(BOTH),
        "workloads.changeTaskState"
        | "workloads.heartbeatTaskSession"
        | "workloads.endTaskSession"
        | "workloads.deleteTaskSession"
        | "workloads.terminateTaskSession"
        | "workloads.logTaskSession" => Act(TASK),
        "terminals.getSession"
        | "terminals.getLogs"
        | "terminals.getRecording"
        | "terminals.createViewer" => Look(TERMINAL),
        "terminals.terminateSession" => Act(TERMINAL),
        "media.sessionStatistics" | "media.throughput" | "media.currentThroughput" => Look(MEDIA),
        "media.terminateSession" | "media.reportSession" => Act(MEDIA),
        other => panic!("say whose session {other} asks for"),
    }
}

/// Whose sessions an operation reaches that a person's credential opens, for the page; nothing where it is on none.
pub fn whose(operation: &Operation<'_>) -> &'static str {
    if !is_on_a_session(operation) {
        return "";
    }
    match wants(operation.id) {
        Wants::Read | Wants::End => "everybody's",
        Wants::Mine => "the own",
        Wants::Keep | Wants::Renew => "the own that are of agents or MCP clients",
        Wants::Follow => "the own that are of agents or MCP clients; everybody's to who reads them",
        Wants::Look(_) => "the own; everybody's to who reads them",
        Wants::Act(_) => "the own",
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Whose {
    Own,
    AnothersOfTheOrganization,
    AnotherOrganizations,
}

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Asks {
    /// With a JWT, else with an API key that has the scopes of every surface.
    jwt: bool,
    /// With `management:sessions:read` too.
    reads: bool,
}

impl Asks {
    /// What the answer is to be: some success, or one of these refusals.
    fn answer(self, wants: Wants, whose: Whose, kind: &str) -> Vec<u16> {
        let own = whose == Whose::Own;
        let sees = own || (self.reads && whose == Whose::AnothersOfTheOrganization);
        let done = vec![200, 201, 204];
        let has_token = matches!(kind, "agent" | "mcp");
        let surface = !self.jwt;
        match wants {
            Wants::Read if !self.reads => vec![403],
            Wants::Read => {
                if sees {
                    done
                } else {
                    vec![404]
                }
            }
            Wants::End => vec![403],
            Wants::Mine => {
                if own {
                    done
                } else {
                    vec![404]
                }
            }
            Wants::Keep if !own => vec![404],
            Wants::Keep => {
                if has_token {
                    done
                } else {
                    vec![403]
                }
            }
            Wants::Renew if !own => vec![404],
            Wants::Renew => {
                if has_token {
                    done
                } else {
                    vec![409]
                }
            }
            Wants::Follow if !sees => vec![404],
            Wants::Follow => {
                if has_token || self.reads {
                    done
                } else {
                    vec![403]
                }
            }
            Wants::Look(_) | Wants::Act(_) if !surface => vec![403],
            Wants::Look(kinds) => {
                if sees && kinds.contains(&kind) {
                    done
                } else {
                    vec![404]
                }
            }
            Wants::Act(kinds) => {
                if own && kinds.contains(&kind) {
                    done
                } else {
                    vec![404]
                }
            }
        }
    }
}

/// A person with what the person may present.
struct Person {
    key: Holder,
    reading_key: Holder,
    jwt: String,
    reading_jwt: String,
}

struct World {
    house: House,
    _upstream: Upstream,
    document: Document,
    machine: String,
    _sshd: Sshd,
    ada: Person,
    bob: Person,
    /// Of another organization, with an application of its own.
    eve: Holder,
    made: std::sync::atomic::AtomicUsize,
}

async fn key(operator: &Holder, user: &str, more: &[&str]) -> Holder {
    let mut scopes = vec!["mcp:invoke", "media", "session", "terminal"];
    scopes.extend(more);
    let body = json!({ "name": user, "scopes": scopes, "user": { "id": user } });
    let made = made(operator, "/api/v1/api-keys", body).await;
    Holder { token: Some(text(&made, "/key")), ..operator.clone() }
}

impl World {
    async fn begin() -> Self {
        let (house, upstream) =
            House::with_fake(&["--issuer-allow-loopback", "--terminal-grace", "1h", "--rate-limit", "0"])
                .await;
        let provider = Provider::start().await;
        let mut trusted = provider.trusted();
        trusted["scopes"] = json!(["mcp:invoke", "management:sessions:read"]);
        let issuers = json!({ "issuers": [trusted] });
        let (status, body) = house.operator.put("/api/v1/organization/issuers", issuers).await;
        assert_eq!(status, 200, "{body}");
        let jwt = |subject: &str, scope: &str| {
            let mut claims = provider.claims(&house.server, subject);
            claims["scope"] = json!(scope);
            claims["exp"] = json!(claims["iat"].as_i64().unwrap() + 36_000);
            provider.sign(&provider.header(), &claims)
        };
        let person = async |name: &str| Person {
            key: key(&house.operator, name, &[]).await,
            reading_key: key(&house.operator, name, &["management:sessions:read"]).await,
            jwt: jwt(name, "mcp:invoke"),
            reading_jwt: jwt(name, "mcp:invoke management:sessions:read"),
        };
        let (ada, bob) = (person("ada").await, person("bob").await);
        let sshd = Sshd::with(&["host_ed25519"], SHELL, "");
        let credential = json!({ "type": "private_key", "private_key": sshd.pem("user") });
        let machine = json!({
            "name": "m", "host": "127.0.0.1", "port": sshd.port, "user": user(), "credential": credential,
            "host_key": sshd.public("host_ed25519"),
        });
        let own = json!({ "name": "own", "scopes": ["terminal"] });
        let own = made(&house.operator, "/api/v1/api-keys", own).await;
        let own = Holder { token: Some(text(&own, "/key")), ..house.operator.clone() };
        let machine = text(&made(&own, "/v1/machines", machine).await, "/data/id");
        let manager = house.server.another_organization().await;
        made(&manager, "/api/v1/applications", json!({ "name": "theirs" })).await;
        let eve = key(&manager, "eve", &["management:sessions:read"]).await;
        let made = Default::default();
        Self {
            house,
            _upstream: upstream,
            document: Document::new(),
            machine,
            _sshd: sshd,
            ada,
            bob,
            eve,
            made,
        }
    }

    /// Opens a session of a kind and returns its id; of a media session its name, too.
    async fn open(&self, kind: &str, holder: &Holder) -> Session {
        let number = self.made.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let name = format!("s-{number}");
        let token = holder.token.clone().unwrap();
        let id = match kind {
            "agent" => {
                let body = json!({ "name": name, "applicationId": self.house.application });
                text(&made(holder, "/api/v1/agent-sessions", body).await, "/sessionId")
            }
            "mcp" => {
                let mut client = self.house.client(&token);
                client.initialize().await;
                let shown = client.session.unwrap();
                let digits = shown.split('_').nth(1).unwrap().to_owned();
                uuid::Uuid::try_parse(&digits).unwrap().to_string()
            }
            "media" => {
                let request =
                    holder.http.post(format!("{}{PLACE}", holder.base)).json(&json!({ "name": name }));
                let answer =
                    request.header("authorization", crate::media::basic(&token)).send().await.unwrap();
                let status = answer.status();
                let body: Value = answer.json().await.unwrap();
                assert_eq!(status, 201, "{body}");
                text(&body, "/response/id")
            }
            "terminal" => {
                let body = json!({ "machine_id": self.machine });
                let opened = made(holder, "/v1/sessions", body).await;
                let id = text(&opened, "/data/session_id");
                uuid::Uuid::try_parse(id.strip_prefix("sess_").unwrap()).unwrap().to_string()
            }
            _ => {
                let url = format!("{}/pro/session-manager/v1/sessions/{kind}", holder.base);
                let body = json!({ "app": { "name": "work" } });
                let answer = holder.http.post(url).header("apiKey", token).json(&body).send().await.unwrap();
                assert_eq!(answer.status(), 201);
                let id = text(&answer.json::<Value>().await.unwrap(), "/id");
                uuid::Uuid::try_parse(&id).unwrap().to_string()
            }
        };
        let (_, shown) = self.house.operator.get(&format!("/api/v1/agent-instances/{id}")).await;
        let application = text(&shown, "/agentInstance/agentId");
        Session { kind: kind.to_owned(), id, name, application }
    }

    async fn ask(&self, holder: &Holder, operation: &Operation<'_>, session: &Session) -> StatusCode {
        let path = session.path(operation);
        let body = match operation.id {
            "workloads.changeTaskState" => Some(json!({ "state": "running" })),
            "workloads.endTaskSession" => Some(json!({ "state": "finished" })),
            "workloads.logWebuiSession" | "workloads.logTaskSession" => {
                Some(json!({ "lines": [{ "text": "l" }] }))
            }
            "media.reportSession" => Some(json!({ "totalBytesOut": 1 })),
            _ => None,
        };
        ask(holder, operation, &path, body.as_ref()).await.status()
    }

    fn person(&self, asks: Asks) -> Holder {
        let token = match asks {
            Asks { jwt: false, reads: false } => return self.ada.key.clone(),
            Asks { jwt: false, reads: true } => return self.ada.reading_key.clone(),
            Asks { jwt: true, reads: false } => &self.ada.jwt,
            Asks { jwt: true, reads: true } => &self.ada.reading_jwt,
        };
        self.house.server.holder(token.clone())
    }
}

struct Session {
    kind: String,
    id: String,
    name: String,
    application: String,
}

impl Session {
    fn path(&self, operation: &Operation<'_>) -> String {
        let id = match operation.path {
            path if path.starts_with("/v1/sessions") => format!("sess_{}", self.id.replace('-', "")),
            _ => self.id.clone(),
        };
        let ids = [
            ("applicationId", self.application.as_str()),
            ("sessionId", id.as_str()),
            ("session_id", id.as_str()),
            ("vhost", "v"),
            ("app", "a"),
            ("stream", "s"),
            ("session", self.name.as_str()),
        ];
        filled(operation.path, &ids, "")
    }
}

/// The operations on one session.
fn on_a_session(document: &Document) -> Vec<Operation<'_>> {
    document.operations().filter(is_on_a_session).collect()
}

fn is_on_a_session(operation: &Operation<'_>) -> bool {
    ["{sessionId}", "{session_id}", "{session}"].iter().any(|name| operation.path.contains(name))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_reaches_the_own_sessions_and_no_others_by_every_operation_and_of_every_kind() {
    let world = World::begin().await;
    let mut faults = String::new();
    let operations = on_a_session(&world.document);
    for jwt in [false, true] {
        // What another person has of every kind, by either credential of that person.
        let mut theirs = vec![];
        for kind in KINDS {
            let bob = match (jwt, kind) {
                (true, "agent" | "mcp") => world.house.server.holder(world.bob.jwt.clone()),
                _ => world.bob.key.clone(),
            };
            theirs.push(world.open(kind, &bob).await);
        }
        for reads in [false, true] {
            let asks = Asks { jwt, reads };
            let ada = world.person(asks);
            for operation in &operations {
                let wants = wants(operation.id);
                for session in &theirs {
                    let status = world.ask(&ada, operation, session).await;
                    let expected = asks.answer(wants, Whose::AnothersOfTheOrganization, &session.kind);
                    if !expected.contains(&status.as_u16()) {
                        let (id, kind) = (operation.id, &session.kind);
                        writeln!(faults, "{asks:?} {id} of another's {kind}: {status}").unwrap();
                    }
                    if !jwt && !reads {
                        let status = world.ask(&world.eve, operation, session).await;
                        let eve = Asks { jwt: false, reads: true };
                        if !eve
                            .answer(wants, Whose::AnotherOrganizations, &session.kind)
                            .contains(&status.as_u16())
                        {
                            let (id, kind) = (operation.id, &session.kind);
                            writeln!(faults, "{id} of another organization's {kind}: {status}").unwrap();
                        }
                    }
                }
                for kind in KINDS {
                    // Sessions of the other surfaces are opened by keys alone.
                    if jwt && !matches!(kind, "agent" | "mcp") {
                        continue;
                    }
                    let expected = asks.answer(wants, Whose::Own, kind);
                    let own = world.open(kind, &ada).await;
                    let status = world.ask(&ada, operation, &own).await;
                    if !expected.contains(&status.as_u16()) {
                        writeln!(faults, "{asks:?} {} of the own {kind}: {status}", operation.id).unwrap();
                    }
                }
            }
        }
        for session in &theirs {
            let path = format!("/api/v1/agent-instances/{}", session.id);
            let (_, shown) = world.house.operator.get(&path).await;
            if shown["agentInstance"]["status"] != "active" {
                writeln!(faults, "another's {} has ended", session.kind).unwrap();
            }
        }
    }
    assert!(faults.is_empty(), "{faults}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_right_to_look_makes_no_machine_and_no_session_in_anothers_name() {
    let world = World::begin().await;
    let ada = world.person(Asks { jwt: false, reads: true });
    let machine = json!({
        "name": "n", "host": "127.0.0.1", "port": 22, "user": "u",
        "credential": { "type": "password", "password": "p" },
    });
    for (method, path, body) in [
        (Method::POST, "/v1/machines".to_owned(), machine),
        (Method::PATCH, format!("/v1/machines/{}", world.machine), json!({ "name": "mine" })),
        (Method::POST, format!("/v1/machines/{}/test", world.machine), json!({})),
        (Method::DELETE, format!("/v1/machines/{}", world.machine), json!({})),
    ] {
        let answer = ada.send(method.clone(), &path, Some(&body)).await;
        assert_eq!(answer.status(), 403, "{method} {path}");
    }
    let url = format!("{}/pro/session-manager/v1/sessions/task", ada.base);
    let body = json!({ "app": { "name": "work" }, "owner": "bob" });
    let answer = ada.http.post(url).header("apiKey", ada.token.unwrap()).json(&body).send().await.unwrap();
    assert_eq!(answer.status(), 403);
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_and_sums_of_a_surface_show_a_person_the_own_sessions_alone() {
    let world = World::begin().await;
    let mut own = vec![];
    for kind in KINDS {
        own.push(world.open(kind, &world.ada.key).await);
        world.open(kind, &world.bob.key).await;
    }
    let ada = &world.ada.key;
    let mine = ada.get("/api/v1/me/sessions").await.1;
    assert_eq!(mine["items"].as_array().unwrap().len(), KINDS.len());
    assert_eq!(ada.get("/v1/sessions").await.1["data"]["sessions"].as_array().unwrap().len(), 1);
    let token = ada.token.clone().unwrap();
    for kind in ["webui", "task"] {
        let url = format!("{}/pro/session-manager/v1/sessions/{kind}", ada.base);
        let list: Value =
            ada.http.get(url).header("apiKey", &token).send().await.unwrap().json().await.unwrap();
        assert_eq!(list["total_sessions"], 1, "{list}");
    }
    let media = async |path: &str| -> Value {
        let request = ada.http.get(format!("{}{path}", ada.base));
        let answer = request.header("authorization", crate::media::basic(&token)).send().await.unwrap();
        answer.json().await.unwrap()
    };
    let names: Vec<_> = own.iter().filter(|one| one.kind == "media").map(|one| one.name.as_str()).collect();
    assert_eq!(media(PLACE).await["response"], json!(names));
    for place in ["/vhosts/v", "/vhosts/v/apps/a", "/vhosts/v/apps/a/streams/s"] {
        let sum = media(&format!("/v1/stats/current{place}")).await;
        assert_eq!(sum["response"]["totalConnections"], 1, "{sum}");
    }
}
