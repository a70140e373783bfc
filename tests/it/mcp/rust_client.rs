//! rmcp's client, driven as tests/clients/mcp_driver.py says, but in this process and without `listen`.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::BoxStream;
use parking_lot::Mutex;
use reqwest::header::{HeaderName, HeaderValue};
use rmcp::model::{
    CallToolRequest, CallToolRequestParams, ClientCapabilities, ClientConfig, ClientJsonRpcMessage,
    ClientRequest, Implementation, PingRequest, ProgressNotificationParam, ProtocolVersion, ServerResult,
};
use rmcp::service::{
    ClientInitializeError, ClientLifecycleMode, ClientServiceExt, NotificationContext, PeerRequestOptions,
    RunningService,
};
use rmcp::transport::auth::{AuthClient, ClientCredentialsConfig, OAuthState};
use rmcp::transport::streamable_http_client::{
    SseError, StreamableHttpClient, StreamableHttpClientTransport, StreamableHttpClientTransportConfig,
    StreamableHttpError, StreamableHttpPostResponse,
};
use rmcp::{ClientHandler, Peer, RoleClient, ServiceError};
use serde_json::{Value, json};
use sse_stream::Sse;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use tokio_util::sync::CancellationToken;

type Failure = StreamableHttpError<reqwest::Error>;

/// Obeys commands, side by side, until nobody gives any more.
pub async fn obey_all(mut commands: UnboundedReceiver<Value>, lines: UnboundedSender<String>) {
    let house = Arc::new(House { lines, clients: Mutex::default(), running: Mutex::default() });
    while let Some(command) = commands.recv().await {
        let house = house.clone();
        let given_up = CancellationToken::new();
        house.running.lock().insert(command["id"].to_string(), given_up.clone());
        tokio::spawn(async move {
            let (id, client) = (command["id"].clone(), name(&command).to_owned());
            let line = match house.obey(&command, given_up).await {
                Ok(result) => json!({ "id": id, "client": client, "ok": true, "result": result }),
                Err(error) => json!({ "id": id, "client": client, "ok": false, "error": error }),
            };
            house.running.lock().remove(&id.to_string());
            house.lines.send(line.to_string()).ok();
        });
    }
}

/// Gets in by rmcp's own provider of client credentials, told nothing but where, who and the secret: the tools it was shown.
pub async fn sign_in(arguments: &[&str]) -> Result<Value, String> {
    let [url, client_id, client_secret] = arguments else { panic!("{arguments:?}") };
    let mut state = OAuthState::new(*url, None).await.map_err(|error| error.to_string())?;
    let config = ClientCredentialsConfig::ClientSecret {
        client_id: (*client_id).to_owned(),
        client_secret: (*client_secret).to_owned(),
        scopes: vec![],
        resource: Some((*url).to_owned()),
    };
    state.authenticate_client_credentials(config).await.map_err(|error| error.to_string())?;
    let manager = state.into_authorization_manager().ok_or("it did not get in")?;
    let http = AuthClient::new(reqwest::Client::default(), manager);
    let config = StreamableHttpClientTransportConfig::with_uri(*url);
    let transport = StreamableHttpClientTransport::with_client(http, config);
    let running = ().serve_with_lifecycle(transport, ClientLifecycleMode::Initialize).await;
    let running = running.map_err(|error| error.to_string())?;
    let tools = running.peer().list_all_tools().await.map_err(|error| error.to_string())?;
    running.cancel().await.ok();
    Ok(tools.into_iter().map(|tool| Value::from(tool.name.into_owned())).collect())
}

struct House {
    lines: UnboundedSender<String>,
    clients: Mutex<HashMap<String, Connection>>,
    /// What gives up a running command.
    running: Mutex<HashMap<String, CancellationToken>>,
}

struct Connection {
    wire: Wire,
    asked: Asked,
    timeout: Duration,
    running: RunningService<RoleClient, Handler>,
}

/// Which command a progress token belongs to.
type Asked = Arc<Mutex<HashMap<String, Value>>>;

fn name(command: &Value) -> &str {
    command["client"].as_str().unwrap_or("main")
}

fn seconds(value: &Value) -> Option<Duration> {
    value.as_f64().map(Duration::from_secs_f64)
}

