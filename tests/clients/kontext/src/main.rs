//! Two lives of Kontext's published Rust client against a running service: a manager's, and an MCP client's before an upstream
//! that has a tool `echo`. Ends with a line for each step that passed, or with what the client said of the one that did not.
//!
//!   BASE=http://127.0.0.1:8080 CLIENT_ID=… CLIENT_SECRET=… APPLICATION=… kontext-life

use std::env;
use std::error::Error;

use kontext_dev_sdk::management::{
    AgentInstanceListParams, CreateApplicationOAuthRequest, CreateApplicationRequest,
    CreateServiceAccountRequest, KontextManagementClient, KontextManagementClientConfig, PaginationParams,
    ServiceAccountCredentials, UpdateApplicationRequest,
};
use kontext_dev_sdk::mcp::{KontextMcp, KontextMcpConfig};

type Outcome<T> = Result<T, Box<dyn Error>>;

fn setting(name: &str) -> Outcome<String> {
    env::var(name).map_err(|_| format!("{name} is not set").into())
}

/// Says that a step passed, or which one did not and why.
fn step<T, E: std::fmt::Debug>(what: &str, done: Result<T, E>) -> Outcome<T> {
    match done {
        Ok(value) => {
            println!("{what}");
            Ok(value)
        }
        Err(error) => Err(format!("{what}: {error:?}").into()),
    }
}

fn manager(base: &str, client_id: String, client_secret: String, scope: &str) -> KontextManagementClient {
    let credentials = ServiceAccountCredentials { client_id, client_secret };
    KontextManagementClient::new(KontextManagementClientConfig {
        base_url: base.to_owned(),
        credentials,
        token_url: None,
        api_version: None,
        scopes: Some(scope.split(' ').map(str::to_owned).collect()),
        audience: None,
    })
}

/// Makes, reads, changes, lists, gives a new secret, and archives, as a portal would.
async fn manage(base: &str, application: &str) -> Outcome<(String, String)> {
    let manager =
        manager(base, setting("CLIENT_ID")?, setting("CLIENT_SECRET")?, "management:all");
    let page = || Some(PaginationParams { limit: Some(10), cursor: None });

    let applications = &manager.applications;
    let oauth = CreateApplicationOAuthRequest {
        oauth_type: Some("confidential".to_owned()),
        redirect_uris: vec!["https://portal.example/callback".to_owned()],
        pkce_required: Some(true),
        scopes: Some(vec!["mcp:invoke".to_owned()]),
    };
    let new = CreateApplicationRequest { name: "Kontext's".to_owned(), oauth: Some(oauth) };
    let made = step("applications.create", applications.create(new).await)?;
    let id = made.application.id.as_str();
    for url in [&made.oauth.authorization_url, &made.oauth.token_url, &made.oauth.gateway_url] {
        step("applications.create: its URLs are ours", url.starts_with(base).then_some(()).ok_or(url))?;
    }
    step("applications.list", applications.list(page()).await)?;
    step("applications.get", applications.get(id).await)?;
    let named = UpdateApplicationRequest { name: Some("Kontext's own".to_owned()) };
    step("applications.update", applications.update(id, named).await)?;
    let rotated = step("applications.rotate_secret", applications.rotate_secret(id).await)?;
    step("applications.rotate_secret: the secret", rotated.oauth.client_secret.ok_or("none"))?;
    step("applications.archive", applications.archive(id).await)?;

    let accounts = &manager.service_accounts;
    let new = CreateServiceAccountRequest { name: "Kontext's".to_owned() };
    let made = step("service_accounts.create", accounts.create(new).await)?;
    let id = made.service_account.id.as_str();
    step("service_accounts.list", accounts.list(page()).await)?;
    step("service_accounts.get", accounts.get(id).await)?;
    let fresh = step("service_accounts.rotate_secret", accounts.rotate_secret(id).await)?.credentials;
    let old = self::manager(base, made.credentials.client_id, made.credentials.client_secret, "management:all");
    let refused = old.refresh_token().await.err().ok_or("the old secret still opens something");
    step("service_accounts.rotate_secret: the old one opens nothing", refused)?;
    let new = self::manager(base, fresh.client_id, fresh.client_secret, "management:all");
    step("service_accounts.rotate_secret: the new one does", new.refresh_token().await)?;
    step("service_accounts.revoke", accounts.revoke(id).await)?;

    let sessions = &manager.agent_sessions;
    let of = AgentInstanceListParams { application_id: Some(application.to_owned()), ..Default::default() };
    let open = step("agent_sessions.list", sessions.list(Some(of)).await)?.items;
    let one = step("agent_sessions.list: the one that was opened", open.first().ok_or("none"))?.id.clone();
    step("agent_sessions.get", sessions.get(&one).await)?;
    step("agent_sessions.revoke", sessions.revoke(&one).await)?;
    Ok((one, application.to_owned()))
}

/// Speaks MCP through the gateway.
async fn speak(client: &KontextMcp, token: &str) -> Outcome<()> {
    let tools = step("mcp.list_tools", client.list_tools_with_access_token(token).await)?;
    let echo = tools.iter().find(|tool| tool.name == "echo").ok_or("none of the name echo");
    let echo = step("mcp.list_tools: what the upstream has", echo)?;
    let arguments = serde_json::json!({ "message": "hello", "text": "hello" });
    let arguments = arguments.as_object().cloned();
    let said = client.call_tool_with_access_token(token, &echo.id, arguments).await;
    let said = step("mcp.call_tool", said)?;
    step("mcp.call_tool: its answer", said.to_string().contains("hello").then_some(()).ok_or(said))
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Outcome<()> {
    let (base, application) = (setting("BASE")?, setting("APPLICATION")?);
    let ways = manager(&base, setting("CLIENT_ID")?, setting("CLIENT_SECRET")?, "mcp:invoke");
    let token = step("mcp: a token", ways.token_manager.token().await)?;
    let config = KontextMcpConfig {
        client_session_id: "kontext-run-1".to_owned(),
        url: Some(format!("{base}/mcp/{application}")),
        server: Some(base.clone()),
        ..KontextMcpConfig::default()
    };
    let client = KontextMcp::new(config);
    speak(&client, &token).await?;
    let (_, application) = manage(&base, &application).await?;
    // Its session is revoked, and its token with it: the client says so, and goes on with another.
    let late = client.list_tools_with_access_token(&token).await.err().ok_or("it was served");
    step("mcp: a revoked token is refused", late)?;
    ways.clear_token().await;
    let token = step("mcp: another token", ways.token_manager.token().await)?;
    speak(&client, &token).await?;
    let manager = manager(&base, setting("CLIENT_ID")?, setting("CLIENT_SECRET")?, "management:all");
    let all = manager.agent_sessions.revoke_for_application(&application).await;
    step("agent_sessions.revoke_for_application", all)?;
    Ok(())
}
