//! A house in which everything can be opened with one credential, and every way can be gone.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::{By, Fate, Thing, Way};
use crate::authorization::world::{made, text};
use crate::issuers::{ISSUERS, LOOPBACK, Provider};
use crate::mcp::sse::Old;
use crate::mcp::upstream::Upstream;
use crate::mcp::{Client, House as McpHouse, Modern, Stream, call};
use crate::support::{Agent, Holder};
use crate::terminal::sshd::{SHELL, Sshd, user};
use crate::terminals::TerminalClient;

const SCOPES: [&str; 2] = ["mcp:invoke", "management:sessions:read"];
/// How long what expires lasts, in seconds of the server's clock.
const LASTS: i64 = 120;

/// Something that is open.
#[allow(clippy::large_enum_variant)] // few are open at a time
pub enum Open {
    /// A feed, or an answer with events.
    Stream(Stream),
    /// A call that waits for its answer.
    Call(Option<JoinHandle<(StatusCode, Value)>>, Value),
    SseConnection(Box<Old>),
    TerminalClient(Sitting),
}

/// Somebody at a terminal, with what got them there.
pub struct Sitting {
    seat: TerminalClient,
    url: String,
    auth: Value,
    said: Vec<Value>,
}

impl Sitting {
    async fn take(url: String, token: String) -> Self {
        let auth = json!({ "type": "auth", "token": token });
        let seat = TerminalClient::introduce(&url, auth.clone()).await;
        Self { seat, url, auth, said: vec![] }
    }

    /// Whether the same token opens no other connection.
    pub async fn is_refused_again(&self) -> bool {
        let mut seat = TerminalClient::connect(&self.url).await;
        seat.say(self.auth.clone()).await;
        seat.rest().await.first().is_some_and(|first| first["code"] == "UNAUTHORIZED")
    }
}

impl Open {
    /// Waits until it has ended.
    pub async fn end(&mut self) {
        match self {
            Self::Stream(stream) => {
                stream.end().await;
            }
            Self::SseConnection(wire) => {
                wire.stream.end().await;
            }
            Self::Call(call, answer) => {
                if let Some(call) = call.take() {
                    *answer = call.await.unwrap().1;
                }
            }
            Self::TerminalClient(sitting) => sitting.said = sitting.seat.rest().await,
        }
    }

    pub async fn goes_on(&mut self, long: Duration) -> bool {
        match self {
            Self::Stream(stream) => stream.goes_on(long).await,
            Self::SseConnection(wire) => wire.stream.goes_on(long).await,
            Self::Call(call, _) => {
                tokio::time::sleep(long).await;
                call.as_ref().is_some_and(|call| !call.is_finished())
            }
            Self::TerminalClient(sitting) => tokio::time::timeout(long, sitting.seat.rest()).await.is_err(),
        }
    }

    /// What was heard of it.
    pub fn said(&self) -> String {
        match self {
            Self::Stream(stream) => stream.text.clone(),
            Self::SseConnection(wire) => wire.stream.text.clone(),
            Self::Call(_, answer) => answer.to_string(),
            Self::TerminalClient(sitting) => format!("{:?}", sitting.said),
        }
    }

    /// That its last words are of this fate.
    pub fn check(&self, fate: Fate, what: &str) {
        let said = self.said();
        let has = |needle: &str| assert!(said.contains(needle), "{what}: no {needle:?} in:\n{said}");
        let feed = said.contains(": sessiond");
        match (self, fate) {
            (Self::TerminalClient(sitting), fate) => {
                let last = sitting.said.last().unwrap_or_else(|| panic!("{what}: not a word"));
                let reason = match fate {
                    Fate::Credential("expired") | Fate::Session("lifetime") => "expired",
                    _ => "terminated",
                };
                assert_eq!(
                    (&last["type"], &last["reason"]),
                    (&json!("disconnect"), &json!(reason)),
                    "{what}"
                );
                assert!(last["message"].as_str().is_some_and(|text| !text.is_empty()), "{what}: {last}");
            }
            (_, Fate::Credential("expired")) if feed => has("event: expired\n"),
            (_, Fate::Credential(word)) if feed => {
                has("event: credential_ended\n");
                has(&format!("\"reason\":\"{word}\""));
            }
            (_, Fate::Session(reason)) if feed => {
                has("event: disconnected\n");
                has(&format!("\"reason\":\"{reason}\""));
            }
            // Streams on which nobody is owed an answer have no words of MCP for it: they end.
            (Self::Stream(stream), _) if !stream.text.contains("notifications/progress") => {}
            (Self::SseConnection(_), _) if !said.contains("serverInfo") => {}
            (_, Fate::Credential("expired")) => has("\"reason\":\"expired\""),
            (_, Fate::Credential(word)) => has(&format!("\"credential\":\"{word}\"")),
            (_, Fate::Session(reason)) => has(&format!("\"reason\":\"{reason}\"")),
            (_, Fate::Stays) => {}
        }
    }
}

