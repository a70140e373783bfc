//! Who may look into which room: the twin of the table in ARCHITECTURE.md, read against every path in `src/`. What Cargo keeps
//! by itself (the rules use nothing, the store uses the rules alone, nothing else knows SQL) is not looked at here.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use proc_macro2::{Spacing, TokenStream, TokenTree};

use crate::support::tree::{files, root};

/// A room of the binary's crate and what it may import, `sessiond_store` included; the rules are open to all. A room that is
/// not listed here does not exist.
const TABLE: &[(&str, &[&str])] = &[
    ("clock", &[]),
    ("config", &[]),
    ("limits", &["meter"]),
    ("meter", &[]),
    ("logs", &["config", "meter"]),
    ("tasks", &["logs"]),
    ("error", &[STORE]),
    ("gate", &[]),
    ("nodes", &[STORE, "gate", "clock", "logs", "meter", "outbound", "secret"]),
    ("committer", &[STORE, "gate", "nodes", "error", "clock", "meter", "logs", "tasks"]),
    ("telling", &[STORE, "gate"]),
    ("context", &[STORE, "committer", "nodes", "secret", "gate", "telling", "error", "clock"]),
    ("sessions", APPLICATION),
    ("directory", APPLICATION),
    ("statistics", &[STORE, "committer", "context", "error", "meter", "telling"]),
    ("retention", &[STORE, "committer", "context", "error", "journals", "meter"]),
    ("live", &[STORE, "telling"]),
    ("secret", &[]),
    ("journals", &[STORE, "error", "clock", "logs"]),
    ("outbound", &["error", "config"]),
    ("webhooks", &["error", "secret", "directory", "live", "nodes", "clock", "config", "outbound", "meter"]),
    ("issuers", &["clock", "config", "error", "outbound"]),
    ("auth", &[STORE, "secret", "gate", "error", "clock", "directory", "issuers"]),
    ("mcp", BRIDGE),
    ("terminal", BRIDGE),
    (
        "http",
        &[
            "error",
            "auth",
            "secret",
            "gate",
            "sessions",
            "directory",
            "statistics",
            "journals",
            "live",
            "telling",
            "clock",
            "config",
            "limits",
            "meter",
            "mcp",
            "terminal",
            "webhooks",
            "issuers",
            "nodes",
        ],
    ),
    (
        "scheduler",
        &[
            "error",
            "retention",
            "sessions",
            "directory",
            "journals",
            "webhooks",
            "nodes",
            "clock",
            "config",
            "limits",
            "meter",
            "logs",
            "tasks",
        ],
    ),
    (
        "cli",
        &[
            "clock",
            "config",
            STORE,
            "error",
            "gate",
            "committer",
            "nodes",
            "context",
            "telling",
            "sessions",
            "directory",
            "statistics",
            "live",
            "secret",
            "journals",
            "retention",
            "outbound",
            "webhooks",
            "issuers",
            "auth",
            "mcp",
            "terminal",
            "http",
            "scheduler",
            "limits",
            "meter",
            "logs",
            "tasks",
        ],
    ),
];

/// What remembers, a crate of its own: which rooms may use it Cargo cannot keep.
const STORE: &str = "sessiond_store";
const APPLICATION: &[&str] =
    &[STORE, "context", "committer", "secret", "gate", "telling", "error", "clock", "meter", "logs"];
const BRIDGE: &[&str] = &[
    "error",
    "auth",
    "secret",
    "gate",
    "sessions",
    "directory",
    "journals",
    "live",
    "clock",
    "config",
    "limits",
    "outbound",
    "meter",
    "nodes",
];

/// Files or folders of `http/` that are surfaces: none may import another.
const SURFACES: &[&str] =
    &["agents", "media", "terminals", "workloads", "directory", "oauth", "events", "health"];

/// One path in the source: `crate::gate::Pass` is `["gate", "Pass"]`; of the store's only that it is the store's.
type Import = Vec<String>;

