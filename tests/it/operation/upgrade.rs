//! Databases of earlier releases: a start brings them to the form of this one, and nothing in them is lost.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use sqlx::{Connection, Row, SqliteConnection};
use tempfile::TempDir;

use super::{done, refused, take, url};
use crate::support::tree::root;
use crate::support::{Daemon, look_inside};

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
