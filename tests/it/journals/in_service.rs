//! Lines in the house: a file beside the database, and nobody who waits for it.

use std::time::Duration;

use serde_json::json;
use sessiond::error::Error;
use sessiond::journals::{Journal, Journals, Query};
use sessiond_core::ids::SessionNumber;
use sqlx::Connection;
use tempfile::TempDir;

use super::{lines, texts};
use crate::support::daemon::{database, sessiond};
use crate::support::{Daemon, Server, store};

const SESSION: SessionNumber = SessionNumber(1);

fn lines_of(server: &Server) -> Journals {
    server.running.as_ref().unwrap().house.lines.clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn heartbeats_do_not_wait_for_lines() {
    if store::has_no_file("somebody else locks the file") {
        return;
    }
    let server = Server::start().await;
    let agent = server.operator().await.connect(json!({ "name": "one" })).await;
    let url = format!("{}.lines", server.database());
    let mut other = sqlx::SqliteConnection::connect(&url).await.unwrap();
    sqlx::query("begin immediate").execute(&mut other).await.unwrap();
    let house_lines = lines_of(&server);
    let append =
        tokio::spawn(async move { house_lines.append(Journal::Lines, SESSION, lines(&["x"])).await });
    for _ in 0..20 {
        let heartbeat = tokio::time::timeout(Duration::from_secs(5), agent.call("heartbeat")).await;
        assert_eq!(heartbeat.expect("it waits for lines").0, 200);
    }
    assert!(!append.is_finished(), "the file is taken all the while");
    sqlx::query("rollback").execute(&mut other).await.unwrap();
    assert_eq!(append.await.unwrap().unwrap().last, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_are_kept_over_restarts_in_a_file_beside_the_database() {
    if store::has_no_file("lines are in the same database") {
        return;
    }
    let mut server = Server::start().await;
    let house_lines = lines_of(&server);
    house_lines.append(Journal::Lines, SESSION, lines(&["kept"])).await.unwrap();
    assert!(server.directory.path().join("sessiond.db.lines").exists());
    let inside = &mut crate::support::look_inside(&server.database()).await;
    let tables: Vec<String> =
        sqlx::query_scalar("select name from sqlite_schema").fetch_all(inside).await.unwrap();
    assert!(!tables.iter().any(|name| name == "block"), "not in the database itself");
    server = server.restart().await;
    let page = lines_of(&server).page(Journal::Lines, SESSION, &Query::default()).await.unwrap();
    assert_eq!(texts(&page), ["kept"]);
    server.stop().await;
    assert!(!server.directory.path().join("sessiond.db.lines-wal").exists(), "closed in order");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_of_lines_that_is_damaged_takes_nobody_down() {
    if store::has_no_file("it damages the file") {
        return;
    }
    let mut server = Server::start().await;
    server.stop().await;
    let file = server.directory.path().join("sessiond.db.lines");
    std::fs::write(&file, "not a database at all".repeat(1_000)).unwrap();
    let server = server.restart().await;
    let operator = server.operator().await;
    let agent = operator.connect(json!({ "name": "one" })).await;
    assert_eq!(agent.call("heartbeat").await.0, 200);
    let (status, text) = operator.get("/readyz?verbose").await;
    assert_eq!(status, 200, "{text}");
    let house_lines = lines_of(&server);
    let refused = house_lines.append(Journal::Lines, SESSION, lines(&["x"])).await;
    assert!(matches!(refused, Err(Error::Internal(_))), "{refused:?}");
    let said = "job lines checkpoint: nothing is written any more: ";
    server
        .until("it says so", async || {
            let text = operator.get("/readyz?verbose").await.1.to_string();
            text.contains("[+]job lines checkpoint") && text.contains(said.split_once(": ").unwrap().1)
        })
        .await;
    assert_eq!(std::fs::read(&file).unwrap().len(), 21_000, "it is left as it is, for whoever looks into it");
}

#[test]
fn how_long_lines_are_kept_can_be_said() {
    if store::has_no_file("it looks for the file") {
        return;
    }
    let directory = TempDir::new().unwrap();
    let said = |arguments: &[&str]| {
        let output = sessiond(&[&["config"], arguments].concat());
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(said(&[]).contains("keep-lines = \"30d\" # default"));
    assert!(said(&["--keep-lines", "12h"]).contains("keep-lines = \"12h\" # flag"));
    assert!(said(&["--keep-lines-mib", "512"]).contains("keep-lines-mib = 512 # flag"));
    // In one breath with its parameters, the file's name is still the database's.
    let url = format!("sqlite:{}?mode=rwc", database(directory.path()).display());
    let mut command = crate::support::daemon::command(directory.path(), &[]);
    command.args(["--database", &url]);
    let daemon = Daemon::spawn(command);
    assert!(directory.path().join("sessiond.db.lines").exists());
    assert!(daemon.terminate().success());
}
