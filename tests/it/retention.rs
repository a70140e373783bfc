//! Retention: how long an organization keeps things, and that what it lets go is gone.

use std::time::Duration;

use chrono::TimeDelta;
use reqwest::StatusCode;
use serde_json::{Value, json};
use sessiond::journals::{Entry, Journal, Level};
use sessiond_core::ids::SessionNumber;

use crate::media::{Caller, PATIENT, SESSIONS, again, with_session};
use crate::support::daemon::{database, sessiond};
use crate::support::{Daemon, Feed, Holder, Server};

const PATH: &str = "/api/v1/organization/retention";

async fn keep_ended(operator: &Holder, seconds: Value) -> Value {
    let (status, body) = operator.put(PATH, json!({ "endedAfter": seconds })).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    body
}

#[tokio::test]
async fn an_organization_chooses_how_long_it_keeps_things_and_sees_what_that_lets_go() {
    let server = Server::with(&["--keep-activity", "7d", "--keep-lines", "30d"]).await;
    let operator = server.operator().await;
    let (status, body) = operator.get(PATH).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(body["retention"], json!({}));
    let defaults = json!({ "activityAfter": 604_800, "endedAfter": null, "journalsAfter": 2_592_000 });
    assert_eq!(body["effective"], defaults);
    let agents = operator.connect_many(3).await;
    for agent in &agents[..2] {
        agent.call("heartbeat").await;
        assert_eq!(agent.call("disconnect").await.0, StatusCode::OK);
    }
    server.turn(61);

    let chosen = json!({ "endedAfter": 60, "journalsAfter": null });
    let (status, body) = operator.put(&format!("{PATH}?dryRun=true"), chosen.clone()).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    assert_eq!(body["letsGo"], json!({ "sessions": 2, "events": 6 }));
    assert_eq!(operator.get(PATH).await.1["retention"], json!({}), "nothing was changed");
    let (_, body) = operator.put(PATH, chosen.clone()).await;
    assert_eq!(body["retention"], chosen);
    let effective = json!({ "activityAfter": 604_800, "endedAfter": 60, "journalsAfter": null });
    assert_eq!(body["effective"], effective);
    let log = server.log().await;
    assert!(log.iter().any(|(name, body)| name == "organization_retention_set" && *body == chosen));
    // What is left out is the server's again.
    let (_, body) = operator.put(PATH, json!({})).await;
    assert_eq!(body["effective"], defaults);
}

