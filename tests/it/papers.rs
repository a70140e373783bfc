//! README and the pages under `docs/`: what they tell people to type works as it stands, and what they point to is there.

mod problems;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

use crate::mcp::external::ExternalProcess;
use crate::support::tree::{files, root};
use crate::support::{CLIENT_ID, CLIENT_SECRET, Daemon, postgres};
use crate::terminal::sshd::Sshd;

/// Blocks that are not run, by their first line, and why.
const LEFT_OUT: [(&str, &str, &str); 5] = [
    ("README.md", "$ make run", "builds the release binary and serves at a fixed port"),
    ("README.md", "$ PORT=3001 npx", "downloads a server; the test has the same one from tests/clients"),
    ("docs/mcp-gateway.md", "$ PORT=3001 npx", "the same"),
    (
        "docs/postgres.md",
        "$ sessiond migrate-store",
        "needs a service that is stopped; operation/migrate_store.rs has its own",
    ),
    ("docs/scale.md", "$ make run-cluster", "nodes/command.rs runs what it does, and what it says to try"),
];

/// Every page: its path from the root, and its text.
fn pages() -> Vec<(String, String)> {
    let mut found: Vec<_> =
        ["README.md", "ARCHITECTURE.md", "SECURITY.md"].map(|name| root().join(name)).into();
    found.extend(files("docs", "md"));
    let named = |path: PathBuf| {
        let name = path.strip_prefix(root()).unwrap().display().to_string();
        (name, std::fs::read_to_string(path).unwrap())
    };
    found.into_iter().map(named).collect()
}

