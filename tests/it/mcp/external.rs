//! Clients and servers that others wrote, as processes beside the test. `make clients` installs them.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::{House, rust_client};

pub fn clients() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients")
}

fn python(environment: &str) -> Command {
    let python = clients().join(environment).join("bin/python");
    assert!(python.exists(), "run `make clients` first: it installs what these tests speak with");
    Command::new(python)
}

fn node(script: &str) -> Command {
    let mut command = Command::new("node");
    command.arg(clients().join(script)).current_dir(clients());
    command
}

/// It ends with this value.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// A process that talks in lines.
fn start(command: &mut Command) -> (Process, ChildStdin, mpsc::UnboundedReceiver<String>) {
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    let (stdin, stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let (say, lines) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            say.send(line).ok();
        }
    });
    (Process(child), stdin, lines)
}

async fn line(lines: &mut mpsc::UnboundedReceiver<String>) -> Option<String> {
    tokio::time::timeout(Duration::from_secs(60), lines.recv()).await.unwrap_or(None)
}

/// An MCP server that others wrote.
pub struct ExternalProcess {
    pub url: String,
    port: u16,
    process: Process,
    /// It ends when this closes.
    _stdin: ChildStdin,
}

impl ExternalProcess {
    pub async fn start(command: &mut Command, port: u16) -> Self {
        let (process, stdin, mut lines) = start(command.env("PORT", port.to_string()));
        let ready = line(&mut lines).await.expect("the server did not start");
        let port: u16 = ready.strip_prefix("ready ").unwrap().parse().unwrap();
        Self { url: format!("http://127.0.0.1:{port}/mcp"), port, process, _stdin: stdin }
    }

    pub async fn python(port: u16) -> Self {
        let mut command = python(".venv");
        command.arg(clients().join("mcp_server.py"));
        Self::start(&mut command, port).await
    }

    /// One of tests/clients/more_servers.py, in the environment that has its framework.
    pub async fn more_python(environment: &str, kind: &str) -> Self {
        let mut command = python(environment);
        command.arg(clients().join("more_servers.py")).arg(kind);
        Self::start(&mut command, 0).await
    }

    /// One of tests/clients/more_servers.mjs.
    pub async fn more_node(kind: &str) -> Self {
        Self::start(node("more_servers.mjs").arg(kind), 0).await
    }

    pub async fn everything(port: u16) -> Self {
        Self::start(&mut node("everything.mjs"), port).await
    }

    /// Kills it and frees its port.
    pub fn kill(self) -> u16 {
        drop(self.process);
        self.port
    }
}

/// Runs a program to its end: what it printed, or what it complained of.
async fn outcome(mut command: Command) -> Result<String, String> {
    let run = tokio::task::spawn_blocking(move || command.stdin(Stdio::null()).output());
    let run = tokio::time::timeout(Duration::from_secs(120), run).await.expect("no end").unwrap().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match run.status.success() {
        true => Ok(text(&run.stdout)),
        false => Err(format!("{}{}", text(&run.stdout), text(&run.stderr))),
    }
}

/// Has an SDK get in by its own provider of client credentials: the tools it was shown.
pub async fn sign_in(sdk: Sdk, arguments: &[&str]) -> Result<Value, String> {
    let mut command = match sdk {
        Sdk::Rust => return rust_client::sign_in(arguments).await,
        Sdk::Python1 => python(".venv-v1"),
        Sdk::Python2 => python(".venv"),
        _ => node("sign_in.mjs"),
    };
    match sdk {
        Sdk::TypeScript1 => drop(command.arg("1")),
        Sdk::TypeScript2 => drop(command.arg("2")),
        _ => drop(command.arg(clients().join("sign_in.py"))),
    }
    command.args(arguments);
    let said = outcome(command).await?;
    serde_json::from_str(&said).map_err(|error| format!("{error}: {said}"))
}

/// Has Kontext's published client live its two lives (tests/clients/kontext): the steps that passed.
pub async fn kontext(house: &House, client_id: &str, secret: &str) -> Result<String, String> {
    let place = "target/clients/kontext/debug/kontext-life";
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join(place);
    assert!(program.exists(), "run `make clients` first: it builds what these tests speak with");
    let mut command = Command::new(program);
    command.env("BASE", house.server.url("")).env("APPLICATION", &house.application);
    command.env("CLIENT_ID", client_id).env("CLIENT_SECRET", secret);
    outcome(command).await
}

