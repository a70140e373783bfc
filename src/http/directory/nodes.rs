//! The processes that serve one database, for whoever runs the installation.

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::error::Error;
use crate::http::extract::Platform;
use crate::http::problem::Problem;
use crate::http::{App, time};
use crate::nodes::Node;

/// A process that serves.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Node)]
pub struct NodeView {
    /// Given out once: a process that starts anew is another node.
    number: i64,
    #[schema(format = Uuid)]
    id: Uuid,
    /// Whether it is the one that answers.
    answers: bool,
    /// Where the other nodes reach it; null where they do not.
    #[schema(required = true)]
    url: Option<String>,
    version: String,
    #[schema(format = DateTime)]
    started_at: String,
    /// Whether it lets anybody in, by the database's clock.
    serves: bool,
    /// Until when it may, unless it renews that; null while it loads, and once it has stopped.
    #[schema(required = true, format = DateTime)]
    lease_expires_at: Option<String>,
    /// The last commit that it has said to have applied, and how many it lacks of those that this one has: of commits nobody
    /// waits for it says so every half second.
    applied: i64,
    behind: i64,
}

/// The processes that serve.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeList {
    /// In the order of their numbers, with those that are gone since a few minutes; empty where a file is served, because one
    /// process does that.
    items: Vec<NodeView>,
    /// Whether this node is told of the others' commits at once. Otherwise it looks for them every 100 ms.
    told_at_once: bool,
}

/// List nodes
///
/// Which processes serve this database, until when each may, and how far it has come.
#[utoipa::path(
    get, path = "/api/v1/nodes", operation_id = "nodes.list", tag = "nodes",
    security(("bearer" = [])),
    responses((status = 200, description = "The nodes.", body = NodeList)),
)]
pub async fn list_nodes(
    Platform(_caller): Platform,
    State(app): State<App>,
) -> Result<Json<NodeList>, Problem> {
    let nodes = app.peers.nodes().await.map_err(Error::from)?;
    let (own, applied) = (app.peers.own(), app.catch_up.at().unwrap_or_default());
    let view = |node: &Node| NodeView {
        number: node.number,
        id: node.id,
        answers: own == Some(node.number),
        url: node.url.clone(),
        version: node.version.clone(),
        started_at: time(node.started_at),
        serves: node.leased,
        lease_expires_at: node.lease_expires_at.map(time),
        applied: node.applied,
        behind: (applied - node.applied).max(0),
    };
    Ok(Json(NodeList { items: nodes.iter().map(view).collect(), told_at_once: app.peers.told_at_once() }))
}
