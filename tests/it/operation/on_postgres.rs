//! An installation in a PostgreSQL server: its key, its commands, and what is never shown.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::json;
use tempfile::TempDir;

use super::{names, refused};
use crate::support::daemon::sessiond;
use crate::support::postgres::Database;
use crate::support::store::make_key;
use crate::support::{CLIENT_ID, CLIENT_SECRET, Daemon};

/// The command that serves on a database, in a directory where nothing is to be made.
pub fn serve(directory: &Path, url: &str, key: Option<&Path>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sessiond"));
    command
        .args(["serve", "--listen", "127.0.0.1:0", "--rate-limit", "0", "--database", url])
        .env("SESSIOND_BOOTSTRAP_CLIENT_ID", CLIENT_ID)
        .env("SESSIOND_BOOTSTRAP_CLIENT_SECRET", CLIENT_SECRET)
        .current_dir(directory);
    if let Some(key) = key {
        command.arg("--secret-key-file").arg(key);
    }
    command
}

pub fn said(output: &Output) -> String {
    assert!(!output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The same URL with a password in it, which the server asks nobody for.
fn with_password(url: &str) -> String {
    url.replacen('@', ":xyzzy%20plugh@", 1)
}

fn assert_hidden(text: &str) {
    assert!(!text.contains("xyzzy") && !text.contains("plugh"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_makes_no_key_and_says_how_one_is_made_and_no_other_is_good_from_then_on() {
    let (directory, database) = (TempDir::new().unwrap(), Database::new());
    let url = with_password(&database.url);
    let told = said(&serve(directory.path(), &url, None).output().unwrap());
    assert!(told.contains("--secret-key-file") && told.contains("/dev/urandom"), "{told}");
    assert_hidden(&told);
    let key = directory.path().join("its.key");
    let told = said(&serve(directory.path(), &url, Some(&key)).output().unwrap());
    assert!(told.contains("there is no secret key file") && told.contains("its.key"), "{told}");
    assert_hidden(&told);
    assert!(names(directory.path()).is_empty(), "nothing is made beside it");

    // The line that was told makes it.
    let recipe = told.lines().find(|line| line.contains("/dev/urandom")).unwrap();
    assert!(Command::new("sh").args(["-c", recipe]).status().unwrap().success());
    let daemon = Daemon::spawn(serve(directory.path(), &url, Some(&key)));
    let session = daemon.operator().await.connect(json!({ "name": "one" })).await;
    let ready = reqwest::get(format!("{}/readyz?verbose", daemon.base)).await.unwrap().text().await.unwrap();
    assert!(ready.contains("[+]postgresql") && ready.contains("[+]writer ok"), "{ready}");
    assert_hidden(&ready);
    assert_hidden(&daemon.log());
    assert!(daemon.terminate().success());
    assert_eq!(names(directory.path()), ["its.key"]);

    let other = directory.path().join("other.key");
    make_key(&other);
    let told = said(&serve(directory.path(), &url, Some(&other)).output().unwrap());
    assert!(told.contains("is not the secret key of postgres://tests:(redacted)@127.0.0.1"), "{told}");
    assert_hidden(&told);
    let daemon = Daemon::spawn(serve(directory.path(), &url, Some(&key)));
    let operator = daemon.operator().await;
    assert_eq!(operator.get(&session.path()).await.0, 200);
    assert!(daemon.terminate().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_that_want_the_database_for_themselves_are_refused_while_it_is_served() {
    let (directory, database) = (TempDir::new().unwrap(), Database::new());
    let key = directory.path().join("its.key");
    make_key(&key);
    let daemon = Daemon::spawn(serve(directory.path(), &database.url, Some(&key)));
    let named = ["--database", &database.url, "--secret-key-file", key.to_str().unwrap()];
    for arguments in [&["organizations", "create", "late"][..], &["rotate-key"]] {
        let told = refused(&[arguments, &named].concat());
        assert!(told.contains("stop the others first"), "{arguments:?}: {told}");
    }
    let told = refused(&["rebuild", "--database", &database.url]);
    assert!(told.contains("stop the others first"), "{told}");
    let looked = sessiond(&["verify", "--database", &database.url]);
    assert!(looked.status.success(), "looking is allowed: {looked:?}");
    assert_eq!(daemon.operator().await.get("/api/v1/applications").await.0, 200);
    // What is killed leaves nothing behind that keeps the next one out.
    daemon.kill();
    let daemon = Daemon::spawn(serve(directory.path(), &database.url, Some(&key)));
    assert!(daemon.terminate().success());
    let output = sessiond(&["rebuild", "--database", &database.url]);
    assert!(output.status.success(), "{output:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_commands_work_there_and_those_for_files_name_what_does_instead() {
    let (directory, database) = (TempDir::new().unwrap(), Database::new());
    let key = directory.path().join("its.key");
    make_key(&key);
    let url = with_password(&database.url);
    for arguments in [&["verify"][..], &["rebuild"], &["organizations", "create", "x"], &["rotate-key"]] {
        let told = refused(&[arguments, &["--database", &url]].concat());
        assert!(told.contains("sessiond has nothing in"), "{arguments:?}: {told}");
        assert_hidden(&told);
    }
    for verb in ["backup", "restore"] {
        let to = directory.path().join("backup");
        let told = refused(&[verb, to.to_str().unwrap(), "--database", &url]);
        assert!(
            ["pg_dump", "pg_basebackup", "docs/postgres.md"].iter().all(|one| told.contains(one)),
            "{told}"
        );
        assert_hidden(&told);
        assert!(!to.exists());
    }
    let daemon = Daemon::spawn(serve(directory.path(), &url, Some(&key)));
    let operator = daemon.operator().await;
    let session = operator.connect(json!({ "name": "one" })).await;
    assert!(daemon.terminate().success());
    for verb in ["verify", "rebuild", "verify"] {
        let output = sessiond(&[verb, "--database", &url]);
        assert!(output.status.success(), "{verb}: {output:?}");
        assert!(String::from_utf8_lossy(&output.stdout).contains("1 sessions"), "{output:?}");
    }
    let named = ["--database", &url, "--secret-key-file", key.to_str().unwrap()];
    for arguments in
        [&["organizations", "create", "second"][..], &["organizations", "recover", "second"], &["rotate-key"]]
    {
        let output = sessiond(&[arguments, &named].concat());
        assert!(output.status.success(), "{arguments:?}: {output:?}");
    }
    let kept = names(directory.path()).into_iter().filter(|name| name.starts_with("its.key")).count();
    assert_eq!(kept, 2, "the key, and the one before");
    let daemon = Daemon::spawn(serve(directory.path(), &url, Some(&key)));
    let operator = daemon.operator().await;
    assert_eq!(operator.get(&session.path()).await.0, 200);
    assert!(daemon.terminate().success());
}

#[test]
fn a_password_in_a_url_is_shown_nowhere() {
    let directory = TempDir::new().unwrap();
    let urls = [
        "postgres://user:xyzzy plugh@localhost/name",
        "postgres://user:xyzzy?plugh@localhost/name",
        "postgres://user:xyzzy#plugh@localhost/name",
        "postgres://user:xyzzy/plugh@localhost/name",
        "postgres://localhost/name?user=user&password=xyzzy plugh",
        "postgres://localhost/name?user=user&pass%77ord=xyzzy plugh",
        "postgres://user:xyzzy plugh@one:1,two:2/name?sslmode=require",
        "postgres:user:xyzzy plugh@localhost",
    ];
    for url in urls {
        let mut shown = Command::new(env!("CARGO_BIN_EXE_sessiond"));
        shown.arg("config").env("SESSIOND_DATABASE", url).current_dir(directory.path());
        let shown = String::from_utf8(shown.output().unwrap().stdout).unwrap();
        assert!(shown.contains("(redacted)"), "{url}: {shown}");
        assert_hidden(&shown);
        let mut help = Command::new(env!("CARGO_BIN_EXE_sessiond"));
        help.args(["serve", "--help"]).env("SESSIOND_DATABASE", url).current_dir(directory.path());
        assert_hidden(&String::from_utf8(help.output().unwrap().stdout).unwrap());
        let key = directory.path().join("key");
        for key in [None, Some(key.as_path())] {
            assert_hidden(&said(&serve(directory.path(), url, key).output().unwrap()));
        }
    }
    // What is no secret is shown as it is.
    let plain = "postgres://user@one:1,two:2/name?sslmode=verify-full";
    let output = sessiond(&["config", "--database", plain]);
    assert!(String::from_utf8_lossy(&output.stdout).contains(plain), "{output:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_not_there_or_lets_nobody_in_is_said_without_the_password() {
    let (directory, database) = (TempDir::new().unwrap(), Database::new());
    let key = directory.path().join("its.key");
    make_key(&key);
    let elsewhere = database.url.replacen("/test_", "/missing_", 1);
    let stranger = database.url.replacen("tests@", "nobody@", 1);
    let nowhere = "postgres://tests@127.0.0.1:1/name".to_owned();
    for (url, words) in
        [(elsewhere, "there is no database missing_"), (stranger, "nobody"), (nowhere, "refused")]
    {
        let url = with_password(&url);
        let told = said(&serve(directory.path(), &url, Some(&key)).output().unwrap());
        assert!(told.contains("cannot open the database") && told.contains(words), "{told}");
        assert_hidden(&told);
    }
}