impl House {
    async fn obey(&self, command: &Value, given_up: CancellationToken) -> Result<Value, Value> {
        match command["op"].as_str().unwrap_or("") {
            "connect" => self.connect(command).await,
            "cancel" => {
                let target = self.running.lock().get(&command["target"].to_string()).cloned();
                target.iter().for_each(CancellationToken::cancel);
                Ok(json!({ "cancelled": target.is_some() }))
            }
            "list_tools" => {
                let peer = self.with(command, |client| client.running.peer().clone())?;
                peer.clear_response_cache().await;
                peer.list_tools(None).await.map(|tools| json!(tools)).map_err(|error| service(&error))
            }
            "call" => self.call(command, given_up).await,
            "ping" => {
                let peer = self.with(command, |client| client.running.peer().clone())?;
                let ping = ClientRequest::PingRequest(PingRequest::default());
                peer.send_request(ping).await.map(|_| json!({})).map_err(|error| service(&error))
            }
            "set_token" => self.with(command, |client| {
                *client.wire.token.lock() = command["token"].as_str().map(str::to_owned);
                json!({})
            }),
            "session_id" => self.with(command, |client| json!({ "session_id": *client.wire.session.lock() })),
            "close" => {
                let client = self.clients.lock().remove(name(command));
                let client = client.ok_or_else(not_connected)?;
                client.running.cancel().await.ok();
                Ok(json!({}))
            }
            op => Err(json!({ "type": "BadCommand", "message": format!("unknown op {op:?}") })),
        }
    }

    fn with<T>(&self, command: &Value, look: impl FnOnce(&Connection) -> T) -> Result<T, Value> {
        self.clients.lock().get(name(command)).map(look).ok_or_else(not_connected)
    }

    async fn connect(&self, command: &Value) -> Result<Value, Value> {
        let token = command["token"].as_str().map(str::to_owned);
        let wire = Wire::new(token);
        let asked = Asked::default();
        let client_name = command["client_info"]["name"].as_str().unwrap_or("sessiond-test");
        let handler = Handler {
            info: ClientConfig::new(ClientCapabilities::default(), Implementation::new(client_name, "0")),
            asked: asked.clone(),
            lines: self.lines.clone(),
        };
        let modern = vec![ProtocolVersion::V_2026_07_28];
        let mode = match command["mode"].as_str().unwrap_or("legacy") {
            "legacy" => ClientLifecycleMode::Initialize,
            "auto" => ClientLifecycleMode::Auto { preferred_versions: modern, legacy_version: None },
            _ => ClientLifecycleMode::Discover { preferred_versions: modern },
        };
        let url = command["url"].as_str().unwrap_or_default();
        let config = StreamableHttpClientTransportConfig::with_uri(url);
        let transport = StreamableHttpClientTransport::with_client(wire.clone(), config);
        let running =
            handler.serve_with_lifecycle(transport, mode).await.map_err(|error| greeting(&error))?;
        let version = running.peer_info().map(|info| info.protocol_version.to_string());
        let result = json!({ "protocol_version": version, "session_id": *wire.session.lock() });
        let timeout = seconds(&command["timeout_seconds"]).unwrap_or(Duration::from_secs(30));
        self.clients.lock().insert(name(command).to_owned(), Connection { wire, asked, timeout, running });
        Ok(result)
    }

    async fn call(&self, command: &Value, given_up: CancellationToken) -> Result<Value, Value> {
        let (peer, asked, timeout): (Peer<RoleClient>, Asked, Duration) = self
            .with(command, |client| (client.running.peer().clone(), client.asked.clone(), client.timeout))?;
        let mut params = CallToolRequestParams::new(command["name"].as_str().unwrap_or_default().to_owned());
        params.arguments = command["arguments"].as_object().cloned();
        let request = ClientRequest::CallToolRequest(CallToolRequest::new(params));
        let sent = peer.send_cancellable_request(request, PeerRequestOptions::no_options()).await;
        let mut handle = sent.map_err(|error| service(&error))?;
        asked.lock().insert(format!("{:?}", handle.progress_token), command["id"].clone());
        let timeout = seconds(&command["timeout_seconds"]).unwrap_or(timeout);
        let answer = tokio::select! {
            answer = &mut handle.rx => answer.unwrap_or(Err(ServiceError::TransportClosed)),
            () = given_up.cancelled() => {
                handle.cancel(Some("gave up".into())).await.ok();
                return Err(json!({ "type": "Cancelled", "message": "cancelled" }));
            }
            () = tokio::time::sleep(timeout) => {
                handle.cancel(Some("request timeout".into())).await.ok();
                Err(ServiceError::Timeout { timeout })
            }
        };
        match answer {
            Ok(ServerResult::CallToolResult(result)) => Ok(json!(result)),
            Ok(other) => Ok(json!(other)),
            Err(error) => Err(service(&error)),
        }
    }
}

