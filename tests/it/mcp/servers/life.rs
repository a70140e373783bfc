//! One server, and the lives that all clients live before it, side by side.

use std::time::Duration;

use futures_util::future::join_all;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::{CLIENTS, Kind, MOMENTS, Moment, Row};
use crate::mcp::House;
use crate::mcp::breakable_proxy::BreakableProxy;
use crate::mcp::external::{Driver, Sdk};
use crate::mcp::forwarder::{Forwarder, Passed};
use crate::mcp::matrix::told;
use crate::mcp::real_clients::echo;

/// How long something that should happen may take on a machine with other things to do.
const PATIENCE: u64 = 60;

/// Lives them, and holds what was seen to what the table says.
pub async fn live(kind: Kind, url: &str) {
    let row = Row::of(kind);
    let witness = Forwarder::plain(url).await;
    let house = House::before(&witness.url, &[]).await;
    let lives = join_all(CLIENTS.map(async |(sdk, _)| {
        let mut life = Life::begin(row, sdk, &house, &witness, url).await;
        life.works().await;
        life.gives_up_a_call().await;
        life.loses_its_connection().await;
        life.is_terminated().await;
        life.is_revoked().await;
        life.says_goodbye().await;
        life.leaves_nothing().await;
        (sdk, life.seen)
    }));
    let mut differs = vec![];
    for (sdk, seen) in lives.await {
        assert_eq!(seen.len(), MOMENTS.len());
        for (moment, seen) in seen {
            let tells = row.sees(moment, sdk);
            if seen != tells {
                differs.push(format!("(Moment::{moment:?}, Some(Sdk::{sdk:?}), {seen:?}), // not {tells:?}"));
            }
        }
    }
    assert!(differs.is_empty(), "{kind:?}:\n{}", differs.join("\n"));
}

struct Life<'a> {
    row: &'a Row,
    sdk: Sdk,
    house: &'a House,
    witness: &'a Forwarder,
    /// Where the server itself is.
    server: &'a str,
    front: BreakableProxy,
    driver: Driver,
    token: String,
    /// What our records, the server's sessions and its tools know it by.
    label: String,
    /// How many calls of its were to be cancelled.
    given_up: usize,
    /// The session in which it gave a call up by itself.
    gave_up_in: String,
    /// How the server took the ends of its sessions.
    partings: Vec<String>,
    seen: Vec<(Moment, String)>,
}

impl<'a> Life<'a> {
    async fn begin(
        row: &'a Row,
        sdk: Sdk,
        house: &'a House,
        witness: &'a Forwarder,
        server: &'a str,
    ) -> Self {
        let (token, front) = (house.token().await, BreakableProxy::before(house).await);
        let (driver, label) = (Driver::start(sdk), format!("{sdk:?}"));
        let (partings, seen) = (vec![], vec![]);
        Self {
            row,
            sdk,
            house,
            witness,
            server,
            front,
            driver,
            token,
            label,
            given_up: 0,
            gave_up_in: String::new(),
            partings,
            seen,
        }
    }

    fn sees(&mut self, moment: Moment, what: impl Into<String>) {
        self.seen.push((moment, what.into()));
    }

    async fn connect(&mut self) {
        let url = self.front.url(&self.house.path());
        let info = json!({ "name": self.label });
        let connect = json!({ "op": "connect", "url": url, "token": self.token, "client_info": info });
        self.driver.does(connect).await;
    }

    /// The record of its session that is live.
    async fn session(&self) -> String {
        let all = self.house.sessions().await;
        let mut own = all.iter().filter(|session| {
            session["clientInfo"]["name"] == self.label && session["derivedStatus"] != "disconnected"
        });
        let id = own.next().unwrap()["id"].as_str().unwrap().to_owned();
        assert!(own.next().is_none(), "{:?} has more than one session: {all:?}", self.sdk);
        id
    }

    async fn reason(&self, session: &str) -> Value {
        let all = self.house.sessions().await;
        all.iter().find(|one| one["id"] == session).unwrap()["disconnectReason"].clone()
    }

    /// What was said to the server for this session of ours.
    fn passed(&self, session: &str) -> Vec<Passed> {
        let passed = self.witness.passed().into_iter();
        passed.filter(|one| one.header("sessiond-session-id") == Some(session)).collect()
    }

