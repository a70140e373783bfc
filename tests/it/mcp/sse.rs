//! HTTP+SSE, the transport of 2024-11-05: one stream for all answers, and an endpoint for what the client says.

use reqwest::{Method, Response, StatusCode};
use serde_json::{Value, json};

use super::{House, NOT_FOUND, Stream, call, messages, not_found, refused};

/// A client of the oldest revision, with its stream open.
pub struct Old {
    url: String,
    pub endpoint: String,
    pub token: String,
    http: reqwest::Client,
    pub stream: Stream,
}

impl Old {
    pub async fn open(house: &House, token: &str, last_event_id: Option<&str>) -> Result<Self, Response> {
        Self::open_at(&house.server.url(""), &house.path(), token, house.server.http.clone(), last_event_id)
            .await
    }

    async fn open_at(
        base: &str,
        path: &str,
        token: &str,
        http: reqwest::Client,
        last_event_id: Option<&str>,
    ) -> Result<Self, Response> {
        let url = format!("{base}{path}/sse");
        let mut request = http.get(&url).bearer_auth(token).header("accept", "text/event-stream");
        if let Some(id) = last_event_id {
            request = request.header("last-event-id", id);
        }
        let answer = request.send().await.unwrap();
        if answer.status() != StatusCode::OK {
            return Err(answer);
        }
        assert_eq!(answer.headers()["content-type"], "text/event-stream");
        assert_eq!(answer.headers()["x-accel-buffering"], "no");
        let mut stream = Stream::of(answer);
        stream.until("\n\n").await;
        let path =
            stream.text.strip_prefix("event: endpoint\nretry: 1000\ndata: ").unwrap().lines().next().unwrap();
        let endpoint = format!("{base}{path}");
        Ok(Self { url, endpoint, token: token.to_owned(), http, stream })
    }

    /// With a session.
    pub async fn connect(house: &House) -> Self {
        Self::connect_with(house, &house.token().await).await
    }

    /// The same with this token.
    pub async fn connect_with(house: &House, token: &str) -> Self {
        Self::connect_at(&house.server.url(""), &house.path(), token, house.server.http.clone()).await
    }