/// A server with an application before an MCP server, whoever opens things there, and what they open them with.
pub struct House {
    mcp: McpHouse,
    upstream: Upstream,
    _sshd: Option<Sshd>,
    provider: Provider,
    by: By,
    /// The credential.
    holder: Holder,
    /// The session that a feed is of.
    agent: Agent,
    /// Ids of what the credential is, or is of, and secrets.
    about: Value,
    /// A key that opens terminals for others to watch.
    machine: Option<String>,
}

impl House {
    pub async fn before(way: &Way) -> Self {
        let flags = [LOOPBACK, &["--terminal-grace", "1h", "--token-lifetime", "2m"]].concat();
        let (mut mcp, upstream) = McpHouse::with_fake(&flags).await;
        // What is open may stay so for long where the machine is busy.
        mcp.server.http = reqwest::Client::builder().timeout(Duration::from_secs(600)).build().unwrap();
        mcp.operator.http = mcp.server.http.clone();
        let provider = Provider::start().await;
        let (holder, about) = credential(&mcp, &provider, way).await;
        let mcp = match about["application"].as_str() {
            Some(application) => McpHouse { application: application.to_owned(), ..mcp },
            None => mcp,
        };
        mcp.set_upstream(&upstream.url).await;
        let agent =
            holder.connect(json!({ "applicationId": mcp.application, "clientSessionId": "the one" })).await;
        let holder = if way.by == By::Session { agent.holder.clone() } else { holder };
        let sshd = way.by.opens(Thing::Terminal).then(|| Sshd::with(&["host_ed25519"], SHELL, ""));
        let machine = match &sshd {
            Some(sshd) => Some(machine(&mcp, sshd).await),
            None => None,
        };
        Self { mcp, upstream, _sshd: sshd, provider, by: way.by, holder, agent, about, machine }
    }

    fn token(&self) -> String {
        self.holder.token.clone().unwrap()
    }

    async fn client(&self) -> Client {
        let mut client = self.mcp.client(&self.token());
        client.initialize().await;
        client
    }

    fn modern(&self) -> Modern {
        let (url, http) = (self.mcp.server.url(&self.mcp.path()), self.mcp.server.http.clone());
        Modern { url, token: self.token(), meta: json!({}), http }
    }

