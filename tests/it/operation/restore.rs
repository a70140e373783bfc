//! Restores: what is barred by them, what is checked before, and what is left of one that was interrupted.

use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use sqlx::{Connection, SqliteConnection};
use tempfile::TempDir;

use super::{Backed, done, file, killed, names, note, refused, take, url};
use crate::kills::verify;
use crate::support::daemon::{command, database};
use crate::support::{Daemon, Feed, Holder};

fn holder(daemon: &Daemon, token: &str) -> Holder {
    let http = reqwest::Client::builder().timeout(Duration::from_secs(30)).build().unwrap();
    Holder { base: daemon.base.clone(), token: Some(token.to_owned()), http }
}

/// A start that must fail, and what it says.
fn no_start(directory: &Path) -> String {
    let output = command(directory, &[]).output().unwrap();
    assert!(!output.status.success(), "it started");
    String::from_utf8(output.stderr).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_restore_whatever_was_issued_before_opens_nothing_and_fresh_credentials_do() {
    let backed = Backed::new(&["--with-key"]).await;
    let to = TempDir::new().unwrap();
    let said = done(&["restore", backed.path(), "--database", &url(to.path())]);
    assert!(said.contains("restored: the log to position") && said.contains("barred: all tokens"), "{said}");
    assert!(said.contains("open: 1 service accounts: bootstrap"), "{said}");
    let daemon = Daemon::start(to.path(), &[]);
    let (old, session) = (holder(&daemon, &backed.token), holder(&daemon, &backed.session_token));
    for (status, body) in
        [old.get("/api/v1/applications").await, old.post("/api/v1/agent-sessions", json!({})).await]
    {
        assert_eq!((status.as_u16(), &body["code"]), (401, &json!("credential_revoked")));
    }
    let (status, body) =
        session.post(&format!("/api/v1/agent-sessions/{}/heartbeat", backed.session), json!({})).await;
    assert_eq!((status.as_u16(), &body["code"]), (401, &json!("credential_revoked")));
    let operator = daemon.operator().await;
    assert_eq!(operator.get(&format!("/api/v1/agent-instances/{}", backed.session)).await.0, 200);
    operator.connect(json!({ "name": "afterwards" })).await;
    // It is in the log who did it, and it stays so over restarts and rebuilding.
    assert!(daemon.terminate().success());
    done(&["rebuild", "--database", &url(to.path())]);
    verify(to.path());
    let daemon = Daemon::start(to.path(), &[]);
    let (_, events) = daemon.operator().await.get("/api/v1/events?types=organization_restored").await;
    assert_eq!(events["items"][0]["actor"]["kind"], "operator", "{events}");
    assert_eq!(holder(&daemon, &backed.token).get("/api/v1/applications").await.0, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_follows_from_a_position_that_the_restored_log_never_reached_is_told_so() {
    let backed = Backed::new(&["--with-key"]).await;
    let to = TempDir::new().unwrap();
    done(&["restore", backed.path(), "--database", &url(to.path())]);
    let daemon = Daemon::start(to.path(), &[]);
    let operator = daemon.operator().await;
    let (_, applications) = operator.get("/api/v1/applications").await;
    let application = applications["items"][0]["id"].as_str().unwrap();
    let path = format!("/api/v1/applications/{application}/sessions/events");
    let mut feed = Feed::open(&operator, &path, Some(1_000_000)).await;
    assert_eq!(feed.next().await.unwrap().event, "reset");
    operator.connect(json!({ "name": "afterwards" })).await;
    assert_eq!(feed.next().await.unwrap().event, "connected");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_keeps_credentials_and_revokes_keys_where_it_is_told_to() {
    let backed = Backed::new(&["--with-key"]).await;
    let daemon = Daemon::start(backed.from.path(), &[]);
    let body = json!({ "name": "ci\u{1b}runner", "scopes": ["management:all"] });
    let (status, key) = daemon.operator().await.post("/api/v1/api-keys", body).await;
    assert_eq!(status, 400, "no name has such characters: {key}");
    let body = json!({ "name": "ci runner", "scopes": ["management:all"] });
    let (_, key) = daemon.operator().await.post("/api/v1/api-keys", body).await;
    let key = key["key"].as_str().unwrap().to_owned();
    take(backed.from.path(), backed.backup.path(), &["--with-key"]);
    drop(daemon);
    for (flags, token, by_key) in
        [(&["--keep-credentials"] as &[&str], 200, 200), (&[], 401, 200), (&["--include-keys"], 401, 401)]
    {
        let to = TempDir::new().unwrap();
        let database = url(to.path());
        let said = done(&[&["restore", backed.path(), "--database", &database], flags].concat());
        assert_eq!(said.contains("open: 1 API keys: ci runner"), by_key == 200, "{said}");
        assert_eq!(said.contains("revoked: 1 API keys"), by_key == 401, "{said}");
        let daemon = Daemon::start(to.path(), &[]);
        let status =
            async |credential: &str| holder(&daemon, credential).get("/api/v1/applications").await.0.as_u16();
        assert_eq!((status(&backed.token).await, status(&key).await), (token, by_key), "{flags:?}");
        assert!(daemon.terminate().success());
        verify(to.path());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_without_the_key_says_what_it_needs_and_takes_no_other() {
    let backed = Backed::new(&[]).await;
    let (to, elsewhere) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let (database, key) = (url(to.path()), backed.from.path().join("sessiond.db.key"));
    let restore = ["restore", backed.path(), "--database", &database];
    let said = refused(&restore);
    let known = &note(backed.backup.path())["keyCheck"].as_str().unwrap()[..8].to_owned();
    assert!(
        said.contains("without its secret key") && said.contains(known) && said.contains("--key FILE"),
        "{said}"
    );
    drop(Daemon::start(elsewhere.path(), &[]));
    let wrong = elsewhere.path().join("sessiond.db.key");
    let said = refused(&[&restore[..], &["--key", wrong.to_str().unwrap()]].concat());
    assert!(said.contains("is not the secret key of this backup"), "{said}");
    let said = refused(&[&restore[..], &["--key", "/nowhere"]].concat());
    assert!(said.contains("there is no key file /nowhere"), "{said}");
    assert_eq!(names(to.path()), ["sessiond.db.lock"]);
    done(&[&restore[..], &["--key", key.to_str().unwrap()]].concat());
    assert_eq!(names(to.path()), ["sessiond.db", "sessiond.db.key", "sessiond.db.lines", "sessiond.db.lock"]);
    // Or it lies where it will be looked for.
    let to = TempDir::new().unwrap();
    fs::copy(&key, to.path().join("sessiond.db.key")).unwrap();
    done(&["restore", backed.path(), "--database", &url(to.path())]);
    drop(Daemon::start(to.path(), &[]));
}

/// What a restore says that must fail, and that it leaves nothing.
fn leaves_nothing(backup: &Path) -> String {
    let to = TempDir::new().unwrap();
    let said = refused(&["restore", backup.to_str().unwrap(), "--database", &url(to.path())]);
    assert_eq!(names(to.path()), ["sessiond.db.lock"], "{said}");
    said
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_changed_in_a_backup_is_not_restored() {
    let backed = Backed::new(&["--with-key"]).await;
    let backup = backed.backup.path();
    for holds in ["database", "journals", "key"] {
        let path = file(backup, holds);
        let aside = path.with_extension("aside");
        fs::copy(&path, &aside).unwrap();
        let mut bytes = fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(&path, bytes).unwrap();
        let said = leaves_nothing(backup);
        assert!(said.contains("is not what it was when the backup was taken"), "{holds}: {said}");
        fs::remove_file(&path).unwrap();
        assert!(leaves_nothing(backup).contains("cannot read"), "{holds}");
        fs::rename(&aside, &path).unwrap();
    }
    // Whoever changes the note along still has to get past the log's own hashes.
    let path = file(backup, "database");
    let mut connection = SqliteConnection::connect(&format!("sqlite:{}", path.display())).await.unwrap();
    let changed =
        sqlx::query("update event set body = replace(body, 'here', 'gone') where type = 'connected'");
    let changed = changed.execute(&mut connection).await.unwrap();
    assert_eq!(changed.rows_affected(), 1);
    let cut = sqlx::query("update event set personal = null where personal is not null");
    cut.execute(&mut connection).await.unwrap();
    sqlx::query("delete from event where position = (select max(position) from event)")
        .execute(&mut connection)
        .await
        .unwrap();
    connection.close().await.unwrap();
    let mut note: Value = note(backup);
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &fs::read(&path).unwrap());
    let files = note["files"].as_array_mut().unwrap();
    let entry = files.iter_mut().find(|file| file["holds"] == "database").unwrap();
    entry["sha256"] = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect::<String>().into();
    entry["bytes"] = fs::metadata(&path).unwrap().len().into();
    fs::write(backup.join("backup.json"), note.to_string()).unwrap();
    let said = leaves_nothing(backup);
    assert!(said.contains("nothing was restored"), "{said}");
    note["format"] = 2.into();
    fs::write(backup.join("backup.json"), note.to_string()).unwrap();
    assert!(leaves_nothing(backup).contains("a newer sessiond"));
    fs::write(backup.join("backup.json"), "{}").unwrap();
    assert!(leaves_nothing(backup).contains("no note of a backup"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_replaces_nothing() {
    let backed = Backed::new(&["--with-key"]).await;
    let database_url = url(backed.from.path());
    let restore = ["restore", backed.path(), "--database", &database_url];
    let said = refused(&restore);
    assert!(said.contains("a restore replaces nothing"), "{said}");
    verify(backed.from.path());
    fs::remove_file(database(backed.from.path())).unwrap();
    assert!(refused(&restore).contains("sessiond.db.lines already"));
    let running = TempDir::new().unwrap();
    let daemon = Daemon::start(running.path(), &[]);
    let said = refused(&["restore", backed.path(), "--database", &url(running.path())]);
    assert!(said.contains("another sessiond works on"), "{said}");
    drop(daemon);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_that_was_killed_leaves_no_installation_or_a_whole_one() {
    let backed = Backed::new(&["--with-key"]).await;
    let to = TempDir::new().unwrap();
    let database_url = url(to.path());
    let restore = ["restore", backed.path(), "--database", &database_url];
    for round in 0..16 {
        killed(&restore, Duration::from_millis(round * 6));
        if database(to.path()).exists() {
            break;
        }
        if names(to.path()).iter().any(|name| name.ends_with(".restoring")) {
            let said = no_start(to.path());
            assert!(said.contains("a restore of") && said.contains("run it again"), "{said}");
        }
    }
    if !database(to.path()).exists() {
        done(&restore);
    }
    verify(to.path());
    drop(Daemon::start(to.path(), &[]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_that_was_killed_between_its_last_steps_is_finished_by_the_next_one() {
    let backed = Backed::new(&["--with-key"]).await;
    let to = TempDir::new().unwrap();
    let restore = ["restore", backed.path(), "--database", &url(to.path())];
    done(&restore);
    // As it is after the key and the journals were moved, and before the database was.
    let work = to.path().join("sessiond.db.restoring");
    fs::create_dir(&work).unwrap();
    fs::rename(database(to.path()), work.join("database")).unwrap();
    fs::copy(to.path().join("sessiond.db.key"), work.join("key")).unwrap();
    fs::write(work.join("ready"), "restored\n").unwrap();
    let said = no_start(to.path());
    assert!(said.contains("run it again"), "{said}");
    let said = done(&restore);
    assert_eq!(said, "a restore that was interrupted is done now\nrestored\n");
    assert_eq!(names(to.path()), ["sessiond.db", "sessiond.db.key", "sessiond.db.lines", "sessiond.db.lock"]);
    verify(to.path());
    drop(Daemon::start(to.path(), &[]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_and_a_restore_that_find_the_disk_full_leave_nothing_half_done() {
    let backed = Backed::new(&["--with-key"]).await;
    let (to, out) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let limited = |arguments: &[&str]| {
        let mut shell = std::process::Command::new("sh");
        shell.args(["-c", "ulimit -f 64; trap '' XFSZ; exec \"$@\"", "sh", env!("CARGO_BIN_EXE_sessiond")]);
        shell.args(arguments).output().unwrap()
    };
    let output = limited(&["backup", out.path().to_str().unwrap(), "--database", &url(backed.from.path())]);
    assert!(!output.status.success(), "files may have 32 KiB");
    assert_eq!(names(out.path()), Vec::<String>::new());
    let output = limited(&["restore", backed.path(), "--database", &url(to.path())]);
    assert!(!output.status.success(), "files may have 32 KiB");
    assert_eq!(names(to.path()), ["sessiond.db.lock"]);
}
