//! The service as its operator meets it: starting, stopping, what it prints and what it never does.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;
use tempfile::TempDir;

use crate::support::daemon::{command, database, sessiond};
use crate::support::{Daemon, Feed, Server};

fn url(directory: &TempDir) -> String {
    format!("sqlite:{}", database(directory.path()).display())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_serve_on_the_same_database_refuses_and_says_why() {
    let directory = TempDir::new().unwrap();
    let daemon = Daemon::start(directory.path(), &[]);
    let second = command(directory.path(), &[]).output().unwrap();
    assert!(!second.status.success());
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(said.contains("another sessiond works on"), "{said}");
    for arguments in [&["organizations", "create", "late"][..], &["rebuild"][..]] {
        let output = sessiond(&[arguments, &["--database", &url(&directory)]].concat());
        assert!(!output.status.success());
        assert!(String::from_utf8_lossy(&output.stderr).contains("another sessiond works on"));
    }
    let verified = sessiond(&["verify", "--database", &url(&directory)]);
    assert!(verified.status.success(), "looking is allowed: {verified:?}");
    assert!(daemon.terminate().success());
}

#[test]
fn an_address_that_others_can_reach_needs_a_word_of_consent() {
    let directory = TempDir::new().unwrap();
    let output = command(directory.path(), &["--listen", "0.0.0.0:0"]).output().unwrap();
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("--insecure-http"), "{output:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_start_prints_credentials_once_and_they_work() {
    let directory = TempDir::new().unwrap();
    let start = || {
        let mut child = Command::new(env!("CARGO_BIN_EXE_sessiond"))
            .args(["serve", "--listen", "127.0.0.1:0", "--database", &url(&directory)])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(1_500));
        Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
        assert!(child.wait().unwrap().success());
        let read = |mut stream: Box<dyn std::io::Read>| {
            let mut text = String::new();
            stream.read_to_string(&mut text).unwrap();
            text
        };
        let printed = read(Box::new(child.stdout.take().unwrap()));
        (printed, read(Box::new(child.stderr.take().unwrap())))
    };
    let (printed, log) = start();
    let field =
        |name: &str| printed.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned();
    let (id, secret) = (field("client id"), field("client secret"));
    assert!(id.starts_with("sa_") && secret.len() > 40, "{printed}");
    assert!(!log.contains(&secret));
    let (printed, _) = start();
    assert_eq!(printed, "", "once");
    let daemon = Daemon::start(directory.path(), &[]);
    let answer = reqwest::Client::new()
        .post(format!("{}/oauth2/token", daemon.base))
        .basic_auth(&id, Some(&secret))
        .form(&[("grant_type", "client_credentials")])
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 200);
    assert!(daemon.terminate().success());
}

#[test]
fn a_first_start_that_cannot_listen_uses_up_no_credentials() {
    let directory = TempDir::new().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let serve = |listen: String| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sessiond"));
        command.args(["serve", "--listen", &listen, "--database", &url(&directory)]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    };
    let failed = serve(taken.local_addr().unwrap().to_string()).output().unwrap();
    assert!(!failed.status.success());
    let said = String::from_utf8_lossy(&failed.stderr).into_owned();
    assert!(said.contains("cannot listen on") && said.contains("is another service there?"), "{said}");
    let mut child = serve("127.0.0.1:0".into()).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(1_500));
    Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
    child.wait().unwrap();
    let mut printed = String::new();
    std::io::Read::read_to_string(&mut child.stdout.take().unwrap(), &mut printed).unwrap();
    assert!(printed.contains("client secret"), "{printed}");
}

#[test]
fn a_short_bootstrap_secret_is_refused() {
    let directory = TempDir::new().unwrap();
    let output =
        command(directory.path(), &[]).env("SESSIOND_BOOTSTRAP_CLIENT_SECRET", "short").output().unwrap();
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("at least 32 characters"), "{output:?}");
}

#[test]
fn a_database_that_cannot_be_is_refused_in_words_that_help() {
    let directory = TempDir::new().unwrap();
    let missing = directory.path().join("not/there");
    let inside = format!("sqlite:{}", missing.join("x.db").display());
    for (url, words) in [
        (inside.as_str(), &["there is no directory", missing.to_str().unwrap()][..]),
        ("sqlite::memory:", &["in memory only", "name a file"][..]),
        ("sqlite:", &["in memory only"][..]),
        ("sqlite:x.db?mode=memory", &["in memory only"][..]),
        ("mysql://here", &["sqlite:", "postgres:"][..]),
    ] {
        let output = command(directory.path(), &["--database", url]).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success(), "{url}");
        assert!(words.iter().all(|word| said.contains(word)), "{url}: {said}");
    }
    assert!(!missing.exists());
}

