//! Clients of the revision without sessions.

use super::life::live;
use super::{Way, row};
use crate::mcp::external::Sdk;

#[tokio::test(flavor = "multi_thread")]
async fn the_python_client_2_auto_lives_its_whole_life() {
    live(row(Sdk::Python2, Way::Modern)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_typescript_client_2_auto_lives_its_whole_life() {
    live(row(Sdk::TypeScript2, Way::Modern)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rust_client_with_discover_lives_its_whole_life() {
    live(row(Sdk::Rust, Way::Modern)).await;
}
