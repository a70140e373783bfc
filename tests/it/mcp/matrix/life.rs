//! A client's life, from its first request to its goodbye.

use reqwest::StatusCode;
use std::time::Duration;

use serde_json::{Value, json};

use super::{MOMENTS, Row, Way};
use crate::mcp::House;
use crate::mcp::breakable_proxy::BreakableProxy;
use crate::mcp::external::{Driver, ExternalProcess, Sdk};
use crate::mcp::real_clients::echo;

/// Lives it, and holds what was seen to what the table says.
pub async fn live(row: &Row) {
    let mut life = Life::begin(row).await;
    life.connects().await;
    life.works().await;
    life.gives_up_a_call().await;
    life.loses_its_connection().await;
    life.outlives_a_restart().await;
    life.is_terminated().await;
    life.is_revoked().await;
    life.says_goodbye().await;
    let Life { seen, driver, .. } = life;
    let differs = MOMENTS.iter().zip(&seen).zip(row.sees).filter(|((_, seen), told)| seen != told);
    let differs: Vec<_> =
        differs.map(|((moment, seen), told)| format!("{moment:?}: {seen} — not {told}")).collect();
    let said = driver.unheard();
    assert!(differs.is_empty(), "{}\nall of it: {seen:#?}\nit also said {}", differs.join("\n"), json!(said));
}

struct Life<'a> {
    row: &'a Row,
    _upstream: ExternalProcess,
    /// None only while it restarts.
    house: Option<House>,
    front: BreakableProxy,
    driver: Driver,
    token: String,
    seen: Vec<String>,
}

impl<'a> Life<'a> {
    async fn begin(row: &'a Row) -> Self {
        let upstream = ExternalProcess::python(0).await;
        let house = House::before(&upstream.url, &[]).await;
        let (token, front) = (house.token().await, BreakableProxy::before(&house).await);
        let driver = Driver::start(row.sdk);
        Self { row, _upstream: upstream, house: Some(house), front, driver, token, seen: vec![] }
    }

    fn house(&self) -> &House {
        self.house.as_ref().unwrap()
    }

    fn connect(&self, client: &str) -> Value {
        let path = self.house().path();
        let (path, mode) = match self.row.way {
            Way::Sessions => (path, "legacy"),
            // rmcp's own probing is not what is tried here.
            Way::Modern if self.row.sdk == Sdk::Rust => (path, self.row.revision),
            Way::Modern => (path, "auto"),
            Way::Sse => (format!("{path}/sse"), "legacy"),
        };
        let transport = if self.row.way == Way::Sse { "sse" } else { "streamable" };
        json!({
            "op": "connect", "client": client, "url": self.front.url(&path), "token": self.token,
            "mode": mode, "transport": transport, "client_info": { "name": "whole life" },
        })
    }

    async fn live_sessions(&self) -> Vec<Value> {
        let all = self.house().sessions().await;
        all.into_iter().filter(|session| session["derivedStatus"] != "disconnected").collect()
    }

    /// Reasons of sessions that have ended.
    async fn ended(&self, reason: &str) -> usize {
        let all = self.house().sessions().await;
        all.iter().filter(|session| session["disconnectReason"] == reason).count()
    }

    async fn connects(&mut self) {
        let connected = self.driver.does(self.connect("main")).await;
        assert_eq!(connected["protocol_version"], self.row.revision, "{connected}");
        let id = &connected["session_id"];
        match self.row.way {
            Way::Sessions => assert!(id.as_str().is_some_and(|id| id.len() >= 22), "{connected}"),
            Way::Modern => assert!(id.is_null(), "{connected}"),
            Way::Sse => {}
        }
    }

    async fn works(&mut self) {
        let tools = self.driver.does(json!({ "op": "list_tools" })).await;
        assert!(tools["tools"].as_array().unwrap().iter().any(|tool| tool["name"] == "echo"), "{tools}");
        let answer = self.driver.does(echo("hello")).await;
        assert_eq!(answer["content"][0]["text"], "Echo: hello");
        let sessions = self.live_sessions().await;
        assert_eq!(sessions.len(), 1, "{sessions:?}");
        assert_eq!(sessions[0]["clientInfo"]["name"], "whole life");

        let call = self.begin_to_wait(2.0, 8).await;
        let line = self.driver.result_of(call).await;
        assert_eq!(line["result"]["content"][0]["text"], "waited 2 seconds", "{line}");
        self.told_in_order(call);
    }