/// Words and signs of Rust source, without comments, texts and characters.
fn tokens(source: &str) -> Vec<String> {
    let stream: TokenStream = source.parse().expect("it compiles, so it can be read");
    let mut tokens = Vec::new();
    flatten(stream, &mut tokens);
    tokens
}

fn flatten(stream: TokenStream, tokens: &mut Vec<String>) {
    let mut first_colon = false;
    for tree in stream {
        match tree {
            TokenTree::Group(group) => {
                tokens.push("{".to_owned());
                flatten(group.stream(), tokens);
                tokens.push("}".to_owned());
            }
            TokenTree::Ident(ident) => tokens.push(ident.to_string()),
            TokenTree::Punct(sign) if sign.as_char() == ':' && first_colon => {
                tokens.push("::".to_owned());
                first_colon = false;
                continue;
            }
            TokenTree::Punct(sign) if sign.as_char() == ':' && sign.spacing() == Spacing::Joint => {
                first_colon = true;
                continue;
            }
            TokenTree::Punct(sign) => tokens.push(sign.to_string()),
            TokenTree::Literal(_) => tokens.push("\"".to_owned()),
        }
        first_colon = false;
    }
}

/// Every path in the source that begins at the crate's root, above the module it stands in, or at the store.
fn imports(source: &str, module: &[&str]) -> Vec<Import> {
    let tokens = tokens(source);
    let mut imports = Vec::new();
    for at in 0..tokens.len() {
        let inside = at > 0 && tokens[at - 1] == "::";
        let follows = tokens.get(at + 1).is_some_and(|token| token == "::");
        if inside || !follows {
            continue;
        }
        match tokens[at].as_str() {
            STORE => imports.push(vec![STORE.to_owned()]),
            "crate" => {
                branch(&tokens, at + 2, &[], &mut imports);
            }
            "super" => {
                let (mut next, mut above) = (at + 2, module.len().saturating_sub(1));
                while tokens.get(next).is_some_and(|token| token == "super") {
                    next += 2;
                    above = above.saturating_sub(1);
                }
                let prefix: Vec<String> = module[..above].iter().map(|&part| part.to_owned()).collect();
                branch(&tokens, next, &prefix, &mut imports);
            }
            _ => {}
        }
    }
    imports
}

/// Reads what follows a `::`, which may be a group of paths; returns where it ends.
fn branch(tokens: &[String], mut at: usize, prefix: &[String], imports: &mut Vec<Import>) -> usize {
    let mut path = prefix.to_vec();
    while let Some(token) = tokens.get(at) {
        if token == "{" {
            at += 1;
            while tokens.get(at).is_some_and(|token| token != "}") {
                at = branch(tokens, at, &path, imports);
                while tokens.get(at).is_some_and(|token| token != "," && token != "}") {
                    at += 1;
                }
                if tokens.get(at).is_some_and(|token| token == ",") {
                    at += 1;
                }
            }
            return at + 1;
        }
        path.push(token.clone());
        at += 1;
        if tokens.get(at).is_none_or(|token| token != "::") {
            break;
        }
        at += 1;
    }
    imports.push(path);
    at
}

/// The module that a file of `src/` is: `http/agents/mod.rs` is `["http", "agents"]`.
fn module(file: &Path) -> Vec<&str> {
    let mut parts: Vec<&str> = file.iter().map(|part| part.to_str().unwrap()).collect();
    let last = parts.pop().unwrap().trim_end_matches(".rs");
    if last != "mod" {
        parts.push(last);
    }
    parts
}

