//! A cluster and a portal that run hundreds of sessions through their lives, while the service is restarted under them.

use futures_util::future::join_all;
use serde_json::json;

use super::{Key, id_of};
use crate::support::{Dice, Server};

/// What came of a session, as far as those who run it know.
#[derive(Debug, Clone, PartialEq)]
enum Fate {
    Open,
    /// It ended by itself: how, and what was said.
    Came(&'static str, String),
    /// It was terminated, and nobody has said yet that it is dead.
    Dying,
    /// It was, and it is.
    Dead(String),
}

#[derive(Debug, Clone)]
struct Job {
    path: String,
    task: bool,
    phase: usize,
    lines: u64,
    fate: Fate,
}

const PHASES: [&str; 3] = ["queued", "launching", "running"];
const OUTCOMES: [&str; 3] = ["finished", "failed", "crashed"];

impl Job {
    async fn begin(key: &Key, task: bool, phase: usize) -> Self {
        let mut body = json!({ "app": { "name": "Fleet", "version": "1" } });
        if task {
            body["state"] = json!(PHASES[phase]);
        }
        let path = key.begin(if task { "task" } else { "webui" }, body).await;
        Self { path, task, phase, lines: 0, fate: Fate::Open }
    }

    /// One thing happens to it, by whoever runs it or by those who do not want it any more.
    async fn live(mut self, key: Key, rolled: (usize, usize)) -> Self {
        let open = self.fate == Fate::Open;
        match rolled.0 {
            0..=2 if self.task => {
                let wanted = rolled.1;
                let status = key.move_on(&self.path, PHASES[wanted]).await.as_u16();
                let expected = match open {
                    false => 410,
                    true if wanted < self.phase => 409,
                    true => 200,
                };
                assert_eq!(status, expected, "{self:?} to {wanted}");
                if open {
                    self.phase = self.phase.max(wanted);
                }
            }
            3 | 4 => {
                let texts: Vec<_> = (0..=rolled.1).map(|number| format!("line {number}")).collect();
                let (status, body) = key.log(&self.path, &texts).await;
                assert_eq!(status, if open { 201 } else { 410 }, "{self:?}: {body}");
                if open {
                    assert_eq!(body["first"], self.lines + 1, "{self:?}");
                    self.lines += texts.len() as u64;
                }
            }
            5 if self.task => {
                let (outcome, message) = (OUTCOMES[rolled.1], format!("said {}", rolled.1));
                key.end(&self.path, outcome, &message).await;
                self.fate = match self.fate {
                    Fate::Open => Fate::Came(outcome, message),
                    Fate::Dying => Fate::Dead(message),
                    over => over,
                };
            }
            6 | 7 => {
                let status = key.delete(&self.path).await;
                assert_eq!(status, if open { 204 } else { 409 }, "{self:?}");
                if open {
                    self.fate = if self.task { Fate::Dying } else { Fate::Dead(String::new()) };
                }
            }
            _ => assert_eq!(key.beat(&self.path).await, if open { 200 } else { 410 }, "{self:?}"),
        }
        self
    }

    /// State, whether there is an end, and the message, as they must be.
    fn expected(&self, grace_is_over: bool) -> (&str, bool, &str) {
        match &self.fate {
            Fate::Open if self.task => (PHASES[self.phase], false, ""),
            Fate::Open => ("Running", false, ""),
            _ if !self.task => ("Terminated", false, ""),
            Fate::Came(outcome, message) => (outcome, true, message),
            Fate::Dying if grace_is_over => ("terminated", true, "Terminated on request"),
            Fate::Dying => (PHASES[self.phase], false, ""),
            Fate::Dead(message) => ("terminated", true, message),
        }
    }

