//! The page about problems: every code that the source can answer with is on it, and the type of a problem leads there.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use reqwest::StatusCode;
use serde_json::Value;

use super::anchors;
use crate::support::Server;
use crate::support::tree::{root, sources};

/// Where a code is handed on under another name than its own, so that its words are found elsewhere.
const HANDED_ON: [(&str, &str); 4] = [
    ("src/http/problem.rs", "code"),
    ("src/http/media/sessions.rs", "code"),
    ("src/http/terminals/open.rs", "error.code()"),
    ("src/committer/draft/made.rs", "most.code"),
];

/// The source without comments, with one space for all between two words.
fn squeezed() -> Vec<(String, String)> {
    let read = |path: PathBuf| {
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<_> = text.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
        let text = lines.join(" ").split_whitespace().collect::<Vec<_>>().join(" ").replace("( ", "(");
        (path.strip_prefix(root()).unwrap().display().to_string(), text)
    };
    sources().into_iter().map(read).collect()
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
    let sources = squeezed();
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
        for rest in after(text, "Error::LimitReached { ").chain(after(text, "Self::LimitReached { ")) {
            let inner = rest.split(" }").next().unwrap();
            let Some(said) = inner.strip_prefix("code: ") else { continue }; // A pattern.
            let status = if inner.contains("shuts_out: true") { 403 } else { 409 };
            take(said.split(',').next().unwrap(), Some(status));
        }
        for rest in after(text, "code: ") {
            literal(rest).into_iter().for_each(|word| add(word, None));
        }
        if path == "src/http/problem.rs" {
            after(text, "said(").filter_map(literal).for_each(|word| add(word, Some(401)));
        }
        // The terminal surface's own words, and its frames.
        if path == "src/http/terminals/surface.rs" {
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
        // How many of a kind there may be is said where the kind is.
        for rest in after(text, "Some(Most { ") {
            let code = rest.split_once("code: ").and_then(|(_, rest)| literal(rest));
            add(code.unwrap_or_else(|| panic!("{path}: {rest:.60}")), Some(409));
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