    async fn feed(&self, path: &str) -> Open {
        let request = self.mcp.server.http.get(self.mcp.server.url(path)).bearer_auth(self.token());
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK, "{path}");
        let mut stream = Stream::of(answer);
        stream.until(": sessiond").await;
        Open::Stream(stream)
    }

    /// Opens a thing, and waits until it is open.
    pub async fn open(&self, thing: Thing) -> Open {
        let progress = async |answer: reqwest::Response| {
            let mut stream = Stream::of(answer);
            stream.until("notifications/progress").await;
            Open::Stream(stream)
        };
        match thing {
            Thing::ApplicationFeed => {
                self.feed(&format!("/api/v1/applications/{}/sessions/events", self.mcp.application)).await
            }
            Thing::SessionFeed => {
                self.feed(&format!("/api/v1/agent-sessions/{}/events", self.agent.id)).await
            }
            Thing::McpStream => {
                let mut stream = Stream::of(self.client().await.listen().await);
                stream.until("notifications/hello").await;
                Open::Stream(stream)
            }
            Thing::McpCall => {
                let client = self.client().await;
                let call = tokio::spawn(async move { client.call("silent").await });
                self.upstream.until(|sent| sent.body["params"]["name"] == "silent").await;
                Open::Call(Some(call), Value::Null)
            }
            Thing::McpEvents => progress(self.client().await.begin(json!("e"), "hang").await).await,
            Thing::ModernCall => progress(self.modern().begin(json!("m"), "noted").await).await,
            Thing::ModernListen => {
                let mut stream = Stream::of(self.modern().listen().await);
                stream.until("acknowledged").await;
                Open::Stream(stream)
            }
            Thing::SseConnection => {
                let wire = Old::connect_with(&self.mcp, &self.token()).await;
                wire.say(&call(json!("w"), "noted and silent")).await;
                self.upstream.until(|sent| sent.body["params"]["name"] == "noted and silent").await;
                Open::SseConnection(Box::new(wire))
            }
            Thing::BareSseConnection => {
                let wire = Old::open(&self.mcp, &self.token(), None).await;
                Open::SseConnection(Box::new(wire.unwrap_or_else(|refused| panic!("{refused:?}"))))
            }
            Thing::Terminal => {
                let opened = self.terminal().await;
                Open::TerminalClient(
                    Sitting::take(text(&opened, "/websocket_url"), text(&opened, "/token")).await,
                )
            }
            Thing::Watcher => {
                let id = text(&self.terminal().await, "/session_id");
                let viewer = made(&self.holder, &format!("/v1/sessions/{id}/viewers"), json!({})).await;
                let told = |at| text(&viewer, at);
                Open::TerminalClient(Sitting::take(told("/data/websocket_url"), told("/data/token")).await)
            }
        }
    }

    async fn terminal(&self) -> Value {
        made(&self.holder, "/v1/sessions", json!({ "machine_id": self.machine })).await["data"].clone()
    }

    /// Goes a way; when that was answered.
    pub async fn go(&self, way: &Way) -> Instant {
        let operator = &self.mcp.operator;
        let application = &self.mcp.application;
        let about = |name: &str| self.about[name].as_str().unwrap_or_else(|| panic!("no {name}")).to_owned();
        let revoke = async |filter: Value| {
            made(operator, "/api/v1/revocations", json!({ "filter": filter })).await;
        };
        let deleted = async |path: String| {
            let (status, body) = operator.delete(&path).await;
            assert!(status.is_success(), "{path}: {status} {body}");
        };
        let posted = async |path: String| {
            made(operator, &path, json!({})).await;
        };
        match way.name {
            "API key deleted" => deleted(format!("/api/v1/api-keys/{}", about("key"))).await,
            "API key's secret rotated" => {
                posted(format!("/api/v1/api-keys/{}/rotate-secret", about("key"))).await
            }
            "API key's old secret expired" => {
                let path = format!("/api/v1/api-keys/{}/rotate-secret", about("key"));
                let until = self.mcp.server.clock.now() + chrono::TimeDelta::seconds(LASTS / 2);
                made(operator, &path, json!({ "expireOldAt": until })).await;
                self.mcp.server.turn(LASTS / 2 + 1);
            }
            "API key expired" | "access token expired" | "JWT expired" => self.mcp.server.turn(LASTS + 61),
            "person of an API key disabled" | "person of a JWT disabled" => {
                posted(format!("/api/v1/principals/{}/disable", self.principal().await)).await;
            }
            "person of an API key revoked" => revoke(json!({ "principal": self.principal().await })).await,
            "person of an API key barred" | "person of a JWT barred" => {
                made(operator, "/api/v1/bars", json!({ "principal": self.principal().await })).await;
            }
            "OAuth client barred" => {
                made(operator, "/api/v1/bars", json!({ "clientId": about("client") })).await;
            }
            "access token given up" => self.give_up().await,
            "service account archived" => {
                deleted(format!("/api/v1/service-accounts/{}", about("account"))).await;
            }
            "service account's secret rotated" => {
                posted(format!("/api/v1/service-accounts/{}/rotate-secret", about("account"))).await;
            }
            "application's secret rotated" => {
                posted(format!("/api/v1/applications/{application}/rotate-secret")).await;
            }
            "another session of an access token revoked" => deleted(self.agent.path()).await,
            "application revoked" => deleted(format!("/api/v1/applications/{application}/sessions")).await,
            "organization revoked" => revoke(json!({ "organization": true })).await,
            "application archived" => deleted(format!("/api/v1/applications/{application}")).await,
            "issuer removed" => self.trust(json!([])).await,
            "issuer trusted otherwise" => {
                let mut issuer = self.provider.trusted();
                issuer["scopes"] = json!(["mcp:invoke"]);
                self.trust(json!([issuer])).await;
            }
            "session's token renewed" => assert_eq!(self.agent.call("renew").await.0, 200),
            "session attached to anew" => {
                let body = json!({ "applicationId": application, "clientSessionId": "the one" });
                operator.connect(body).await;
            }
            "sessions terminated" => self.each("terminate").await,
            "sessions revoked one by one" => self.each("").await,
            "sessions suspended" => self.each("suspend").await,
            "sessions revoked by a filter" => {
                revoke(json!({ "status": ["active", "idle", "expired"] })).await;
            }
            "sessions revoked with the keys behind them" => {
                let filter = json!({ "status": ["active", "idle", "expired"] });
                let body = json!({ "filter": filter, "bar": true, "includeKeys": true });
                made(operator, "/api/v1/revocations", body).await;
            }
            "sessions stale" => self.mcp.server.turn(20 * 60),
            "sessions at the end of their lifetime" => self.mcp.server.turn(LASTS + 1),
            other => panic!("nobody knows how to go the way {other}"),
        }
        Instant::now()
    }

    /// Does this to each session there is.
    async fn each(&self, verb: &str) {
        let operator = &self.mcp.operator;
        let (_, all) = operator.get("/api/v1/sessions?limit=200").await;
        for one in all["items"].as_array().unwrap() {
            let (application, id) = (text(one, "/agentId"), text(one, "/id"));
            let path = format!("/api/v1/applications/{application}/sessions/{id}");
            let (status, body) = match verb {
                "" => operator.delete(&path).await,
                verb => operator.post(&format!("{path}/{verb}"), json!({})).await,
            };
            assert!(status.is_success(), "{verb} {path}: {status} {body}");
        }
    }

    async fn principal(&self) -> String {
        if let Some(id) = self.about["principal"].as_str() {
            return id.to_owned();
        }
        let (_, people) = self.mcp.operator.get("/api/v1/principals?subject=ada").await;
        text(&people, "/items/0/id")
    }

    async fn give_up(&self) {
        let url = self.mcp.server.url("/oauth2/revoke");
        let request = self.mcp.server.http.post(url).bearer_auth(self.token());
        let answer = request.form(&[("token", self.token())]).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
    }

    async fn trust(&self, issuers: Value) {
        let (status, body) = self.mcp.operator.put(ISSUERS, json!({ "issuers": issuers })).await;
        assert_eq!(status, StatusCode::OK, "{body}");
    }

    /// Whether an ordinary request with the credential is served: one of those that manage and watch; of a session's own
    /// token, one of the session.
    pub async fn is_welcome(&self) -> bool {
        if self.by == By::Session {
            return self.agent.call("heartbeat").await.0.is_success();
        }
        self.holder.get("/api/v1/sessions").await.0.is_success()
    }

    /// That the server behind was told of the end: its calls cancelled, and goodbye said for each session that has ended, and
    /// for no other.
    pub async fn check_upstream(&self, way: &Way) {
        let has_ended = |thing: &&Thing| matches!((way.fate)(**thing), Fate::Session(_));
        let over =
            Thing::WITH_UPSTREAM.iter().filter(|thing| way.by.opens(**thing)).filter(has_ended).count();
        let goodbyes = || {
            let sent = self.upstream.sent().into_iter().filter(|sent| sent.method == Method::DELETE);
            sent.filter_map(|sent| sent.header("mcp-session-id").map(str::to_owned)).collect::<BTreeSet<_>>()
        };
        self.mcp
            .server
            .until("the sessions that are over at the server behind", async || goodbyes().len() >= over)
            .await;
        assert_eq!(goodbyes().len(), over, "{}: goodbye was said for sessions that go on", way.name);
        if (way.fate)(Thing::ModernCall) != Fate::Stays && way.by.opens(Thing::ModernCall) {
            let given_up = || self.upstream.told.given_up.load(std::sync::atomic::Ordering::SeqCst);
            // What `noted` and `noted and silent` were asked for.
            self.mcp.server.until("calls given up", async || given_up() >= 2).await;
        }
    }
}