    /// A call that tells how far it is, and has told so already.
    async fn begin_to_wait(&mut self, seconds: f64, steps: u32) -> u64 {
        let arguments = json!({ "seconds": seconds, "steps": steps });
        let call = json!({ "op": "call", "name": "wait", "arguments": arguments, "timeout_seconds": 20 });
        let call = self.driver.begin(call);
        let first =
            self.driver.line(|line| line["event"] == "progress" && line["for"] == call || line["id"] == call);
        let first = first.await;
        assert_eq!(first["progress"], 1.0, "{first}");
        call
    }

    /// What a call told of its progress: each step once. (The TypeScript SDKs drop the last that arrives together with
    /// the result.)
    fn told_in_order(&mut self, call: u64) {
        let told = self.told_of(call);
        let steps: Vec<_> = (2..).map(f64::from).take(told.len()).collect();
        assert_eq!(told, steps);
    }

    /// The same of a call whose stream was resumed at the server behind. The Python SDK's server loses what is sent between
    /// its replay and the moment in which it sends on what comes live (its code calls that "the replay→live-tail ordering
    /// window"): a step may be missing for each time, and none comes twice or too late.
    fn told_in_order_but_for_one(&mut self, call: u64) {
        let told = self.told_of(call);
        assert!(told.is_sorted_by(|one, next| one < next), "{told:?}");
        let missing = told.last().map_or(0.0, |last| last - 1.0 - told.len() as f64);
        assert!(missing <= 1.0, "{told:?}");
    }

    fn told_of(&mut self, call: u64) -> Vec<f64> {
        let told = self.driver.said(|line| line["event"] == "progress" && line["for"] == call);
        told.iter().filter_map(|line| line["progress"].as_f64()).collect()
    }