#[tokio::test]
async fn figures_that_make_no_sense_are_refused_with_the_field_and_the_bounds() {
    let server = Server::start().await;
    let operator = server.operator().await;
    for (body, field) in [
        (json!({ "endedAfter": 59 }), "endedAfter"),
        (json!({ "activityAfter": 0 }), "activityAfter"),
        (json!({ "journalsAfter": 3_153_600_001_u64 }), "journalsAfter"),
        (json!({ "endedAfter": "7d" }), "endedAfter"),
        (json!({ "endedafter": 60 }), "endedafter"),
    ] {
        let (status, problem) = operator.put(PATH, body.clone()).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{body}: {problem}");
        assert!(problem.to_string().contains(field), "{problem}");
    }
    let (status, _) = operator.put(&format!("{PATH}?dryrun=true"), json!({})).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    let agent = server.holder(server.token("mcp:invoke").await);
    assert_eq!(agent.put(PATH, json!({})).await.0, StatusCode::FORBIDDEN);
    assert_eq!(server.stranger().get(PATH).await.0, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn what_was_let_go_is_in_no_byte_of_the_files_and_found_nowhere() {
    const SECRET: &str = "desk-of-a-very-shy-person.example";
    let server = Server::start().await;
    let operator = server.operator().await;
    let body = json!({ "hostname": SECRET, "clientSessionId": "run-of-the-shy-one", "clientInfo": { "name": SECRET } });
    let shy = operator.connect(body).await;
    let other = operator.connect(json!({})).await;
    let house = &server.running.as_ref().unwrap().house;
    let line = |text: &str| vec![Entry::line(server.clock.now(), Level::Info, format!("{text} {text}"))];
    // Uncompressible enough to stand in the file as it is.
    house.lines.append(Journal::Lines, SessionNumber(1), line("a-line-of-the-shy-one")).await.unwrap();
    house.lines.append(Journal::Lines, SessionNumber(2), line("a-line-of-the-other")).await.unwrap();
    assert_eq!(shy.call("disconnect").await.0, StatusCode::OK);
    let feed = format!("/api/v1/applications/{}/sessions/events", shy.application);
    let position = server.log().await.len() as i64;
    server.turn(120);
    keep_ended(&operator, json!(60)).await;
    server
        .until_within(30, "the session to be let go", async || {
            operator.get(&shy.path()).await.0 == StatusCode::NOT_FOUND
        })
        .await;

    let (_, list) =
        operator.get(&format!("/api/v1/applications/{}/sessions?status=all", shy.application)).await;
    let ids: Vec<_> = list["items"].as_array().unwrap().iter().map(|one| one["id"].clone()).collect();
    assert_eq!(ids, [json!(other.id)]);
    let count = format!("/api/v1/applications/{}/sessions/count?status=disconnected", shy.application);
    assert!(!operator.get(&count).await.1.to_string().contains('1'), "{:?}", operator.get(&count).await);
    assert_eq!(operator.get(&format!("{}/history", shy.path())).await.0, StatusCode::NOT_FOUND);
    assert_eq!(
        shy.holder.get(&format!("/api/v1/agent-sessions/{}/events", shy.id)).await.0,
        StatusCode::UNAUTHORIZED
    );
    let (_, events) = operator.get("/api/v1/events?types=sessions_let_go").await;
    assert_eq!(events["items"].as_array().unwrap().len(), 1);
    let (_, body) = operator.get(PATH).await;
    assert_eq!(body["letsGo"], json!({ "sessions": 0, "events": 0 }));

    // Whoever was away since before is told; whoever has seen what went goes on.
    let mut missed = Feed::open(&operator, &feed, Some(position - 2)).await;
    assert_eq!(missed.next().await.unwrap().event, "reset");
    let mut seen = Feed::open(&operator, &feed, Some(position)).await;
    other.call("disconnect").await;
    assert_eq!(seen.next().await.unwrap().event, "disconnected");

    let found = async || {
        let mut found = vec![];
        for entry in std::fs::read_dir(server.directory.path()).unwrap() {
            let path = entry.unwrap().path();
            let bytes = std::fs::read(&path).unwrap_or_default();
            for secret in [SECRET, "run-of-the-shy-one", "a-line-of-the-shy-one", "a-line-of-the-other"] {
                if bytes.windows(secret.len()).any(|window| window == secret.as_bytes()) {
                    found.push((path.file_name().unwrap().to_owned(), secret));
                }
            }
        }
        found
    };
    server
        .until_within(30, "nothing to be left in the files", async || {
            found().await.len()
                == found().await.iter().filter(|(_, secret)| *secret == "a-line-of-the-other").count()
        })
        .await;
    assert!(!found().await.is_empty(), "lines are seen in the file at all");
}

#[tokio::test]
async fn a_process_that_is_killed_while_it_lets_go_has_let_go_of_some_and_the_rest_goes_later() {
    let directory = tempfile::TempDir::new().unwrap();
    let daemon = Daemon::start(directory.path(), &[]);
    let operator = daemon.operator().await;
    let mut application = String::new();
    for _ in 0..25 {
        let agents = operator.connect_many(100).await;
        application.clone_from(&agents[0].application);
        futures_util::future::join_all(agents.iter().map(|agent| agent.call("heartbeat"))).await;
    }
    let kept = operator.connect(json!({})).await;
    let (status, _) = operator.delete(&format!("/api/v1/applications/{application}/sessions")).await;
    assert_eq!(status, StatusCode::OK);
    assert!(daemon.terminate().success());
    let size = || std::fs::metadata(database(directory.path())).unwrap().len();
    let (full, url) = (size(), format!("sqlite:{}", database(directory.path()).display()));
    let verified = || {
        let output = sessiond(&["verify", "--database", &url]);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{text} {}", String::from_utf8_lossy(&output.stderr));
        text
    };
    let left = async |raw: &mut sqlx::SqliteConnection| -> i64 {
        sqlx::query_scalar("select count(*) from session").fetch_one(raw).await.unwrap()
    };
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..4 {
        let daemon = Daemon::start(directory.path(), &["--keep-ended", "1s"]);
        let mut raw = crate::support::look_inside(&url).await;
        let before = left(&mut raw).await;
        while before > 0 && left(&mut raw).await == before {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        daemon.kill();
        seen.insert(left(&mut raw).await);
        drop(raw);
        verified();
    }
    assert!(seen.iter().any(|left| (1..2_501).contains(left)), "never killed in the middle: {seen:?}");
    let daemon = Daemon::start(directory.path(), &["--keep-ended", "1s"]);
    let mut raw = crate::support::look_inside(&url).await;
    for _ in 0..3_000 {
        if left(&mut raw).await == 0 && size() < full / 2 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let operator = daemon.operator().await;
    assert_eq!(operator.get(&kept.path()).await.0, StatusCode::NOT_FOUND);
    assert_eq!(left(&mut raw).await, 0);
    drop(raw);
    assert!(size() < full / 2, "the file had {full} bytes and has {}", size());
    // Also while nothing more is written: what was given back does not wait in the write-ahead log.
    let mut raw = crate::support::look_inside(&url).await;
    let pages = "select page_count * page_size from pragma_page_count, pragma_page_size";
    let mut needed: i64 = 0;
    for _ in 0..300 {
        needed = sqlx::query_scalar(pages).fetch_one(&mut raw).await.unwrap();
        if size() == needed.unsigned_abs() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    drop(raw);
    assert_eq!(size(), needed.unsigned_abs(), "bytes of the file, and of its pages");
    assert!(daemon.terminate().success());
    let text = verified();
    assert!(text.contains("events more were let go"), "{text}");
    let output = sessiond(&["rebuild", "--database", &url]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    verified();
}

#[tokio::test]
async fn each_organization_keeps_its_lines_as_long_as_it_wants() {
    let server = Server::with(&["--keep-lines", "1d"]).await;
    let (one, two) = (server.operator().await, server.another_organization().await);
    let numbers = [1, 2].map(SessionNumber);
    one.connect(json!({})).await;
    two.connect(json!({})).await;
    let house = &server.running.as_ref().unwrap().house;
    let line = || vec![Entry::line(server.clock.now(), Level::Info, "said")];
    for number in numbers {
        house.lines.append(Journal::Lines, number, line()).await.unwrap();
    }
    let (status, _) = two.put(PATH, json!({ "journalsAfter": 3_600 })).await;
    assert_eq!(status, StatusCode::OK);
    let counts = async || {
        house.retention.forget_lines().await.unwrap();
        let count = async |number| house.lines.bounds(Journal::Lines, number).await.unwrap().count();
        [count(numbers[0]).await, count(numbers[1]).await]
    };
    assert_eq!(counts().await, [1, 1]);
    server.clock.turn(TimeDelta::hours(2));
    assert_eq!(counts().await, [1, 0]);
    let (status, body) = server.operator().await.put(PATH, json!({ "journalsAfter": null })).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    server.clock.turn(TimeDelta::days(2));
    assert_eq!(counts().await, [1, 0]);
    assert_eq!(server.operator().await.put(PATH, json!({})).await.0, StatusCode::OK);
    assert_eq!(counts().await, [0, 0]);
}

#[tokio::test]
async fn letting_go_is_a_job_that_is_told_of() {
    let directory = tempfile::TempDir::new().unwrap();
    let daemon = Daemon::start(directory.path(), &[]);
    let ready = reqwest::get(format!("{}/readyz?verbose", daemon.base)).await.unwrap().text().await.unwrap();
    assert!(ready.contains("job retention"), "{ready}");
}

/// Waits until a session is found no more.
async fn until_let_go(server: &Server, operator: &Holder, path: &str) {
    let gone = async || operator.get(path).await.0 == StatusCode::NOT_FOUND;
    server.until_within(60, "the session to be let go", gone).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_with_more_events_than_one_transaction_takes_goes_in_several() {
    const BEATS: u64 = 2_400;
    let mut server = Server::start().await;
    let operator = server.operator().await;
    let (long, other) = (operator.connect(json!({})).await, operator.connect(json!({})).await);
    for _ in 0..BEATS {
        assert_eq!(long.call("heartbeat").await.0, StatusCode::OK);
    }
    assert_eq!(long.call("disconnect").await.0, StatusCode::OK);
    server.turn(120);
    keep_ended(&operator, json!(60)).await;
    until_let_go(&server, &operator, &long.path()).await;
    assert_eq!(operator.get(&other.path()).await.0, StatusCode::OK);
    let log = server.log().await;
    let accounts = log.iter().filter(|(name, _)| name == "activity_folded" || name == "sessions_let_go");
    let accounts: Vec<_> =
        accounts.map(|(name, body)| (name.as_str(), body["events"].as_u64().unwrap())).collect();
    assert!(accounts.iter().all(|(_, events)| *events <= 1_000), "{accounts:?}");
    assert_eq!(accounts.iter().map(|(_, events)| events).sum::<u64>(), BEATS + 2, "{accounts:?}");
    assert_eq!(accounts.last().unwrap().0, "sessions_let_go", "{accounts:?}");
    assert!(accounts.len() >= 3, "{accounts:?}");
    server.stop().await;
    let reader = sessiond_store::open_to_look(&server.database()).await.unwrap();
    let report = reader.verify(&mut |_, _| ()).await.unwrap();
    assert_eq!(report.let_go, BEATS + 2);
    reader.close().await;
    assert_eq!(sessiond_store::rebuild(&server.database(), &mut |_, _| ()).await.unwrap(), report);
    let server = server.restart().await;
    assert_eq!(server.operator().await.get(&long.path()).await.0, StatusCode::NOT_FOUND);
}

/// Bytes that were sent in all: of the stream, of its app, of its virtual host.
async fn sent(key: &Caller) -> [Value; 3] {
    let mut sent = [const { Value::Null }; 3];
    for (sent, path) in sent.iter_mut().zip(["/apps/app/streams/stream", "/apps/app", ""]) {
        let told = key.response(&format!("/v1/stats/current/vhosts/default{path}")).await;
        *sent = told["totalBytesOut"].clone();
    }
    sent
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_stream_was_sent_in_all_is_the_same_after_its_sessions_were_let_go_and_after_restarts() {
    const OTHER: &str = "/v1/vhosts/default/apps/app/streams/other/sessions";
    let (server, key) = with_session("one", &PATIENT).await;
    let operator = server.operator().await;
    let viewer = async |key: &Caller, at: &str, name: &str, bytes: u64, ends: bool| {
        if name != "one" {
            assert_eq!(key.post(at, json!({ "name": name })).await.status, 201);
        }
        let told = key.post(&format!("{at}/{name}:report"), json!({ "totalBytesOut": bytes })).await;
        assert_eq!(told.status, 200, "{told:?}");
        if ends {
            assert_eq!(key.delete(&format!("{at}/{name}")).await.status, 200);
        }
    };
    viewer(&key, SESSIONS, "one", 1_000, true).await;
    viewer(&key, SESSIONS, "two", 200, true).await;
    viewer(&key, SESSIONS, "stays", 30, false).await;
    viewer(&key, OTHER, "elsewhere", 4, true).await;
    let all = [json!(1_230), json!(1_234), json!(1_234)];
    assert_eq!(sent(&key).await, all);
    let kept = async |server: &Server| {
        let (_, list) = server.operator().await.get("/api/v1/sessions?status=all&kind=media").await;
        list["items"].as_array().unwrap().len()
    };
    assert_eq!(kept(&server).await, 4);
    server.turn(120);
    keep_ended(&operator, json!(60)).await;
    server.until_within(30, "all that ended to be let go", async || kept(&server).await == 1).await;
    assert_eq!(sent(&key).await, all, "let go");

    let mut server = server.restart_after(130).await;
    let key = again(&server, &key);
    assert_eq!(sent(&key).await, all, "begun again");
    viewer(&key, SESSIONS, "three", 700, true).await;
    let all = [json!(1_930), json!(1_934), json!(1_934)];
    assert_eq!(sent(&key).await, all);
    server.turn(120);
    server.until_within(30, "the last that ended to be let go", async || kept(&server).await == 1).await;
    assert_eq!(sent(&key).await, all, "let go again");
    server.stop().await;
    sessiond_store::rebuild(&server.database(), &mut |_, _| ()).await.unwrap();
    let reader = sessiond_store::open_to_look(&server.database()).await.unwrap();
    reader.verify(&mut |_, _| ()).await.unwrap();
    reader.close().await;
    let server = server.restart_after(260).await;
    assert_eq!(sent(&again(&server, &key)).await, all, "made again from the log");
}
