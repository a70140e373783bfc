//! Statistics, against an independent count of the log.

mod slow;

use chrono::{DateTime, TimeDelta, Timelike, Utc};
use chrono_tz::Tz;
use serde_json::{Value, json};

use crate::support::{Agent, Dice, Holder, Server, rounds};
use slow::{Stored, compare, count, events, groups, milliseconds};

fn instant(milliseconds: i64) -> String {
    DateTime::<Utc>::from_timestamp_millis(milliseconds)
        .unwrap()
        .to_rfc3339_opts(chrono::SecondsFormat::Millis, true)
}

async fn ask(holder: &Holder, query: &str) -> Value {
    let (status, body) = holder.get(&format!("/api/v1/statistics?{query}")).await;
    assert_eq!(status, 200, "{query}: {body}");
    body
}

/// Some time in the lives of sessions.
async fn live(server: &Server, dice: &mut Dice, agents: &mut Vec<Agent>, rounds: usize) {
    for round in 0..rounds {
        let operator = server.operator().await;
        for number in 0..dice.roll(4) {
            let host = ["laptop", "desk", "ci"].get(dice.roll(4) as usize);
            let client = ["one", "two"][dice.roll(2) as usize];
            let version = ["1", "2"][dice.roll(2) as usize];
            let info = json!({ "name": client, "version": version });
            let body = json!({ "name": format!("{round} {number}"), "hostname": host, "clientInfo": info });
            agents.push(operator.connect(body).await);
        }
        for _ in 0..dice.roll(5) {
            if agents.is_empty() {
                break;
            }
            let at = dice.roll(agents.len() as u64) as usize;
            let agent = &agents[at];
            let path = format!("/api/v1/agent-sessions/{}", agent.id);
            match dice.roll(6) {
                0 | 1 => {
                    let report = json!({ "requests": dice.roll(9), "bytesOut": dice.roll(999) });
                    agent.holder.post(&format!("{path}/activity"), report).await;
                }
                2 => {
                    agent.holder.post(&format!("{path}/renew"), json!({})).await;
                }
                3 => {
                    agent.holder.post(&format!("{path}/disconnect"), json!({})).await;
                    agents.swap_remove(at);
                }
                4 => {
                    let (status, body) =
                        operator.post(&format!("{}/terminate", agent.path()), json!({})).await;
                    assert!(status.is_success() || status == 410, "{status} {body}");
                    agents.swap_remove(at);
                }
                _ => {
                    operator.delete(&agent.path()).await;
                    agents.swap_remove(at);
                }
            }
        }
        server.turn([30, 600, 2_700, 9_000][dice.roll(4) as usize] + dice.roll(300) as i64);
        if round % 8 == 7 {
            let house = &server.running.as_ref().unwrap().house;
            house.sessions.maintenance.run_deadlines().await.unwrap();
        }
    }
}

/// Compares the answers about a window, whole and by every group.
async fn compare_window(server: &Server, operator: &Holder, log: &[Stored], query: &str) -> Value {
    let answer = ask(operator, query).await;
    let now = milliseconds(&answer["asOf"]);
    compare_series(&answer, log, (&answer, now), query);
    for by in ["kind", "host", "client", "principal"] {
        let answer = ask(operator, &format!("{query}&by={by}")).await;
        let now = milliseconds(&answer["asOf"]);
        let names = principals(server, by).await;
        let mut groups = groups(log, by);
        let (mut connects, mut last) = (0, 0);
        for group in answer["groups"].as_array().unwrap() {
            let text = |name: &str| group[name].as_str().unwrap_or_default().to_owned();
            let name = match by {
                "client" => format!("{}/{}", text("name"), text("version")),
                "principal" => names[&text("principalId")].clone(),
                _ => text("name"),
            };
            let sessions = groups.remove(&name).unwrap_or_else(|| panic!("{by} {name}"));
            let own: Vec<_> = log.iter().filter(|event| sessions.contains(&event.session)).cloned().collect();
            compare_series(group, &own, (&answer, now), &format!("{query} {by} {name}"));
            connects += group["totals"]["connects"].as_u64().unwrap();
            last += group["totals"]["open"]["last"].as_i64().unwrap();
        }
        let others = answer["others"]["totals"].clone();
        connects += others["connects"].as_u64().unwrap_or(0);
        last += others["open"]["last"].as_i64().unwrap_or(0);
        assert_eq!(connects, answer["totals"]["connects"], "{query} {by}");
        assert_eq!(last, answer["totals"]["open"]["last"], "{query} {by}");
    }
    answer
}