#[test]
fn an_organization_is_not_made_in_a_database_that_is_not_there() {
    let directory = TempDir::new().unwrap();
    let output = sessiond(&["organizations", "create", "x", "--database", &url(&directory)]);
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("there is no database at"), "{output:?}");
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0, "nothing was made");
}

#[tokio::test(flavor = "multi_thread")]
async fn sighup_puts_another_rate_limit_in_force_and_a_file_that_is_wrong_changes_nothing() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("sessiond.toml");
    std::fs::write(&file, "rate-limit = 50\n").unwrap();
    let mut plain = Command::new(env!("CARGO_BIN_EXE_sessiond"));
    plain.args(["serve", "--listen", "127.0.0.1:0", "--database", &url(&directory), "--config"]).arg(&file);
    let known = command(directory.path(), &[]);
    plain.envs(known.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let daemon = Daemon::spawn(plain);
    let operator = daemon.operator().await;
    let policy = async || {
        let answer = operator.send(reqwest::Method::GET, "/api/v1/policy", None).await;
        answer.headers().get("ratelimit-policy").map(|value| value.to_str().unwrap().to_owned())
    };
    assert_eq!(policy().await.as_deref(), Some("\"default\";q=50;w=1"));
    for (written, expected, logged) in [
        ("rate-limit = 70", "\"default\";q=70;w=1", "was read again"),
        ("rate-limit = \"many\"", "\"default\";q=70;w=1", "the old one stays in force"),
    ] {
        std::fs::write(&file, written).unwrap();
        Command::new("kill").args(["-HUP", &daemon.child.id().to_string()]).status().unwrap();
        let begun = Instant::now();
        while !daemon.log().contains(logged) {
            assert!(begun.elapsed() < Duration::from_secs(9), "{}", daemon.log());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(policy().await.as_deref(), Some(expected));
    }
    assert!(daemon.terminate().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn another_organization_is_made_on_the_command_line_and_sees_nothing_of_the_first() {
    let directory = TempDir::new().unwrap();
    let daemon = Daemon::start(directory.path(), &[]);
    let agent = daemon.operator().await.connect(json!({})).await;
    assert!(daemon.terminate().success());
    let output = sessiond(&["organizations", "create", "Second", "--database", &url(&directory)]);
    assert!(output.status.success(), "{output:?}");
    let printed = String::from_utf8(output.stdout).unwrap();
    let field =
        |name: &str| printed.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned();
    let daemon = Daemon::start(directory.path(), &[]);
    let mut second = daemon.operator().await;
    let form = [("grant_type", "client_credentials")];
    let request = second.http.post(format!("{}/oauth2/token", daemon.base));
    let answer = request
        .basic_auth(field("client id"), Some(field("client secret")))
        .form(&form)
        .send()
        .await
        .unwrap();
    let token: serde_json::Value = answer.json().await.unwrap();
    second.token = Some(token["access_token"].as_str().unwrap().to_owned());
    let list = format!("/api/v1/applications/{}/sessions", agent.application);
    for path in [
        list.clone(),
        agent.path(),
        format!("{list}/events"),
        format!("/api/v1/agent-instances/{}", agent.id),
    ] {
        assert_eq!(second.get(&path).await.0, 404, "{path}");
    }
    assert_eq!(second.delete(&list).await.0, 404);
    assert_eq!(second.delete(&agent.path()).await.0, 404);
    for verb in ["heartbeat", "renew", "disconnect"] {
        assert_eq!(agent.call_as(&second, verb).await.0, 404, "{verb}");
    }
    let own = second.connect(json!({})).await;
    assert_ne!(own.application, agent.application);
    assert!(daemon.terminate().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_ends_streams_cleanly_keeps_what_was_acknowledged_and_ends_no_session() {
    let directory = TempDir::new().unwrap();
    let daemon = Daemon::start(directory.path(), &[]);
    let operator = daemon.operator().await;
    let agent = operator.connect(json!({})).await;
    let feed = format!("/api/v1/agent-sessions/{}/events", agent.id);
    let mut feed = Feed::open(&agent.holder, &feed, None).await;
    assert_eq!(agent.call("heartbeat").await.0, 200);
    let asked = Instant::now();
    let stopping = tokio::task::spawn_blocking(move || daemon.terminate());
    let frame = feed.next_named("shutdown").await;
    assert_eq!(frame.id, None);
    assert_eq!(feed.next().await, None);
    assert!(stopping.await.unwrap().success());
    assert!(asked.elapsed() < Duration::from_secs(10));
    let daemon = Daemon::start(directory.path(), &[]);
    let (_, body) = daemon.operator().await.get(&agent.path()).await;
    assert_eq!(body["session"]["status"], "active");
    assert!(daemon.terminate().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn no_token_or_secret_is_in_any_log_or_in_the_database() {
    let directory = TempDir::new().unwrap();
    let mut verbose = command(directory.path(), &[]);
    verbose.env("RUST_LOG", "trace,sqlx=trace,hyper=trace");
    let daemon = Daemon::spawn(verbose);
    let operator = daemon.operator().await;
    let agent = operator.connect(json!({ "tokenIdentifier": "x" })).await;
    let (_, renewed) = agent.call("renew").await;
    let (_, made) = operator.post("/api/v1/service-accounts", json!({ "name": "one" })).await;
    let (_, app) = operator.post("/api/v1/applications", json!({ "name": "one" })).await;
    operator.delete(&agent.path()).await;
    agent.call("heartbeat").await;
    let secrets = [
        operator.token.clone().unwrap(),
        agent.holder.token.clone().unwrap(),
        renewed["token"].as_str().unwrap().to_owned(),
        made["clientSecret"].as_str().unwrap().to_owned(),
        app["oauth"]["clientSecret"].as_str().unwrap().to_owned(),
    ];
    let log = daemon.log();
    assert!(log.lines().count() > 50, "the log was verbose");
    let mut places = vec![("log", log.into_bytes())];
    for suffix in ["", "-wal"] {
        places.push((
            "database",
            std::fs::read(format!("{}{suffix}", database(directory.path()).display())).unwrap(),
        ));
    }
    for secret in secrets {
        // The part after the id: the id itself is no secret.
        let part = secret.splitn(3, '_').last().unwrap().as_bytes().to_vec();
        for (place, bytes) in &places {
            let found = bytes.windows(part.len()).any(|window| window == part);
            assert!(!found, "a secret is in the {place}");
        }
    }
    assert!(daemon.terminate().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn readyz_tells_what_the_live_writer_runs_on_and_what_each_job_did() {
    let server = Server::start().await;
    server
        .until("the jobs have run", async || {
            let (_, text) = server.stranger().get("/readyz?verbose").await;
            text.as_str().unwrap().contains("expiries announced")
        })
        .await;
    let (status, text) = server.stranger().get("/readyz?verbose").await;
    let text = text.as_str().unwrap().to_owned();
    assert_eq!(status, 200, "{text}");
    for part in ["sqlite 3.", "wal", "FULL", "deadlines", "revocations", "traffic", "checkpoint", "retention"]
    {
        assert!(text.contains(part), "{part} is missing:\n{text}");
    }
    assert!(!text.contains("[-]"), "{text}");
    assert_eq!(server.stranger().get("/livez").await.0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_rebuilt_is_what_was_there() {
    let mut server = Server::start().await;
    let operator = server.operator().await;
    let agents = operator.connect_many(5).await;
    agents[0].call("heartbeat").await;
    agents[1].call("disconnect").await;
    operator.delete(&agents[2].path()).await;
    let list = format!("/api/v1/applications/{}/sessions?status=all", agents[0].application);
    let (_, before) = operator.get(&list).await;
    server.stop().await;
    let output = sessiond(&["rebuild", "--database", &server.database()]);
    assert!(output.status.success(), "{output:?}");
    let output = sessiond(&["verify", "--database", &server.database()]);
    assert!(output.status.success(), "{output:?}");
    let server = server.restart().await;
    assert_eq!(server.operator().await.get(&list).await.1, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn traffic_that_is_written_down_at_a_stop_shares_transactions() {
    let server = Server::start().await;
    let operator = server.operator().await;
    let agents = operator.connect_many(200).await;
    let house = &server.running.as_ref().unwrap().house;
    let caller = house.auth.bearer(operator.token.as_ref().unwrap()).await.unwrap();
    let counts = sessiond_core::session::event::Counts { requests: 1, ..Default::default() };
    let sessions: Vec<_> = {
        let known = house.gate.known();
        let number = |agent: &crate::support::Agent| known.session_number(agent.id.parse().unwrap());
        agents.iter().map(|agent| known.session(number(agent).unwrap()).unwrap().clone()).collect()
    };
    // The first goes at once, the second waits for its window to pass.
    for session in sessions.iter().chain(&sessions) {
        house.sessions.traffic.observe(&caller, session, counts);
    }
    let recorded = async || server.positions_of(&["activity_recorded"]).await.len();
    server.until("the first are recorded", async || recorded().await == 200).await;
    let mut inside = server.look_inside().await;
    let commits = "select count(commit_hash) from event";
    let before = inside.number(commits, &[]).await;
    assert_eq!(house.sessions.traffic.flush_all().await, 200);
    let after = inside.number(commits, &[]).await;
    assert!(after - before < 50, "it took {} transactions", after - before);
    assert_eq!(recorded().await, 400);
}
