//! The pages under docs/security say what the code does: their tables are read and compared.

use std::collections::BTreeSet;

use clap::Args;
use serde_json::Value;
use sessiond::config::{Config, duration};
use sessiond_core::kind::Kind;
use sessiond_core::policy::{Policy, Preset};
use sessiond_core::reason::Reason;

use crate::support::Server;

fn page(name: &str) -> String {
    std::fs::read_to_string(format!("{}/docs/security/{name}.md", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

/// The cells of a table, by its heading's first cell, without the marks of code.
fn table(page: &str, first: &str) -> Vec<Vec<String>> {
    let heading = format!("| {first} |");
    let rows = page.lines().skip_while(|line| !line.starts_with(&heading)).skip(2);
    let rows = rows.take_while(|line| line.starts_with('|'));
    let cells =
        |line: &str| line.trim_matches('|').split('|').map(|cell| cell.trim().replace('`', "")).collect();
    rows.map(cells).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_about_the_session_policy_has_every_figure_of_the_api_and_its_default() {
    let page = page("session-policy");
    let server = Server::start().await;
    let (_, policy) = server.operator().await.get("/api/v1/policy").await;
    let Value::Object(policy) = policy else { panic!("{policy}") };
    let options = Config::augment_args(clap::Command::new("sessiond"));
    let rows = table(&page, "field");
    for row in &rows {
        let [field, option, default, _] = row.as_slice() else { panic!("{row:?}") };
        let option = options.get_arguments().find(|one| one.get_long() == option.strip_prefix("--")).unwrap();
        assert_eq!(option.get_default_values(), [default.as_str()], "{field}");
        assert_eq!(policy[field], duration(default).unwrap().as_secs(), "{field}");
    }
    let told: BTreeSet<_> = rows.iter().map(|row| row[0].as_str()).collect();
    assert_eq!(told, policy.keys().map(String::as_str).collect::<BTreeSet<_>>());
}

#[test]
fn the_page_about_the_session_policy_has_every_preset_and_every_reason() {
    let page = page("session-policy");
    let rows = table(&page, "preset");
    assert_eq!(rows.len(), Preset::ALL.len());
    for (row, preset) in rows.iter().zip(Preset::ALL) {
        let forever = Policy {
            idle_after: u32::MAX,
            stale_after: u32::MAX,
            mcp_stale_after: u32::MAX,
            mcp_unused_after: u32::MAX,
            token_lifetime: u32::MAX,
            absolute_lifetime: u32::MAX,
        };
        let figures = preset.over(forever);
        let stale = figures.stale_after;
        let stale = if stale == u32::MAX { "–".to_owned() } else { stale.to_string() };
        assert_eq!(row.as_slice(), [preset.word(), &figures.absolute_lifetime.to_string(), &stale]);
    }
    let told: BTreeSet<_> = table(&page, "reason").into_iter().map(|row| row[0].clone()).collect();
    for word in &told {
        assert!(Reason::from_word(word).is_some(), "{word} is no reason");
    }
    // The list in the source, which has no other: a new reason without a row fails here.
    let source = include_str!("../../crates/sessiond-core/src/reason.rs");
    let words = source.split_once("pub fn word(").unwrap().1.split_once("pub fn").unwrap().0;
    let words: BTreeSet<_> = words.split('"').skip(1).step_by(2).map(str::to_owned).collect();
    assert_eq!(told, words);
}

#[test]
fn the_page_about_who_makes_sessions_has_every_kind_and_operations_that_exist() {
    let page = page("who-makes-sessions");
    let told: Vec<_> = table(&page, "kind").into_iter().map(|row| row[0].clone()).collect();
    assert_eq!(told, Kind::ALL.map(Kind::word));
    let document: Value = {
        let yaml = sessiond::http::openapi_yaml();
        // Paths and methods are all that is needed of it: two levels of indentation.
        let mut paths = serde_json::Map::new();
        let mut path = String::new();
        for line in
            yaml.lines().skip_while(|line| *line != "paths:").skip(1).take_while(|line| line.starts_with(' '))
        {
            let (depth, text) = (line.len() - line.trim_start().len(), line.trim().trim_end_matches(':'));
            match depth {
                2 => path = text.trim_matches('\'').to_owned(),
                4 => {
                    paths.insert(format!("{} {path}", text.to_uppercase()), Value::Null);
                }
                _ => {}
            }
        }
        paths.into()
    };
    let operations = table(&page, "operation");
    assert!(!operations.is_empty());
    for row in operations {
        assert!(
            document.get(&row[0]).is_some(),
            "{} is no operation: {:?}",
            row[0],
            document.as_object().map(|all| all.keys().collect::<Vec<_>>())
        );
    }
}

#[test]
fn what_security_md_points_to_is_there() {
    let root = env!("CARGO_MANIFEST_DIR");
    let page = std::fs::read_to_string(format!("{root}/SECURITY.md")).unwrap();
    let links: Vec<_> = page.split("](").skip(1).filter_map(|rest| rest.split(')').next()).collect();
    assert!(links.len() >= 3);
    for link in links {
        let file = link.split('#').next().unwrap_or(link);
        assert!(std::path::Path::new(&format!("{root}/{file}")).exists(), "{link}");
    }
}
