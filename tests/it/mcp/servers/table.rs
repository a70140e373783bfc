//! What was seen of each server. A run that sees something else says so in full, in this form.

use super::{Kind, Moment, Row};
use crate::mcp::external::Sdk;

pub const TABLE: &[Row] = &[
    Row {
        kind: Kind::Everything,
        name: "`@modelcontextprotocol/server-everything` 2026.8.31 (npm)",
        about: "The reference server, on the TypeScript SDK 1. Its streams can be resumed.",
        differs: &[
            (Moment::GivenUp, None, "it is told; its tool does not look"),
            (Moment::LeavesNothing, None, "its tool does not look"),
        ],
    },
    Row {
        kind: Kind::Python2,
        name: "`mcp` 2.3.0 (PyPI), `MCPServer`",
        about: "The official Python SDK 2, with a store of events: its streams can be resumed.",
        differs: &[],
    },
    Row {
        kind: Kind::Python1,
        name: "`mcp` 1.30.0 (PyPI), `FastMCP`",
        about: "The official Python SDK 1, without a store of events: its streams have no ids.",
        differs: &[],
    },
    Row {
        kind: Kind::Fastmcp,
        name: "`fastmcp` 4.2.3 (PyPI)",
        about: "A framework on the official Python SDK 2, without a store of events.",
        differs: &[],
    },
    Row {
        kind: Kind::FastapiMcp,
        name: "`fastapi-mcp` 0.4.0 (PyPI)",
        about: "Its tools are the routes of a FastAPI application, called on the official Python SDK 1. It answers with JSON \
                only, once a call is over: nothing streams, and \
                who loses the connection before has nothing to resume by.",
        differs: &[
            (Moment::Progress, None, "none to be had"),
            (Moment::Broken, Some(Sdk::Python2), "`MCPError` -32000 “Connection closed”"),
            (
                Moment::Broken,
                Some(Sdk::Python1),
                "`RemoteProtocolError` “Server disconnected without sending a response.”",
            ),
            (Moment::Broken, Some(Sdk::TypeScript2), "`TypeError` “fetch failed”"),
            (Moment::Broken, Some(Sdk::TypeScript1), "`TypeError` “fetch failed”"),
            (Moment::Broken, Some(Sdk::Rust), "`Client` “Client error”"),
        ],
    },
    Row {
        kind: Kind::TypeScript1,
        name: "`@modelcontextprotocol/sdk` 1.32.2 (npm), `StreamableHTTPServerTransport`",
        about: "The TypeScript SDK 1 with sessions, without a store of events.",
        differs: &[],
    },
    Row {
        kind: Kind::TypeScript2,
        name: "`@modelcontextprotocol/server` 2.4.0 and `/node` 2.1.2 (npm)",
        about: "The TypeScript SDK 2 with sessions, without a store of events.",
        differs: &[],
    },
    Row {
        kind: Kind::McpProxy,
        name: "`mcp-proxy` 6.7.19 (npm)",
        about: "Its command line before one server of the TypeScript SDK 1 over standard input and output, which all \
                sessions share. Its streams can be resumed.",
        differs: &[],
    },
    Row {
        kind: Kind::Rust,
        name: "`rmcp` 3.9.0 (crates.io), `StreamableHttpService`",
        about: "The official Rust SDK, with its sessions in memory.",
        differs: &[],
    },
];
