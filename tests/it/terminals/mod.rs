//! Terminals in the house: machines, sessions, the WebSocket and what is kept, on a real OpenSSH server.

mod attaching;
mod checklist;
mod endings;
mod floods;
mod leaks;
mod recorded_input;
mod refused_machines;
mod rules;
mod smoke;
mod untrusted_output;
pub mod websocket_client;

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::support::{Daemon, Holder, Server};
use crate::terminal::sshd::{SHELL, Sshd, user};

pub use websocket_client::TerminalClient;

const SESSIONS: &str = "/v1/sessions";
const MACHINES: &str = "/v1/machines";

/// A server, an OpenSSH server that it has as a machine, and two who may open terminals.
pub struct House {
    server: Server,
    sshd: Sshd,
    /// A key of the organization's own: sees everybody's sessions, and manages machines.
    own: Holder,
    /// A key that acts for a person.
    ada: Holder,
    /// The machine's id.
    machine: String,
}

/// A terminal that was opened.
#[derive(Clone)]
pub struct Opened {
    pub id: String,
    pub url: String,
    pub token: String,
    pub body: Value,
}

impl House {
    async fn new() -> Self {
        Self::with(&[], SHELL, "").await
    }

    async fn flagged(flags: &[&str]) -> Self {
        Self::with(flags, SHELL, "").await
    }

    /// With flags, this instead of the user's shell, and further settings of sshd.
    async fn with(flags: &[&str], shell: &str, settings: &str) -> Self {
        let server = Server::with(flags).await;
        let sshd = Sshd::with(&["host_ed25519"], shell, settings);
        let own = key(&server, json!({ "name": "own", "scopes": ["terminal"] })).await;
        let person = json!({ "id": "ada", "name": "Ada Lovelace", "email": "ada@example.com" });
        let ada = key(&server, json!({ "name": "ada's", "scopes": ["terminal"], "user": person })).await;
        let machine = machine(&own, &machine_body(&sshd)).await;
        let pinned = own.post(&format!("{MACHINES}/{machine}/test"), json!({ "pin_host_key": true })).await;
        assert_eq!(pinned.0, 200, "{pinned:?}");
        Self { server, sshd, own, ada, machine }
    }

    /// Opens a terminal on the machine.
    async fn open(&self, holder: &Holder) -> Opened {
        self.open_with(holder, json!({ "machine_id": self.machine })).await
    }

    async fn open_with(&self, holder: &Holder, body: Value) -> Opened {
        opened(holder.post(SESSIONS, body).await)
    }

    /// Opens a terminal and sits down at it.
    async fn sit(&self, holder: &Holder) -> (Opened, TerminalClient) {
        let opened = self.open(holder).await;
        let client = TerminalClient::take(&opened).await;
        (opened, client)
    }

    /// A session as it is shown.
    async fn detail(&self, id: &str) -> Value {
        let (status, body) = self.own.get(&format!("{SESSIONS}/{id}")).await;
        assert_eq!(status, 200, "{body}");
        body["data"].clone()
    }

    /// Waits until a session has ended, and shows it.
    async fn ended(&self, id: &str) -> Value {
        self.server.until("it has ended", async || self.detail(id).await["status"] == "ended").await;
        self.detail(id).await
    }

    /// The log of a session.
    async fn logs(&self, id: &str) -> Vec<Value> {
        let (status, body) = self.own.get(&format!("{SESSIONS}/{id}/logs?limit=10000")).await;
        assert_eq!(status, 200, "{body}");
        body["data"]["logs"].as_array().unwrap().clone()
    }

    /// The command lines in it.
    async fn commands(&self, id: &str) -> Vec<String> {
        let logs = self.logs(id).await;
        let commands = logs.iter().filter(|entry| entry["type"] == "command");
        commands.map(|entry| entry["content"].as_str().unwrap().to_owned()).collect()
    }

    /// All its output, in one.
    async fn printed(&self, id: &str) -> String {
        let logs = self.logs(id).await;
        let output = logs.iter().filter(|entry| entry["type"] == "output");
        output.map(|entry| entry["content"].as_str().unwrap()).collect()
    }

    /// The ids of a list.
    async fn listed(&self, holder: &Holder, query: &str) -> Vec<String> {
        let (status, body) = holder.get(&format!("{SESSIONS}{query}")).await;
        assert_eq!(status, 200, "{body}");
        let sessions = body["data"]["sessions"].as_array().unwrap().iter();
        sessions.map(|one| one["id"].as_str().unwrap().to_owned()).collect()
    }

    /// How often, and why, a session was disconnected, as the log has it.
    async fn disconnects(&self, id: &str) -> Vec<String> {
        let uuid = uuid::Uuid::parse_str(id.strip_prefix("sess_").unwrap()).unwrap();
        let sql = "select e.body from event e join session s on s.number = e.stream_number
             where e.stream_kind = 4 and e.type = 'disconnected' and s.id = $1 order by e.position";
        let bodies: Vec<(String,)> = self.server.look_inside().await.rows(sql, &[uuid.into()]).await;
        let reason = |body: String| serde_json::from_str::<Value>(&body).unwrap()["reason"].clone();
        bodies.into_iter().map(|(body,)| reason(body).as_str().unwrap().to_owned()).collect()
    }
}

/// Makes an API key and gives who holds it.
async fn key(server: &Server, body: Value) -> Holder {
    let operator = server.operator().await;
    let (status, made) = operator.post("/api/v1/api-keys", body).await;
    assert_eq!(status, 201, "{made}");
    Holder { token: Some(made["key"].as_str().unwrap().to_owned()), ..operator }
}

/// What the machine is made with.
pub fn machine_body(sshd: &Sshd) -> Value {
    json!({
        "name": "Production Server",
        "host": "127.0.0.1",
        "port": sshd.port,
        "user": user(),
        "credential": { "type": "private_key", "private_key": sshd.pem("user") },
    })
}

/// Makes a machine; its id.
pub async fn machine(own: &Holder, body: &Value) -> String {
    let (status, made) = own.post(MACHINES, body.clone()).await;
    assert_eq!(status, 201, "{made}");
    made["data"]["id"].as_str().unwrap().to_owned()
}

pub fn opened((status, body): (StatusCode, Value)) -> Opened {
    assert_eq!(status, 201, "{body}");
    let text = |field: &str| body["data"][field].as_str().unwrap().to_owned();
    Opened { id: text("session_id"), url: text("websocket_url"), token: text("token"), body }
}

/// An error as this surface says it.
fn refusal(code: &str, (status, body): (StatusCode, Value)) -> (u16, String) {
    let message = body["error"]["message"].as_str().unwrap_or_else(|| panic!("{status} {body}")).to_owned();
    assert_eq!(body, json!({ "success": false, "error": { "code": code, "message": message } }), "{status}");
    (status.as_u16(), message)
}

/// A server as a process, and a machine.
pub async fn outside(directory: &tempfile::TempDir) -> (Daemon, Sshd, Holder, String) {
    let sshd = Sshd::start();
    let daemon = Daemon::start(directory.path(), &[]);
    let operator = daemon.operator().await;
    let key = json!({ "name": "own", "scopes": ["terminal"] });
    let (_, made) = operator.post("/api/v1/api-keys", key).await;
    let own = Holder { token: made["key"].as_str().map(str::to_owned), ..operator };
    let machine = machine(&own, &machine_body(&sshd)).await;
    own.post(&format!("{MACHINES}/{machine}/test"), json!({ "pin_host_key": true })).await;
    (daemon, sshd, own, machine)
}
