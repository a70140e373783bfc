//! Who was connected then: `asOf` on lists, counts and looks, against a slow and independent fold of the log.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use futures_util::future::join_all;
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::support::{Agent, Dice, Holder, Server, rounds};

/// An event of a session, as it is stored.
#[derive(Clone)]
struct Stored {
    position: i64,
    session: i64,
    application: i64,
    name: String,
    occurred_at: i64,
    recorded_at: i64,
    body: Value,
}

/// A session as a slow hand folds it, with what the answers show.
#[derive(Clone, Default, PartialEq, Debug)]
struct Slow {
    id: String,
    application: i64,
    connected_at: i64,
    last_active_at: i64,
    token_expires_at: i64,
    idle_after: i64,
    requests: i64,
    suspended: bool,
    ended: Option<String>,
}

impl Slow {
    fn take(&mut self, event: &Stored) {
        let milliseconds = |name: &str| event.body[name].as_i64().unwrap();
        match event.name.as_str() {
            "connected" => {
                self.id = event.body["id"].as_str().unwrap().to_owned();
                self.application = event.application;
                self.connected_at = event.occurred_at;
                self.last_active_at = event.occurred_at;
                self.token_expires_at = milliseconds("tokenExpiresAt");
                self.idle_after = event.body["policy"]["idleAfter"].as_i64().unwrap() * 1_000;
            }
            "activity_recorded" => {
                self.last_active_at = self.last_active_at.max(event.occurred_at);
                self.requests += event.body["requests"].as_i64().unwrap_or(0);
            }
            "token_renewed" => {
                self.last_active_at = self.last_active_at.max(event.occurred_at);
                self.token_expires_at = milliseconds("tokenExpiresAt");
            }
            "suspended" => self.suspended = true,
            "resumed" => self.suspended = false,
            "disconnected" => self.ended = Some(event.body["reason"].as_str().unwrap().to_owned()),
            "expired" => {}
            other => panic!("{other} is not of this history"),
        }
    }

    fn status(&self, now: i64) -> &'static str {
        match () {
            () if self.ended.is_some() => "disconnected",
            () if now >= self.token_expires_at => "expired",
            () if now - self.last_active_at >= self.idle_after => "idle",
            () => "active",
        }
    }
}

/// All sessions as they stood once everything up to a position was on record.
fn fold(events: &[Stored], up_to: i64) -> BTreeMap<i64, Slow> {
    let mut sessions: BTreeMap<i64, Slow> = BTreeMap::new();
    for event in events.iter().filter(|event| event.position <= up_to) {
        sessions.entry(event.session).or_default().take(event);
    }
    sessions
}

async fn events(server: &Server) -> Vec<Stored> {
    let sql = "select position, stream_number, application, type, occurred_at, recorded_at, body from event \
               where stream_kind = 4 order by position";
    let rows: Vec<(i64, i64, i64, String, i64, i64, String)> =
        server.look_inside().await.rows(sql, &[]).await;
    let stored = |(position, session, application, name, occurred_at, recorded_at, body): (
        _,
        _,
        _,
        _,
        _,
        _,
        String,
    )| {
        let body = serde_json::from_str(&body).unwrap();
        Stored { position, session, application, name, occurred_at, recorded_at, body }
    };
    rows.into_iter().map(stored).collect()
}

fn milliseconds(text: &Value) -> i64 {
    DateTime::parse_from_rfc3339(text.as_str().unwrap()).unwrap().timestamp_millis()
}

fn instant(milliseconds: i64) -> String {
    DateTime::<Utc>::from_timestamp_millis(milliseconds)
        .unwrap()
        .to_rfc3339_opts(chrono::SecondsFormat::Millis, true)
}

/// A session as an answer shows it, in the slow hand's terms.
fn shown(session: &Value, like: &Slow) -> (Slow, String) {
    let slow = Slow {
        id: session["id"].as_str().unwrap().to_owned(),
        connected_at: milliseconds(&session["connectedAt"]),
        last_active_at: milliseconds(&session["lastActiveAt"]),
        token_expires_at: milliseconds(&session["tokenExpiresAt"]),
        requests: session["activity"]["requests"].as_i64().unwrap(),
        suspended: session["suspended"].as_bool().unwrap(),
        ended: session["disconnectReason"].as_str().map(str::to_owned),
        ..like.clone()
    };
    (slow, session["derivedStatus"].as_str().unwrap().to_owned())
}

