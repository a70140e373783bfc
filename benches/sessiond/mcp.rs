//! The client's side of MCP: the same calls in both eras, to whatever stands at an address.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, bail, ensure};
use futures_util::stream::{self, StreamExt, TryStreamExt};
use serde_json::{Value, json};

use crate::Bench;
use crate::connection::{Answer, Connection, block_on};
use crate::load::Requests;
use crate::server::Server;
use crate::upstream::{FIRST, LARGE, SMALL, TOKEN, Upstream};

/// How a client speaks.
#[derive(Clone, Copy, PartialEq)]
pub enum Era {
    /// 2025-11-25: a session, opened by `initialize`.
    Sessions,
    /// 2026-07-28: every request says all.
    Stateless,
}

impl Era {
    fn version(self) -> &'static str {
        match self {
            Self::Sessions => "2025-11-25",
            Self::Stateless => "2026-07-28",
        }
    }
}

/// The upstream's tools.
#[derive(Clone, Copy)]
pub enum Tool {
    Small,
    Large,
    Stream,
}

impl Tool {
    pub fn name(self) -> &'static str {
        match self {
            Self::Small => "small",
            Self::Large => "large",
            Self::Stream => "stream",
        }
    }

    fn least(self) -> usize {
        match self {
            Self::Small => SMALL.len(),
            Self::Large => LARGE,
            Self::Stream => FIRST.len(),
        }
    }
}

/// Where MCP is spoken.
#[derive(Clone)]
pub struct Endpoint {
    pub address: SocketAddr,
    pub path: String,
    /// Empty where nobody asks who it is.
    pub authorization: String,
    /// What a gateway puts before the names of tools.
    pub prefix: String,
}

/// The answer was 400: that era is not spoken there.
#[derive(Debug)]
pub struct NotSpoken;

impl std::fmt::Display for NotSpoken {
    fn fmt(&self, into: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        into.write_str("not spoken yet")
    }
}

impl std::error::Error for NotSpoken {}

impl Endpoint {
    /// Calls of a tool, one for each connection: with a session of its own each, or as a client of its own. Each has been
    /// tried, and was answered as it must be: some gateways go to their upstream for the first time then.
    pub fn calls(&self, era: Era, tool: Tool, connections: usize) -> anyhow::Result<Arc<Requests>> {
        let sessions = match era {
            Era::Sessions => block_on(self.open_many(connections))?.into_iter().map(Some).collect(),
            Era::Stateless => vec![None; connections],
        };
        let calls = sessions.iter().enumerate();
        let own: Vec<_> =
            calls.map(|(number, session)| self.call(session.as_deref(), tool, number)).collect();
        let trying = own.iter().map(|call| self.try_one(call, tool));
        block_on(stream::iter(trying).buffered(16).try_collect::<()>())?;
        Ok(Arc::new(match tool {
            Tool::Stream => Requests::Streams { own, first: FIRST },
            _ => Requests::Tools { own, least: tool.least() },
        }))
    }

    /// Opens so many sessions: their ids.
    pub async fn open_many(&self, count: usize) -> anyhow::Result<Vec<String>> {
        let opening = (0..count).map(|_| async {
            let mut connection = Connection::open(self.address).await?;
            self.open(&mut connection).await
        });
        stream::iter(opening).buffered(64).try_collect().await
    }

    async fn try_one(&self, call: &[u8], tool: Tool) -> anyhow::Result<()> {
        let mut connection = Connection::open(self.address).await?;
        let answer = connection.exchange(call).await?;
        if answer.status == 400 {
            return Err(NotSpoken.into());
        }
        let message = last_message(&answer)?;
        let text = message["result"]["content"][0]["text"].as_str();
        let text = text.with_context(|| format!("{} answered with {message}", tool.name()))?;
        ensure!(message["result"]["isError"] != true, "{} failed: {text}", tool.name());
        Ok(())
    }

