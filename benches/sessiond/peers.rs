//! Other gateways, as `make peers` installs them: each as it comes, one process, asking nobody who it is, before the
//! upstream that sessiond stands before.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use serde_json::{Value, json};

use crate::Bench;
use crate::connection::{ask, block_on, request};
use crate::mcp::Endpoint;
use crate::server::Process;
use crate::upstream::Upstream;

/// How long one may take to start.
const PATIENCE: Duration = Duration::from_secs(90);

/// A gateway that is not ours.
pub struct Peer {
    pub name: &'static str,
    /// What is particular about it.
    pub how: &'static str,
    /// What must be there, among what was installed.
    needs: &'static str,
    start: fn(&Place<'_>) -> anyhow::Result<(Process, Endpoint)>,
}

pub const PEERS: &[Peer] = &[
    Peer {
        name: "mcp-proxy 0.6.0 (crates.io)",
        how: "one HTTP backend, no middleware; all clients share one session of the upstream",
        needs: "cargo/bin/mcp-proxy",
        start: from_crates,
    },
    Peer {
        name: "mcp-proxy 6.7.19 (npm)",
        how: "its library, since its command line only starts servers over stdio; one session of the upstream for all",
        needs: "npm/node_modules/mcp-proxy/package.json",
        start: from_npm,
    },
    Peer {
        name: "the same, over stdio",
        how: "its command line as it comes: the upstream is its child, without HTTP in between",
        needs: "npm/node_modules/mcp-proxy/package.json",
        start: from_npm_over_stdio,
    },
    Peer {
        name: "contextforge 1.0.7.post20260921",
        how: "(mcp-contextforge-gateway, PyPI) one uvicorn worker, SQLite, stateful sessions, JSON answers",
        needs: "contextforge/bin/python",
        start: from_pypi,
    },
];

/// Where one runs.
struct Place<'a> {
    installed: &'a Path,
    directory: PathBuf,
    address: SocketAddr,
    upstream: &'a Upstream,
}

impl Peer {
    /// Starts it, and waits until a session can be opened.
    pub fn start(&self, bench: &Bench, upstream: &Upstream) -> anyhow::Result<(Process, Endpoint)> {
        ensure!(bench.peers.join(self.needs).exists(), "not installed: `make peers` does that");
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let directory = bench.directory("peer");
        let place = Place { installed: &bench.peers, directory, address: port, upstream };
        let started = (self.start)(&place);
        started.map_err(|error| match place.last_words() {
            words if words.is_empty() => error,
            words => error.context(words),
        })
    }
}

impl Place<'_> {
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.current_dir(&self.directory).env("RUST_LOG", "warn");
        command
    }

    fn port(&self) -> String {
        self.address.port().to_string()
    }

    /// What it says goes to a file.
    fn run(&self, command: &mut Command) -> anyhow::Result<Process> {
        let said = File::create(self.directory.join("said"))?;
        Process::start(command.stdin(Stdio::null()).stdout(said.try_clone()?).stderr(said))
    }

    fn last_words(&self) -> String {
        let said = std::fs::read_to_string(self.directory.join("said")).unwrap_or_default();
        let mut lines: Vec<&str> = said.lines().filter(|line| !line.trim().is_empty()).collect();
        lines.split_off(lines.len().saturating_sub(3)).join(" | ").chars().take(600).collect()
    }

    fn endpoint(&self, path: &str, prefix: &str) -> Endpoint {
        Endpoint {
            address: self.address,
            path: path.into(),
            authorization: String::new(),
            prefix: prefix.into(),
        }
    }

    /// Waits until this comes out well.
    fn until<T>(
        &self,
        process: &mut Process,
        mut well: impl FnMut() -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        let began = Instant::now();
        loop {
            match well() {
                Ok(value) => return Ok(value),
                Err(error) if began.elapsed() > PATIENCE => return Err(error.context("it does not answer")),
                Err(_) if process.has_ended() => bail!("it ended at once"),
                Err(_) => std::thread::sleep(Duration::from_millis(100)),
            }
        }
    }

    fn ready(&self, mut process: Process, endpoint: Endpoint) -> anyhow::Result<(Process, Endpoint)> {
        self.until(&mut process, || block_on(endpoint.open_many(1)))?;
        Ok((process, endpoint))
    }
}

