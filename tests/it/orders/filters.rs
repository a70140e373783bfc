//! One filter for lists, counts and revocations, held against an independent evaluation of what the API itself shows.

use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use super::{application, begin, listed, session};
use crate::support::{Agent, Holder, Server};

/// The same history for the same seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

const HOSTS: [&str; 3] = ["alpha.example", "beta.example", "gamma.example"];
const CLIENTS: [&str; 2] = ["inspector", "Claude Code"];
const USERS: [&str; 4] = ["ann", "ben", "cleo", "dan"];

/// A server that ends nobody by itself.
async fn patient() -> (Server, Holder, String) {
    let server = Server::with(&["--stale-after", "48h"]).await;
    let operator = server.operator().await;
    let application = server.application().await;
    (server, operator, application)
}

/// Sessions of all sorts in two applications: old and new, talkative and silent, expired and ended.
async fn crowd(server: &Server, applications: [&str; 2], dice: &mut Dice) -> Vec<Agent> {
    let mut all: Vec<Agent> = vec![];
    for _ in 0..8 {
        let operator = server.operator().await;
        for _ in 0..8 {
            let mut body = json!({ "applicationId": applications[dice.roll(2) as usize] });
            if dice.roll(4) > 0 {
                body["hostname"] = json!(HOSTS[dice.roll(3) as usize]);
            }
            if dice.roll(4) > 0 {
                body["clientInfo"] = json!({ "name": CLIENTS[dice.roll(2) as usize] });
            }
            body["authenticatedUserId"] = json!(USERS[dice.roll(4) as usize]);
            all.push(operator.connect(body).await);
        }
        for _ in 0..6 {
            let one = &all[dice.roll(all.len() as u64) as usize];
            match dice.roll(4) {
                0 => drop(one.call("disconnect").await),
                1 => drop(operator.post(&format!("{}/terminate", one.path()), json!({})).await),
                _ => drop(one.call("heartbeat").await),
            }
        }
        if all.len() < 64 {
            // Steps of twenty seconds: nobody comes so close to a limit that the test itself takes it over.
            server.turn(20 * (5 + dice.roll(60) as i64));
        }
    }
    all
}

fn time(text: &Value) -> Option<DateTime<Utc>> {
    text.as_str().map(|text| text.parse().unwrap())
}

/// One condition: as a query has it, as a revocation's filter has it, and by hand.
struct Condition {
    query: String,
    body: (String, Value),
    fits: Box<dyn Fn(&Value) -> bool>,
}

fn conditions(dice: &mut Dice, sessions: &[Value]) -> Vec<Condition> {
    let equal = |query: &str, body: &str, value: Value, fits: fn(&Value, &Value) -> bool| {
        let expected = value.clone();
        Condition {
            query: format!("{query}={}", value.as_str().unwrap().replace(' ', "%20")),
            body: (body.to_owned(), value),
            fits: Box::new(move |session| fits(session, &expected)),
        }
    };
    let some = |dice: &mut Dice| sessions[dice.roll(sessions.len() as u64) as usize].clone();
    let mut all = vec![];
    for kind in 0..7 {
        if dice.roll(4) != 0 {
            continue;
        }
        let session = some(dice);
        let instant = |field: &str| session[field].clone();
        all.push(match kind {
            0 => equal("hostname", "hostname", json!(HOSTS[dice.roll(3) as usize]), |session, host| {
                session["hostname"] == *host
            }),
            1 => equal("client", "client", json!(CLIENTS[dice.roll(2) as usize]), |session, client| {
                session["clientInfo"]["name"] == *client
            }),
            2 => equal("principal", "principal", session["principalId"].clone(), |session, principal| {
                session["principalId"] == *principal
            }),
            3 => equal("connectedAfter", "connectedAfter", instant("connectedAt"), |session, at| {
                time(&session["connectedAt"]) >= time(at)
            }),
            4 => equal("connectedBefore", "connectedBefore", instant("connectedAt"), |session, at| {
                time(&session["connectedAt"]) < time(at)
            }),
            5 => equal("lastActiveBefore", "lastActiveBefore", instant("lastActiveAt"), |session, at| {
                time(&session["lastActiveAt"]) < time(at)
            }),
            _ => equal("lastActiveAfter", "lastActiveAfter", instant("lastActiveAt"), |session, at| {
                time(&session["lastActiveAt"]) >= time(at)
            }),
        });
    }
    all
}

