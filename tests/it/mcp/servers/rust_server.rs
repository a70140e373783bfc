//! rmcp's server, in this process, with the tools of tests/clients/more_servers.py.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use parking_lot::Mutex;
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, ListToolsResult,
    PaginatedRequestParams, ProgressNotificationParam, ServerCapabilities, ServerConfig, Tool,
};
use rmcp::service::RequestContext;
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use rmcp::transport::streamable_http_server::{StreamableHttpServerConfig, StreamableHttpService};
use rmcp::{ErrorData, RoleServer, ServerHandler};
use serde_json::{Map, Value, json};
use tokio_util::sync::CancellationToken;

/// It ends with this value.
pub struct RustServer {
    pub url: String,
    end: CancellationToken,
}

impl Drop for RustServer {
    fn drop(&mut self) {
        self.end.cancel();
    }
}

impl RustServer {
    pub async fn start() -> Self {
        let end = CancellationToken::new();
        let tools = Tools::default();
        // As it is by itself.
        let config = StreamableHttpServerConfig::default().with_cancellation_token(end.child_token());
        let sessions = Arc::new(LocalSessionManager::default());
        let service = StreamableHttpService::new(move || Ok(tools.clone()), sessions, config);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/mcp", listener.local_addr().unwrap());
        let served = axum::serve(listener, Router::new().nest_service("/mcp", service)).into_future();
        tokio::spawn(end.clone().run_until_cancelled_owned(served));
        Self { url, end }
    }
}

#[derive(Clone, Default)]
struct Tools {
    /// How many calls were cancelled, by label.
    cancelled: Arc<Mutex<HashMap<String, usize>>>,
}

impl Tools {
    /// Whether it came to its end.
    async fn wait(&self, given: &Map<String, Value>, context: &RequestContext<RoleServer>) -> bool {
        let (seconds, steps) = (given["seconds"].as_f64().unwrap(), given["steps"].as_u64().unwrap());
        let pause = Duration::from_secs_f64(seconds / steps as f64);
        for step in 1..=steps {
            if context.ct.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                *self.cancelled.lock().entry(label(given)).or_default() += 1;
                return false;
            }
            if let Some(token) = context.meta.get_progress_token() {
                let progress = ProgressNotificationParam::new(token, step as f64).with_total(steps as f64);
                context.peer.notify_progress(progress).await.ok();
            }
        }
        true
    }
}

fn label(given: &Map<String, Value>) -> String {
    given["label"].as_str().unwrap().to_owned()
}

impl ServerHandler for Tools {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
    }

    async fn list_tools(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        let schema = Arc::new(Map::from_iter([("type".to_owned(), json!("object"))]));
        let tools = ["echo", "wait", "given_up"].map(|name| Tool::new(name, name, schema.clone()));
        Ok(ListToolsResult::with_all_items(tools.into()))
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let given = request.arguments.unwrap_or_default();
        let text = match &*request.name {
            "echo" => format!("Echo: {}", given["message"].as_str().unwrap()),
            "wait" if self.wait(&given, &context).await => {
                format!("waited {} seconds", given["seconds"].as_f64().unwrap())
            }
            "wait" => "cancelled".into(),
            _ => self.cancelled.lock().get(&label(&given)).copied().unwrap_or(0).to_string(),
        };
        Ok(CallToolResult::success(vec![ContentBlock::text(text)]).into())
    }
}