/// What is wrong with a file, a line each.
fn breaches(file: &Path, source: &str) -> Vec<String> {
    let module = module(file);
    let room = module[0];
    let Some((_, allowed)) = TABLE.iter().find(|(name, _)| *name == room) else {
        return vec![format!("{}: the room {room} is not in the table", file.display())];
    };
    let is_room = |name: &str| name == STORE || TABLE.iter().any(|(room, _)| *room == name);
    let mut breaches = Vec::new();
    for path in imports(source, &module) {
        let Some(to) = path.first().map(String::as_str) else { continue };
        let mut breach =
            |what: String| breaches.push(format!("{}: {room} may not import {what}", file.display()));
        if is_room(to) && to != room && !allowed.contains(&to) {
            breach(path.join("::"));
        }
        let surface = module.get(1).filter(|part| room == "http" && SURFACES.contains(part));
        let other = path.get(1).map(String::as_str).filter(|part| to == "http" && SURFACES.contains(part));
        if let (Some(surface), Some(other)) = (surface, other)
            && *surface != other
        {
            breach(format!("the surface {other} into the surface {surface}"));
        }
    }
    breaches
}

#[test]
fn no_room_looks_where_it_may_not() {
    let source = root().join("src");
    let found = files("src", "rs");
    assert!(found.len() > 15, "the source is not where it was");
    let mut all = Vec::new();
    for path in found {
        let file = path.strip_prefix(&source).unwrap();
        if file != Path::new("lib.rs") && file != Path::new("main.rs") {
            all.extend(breaches(file, &std::fs::read_to_string(&path).unwrap()));
        }
    }
    assert!(all.is_empty(), "\n{}", all.join("\n"));
}

/// The files of the rules that a file looks into; `session/event.rs` is `session::event`.
fn used(module: &str, source: &str, all: &BTreeSet<String>) -> BTreeSet<String> {
    let parts: Vec<&str> = module.split("::").collect();
    let file = |path: Vec<String>| {
        let longest = (1..=path.len().min(2)).rev().map(|length| path[..length].join("::"));
        longest.into_iter().find(|name| all.contains(name))
    };
    imports(source, &parts).into_iter().filter_map(file).filter(|name| name != module).collect()
}

#[test]
fn no_file_of_the_rules_looks_into_one_that_looks_into_it() {
    let source = root().join("crates/sessiond-core/src");
    let found = files("crates/sessiond-core/src", "rs");
    let name = |path: &PathBuf| module(path.strip_prefix(&source).unwrap()).join("::");
    let all: BTreeSet<String> = found.iter().map(name).filter(|name| name != "lib").collect();
    let mut uses: BTreeMap<String, BTreeSet<String>> = found
        .iter()
        .filter(|path| name(path) != "lib")
        .map(|path| (name(path), used(&name(path), &std::fs::read_to_string(path).unwrap(), &all)))
        .collect();
    assert!(uses["session"].contains("session::event") && uses["event"].contains("session::event"));
    // Whoever uses nothing that is left is taken away; what remains at last is a circle.
    while let Some(free) = uses.iter().find(|(_, uses)| uses.is_empty()).map(|(name, _)| name.clone()) {
        uses.remove(&free);
        uses.values_mut().for_each(|others| {
            others.remove(&free);
        });
    }
    assert!(uses.is_empty(), "a circle: {uses:#?}");
}

/// What belongs to one implementation of the store.
const OF_ONE_STORE: &[&str] =
    &["sqlite", "postgres", "pragma", "write-ahead", "wal_", "checkpoint", "vacuum", "settl"];

#[test]
fn the_seam_of_the_store_says_nothing_of_an_implementation() {
    let of_seam =
        ["row.rs", "error.rs", "block.rs"].map(|file| root().join("crates/sessiond-store/src").join(file));
    let seam = files("crates/sessiond-store/src/seam", "rs");
    assert!(seam.len() > 5, "the seam is not where it was");
    for file in seam.into_iter().chain(of_seam) {
        let source = std::fs::read_to_string(&file).unwrap().to_lowercase();
        let said: Vec<_> = OF_ONE_STORE.iter().filter(|word| source.contains(**word)).collect();
        assert!(said.is_empty(), "{}: {said:?}", file.display());
    }
    // Those who use it know no more. Where an installation lies, and what the URL of a database is, is for these two to say.
    let source = root().join("src");
    for path in files("src", "rs") {
        let file = path.strip_prefix(&source).unwrap();
        let text = std::fs::read_to_string(&path).unwrap().to_lowercase();
        let may = file.starts_with("cli") || file.starts_with("config");
        let said = ["sqlite", "postgres"].into_iter().find(|word| text.contains(word));
        assert!(may || said.is_none(), "{}: {said:?}", file.display());
    }
}