    async fn gives_up_a_call(&mut self) {
        let call = self.begin_to_wait(60.0, 600).await;
        let cancelled = self.driver.does(json!({ "op": "cancel", "target": call })).await;
        assert_eq!(cancelled["cancelled"], true);
        let line = self.driver.result_of(call).await;
        assert_eq!(line["error"]["type"], "Cancelled", "{line}");
        for _ in 0..200 {
            let answer = self.driver.does(json!({ "op": "call", "name": "given_up" })).await;
            if answer["content"][0]["text"] == "1" {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        panic!("the server behind was never told that the call was given up");
    }

    async fn sees(&mut self, call: u64) -> bool {
        let line = self.driver.result_of(call).await;
        self.seen.push(told(&line));
        line["ok"] == true
    }

    async fn sees_next(&mut self) -> bool {
        let mut call = echo("next");
        call["timeout_seconds"] = json!(15);
        let call = self.driver.begin(call);
        self.sees(call).await
    }

    /// What its caller would do with a client that does not work any more.
    async fn connects_anew(&mut self) {
        self.driver.run(json!({ "op": "close" })).await;
        self.driver.does(self.connect("main")).await;
        self.driver.does(echo("anew")).await;
    }

    async fn loses_its_connection(&mut self) {
        let call = self.begin_to_wait(3.0, 12).await;
        self.front.cut();
        if self.sees(call).await {
            self.told_in_order(call);
        }
        if !self.sees_next().await {
            self.connects_anew().await;
        }
    }

    async fn outlives_a_restart(&mut self) {
        let before = self.driver.does(json!({ "op": "session_id" })).await;
        let call = self.begin_to_wait(4.0, 16).await;
        self.front.hold();
        let house = self.house.take().unwrap().restart().await;
        self.front.lead_to(&house);
        self.house = Some(house);
        if self.sees(call).await {
            self.told_in_order_but_for_one(call);
        }
        if self.row.way == Way::Sse {
            // It opens its stream again by itself, but not at once.
            tokio::time::sleep(Duration::from_secs(3)).await;
        }
        if !self.sees_next().await {
            self.connects_anew().await;
        }
        if self.row.way != Way::Sse {
            assert_eq!(self.driver.does(json!({ "op": "session_id" })).await, before);
            assert_eq!(self.house().sessions().await.len(), 1, "the session goes on, as the same record");
        }
    }

    async fn is_terminated(&mut self) {
        let call = self.begin_to_wait(60.0, 600).await;
        let house = self.house();
        for session in self.live_sessions().await {
            let id = session["id"].as_str().unwrap();
            let path = format!("/api/v1/applications/{}/sessions/{id}/terminate", house.application);
            let (status, body) = house.operator.post(&path, json!({})).await;
            assert_eq!(status, StatusCode::OK, "{body}");
        }
        self.sees(call).await;
        assert!(self.ended("terminated").await > 0);
        if !self.sees_next().await {
            assert_eq!(self.live_sessions().await.len(), 0);
            self.connects_anew().await;
        }
        assert_eq!(self.live_sessions().await.len(), 1, "the token is as good as before");
    }

    async fn is_revoked(&mut self) {
        let call = self.begin_to_wait(60.0, 600).await;
        assert_eq!(self.house().revoke_all().await["disconnectedCount"], 1);
        self.sees(call).await;
        assert!(!self.sees_next().await);
        let second = self.driver.begin(self.connect("second"));
        assert!(!self.sees(second).await);
        assert_eq!((self.ended("revoked").await, self.live_sessions().await.len()), (1, 0));

        self.token = self.house().token().await;
        self.driver.run(json!({ "op": "set_token", "token": self.token })).await;
        if !self.sees_next().await {
            self.connects_anew().await;
        }
        assert_eq!(self.live_sessions().await.len(), 1);
    }

    async fn says_goodbye(&mut self) {
        self.driver.does(json!({ "op": "close" })).await;
        let left = self.live_sessions().await.len();
        match self.row.way {
            Way::Sessions => assert_eq!((left, self.ended("client").await), (0, 1)),
            Way::Modern => assert_eq!(left, 1, "this revision has no goodbye"),
            // Its end is the stream's, and some time.
            Way::Sse => {}
        }
    }
}

/// What of a result stays the same from run to run.
pub fn told(line: &Value) -> String {
    if line["ok"] == true {
        return "ok".into();
    }
    let error = &line["error"];
    let (kind, message) = (error["type"].as_str().unwrap_or("?"), error["message"].as_str().unwrap_or(""));
    if message.to_lowercase().contains("timed out") || kind == "Timeout" {
        return "no answer, until its time is over".into();
    }
    if kind == "NotConnected" {
        return "the client has broken down".into();
    }
    let mut told = format!("`{kind}`");
    let status = error["status"].as_u64().filter(|status| *status >= 400);
    let code = error["code"].to_string();
    if !error["code"].is_null() && status.is_none_or(|status| code != status.to_string()) {
        told += &format!(" {}", code.trim_matches('"'));
    }
    // What comes after may hold addresses and ids.
    let message = message.strip_prefix(&format!("MCP error {code}: ")).unwrap_or(message);
    let class = message.split([':', '{', '(', '<', '\'']).next().unwrap_or("").trim();
    if !class.is_empty() {
        told += &format!(" “{class}”");
    }
    if let Some(status) = status {
        told += &format!(", HTTP {status}");
    }
    if let Some(reason) = error["data"]["reason"].as_str() {
        told += &format!(", reason `{reason}`");
    } else if let Some(reason) = reason_within(&error.to_string()) {
        told += &format!(", reason `{reason}` in its text");
    }
    told
}

/// The reason in an answer that the SDK hands on as text.
fn reason_within(text: &str) -> Option<String> {
    let plain = text.replace('\\', "");
    let (_, rest) = plain.split_once("\"reason\":\"")?;
    rest.split_once('"').map(|(reason, _)| reason.to_owned())
}