    pub async fn connect_at(base: &str, path: &str, token: &str, http: reqwest::Client) -> Self {
        let opened = Self::open_at(base, path, token, http, None).await;
        let mut old = opened.unwrap_or_else(|_| unreachable!());
        let params = json!({
            "protocolVersion": "2024-11-05",
            "capabilities": {},
            "clientInfo": { "name": "old", "version": "1", "hostname": "attic" },
        });
        old.say(&json!({ "jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params })).await;
        old.stream.until("serverInfo").await;
        old.say(&json!({ "jsonrpc": "2.0", "method": "notifications/initialized" })).await;
        old
    }

    pub async fn post(&self, body: &Value) -> Response {
        self.http.post(&self.endpoint).bearer_auth(&self.token).json(body).send().await.unwrap()
    }

    pub async fn say(&self, body: &Value) {
        let answer = self.post(body).await;
        assert_eq!(answer.status(), StatusCode::ACCEPTED, "{}", answer.text().await.unwrap());
    }

    /// A call and its answer.
    pub async fn call(&mut self, id: Value, name: &str) -> Value {
        self.say(&call(id.clone(), name)).await;
        self.stream.until(&format!("\"id\":{id}")).await;
        messages(&self.stream.text).into_iter().rfind(|message| message["id"] == id).unwrap()
    }

    pub fn last_event_id(&self) -> String {
        let mut ids = self.stream.text.lines().filter_map(|line| line.strip_prefix("id: "));
        ids.next_back().unwrap().to_owned()
    }
}

#[tokio::test]
async fn a_client_of_the_oldest_revision_is_a_session_like_any_other() {
    let (house, upstream) = House::with_fake(&[]).await;
    let mut client = Old::connect(&house).await;
    let answer = client.call(json!(1), "echo").await;
    assert_eq!(answer["result"]["content"][0]["text"], "done");
    // What the server says by itself comes on the same stream, and what comes piece by piece too.
    client.stream.until("notifications/hello").await;
    client.say(&call(json!(2), "story")).await;
    client.stream.until("notifications/progress").await;
    upstream.told.release.notify_one();
    client.stream.until("\"id\":2").await;
    // Two at once are told apart by their ids.
    client.say(&json!([call(json!("a"), "echo"), call(json!("b"), "echo")])).await;
    client.stream.until("\"id\":\"a\"").await;
    client.stream.until("\"id\":\"b\"").await;

    let session = &house.sessions().await[0];
    assert_eq!((&session["hostname"], &session["derivedStatus"]), (&json!("attic"), &json!("active")));
    let sent = &upstream.sent_rpc("tools/call")[0];
    assert_eq!(sent.header("sessiond-session-id"), session["id"].as_str());
    assert_eq!(sent.body["params"]["_meta"]["sessiond/sessionId"], session["id"]);
    assert_eq!(sent.header("mcp-protocol-version"), Some("2024-11-05"));
    assert_eq!((sent.header("authorization"), sent.header("mcp-session-id")), (None, Some("upstream-1")));
}

#[tokio::test]
async fn before_initialize_and_for_strangers_the_endpoint_does_nothing() {
    let (house, upstream) = House::with_fake(&[]).await;
    let token = house.token().await;
    let client = Old::open(&house, &token, None).await.unwrap_or_else(|_| unreachable!());
    assert_eq!(client.post(&call(json!(1), "echo")).await.status(), StatusCode::BAD_REQUEST);
    assert_eq!(house.connected().await, 0);
    let mut client = Old::connect(&house).await;
    let stranger = house.token_of_another().await;
    let foreign = client.http.post(&client.endpoint).bearer_auth(&stranger).json(&call(json!(1), "echo"));
    assert_eq!(refused(foreign.send().await.unwrap()).await, (StatusCode::NOT_FOUND, NOT_FOUND.to_owned()));
    let made_up = client.endpoint.split('=').next().unwrap().to_owned() + "=smc_made-up";
    let made_up = client.http.post(&made_up).bearer_auth(&client.token).json(&call(json!(1), "echo"));
    assert_eq!(refused(made_up.send().await.unwrap()).await, (StatusCode::NOT_FOUND, NOT_FOUND.to_owned()));
    let nobody = client.http.post(&client.endpoint).json(&call(json!(1), "echo")).send().await.unwrap();
    assert_eq!(nobody.status(), StatusCode::UNAUTHORIZED);
    let unknown = client.http.get(&client.url).send().await.unwrap();
    let challenge = unknown.headers()["www-authenticate"].to_str().unwrap();
    assert!(challenge.contains(&format!("{}/sse\"", house.path())), "{challenge}");
    for (method, url) in
        [(Method::POST, &client.url), (Method::DELETE, &client.url), (Method::GET, &client.endpoint)]
    {
        let answer =
            client.http.request(method.clone(), url).bearer_auth(&client.token).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::METHOD_NOT_ALLOWED, "{method} {url}");
    }
    // What the stranger wanted to read is the owner's: the id in its events opens nothing for others.
    client.call(json!(1), "echo").await;
    let theft = Old::open(&house, &stranger, Some(&client.last_event_id())).await;
    assert_eq!(theft.err().unwrap().status(), StatusCode::NOT_FOUND);
    assert_eq!(upstream.sent_rpc("tools/call").len(), 1);
}

#[tokio::test]
async fn a_stream_that_broke_is_taken_up_again_with_what_was_missed() {
    let (house, upstream) = House::with_fake(&[]).await;
    let mut client = Old::connect(&house).await;
    client.stream.until("notifications/hello").await;
    client.say(&call(json!(5), "story")).await;
    client.stream.until("notifications/progress").await;
    let last = client.last_event_id();
    let Old { endpoint, token, stream, .. } = client;
    drop(stream);
    upstream.told.release.notify_one();
    let mut client = Old::open(&house, &token, Some(&last)).await.unwrap_or_else(|_| unreachable!());
    assert_eq!(client.endpoint, endpoint);
    client.stream.until("\"id\":5").await;
    assert!(!client.stream.text.contains("progress"), "only what was missed");
    assert_eq!(client.call(json!(6), "echo").await["result"]["content"][0]["text"], "done");
    assert_eq!(house.connected().await, 1);

    // The same after a restart of ours, under another endpoint.
    let last = client.last_event_id();
    let house = house.restart().await;
    let mut client = Old::open(&house, &token, Some(&last)).await.unwrap_or_else(|_| unreachable!());
    assert_eq!(client.call(json!(7), "echo").await["result"]["content"][0]["text"], "done");
    client.stream.until("notifications/hello").await;
    assert_eq!(house.connected().await, 1);
}

#[tokio::test]
async fn a_client_that_comes_back_without_saying_so_gets_its_session_unless_there_is_doubt() {
    let (house, upstream) = House::with_fake(&[]).await;
    let mut client = Old::connect(&house).await;
    client.say(&call(json!(5), "story")).await;
    client.stream.until("notifications/progress").await;
    let Old { token, stream, .. } = client;
    drop(stream);
    upstream.told.release.notify_one();
    let open = async |house: &House| Old::open(house, &token, None).await.unwrap_or_else(|_| unreachable!());
    let mut back = open(&house).await;
    back.stream.text.clear();
    assert_eq!(back.call(json!(6), "echo").await["result"]["content"][0]["text"], "done");
    back.stream.until("\"id\":5").await;
    assert_eq!(house.connected().await, 1);
    // What was handed over is of the new stream, and can be gone on from.
    let events = back.stream.text.split("\n\n").filter_map(|event| event.strip_prefix("id: "));
    let first = events.into_iter().next().unwrap().lines().next().unwrap().to_owned();
    let endpoint = back.endpoint.clone();
    drop(back);
    let mut back = Old::open(&house, &token, Some(&first)).await.unwrap_or_else(|_| unreachable!());
    assert_eq!(back.endpoint, endpoint);
    assert_eq!(back.call(json!(9), "echo").await["result"]["content"][0]["text"], "done");
    drop(back);
    // After a restart too.
    let house = house.restart().await;
    let mut back = open(&house).await;
    assert_eq!(back.call(json!(7), "echo").await["result"]["content"][0]["text"], "done");
    // Of two that have lost their streams nobody can say which it is.
    let other = Old::connect(&house).await;
    drop((back, other));
    house
        .server
        .until("both are lost", async || {
            let back = open(&house).await;
            back.post(&call(json!(8), "echo")).await.status() == StatusCode::BAD_REQUEST
        })
        .await;
}

#[tokio::test]
async fn terminating_and_revoking_end_the_stream_with_an_error_for_every_call() {
    for (revoke, reason) in [(false, "terminated"), (true, "revoked")] {
        let (house, _upstream) = House::with_fake(&[]).await;
        let mut client = Old::connect(&house).await;
        client.say(&call(json!(1), "hang")).await;
        client.say(&call(json!("two"), "silent")).await;
        client.stream.until("notifications/progress").await;
        let last = client.last_event_id();
        if revoke {
            assert_eq!(house.revoke_all().await["disconnectedCount"], 1);
        } else {
            house.terminate(house.sessions().await[0]["id"].as_str().unwrap()).await;
        }
        assert!(client.stream.end().await);
        let all = messages(&client.stream.text);
        for id in [json!(1), json!("two")] {
            let answer = all.iter().rfind(|message| message["id"] == id).unwrap();
            assert_eq!(answer["error"]["data"]["reason"], reason, "{answer}");
        }
        let posted = client.post(&call(json!(3), "echo")).await;
        let back = Old::open(&house, &client.token, Some(&last)).await;
        let status = if revoke { StatusCode::UNAUTHORIZED } else { StatusCode::NOT_FOUND };
        let fresh = Old { token: house.token().await, ..client };
        assert_eq!(
            refused(fresh.post(&call(json!(4), "echo")).await).await,
            (StatusCode::NOT_FOUND, not_found(reason))
        );
        assert_eq!((posted.status(), back.err().unwrap().status()), (status, status));
        // Without the old id a stream can be opened again, once the credential is good.
        let token = house.token().await;
        assert!(Old::open(&house, &token, None).await.is_ok());
    }
}

#[tokio::test]
async fn a_refused_initialize_and_a_lost_upstream_are_said_on_the_stream() {
    let (house, upstream) = House::with_fake(&[]).await;
    *upstream.told.closed.lock() = true;
    let mut client = Old::open(&house, &house.token().await, None).await.unwrap_or_else(|_| unreachable!());
    let initialize = json!({ "jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {} });
    client.say(&initialize).await;
    client.stream.until("Not today").await;
    assert_eq!(house.connected().await, 0);
    *upstream.told.closed.lock() = false;
    let mut client = Old::connect(&house).await;
    for (id, trouble) in ["end", "break", "break at once", "401", "500"].into_iter().enumerate() {
        let answer = client.call(json!(id + 10), trouble).await;
        assert!(
            answer["error"]["data"]["reason"].is_string() || answer["result"].is_object(),
            "{trouble}: {answer}"
        );
    }
    upstream.forget();
    assert_eq!(
        client.call(json!(99), "echo").await["result"]["content"][0]["text"],
        "done",
        "healed like any other"
    );
}

#[tokio::test]
async fn a_client_that_closes_its_stream_and_does_not_come_back_has_said_goodbye() {
    let (house, upstream) = House::with_fake(&[]).await;
    let client = Old::connect(&house).await;
    drop(client);
    let ended = async || house.sessions().await[0]["derivedStatus"] == "disconnected";
    house.server.until_within(90, "it is over after a minute", ended).await;
    assert_eq!(house.sessions().await[0]["disconnectReason"], "client");
    upstream.until(|sent| sent.method == Method::DELETE).await;
}

#[tokio::test]
async fn an_answer_that_comes_after_the_client_came_back_finds_it_there() {
    let (house, upstream) = House::with_fake(&[]).await;
    let mut client = Old::connect(&house).await;
    client.say(&call(json!(5), "story")).await;
    client.stream.until("notifications/progress").await;
    let Old { token, stream, .. } = client;
    drop(stream);
    let mut back = Old::open(&house, &token, None).await.unwrap_or_else(|_| unreachable!());
    house
        .server
        .until("the loss is noticed", async || {
            back.post(&call(json!(6), "echo")).await.status() == StatusCode::ACCEPTED
        })
        .await;
    upstream.told.release.notify_one();
    back.stream.until("\"id\":5").await;
    assert_eq!(house.connected().await, 1);
}

#[tokio::test]
async fn a_stream_opened_before_a_revoke_gets_nothing_of_what_comes_after() {
    let (house, _upstream) = House::with_fake(&[]).await;
    let barred = house.token().await;
    let mut early = Old::open(&house, &barred, None).await.unwrap_or_else(|_| unreachable!());
    house.revoke_all().await;
    let lost = Old::connect(&house).await;
    drop(lost);
    // Whoever has a good token may not speak for the connection either: it ended with the one that it was opened with.
    let fresh = Old { token: house.token().await, ..early };
    house
        .server
        .until("it is turned away", async || {
            fresh.post(&call(json!(1), "echo")).await.status() == StatusCode::NOT_FOUND
        })
        .await;
    early = fresh;
    assert!(early.stream.end().await);
    assert!(!early.stream.text.contains("hello"), "{}", early.stream.text);
}

#[tokio::test]
async fn two_that_initialize_on_one_stream_are_one_session() {
    let (house, _upstream) = House::with_fake(&[]).await;
    let mut client = Old::open(&house, &house.token().await, None).await.unwrap_or_else(|_| unreachable!());
    let params = json!({ "protocolVersion": "2024-11-05", "capabilities": {}, "clientInfo": { "name": "b", "version": "1" } });
    let one = json!({ "jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params });
    let (first, second) = tokio::join!(client.post(&one), client.post(&one));
    let mut statuses = [first.status(), second.status()];
    statuses.sort_unstable();
    assert_eq!(statuses, [StatusCode::ACCEPTED, StatusCode::BAD_REQUEST]);
    client.stream.until("serverInfo").await;
    assert_eq!(house.sessions().await.len(), 1);
}

#[tokio::test]
async fn a_notification_is_not_overtaken_and_too_many_calls_at_once_are_turned_away() {
    let (house, upstream) = House::with_fake(&[]).await;
    let client = Old::connect(&house).await;
    let saying = {
        let request = client.http.post(&client.endpoint).bearer_auth(&client.token);
        let request = request.json(&json!({ "jsonrpc": "2.0", "method": "notifications/stuck" }));
        tokio::spawn(async move { request.send().await.unwrap().status() })
    };
    upstream.until(|sent| sent.rpc() == "notifications/stuck").await;
    assert!(!saying.is_finished(), "it is accepted once the upstream has it");
    upstream.told.release.notify_one();
    assert_eq!(saying.await.unwrap(), StatusCode::ACCEPTED);
    let mut statuses = std::collections::BTreeMap::new();
    for id in 0..300 {
        let answer = client.post(&call(json!(id), "silent")).await;
        *statuses.entry(answer.status().as_u16()).or_insert(0) += 1;
    }
    assert_eq!(statuses, [(202, 256), (503, 44)].into());
}

#[tokio::test]
async fn a_large_answer_that_came_meanwhile_is_there_for_who_comes_back() {
    let (house, upstream) = House::with_fake(&[]).await;
    let mut client = Old::connect(&house).await;
    client.stream.until("notifications/hello").await;
    let last = client.last_event_id();
    let Old { endpoint, token, http, stream, .. } = client;
    drop(stream);
    let asked = http.post(&endpoint).bearer_auth(&token).json(&call(json!(1), "large")).send().await.unwrap();
    assert_eq!(asked.status(), StatusCode::ACCEPTED);
    upstream.until(|sent| sent.body["params"]["name"] == "large").await;
    let mut back = Old::open(&house, &token, Some(&last)).await.unwrap_or_else(|_| unreachable!());
    assert_eq!(back.endpoint, endpoint);
    back.stream.until("\"id\":1").await;
}