/// The files of `http/` that read the path of a request, how often, and for what. None does to find out on which surface it is:
/// that is a value (`http/surface.rs`), found by the router.
const READERS: &[(&str, usize, &str)] = &[
    ("agents/read.rs", 1, "`Link` names the next page at the path that was asked"),
    ("history.rs", 1, "`Link` likewise"),
    ("revocations/mod.rs", 1, "`Link` likewise"),
    ("bars.rs", 1, "`Link` likewise"),
    ("idempotency.rs", 1, "the fingerprint of a request holds what it was for"),
    ("request_layer.rs", 2, "the log says what was asked"),
];

#[test]
fn no_surface_is_told_apart_by_looking_at_a_path() {
    let source = root().join("src/http");
    let mut found = BTreeMap::new();
    for path in files("src/http", "rs") {
        let words = tokens(&std::fs::read_to_string(&path).unwrap());
        // `error.path()` is where in a body something is wrong.
        let reads = |at: &[String]| {
            at[0] != "error"
                && at[1] == "."
                && ["path", "path_and_query"].contains(&at[2].as_str())
                && at[3] == "{"
        };
        let count = words.windows(4).filter(|at| reads(at)).count();
        if count > 0 {
            found.insert(path.strip_prefix(&source).unwrap().to_str().unwrap().to_owned(), count);
        }
    }
    let allowed = READERS.iter().map(|(file, count, _)| ((*file).to_owned(), *count)).collect();
    assert_eq!(found, allowed, "who reads the path of a request: let its surface say what it needs");
}

#[test]
fn the_reader_of_paths_finds_a_breach_however_it_is_written() {
    let breaches = |file: &str, source: &str| breaches(Path::new(file), source).len();
    assert_eq!(breaches("gate.rs", "use sessiond_core::ids::Head;"), 0);
    assert_eq!(breaches("gate.rs", "use sessiond_store::Store;"), 1);
    assert_eq!(breaches("gate.rs", "use crate::{tasks::Tasks, auth::{Auth, Way as W}, clock};"), 4);
    assert_eq!(breaches("gate.rs", "fn f() -> sessiond_store::Store { todo!() }"), 1);
    assert_eq!(breaches("gate.rs", "fn f() { println!(\"{}\", crate::clock::now()) }"), 1);
    assert_eq!(breaches("gate.rs", "use super::clock;"), 1);
    assert_eq!(breaches("http/agents/list.rs", "use super::super::super::tasks::Tasks;"), 1);
    assert_eq!(breaches("http/agents/list.rs", "use sessiond_store::{Store, Writer};"), 1);
    assert_eq!(breaches("http/agents.rs", "use super::oauth::token; use super::page;"), 1);
    assert_eq!(breaches("http/agents.rs", "use crate::http::{extract, problem, media::List};"), 1);
    assert_eq!(breaches("http/mod.rs", "use agents; use crate::http::oauth;"), 0);
    assert_eq!(breaches("live/outgoing.rs", "use super::page; use super::super::live;"), 0);
    assert_eq!(
        breaches(
            "gate.rs",
            "// crate::clock::Clock\n/* crate::clock */ const X: &str = \"crate::clock::x\";"
        ),
        0
    );
    assert_eq!(
        breaches("gate.rs", "fn f() { let x = r#\"crate::clock::x\"#; let c = '\"'; use crate::clock::Y; }"),
        1
    );
    assert_eq!(breaches("attic.rs", ""), 1);
}
