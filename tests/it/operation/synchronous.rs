//! `--require-synchronous`: a start is refused where what is answered would be on one machine alone.

use std::time::{Duration, Instant};

use reqwest::StatusCode;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::on_postgres::{said, serve};
use crate::support::Daemon;
use crate::support::daemon::{database, sessiond};
use crate::support::postgres::Database;
use crate::support::proxy::Proxy;
use crate::support::standby::Pair;
use crate::support::store::make_key;

#[test]
fn a_file_has_no_standby_and_a_server_without_one_is_refused_too() {
    let (directory, server) = (TempDir::new().unwrap(), Database::new());
    let key = directory.path().join("its.key");
    make_key(&key);
    let file = format!("sqlite:{}", database(directory.path()).display());
    for (url, words) in
        [(&file, "a file has no standby"), (&server.url, "synchronous_standby_names is empty")]
    {
        let told =
            said(&serve(directory.path(), url, Some(&key)).arg("--require-synchronous").output().unwrap());
        assert!(told.contains("--require-synchronous is set") && told.contains(words), "{told}");
    }
    assert!(!database(directory.path()).exists(), "nothing is made");
}

/// Asks again for as long as the database is away.
async fn until_served<Answer: Future<Output = (StatusCode, Value)>>(
    given_up: Instant,
    ask: impl Fn() -> Answer,
) {
    loop {
        let (status, told) = ask().await;
        if status.is_success() {
            return;
        }
        assert!(status.is_server_error(), "{told}");
        assert!(Instant::now() < given_up, "{told}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Loses the primary under a service, promotes the standby, and has the service asked for all that it acknowledged.
async fn goes_on_at_the_standby(pair: Pair, url: &str, lose: impl FnOnce(&Pair)) {
    let directory = TempDir::new().unwrap();
    let key = directory.path().join("its.key");
    make_key(&key);
    let daemon = Daemon::spawn(serve(directory.path(), url, Some(&key)));
    let operator = daemon.operator().await;
    let mut sessions = operator.connect_many(20).await;
    for session in &sessions {
        assert_eq!(operator.get(&session.path()).await.0, 200);
    }
    lose(&pair);
    let another = || operator.post("/api/v1/agent-sessions", json!({ "name": "another" }));
    // What is asked meanwhile is answered, one way or the other.
    let ((status, told), ()) = tokio::join!(another(), pair.promote());
    assert!(status.is_success() || status.is_server_error(), "{told}");
    let given_up = Instant::now() + Duration::from_secs(60);
    until_served(given_up, another).await;
    for session in &sessions {
        until_served(given_up, || session.call("heartbeat")).await;
        let path = session.path();
        until_served(given_up, || operator.get(&path)).await;
    }
    assert_eq!(sessions.pop().unwrap().call("disconnect").await.0, 200);
    assert!(daemon.terminate().success());
    let verified = sessiond(&["verify", "--database", url]);
    assert!(verified.status.success(), "{verified:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_goes_on_at_the_standby_when_the_primary_is_killed() {
    let pair = Pair::start().await;
    let url = pair.url.clone();
    goes_on_at_the_standby(pair, &url, Pair::kill_primary).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_goes_on_at_the_standby_when_nothing_is_heard_of_the_primary_any_more() {
    let pair = Pair::start().await;
    let way = Proxy::before(&pair.primary_url()).await;
    let url = pair.url_through(&way);
    let fall_silent = |pair: &Pair| pair.silence_primary(&way);
    goes_on_at_the_standby(pair, &url, fall_silent).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_with_a_synchronous_standby_is_served_on_and_the_state_of_standbys_is_told() {
    let (directory, pair) = (TempDir::new().unwrap(), Pair::start().await);
    let key = directory.path().join("its.key");
    make_key(&key);
    let command = || {
        let mut command = serve(directory.path(), &pair.url, Some(&key));
        command.env("SESSIOND_REQUIRE_SYNCHRONOUS", "true");
        command
    };
    let ready = async |daemon: &Daemon| {
        let answer = reqwest::get(format!("{}/readyz?verbose", daemon.base)).await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    };
    // What may not be seen is not taken for granted, and what has to be done is told.
    let told = said(&command().output().unwrap());
    assert!(told.contains("grant pg_read_all_stats to tests"), "{told}");
    let daemon = Daemon::spawn(serve(directory.path(), &pair.url, Some(&key)));
    let (status, told) = ready(&daemon).await;
    assert!(told.contains("[+]standbys 1; to see more, grant pg_read_all_stats to tests\n"), "{told}");
    assert_eq!(status, 200);
    assert!(daemon.terminate().success());

    pair.administer("grant pg_read_all_stats to tests").await;
    let daemon = Daemon::spawn(command());
    let (status, told) = ready(&daemon).await;
    assert!(told.contains("[+]standbys 1, of them 1 synchronous, at most "), "{told}");
    assert_eq!(status, 200);

    pair.kill_standby();
    let given_up = Instant::now() + Duration::from_secs(30);
    loop {
        let (status, told) = ready(&daemon).await;
        if told.contains("[-]standbys none\n") {
            assert_eq!(status, 503);
            break;
        }
        assert!(Instant::now() < given_up, "{told}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    daemon.kill();
    let told = said(&command().output().unwrap());
    assert!(told.contains("no such standby is connected"), "{told}");
}
