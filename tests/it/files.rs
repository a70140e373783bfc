//! The files of an installation: whose they are, what lies beside what, and what a start makes of what it finds.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;
use sqlx::{Connection, SqliteConnection};
use tempfile::TempDir;

use crate::support::Daemon;
use crate::support::daemon::{command, database, sessiond};

fn url(directory: &Path) -> String {
    format!("sqlite:{}", database(directory).display())
}

fn beside(directory: &Path, suffix: &str) -> PathBuf {
    format!("{}{suffix}", database(directory).display()).into()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort_unstable();
    names
}

/// A start that must fail, and what it says.
fn refused(mut command: Command) -> String {
    let output: Output = command.output().unwrap();
    assert!(!output.status.success(), "it started");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Waits for the process to end by itself, and returns its status.
fn ends(daemon: &mut Daemon) -> Option<i32> {
    let begun = Instant::now();
    loop {
        if let Some(status) = daemon.child.try_wait().unwrap() {
            return status.code();
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "it goes on: {}", daemon.log());
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Waits until the log of a process, which may have ended meanwhile, has these words.
fn says(daemon: &Daemon, words: &str) {
    let begun = Instant::now();
    while !daemon.log().contains(words) {
        assert!(begun.elapsed() < Duration::from_secs(30), "{words}: {}", daemon.log());
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// An installation that was used and stopped, with a session in it.
async fn used() -> (TempDir, String) {
    let directory = TempDir::new().unwrap();
    let daemon = Daemon::start(directory.path(), &[]);
    let agent = daemon.operator().await.connect(json!({ "name": "here" })).await;
    assert!(daemon.terminate().success());
    (directory, agent.id)
}

async fn knows(directory: &Path, session: &str) -> bool {
    let daemon = Daemon::start(directory, &[]);
    let (status, _) = daemon.operator().await.get(&format!("/api/v1/agent-instances/{session}")).await;
    assert!(daemon.terminate().success());
    status == 200
}

async fn change(directory: &Path, sql: &'static str) {
    let mut connection = SqliteConnection::connect(&url(directory)).await.unwrap();
    sqlx::query(sql).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_made_is_for_its_owner_alone_whatever_the_umask_was() {
    let directory = TempDir::new().unwrap();
    let plain = command(directory.path(), &[]);
    let mut shell = Command::new("sh");
    shell.args(["-c", "umask 0; exec \"$0\" \"$@\""]).arg(plain.get_program()).args(plain.get_args());
    shell.envs(plain.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let daemon = Daemon::spawn(shell);
    daemon.operator().await.connect(json!({})).await;
    let made = names(directory.path());
    for suffix in ["", "-wal", "-shm", ".lines", ".lines-wal", ".lines-shm", ".key", ".lock"] {
        assert!(made.contains(&format!("sessiond.db{suffix}")), "{suffix}: {made:?}");
    }
    for name in made {
        let mode = mode(&directory.path().join(&name));
        assert_eq!(mode & 0o077, 0, "{name}: {mode:o}");
    }
    assert!(daemon.terminate().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_older_release_let_others_read_is_taken_from_them_and_what_a_group_was_given_stays() {
    let (directory, session) = used().await;
    for suffix in ["", ".lines", ".lock"] {
        set_mode(&beside(directory.path(), suffix), 0o644);
    }
    assert!(knows(directory.path(), &session).await);
    for suffix in ["", ".lines", ".lock"] {
        assert_eq!(
            mode(&beside(directory.path(), suffix)),
            0o600,
            "{suffix}: who can only read it cannot lock it"
        );
    }
    set_mode(&beside(directory.path(), ""), 0o640);
    assert!(knows(directory.path(), &session).await);
    assert_eq!(mode(&beside(directory.path(), "")), 0o640, "somebody wanted that, for backups say");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_others_can_read_or_change_is_refused_with_words() {
    let (directory, session) = used().await;
    let key = beside(directory.path(), ".key");
    for (mode, words) in
        [(0o666, "changed by others"), (0o620, "changed by others"), (0o644, "read by others")]
    {
        set_mode(&key, mode);
        let said = refused(command(directory.path(), &[]));
        let shown = format!("{mode:04o}");
        for word in [words, "chmod 600", &shown, key.to_str().unwrap()] {
            assert!(said.contains(word), "{word}: {said}");
        }
    }
    for mode in [0o600, 0o400] {
        set_mode(&key, mode);
        assert!(knows(directory.path(), &session).await, "{mode:o}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_stop_the_file_alone_is_the_whole_database() {
    let (directory, session) = used().await;
    assert_eq!(
        names(directory.path()),
        ["sessiond.db", "sessiond.db.key", "sessiond.db.lines", "sessiond.db.lock"],
        "no log is left beside either file"
    );
    let elsewhere = TempDir::new().unwrap();
    for suffix in ["", ".key"] {
        fs::copy(beside(directory.path(), suffix), beside(elsewhere.path(), suffix)).unwrap();
    }
    assert!(knows(elsewhere.path(), &session).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_founded_beside_what_is_left_of_an_installation() {
    // Killed, so that all there is stands in the write-ahead log; and copied without it.
    let directory = TempDir::new().unwrap();
    let daemon = Daemon::start(directory.path(), &[]);
    daemon.operator().await.connect(json!({})).await;
    daemon.kill();
    let elsewhere = TempDir::new().unwrap();
    for suffix in ["", ".key"] {
        fs::copy(beside(directory.path(), suffix), beside(elsewhere.path(), suffix)).unwrap();
    }
    let before = fs::read(beside(elsewhere.path(), "")).unwrap();
    let said = refused(command(elsewhere.path(), &[]));
    for word in ["nothing is recorded in", "sessiond.db.key", "-wal"] {
        assert!(said.contains(word), "{word}: {said}");
    }
    assert_eq!(fs::read(beside(elsewhere.path(), "")).unwrap(), before, "it was not touched");
    assert!(!names(elsewhere.path()).iter().any(|name| name.contains("-wal") || name.contains(".lines")));
    // With it, all is there again.
    fs::copy(beside(directory.path(), "-wal"), beside(elsewhere.path(), "-wal")).unwrap();
    assert!(Daemon::start(elsewhere.path(), &[]).terminate().success());

    for left in [".key", ".lines", "-wal"] {
        let empty = TempDir::new().unwrap();
        let from = if left == "-wal" { directory.path() } else { elsewhere.path() };
        fs::copy(beside(from, left), beside(empty.path(), left)).unwrap();
        let said = refused(command(empty.path(), &[]));
        assert!(said.contains("there is no database at"), "{left}: {said}");
        assert!(said.contains(&format!("sessiond.db{left}")), "{left}: {said}");
        assert!(!database(empty.path()).exists(), "{left}: nothing was made");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_was_provided_for_a_first_start_is_taken() {
    let (directory, _) = used().await;
    let empty = TempDir::new().unwrap();
    let key = empty.path().join("provided");
    fs::copy(beside(directory.path(), ".key"), &key).unwrap();
    let daemon = Daemon::start(empty.path(), &["--secret-key-file", key.to_str().unwrap()]);
    assert!(daemon.terminate().success());
    assert!(!beside(empty.path(), ".key").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_key_or_with_another_the_service_does_not_start() {
    let (directory, session) = used().await;
    let (other, _) = used().await;
    let (key, kept) = (beside(directory.path(), ".key"), directory.path().join("kept"));
    for checked in [true, false] {
        if !checked {
            // As in a database from before keys were checked.
            change(directory.path(), "delete from key_check").await;
        }
        fs::rename(&key, &kept).unwrap();
        let said = refused(command(directory.path(), &[]));
        assert!(said.contains("is missing") && said.contains("put it back"), "{said}");
        assert!(!key.exists(), "none is made in its place");
        fs::copy(beside(other.path(), ".key"), &key).unwrap();
        let said = refused(command(directory.path(), &[]));
        let words = if checked { "is not the secret key of" } else { "opens nothing of what is sealed" };
        assert!(said.contains(words), "{said}");
        fs::rename(&kept, &key).unwrap();
    }
    assert!(knows(directory.path(), &session).await);
    let mut inside = crate::support::look_inside(&url(directory.path())).await;
    let checks: i64 =
        sqlx::query_scalar("select count(*) from key_check").fetch_one(&mut inside).await.unwrap();
    assert_eq!(checks, 1, "the first start with a key that opens something wrote down which it is");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_to_a_database_is_that_database() {
    let directory = TempDir::new().unwrap();
    let daemon = Daemon::start(directory.path(), &[]);
    let elsewhere = TempDir::new().unwrap();
    symlink(database(directory.path()), database(elsewhere.path())).unwrap();
    let said = refused(command(elsewhere.path(), &[]));
    assert!(said.contains("another sessiond works on"), "{said}");
    assert!(daemon.terminate().success());
    assert!(Daemon::start(elsewhere.path(), &[]).terminate().success());
    assert_eq!(names(elsewhere.path()), ["sessiond.db"], "lock, key and lines are beside the real file");
    fs::remove_file(database(directory.path())).unwrap();
    let said = refused(command(elsewhere.path(), &[]));
    assert!(said.contains("is a link to a database that is not there"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_loses_a_race_for_a_position_ends() {
    let directory = TempDir::new().unwrap();
    let mut daemon = Daemon::start(directory.path(), &[]);
    let operator = daemon.operator().await;
    let agent = operator.connect(json!({})).await;
    // Another writer, which took no lock: it writes where the service is about to write.
    let mut other = SqliteConnection::connect(&url(directory.path())).await.unwrap();
    sqlx::query("create temp table copy as select * from event order by position desc limit 1")
        .execute(&mut other)
        .await
        .unwrap();
    sqlx::query("update copy set position = position + 1, version = version + 1")
        .execute(&mut other)
        .await
        .unwrap();
    sqlx::query("insert into event select * from copy").execute(&mut other).await.unwrap();
    let url = format!("{}{}/heartbeat", daemon.base, agent.path());
    let answer = operator.http.post(url).bearer_auth(agent.holder.token.as_ref().unwrap()).send().await;
    assert!(!answer.is_ok_and(|answer| answer.status().is_success()), "nothing was acknowledged");
    assert_eq!(ends(&mut daemon), Some(74));
    says(&daemon, "another process writes to the same database");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_was_deleted_or_replaced_under_the_service_ends_it() {
    for (suffix, replaced) in [("", false), ("", true), ("-wal", false)] {
        let directory = TempDir::new().unwrap();
        let mut daemon = Daemon::start(directory.path(), &[]);
        let operator = daemon.operator().await;
        let agent = operator.connect(json!({})).await;
        let (file, away) = (beside(directory.path(), suffix), directory.path().join("away"));
        fs::rename(&file, &away).unwrap();
        if replaced {
            fs::copy(&away, &file).unwrap();
        }
        // Nobody has to write for it to be noticed; and whoever does gets no acknowledgement.
        if suffix.is_empty() && !replaced {
            let url = format!("{}{}/heartbeat", daemon.base, agent.path());
            let token = agent.holder.token.as_ref().unwrap();
            let answer = operator.http.post(url).bearer_auth(token).send().await;
            assert!(!answer.is_ok_and(|answer| answer.status().is_success()), "nothing was acknowledged");
        }
        assert_eq!(ends(&mut daemon), Some(74), "{suffix} {replaced}");
        says(&daemon, if replaced { "was replaced" } else { "was deleted or moved" });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_of_lines_that_was_deleted_closes_that_room_and_no_other() {
    let directory = TempDir::new().unwrap();
    let daemon = Daemon::start(directory.path(), &[]);
    let operator = daemon.operator().await;
    fs::remove_file(beside(directory.path(), ".lines")).unwrap();
    says(&daemon, "cannot be written any more; all else goes on");
    operator.connect(json!({})).await;
    assert!(daemon.terminate().success());
}

#[test]
fn a_closed_pipe_ends_a_command_quietly() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_sessiond"))
        .arg("openapi")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    let full = fs::File::options().write(true).open("/dev/full").unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_sessiond")).arg("openapi").stdout(full).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("cannot write to standard output"), "{said}");
    assert!(!said.contains("panicked"), "{said}");
}

async fn organizations(directory: &Path) -> i64 {
    let mut inside = crate::support::look_inside(&url(directory)).await;
    sqlx::query_scalar("select count(*) from organization").fetch_one(&mut inside).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_that_cannot_be_shown_are_not_made() {
    let directory = TempDir::new().unwrap();
    let url = url(directory.path());
    let serve = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sessiond"));
        command.args(["serve", "--listen", "127.0.0.1:0", "--database", &url]);
        command
    };
    let full = || fs::File::options().write(true).open("/dev/full").unwrap();
    let mut first = serve();
    first.stdout(full());
    let said = refused(first);
    assert!(said.contains("so none were made") && said.contains("--credentials-file"), "{said}");
    assert_eq!(organizations(directory.path()).await, 0);
    // Into a file, which must be a new one.
    let file = directory.path().join("credentials");
    fs::write(&file, "of another").unwrap();
    let mut again = serve();
    again.args(["--credentials-file", file.to_str().unwrap()]);
    let said = refused(again);
    assert!(said.contains("so none were made") && said.contains("exists"), "{said}");
    assert_eq!(fs::read_to_string(&file).unwrap(), "of another");
    fs::remove_file(&file).unwrap();
    let mut last = serve();
    last.args(["--credentials-file", file.to_str().unwrap()]).stdout(full());
    assert!(Daemon::spawn_with(last, full().into()).terminate().success());
    assert_eq!((mode(&file), organizations(directory.path()).await), (0o600, 1));
    assert!(fs::read_to_string(&file).unwrap().contains("client secret  sck_"));

    for to in [Stdio::from(full()), closed_pipe()] {
        let mut create = Command::new(env!("CARGO_BIN_EXE_sessiond"));
        create.args(["organizations", "create", "X", "--database", &url]).stdout(to);
        let said = create.stderr(Stdio::piped()).spawn().unwrap().wait_with_output().unwrap();
        assert!(!said.status.success(), "{said:?}");
        assert!(!String::from_utf8_lossy(&said.stderr).contains("panicked"), "{said:?}");
    }
    assert_eq!(organizations(directory.path()).await, 1, "nothing was made for nobody");
    let file = directory.path().join("of X");
    let to = file.to_str().unwrap();
    let made = sessiond(&["organizations", "create", "X", "--database", &url, "--credentials-file", to]);
    assert!(made.status.success() && made.stdout.is_empty(), "{made:?}");
    assert_eq!((mode(&file), organizations(directory.path()).await), (0o600, 2));
}

/// A pipe whose reader has gone.
fn closed_pipe() -> Stdio {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    writer.into()
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_reads_only_the_first_lines_has_been_shown_all() {
    let (directory, _) = used().await;
    let script = format!(
        "{} organizations create X --database {} | head -4",
        env!("CARGO_BIN_EXE_sessiond"),
        url(directory.path())
    );
    let output = Command::new("sh").args(["-c", &script]).output().unwrap();
    assert!(output.stderr.is_empty(), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("client secret"), "{output:?}");
    assert_eq!(organizations(directory.path()).await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_erased_is_nowhere_on_the_disk() {
    let directory = TempDir::new().unwrap();
    let daemon = Daemon::start(directory.path(), &[]);
    let operator = daemon.operator().await;
    let connect = |who: &str, number: usize| {
        let body = json!({
            "name": format!("{who}-name-{number}"), "hostname": format!("{who}-{}-host", number * 7919 % 100),
            "clientSessionId": format!("{who}-run-{number}"), "tokenIdentifier": format!("{who}-key-{number}"),
            "authenticatedUserId": format!("{who}-subject"), "clientInfo": { "name": format!("{who}-client") },
        });
        let operator = operator.clone();
        async move { operator.connect(body).await }
    };
    let mut gone = Vec::new();
    for number in 0..40 {
        gone.push(connect("zaphod", number).await);
        connect("trillian", number).await;
    }
    for agent in &gone[..20] {
        agent.call("disconnect").await;
    }
    let (_, list) = operator.get("/api/v1/principals?limit=50").await;
    let principal =
        list["items"].as_array().unwrap().iter().find(|one| one["subject"] == "zaphod-subject").unwrap();
    let path = format!("/api/v1/principals/{}/personal", principal["id"].as_str().unwrap());
    let (status, erased) = operator.delete(&path).await;
    assert_eq!((status.as_u16(), &erased["sessions"]), (200, &json!(40)));
    assert!(daemon.terminate().success());
    for name in names(directory.path()) {
        let bytes = fs::read(directory.path().join(&name)).unwrap();
        let found =
            |word: &str| bytes.windows(word.len()).filter(|window| *window == word.as_bytes()).count();
        assert_eq!(found("zaphod"), 0, "{name}");
        assert_eq!(found("trillian") > 0, name == "sessiond.db", "the test would find it: {name}");
    }
    let verified = sessiond(&["verify", "--database", &url(directory.path())]);
    assert!(verified.status.success(), "{verified:?}");
    let rebuilt = sessiond(&["rebuild", "--database", &url(directory.path())]);
    assert!(rebuilt.status.success(), "{rebuilt:?}");
    // Those that are open go on, and are found by no name any more.
    let daemon = Daemon::start(directory.path(), &[]);
    let (status, left) = daemon.operator().await.get(&gone[30].path()).await;
    assert_eq!(status, 200);
    assert!(!left.to_string().contains("zaphod"), "{left}");
    assert!(daemon.terminate().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_and_a_file_that_cannot_be_written_are_verified_without_changing_anything() {
    let (directory, _) = used().await;
    let elsewhere = TempDir::new().unwrap();
    let copy = database(elsewhere.path());
    let mut inside = SqliteConnection::connect(&url(directory.path())).await.unwrap();
    sqlx::query("vacuum into ?").bind(copy.to_str().unwrap()).execute(&mut inside).await.unwrap();
    inside.close().await.unwrap();
    for place in [elsewhere.path(), directory.path()] {
        let before = names(place);
        let verified = sessiond(&["verify", "--database", &url(place)]);
        assert!(verified.status.success(), "{verified:?}");
        assert_eq!(names(place), before, "nothing was made beside it");
    }
    let medium = Medium::of(directory.path());
    let verified = medium.sessiond(&["verify", "--database", &url(directory.path())]);
    assert!(verified.status.success(), "{verified:?}");
}

/// A directory as a medium that nobody can write to, not even root: in a mount namespace of its own, where that is
/// allowed; else by its mode.
struct Medium<'a>(&'a Path);

impl<'a> Medium<'a> {
    fn of(directory: &'a Path) -> Self {
        Self(directory)
    }

    fn sessiond(&self, arguments: &[&str]) -> Output {
        let there = self.0.to_str().unwrap();
        let script = "mount --bind \"$0\" \"$0\" && mount -o remount,ro,bind \"$0\" && exec \"$@\"";
        let mounted = Command::new("unshare")
            .args(["--mount", "--map-root-user", "sh", "-c", script, there, env!("CARGO_BIN_EXE_sessiond")])
            .args(arguments)
            .output();
        match mounted {
            Ok(output) if !String::from_utf8_lossy(&output.stderr).contains("unshare:") => output,
            _ => {
                set_mode(self.0, 0o500);
                let output = sessiond(arguments);
                set_mode(self.0, 0o700);
                output
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_index_is_found_and_mended() {
    let (directory, session) = used().await;
    let mut inside = SqliteConnection::connect(&url(directory.path())).await.unwrap();
    // A row that an index knows nothing of: it was hidden while the row came.
    let hidden = "select rootpage, sql from sqlite_schema where name = 'principal_by_organization'";
    let (root, sql): (i64, String) = sqlx::query_as(hidden).fetch_one(&mut inside).await.unwrap();
    for statement in [
        "pragma writable_schema = on",
        "delete from sqlite_schema where name = 'principal_by_organization'",
        "pragma writable_schema = reset",
        "insert into principal (number, organization, issuer, subject_digest) values (999, 1, 'x', zeroblob(32))",
        "pragma writable_schema = on",
    ] {
        sqlx::query(statement).execute(&mut inside).await.unwrap();
    }
    sqlx::query("insert into sqlite_schema values ('index', 'principal_by_organization', 'principal', ?, ?)")
        .bind(root)
        .bind(sql)
        .execute(&mut inside)
        .await
        .unwrap();
    inside.close().await.unwrap();
    let verify = || sessiond(&["verify", "--database", &url(directory.path())]);
    let output = verify();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("integrity_check"), "{said}");
    let rebuilt = sessiond(&["rebuild", "--database", &url(directory.path())]);
    assert!(rebuilt.status.success(), "{rebuilt:?}");
    let output = verify();
    assert!(output.status.success(), "{output:?}");
    assert!(knows(directory.path(), &session).await);
}
