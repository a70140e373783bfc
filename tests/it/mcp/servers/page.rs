//! The runs, and docs/mcp-servers.md from the table that they are held to.

use super::table::TABLE;
use super::{CLIENTS, MOMENTS, life};

const HEAD: &str = "\
# How clients fare before real servers

Written by `make mcp-servers` from the table in `tests/it/mcp/servers/table.rs`. The tests beside it hold every line of it
to a run: a real server behind the gateway, and a real client with a session before it. The reference server
`server-everything` and the conformance suite's have tests of their own (`clients.rs`, `conformance.rs`).

Each life also has, with the same outcome everywhere: what the server has is listed; a call is answered; a session that an
operator terminates is 404, and the client may connect anew with the same token.

*step by step*: a call's progress arrives as it is told. *the server stops*: a call that its client gives up ends at the
server. `ok`: the call's result, as if nothing had happened; otherwise the error that the call ends with, as in
[mcp-clients.md](mcp-clients.md).

Not to be had from a registry, and so not here: `cap-js/mcp` (its package is not published under that name); Google's MCP
Toolbox is published as a binary of 80 MB, too much for what every run of the tests installs. What these two are known to do
differently is done by servers of the tests' own.
";

fn page() -> String {
    let mut page = HEAD.to_owned();
    for (at, (_, client)) in CLIENTS.iter().enumerate() {
        page += &format!("\n## {client}\n\n| server |");
        page.extend(MOMENTS.iter().map(|moment| format!(" {moment} |")));
        page += "\n|---|";
        page += &"---|".repeat(MOMENTS.len());
        for row in TABLE {
            page += &format!("\n| {} |", row.name);
            page.extend(row.sees[at].iter().map(|seen| format!(" {seen} |")));
        }
        page += "\n";
    }
    page
}

#[test]
fn the_page_about_servers_is_what_the_runs_are_held_to() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/mcp-servers.md");
    let page = page();
    if std::env::var_os("WRITE_MCP_SERVERS").is_some() {
        std::fs::write(path, &page).unwrap();
    }
    let file = std::fs::read_to_string(path).unwrap_or_default();
    assert!(file == page, "docs/mcp-servers.md is not what the table says; write it: make mcp-servers");
}

async fn live(name: &str) {
    let row = TABLE.iter().find(|row| row.name.contains(name)).unwrap();
    life::live(row).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_live_their_lives_before_the_python_sdks_server() {
    live("mcp` 2.3.0").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_live_their_lives_before_the_older_python_sdks_server() {
    live("mcp` 1.30.0").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_live_their_lives_before_fastmcp() {
    live("`fastmcp`").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_live_their_lives_before_fastapi_mcp() {
    live("fastapi-mcp").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_live_their_lives_before_the_older_typescript_sdks_server() {
    live("sdk` 1.32.2").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_live_their_lives_before_mcp_proxy() {
    live("mcp-proxy").await;
}
