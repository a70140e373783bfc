//! Backups: taken beside a running service, interrupted, and what a directory of theirs may hold.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::json;
use sessiond::journals::Journal;
use sessiond_core::ids::SessionNumber;
use sessiond_store::BackedUp;
use sqlx::{Connection, Row, SqliteConnection};
use tempfile::TempDir;
use tokio::sync::{Mutex, oneshot};

use super::{Backed, done, file, killed, names, note, refused, take, url};
use crate::kills::{Acknowledged, load, verify};
use crate::support::{Daemon, Server, look_inside};

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_taken_under_load_has_all_that_was_acknowledged_before_it() {
    let (from, backup, to) = (TempDir::new().unwrap(), TempDir::new().unwrap(), TempDir::new().unwrap());
    let daemon = Daemon::start(from.path(), &[]);
    let holder = daemon.operator().await;
    let acknowledged = Arc::new(Mutex::new(Acknowledged::default()));
    let workers: Vec<_> =
        (0..8).map(|worker| tokio::spawn(load(holder.clone(), acknowledged.clone(), worker))).collect();
    let mut before = vec![];
    // The second replaces the first; both while others write.
    for least in [40, 80] {
        while acknowledged.lock().await.sessions.len() < least {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        before = acknowledged.lock().await.sessions.keys().cloned().collect();
        let (from, to) = (from.path().to_owned(), backup.path().to_owned());
        let said = tokio::task::spawn_blocking(move || take(&from, &to, &["--with-key"])).await.unwrap();
        assert_eq!(said.lines().count(), 1, "{said}");
    }
    daemon.kill();
    join_all(workers).await;
    assert_eq!(names(backup.path()).len(), 4, "the first is gone: {:?}", names(backup.path()));
    done(&["restore", backup.path().to_str().unwrap(), "--database", &url(to.path())]);
    verify(to.path());
    let daemon = Daemon::start(to.path(), &[]);
    let operator = daemon.operator().await;
    for id in before {
        let (status, _) = operator.get(&format!("/api/v1/agent-instances/{id}")).await;
        assert_eq!(status, 200, "{id} was acknowledged before the backup was begun");
    }
    operator.connect(json!({ "name": "afterwards" })).await;
    assert!(daemon.terminate().success());
    verify(to.path());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_that_was_killed_looks_like_none_and_the_next_one_is_whole() {
    let (from, backup) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let daemon = Daemon::start(from.path(), &[]);
    let operator = daemon.operator().await;
    for _ in 0..8 {
        operator.connect_many(250).await;
    }
    let (path, database) = (backup.path().to_str().unwrap(), url(from.path()));
    for round in 0..12 {
        killed(&["backup", path, "--database", &database, "--with-key"], Duration::from_millis(round * 9));
        let to = TempDir::new().unwrap();
        let restore = ["restore", path, "--database", &url(to.path())];
        if backup.path().join("backup.json").exists() {
            done(&restore);
        } else {
            let said = refused(&restore);
            assert!(said.contains("no backup that is whole"), "{said}");
            assert_eq!(names(to.path()), ["sessiond.db.lock"]);
        }
    }
    take(from.path(), backup.path(), &["--with-key"]);
    let left = names(backup.path());
    assert_eq!(left.len(), 4, "what was interrupted is gone: {left:?}");
    assert!(daemon.terminate().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_is_its_owners_alone_and_holds_no_key_unless_told_so() {
    let backed = Backed::new(&[]).await;
    let key = fs::read_to_string(backed.from.path().join("sessiond.db.key")).unwrap();
    for name in names(backed.backup.path()) {
        let path = backed.backup.path().join(&name);
        let bytes = fs::read(&path).unwrap();
        assert!(!bytes.windows(64).any(|window| window == key.trim().as_bytes()), "{name}");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o077, 0, "{name}");
    }
    let note = note(backed.backup.path());
    assert_eq!(note["format"], 1);
    assert_eq!(note["keyCheck"].as_str().unwrap().len(), 64);
    assert_eq!(note["log"]["commitHash"].as_str().unwrap().len(), 64);
    assert_eq!(note["files"].as_array().unwrap().len(), 2);
    // A stopped one is backed up likewise, and leaves nothing beside the database that was not there.
    let before = names(backed.from.path());
    take(backed.from.path(), backed.backup.path(), &["--with-key"]);
    assert_eq!(names(backed.from.path()), before);
    assert_eq!(fs::read_to_string(file(backed.backup.path(), "key")).unwrap(), key);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_with_anything_else_in_it_is_refused_with_words_and_left_alone() {
    let backed = Backed::new(&[]).await;
    let other = TempDir::new().unwrap();
    fs::write(other.path().join("thesis.txt"), "years").unwrap();
    let database = url(backed.from.path());
    let said = refused(&["backup", other.path().to_str().unwrap(), "--database", &database]);
    assert!(said.contains("thesis.txt") && said.contains("name an empty directory"), "{said}");
    assert_eq!(names(other.path()), ["thesis.txt"]);
    let nothing = TempDir::new().unwrap();
    let said = refused(&["backup", backed.path(), "--database", &url(nothing.path())]);
    assert!(said.contains("there is no database at"), "{said}");
    take(backed.from.path(), &other.path().join("new/deep"), &[]);
}

/// Begins to copy the store of a server, and stops after the first page; goes on when it is told to.
async fn halfway(server: &Server, to: &TempDir) -> (mpsc::Sender<()>, JoinHandle<BackedUp>) {
    let (reached, is_reached) = oneshot::channel();
    let (go_on, goes_on) = mpsc::channel();
    let (database, to) = (server.database(), to.path().join("copy"));
    let copying = std::thread::spawn(move || {
        let mut reached = Some(reached);
        let mut progress = move |_: u64, _: u64| {
            if let Some(reached) = reached.take() {
                reached.send(()).unwrap();
                goes_on.recv().unwrap();
            }
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(sessiond_store::backup(&database, &to, &mut progress)).unwrap()
    });
    is_reached.await.unwrap();
    (go_on, copying)
}

#[tokio::test(flavor = "multi_thread")]
async fn between_two_pages_a_backup_holds_no_snapshot_and_the_write_ahead_log_can_be_emptied() {
    let server = Server::start().await;
    let operator = server.operator().await;
    operator.connect_many(20).await;
    let to = TempDir::new().unwrap();
    let (go_on, copying) = halfway(&server, &to).await;
    operator.connect_many(20).await;
    let mut other = SqliteConnection::connect(&server.database()).await.unwrap();
    let mut busy = 1_i64;
    // The service checkpoints too, and may be at it.
    for _ in 0..200 {
        let row = sqlx::query("pragma wal_checkpoint(truncate)").fetch_one(&mut other).await.unwrap();
        busy = row.get(0);
        if busy == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(busy, 0, "somebody reads the old write-ahead log");
    go_on.send(()).unwrap();
    let copied = copying.join().unwrap();
    assert!(copied.last_session.0 >= 40, "{copied:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_erased_while_a_backup_is_taken_is_not_in_it() {
    let server = Server::start().await;
    let operator = server.operator().await;
    let body =
        json!({ "name": "zaphod-name", "hostname": "zaphod-host", "authenticatedUserId": "zaphod-subject" });
    operator.connect(body).await;
    operator.connect(json!({ "name": "trillian-name", "authenticatedUserId": "trillian" })).await;
    let (_, list) = operator.get("/api/v1/principals?limit=50").await;
    let principals = list["items"].as_array().unwrap();
    let zaphod = principals.iter().find(|one| one["subject"] == "zaphod-subject").unwrap();
    let to = TempDir::new().unwrap();
    let (go_on, copying) = halfway(&server, &to).await;
    let path = format!("/api/v1/principals/{}/personal", zaphod["id"].as_str().unwrap());
    assert_eq!(operator.delete(&path).await.0, 200);
    go_on.send(()).unwrap();
    copying.join().unwrap();
    let bytes = fs::read(to.path().join("copy")).unwrap();
    let found = |word: &str| bytes.windows(word.len()).any(|window| window == word.as_bytes());
    assert!(found("trillian-name"), "the test would find it");
    assert!(!found("zaphod"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_let_go_while_a_backup_is_taken_is_not_in_it_and_it_verifies_and_is_restored() {
    const GONE: &str = "zaphod-host.example";
    const STAYS: &str = "trillian-host.example";
    let server = Server::start().await;
    let operator = server.operator().await;
    let agents = operator.connect_many(30).await;
    let shy = operator.connect(json!({ "hostname": GONE, "name": GONE })).await;
    let other = operator.connect(json!({ "hostname": STAYS })).await;
    for agent in agents.iter().chain([&shy, &other]) {
        agent.call("heartbeat").await;
        agent.call("heartbeat").await;
    }
    for agent in agents[..15].iter().chain([&shy]) {
        assert_eq!(agent.call("disconnect").await.0, 200);
    }
    server.turn(120);
    let to = TempDir::new().unwrap();
    let (go_on, copying) = halfway(&server, &to).await;
    let bytes = || fs::read(to.path().join("copy")).unwrap();
    let holds = |bytes: &[u8], word: &str| bytes.windows(word.len()).any(|window| window == word.as_bytes());
    assert!(holds(&bytes(), GONE), "it was copied before it is let go");
    let (status, said) = operator.put("/api/v1/organization/retention", json!({ "endedAfter": 60 })).await;
    assert_eq!(status, 200, "{said}");
    server
        .until_within(30, "the sessions to be let go", async || operator.get(&shy.path()).await.0 == 404)
        .await;
    go_on.send(()).unwrap();
    copying.join().unwrap();
    assert!(holds(&bytes(), STAYS), "the test would find it");
    assert!(!holds(&bytes(), GONE));

    let place = TempDir::new().unwrap();
    sessiond_store::restore(&to.path().join("copy"), &url(place.path())).await.unwrap();
    let key = "sessiond.db.key";
    fs::copy(server.directory.path().join(key), place.path().join(key)).unwrap();
    done(&["rebuild", "--database", &url(place.path())]);
    let said = done(&["verify", "--database", &url(place.path())]);
    assert!(said.contains("64 events more were let go"), "{said}");
    let daemon = Daemon::start(place.path(), &[]);
    let restored = daemon.operator().await;
    assert_eq!(restored.get(&shy.path()).await.0, 404);
    assert_eq!(restored.get(&other.path()).await.1["session"]["hostname"], STAYS);
    assert!(daemon.terminate().success());
    verify(place.path());
}

#[tokio::test(flavor = "multi_thread")]
async fn journals_of_sessions_that_are_not_in_a_backup_are_not_in_it_either() {
    let server = Server::start().await;
    let lines = server.running.as_ref().unwrap().house.lines.clone();
    for session in 1..=3 {
        let line = crate::journals::lines(&[&format!("of session {session}")]);
        lines.append(Journal::Lines, SessionNumber(session), line).await.unwrap();
    }
    let to = TempDir::new().unwrap();
    let (url, path) = (format!("{}.lines", server.database()), to.path().join("lines"));
    sessiond_store::backup_journals(&url, &path, SessionNumber(2), &mut |_, _| ()).await.unwrap();
    let mut copy = look_inside(&format!("sqlite:{}", path.display())).await;
    let sessions: Vec<i64> =
        sqlx::query_scalar("select session from block order by session").fetch_all(&mut copy).await.unwrap();
    assert_eq!(sessions, [1, 2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_table_is_in_a_backup_or_made_from_what_is() {
    let mut server = Server::start().await;
    server.operator().await.connect(json!({ "name": "one" })).await;
    server.stop().await;
    let to = TempDir::new().unwrap();
    sessiond_store::backup(&server.database(), &to.path().join("copy"), &mut |_, _| ()).await.unwrap();
    let copied = format!("sqlite:{}", to.path().join("copy").display());
    sessiond_store::rebuild(&copied, &mut |_, _| ()).await.unwrap();
    let (mut copy, mut live) = (look_inside(&copied).await, look_inside(&server.database()).await);
    let tables =
        "select name from sqlite_schema where type = 'table' and name not like 'sqlite%' order by name";
    let tables: Vec<String> = sqlx::query_scalar(tables).fetch_all(&mut live).await.unwrap();
    for table in tables.iter().filter(|table| !["mark", "session_activity"].contains(&table.as_str())) {
        let count = format!("select count(*) from {table}");
        let count = async |connection: &mut SqliteConnection| -> i64 {
            sqlx::query_scalar(sqlx::AssertSqlSafe(count.clone())).fetch_one(connection).await.unwrap()
        };
        assert_eq!(count(&mut copy).await, count(&mut live).await, "{table}");
    }
}