async fn everything(operator: &Holder) -> Vec<Value> {
    let mut all = vec![];
    for id in listed(operator, "/api/v1/sessions?status=all&limit=50").await {
        let (_, body) = operator.get(&format!("/api/v1/agent-instances/{id}")).await;
        all.push(body["agentInstance"].clone());
    }
    all
}

fn ids(sessions: &[&Value]) -> Vec<String> {
    sessions.iter().map(|session| session["id"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_and_counts_are_what_an_independent_evaluation_says_in_every_order() {
    let (server, operator, first) = patient().await;
    let second = application(&operator, "second").await;
    let mut dice = Dice(11);
    crowd(&server, [&first, &second], &mut dice).await;
    let operator = server.operator().await;
    let all = everything(&operator).await;
    assert_eq!(all.len(), 64);
    for status in ["active", "idle", "expired", "disconnected"] {
        assert!(all.iter().any(|session| session["derivedStatus"] == status), "nobody is {status}");
    }
    for round in 0..40 {
        let conditions = conditions(&mut dice, &all);
        let status = ["active", "inactive", "all", "idle", "expired", "disconnected"][dice.roll(6) as usize];
        let sort = ["created", "-created", "lastActive", "-lastActive", "expires", "-expires"]
            [dice.roll(6) as usize];
        let scope = ["/api/v1/sessions".to_owned(), format!("/api/v1/applications/{second}/sessions")]
            [dice.roll(2) as usize]
            .clone();
        let query: Vec<_> = conditions.iter().map(|condition| condition.query.clone()).collect();
        let query = query.join("&");
        let mut expected: Vec<&Value> = all
            .iter()
            .filter(|session| {
                let derived = session["derivedStatus"].as_str().unwrap();
                let wanted: &[&str] = match status {
                    "active" => &["active", "idle"],
                    "inactive" => &["expired", "disconnected"],
                    "all" => &["active", "idle", "expired", "disconnected"],
                    one => &[one],
                };
                wanted.contains(&derived)
                    && (!scope.contains(&second) || session["agentId"] == *second)
                    && conditions.iter().all(|condition| (condition.fits)(session))
            })
            .collect();
        let field = match sort.trim_start_matches('-') {
            "created" => "connectedAt",
            "lastActive" => "lastActiveAt",
            _ => "tokenExpiresAt",
        };
        expected.sort_by_key(|session| (time(&session[field]), session["id"].as_str().unwrap().to_owned()));
        if sort.starts_with('-') {
            expected.reverse();
        }
        let limit = 1 + dice.roll(9);
        let path = format!("{scope}?{query}&status={status}&sort={sort}&limit={limit}");
        assert_eq!(listed(&operator, &path).await, ids(&expected), "round {round}: {path}");

        let path = format!("{scope}/count?{query}&status={status}");
        let (code, counted) = operator.get(&path).await;
        assert_eq!(code, 200, "{counted}");
        for word in ["active", "idle", "expired", "disconnected"] {
            let number = expected.iter().filter(|session| session["derivedStatus"] == word).count();
            assert_eq!(counted["counts"][word], number, "round {round}: {path}: {counted}");
        }
        assert_eq!(counted["total"], expected.len());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filter_revoke_ends_exactly_what_an_independent_evaluation_says() {
    for seed in 1..=6 {
        let (server, operator, first) = patient().await;
        let second = application(&operator, "second").await;
        let mut dice = Dice(seed);
        crowd(&server, [&first, &second], &mut dice).await;
        let operator = server.operator().await;
        let all = everything(&operator).await;
        let conditions = conditions(&mut dice, &all);
        let mut filter = json!({});
        for condition in &conditions {
            filter[condition.body.0.as_str()] = condition.body.1.clone();
        }
        let status: &[&str] = [&["idle"][..], &["active", "expired"], &[]][dice.roll(3) as usize];
        if !status.is_empty() {
            filter["status"] = json!(status);
        }
        let except = &all[dice.roll(64) as usize]["id"];
        filter["except"] = json!([except]);
        let expected: Vec<&Value> = all
            .iter()
            .filter(|session| {
                session["derivedStatus"] != "disconnected"
                    && (status.is_empty() || status.contains(&session["derivedStatus"].as_str().unwrap()))
                    && session["id"] != *except
                    && conditions.iter().all(|condition| (condition.fits)(session))
            })
            .collect();
        let body = json!({ "filter": filter, "reason": "spring cleaning" });

        let (code, dry) = operator.post("/api/v1/revocations?dryRun=true", body.clone()).await;
        assert_eq!((code.as_u16(), &dry["matched"]), (200, &json!(expected.len())), "seed {seed}: {body}");
        let before = everything(&operator).await;
        assert_eq!(ids(&before.iter().collect::<Vec<_>>()), ids(&all.iter().collect::<Vec<_>>()));
        assert!(before.iter().zip(&all).all(|(now, then)| now["derivedStatus"] == then["derivedStatus"]));

        let (code, done) = operator.post("/api/v1/revocations", body).await;
        assert_eq!(code, 201, "{done}");
        let revocation = &done["revocation"];
        assert_eq!(revocation["disconnectedCount"], expected.len(), "seed {seed}: {done}");
        assert_eq!(revocation["matched"], expected.len(), "{done}");
        let caused = super::caused(&operator, revocation["id"].as_str().unwrap(), "disconnected").await;
        let mut ended: Vec<_> = caused.iter().map(|event| event["sessionId"].as_str().unwrap()).collect();
        let mut wanted: Vec<_> = expected.iter().map(|session| session["id"].as_str().unwrap()).collect();
        ended.sort_unstable();
        wanted.sort_unstable();
        assert_eq!(ended, wanted, "seed {seed}");
        let now = everything(&operator).await;
        for (now, then) in now.iter().zip(&all) {
            let was_ended = wanted.contains(&then["id"].as_str().unwrap());
            assert_eq!(now["disconnectReason"] == "revoked", was_ended, "{now}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_a_filter_is_said_with_the_field() {
    let (_server, operator, application) = begin().await;
    for (query, field) in [
        ("status=paused", "status"),
        ("sort=name", "sort"),
        ("principal=", "principal"),
        ("kind=toaster", "kind"),
        ("connectedAfter=yesterday", "connectedAfter"),
        ("lastActiveBefore=2026", "lastActiveBefore"),
        ("cursor=AAAA", "cursor"),
        ("includeInactive=banana", "includeInactive"),
    ] {
        let (status, body) =
            operator.get(&format!("/api/v1/applications/{application}/sessions?{query}")).await;
        assert_eq!((status.as_u16(), &body["field"]), (400, &json!(field)), "{query}: {body}");
    }
    for (filter, field) in [
        (json!({}), "filter"),
        (json!({ "organization": false }), "filter"),
        (json!({ "status": ["disconnected"] }), "filter.status"),
        (json!({ "organization": true, "except": ["00000000-0000-7000-8000-000000000000"] }), "except"),
    ] {
        let (status, body) = operator.post("/api/v1/revocations", json!({ "filter": filter })).await;
        assert_eq!((status.as_u16(), &body["field"]), (400, &json!(field)), "{filter}: {body}");
    }
    let (status, body) = operator.post("/api/v1/revocations", json!({ "filter": { "hostnames": [] } })).await;
    assert!(status == 400 && body["message"].as_str().unwrap().contains("hostnames"), "{body}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cursor_of_one_order_is_no_cursor_of_another() {
    let (_server, operator, application) = begin().await;
    operator.connect_many(3).await;
    let path = format!("/api/v1/applications/{application}/sessions?limit=1");
    let (_, page) = operator.get(&path).await;
    let cursor = page["nextCursor"].as_str().unwrap();
    let (status, body) = operator.get(&format!("{path}&sort=expires&cursor={cursor}")).await;
    assert_eq!((status.as_u16(), &body["field"]), (400, &json!("cursor")), "{body}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_walked_while_sessions_come_and_go_shows_each_that_was_there_once() {
    let (_server, operator, application) = begin().await;
    let agents = operator.connect_many(120).await;
    let noise = tokio::spawn({
        let operator = operator.clone();
        async move {
            loop {
                let fresh = operator.connect(json!({})).await;
                fresh.call("disconnect").await;
            }
        }
    });
    let path = format!("/api/v1/applications/{application}/sessions?status=all&limit=7");
    let seen = listed(&operator, &path).await;
    noise.abort();
    for agent in &agents {
        assert_eq!(seen.iter().filter(|id| **id == agent.id).count(), 1, "{}", agent.id);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_list_shows_for_a_filter_is_what_ending_with_it_ends_and_a_dry_run_ends_nothing() {
    let (server, operator, application) = begin().await;
    let sessions = format!("/api/v1/applications/{application}/sessions");
    let connect = async |hostname: &str, client: &str| {
        let body = json!({ "hostname": hostname, "clientInfo": { "name": client } });
        operator.connect(body).await
    };
    let mut agents = vec![];
    for (hostname, client) in [("laptop", "a"), ("desk", "a"), ("desk", "b"), ("phone", "b"), ("tower", "c")]
    {
        agents.push(connect(hostname, client).await);
        server.turn(2);
    }
    let principal = everything(&operator).await[0]["principalId"].as_str().unwrap().to_owned();
    let after = session(&operator, &agents[4]).await["connectedAt"].as_str().unwrap().to_owned();
    for (query, count) in [
        ("hostname=laptop".to_owned(), 1),
        ("hostname=nowhere".to_owned(), 0),
        ("client=a&status=active".to_owned(), 1),
        (format!("connectedAfter={after}"), 1),
        ("hostname=phone&status=expired".to_owned(), 0),
        ("hostname=phone&kind=mcp".to_owned(), 0),
        ("hostname=phone&resource=x".to_owned(), 0),
        (format!("principal={principal}&kind=agent&status=all&hostname=phone"), 1),
    ] {
        let path = format!("{sessions}?{query}");
        let listed = listed(&operator, &path).await;
        assert_eq!(listed.len(), count, "{query}");
        let before = everything(&operator).await;
        let (status, dry) = operator.delete(&format!("{path}&dryRun=true")).await;
        assert_eq!((status.as_u16(), &dry["matched"]), (200, &json!(count)), "{query}: {dry}");
        assert_eq!(dry["disconnectedCount"], 0, "{query}: {dry}");
        let (status, done) = operator.delete(&path).await;
        assert_eq!((status.as_u16(), &done["disconnectedCount"]), (200, &json!(count)), "{query}: {done}");
        for (then, now) in before.iter().zip(everything(&operator).await) {
            let ended = then["derivedStatus"] != "disconnected" && now["derivedStatus"] == "disconnected";
            assert_eq!(ended, listed.iter().any(|id| now["id"] == *id), "{query}: {now}");
        }
    }
    for wrong in ["status=disconnected", "status=x", "principal=ada", "dryRun=yes", "bar=1", "limit=1"] {
        let (status, said) = operator.delete(&format!("{sessions}?{wrong}")).await;
        assert_eq!(status, 400, "{wrong}: {said}");
    }
    assert_eq!(agents[2].call("heartbeat").await.0, 200);
    let (_, done) = operator.delete(&sessions).await;
    assert_eq!(done["disconnectedCount"], 1, "without a filter all that are left: {done}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_by_activity_walked_while_sessions_beat_misses_none() {
    let (_server, operator, application) = begin().await;
    let agents = operator.connect_many(150).await;
    let noise = tokio::spawn({
        let agents = agents.clone();
        async move {
            let mut dice = Dice(5);
            loop {
                agents[dice.roll(150) as usize].call("heartbeat").await;
            }
        }
    });
    for (status, limit) in [("active", 7), ("all", 10), ("all", 50), ("active", 150)] {
        let path = format!(
            "/api/v1/applications/{application}/sessions?sort=-lastActive&status={status}&limit={limit}"
        );
        let seen = listed(&operator, &path).await;
        let missing = agents.iter().filter(|agent| !seen.contains(&agent.id)).count();
        assert_eq!(missing, 0, "{path}: {} of 150 shown", seen.len());
    }
    noise.abort();
    let path = format!("/api/v1/applications/{application}/sessions?sort=-lastActive&limit=7");
    let mut seen = listed(&operator, &path).await;
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen.len(), 150);
}