    async fn works(&mut self) {
        self.connect().await;
        let tools = self.driver.does(json!({ "op": "list_tools" })).await;
        let has = |wanted: &str| tools["tools"].as_array().unwrap().iter().any(|tool| tool["name"] == wanted);
        let lists = has("echo") && has(self.tool());
        self.sees(Moment::Lists, if lists { "ok".into() } else { tools.to_string() });
        let answer = self.driver.does(echo("hello")).await;
        let text = answer["content"][0]["text"].as_str().unwrap_or("");
        let theirs = self.theirs(&self.session().await);
        assert!(self.is_known(&theirs).await, "a session that lives is known");
        self.sees(Moment::Calls, if text.contains("hello") { "ok".into() } else { answer.to_string() });

        let label = self.label.clone();
        let call = self.begin_to_wait(1.0, 4, &label).await;
        let line = self.driver.result_of(call).await;
        let text = line["result"]["content"][0]["text"].to_string();
        assert!(text.contains("1 seconds"), "{line}");
        let steps = self.steps_of(call);
        let in_order = steps.iter().zip(1..).all(|(step, at)| *step == f64::from(at));
        let seen = match steps.len() {
            0 => "none to be had".to_owned(),
            // The TypeScript SDKs drop what arrives together with the result.
            2..=4 if in_order => "ok".into(),
            _ => format!("{steps:?}"),
        };
        self.sees(Moment::Progress, seen);
    }