fn from_crates(place: &Place<'_>) -> anyhow::Result<(Process, Endpoint)> {
    let (port, url) = (place.port(), place.upstream.url());
    let settings = format!(
        "[proxy]\nname = \"bench\"\n[proxy.listen]\nhost = \"127.0.0.1\"\nport = {port}\n\
         [[backends]]\nname = \"bench\"\ntransport = \"http\"\nurl = \"{url}\"\n"
    );
    std::fs::write(place.directory.join("proxy.toml"), settings)?;
    let program = place.installed.join("cargo/bin/mcp-proxy");
    let process = place.run(place.command(&program.to_string_lossy()).args(["--config", "proxy.toml"]))?;
    place.ready(process, place.endpoint("/", "bench/"))
}

fn from_npm(place: &Place<'_>) -> anyhow::Result<(Process, Endpoint)> {
    let script = place.installed.join("npm/over-http.mjs");
    let mut command = place.command("node");
    let process = place.run(command.arg(script).args([place.upstream.url(), place.port()]))?;
    place.ready(process, place.endpoint("/mcp", ""))
}

fn from_npm_over_stdio(place: &Place<'_>) -> anyhow::Result<(Process, Endpoint)> {
    let script = place.installed.join("npm/node_modules/mcp-proxy/dist/bin/mcp-proxy.mjs");
    let mut command = place.command("node");
    command.arg(script).args(["--host", "127.0.0.1", "--server", "stream", "--port", &place.port(), "--"]);
    let process = place.run(command.arg(std::env::current_exe()?).arg("--serve-mcp-lines"))?;
    place.ready(process, place.endpoint("/mcp", ""))
}

/// The settings that let it answer on this machine at all, without credentials, and as fast as it can: no metrics, no
/// plug-ins, no limits of rate.
const CONTEXTFORGE: &[(&str, &str)] = &[
    ("DATABASE_URL", "sqlite:///./contextforge.db"),
    ("CACHE_TYPE", "memory"),
    ("USE_STATEFUL_SESSIONS", "true"),
    ("JSON_RESPONSE_ENABLED", "true"),
    ("AUTH_REQUIRED", "false"),
    ("ALLOW_UNAUTHENTICATED_ADMIN", "true"),
    ("SSRF_ALLOW_LOCALHOST", "true"),
    ("RATE_LIMITING_ENABLED", "false"),
    ("DB_METRICS_RECORDING_ENABLED", "false"),
    ("PLUGINS_ENABLED", "false"),
    ("MCPGATEWAY_UI_ENABLED", "false"),
    ("JWT_SECRET_KEY", "a secret that guards nothing at all, nowhere"),
    ("AUTH_ENCRYPTION_SECRET", "another that guards nothing at all, nowhere"),
    ("PLATFORM_ADMIN_PASSWORD", "Nothing-1s-guarded!"),
];

fn from_pypi(place: &Place<'_>) -> anyhow::Result<(Process, Endpoint)> {
    let program = place.installed.join("contextforge/bin/python");
    let mut command = place.command(&program.to_string_lossy());
    command.args(["-m", "uvicorn", "mcpgateway.main:app", "--host", "127.0.0.1", "--no-access-log"]);
    command.args(["--port", &place.port()]).envs(CONTEXTFORGE.iter().copied());
    let mut process = place.run(&mut command)?;
    place.until(&mut process, || ask(place.address, &request("GET /health", "", None)))?;
    let post = |path: &str, body: &Value| {
        let body = body.to_string();
        let content = Some(("application/json", body.as_str()));
        ask(place.address, &request(&format!("POST {path}"), "", content))
    };
    let gateway = json!({ "name": "bench", "url": place.upstream.url(), "transport": "STREAMABLEHTTP" });
    post("/gateways", &gateway).context("the upstream was not taken")?;
    let tools = ask(place.address, &request("GET /tools", "", None))?;
    let ids: Vec<&Value> = tools.as_array().into_iter().flatten().map(|tool| &tool["id"]).collect();
    let server = json!({ "server": { "name": "bench", "associated_tools": ids } });
    let server = post("/servers", &server).context("no virtual server was made")?;
    let id = server["id"].as_str().with_context(|| format!("no virtual server: {server}"))?;
    place.ready(process, place.endpoint(&format!("/servers/{id}/mcp"), "bench-"))
}
