//! What is left of terminals that have ended: nothing, however they ended, and the end is on record before it is told.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{House, Opened, SESSIONS, TerminalClient, opened, outside};
use crate::support::{Holder, resident};

/// Every way in which a terminal can end while somebody is there.
const WAYS: [&str; 7] = ["exit", "signal", "terminated", "revoked", "idle", "lost", "left"];

async fn settled(house: &House) -> (Opened, TerminalClient) {
    let (opened, mut client) = house.sit(&house.own).await;
    client.until("$ ").await;
    (opened, client)
}

/// Ends a terminal in some way, and reads its farewell where there is somebody to hear it.
async fn end(house: &House, way: &str) -> (Opened, Option<Value>) {
    let (opened, mut client) = settled(house).await;
    match way {
        "exit" => client.input("exit\r").await,
        "signal" => client.input("kill -KILL $$\r").await,
        "terminated" => {
            assert_eq!(house.own.delete(&format!("{SESSIONS}/{}", opened.id)).await.0, 200);
        }
        "revoked" => {
            let filter = json!({ "filter": { "organization": true } });
            assert_eq!(house.server.operator().await.post("/api/v1/revocations", filter).await.0, 201);
        }
        "lost" => house.sshd.signal_children("-KILL"),
        "left" => {
            drop(client);
            house.ended(&opened.id).await;
            return (opened, None);
        }
        _ => {}
    }
    let farewell = client.farewell().await;
    assert!(client.closed.is_some(), "{way}: the connection was not closed in words");
    (opened, Some(farewell))
}

#[tokio::test(flavor = "multi_thread")]
async fn however_a_terminal_ends_its_tasks_end_and_the_farewell_comes_after_the_record() {
    let house = House::flagged(&["--terminal-idle", "3s", "--terminal-grace", "1s"]).await;
    for way in WAYS {
        // What any terminal needs is needed once.
        end(&house, way).await;
    }
    house.server.until("no shell is left", async || house.sshd.children().is_empty()).await;
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    tokio::time::sleep(Duration::from_millis(500)).await;
    let before = tasks();
    for way in WAYS {
        for _ in 0..3 {
            let (opened, farewell) = end(&house, way).await;
            if farewell.is_some() {
                let detail = house.detail(&opened.id).await;
                assert_eq!(detail["status"], "ended", "{way}: told before it was on record");
            }
            assert_eq!(house.disconnects(&opened.id).await.len(), 1, "{way}");
        }
    }
    // Connections of our own client come and go.
    house.server.until("the tasks have ended", async || tasks() <= before + 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_has_all_commands_and_makes_room_for_the_next_terminal_at_once() {
    let house = House::new().await;
    for _ in 0..3 {
        let (opened, mut client) = settled(&house).await;
        for number in 1..=5 {
            client.run(&format!("echo nu''mber {number}"), &format!("number {number}\r\n")).await;
        }
        client.input("exit\r").await;
        let began = Instant::now();
        client.farewell().await;
        let detail = house.detail(&opened.id).await;
        assert_eq!((&detail["status"], &detail["commands_count"]), (&json!("ended"), &json!(6)), "{detail}");
        assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    }
}

async fn exit_many(own: &Holder, machine: &str, count: usize) {
    for _ in 0..count {
        let opened = opened(own.post(SESSIONS, json!({ "machine_id": machine })).await);
        let mut client = TerminalClient::take(&opened).await;
        client.until("$ ").await;
        client.input("exit\r").await;
        client.farewell().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_terminals_leave_no_descriptor_and_no_memory() {
    let directory = tempfile::TempDir::new().unwrap();
    let (daemon, _sshd, own, machine) = outside(&directory).await;
    let process = daemon.child.id();
    let descriptors = || std::fs::read_dir(format!("/proc/{process}/fd")).unwrap().count();
    exit_many(&own, &machine, 40).await;
    let (open, memory) = (descriptors(), resident(process).unwrap());
    exit_many(&own, &machine, 200).await;
    let give_up = Instant::now() + Duration::from_secs(20);
    while descriptors() > open + 4 {
        assert!(Instant::now() < give_up, "{open} descriptors before, {} after", descriptors());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // Each used to leave 140 KiB and more: 27 MiB.
    let grown = resident(process).unwrap().saturating_sub(memory) >> 20;
    assert!(grown < 10, "{grown} MiB more after 200 terminals");
    assert!(daemon.terminate().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_does_not_wait_for_terminals_that_are_open() {
    let directory = tempfile::TempDir::new().unwrap();
    let (daemon, _sshd, own, machine) = outside(&directory).await;
    let opened = opened(own.post(SESSIONS, json!({ "machine_id": machine })).await);
    let mut client = TerminalClient::take(&opened).await;
    client.until("$ ").await;
    let stopping = tokio::task::spawn_blocking(move || {
        let began = Instant::now();
        (daemon.terminate().success(), began.elapsed())
    });
    assert_eq!(client.farewell().await["reason"], "closed");
    drop(client);
    let (success, took) = stopping.await.unwrap();
    assert!(success && took < Duration::from_secs(4), "{took:?}");
}
