//! Real servers behind the gateway, each through a whole life of each real client; and the page that tells how they fare.
//!
//! `TABLE` says what was seen. The runs are held to it, and docs/mcp-servers.md is written from it.

mod life;
mod page;
mod rust_server;
mod table;

use super::external::{ExternalProcess, Sdk};
use life::live;
use rust_server::RustServer;

/// Whose server it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Everything,
    Python2,
    Python1,
    Fastmcp,
    FastapiMcp,
    TypeScript1,
    TypeScript2,
    McpProxy,
    Rust,
}

/// One server before all clients.
struct Row {
    kind: Kind,
    name: &'static str,
    /// What it is like by itself.
    about: &'static str,
    /// What is not `ok`; without a client, with none of them.
    differs: &'static [(Moment, Option<Sdk>, &'static str)],
}

impl Row {
    fn of(kind: Kind) -> &'static Self {
        table::TABLE.iter().find(|row| row.kind == kind).unwrap()
    }

    fn sees(&self, moment: Moment, client: Sdk) -> &'static str {
        let of =
            self.differs.iter().find(|(when, who, _)| *when == moment && who.is_none_or(|who| who == client));
        of.map_or("ok", |(_, _, seen)| seen)
    }

    /// Whether its tools tell how far they are.
    fn reports(&self) -> bool {
        !self.differs.iter().any(|(when, who, _)| *when == Moment::Progress && who.is_none())
    }
}

/// The clients that each server meets, in the way of the revisions with sessions.
const CLIENTS: [(Sdk, &str); 5] = [
    (Sdk::Python2, "Python `mcp` 2.3.0, legacy"),
    (Sdk::Python1, "Python `mcp` 1.30.0"),
    (Sdk::TypeScript2, "TypeScript `@modelcontextprotocol/client` 2.4.0, legacy"),
    (Sdk::TypeScript1, "TypeScript `@modelcontextprotocol/sdk` 1.32.2"),
    (Sdk::Rust, "Rust `rmcp` 3.9.0, `Initialize`"),
];

/// What is looked at in a life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Moment {
    Lists,
    Calls,
    Progress,
    GivenUp,
    Broken,
    Terminated,
    Revoked,
    Anew,
    LeavesNothing,
    Goodbye,
}

/// As the page names and explains them.
const MOMENTS: [(Moment, &str, &str); 10] = [
    (Moment::Lists, "lists", "the client is shown the server's tools"),
    (Moment::Calls, "calls", "a tool answers"),
    (Moment::Progress, "progress", "a call's progress arrives step by step, before its result"),
    (Moment::GivenUp, "given up", "the caller gives a call up, and the tool behind notices"),
    (
        Moment::Broken,
        "breaks",
        "every connection of the client is cut in the middle of a call; the call's result, all the same",
    ),
    (
        Moment::Terminated,
        "terminated",
        "the session is ended by an operator in the middle of a call; its caller learns the reason",
    ),
    (
        Moment::Revoked,
        "revoked",
        "its credential is revoked in the middle of a call; its caller learns the reason",
    ),
    (Moment::Anew, "anew", "after that the client begins anew with a fresh token"),
    (
        Moment::LeavesNothing,
        "leaves nothing",
        "whichever way a session ended, the server was sent one DELETE for its own and knows it no more, and the tool of a \
         call that was cut off has noticed",
    ),
    (Moment::Goodbye, "goodbye", "the client says goodbye, and the session's record says so"),
];

#[tokio::test(flavor = "multi_thread")]
async fn server_everything_lives_a_whole_life_with_every_client() {
    let server = ExternalProcess::everything(0).await;
    live(Kind::Everything, &server.url).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_python_sdk_2_server_lives_a_whole_life_with_every_client() {
    let server = ExternalProcess::python(0).await;
    live(Kind::Python2, &server.url).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_python_sdk_1_server_lives_a_whole_life_with_every_client() {
    let server = ExternalProcess::more_python(".venv-v1", "sdk1").await;
    live(Kind::Python1, &server.url).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fastmcp_server_lives_a_whole_life_with_every_client() {
    let server = ExternalProcess::more_python(".venv", "fastmcp").await;
    live(Kind::Fastmcp, &server.url).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fastapi_mcp_server_lives_a_whole_life_with_every_client() {
    let server = ExternalProcess::more_python(".venv-v1", "fastapi-mcp").await;
    live(Kind::FastapiMcp, &server.url).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_typescript_sdk_1_server_lives_a_whole_life_with_every_client() {
    let server = ExternalProcess::more_node("sdk1").await;
    live(Kind::TypeScript1, &server.url).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_typescript_sdk_2_server_lives_a_whole_life_with_every_client() {
    let server = ExternalProcess::more_node("sdk2").await;
    live(Kind::TypeScript2, &server.url).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_behind_mcp_proxy_lives_a_whole_life_with_every_client() {
    let server = ExternalProcess::more_node("mcp-proxy").await;
    live(Kind::McpProxy, &server.url).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rust_server_lives_a_whole_life_with_every_client() {
    let server = RustServer::start().await;
    live(Kind::Rust, &server.url).await;
}
