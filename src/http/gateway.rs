//! The MCP gateway as a surface; [`mcp`](crate::mcp) has what it does, and its errors.

use utoipa_axum::router::OpenApiRouter;

use super::surface::{PLAIN, Routes, Surface};
use crate::mcp;

/// A message may be 64 times as large as other bodies, and a call takes as long as the upstream does. The gateway itself
/// authenticates, and decides how much it reads.
static GATEWAY: Surface = Surface {
    prefixes: &["/mcp"],
    body_patience: 4,
    deadline: false,
    cors: Some(|app, parts, headers| app.gateway.set_cors_headers(parts, headers)),
    ..PLAIN
};

pub fn surface() -> Routes {
    Routes::of(&GATEWAY, OpenApiRouter::new())
        .with_later(&GATEWAY, |app, _| mcp::router(app.gateway.clone()))
        .with_later(&PLAIN, |app, _| mcp::documents(app.gateway.clone()))
}
