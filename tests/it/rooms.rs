//! Who may look into which room: the twin of the table in ARCHITECTURE.md, read against every path in `src/`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Room and what it may import. A room that is not listed here does not exist.
const TABLE: &[(&str, &[&str])] = &[
    ("core", &[]),
    ("clock", &[]),
    ("config", &[]),
    ("limits", &["meter"]),
    ("meter", &[]),
    ("logs", &["core", "meter"]),
    ("tasks", &["logs"]),
    ("store", &["core"]),
    ("error", &["core", "store"]),
    ("gate", &["core"]),
    ("committer", &["core", "store", "gate", "error", "clock", "meter", "logs", "tasks"]),
    ("sessions", APPLICATION),
    ("directory", APPLICATION),
    ("live", &["core", "store"]),
    ("secret", &["core"]),
    ("lines", &["core", "store", "error", "clock", "logs"]),
    ("outbound", &["error", "config"]),
    ("webhooks", &["core", "error", "secret", "directory", "live", "clock", "config", "outbound", "meter"]),
    ("issuers", &["core", "clock", "config", "error", "outbound"]),
    ("auth", &["core", "store", "secret", "gate", "error", "clock", "directory", "issuers"]),
    ("mcp", BRIDGE),
    ("terminal", BRIDGE),
    (
        "http",
        &[
            "core",
            "error",
            "auth",
            "secret",
            "gate",
            "sessions",
            "directory",
            "lines",
            "live",
            "clock",
            "config",
            "limits",
            "meter",
            "mcp",
            "terminal",
            "webhooks",
            "issuers",
        ],
    ),
    (
        "scheduler",
        &[
            "core",
            "error",
            "sessions",
            "directory",
            "lines",
            "webhooks",
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
            "core",
            "clock",
            "config",
            "store",
            "error",
            "gate",
            "committer",
            "sessions",
            "directory",
            "live",
            "secret",
            "lines",
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

const APPLICATION: &[&str] = &["core", "store", "committer", "secret", "gate", "error", "clock", "meter"];
const BRIDGE: &[&str] = &[
    "core",
    "error",
    "auth",
    "secret",
    "gate",
    "sessions",
    "directory",
    "lines",
    "live",
    "clock",
    "config",
    "limits",
    "outbound",
    "meter",
];

/// Files or folders of `http/` that are surfaces: none may import another.
const SURFACES: &[&str] =
    &["agents", "media", "terminals", "workloads", "directory", "oauth", "events", "health"];

/// What the rules may use of others.
const CORE_CRATES: &[&str] =
    &["serde", "serde_json", "chrono", "uuid", "thiserror", "sha2", "hex", "chrono_tz", "croner"];

/// One path in the source: `crate::store::Reader` is `["store", "Reader"]`.
#[derive(Debug, PartialEq)]
struct Import {
    line: usize,
    path: Vec<String>,
}

/// A word, a double colon or a sign, with its line.
type Token = (usize, String);

/// Words and signs of Rust source, without comments, texts and characters.
fn tokens(source: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let (mut line, mut rest) = (1, source);
    let skip = |rest: &mut &str, line: &mut usize, length: usize| {
        *line += rest[..length].matches('\n').count();
        *rest = &rest[length..];
    };
    while let Some(first) = rest.chars().next() {
        let length = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if let Some(length) = text(rest) {
            length
        } else if first.is_alphabetic() || first == '_' {
            let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
            tokens.push((line, rest[..end].to_owned()));
            end
        } else if rest.starts_with("::") {
            tokens.push((line, "::".to_owned()));
            2
        } else {
            if !first.is_whitespace() {
                tokens.push((line, first.to_string()));
            }
            first.len_utf8()
        };
        skip(&mut rest, &mut line, length);
    }
    tokens
}

/// The length of the text or character that begins here; none if none does.
fn text(rest: &str) -> Option<usize> {
    if let Some(raw) = rest.strip_prefix('r') {
        let marks = raw.len() - raw.trim_start_matches('#').len();
        if raw[marks..].starts_with('"') {
            let end = format!("\"{}", "#".repeat(marks));
            let begin = marks + 1;
            return Some(1 + begin + raw[begin..].find(&end)? + end.len());
        }
    }
    if rest.starts_with('"') {
        let mut escaped = false;
        for (index, c) in rest.char_indices().skip(1) {
            match c {
                '"' if !escaped => return Some(index + 1),
                _ => escaped = c == '\\' && !escaped,
            }
        }
        return Some(rest.len());
    }
    // A character, not a lifetime: 'x' or '\n'.
    let mut characters = rest.char_indices();
    if characters.next()?.1 == '\'' {
        let (_, second) = characters.next()?;
        if second == '\\' {
            return Some(3 + rest.get(3..)?.find('\'')?);
        }
        let (index, third) = characters.next()?;
        return (third == '\'').then_some(index + 1);
    }
    None
}

/// Every path in the source that begins at the crate's root or above the module it stands in.
fn imports(source: &str, module: &[&str]) -> Vec<Import> {
    let tokens = tokens(source);
    let mut imports = Vec::new();
    for at in 0..tokens.len() {
        let inside = at > 0 && tokens[at - 1].1 == "::";
        let follows = tokens.get(at + 1).is_some_and(|(_, token)| token == "::");
        if inside || !follows {
            continue;
        }
        match tokens[at].1.as_str() {
            "crate" => {
                branch(&tokens, at + 2, &[], &mut imports);
            }
            "super" => {
                let (mut next, mut above) = (at + 2, module.len().saturating_sub(1));
                while tokens.get(next).is_some_and(|(_, token)| token == "super") {
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
fn branch(tokens: &[Token], mut at: usize, prefix: &[String], imports: &mut Vec<Import>) -> usize {
    let mut path = prefix.to_vec();
    let line = tokens.get(at).map_or(0, |(line, _)| *line);
    while let Some((_, token)) = tokens.get(at) {
        if token == "{" {
            at += 1;
            while tokens.get(at).is_some_and(|(_, token)| token != "}") {
                at = branch(tokens, at, &path, imports);
                while tokens.get(at).is_some_and(|(_, token)| token != "," && token != "}") {
                    at += 1;
                }
                if tokens.get(at).is_some_and(|(_, token)| token == ",") {
                    at += 1;
                }
            }
            return at + 1;
        }
        path.push(token.clone());
        at += 1;
        if tokens.get(at).is_none_or(|(_, token)| token != "::") {
            break;
        }
        at += 1;
    }
    imports.push(Import { line, path });
    at
}

/// The module that a file of `src/` is: `store/sqlite/mod.rs` is `["store", "sqlite"]`.
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
    let is_room = |name: &str| TABLE.iter().any(|(room, _)| *room == name);
    let mut breaches = Vec::new();
    for Import { line, path } in imports(source, &module) {
        let Some(to) = path.first().map(String::as_str) else { continue };
        let mut breach =
            |what: String| breaches.push(format!("{}:{line}: {room} may not import {what}", file.display()));
        if is_room(to) && to != room && !allowed.contains(&to) {
            breach(to.to_owned());
        }
        let surface = module.get(1).filter(|part| room == "http" && SURFACES.contains(part));
        let other = path.get(1).map(String::as_str).filter(|part| to == "http" && SURFACES.contains(part));
        if let (Some(surface), Some(other)) = (surface, other)
            && *surface != other
        {
            breach(format!("the surface {other} into the surface {surface}"));
        }
    }
    if room == "core" {
        for (line, name) in foreign(source) {
            breaches.push(format!("{}:{line}: core may not use the crate {name}", file.display()));
        }
    }
    breaches
}

/// Crates that a source of the rules names and may not.
fn foreign(source: &str) -> Vec<Token> {
    let mut crates: BTreeSet<String> = BTreeSet::new();
    let mut section = "";
    for line in include_str!("../../Cargo.toml").lines() {
        if line.starts_with('[') {
            section = line;
        } else if section.ends_with("dependencies]")
            && let Some((name, _)) = line.split_once('=')
        {
            crates.insert(name.trim().replace('-', "_"));
        }
    }
    let tokens = tokens(source);
    let mut foreign = Vec::new();
    for (at, (line, token)) in tokens.iter().enumerate() {
        let before = at.checked_sub(1).map_or("", |before| tokens[before].1.as_str());
        let follows = tokens.get(at + 1).map_or("", |(_, next)| next.as_str());
        let names = before != "::" && (follows == "::" || before == "use");
        let ours = CORE_CRATES.contains(&token.as_str());
        if names && !ours && (crates.contains(token) || token == "tokio") {
            foreign.push((*line, token.clone()));
        }
    }
    foreign
}

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn no_room_looks_where_it_may_not() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    files(&source, &mut found);
    found.sort();
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

#[test]
fn the_reader_of_paths_finds_a_breach_however_it_is_written() {
    let breaches = |file: &str, source: &str| breaches(Path::new(file), source).len();
    assert_eq!(breaches("gate.rs", "use crate::core::ids::Head;"), 0);
    assert_eq!(breaches("gate.rs", "use crate::store::Reader;"), 1);
    assert_eq!(breaches("gate.rs", "use crate::{core::Time, store::{Reader, Writer as W}, clock};"), 3);
    assert_eq!(breaches("gate.rs", "fn f() -> crate::store::Reader { todo!() }"), 1);
    assert_eq!(breaches("gate.rs", "use super::store;"), 1);
    assert_eq!(breaches("http/agents/list.rs", "use super::super::super::store::Reader;"), 1);
    assert_eq!(breaches("http/agents.rs", "use super::oauth::token; use super::page;"), 1);
    assert_eq!(breaches("http/agents.rs", "use crate::http::{extract, problem, media::List};"), 1);
    assert_eq!(breaches("http/mod.rs", "use agents; use crate::http::oauth;"), 0);
    assert_eq!(breaches("store/sqlite/read.rs", "use super::bytes; use super::super::row;"), 0);
    assert_eq!(breaches("gate.rs", "// crate::store::Reader\n/* crate::store */ \"crate::store::x\""), 0);
    assert_eq!(breaches("gate.rs", "let x = r#\"crate::store::x\"#; let c = '\"'; use crate::store::Y;"), 1);
    assert_eq!(breaches("core/ids.rs", "use tokio::sync::Mutex; use serde::Serialize;"), 1);
    assert_eq!(breaches("core/ids.rs", "let x = rand::random();"), 1);
    assert_eq!(breaches("attic.rs", ""), 1);
}
