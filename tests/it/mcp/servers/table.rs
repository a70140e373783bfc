//! How each server's clients fare. A run that sees something else says so in full.

use super::{Program, Row};

pub const TABLE: &[Row] = &[
    Row {
        name: "Python `mcp` 2.3.0, `MCPServer`",
        program: Program::Python(".venv", "mcp_server.py"),
        sees: [USUAL; 3],
    },
    Row {
        name: "Python `mcp` 1.30.0, `FastMCP`",
        program: Program::Python(".venv-v1", "servers/python_v1.py"),
        sees: [USUAL; 3],
    },
    Row {
        name: "`fastmcp` 4.2.3",
        program: Program::Python(".venv", "servers/fastmcp_server.py"),
        sees: [USUAL; 3],
    },
    Row {
        name: "`fastapi-mcp` 0.4.0",
        program: Program::Python(".venv-v1", "servers/fastapi_mcp_server.py"),
        sees: [USUAL; 3],
    },
    Row {
        name: "TypeScript `@modelcontextprotocol/sdk` 1.32.2, with sessions",
        program: Program::Node("servers/typescript_v1.mjs"),
        sees: [USUAL; 3],
    },
    Row {
        name: "`mcp-proxy` (npm) 6.7.19",
        program: Program::Node("servers/mcp_proxy.mjs"),
        sees: [USUAL; 3],
    },
];

/// What most see.
const USUAL: [&str; 6] = [
    "step by step",
    "the server stops",
    "ok",
    "ok",
    "`DELETE`, and says 200",
    "`MCPError` -32001 “Session disconnected”, reason `revoked`",
];
