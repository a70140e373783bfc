//! Real clients through the gateway, each its whole life; and the page that tells what their callers see.
//!
//! `TABLE` says what each sees. The runs are held to it, and docs/mcp-clients.md is written from it.

mod life;
mod modern;
mod page;
mod sse;
mod streamable;
mod table;

pub use life::told;

use super::external::Sdk;

/// How a client speaks with the gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// Streamable HTTP with sessions.
    Sessions,
    /// Streamable HTTP without.
    Modern,
    /// HTTP+SSE.
    Sse,
}

/// One client in one of its ways, before the Python SDK's server.
struct Row {
    sdk: Sdk,
    way: Way,
    name: &'static str,
    /// What its own documentation calls the way.
    mode: &'static str,
    /// The revision it agrees on.
    revision: &'static str,
    /// What its caller sees, by moment.
    sees: [&'static str; MOMENTS.len()],
}

/// When something happens to a call, and what becomes of it.
const MOMENTS: [(Event, &str); 10] = [
    (Event::Broken, "the call in flight"),
    (Event::Broken, "the next call"),
    (Event::Restarted, "the call in flight"),
    (Event::Restarted, "the next call"),
    (Event::Terminated, "the call in flight"),
    (Event::Terminated, "the next call"),
    (Event::Revoked, "the call in flight"),
    (Event::Revoked, "the next call"),
    (Event::Revoked, "connecting anew with the old token"),
    (Event::Revoked, "a call of the same client with a fresh token"),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Event {
    Broken,
    Restarted,
    Terminated,
    Revoked,
}

fn row(sdk: Sdk, way: Way) -> &'static Row {
    table::TABLE.iter().find(|row| row.sdk == sdk && row.way == way).unwrap()
}
