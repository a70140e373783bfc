//! Databases of earlier releases: a start brings them to the form of this one, and nothing in them is lost.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};
use sqlx::{Connection, Row, SqliteConnection};
use tempfile::TempDir;

use super::{done, refused, take, url};
use crate::support::daemon::database;
use crate::support::tree::root;
use crate::support::{Daemon, Holder, look_inside};

/// A copy of each installation of an earlier release.
fn installations() -> Vec<TempDir> {
    let folders = fs::read_dir(root().join("tests/golden/installations")).unwrap();
    let folders = folders.map(|entry| entry.unwrap().path()).filter(|path| path.is_dir());
    folders.map(copy).collect()
}

fn copy(folder: PathBuf) -> TempDir {
    let directory = TempDir::new().unwrap();
    for name in ["sessiond.db", "sessiond.db.key"] {
        let to = directory.path().join(name);
        fs::copy(folder.join(name), &to).unwrap();
        fs::set_permissions(&to, Permissions::from_mode(0o600)).unwrap();
    }
    directory
}

#[tokio::test(flavor = "multi_thread")]
async fn an_installation_of_an_earlier_release_starts_with_all_that_is_in_it() {
    let installations = installations();
    assert!(!installations.is_empty());
    for directory in installations {
        let database = url(directory.path());
        let mut inside = look_inside(&database).await;
        let events: i64 =
            sqlx::query("select count(*) from event").fetch_one(&mut inside).await.unwrap().get(0);
        let sessions = "select id from session";
        let sessions: Vec<uuid::Uuid> = sqlx::query_scalar(sessions).fetch_all(&mut inside).await.unwrap();
        drop(inside);
        // Before that it is copied by its own release alone.
        let backup = TempDir::new().unwrap();
        let said = refused(&["backup", backup.path().to_str().unwrap(), "--database", &database]);
        assert!(said.contains("another release wrote it"), "{said}");
        let daemon = Daemon::start(directory.path(), &[]);
        let operator = daemon.operator().await;
        for session in &sessions {
            let (status, body) = operator.get(&format!("/api/v1/agent-instances/{session}")).await;
            assert_eq!(status, 200, "{body}");
        }
        assert!(daemon.terminate().success());
        let said = done(&["verify", "--database", &database]);
        let verified: i64 = said.split(' ').nth(1).unwrap().parse().unwrap();
        assert!(verified >= events, "{said}");
        take(directory.path(), backup.path(), &["--with-key"]);
        done(&["rotate-key", "--database", &database]);
        done(&["rebuild", "--database", &database]);
        let to = TempDir::new().unwrap();
        done(&["restore", backup.path().to_str().unwrap(), "--database", &url(to.path())]);
        drop(Daemon::start(to.path(), &[]));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_newer_release_wrote_is_refused_with_words() {
    let directory = TempDir::new().unwrap();
    drop(Daemon::start(directory.path(), &[]));
    let database = url(directory.path());
    let mut inside = SqliteConnection::connect(&database).await.unwrap();
    let newer = "insert into _sqlx_migrations (version, description, success, checksum, execution_time) \
                 values (9999, 'newer', 1, x'00', 0)";
    sqlx::query(newer).execute(&mut inside).await.unwrap();
    inside.close().await.unwrap();
    let out = TempDir::new().unwrap();
    let said = refused(&["backup", out.path().to_str().unwrap(), "--database", &database]);
    assert!(said.contains("migrations up to 9999"), "{said}");
    let said = refused(&["serve", "--listen", "127.0.0.1:0", "--database", &database]);
    assert!(said.contains("written by a newer sessiond"), "{said}");
}

/// Connects to a database that nobody has open.
async fn alter(database: &str, statements: &[&'static str]) {
    let mut inside = SqliteConnection::connect(database).await.unwrap();
    for sql in statements {
        let changed = sqlx::query(*sql).execute(&mut inside).await.unwrap();
        assert!(changed.rows_affected() > 0, "{sql}");
    }
    inside.close().await.unwrap();
}

/// The people of an installation that are found by a word.
async fn found(operator: &Holder, word: &str) -> Vec<Value> {
    let (status, found) = operator.get(&format!("/api/v1/principals?q={word}")).await;
    assert_eq!(status, 200, "{found}");
    found["items"].as_array().unwrap().iter().map(|one| one["name"].clone()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn people_who_were_described_under_an_earlier_release_are_found_by_name_after_the_upgrade() {
    for directory in installations() {
        let database = url(directory.path());
        let described = "update principal set name = 'Ada King', email = 'ada@lovelace.example' where number = \
                         (select max(number) from principal)";
        alter(&database, &[described]).await;
        for _ in 0..2 {
            let daemon = Daemon::start(directory.path(), &[]);
            let operator = daemon.operator().await;
            for word in ["king", "ADA", "lovel"] {
                assert_eq!(found(&operator, word).await, [json!("Ada King")], "{word}");
            }
            assert!(found(&operator, "nobody").await.is_empty());
            assert!(daemon.terminate().success());
        }
        done(&["verify", "--database", &database]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_no_release_has_filed_yet_is_filed_by_the_next_start_alone() {
    let directory = TempDir::new().unwrap();
    let daemon = Daemon::start(directory.path(), &[]);
    let operator = daemon.operator().await;
    let body = json!({ "name": "k", "scopes": ["terminal"], "user": { "id": "u", "name": "Grace Hopper" } });
    assert_eq!(operator.post("/api/v1/api-keys", body).await.0, 201);
    assert_eq!(found(&operator, "hopper").await, [json!("Grace Hopper")]);
    assert!(daemon.terminate().success());
    let database = url(directory.path());
    // With its mark, nobody looks for those who are not filed.
    alter(&database, &["delete from principal_word"]).await;
    let daemon = Daemon::start(directory.path(), &[]);
    assert!(found(&daemon.operator().await, "hopper").await.is_empty());
    assert!(daemon.terminate().success());
    alter(&database, &["delete from mark where name = 'people'"]).await;
    let daemon = Daemon::start(directory.path(), &[]);
    assert_eq!(found(&daemon.operator().await, "hopper").await, [json!("Grace Hopper")]);
    assert!(daemon.terminate().success());
}

/// Sessions that take some space and have ended.
async fn fill(directory: &Path) {
    let daemon = Daemon::start(directory, &[]);
    let operator = daemon.operator().await;
    let mut application = String::new();
    for _ in 0..4 {
        let body = json!({ "clientInfo": { "name": "n", "notes": "x".repeat(6_000) } });
        let agents = join_all((0..100).map(|_| operator.connect(body.clone()))).await;
        application.clone_from(&agents[0].application);
    }
    let (status, said) = operator.delete(&format!("/api/v1/applications/{application}/sessions")).await;
    assert_eq!((status.as_u16(), said["disconnectedCount"].as_u64() >= Some(400)), (200, true), "{said}");
    assert!(daemon.terminate().success());
}

/// Starts this release so that it keeps nothing that has ended, waits until that is gone and, where that gives space back, until
/// most of that was given back, and stops it.
async fn let_go(directory: &Path, gives_back: bool) {
    let mut inside = look_inside(&url(directory)).await;
    let number = async |inside: &mut SqliteConnection, sql: &'static str| -> i64 {
        sqlx::query_scalar(sql).fetch_one(inside).await.unwrap()
    };
    let full = number(&mut inside, "pragma page_count").await;
    let daemon = Daemon::start(directory, &["--keep-ended", "1s"]);
    for _ in 0..3_000 {
        let ended = number(&mut inside, "select count(*) from session where state = 0").await;
        if ended == 0 && (!gives_back || number(&mut inside, "pragma page_count").await < full / 2) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    if !gives_back {
        // It would have begun by then.
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    drop(inside);
    assert!(daemon.terminate().success());
}

fn size_of(directory: &Path) -> u64 {
    fs::metadata(database(directory)).unwrap().len()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_of_an_earlier_release_is_written_anew_by_a_rebuild_once_and_then_shrinks_like_any_other() {
    for directory in installations() {
        let place = directory.path();
        let mode = async || -> i64 {
            let mut inside = look_inside(&url(place)).await;
            sqlx::query_scalar("pragma auto_vacuum").fetch_one(&mut inside).await.unwrap()
        };
        fill(place).await;
        assert_eq!(mode().await, 0, "this release has it in every file that it makes");
        let full = size_of(place);
        let_go(place, false).await;
        assert!(size_of(place) >= full, "it could shrink before");
        done(&["rebuild", "--database", &url(place)]);
        assert_eq!(mode().await, 2);
        assert!(size_of(place) < full / 2, "{full} {}", size_of(place));

        fill(place).await;
        let full = size_of(place);
        let_go(place, true).await;
        assert!(size_of(place) < full / 2, "{full} {}", size_of(place));
        done(&["verify", "--database", &url(place)]);
        done(&["rebuild", "--database", &url(place)]);
        done(&["verify", "--database", &url(place)]);
    }
}