/// The numbers of principals by their ids.
async fn principals(server: &Server, by: &str) -> std::collections::BTreeMap<String, String> {
    let mut names = std::collections::BTreeMap::new();
    if by == "principal" {
        let operator = server.operator().await;
        let (_, sessions) = operator.get("/api/v1/sessions?status=all&limit=1").await;
        for one in sessions["items"].as_array().unwrap() {
            names.insert(one["principalId"].as_str().unwrap().to_owned(), "1".to_owned());
        }
    }
    names
}

fn compare_series(series: &Value, log: &[Stored], (answer, now): (&Value, i64), place: &str) {
    let steps = series["steps"].as_array().unwrap();
    let mut starts: Vec<i64> =
        answer["steps"].as_array().unwrap().iter().map(|step| milliseconds(&step["start"])).collect();
    assert_eq!(steps.len(), starts.len());
    let begin = starts[0];
    assert_eq!(begin, milliseconds(&answer["from"]));
    let end = milliseconds(&answer["to"]);
    starts.push(end);
    for (step, bounds) in steps.iter().zip(starts.windows(2)) {
        compare(step, &count(log, (bounds[0], bounds[1]), now), &format!("{place} at {}", step["start"]));
    }
    compare(&series["totals"], &count(log, (begin, end), now), place);
}

