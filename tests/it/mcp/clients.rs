//! The gateway between clients and servers that others wrote: the official Python SDK's, and the reference server.
//! `make clients` installs them.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::House;

pub fn clients() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients")
}

fn python() -> PathBuf {
    let python = clients().join(".venv/bin/python");
    assert!(python.exists(), "run `make clients` first: it installs what these tests speak with");
    python
}

/// A process of others' code that talks in lines. It ends with this value.
struct Foreign {
    child: Child,
    stdin: ChildStdin,
    lines: mpsc::UnboundedReceiver<String>,
}

impl Foreign {
    fn start(command: &mut Command) -> Self {
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let (stdin, stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let (say, lines) = mpsc::unbounded_channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                say.send(line).ok();
            }
        });
        Self { child, stdin, lines }
    }

    async fn line(&mut self) -> Option<String> {
        tokio::time::timeout(Duration::from_secs(40), self.lines.recv()).await.unwrap_or(None)
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// An MCP server that others wrote.
pub struct Foreigner {
    pub url: String,
    port: u16,
    process: Foreign,
}

impl Foreigner {
    pub async fn start(command: &mut Command, port: u16) -> Self {
        let mut process = Foreign::start(command.env("PORT", port.to_string()));
        let ready = process.line().await.expect("the server did not start");
        let port: u16 = ready.strip_prefix("ready ").unwrap().parse().unwrap();
        Self { url: format!("http://127.0.0.1:{port}/mcp"), port, process }
    }

    async fn python(port: u16) -> Self {
        Self::start(Command::new(python()).arg(clients().join("mcp_server.py")), port).await
    }

    async fn everything(port: u16) -> Self {
        let script = clients().join("everything.mjs");
        Self::start(Command::new("node").arg(script).current_dir(clients()), port).await
    }

    /// Kills it and frees its port.
    fn kill(self) -> u16 {
        drop(self.process);
        self.port
    }
}

/// The Python SDK's client. Commands run side by side; what it says is kept until somebody asks for it.
struct Driver {
    process: Foreign,
    said: Vec<Value>,
    next: u64,
}

impl Driver {
    fn start() -> Self {
        let process = Foreign::start(Command::new(python()).arg(clients().join("mcp_client.py")));
        Self { process, said: vec![], next: 0 }
    }

    /// Gives a command; its number.
    fn begin(&mut self, mut command: Value) -> u64 {
        self.next += 1;
        command["id"] = json!(self.next);
        writeln!(self.process.stdin, "{command}").unwrap();
        self.next
    }

    /// The first line of which this is true, said already or to come.
    async fn line(&mut self, wanted: impl Fn(&Value) -> bool) -> Value {
        loop {
            if let Some(at) = self.said.iter().position(&wanted) {
                return self.said.remove(at);
            }
            let line = self.process.line().await;
            let line = line.unwrap_or_else(|| panic!("waited in vain; it said {:#?}", self.said));
            self.said.push(serde_json::from_str(&line).unwrap());
        }
    }

    async fn result_of(&mut self, id: u64) -> Value {
        self.line(|line| line["id"] == id && line.get("ok").is_some()).await
    }

    async fn run(&mut self, command: Value) -> Value {
        let id = self.begin(command);
        self.result_of(id).await
    }

    /// A command that works.
    async fn does(&mut self, command: Value) -> Value {
        let mut line = self.run(command.clone()).await;
        assert_eq!(line["ok"], true, "{command}: {line}");
        line["result"].take()
    }

    /// A command that fails.
    async fn fails(&mut self, command: Value) -> Value {
        let mut line = self.run(command.clone()).await;
        assert_eq!(line["ok"], false, "{command}: {line}");
        line["error"].take()
    }

    async fn connect(&mut self, house: &House, token: &str, more: Value) -> Value {
        let mut command = json!({ "op": "connect", "url": house.server.url(&house.path()), "token": token });
        command.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        self.does(command).await
    }
}

fn echo(text: &str) -> Value {
    json!({ "op": "call", "name": "echo", "arguments": { "message": text } })
}

async fn whole_life(mut upstream: Foreigner, restart: impl AsyncFnOnce(u16) -> Foreigner) {
    let house = House::before(&upstream.url, &["--idle-after", "1s"]).await;
    let token = house.token().await;
    let mut client = Driver::start();
    let connected = client.connect(&house, &token, json!({ "client_info": { "name": "whole life" } })).await;
    assert_eq!(connected["protocol_version"], "2025-11-25");
    assert!(connected["session_id"].as_str().unwrap().starts_with("smc_"), "{connected}");

    let tools = client.does(json!({ "op": "list_tools" })).await;
    assert!(tools["tools"].as_array().unwrap().iter().any(|tool| tool["name"] == "echo"), "{tools}");
    let answer = client.does(echo("hello")).await;
    assert!(answer["content"][0]["text"].as_str().unwrap().contains("hello"), "{answer}");
    let session = &house.sessions().await[0];
    assert_eq!(
        (&session["derivedStatus"], &session["clientInfo"]["name"]),
        (&json!("active"), &json!("whole life"))
    );
    assert!(session["userAgent"].as_str().unwrap().contains("python"), "{session}");
    house.server.turn(2);
    assert_eq!(house.sessions().await[0]["derivedStatus"], "idle");

    // The upstream loses everything; the client does not notice.
    let port = upstream.kill();
    upstream = restart(port).await;
    let answer = client.does(echo("again")).await;
    assert!(answer["content"][0]["text"].as_str().unwrap().contains("again"), "{answer}");
    assert_eq!((house.sessions().await.len(), house.connected().await), (1, 1));

    client.does(json!({ "op": "close" })).await;
    assert_eq!(house.sessions().await[0]["derivedStatus"], "disconnected");
    drop(upstream);
}

#[tokio::test]
async fn a_python_client_lives_its_life_before_the_reference_server() {
    whole_life(Foreigner::everything(0).await, Foreigner::everything).await;
}

#[tokio::test]
async fn a_python_client_lives_its_life_before_a_python_server() {
    whole_life(Foreigner::python(0).await, Foreigner::python).await;
}

#[tokio::test]
async fn progress_arrives_step_by_step_and_the_token_does_not_arrive_at_all() {
    let upstream = Foreigner::python(0).await;
    let house = House::before(&upstream.url, &[]).await;
    let token = house.token().await;
    let mut client = Driver::start();
    let connected = client.connect(&house, &token, json!({})).await;
    let id = client.begin(json!({ "op": "call", "name": "wait", "arguments": { "seconds": 1, "steps": 4 } }));
    let began = Instant::now();
    client.line(|line| line["event"] == "progress" && line["progress"] == 1.0).await;
    assert!(began.elapsed() < Duration::from_millis(900), "progress was held back: {:?}", began.elapsed());
    assert_eq!(client.result_of(id).await["ok"], true);

    let answer = client.does(json!({ "op": "call", "name": "headers" })).await;
    let text = answer["content"][0]["text"].as_str().unwrap();
    let headers: Value = serde_json::from_str(text).unwrap();
    assert!(!text.contains(&token) && headers.get("authorization").is_none(), "{text}");
    assert_ne!(headers["mcp-session-id"], connected["session_id"]);
    assert_eq!(headers["sessiond-session-id"], house.sessions().await[0]["id"]);
}

#[tokio::test]
async fn a_revoke_in_the_middle_of_a_call_reaches_the_caller_at_once_and_a_fresh_token_begins_anew() {
    let upstream = Foreigner::python(0).await;
    let house = House::before(&upstream.url, &[]).await;
    let token = house.token().await;
    let mut client = Driver::start();
    client.connect(&house, &token, json!({})).await;
    let id =
        client.begin(json!({ "op": "call", "name": "wait", "arguments": { "seconds": 30, "steps": 100 } }));
    client.line(|line| line["event"] == "progress").await;

    let began = Instant::now();
    assert_eq!(house.revoke_all().await["disconnectedCount"], 1);
    let failed = client.result_of(id).await;
    let took = began.elapsed();
    assert!(took < Duration::from_secs(1), "{took:?}");
    assert_eq!((&failed["ok"], &failed["error"]["code"]), (&json!(false), &json!(-32001)), "{failed}");
    assert_eq!(failed["error"]["data"], json!({ "reason": "revoked" }));

    let error = client.fails(echo("?")).await;
    assert_eq!(error["status"], 401, "{error}");
    assert!(error["www_authenticate"].as_str().unwrap().contains("resource_metadata="), "{error}");
    let url = house.server.url(&house.path());
    let error =
        client.fails(json!({ "op": "connect", "client": "second", "url": url, "token": token })).await;
    assert_eq!(error["status"], 401, "{error}");

    let fresh = house.token().await;
    client.does(json!({ "op": "set_token", "token": fresh })).await;
    let error = client.fails(echo("?")).await;
    assert_eq!(error["status"], 404, "{error}");
    client.connect(&house, &fresh, json!({ "client": "third" })).await;
    let mut call = echo("back");
    call["client"] = json!("third");
    client.does(call).await;
}

#[tokio::test]
async fn a_client_that_asks_for_the_newest_revision_falls_back_by_itself() {
    let upstream = Foreigner::everything(0).await;
    let house = House::before(&upstream.url, &[]).await;
    let token = house.token().await;
    let mut client = Driver::start();
    let connected = client.connect(&house, &token, json!({ "mode": "auto" })).await;
    assert_eq!(connected["protocol_version"], "2025-11-25");
    let asked = client.line(|line| line["event"] == "http" && line["rpc"] == "server/discover").await;
    assert_eq!(asked["status"], 400);
    client.does(echo("hello")).await;
    assert_eq!(house.connected().await, 1);
}

#[tokio::test]
async fn a_restart_of_sessiond_in_the_middle_is_no_end_for_a_python_client() {
    let upstream = Foreigner::everything(0).await;
    // The client knows one address only: this one stays in front while sessiond moves behind it.
    let house = House::before(&upstream.url, &[]).await;
    let token = house.token().await;
    let front = Front::start(house.server.running.as_ref().unwrap().address).await;
    let mut client = Driver::start();
    let url = format!("http://{}{}", front.address, house.path());
    let connected = client.does(json!({ "op": "connect", "url": url, "token": token })).await;
    client.does(echo("before")).await;
    let house = house.restart().await;
    front.point_at(house.server.running.as_ref().unwrap().address);
    client.does(echo("after")).await;
    assert_eq!(client.does(json!({ "op": "session_id" })).await["session_id"], connected["session_id"]);
    assert_eq!(house.connected().await, 1);
}

/// An address that leads to another, whichever that is at the moment.
struct Front {
    address: std::net::SocketAddr,
    behind: std::sync::Arc<parking_lot::Mutex<std::net::SocketAddr>>,
}

impl Front {
    async fn start(behind: std::net::SocketAddr) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let behind = std::sync::Arc::new(parking_lot::Mutex::new(behind));
        let target = behind.clone();
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let target = *target.lock();
                tokio::spawn(async move {
                    let mut server = tokio::net::TcpStream::connect(target).await?;
                    tokio::io::copy_bidirectional(&mut client, &mut server).await
                });
            }
        });
        Self { address, behind }
    }

    fn point_at(&self, address: std::net::SocketAddr) {
        *self.behind.lock() = address;
    }
}
