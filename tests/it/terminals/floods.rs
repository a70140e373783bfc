//! Much at once: output that nobody reads, pastes, sessions.

use std::time::Duration;

use serde_json::json;

use super::{House, SESSIONS, TerminalClient, opened, outside};
use crate::support::resident;
use crate::terminal::sshd::SHELL;

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_is_held_back_for_a_slow_reader_in_little_memory_and_ctrl_c_stops_it() {
    const FLOOD: usize = 100 << 20;
    let directory = tempfile::TempDir::new().unwrap();
    let (daemon, _sshd, own, machine) = outside(&directory).await;
    let opened = opened(own.post(SESSIONS, json!({ "machine_id": machine })).await);
    let mut client = TerminalClient::take_binary(&opened).await;
    client.until("$ ").await;
    let memory = || resident(daemon.child.id()).unwrap() >> 20;
    let before = memory();
    client
        .input("yes 'a line of a flood that has no end and that nobody can read as fast as it comes'\r")
        .await;
    let (mut read, mut most) = (0, 0);
    let mut stop_at = FLOOD / 4;
    while read < FLOOD {
        client.more().await;
        read += std::mem::take(&mut client.bytes).len();
        if read >= stop_at {
            stop_at += FLOOD / 4;
            tokio::time::sleep(Duration::from_millis(500)).await;
            most = most.max(memory());
        }
    }
    assert!(most < before + 64, "{before} MiB before the flood, {most} MiB in it");
    // Nobody has read for a while, and whoever types is heard all the same.
    tokio::time::sleep(Duration::from_secs(1)).await;
    client.forget();
    client.input("\u{3}").await;
    client.until("^C").await;
    assert!(client.bytes.len() < 4 << 20, "{} bytes came after ctrl-C", client.bytes.len());
    client.run("echo in pea''ce", "in peace\r\n").await;
    assert!(daemon.terminate().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_to_whoever_reads_nothing_is_stopped_by_ctrl_c_and_by_terminating() {
    let house = House::new().await;
    let (opened, mut client) = house.sit(&house.own).await;
    client.until("$ ").await;
    client.input("yes\r").await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    client.input("\u{3}").await;
    house
        .server
        .until("yes is gone", async || {
            let names = house
                .sshd
                .children()
                .into_iter()
                .map(|one| std::fs::read_to_string(format!("/proc/{one}/comm")));
            !names.filter_map(Result::ok).any(|name| name.trim() == "yes")
        })
        .await;
    let path = format!("{SESSIONS}/{}", opened.id);
    let asked = tokio::time::Instant::now();
    assert_eq!(house.own.delete(&path).await.0, 200);
    assert!(asked.elapsed() < Duration::from_secs(5), "who does not read holds nobody up");
    assert_eq!(house.disconnects(&opened.id).await, ["terminated"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn top_draws_its_screen_again_for_a_new_size_and_gives_the_shell_back() {
    let house = House::new().await;
    let (_, mut client) = house.sit(&house.own).await;
    client.until("$ ").await;
    client.input("top\r").await;
    client.until("load average").await;
    client.resize(100, 30).await;
    client.until("load average").await;
    client.input("q").await;
    client.until("$ ").await;
    client.input("stty size\r").await;
    client.until("30 100\r\n").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_lines_can_be_pasted_at_once() {
    let house = House::new().await;
    let (_, mut client) = house.sit(&house.own).await;
    client.until("$ ").await;
    let lines: String =
        (0..10_000).map(|number| format!("n=$((n+1)) # line {number:05} of them\r")).collect();
    client.input(&lines).await;
    client.input("echo to''tal $n\r").await;
    client.until_within(Duration::from_secs(120), "total ").await;
    client.until("10000\r\n").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_prints_before_it_reads_is_fed_all_of_a_paste() {
    let house = House::new().await;
    let (_, mut client) = house.sit(&house.own).await;
    client.until("$ ").await;
    client.run("stty raw -echo; echo rea''dy; dd bs=64k count=32 iflag=fullblock 2>/dev/null | tee /dev/stderr | wc -c; stty sane", "ready").await;
    let block = "x".repeat(1 << 16);
    for _ in 0..32 {
        client.input(&block).await;
    }
    client.until_within(Duration::from_secs(60), "2097152").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_sessions_at_once_each_have_their_own_shell() {
    const SESSIONS_AT_ONCE: usize = 200;
    let light = "exec env -i TERM=$TERM PATH=/usr/bin:/bin PS1='$ ' dash -i";
    let house = House::with(&["--terminal-grace", "5m"], light, "MaxSessions 500").await;
    assert_ne!(light, SHELL);
    let mut sessions = vec![];
    for _ in 0..SESSIONS_AT_ONCE / 20 {
        let batch = futures_util::future::join_all((0..20).map(|_| house.open(&house.own))).await;
        sessions.extend(batch);
    }
    assert_eq!(house.listed(&house.own, "?limit=100&page=2").await.len(), 100);
    let used = sessions.iter().enumerate().map(async |(number, opened)| {
        let mut client = TerminalClient::take(opened).await;
        client.run(&format!("echo num''ber {number}"), &format!("number {number}\r\n")).await;
        client
    });
    let mut seats = futures_util::future::join_all(used).await;
    let operator = house.server.operator().await;
    let body = json!({ "filter": { "organization": true } });
    let (_, body) = operator.post("/api/v1/revocations", body).await;
    assert_eq!(body["revocation"]["disconnectedCount"], SESSIONS_AT_ONCE, "{body}");
    for client in &mut seats {
        assert_eq!(client.farewell().await["reason"], "terminated");
    }
    house.server.until_within(30, "no shell is left", async || house.sshd.children().is_empty()).await;
}