#[tokio::test(flavor = "multi_thread")]
async fn statistics_equal_an_independent_count_whatever_happened_and_whatever_is_asked() {
    for seed in 0..rounds(1, 20) as u64 {
        // Ends by deadlines are the test's own to announce.
        let server = Server::with(&["--token-lifetime", "2h", "--stale-after", "6h"]).await;
        let (mut dice, mut agents) = (Dice(seed), vec![]);
        live(&server, &mut dice, &mut agents, 10).await;
        // The day before clocks are set forward in Berlin.
        let target: DateTime<Utc> = "2027-03-27T20:10:00Z".parse().unwrap();
        let ahead = target - server.clock.now();
        if ahead > TimeDelta::zero() {
            server.turn(ahead.num_seconds());
        }
        live(&server, &mut dice, &mut agents, 24).await;
        let operator = server.operator().await;
        let log = events(&server).await;
        assert!(log.len() > 60, "{}", log.len());
        let (first, now) = (log[0].recorded_at, server.clock.now().timestamp_millis());
        for (step, zone, from) in [
            ("15m", "UTC", now - 20 * 3_600_000),
            ("1h", "Europe/Berlin", now - 40 * 3_600_000),
            ("1h", "Asia/Kathmandu", now - 30 * 3_600_000),
            ("1d", "Europe/Berlin", first),
            ("1d", "America/New_York", first),
            ("7d", "Asia/Kathmandu", first),
            ("month", "Europe/Berlin", first),
        ] {
            let query = format!("from={}&step={step}&zone={zone}", instant(from));
            let answer = compare_window(&server, &operator, &log, &query).await;
            let tz: Tz = zone.parse().unwrap();
            for one in answer["steps"].as_array().unwrap() {
                let start =
                    DateTime::parse_from_rfc3339(one["start"].as_str().unwrap()).unwrap().with_timezone(&tz);
                match step {
                    "15m" => assert_eq!(start.minute() % 15, 0, "{start}"),
                    "1h" => assert_eq!(start.minute(), 0, "{start}"),
                    _ => assert_eq!((start.hour(), start.minute()), (0, 0), "{start}"),
                }
            }
        }
        // A window in the middle, and one application by itself.
        let query =
            format!("from={}&to={}&step=15m", instant(now - 9 * 3_600_000), instant(now - 5 * 3_600_000));
        compare_window(&server, &operator, &log, &query).await;
        let path = format!("/api/v1/applications/{}/statistics?{query}", server.application().await);
        let (_, own) = operator.get(&path).await;
        assert_eq!(own["totals"], ask(&operator, &query).await["totals"]);
        // After a restart nothing is counted twice, and what is over has not changed.
        let before = ask(&operator, &query).await;
        let ahead = (server.clock.now() - sessiond::clock::Clock::system().now()).num_seconds();
        let server = server.restart_after(ahead + 60).await;
        let operator = server.operator().await;
        let after = ask(&operator, &query).await;
        assert_eq!((&before["steps"], &before["totals"]), (&after["steps"], &after["totals"]));
        compare_window(&server, &operator, &events(&server).await, &format!("from={}", instant(first))).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_asks_wrongly_is_told_the_bounds() {
    let server = Server::start().await;
    let operator = server.operator().await;
    server.turn(40 * 86_400);
    let operator_now = server.operator().await;
    let _ = operator;
    for (query, field, says) in [
        ("from=2001-01-01T00:00:00Z", "from", "must be a time from"),
        ("from=2999-01-01T00:00:00Z", "from", "which is now"),
        ("to=2001-01-01T00:00:00Z", "to", "must be a time from"),
        ("from=yesterday", "from", "RFC 3339"),
        ("step=2h", "step", "15m, 1h, 1d, 7d, month"),
        ("zone=Berlin", "zone", "Europe/Berlin"),
        ("by=weather", "by", "kind, client, host, principal"),
        ("groups=0", "groups", "1 to 100"),
        ("groups=101", "groups", "1 to 100"),
        ("by=host&groups=100&step=15m&from=FIRST", "step", "at most 50000 steps"),
        ("color=red", "color", "color"),
    ] {
        let first =
            (server.clock.now() - TimeDelta::days(39)).to_rfc3339_opts(chrono::SecondsFormat::Millis, true);
        let query = query.replace("FIRST", &first);
        let (status, body) = operator_now.get(&format!("/api/v1/statistics?{query}")).await;
        assert_eq!(status, 400, "{query}: {body}");
        let text = body.to_string();
        assert!(text.contains(field) && text.contains(says), "{query}: {text}");
    }
    server.turn(300 * 86_400);
    let operator = server.operator().await;
    let first =
        (server.clock.now() - TimeDelta::days(330)).to_rfc3339_opts(chrono::SecondsFormat::Millis, true);
    let (status, body) = operator.get(&format!("/api/v1/statistics?step=15m&from={first}")).await;
    assert_eq!(status, 400, "{body}");
    assert!(body.to_string().contains("at most 10000 steps"), "{body}");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_organization_has_its_own_statistics_and_sees_no_others() {
    let server = Server::start().await;
    let operator = server.operator().await;
    operator.connect_many(3).await;
    let other = server.another_organization().await;
    assert_eq!(ask(&operator, "").await["totals"]["connects"], 3);
    assert_eq!(ask(&other, "by=host").await["totals"]["connects"], 0);
    let path = format!("/api/v1/applications/{}/statistics", server.application().await);
    assert_eq!(other.get(&path).await.0, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_erased_is_gone_from_statistics_and_its_sessions_stay_counted() {
    let server = Server::start().await;
    let operator = server.operator().await;
    let path = "/api/v1/api-keys";
    let key = json!({ "name": "x", "scopes": ["mcp:invoke"], "user": { "id": "u-1" } });
    let (_, made) = operator.post(path, key).await;
    let person = server.holder(made["key"].as_str().unwrap());
    let info = json!({ "name": "peculiar-client", "version": "7" });
    let agent = person.connect(json!({ "hostname": "ada-laptop-secret", "clientInfo": info })).await;
    operator.connect(json!({ "hostname": "shared-host" })).await;
    let by_host = ask(&operator, "by=host").await;
    let names = |answer: &Value| -> Vec<String> {
        let groups = answer["groups"].as_array().unwrap();
        groups.iter().map(|one| one["name"].as_str().unwrap_or("null").to_owned()).collect()
    };
    assert_eq!(names(&by_host), ["ada-laptop-secret", "shared-host"]);
    let principal = made["apiKey"]["user"]["principalId"].as_str().unwrap();
    let (status, body) = operator.delete(&format!("/api/v1/principals/{principal}/personal")).await;
    assert!(status.is_success(), "{status} {body}");
    assert_eq!(names(&ask(&operator, "by=host").await), ["null", "shared-host"]);
    operator.delete(&agent.path()).await;
    let after = ask(&operator, "by=host").await;
    assert_eq!(after["groups"][0]["totals"]["open"]["last"], 0, "{after}");
    assert_eq!(after["groups"][0]["totals"]["ends"]["revoked"], 1, "{after}");
    server
        .until("the text is gone", || async {
            let stored = crate::support::store::stored(server.directory.path()).await;
            let says = |bytes: &[u8], text: &[u8]| bytes.windows(text.len()).any(|part| part == text);
            !stored
                .iter()
                .any(|(_, bytes)| says(bytes, b"ada-laptop-secret") || says(bytes, b"peculiar-client"))
        })
        .await;
}
