//! Clients of the revisions with sessions.

use super::life::live;
use super::{Way, row};
use crate::mcp::external::Sdk;

#[tokio::test(flavor = "multi_thread")]
async fn the_python_client_2_with_sessions_lives_its_whole_life() {
    live(row(Sdk::Python2, Way::Sessions)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_python_client_1_with_sessions_lives_its_whole_life() {
    live(row(Sdk::Python1, Way::Sessions)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_typescript_client_2_with_sessions_lives_its_whole_life() {
    live(row(Sdk::TypeScript2, Way::Sessions)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_typescript_client_1_with_sessions_lives_its_whole_life() {
    live(row(Sdk::TypeScript1, Way::Sessions)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rust_client_with_sessions_lives_its_whole_life() {
    live(row(Sdk::Rust, Way::Sessions)).await;
}
