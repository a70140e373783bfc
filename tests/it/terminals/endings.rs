//! How terminals end: each end is one event with its reason, and is told to whoever is there.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use super::websocket_client::find;
use super::{House, SESSIONS, TerminalClient};
use crate::support::Holder;

/// A client at a new terminal whose shell has said that it is there.
async fn settled(house: &House, holder: &Holder) -> (super::Opened, TerminalClient) {
    let (opened, mut client) = house.sit(holder).await;
    client.until("$ ").await;
    (opened, client)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shell_that_exits_ends_its_session_with_its_status_after_its_last_output() {
    let house = House::new().await;
    let (opened, mut client) = settled(&house, &house.own).await;
    client.input("seq 1 20000; echo las''t; exit 42\r").await;
    let farewell = client.farewell().await;
    assert_eq!(farewell["message"], "the shell ended with status 42");
    assert!(
        client.text().contains("19999\r\n20000\r\nlast\r\n"),
        "its last output comes before the farewell"
    );
    let detail = house.ended(&opened.id).await;
    assert_eq!((&detail["ended_reason"], &detail["ended_message"]), (&json!("exited"), &farewell["message"]));
    let (opened, mut client) = settled(&house, &house.own).await;
    client.input("kill -KILL $$\r").await;
    assert_eq!(client.farewell().await["reason"], "closed");
    assert_eq!(house.ended(&opened.id).await["ended_reason"], "exited");
    assert_eq!(house.disconnects(&opened.id).await, ["exited"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_of_the_organization_counts_terminals_and_agents_together_and_nothing_is_shown_after_it()
{
    let house = House::new().await;
    let operator = house.server.operator().await;
    operator.connect(json!({ "name": "agent" })).await;
    let (first, mut noisy) = settled(&house, &house.own).await;
    let (second, mut quiet) = settled(&house, &house.ada).await;
    noisy.input("while :; do date +%s.%N; done\r").await;
    noisy.until(".").await;
    let watching = tokio::spawn(async move {
        let rest = noisy.rest().await;
        (rest, noisy.bytes.len(), tokio::time::Instant::now())
    });
    tokio::time::sleep(Duration::from_millis(200)).await;
    let (status, body) =
        operator.post("/api/v1/revocations", json!({ "filter": { "organization": true } })).await;
    assert_eq!(status, 201, "{body}");
    assert_eq!(body["revocation"]["disconnectedCount"], 3, "{body}");
    let answered = tokio::time::Instant::now();
    let (rest, _, over) = watching.await.unwrap();
    assert_eq!(rest.len(), 1, "{rest:?}");
    assert_eq!((&rest[0]["type"], &rest[0]["reason"]), (&json!("disconnect"), &json!("terminated")));
    assert!(over < answered + Duration::from_secs(1), "the rest of the connection is its farewell");
    assert_eq!(quiet.farewell().await["reason"], "terminated");
    for opened in [&first, &second] {
        assert_eq!(house.disconnects(&opened.id).await, ["revoked"]);
        assert_eq!(house.detail(&opened.id).await["ended_reason"], "revoked");
    }
    let again = house.open(&house.own).await;
    assert_eq!(house.detail(&again.id).await["status"], "active", "a key is no token: it is not barred");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_shown_after_a_termination_was_answered() {
    let house = House::new().await;
    let (opened, mut client) = settled(&house, &house.own).await;
    let script = "i=0; while :; do i=$((i+1)); echo line $i; done\r";
    client.input(script).await;
    client.until("line 500\r\n").await;
    let path = format!("{SESSIONS}/{}", opened.id);
    let ending = house.own.delete(&path);
    let (answer, frames) = tokio::join!(ending, client.rest());
    assert_eq!(answer.0, 200);
    assert_eq!(frames.len(), 1, "{frames:?}");
    let shown = client.text();
    house.server.until("no shell is left", async || house.sshd.children().is_empty()).await;
    // What was shown is what was recorded: the recording is told first, and filed soon.
    let recorded = async || house.printed(&opened.id).await.starts_with(&shown);
    house.server.until("it is on record", recorded).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_ends_at_its_lifetime_whatever_happens_in_it() {
    let house = House::flagged(&["--terminal-lifetime", "10m"]).await;
    let (opened, mut client) = settled(&house, &house.own).await;
    house.server.turn(590);
    client.run("echo st''ill", "still").await;
    house.server.turn(11);
    client.input("echo on\r").await;
    let farewell = client.farewell().await;
    assert_eq!(farewell["reason"], "expired", "{farewell}");
    let detail = house.ended(&opened.id).await;
    assert_eq!(detail["ended_reason"], "lifetime");
    assert_eq!(detail["ended_at"], opened.body["data"]["expires_at"], "at its instant");
    assert_eq!(house.disconnects(&opened.id).await, ["lifetime"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_in_which_nothing_is_typed_ends_even_if_its_shell_prints() {
    let house = House::flagged(&["--terminal-idle", "2s"]).await;
    let (opened, mut client) = settled(&house, &house.own).await;
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_millis(1_000)).await;
        client.run("echo ti''ck", "tick").await;
    }
    let since = tokio::time::Instant::now();
    client.input("while :; do echo x; sleep 0.2; done\r").await;
    let farewell = client.farewell().await;
    assert_eq!((&farewell["reason"], &farewell["type"]), (&json!("idle"), &json!("disconnect")));
    assert!(since.elapsed() >= Duration::from_secs(2), "not before");
    assert_eq!(house.ended(&opened.id).await["ended_reason"], "idle");
    assert_eq!(house.disconnects(&opened.id).await, ["idle"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_is_lost_ends_the_session() {
    let house = House::new().await;
    let (opened, mut client) = settled(&house, &house.own).await;
    house.sshd.signal_children("-KILL");
    let farewell = client.farewell().await;
    assert_eq!(farewell["reason"], "closed", "{farewell}");
    let detail = house.ended(&opened.id).await;
    assert_eq!(detail["ended_reason"], "machine_lost", "{detail}");
    assert_eq!(house.disconnects(&opened.id).await, ["machine_lost"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_nobody_comes_to_or_comes_back_to_ends_after_the_grace_period() {
    let house = House::flagged(&["--terminal-grace", "2s"]).await;
    let never = house.open(&house.own).await;
    let (left, client) = settled(&house, &house.own).await;
    drop(client);
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    let mut back = TerminalClient::take(&left).await;
    back.run("echo ba''ck", "back").await;
    assert_eq!(house.ended(&never.id).await["ended_reason"], "client");
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    assert_eq!(house.detail(&left.id).await["status"], "active", "somebody is there");
    drop(back);
    assert_eq!(house.ended(&left.id).await["ended_reason"], "client");
    for opened in [&never, &left] {
        assert_eq!(house.disconnects(&opened.id).await, ["client"]);
    }
    house.server.until("no shell is left", async || house.sshd.children().is_empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_revoked_opens_nothing_more() {
    let house = House::new().await;
    let operator = house.server.operator().await;
    let (_, keys) = operator.get("/api/v1/api-keys").await;
    let adas = keys["items"].as_array().unwrap().iter().find(|one| one["name"] == "ada's").unwrap();
    let path = format!("/api/v1/api-keys/{}", adas["id"].as_str().unwrap());
    assert!(operator.delete(&path).await.0.is_success());
    let (status, _) = house.ada.post(SESSIONS, json!({ "machine_id": house.machine })).await;
    assert_eq!(status, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn stopping_ends_terminals_with_a_farewell_and_the_reason_on_record() {
    let mut house = House::new().await;
    let (opened, mut client) = settled(&house, &house.own).await;
    client.run("echo re''corded", "recorded").await;
    let (farewell, ()) = tokio::join!(client.farewell(), house.server.stop());
    assert_eq!(farewell["reason"], "closed", "{farewell}");
    house.server = house.server.restart().await;
    house.own.base = house.server.url("");
    let detail = house.detail(&opened.id).await;
    assert_eq!((&detail["status"], &detail["ended_reason"]), (&json!("ended"), &json!("failed")), "{detail}");
    assert_eq!(house.disconnects(&opened.id).await, ["failed"]);
    assert!(house.printed(&opened.id).await.contains("recorded\r\n"));
    assert_eq!(house.commands(&opened.id).await, ["echo re''corded"]);
    house.server.until("no shell is left", async || house.sshd.children().is_empty()).await;
}

mod killed {
    use super::*;
    use crate::support::Daemon;
    use crate::terminal::sshd::Sshd;
    use crate::terminals::{MACHINES, machine, machine_body, opened};

    async fn holder(daemon: &Daemon) -> Holder {
        let operator = daemon.operator().await;
        let body = json!({ "name": "own", "scopes": ["terminal"] });
        let (status, made) = operator.post("/api/v1/api-keys", body).await;
        assert_eq!(status, 201, "{made}");
        Holder { token: Some(made["key"].as_str().unwrap().to_owned()), ..operator }
    }

    /// Uses a terminal, ends the process in some way, and looks at what the next one says of it.
    async fn looked_at_after(end: impl FnOnce(Daemon)) -> (Value, String) {
        let directory = tempfile::TempDir::new().unwrap();
        let sshd = Sshd::start();
        let daemon = Daemon::start(directory.path(), &[]);
        let own = holder(&daemon).await;
        let machine = machine(&own, &machine_body(&sshd)).await;
        own.post(&format!("{MACHINES}/{machine}/test"), json!({ "pin_host_key": true })).await;
        let opened = opened(own.post(SESSIONS, json!({ "machine_id": machine })).await);
        let mut client = TerminalClient::take(&opened).await;
        client.until("$ ").await;
        client.run("echo ke''pt", "kept").await;
        // A batch is filed four times a second.
        tokio::time::sleep(Duration::from_millis(1_000)).await;
        end(daemon);
        let daemon = Daemon::start(directory.path(), &[]);
        let own = holder(&daemon).await;
        let (status, detail) = own.get(&format!("{SESSIONS}/{}", opened.id)).await;
        assert_eq!(status, 200, "{detail}");
        let path = format!("{SESSIONS}/{}/logs?format=text", opened.id);
        let text = own.send(Method::GET, &path, None).await.text().await.unwrap();
        assert!(daemon.terminate().success());
        let verified = crate::support::daemon::sessiond(&[
            "verify",
            "--database",
            &crate::support::store::url(directory.path()),
        ]);
        assert!(verified.status.success(), "{verified:?}");
        let give_up = std::time::Instant::now() + Duration::from_secs(10);
        while !sshd.children().is_empty() {
            assert!(std::time::Instant::now() < give_up, "a shell is left");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        (detail["data"].clone(), text)
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn after_a_kill_terminals_are_on_record_as_failed_and_what_they_recorded_is_there() {
        let (detail, text) = looked_at_after(Daemon::kill).await;
        assert_eq!((&detail["status"], &detail["ended_reason"]), (&json!("ended"), &json!("failed")));
        assert!(text.contains("] $ echo ke''pt\n") && find(text.as_bytes(), b"kept\n").is_some(), "{text}");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn after_a_termination_of_the_process_it_is_the_same() {
        let (detail, text) = looked_at_after(|daemon| assert!(daemon.terminate().success())).await;
        assert_eq!((&detail["status"], &detail["ended_reason"]), (&json!("ended"), &json!("failed")));
        assert!(text.contains("] $ echo ke''pt\n"), "{text}");
    }
}
