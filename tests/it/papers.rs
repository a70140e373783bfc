//! README and the pages under `docs/`: what they tell people to type works as it stands, what they point to is there, and
//! the page about problems has every code that there is.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use reqwest::StatusCode;
use serde_json::Value;
use tempfile::TempDir;

use crate::support::{CLIENT_ID, CLIENT_SECRET, Daemon, Server};
use crate::terminal::sshd::Sshd;

/// Blocks that are not run, by their first line, and why.
const LEFT_OUT: [(&str, &str, &str); 3] = [
    ("README.md", "$ make run", "builds the release binary and serves at a fixed port"),
    ("README.md", "$ PORT=3001 npx", "downloads a server; the test has the same one from tests/clients"),
    ("docs/mcp-gateway.md", "$ PORT=3001 npx", "the same"),
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn files(directory: &Path, ending: &str, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, ending, found);
        } else if path.extension().is_some_and(|one| one == ending) {
            found.push(path);
        }
    }
    found.sort();
}

/// Every page: its path from the root, and its text.
fn pages() -> Vec<(String, String)> {
    let mut found: Vec<_> =
        ["README.md", "ARCHITECTURE.md", "SECURITY.md"].map(|name| root().join(name)).into();
    files(&root().join("docs"), "md", &mut found);
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

/// The server that README has behind the gateway, from what `make clients` installs. It ends when its input closes.
struct Everything {
    child: Child,
    address: String,
}

impl Everything {
    fn start() -> Self {
        let clients = root().join("tests/clients");
        assert!(
            clients.join("node_modules").exists(),
            "run `make clients` first: it installs what this test runs"
        );
        let mut command = Command::new("node");
        command.arg("everything.mjs").current_dir(clients).env("PORT", "0");
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let port = line.trim().strip_prefix("ready ").expect("the server did not start");
        Self { address: format!("127.0.0.1:{port}"), child }
    }
}

impl Drop for Everything {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Runs a page's commands in one shell, as somebody who follows it would, in a home and against a service of its own.
async fn follow(page: &str, commands: &str, upstream: &Everything, machine: &Sshd) -> Output {
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
    let commands =
        commands.replace("http://127.0.0.1:8080", &daemon.base).replace("127.0.0.1:3001", &upstream.address);
    let binaries = Path::new(env!("CARGO_BIN_EXE_sessiond")).parent().unwrap();
    let path = format!("{}:{}", binaries.display(), std::env::var("PATH").unwrap());
    let mut shell = Command::new("timeout");
    shell
        .args(["120", "bash", "-O", "inherit_errexit", "-euo", "pipefail", "-c", &commands])
        .current_dir(work)
        .stdin(Stdio::null())
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
    let (upstream, machine) = (Everything::start(), Sshd::start());
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
                "" | "text" | "json" => {
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

/// The text without blocks and without spans of code, in which nothing is a link.
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

// ---- problems ----

/// Where a code is handed on under another name than its own, so that its words are found elsewhere.
const HANDED_ON: [(&str, &str); 4] = [
    ("src/http/problem.rs", "code"),
    ("src/http/media/sessions.rs", "code"),
    ("src/http/terminals/open.rs", "error.code()"),
    ("src/committer/draft/made.rs", "code"),
];

/// Sources without comments, with one space for all between two words.
fn sources() -> Vec<(String, String)> {
    let mut found = vec![];
    files(&root().join("src"), "rs", &mut found);
    files(&root().join("crates"), "rs", &mut found);
    let read = |path: PathBuf| {
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<_> = text.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
        let text = lines.join(" ").split_whitespace().collect::<Vec<_>>().join(" ").replace("( ", "(");
        (path.strip_prefix(root()).unwrap().display().to_string(), text)
    };
    found.into_iter().map(read).collect()
}

fn status_named(name: &str) -> Option<u16> {
    (400..600).find(|number| {
        let reason = StatusCode::from_u16(*number).unwrap().canonical_reason().unwrap_or_default();
        reason.to_uppercase().replace([' ', '-'], "_") == name
    })
}

fn literal(text: &str) -> Option<&str> {
    let word = text.trim().strip_prefix('"')?.split('"').next()?;
    let good = !word.is_empty() && word.chars().all(|one| one.is_ascii_alphabetic() || one == '_');
    good.then_some(word)
}

/// What begins after each place where `mark` stands.
fn after<'a>(text: &'a str, mark: &str) -> std::vec::IntoIter<&'a str> {
    let found: Vec<_> = text.match_indices(mark).map(|(at, _)| &text[at + mark.len()..]).collect();
    found.into_iter()
}

/// Every code that the source can answer with, and under which statuses.
fn codes() -> BTreeMap<String, BTreeSet<u16>> {
    let sources = sources();
    let constant = |name: &str| {
        let mark = format!("const {name}: &str = ");
        sources.iter().find_map(|(_, text)| after(text, &mark).next().and_then(literal))
    };
    let mut codes: BTreeMap<String, BTreeSet<u16>> = BTreeMap::new();
    let mut add =
        |code: &str, status: Option<u16>| codes.entry(code.to_lowercase()).or_default().extend(status);
    for (path, text) in &sources {
        // What stands where a code is wanted: the word, the name of one, or what hands one on.
        let mut take = |said: &str, status: Option<u16>| {
            let said = said.trim();
            match literal(said).or_else(|| constant(said)) {
                Some(word) => add(word, status),
                None => assert!(
                    HANDED_ON.contains(&(path, said)),
                    "{path}: which codes does {said:?} stand for? Write the word there, or say in HANDED_ON where it is"
                ),
            }
        };
        let own = if path == "src/http/problem.rs" {
            "Self::new(StatusCode::"
        } else {
            "Problem::new(StatusCode::"
        };
        for mark in ["Problem::new(StatusCode::", own].into_iter().collect::<BTreeSet<_>>() {
            for rest in after(text, mark) {
                let mut arguments = rest.split(',');
                let status = arguments.next().and_then(status_named);
                assert!(status.is_some(), "{path}: {rest:.60}");
                take(arguments.next().unwrap(), status);
            }
        }
        for (variant, status) in [("Conflict", 409), ("Denied", 403), ("Unprocessable", 422)] {
            for owner in ["Error", "Self"] {
                for rest in after(text, &format!("{owner}::{variant} {{ ")) {
                    let inner = rest.split(" }").next().unwrap();
                    if inner.contains("..") || !inner.starts_with("code") {
                        continue; // A pattern.
                    }
                    let first = inner.split(',').next().unwrap();
                    take(first.strip_prefix("code: ").unwrap_or(first), Some(status));
                }
            }
        }
        for rest in after(text, "code: ") {
            literal(rest).into_iter().for_each(|word| add(word, None));
        }
        if path == "src/http/problem.rs" {
            after(text, "said(").filter_map(literal).for_each(|word| add(word, Some(401)));
        }
        // The terminal surface's own words, and its frames.
        if path == "src/http/family.rs" {
            let words = text.split("(\"").skip(1).filter(|rest| {
                rest.split_once('"').is_some_and(|(_, after)| after.starts_with(".to_owned()"))
            });
            words.for_each(|rest| add(rest.split('"').next().unwrap(), None));
        }
        if path == "src/http/terminals/socket.rs" {
            after(text, "refused(").filter_map(literal).for_each(|word| add(word, None));
        }
        let words_of = |function: &str| {
            let rest = after(text, function).next().unwrap_or_else(|| panic!("{path} has no {function}"));
            let body = rest.split(" fn ").next().unwrap();
            body.split('"').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>()
        };
        if path == "src/terminal/ssh/error.rs" {
            words_of("pub fn code(").iter().for_each(|word| add(word, Some(502)));
        }
        if path == "src/committer/draft/made.rs" {
            let words = words_of("fn most(");
            words.iter().filter(|word| word.contains('_')).for_each(|word| add(word, Some(409)));
        }
        if path.starts_with("src/mcp/") {
            let reasons = after(text, "because(").chain(after(text, r#""reason": "#));
            reasons.filter_map(literal).for_each(|word| add(word, None));
        }
        if path.starts_with("src/http/oauth/") {
            let refused = after(text, "Refused::new(").chain(after(text, "Self::new("));
            refused.filter_map(literal).for_each(|word| add(word, None));
        }
    }
    codes
}

/// The headings of the page about problems, each with what stands below it.
fn told() -> Vec<(String, String)> {
    let page = std::fs::read_to_string(root().join("docs/problems.md")).unwrap();
    let parts = page.split("\n### ").skip(1);
    parts
        .map(|part| {
            let (heading, below) = part.split_once('\n').unwrap();
            let below = below.split("\n## ").next().unwrap();
            (heading.to_owned(), below.split_whitespace().collect::<Vec<_>>().join(" "))
        })
        .collect()
}

#[test]
fn every_code_has_its_heading_on_the_page_about_problems_and_every_heading_its_code() {
    let codes = codes();
    assert!(codes.len() > 80, "the source was not understood: {codes:?}");
    let told = told();
    let headings: Vec<_> = told.iter().map(|(heading, _)| heading.to_lowercase()).collect();
    let distinct: BTreeSet<_> = headings.iter().cloned().collect();
    assert_eq!(
        distinct.len(),
        headings.len(),
        "a heading is there twice, so that its anchor leads to the first"
    );
    let known: BTreeSet<_> = codes.keys().cloned().collect();
    let missing: Vec<_> = known.difference(&distinct).collect();
    let made_up: Vec<_> = distinct.difference(&known).collect();
    assert!(
        missing.is_empty() && made_up.is_empty(),
        "without a heading: {missing:?}; without a code: {made_up:?}"
    );
    for (heading, below) in &told {
        assert!(below.contains(" **Do:** "), "{heading} does not say what to do");
        for status in &codes[&heading.to_lowercase()] {
            assert!(
                below.contains(&format!("{status}")),
                "{heading} does not say that its status is {status}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_type_of_a_problem_leads_to_what_the_service_says_of_it() {
    let server = Server::start().await;
    let asked = server.url("/api/v1/applications?surprise=1");
    let answer = server.http.get(&asked).send().await.unwrap();
    let url = answer.url().clone();
    assert_eq!(answer.status(), 401);
    let problem: Value = answer.json().await.unwrap();
    let code = problem["code"].as_str().unwrap();
    let points_to = url.join(problem["type"].as_str().unwrap()).unwrap();
    assert_eq!((points_to.path(), points_to.fragment()), ("/problems", Some(code)));

    // As whoever asked: with no credential.
    let page = server.http.get(points_to).send().await.unwrap();
    assert_eq!(page.status(), 200);
    assert_eq!(page.headers()["content-type"], "text/markdown; charset=utf-8");
    assert_eq!(page.headers()["x-content-type-options"], "nosniff");
    let page = page.text().await.unwrap();
    assert!(anchors(&page).contains(code), "{code}");
    assert_eq!(page, std::fs::read_to_string(root().join("docs/problems.md")).unwrap());
}