/// Whose client it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sdk {
    Python1,
    Python2,
    TypeScript1,
    TypeScript2,
    Rust,
}

/// An official SDK's client, which obeys commands as tests/clients/mcp_driver.py says. They run side by side; what it
/// says is kept until somebody asks for it.
pub struct Driver {
    give: Box<dyn FnMut(&Value) + Send>,
    lines: mpsc::UnboundedReceiver<String>,
    said: Vec<Value>,
    next: u64,
    _process: Option<Process>,
}

impl Driver {
    pub fn start(sdk: Sdk) -> Self {
        let script = |mut command: Command, script: &str| {
            command.arg(clients().join(script));
            command
        };
        let mut command = match sdk {
            Sdk::Python1 => script(python(".venv-v1"), "mcp_client_v1.py"),
            Sdk::Python2 => script(python(".venv"), "mcp_client.py"),
            Sdk::TypeScript1 => node("mcp_client.mjs"),
            Sdk::TypeScript2 => node("mcp_client.mjs"),
            Sdk::Rust => return Self::within(),
        };
        match sdk {
            Sdk::TypeScript1 => drop(command.arg("1")),
            Sdk::TypeScript2 => drop(command.arg("2")),
            _ => {}
        }
        let (process, mut stdin, lines) = start(&mut command);
        let give = Box::new(move |command: &Value| writeln!(stdin, "{command}").unwrap());
        Self { give, lines, said: vec![], next: 0, _process: Some(process) }
    }

    /// The one that needs no process.
    fn within() -> Self {
        let (commands, given) = mpsc::unbounded_channel();
        let (say, lines) = mpsc::unbounded_channel();
        tokio::spawn(rust_client::obey_all(given, say));
        let give = Box::new(move |command: &Value| commands.send(command.clone()).unwrap());
        Self { give, lines, said: vec![], next: 0, _process: None }
    }

    /// Gives a command; its number.
    pub fn begin(&mut self, mut command: Value) -> u64 {
        self.next += 1;
        command["id"] = json!(self.next);
        (self.give)(&command);
        self.next
    }

    /// The first line of which this is true, said already or to come.
    pub async fn line(&mut self, wanted: impl Fn(&Value) -> bool) -> Value {
        loop {
            if let Some(at) = self.said.iter().position(&wanted) {
                return self.said.remove(at);
            }
            let line = line(&mut self.lines).await;
            let line = line.unwrap_or_else(|| panic!("waited in vain; it said {:#?}", self.said));
            self.said.push(serde_json::from_str(&line).unwrap());
        }
    }

    /// Has a line be said again, and first.
    pub fn put_back(&mut self, line: Value) {
        self.said.insert(0, line);
    }

    /// Everything of which this is true that was said until now.
    pub fn said(&mut self, wanted: impl Fn(&Value) -> bool) -> Vec<Value> {
        let (wanted, rest) = std::mem::take(&mut self.said).into_iter().partition(wanted);
        self.said = rest;
        wanted
    }

    /// What it said that nobody asked for.
    pub fn unheard(&self) -> &[Value] {
        &self.said
    }

    pub async fn result_of(&mut self, id: u64) -> Value {
        self.line(|line| line["id"] == id && line.get("ok").is_some()).await
    }

    pub async fn run(&mut self, command: Value) -> Value {
        let id = self.begin(command);
        self.result_of(id).await
    }

    /// A command that works.
    pub async fn does(&mut self, command: Value) -> Value {
        let mut line = self.run(command.clone()).await;
        assert_eq!(line["ok"], true, "{command}: {line}; before: {:#?}", self.said);
        line["result"].take()
    }

    /// A command that fails.
    pub async fn fails(&mut self, command: Value) -> Value {
        let mut line = self.run(command.clone()).await;
        assert_eq!(line["ok"], false, "{command}: {line}");
        line["error"].take()
    }

    pub async fn connect(&mut self, house: &House, token: &str, more: Value) -> Value {
        let mut command = json!({ "op": "connect", "url": house.server.url(&house.path()), "token": token });
        command.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        self.does(command).await
    }
}
