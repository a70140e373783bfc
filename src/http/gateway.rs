//! The MCP gateway as a surface. What it is, and how it says what went wrong, is in [`mcp`](crate::mcp).

use utoipa_axum::router::OpenApiRouter;

use super::surface::{PLAIN, Routes, Surface};
use crate::mcp;

/// A message may be 64 times as large as other bodies, and a call takes as long as the upstream does. The gateway decides by
/// itself who asks and how much it reads.
static GATEWAY: Surface = Surface {
    prefixes: &["/mcp"],
    body_patience: 4,
    deadline: false,
    share: Some(|app, parts, answer| app.gateway.share(parts, answer)),
    ..PLAIN
};

pub fn surface() -> Routes {
    Routes::of(&GATEWAY, OpenApiRouter::new())
        .with_later(&GATEWAY, |app, _| mcp::router(app.gateway.clone()))
        .with_later(&PLAIN, |app, _| mcp::documents(app.gateway.clone()))
}