    /// Opens a session: its id.
    async fn open(&self, connection: &mut Connection) -> anyhow::Result<String> {
        let params = json!({
            "protocolVersion": Era::Sessions.version(),
            "capabilities": {},
            "clientInfo": { "name": "bench", "version": "1.0.0" },
        });
        let initialize = json!({ "jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params });
        let answer = connection.exchange(&self.post("", &initialize)).await?;
        let session = answer.header("mcp-session-id");
        let session = session.with_context(|| match last_message(&answer) {
            Ok(message) => format!("initialize was answered with {} {message}", answer.status),
            Err(error) => format!("initialize was answered with {error:#}"),
        })?;
        let ready = json!({ "jsonrpc": "2.0", "method": "notifications/initialized" });
        connection.call(&self.post(&session_headers(&session), &ready)).await?;
        Ok(session)
    }

    /// The bytes of a call.
    fn call(&self, session: Option<&str>, tool: Tool, number: usize) -> Vec<u8> {
        let name = format!("{}{}", self.prefix, tool.name());
        let mut params = json!({ "name": name, "arguments": {}, "_meta": {} });
        if matches!(tool, Tool::Stream) {
            params["_meta"]["progressToken"] = TOKEN.into();
        }
        let headers = match session {
            Some(session) => session_headers(session),
            None => {
                let client = json!({ "name": format!("bench-{number}"), "version": "1.0.0" });
                let meta = &mut params["_meta"];
                meta["io.modelcontextprotocol/protocolVersion"] = Era::Stateless.version().into();
                meta["io.modelcontextprotocol/clientCapabilities"] = json!({});
                meta["io.modelcontextprotocol/clientInfo"] = client;
                let version = Era::Stateless.version();
                format!("mcp-protocol-version: {version}\r\nmcp-method: tools/call\r\nmcp-name: {name}\r\n")
            }
        };
        self.post(&headers, &json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params }))
    }

    fn post(&self, headers: &str, message: &Value) -> Vec<u8> {
        let body = message.to_string();
        let content = format!("content-type: application/json\r\ncontent-length: {}\r\n", body.len());
        self.request("POST", &format!("{content}{headers}"), &body)
    }

    /// The bytes of a request for a session's stream.
    pub fn listen(&self, session: &str) -> Vec<u8> {
        self.request("GET", &session_headers(session), "")
    }

    fn request(&self, method: &str, headers: &str, body: &str) -> Vec<u8> {
        let authorization = match self.authorization.as_str() {
            "" => String::new(),
            authorization => format!("authorization: {authorization}\r\n"),
        };
        let accept =
            if method == "GET" { "text/event-stream" } else { "application/json, text/event-stream" };
        format!(
            "{method} {} HTTP/1.1\r\nhost: {}\r\nuser-agent: python-httpx/0.28.1\r\naccept: {accept}\r\n\
             {authorization}{headers}\r\n{body}",
            self.path, self.address
        )
        .into_bytes()
    }
}

fn session_headers(session: &str) -> String {
    format!("mcp-session-id: {session}\r\nmcp-protocol-version: {}\r\n", Era::Sessions.version())
}

/// The last JSON-RPC message of an answer, of one with events as well.
fn last_message(answer: &Answer<'_>) -> anyhow::Result<Value> {
    let whole = answer.whole();
    let text = String::from_utf8_lossy(&whole);
    let events = answer.header("content-type").is_some_and(|kind| kind.starts_with("text/event-stream"));
    let message = if events {
        text.lines().filter_map(|line| line.strip_prefix("data:")).next_back().unwrap_or_default()
    } else {
        &text
    };
    match serde_json::from_str(message) {
        Ok(message) => Ok(message),
        Err(_) => bail!("{} {:.300}", answer.status, text),
    }
}

/// sessiond before an upstream, and the two ways to that.
pub struct Stand {
    pub upstream: Upstream,
    pub server: Server,
    pub application: String,
    pub direct: Endpoint,
    pub through: Endpoint,
}

impl Stand {
    pub fn new(bench: &Bench, name: &str) -> anyhow::Result<Self> {
        let (upstream, server) = (Upstream::start()?, Server::start(&bench.directory(name))?);
        let token = server.token()?;
        let application = server.first_application(&token)?;
        server.set_upstream(&token, &application, &upstream.url())?;
        let direct = Endpoint {
            address: upstream.address,
            path: "/mcp".into(),
            authorization: String::new(),
            prefix: String::new(),
        };
        let through = Endpoint {
            address: server.address,
            path: format!("/mcp/{application}"),
            authorization: format!("Bearer {token}"),
            ..direct.clone()
        };
        Ok(Self { upstream, server, application, direct, through })
    }
}
