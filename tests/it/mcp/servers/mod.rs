//! Servers that others wrote behind the gateway, each for a whole life of real clients; and the page that tells how they
//! fare. `TABLE` says what was seen. The runs are held to it, and docs/mcp-servers.md is written from it.

mod ear;
mod life;
mod page;
mod table;

use super::foreign::{Foreigner, Sdk, node, python};

/// A server, and how its clients fare.
struct Row {
    name: &'static str,
    /// What a test starts.
    program: Program,
    /// By client, in the order of `CLIENTS`.
    sees: [[&'static str; MOMENTS.len()]; CLIENTS.len()],
}

/// What starts a server: an interpreter of ours and a script.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Program {
    Python(&'static str, &'static str),
    Node(&'static str),
}

impl Program {
    async fn start(self, port: u16) -> Foreigner {
        let mut command = match self {
            Self::Python(environment, script) => {
                let mut command = python(environment);
                command.arg(super::foreign::clients().join(script));
                command
            }
            Self::Node(script) => node(script),
        };
        Foreigner::start(&mut command, port).await
    }
}

const CLIENTS: [(Sdk, &str); 3] = [
    (Sdk::Python2, "Python `mcp` 2.3.0"),
    (Sdk::TypeScript2, "TypeScript `@modelcontextprotocol/client` 2.4.0"),
    (Sdk::Rust, "Rust `rmcp` 3.9.0"),
];

/// What is looked at.
const MOMENTS: [&str; 6] = [
    "progress of a call",
    "giving a call up",
    "the connection is cut: the call in flight",
    "the server restarts: the next call",
    "the client says goodbye: the server hears",
    "revoke: the call in flight",
];
