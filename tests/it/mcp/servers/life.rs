//! A client's life before one server: it lists, calls, gives up, is cut off, outlives the server, is terminated, says
//! goodbye, and is revoked.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use super::ear::Ear;
use super::{CLIENTS, MOMENTS, Row};
use crate::mcp::House;
use crate::mcp::clients::echo;
use crate::mcp::foreign::{Driver, Foreigner, Sdk};
use crate::mcp::front::Front;
use crate::mcp::matrix::life::told;

/// Lives it with each client, and holds what was seen to what the table says.
pub async fn live(row: &Row) {
    let mut differs = vec![];
    let mut all = vec![];
    for ((sdk, name), told) in CLIENTS.iter().zip(row.sees) {
        let mut life = Life::begin(row, *sdk).await;
        life.works().await;
        life.gives_up_a_call().await;
        life.loses_its_connection().await;
        life.outlives_the_server(row).await;
        life.is_terminated().await;
        life.says_goodbye().await;
        life.is_revoked().await;
        let seen = life.seen;
        let wrong = MOMENTS.iter().zip(&seen).zip(told).filter(|((_, seen), told)| seen != told);
        differs.extend(wrong.map(|((moment, seen), told)| format!("{name}, {moment}: {seen} — not {told}")));
        all.push(seen);
    }
    assert!(differs.is_empty(), "{}\nall of it: {all:#?}", differs.join("\n"));
}

struct Life {
    server: Option<Foreigner>,
    ear: Ear,
    house: House,
    front: Front,
    driver: Driver,
    token: String,
    seen: Vec<String>,
}

impl Life {
    async fn begin(row: &Row, sdk: Sdk) -> Self {
        let server = row.program.start(0).await;
        let ear = Ear::before(&server.url).await;
        let house = House::before(&ear.url, &[]).await;
        let (token, front) = (house.token().await, Front::before(&house).await);
        let driver = Driver::start(sdk);
        let mut life = Self { server: Some(server), ear, house, front, driver, token, seen: vec![] };
        life.connects("main").await;
        life
    }

    async fn connects(&mut self, client: &str) {
        let url = self.front.url(&self.house.path());
        let connect =
            json!({ "op": "connect", "client": client, "url": url, "token": self.token, "mode": "legacy" });
        let connected = self.driver.does(connect).await;
        assert!(connected["session_id"].as_str().is_some(), "{connected}");
    }

    async fn works(&mut self) {
        let tools = self.driver.does(json!({ "op": "list_tools" })).await;
        for name in ["echo", "wait", "given_up"] {
            assert!(tools["tools"].as_array().unwrap().iter().any(|tool| tool["name"] == name), "{tools}");
        }
        let answer = self.driver.does(echo("hello")).await;
        assert!(answer["content"][0]["text"].as_str().unwrap().contains("Echo: hello"), "{answer}");
        let call = self.begin_to_wait(0.8, 4);
        let line = self.driver.result_of(call).await;
        assert!(line.to_string().contains("waited 0.8 seconds"), "{line}");
        let steps = self.driver.said(|line| line["event"] == "progress" && line["for"] == call);
        let steps: Vec<_> = steps.iter().filter_map(|line| line["progress"].as_f64()).collect();
        // Some SDKs drop the last that arrives together with the result.
        let seen = match steps.as_slice() {
            [] => "none",
            [1.0, 2.0, 3.0] | [1.0, 2.0, 3.0, 4.0] => "step by step",
            _ => panic!("progress out of order: {steps:?}"),
        };
        self.seen.push(seen.to_owned());
    }

    fn begin_to_wait(&mut self, seconds: f64, steps: u32) -> u64 {
        let arguments = json!({ "seconds": seconds, "steps": steps });
        self.driver
            .begin(json!({ "op": "call", "name": "wait", "arguments": arguments, "timeout_seconds": 20 }))
    }

    /// Waits until the server has the call.
    async fn begun(&self) {
        let has_it = || self.ear.heard().iter().filter(|(_, rpc, _)| rpc == "tools/call").count() > 0;
        for _ in 0..500 {
            if has_it() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        // A server that begins to answer when it is done is not heard before.
    }

    async fn gives_up_a_call(&mut self) {
        self.ear.forget();
        let call = self.begin_to_wait(20.0, 200);
        tokio::time::sleep(Duration::from_millis(300)).await;
        self.driver.does(json!({ "op": "cancel", "target": call })).await;
        assert_eq!(self.driver.result_of(call).await["error"]["type"], "Cancelled");
        for _ in 0..20 {
            let answer = self.driver.does(json!({ "op": "call", "name": "given_up" })).await;
            if answer["content"][0]["text"].as_str().unwrap().contains('1') {
                return self.seen.push("the server stops".to_owned());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let told = self.ear.heard().iter().any(|(_, rpc, _)| rpc == "notifications/cancelled");
        self.seen
            .push(if told { "the server is told, and goes on" } else { "the server is not told" }.to_owned());
    }

    async fn loses_its_connection(&mut self) {
        let call = self.begin_to_wait(2.0, 8);
        tokio::time::sleep(Duration::from_millis(500)).await;
        self.front.cut();
        let line = self.driver.result_of(call).await;
        self.seen.push(told(&line));
        self.driver.does(echo("and on")).await;
    }

    async fn outlives_the_server(&mut self, row: &Row) {
        let port = self.server.take().unwrap().kill();
        self.server = Some(row.program.start(port).await);
        let line = self.ends(echo("anew")).await;
        self.seen.push(told(&line));
        if line["ok"] != true {
            self.driver.run(json!({ "op": "close" })).await;
            self.connects("main").await;
        }
    }

    async fn ends(&mut self, command: Value) -> Value {
        let call = self.driver.begin(command);
        self.driver.result_of(call).await
    }

    async fn is_terminated(&mut self) {
        let open = self.house.sessions().await;
        let open = open.iter().find(|one| one["derivedStatus"] != "disconnected").unwrap();
        self.house.terminate(open["id"].as_str().unwrap()).await;
        // rmcp opens another by itself.
        self.ends(echo("?")).await;
        self.driver.run(json!({ "op": "close" })).await;
        self.connects("main").await;
        self.driver.does(echo("again")).await;
    }

    async fn says_goodbye(&mut self) {
        self.ear.forget();
        self.driver.does(json!({ "op": "close" })).await;
        let goodbye = || self.ear.heard().into_iter().find(|(method, ..)| *method == Method::DELETE);
        for _ in 0..500 {
            if goodbye().is_some() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let heard =
            goodbye().map_or("nothing".to_owned(), |(.., status)| format!("`DELETE`, and says {status}"));
        self.seen.push(heard);
    }

    async fn is_revoked(&mut self) {
        self.connects("main").await;
        self.ear.forget();
        let call = self.begin_to_wait(20.0, 200);
        tokio::time::sleep(Duration::from_millis(300)).await;
        self.begun_or_not().await;
        self.house.revoke_all().await;
        let line = self.driver.result_of(call).await;
        self.seen.push(told(&line));
    }

    async fn begun_or_not(&self) {
        tokio::time::timeout(Duration::from_millis(500), self.begun()).await.ok();
    }
}