    async fn check(&self, key: &Key, grace_is_over: bool) {
        let seen = key.see(&self.path).await;
        let found = (
            seen["state"].as_str().unwrap(),
            seen["ended_at"].is_string(),
            seen["message"].as_str().unwrap(),
        );
        assert_eq!(found, self.expected(grace_is_over), "{self:?}");
        let logs = key.get(&format!("{}/logs", self.path)).await;
        if self.task && self.fate == Fate::Dying && !grace_is_over {
            assert_eq!(logs.0, 409, "{self:?}");
        } else {
            assert_eq!(logs.1["total_lines"], self.lines, "{self:?}");
        }
    }
}

async fn check_all(key: &Key, jobs: &[Job], grace_is_over: bool) {
    join_all(jobs.iter().map(|job| job.check(key, grace_is_over))).await;
    for (kind, task) in [("task", true), ("webui", false)] {
        let all = jobs.iter().filter(|job| job.task == task);
        assert_eq!(key.listed(&format!("/sessions/{kind}?limit=1000")).await.1, all.clone().count() as u64);
        for state in PHASES.iter().chain(&OUTCOMES).chain(&["terminated"]).filter(|_| task) {
            // Where a state is asked for, one that is dying is in none.
            let fits = |job: &&Job| {
                job.expected(grace_is_over).0 == *state && (grace_is_over || job.fate != Fate::Dying)
            };
            let mut expected: Vec<_> = all.clone().filter(fits).map(|job| id_of(&job.path)).collect();
            expected.sort_unstable();
            let path = format!("/sessions/{kind}?limit=1000&state_equal_ci={state}");
            let (mut found, total) = key.listed(&path).await;
            found.sort_unstable();
            assert_eq!(
                (found.len() as u64, &found),
                (total, &expected.iter().map(ToString::to_string).collect())
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hundreds_of_sessions_live_and_end_as_reported_whatever_restarts_in_between() {
    let mut server = Server::with(&["--workload-grace", "10m"]).await;
    let mut key = server.key(&["session"]).await;
    let (mut dice, mut jobs) = (Dice(7), Vec::<Job>::new());
    for round in 0..5 {
        let new: Vec<_> = (0..80).map(|number| (number % 3 > 0, dice.pick(2))).collect();
        jobs.extend(join_all(new.iter().map(|(task, phase)| Job::begin(&key, *task, *phase))).await);
        for _ in 0..3 {
            let rolled: Vec<_> = jobs.iter().map(|_| (dice.pick(10), dice.pick(3))).collect();
            let lives = jobs.into_iter().zip(rolled).map(|(job, rolled)| job.live(key.clone(), rolled));
            jobs = join_all(lives).await;
        }
        let open: Vec<_> = jobs.iter().filter(|job| job.fate == Fate::Open).collect();
        let ids: Vec<_> = jobs.iter().map(|job| id_of(&job.path)).collect();
        let (_, beats) = key.post("/sessions/heartbeats", json!({ "sessions": ids })).await;
        assert_eq!(beats["recorded"], open.len() as u64);
        for (job, one) in jobs.iter().zip(beats["sessions"].as_array().unwrap()) {
            let status = if job.fate == Fate::Open { 200 } else { 410 };
            assert_eq!((&one["id"], &one["status"]), (&json!(id_of(&job.path)), &json!(status)), "{one}");
        }
        check_all(&key, &jobs, false).await;
        if round % 2 == 0 {
            server = server.restart().await;
            key = Key { base: server.url(""), ..key };
            check_all(&key, &jobs, false).await;
        }
    }
    for fate in [Fate::Open, Fate::Dying] {
        assert!(jobs.iter().filter(|job| job.task && job.fate == fate).count() > 20, "{fate:?}");
    }
    // Nobody says any more that the others are dead: their time is over while nobody is there to see it.
    server = server.restart_after(700).await;
    key = Key { base: server.url(""), ..key };
    check_all(&key, &jobs, true).await;
    let database = server.database();
    server.stop().await;
    let verified = crate::support::daemon::sessiond(&["verify", "--database", &database]);
    assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stderr));
}

#[tokio::test]
async fn a_queued_task_that_was_terminated_never_runs_in_whatever_order_its_cluster_asks() {
    let server = Server::start().await;
    let key = server.key(&["session"]).await;
    let path = key.begin("task", super::app("Planner")).await;
    assert_eq!(key.delete(&path).await, 204);
    for state in ["queued", "launching", "running"] {
        let (status, body) = key.patch(&path, json!({ "state": state })).await;
        assert_eq!(status, 410, "{body}");
        assert!(body["message"].as_str().unwrap().contains("terminated"), "{body}");
    }
    let over = key.end(&path, "terminated", "removed from the queue").await;
    assert_eq!((&over["state"], &over["message"]), (&json!("terminated"), &json!("removed from the queue")));
    assert_eq!(key.move_on(&path, "running").await, 410);
    // Both at once: whoever comes first, it does not run after it was told to end.
    for _ in 0..20 {
        let path = key.begin("task", super::app("Planner")).await;
        let (moved, ended) = tokio::join!(key.move_on(&path, "running"), key.delete(&path));
        assert_eq!(ended, 204);
        assert!([200, 410].contains(&moved.as_u16()), "{moved}");
        assert_eq!(key.beat(&path).await, 410);
        let log = server.log().await;
        let own: Vec<&str> = log.iter().map(|(name, _)| name.as_str()).collect();
        let end = own.iter().rposition(|name| *name == "disconnected").unwrap();
        assert!(!own[end..].contains(&"phase_changed"), "it ran after its end");
    }
}