    /// The tool that takes its time.
    fn tool(&self) -> &'static str {
        match self.row.kind {
            Kind::Everything => "trigger-long-running-operation",
            _ => "wait",
        }
    }

    /// A call that the server has under way, and has told so if it tells anything.
    async fn begin_to_wait(&mut self, seconds: f64, steps: u32, label: &str) -> u64 {
        let arguments = match self.row.kind {
            Kind::Everything => json!({ "duration": seconds, "steps": steps }),
            _ => json!({ "seconds": seconds, "steps": steps, "label": label }),
        };
        let before = if self.row.reports() { 0 } else { self.count("begun", label).await };
        let call =
            json!({ "op": "call", "name": self.tool(), "arguments": arguments, "timeout_seconds": 30 });
        let call = self.driver.begin(call);
        if self.row.reports() {
            let first =
                |line: &Value| line["event"] == "progress" && line["for"] == call || line["id"] == call;
            let first = self.driver.line(first).await;
            assert_eq!(first["event"], "progress", "the result came before any progress: {first}");
            self.driver.put_back(first);
        } else {
            let begun = self.reaches("begun", label, |count| count > before).await;
            assert!(begun, "the server's tool has not begun");
        }
        call
    }

    /// What a tool of the server's has counted under a label.
    async fn count(&mut self, tool: &str, label: &str) -> usize {
        let asked = json!({ "op": "call", "name": tool, "arguments": { "label": label } });
        let answer = self.driver.does(asked).await;
        // A route's answer is JSON within the text.
        let text = answer["content"][0]["text"].as_str().unwrap();
        text.trim_matches('"').parse().unwrap_or_else(|_| panic!("{answer}"))
    }

    /// Waits until what a tool of the server's has counted is as wanted; returns whether it came to be in time.
    async fn reaches(&mut self, tool: &str, label: &str, wanted: impl Fn(usize) -> bool) -> bool {
        for _ in 0..PATIENCE * 10 {
            if wanted(self.count(tool, label).await) {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        false
    }

    /// What a call told of its progress.
    fn steps_of(&mut self, call: u64) -> Vec<f64> {
        let told = self.driver.said(|line| line["event"] == "progress" && line["for"] == call);
        told.iter().filter_map(|line| line["progress"].as_f64()).collect()
    }

    /// Whether every call of its that was cut off has been noticed behind; None where no tool counts them.
    async fn all_noticed(&mut self) -> Option<bool> {
        if matches!(self.row.kind, Kind::Everything) {
            return None;
        }
        let (label, given_up) = (self.label.clone(), self.given_up);
        Some(self.reaches("given_up", &label, |count| count == given_up).await)
    }

    async fn gives_up_a_call(&mut self) {
        let session = self.session().await;
        let label = self.label.clone();
        let call = self.begin_to_wait(60.0, 240, &label).await;
        let cancelled = self.driver.does(json!({ "op": "cancel", "target": call })).await;
        assert_eq!(cancelled["cancelled"], true);
        let line = self.driver.result_of(call).await;
        assert_eq!(line["error"]["type"], "Cancelled", "{line}");
        self.steps_of(call);
        self.given_up += 1;
        let noticed = self.all_noticed().await;
        let told = async || self.passed(&session).iter().any(is_cancelled);
        self.house.server.until_within(PATIENCE, "the server is told", told).await;
        self.gave_up_in = session.clone();
        self.sees(
            Moment::GivenUp,
            match noticed {
                Some(true) => "ok",
                Some(false) => "it is told, and its tool runs on",
                None => "it is told; its tool does not look",
            },
        );
    }

    async fn loses_its_connection(&mut self) {
        let session = self.session().await;
        // What becomes of this call behind is not counted with those that are cut off on purpose.
        let call = self.begin_to_wait(3.0, 12, "its connection breaks").await;
        self.front.cut();
        let line = self.driver.result_of(call).await;
        let steps = self.steps_of(call);
        if line["ok"] == true {
            let wanted: Vec<_> = (1..).map(f64::from).take(steps.len()).collect();
            assert_eq!(steps, wanted, "each step once");
        }
        self.sees(Moment::Broken, told(&line));
        if self.driver.run(echo("next")).await["ok"] != true {
            self.driver.run(json!({ "op": "close" })).await;
            // A client that has broken down says no goodbye.
            if self.reason(&session).await.is_null() {
                self.house.terminate(&session).await;
            }
            self.connect().await;
        } else {
            assert_eq!(self.session().await, session);
        }
    }

    async fn is_terminated(&mut self) {
        let session = self.session().await;
        let label = self.label.clone();
        let call = self.begin_to_wait(60.0, 240, &label).await;
        self.given_up += 1;
        self.house.terminate(&session).await;
        self.hears_of(Moment::Terminated, call, "terminated").await;
        self.parts(&session, 1).await;
        self.driver.run(json!({ "op": "close" })).await;
        self.connect().await;
    }

    async fn is_revoked(&mut self) {
        let session = self.session().await;
        let label = self.label.clone();
        let call = self.begin_to_wait(60.0, 240, &label).await;
        self.given_up += 1;
        let path = format!("/api/v1/applications/{}/sessions/{session}", self.house.application);
        let (status, body) = self.house.operator.delete(&path).await;
        assert_eq!(status, StatusCode::OK, "{body}");
        self.hears_of(Moment::Revoked, call, "revoked").await;
        self.parts(&session, 1).await;
        self.driver.run(json!({ "op": "close" })).await;
        self.token = self.house.token().await;
        self.connect().await;
        let answer = self.driver.does(echo("anew")).await;
        assert!(answer["content"][0]["text"].as_str().unwrap().contains("anew"), "{answer}");
        self.sees(Moment::Anew, "ok");
    }

    async fn hears_of(&mut self, moment: Moment, call: u64, reason: &str) {
        let line = self.driver.result_of(call).await;
        self.steps_of(call);
        let told = told(&line);
        self.sees(moment, if told.contains(&format!("reason `{reason}`")) { "ok".into() } else { told });
    }

    async fn says_goodbye(&mut self) {
        match self.all_noticed().await {
            Some(true) => {}
            Some(false) => self.partings.push("the tool of a call that was cut off runs on".into()),
            None => self.partings.push("its tool does not look".into()),
        }
        let session = self.session().await;
        self.driver.does(json!({ "op": "close" })).await;
        self.parts(&session, 0).await;
        let reason = self.reason(&session).await;
        self.sees(Moment::Goodbye, if reason == "client" { "ok".into() } else { reason.to_string() });
    }

    /// Whether the server itself, asked past the gateway, has this session of its own.
    async fn is_known(&self, theirs: &str) -> bool {
        let asked = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/list" });
        let asked = self.house.server.http.post(self.server).json(&asked);
        let asked = asked.header("accept", "application/json, text/event-stream");
        let asked = asked.header("mcp-protocol-version", "2025-11-25").header("mcp-session-id", theirs);
        let status = asked.send().await.unwrap().status();
        assert!(status.is_success() || status.is_client_error(), "{status}");
        status.is_success()
    }

    /// The server's own name for a session of ours.
    fn theirs(&self, session: &str) -> String {
        let passed = self.passed(session);
        passed.iter().find_map(|one| one.header("mcp-session-id")).unwrap().to_owned()
    }

    /// Waits until the server has answered that the session is over, and asks it for that session itself. So many of its
    /// calls were cut off.
    async fn parts(&mut self, session: &str, cut_off: usize) {
        let theirs = self.theirs(session);
        let goodbyes = || -> Vec<_> {
            let passed = self.witness.passed().into_iter();
            passed.filter(|one| is_goodbye(one) && one.header("mcp-session-id") == Some(&*theirs)).collect()
        };
        let said = async || goodbyes().iter().any(|one| one.status.is_some());
        self.house.server.until_within(PATIENCE, "the server is told goodbye", said).await;
        let cancelled = usize::from(session == self.gave_up_in) + cut_off;
        let passed = self.witness.passed();
        let of_it = passed.iter().filter(|one| one.header("mcp-session-id") == Some(&*theirs));
        if of_it.filter(|one| is_cancelled(one)).count() < cancelled {
            self.partings.push("its call is not cancelled".into());
        }
        let status = goodbyes()[0].status.unwrap();
        if !status.is_success() {
            self.partings.push(format!("DELETE is answered with {}", status.as_u16()));
            return;
        }
        if self.is_known(&theirs).await {
            self.partings
                .push(format!("DELETE is answered with {}, and the session goes on", status.as_u16()));
        }
        assert_eq!(goodbyes().len(), 1, "one goodbye");
    }

    async fn leaves_nothing(&mut self) {
        let mut partings = std::mem::take(&mut self.partings);
        partings.dedup();
        let seen = if partings.is_empty() { "ok".into() } else { partings.join("; ") };
        self.sees(Moment::LeavesNothing, seen);
    }
}

fn is_goodbye(passed: &Passed) -> bool {
    passed.method == Method::DELETE
}

fn is_cancelled(passed: &Passed) -> bool {
    passed.body["method"] == "notifications/cancelled"
}