/// Lives of sessions in which much happens at random, and time passes.
async fn live(server: &Server, (dice, agents): (&mut Dice, &mut Vec<Agent>), rounds: usize) {
    for round in 0..rounds {
        // Its token is no longer good after an hour.
        let operator = &server.operator().await;
        let connects = (0..dice.roll(4)).map(|number| {
            let host = ["laptop", "desk", "ci"][dice.roll(3) as usize];
            operator.connect(json!({ "name": format!("agent {round} {number}"), "hostname": host }))
        });
        agents.extend(join_all(connects.collect::<Vec<_>>()).await);
        let mut calls = vec![];
        for _ in 0..dice.roll(12) {
            let Some(agent) = agents.get(dice.roll(agents.len().max(1) as u64) as usize).cloned() else {
                break;
            };
            let verb = match dice.roll(20) {
                0 => "disconnect",
                1..=3 => "renew",
                4..=7 => "activity",
                _ => "heartbeat",
            };
            calls.push(async move {
                let body = if verb == "activity" { json!({ "requests": 3 }) } else { json!({}) };
                agent.holder.post(&format!("/api/v1/agent-sessions/{}/{verb}", agent.id), body).await;
            });
        }
        join_all(calls).await;
        let Some(agent) = agents.get(dice.roll(agents.len().max(1) as u64) as usize).cloned() else {
            continue;
        };
        match dice.roll(12) {
            0 => _ = operator.delete(&agent.path()).await,
            1 => _ = operator.post(&format!("{}/suspend", agent.path()), json!({})).await,
            2 => _ = operator.post(&format!("{}/resume", agent.path()), json!({})).await,
            3 if dice.roll(4) == 0 => {
                _ = operator
                    .delete(&format!("/api/v1/applications/{}/sessions?hostname=ci", agent.application))
                    .await;
            }
            4..=7 => server.turn(dice.roll(200).cast_signed()),
            8 => server.turn(dice.roll(2_000).cast_signed()),
            9 => server.turn(-dice.roll(60).cast_signed()),
            _ => {}
        }
    }
}

/// All pages of a list.
async fn walk(operator: &Holder, list: &str) -> Vec<Value> {
    let mut found = vec![];
    let mut cursor = String::new();
    loop {
        let (code, body) = operator.get(&format!("{list}{cursor}")).await;
        assert_eq!(code, StatusCode::OK, "{list}: {body}");
        assert!(body.get("exactSince").is_none(), "nothing was let go: {body}");
        found.extend(body["items"].as_array().unwrap().iter().cloned());
        let Some(next) = body["nextCursor"].as_str() else { return found };
        cursor = format!("&cursor={next}");
    }
}