/// The blocks of a page: what stands behind the fence, and what is in it.
fn blocks(text: &str) -> Vec<(String, String)> {
    let mut blocks = vec![];
    let mut open: Option<(String, String)> = None;
    for line in text.lines() {
        match (line.strip_prefix("```"), &mut open) {
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (Some(info), None) => open = Some((info.to_owned(), String::new())),
            (None, Some((_, body))) => *body += &format!("{line}\n"),
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "a block has no end");
    blocks
}

// ---- commands ----

/// Runs a page's commands in one shell, as somebody who follows it would, in a home and against a service of its own.
async fn follow(page: &str, commands: &str, upstream: &ExternalProcess, machine: &Sshd) -> Output {
    let (service, home) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let daemon = Daemon::start(service.path(), &[]);
    let operator = daemon.operator().await;
    let (_, applications) = operator.get("/api/v1/applications").await;
    let application = applications["items"][0]["id"].as_str().unwrap().to_owned();
    // curl then fails where the service refuses, and the shell with it.
    std::fs::write(home.path().join(".curlrc"), "fail-with-body\nshow-error\n").unwrap();
    std::fs::create_dir(home.path().join(".ssh")).unwrap();
    std::os::unix::fs::symlink(machine.path("authorized"), home.path().join(".ssh/authorized_keys")).unwrap();
    let work = home.path().join("work");
    std::fs::create_dir(&work).unwrap();
    // Addresses are all that is another here.
    let commands = commands
        .replace("http://127.0.0.1:8080", &daemon.base)
        .replace("http://127.0.0.1:3001/mcp", &upstream.url);
    let binaries = Path::new(env!("CARGO_BIN_EXE_sessiond")).parent().unwrap();
    // Only the page about PostgreSQL needs one, and whoever follows it may do everything there.
    let of_postgres = (page == "docs/postgres.md").then(postgres::administration);
    let (variables, programs) = of_postgres.unwrap_or_default();
    let path = format!("{}:{}:{}", binaries.display(), programs.display(), std::env::var("PATH").unwrap());
    let mut shell = Command::new("timeout");
    shell
        .args(["120", "bash", "-O", "inherit_errexit", "-euo", "pipefail", "-c", &commands])
        .current_dir(work)
        .stdin(Stdio::null())
        .envs(variables)
        .env("PATH", path)
        .env("HOME", home.path())
        .env("CURL_HOME", home.path())
        .env("CLIENT", format!("{CLIENT_ID}:{CLIENT_SECRET}"))
        .env("APP", application)
        .env("SSH_PORT", machine.port.to_string())
        .env("SESSIOND_DATABASE", format!("sqlite:{}", service.path().join("sessiond.db").display()));
    let output = tokio::task::spawn_blocking(move || shell.output().unwrap()).await.unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(
        output.status.success(),
        "{page}: {}\n{}\n{}",
        output.status,
        text(&output.stdout),
        text(&output.stderr)
    );
    output
}

#[tokio::test(flavor = "multi_thread")]
async fn the_commands_on_the_pages_work_as_they_stand() {
    let (upstream, machine) = (ExternalProcess::everything(0).await, Sshd::start());
    let mut run = BTreeMap::new();
    for (page, text) in pages() {
        let commands: Vec<_> =
            blocks(&text).into_iter().filter(|(info, _)| info == "sh").map(|(_, body)| body).collect();
        if !commands.is_empty() {
            let output = follow(&page, &commands.concat(), &upstream, &machine).await;
            run.insert(page, (commands.len(), String::from_utf8(output.stdout).unwrap()));
        }
    }
    // What the first page says comes of it does come.
    let (_, said) = &run["README.md"];
    assert!(said.contains(r#""derivedStatus":"active""#), "{said}");
    assert!(said.contains(r#"{"success":true,"disconnectedCount":1,"#), "{said}");
    let (_, said) = &run["docs/mcp-gateway.md"];
    assert!(said.contains(r#""tools":["#), "{said}");
    let (_, said) = &run["docs/terminals.md"];
    assert!(said.contains(r#""websocket_url""#), "{said}");
    for (page, (count, _)) in &run {
        eprintln!("{page}: {count} blocks");
    }
    assert!(run.len() >= 11, "{:?}", run.keys());
}

#[test]
fn no_command_on_a_page_is_left_out_without_a_reason() {
    let mut left = vec![];
    for (page, text) in pages() {
        for (info, body) in blocks(&text) {
            match info.as_str() {
                "sh" => {
                    let typed = body.lines().filter_map(|line| line.split("# ").next());
                    let elided: Vec<_> = typed.filter(|line| line.contains('…')).collect();
                    assert!(elided.is_empty(), "{page}: nobody can type this: {elided:?}");
                }
                "console" => left.push((page.clone(), body)),
                // What is printed, and files of other programs.
                "" | "text" | "json" | "ini" | "nginx" => {
                    let command = body.lines().find(|line| {
                        ["$ ", "curl ", "api ", "make ", "sessiond "]
                            .iter()
                            .any(|word| line.trim().starts_with(word))
                    });
                    assert_eq!(command, None, "{page}: a command in a block that is not run");
                }
                other => panic!("{page}: is {other:?} run, or not?"),
            }
        }
    }
    assert_eq!(left.len(), LEFT_OUT.len(), "{left:#?}");
    for ((page, body), (known, begins, _why)) in left.iter().zip(LEFT_OUT) {
        assert!(page == known && body.starts_with(begins), "{page} leaves this out:\n{body}");
        assert_eq!(body.lines().count(), 1, "{page}: only what cannot be run is left out:\n{body}");
    }
}

// ---- links ----

#[test]
fn readme_is_at_most_130_lines() {
    let lines = std::fs::read_to_string(root().join("README.md")).unwrap().lines().count();
    assert!(lines <= 130, "{lines}: move what is not the first minute into docs/");
}

/// The text without its blocks, in which nothing is a link.
fn prose(text: &str) -> String {
    let mut prose = String::new();
    let mut in_block = false;
    for line in text.lines() {
        if line.starts_with("```") {
            in_block = !in_block;
        } else if !in_block {
            prose += &format!("{line}\n");
        }
    }
    prose
}

/// The anchors of a page's headings, as GitHub makes them.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for line in prose(text).lines().filter(|line| line.starts_with('#')) {
        let heading = line.trim_start_matches('#').trim().to_lowercase();
        let kept: String = heading
            .chars()
            .filter(|one| one.is_alphanumeric() || matches!(one, ' ' | '-' | '_'))
            .map(|one| if one == ' ' { '-' } else { one })
            .collect();
        let again = (1..).map(|number| format!("{kept}-{number}"));
        let free = std::iter::once(kept.clone()).chain(again).find(|one| !found.contains(one));
        found.extend(free);
    }
    found
}

#[test]
fn every_link_on_a_page_leads_somewhere() {
    let mut broken = vec![];
    let mut links = 0;
    for (page, text) in pages() {
        let from = root().join(&page);
        for rest in prose(&text).split("](").skip(1) {
            let target = rest.split(')').next().unwrap();
            if target.contains("://") {
                continue;
            }
            links += 1;
            let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
            let to = if path.is_empty() { from.clone() } else { from.parent().unwrap().join(path) };
            let there = to.exists()
                && (anchor.is_empty() || anchors(&std::fs::read_to_string(&to).unwrap()).contains(anchor));
            if !there {
                broken.push(format!("{page}: {target}"));
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
    assert!(links > 100, "only {links} were found");
}

#[test]
fn every_page_is_in_the_index() {
    let index = std::fs::read_to_string(root().join("docs/README.md")).unwrap();
    for (page, _) in pages() {
        let Some(name) = page.strip_prefix("docs/").filter(|name| *name != "README.md") else { continue };
        if !name.starts_with("decisions/") {
            assert!(index.contains(&format!("]({name})")), "docs/README.md does not lead to {name}");
        }
    }
}