fn not_connected() -> Value {
    json!({ "type": "NotConnected", "message": "the client is not connected" })
}

// ---- errors, as the drivers tell them ----

/// The name of an error's variant.
fn variant(error: &impl std::fmt::Debug) -> String {
    let text = format!("{error:?}");
    text.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default().to_owned()
}

fn service(error: &ServiceError) -> Value {
    match error {
        ServiceError::McpError(error) => mcp(error),
        ServiceError::TransportSend(transport) => failure(transport.error.as_ref()),
        _ => json!({ "type": variant(error), "message": error.to_string() }),
    }
}

fn mcp(error: &rmcp::ErrorData) -> Value {
    json!({ "type": "McpError", "code": error.code.0, "message": error.message, "data": error.data })
}

fn greeting(error: &ClientInitializeError) -> Value {
    match error {
        ClientInitializeError::JsonRpcError(error) => mcp(error),
        ClientInitializeError::TransportError { error, .. } => failure(error.error.as_ref()),
        ClientInitializeError::LegacyFallbackFailed { fallback, .. } => greeting(fallback),
        _ => json!({ "type": variant(error), "message": error.to_string() }),
    }
}

/// What HTTP did. rmcp tells its callers the status only where it has a name for it.
fn failure(error: &(dyn std::error::Error + Send + Sync + 'static)) -> Value {
    let Some(error) = error.downcast_ref::<Failure>() else {
        return json!({ "type": "TransportSend", "message": error.to_string() });
    };
    let mut told = json!({ "type": variant(error), "message": error.to_string() });
    match error {
        StreamableHttpError::AuthRequired(required) => {
            told["status"] = json!(401);
            told["www_authenticate"] = json!(required.www_authenticate_header);
        }
        StreamableHttpError::InsufficientScope(_) => told["status"] = json!(403),
        StreamableHttpError::SessionExpired => told["status"] = json!(404),
        _ => {}
    }
    told
}

// ---- what rmcp asks of us ----

struct Handler {
    info: ClientConfig,
    asked: Asked,
    lines: UnboundedSender<String>,
}

impl ClientHandler for Handler {
    fn get_info(&self) -> ClientConfig {
        self.info.clone()
    }

    async fn on_progress(&self, params: ProgressNotificationParam, _: NotificationContext<RoleClient>) {
        let command = self.asked.lock().get(&format!("{:?}", params.progress_token)).cloned();
        let line = json!({
            "event": "progress", "for": command, "progress": params.progress, "total": params.total,
            "message": params.message,
        });
        self.lines.send(line.to_string()).ok();
    }
}

/// rmcp's own HTTP client, with the token of the moment.
#[derive(Clone)]
struct Wire {
    http: reqwest::Client,
    token: Arc<Mutex<Option<String>>>,
    session: Arc<Mutex<Option<String>>>,
}

impl Wire {
    fn new(token: Option<String>) -> Self {
        // As rmcp sets it up by itself.
        let http = reqwest::Client::builder().pool_max_idle_per_host(0).build().unwrap();
        Self { http, token: Arc::new(Mutex::new(token)), session: Arc::default() }
    }

    fn token(&self) -> Option<String> {
        self.token.lock().clone()
    }
}

impl StreamableHttpClient for Wire {
    type Error = reqwest::Error;

    async fn post_message(
        &self,
        uri: Arc<str>,
        message: ClientJsonRpcMessage,
        session: Option<Arc<str>>,
        _: Option<String>,
        headers: HashMap<HeaderName, HeaderValue>,
    ) -> Result<StreamableHttpPostResponse, Failure> {
        let answer = self.http.post_message(uri, message, session, self.token(), headers).await?;
        if let StreamableHttpPostResponse::Json(_, Some(id)) | StreamableHttpPostResponse::Sse(_, Some(id)) =
            &answer
        {
            *self.session.lock() = Some(id.clone());
        }
        Ok(answer)
    }

    async fn delete_session(
        &self,
        uri: Arc<str>,
        session: Arc<str>,
        _: Option<String>,
        headers: HashMap<HeaderName, HeaderValue>,
    ) -> Result<(), Failure> {
        self.http.delete_session(uri, session, self.token(), headers).await
    }

    async fn get_stream(
        &self,
        uri: Arc<str>,
        session: Option<Arc<str>>,
        last_event_id: Option<String>,
        _: Option<String>,
        headers: HashMap<HeaderName, HeaderValue>,
    ) -> Result<BoxStream<'static, Result<Sse, SseError>>, Failure> {
        self.http.get_stream(uri, session, last_event_id, self.token(), headers).await
    }
}