/// A credential of a kind, and what it is of.
async fn credential(mcp: &McpHouse, provider: &Provider, way: &Way) -> (Holder, Value) {
    let (server, operator) = (&mcp.server, &mcp.operator);
    match way.by {
        By::Key | By::PersonKey => {
            let scopes = [&SCOPES[..], &["terminal"]].concat();
            let mut body = json!({ "name": "a key", "scopes": scopes });
            if way.name.ends_with("expired") {
                body["expiresAt"] = json!(server.clock.now() + chrono::TimeDelta::seconds(LASTS));
            }
            if way.by == By::PersonKey {
                body["user"] = json!({ "id": "ada", "name": "Ada" });
            }
            if way.name == "sessions at the end of their lifetime" {
                let path = format!("/api/v1/applications/{}/policy", mcp.application);
                let (status, body) = operator.put(&path, json!({ "absoluteLifetime": LASTS })).await;
                assert_eq!(status, StatusCode::OK, "{body}");
            }
            let key = made(operator, "/api/v1/api-keys", body).await;
            let about =
                json!({ "key": key["apiKey"]["id"], "principal": key["apiKey"]["user"]["principalId"] });
            (server.holder(text(&key, "/key")), about)
        }
        By::Account => {
            let body = json!({ "name": "an account", "scopes": SCOPES });
            let account = made(operator, "/api/v1/service-accounts", body).await;
            let (id, secret) = (text(&account, "/serviceAccount/clientId"), text(&account, "/clientSecret"));
            let token = server.token_for(&id, &secret, "").await;
            (server.holder(token), json!({ "account": account["serviceAccount"]["id"], "client": id }))
        }
        By::Client => {
            let oauth = json!({ "type": "confidential", "redirectUris": [], "scopes": SCOPES });
            let body = json!({ "name": "an application", "oauth": oauth });
            let application = made(operator, "/api/v1/applications", body).await;
            let oauth = &application["oauth"];
            let token = server.token_for(&text(oauth, "/clientId"), &text(oauth, "/clientSecret"), "").await;
            (server.holder(token), json!({ "application": application["application"]["id"] }))
        }
        By::Jwt => {
            let mut issuer = provider.trusted();
            issuer["scopes"] = json!(SCOPES);
            let (status, body) = operator.put(ISSUERS, json!({ "issuers": [issuer] })).await;
            assert_eq!(status, StatusCode::OK, "{body}");
            let mut claims = provider.claims(server, "ada");
            claims["scope"] = json!(SCOPES.join(" "));
            claims["exp"] = json!(server.clock.now().timestamp() + LASTS);
            (server.holder(provider.sign(&provider.header(), &claims)), json!({}))
        }
        By::Session => (operator.clone(), json!({})),
    }
}

/// A machine with the house's OpenSSH server on it; its id.
async fn machine(mcp: &McpHouse, sshd: &Sshd) -> String {
    let key = json!({ "name": "machines", "scopes": ["terminal"] });
    let key = made(&mcp.operator, "/api/v1/api-keys", key).await;
    let own = mcp.server.holder(text(&key, "/key"));
    let body = json!({
        "name": "a machine", "host": "127.0.0.1", "port": sshd.port, "user": user(),
        "credential": { "type": "private_key", "private_key": sshd.pem("user") },
        "host_key": sshd.public("host_ed25519"),
    });
    text(&made(&own, "/v1/machines", body).await, "/data/id")
}
