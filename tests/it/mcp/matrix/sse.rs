//! Clients of HTTP+SSE, the transport of 2024-11-05.

use super::life::live;
use super::{Way, row};
use crate::mcp::external::Sdk;

#[tokio::test(flavor = "multi_thread")]
async fn the_python_client_1_over_sse_lives_its_whole_life() {
    live(row(Sdk::Python1, Way::Sse)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_typescript_client_1_over_sse_lives_its_whole_life() {
    live(row(Sdk::TypeScript1, Way::Sse)).await;
}