/// Compares all that is answered about a moment with the slow fold; how many were open then.
async fn compare(
    operator: &Holder,
    application: &str,
    (as_of, now): (&str, i64),
    slow: &BTreeMap<i64, Slow>,
) -> usize {
    let expected: Vec<_> = slow.values().map(|one| (one.clone(), one.status(now).to_owned())).collect();
    let path = format!("/api/v1/applications/{application}/sessions");
    for (sort, status) in
        [("created", "all"), ("-created", "active"), ("created", "inactive"), ("-created", "idle")]
    {
        let wanted = |word: &str| match status {
            "all" => true,
            "active" => matches!(word, "active" | "idle"),
            "inactive" => matches!(word, "expired" | "disconnected"),
            only => word == only,
        };
        let mut expected: Vec<_> = expected.iter().filter(|(_, word)| wanted(word)).collect();
        if sort.starts_with('-') {
            expected.reverse();
        }
        let found = walk(operator, &format!("{path}?asOf={as_of}&status={status}&sort={sort}&limit=7")).await;
        let ids = |found: &[Value]| {
            found.iter().map(|one| one["id"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        let wanted: Vec<_> = expected.iter().map(|(one, _)| one.id.clone()).collect();
        assert_eq!(ids(&found), wanted, "{sort} {status} as of {as_of}");
        for (found, expected) in found.iter().zip(&expected) {
            let found = shown(found, &expected.0);
            assert_eq!(&found, *expected, "{sort} {status} as of {as_of}");
        }
    }
    let (_, body) = operator.get(&format!("{path}/count?asOf={as_of}")).await;
    let count = |word: &str| expected.iter().filter(|(_, status)| status == word).count();
    for word in ["active", "idle", "expired", "disconnected"] {
        assert_eq!(body["counts"][word], count(word), "{word} as of {as_of}: {body}");
    }
    let (_, body) = operator.get(&format!("/api/v1/sessions/count?asOf={as_of}&hostname=laptop")).await;
    let listed = walk(operator, &format!("/api/v1/sessions?asOf={as_of}&hostname=laptop&status=all")).await;
    assert_eq!(body["total"], listed.len(), "{body}");
    for (one, status) in expected.iter().rev().take(2) {
        let (code, body) = operator.get(&format!("{path}/{}?asOf={as_of}", one.id)).await;
        assert_eq!(code, StatusCode::OK, "{body}");
        assert_eq!(shown(&body["session"], one), (one.clone(), status.clone()), "as of {as_of}");
    }
    expected.len() - count("disconnected")
}

#[tokio::test]
async fn whoever_asks_about_a_moment_is_told_what_a_slow_fold_of_the_log_up_to_it_says() {
    let mut dice = Dice(20_261_201);
    let mut agents = vec![];
    let server = Server::start().await;
    live(&server, (&mut dice, &mut agents), rounds(150, 4_000)).await;
    // Also over a restart, after which nothing is in memory but what is open.
    let mut server = server.restart_after(40_000).await;
    agents.clear();
    live(&server, (&mut dice, &mut agents), rounds(60, 1_000)).await;
    let events = events(&server).await;
    let (begin, end) = (events[0].recorded_at, events.last().unwrap().recorded_at);
    let first = events[0].position;
    let tip = events.last().unwrap().position;
    let application = agents[0].application.clone();
    let operator = server.operator().await;
    let mut open = 0;
    for round in 0..rounds(30, 100) {
        let (as_of, position, now) = if round % 2 == 0 {
            let at = begin + dice.roll((end - begin).unsigned_abs()).cast_signed();
            let position =
                events.iter().rev().find(|event| event.recorded_at <= at).map_or(0, |event| event.position);
            (instant(at), position, at)
        } else {
            let position = first + dice.roll((tip - first).unsigned_abs()).cast_signed();
            // What was recorded there, be it of a session or not.
            let sql = "select recorded_at from event where position = $1";
            let now = server.look_inside().await.number(sql, &[position.into()]).await;
            (position.to_string(), position, now)
        };
        open += compare(&operator, &application, (&as_of, now), &fold(&events, position)).await;
    }
    assert!(open > 100, "there was something to see: {open}");
    let sessions = server.look_inside().await.number("select count(*) from session_earlier", &[]).await;
    assert!(sessions > 20, "sessions stood otherwise before: {sessions}");
    server.stop().await;
}

#[tokio::test]
async fn what_ends_becomes_idle_or_expires_later_was_active_then() {
    let server = Server::start().await;
    let operator = server.operator().await;
    let agent = operator.connect(json!({ "name": "one" })).await;
    agent.call("heartbeat").await;
    let (_, body) = operator.get(&agent.path()).await;
    let connected = body["session"]["lastActiveAt"].as_str().unwrap().to_owned();
    server.turn(400);
    agent.call("heartbeat").await;
    server.turn(10);
    operator.delete(&agent.path()).await;

    let before = DateTime::parse_from_rfc3339(&connected).unwrap();
    let after = |seconds: i64| instant(before.timestamp_millis() + seconds * 1_000);
    for (as_of, status) in [
        (after(1), "active"),
        (after(299), "active"),
        (after(300), "idle"),
        (after(399), "idle"),
        (after(405), "active"),
    ] {
        let (_, body) = operator.get(&format!("{}?asOf={as_of}", agent.path())).await;
        assert_eq!(body["session"]["derivedStatus"], status, "{as_of}: {body}");
        assert_eq!(body["session"]["disconnectReason"], Value::Null);
        let (_, body) = operator.get(&format!("/api/v1/sessions/count?asOf={as_of}")).await;
        assert_eq!((&body["counts"][status], &body["total"]), (&json!(1), &json!(1)), "{as_of}: {body}");
    }
    let (_, body) = operator.get(&agent.path()).await;
    assert_eq!(body["session"]["derivedStatus"], "disconnected");
}

#[tokio::test]
async fn a_moment_that_the_log_does_not_reach_is_refused_with_the_bounds() {
    let server = Server::start().await;
    let operator = server.operator().await;
    let agent = operator.connect(json!({ "name": "one" })).await;
    let tip = server.look_inside().await.number("select max(position) from event", &[]).await;
    let list = format!("/api/v1/applications/{}/sessions", agent.application);
    for path in [list.clone(), format!("{list}/count"), agent.path(), "/api/v1/sessions".to_owned()] {
        for (as_of, says) in [
            ("1999-12-31T23:59:59Z".to_owned(), "which is now".to_owned()),
            ("2999-01-01T00:00:00Z".to_owned(), "which is now".to_owned()),
            ((tip + 1_000).to_string(), "from 1 to".to_owned()),
            ("0".to_owned(), "from 1 to".to_owned()),
            ("99999999999999999999".to_owned(), "beyond any".to_owned()),
            ("yesterday".to_owned(), "2026-11-30T14:03:00Z".to_owned()),
            (String::new(), "2026-11-30T14:03:00Z".to_owned()),
            ("-5".to_owned(), "2026-11-30T14:03:00Z".to_owned()),
        ] {
            let (status, body) = operator.get(&format!("{path}?asOf={as_of}")).await;
            assert_eq!(status, StatusCode::BAD_REQUEST, "{path} {as_of}: {body}");
            let body = body.to_string();
            assert!(body.contains("asOf") && body.contains(&says), "{path} {as_of}: {body}");
        }
    }
    let (status, body) = operator.get(&format!("{list}?asOf={tip}&sort=-lastActive")).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(body.to_string().contains("sort must be created or -created"), "{body}");
    // Before it had connected there was no such session.
    assert_eq!(operator.get(&format!("{}?asOf=1", agent.path())).await.0, StatusCode::NOT_FOUND);
    assert_eq!(operator.get(&format!("{}?asOf={tip}", agent.path())).await.0, StatusCode::OK);
}

#[tokio::test]
async fn others_are_as_unknown_in_the_past_as_they_are_now() {
    let server = Server::start().await;
    let operator = server.operator().await;
    let agent = operator.connect(json!({ "name": "one" })).await;
    let other = server.another_organization().await;
    let tip = server.look_inside().await.number("select max(position) from event", &[]).await;
    assert_eq!(other.get(&format!("{}?asOf={tip}", agent.path())).await.0, StatusCode::NOT_FOUND);
    let (status, body) = other.get(&format!("/api/v1/sessions?asOf={tip}&status=all")).await;
    assert_eq!((status, body["items"].as_array().unwrap().len()), (StatusCode::OK, 0), "{body}");
    let (_, body) = other.get(&format!("/api/v1/sessions/count?asOf={tip}")).await;
    assert_eq!(body["total"], 0);
}

#[tokio::test]
async fn where_something_was_let_go_the_answer_says_from_when_on_it_is_exact() {
    let server = Server::start().await;
    let operator = server.operator().await;
    let agents = operator.connect_many(5).await;
    let early = server.look_inside().await.number("select max(position) from event", &[]).await;
    for agent in &agents[..3] {
        agent.call("disconnect").await;
    }
    let count = async |as_of: i64| operator.get(&format!("/api/v1/sessions/count?asOf={as_of}")).await.1;
    assert_eq!(count(early).await["counts"]["active"], 5);
    assert!(count(early).await.get("exactSince").is_none());
    server.turn(100);
    let (status, _) = operator.put("/api/v1/organization/retention", json!({ "endedAfter": 60 })).await;
    assert_eq!(status, StatusCode::OK);
    server
        .until("the sessions are let go", || async {
            server.look_inside().await.number("select count(*) from session", &[]).await == 2
        })
        .await;

    let body = count(early).await;
    assert_eq!(body["counts"]["active"], 2, "of those that are kept");
    let since = milliseconds(&body["exactSince"]);
    let (_, body) = operator.get(&format!("/api/v1/sessions?asOf={early}")).await;
    assert_eq!(milliseconds(&body["exactSince"]), since);
    let (_, body) = operator.get(&format!("{}?asOf={early}", agents[4].path())).await;
    assert_eq!(milliseconds(&body["exactSince"]), since);
    assert_eq!(operator.get(&format!("{}?asOf={early}", agents[0].path())).await.0, StatusCode::NOT_FOUND);
    // From then on nothing is missing.
    let (_, body) = operator.get(&format!("/api/v1/sessions/count?asOf={}", instant(since))).await;
    assert!(body.get("exactSince").is_none(), "{body}");
    let blocks = "select sessions from session_block where level = 4";
    assert_eq!(server.look_inside().await.number(blocks, &[]).await, 2);
}
