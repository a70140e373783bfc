//! What of the typing is kept: commands, and never a password.

use reqwest::Method;
use serde_json::json;

use super::websocket_client::find;
use super::{House, SESSIONS, machine, machine_body};
use crate::support::store;

const DASH: &str = "exec env -i TERM=$TERM PATH=/usr/bin:/bin PS1='$ ' dash -i";
/// No password stands anywhere else.
const SECRETS: [&str; 4] = ["hunter-two-typed", "sudo-like-typed", "wrong-then-typed", "pasted-secret-typed"];

#[tokio::test(flavor = "multi_thread")]
async fn passwords_typed_at_prompts_are_in_no_log_no_recording_and_no_file() {
    let mut house = House::new().await;
    let (opened, mut client) = house.sit(&house.ada).await;
    client.until("$ ").await;
    client.input("read -s answer; echo ta''ken ${#answer}\r").await;
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    client.run(SECRETS[0], "taken 16\r\n").await;
    // As sudo asks: echo off, a prompt, a second try.
    let ask = "ask() { stty -echo; printf '[sudo] pass''word for me: '; read p; stty echo; echo; }; ask; ask; echo as''ked";
    client.run(ask, "password for me: ").await;
    for secret in SECRETS[1].chars() {
        client.input(&secret.to_string()).await;
    }
    client.run("", "password for me: ").await;
    client.run(SECRETS[2], "asked\r\n").await;
    client.run("read -s answer; echo ag''ain ${#answer}", "\r\n").await;
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    client.input(&format!("\u{1b}[200~{}\u{1b}[201~\r", SECRETS[3])).await;
    client.until("again ").await;
    client.run("echo vis''ible", "visible\r\n").await;
    client.input("exit\r").await;
    client.farewell().await;
    house.ended(&opened.id).await;
    assert!(house.commands(&opened.id).await.contains(&"echo vis''ible".to_owned()));
    for tail in ["logs?limit=10000", "logs?format=text", "recording"] {
        let path = format!("{SESSIONS}/{}/{tail}", opened.id);
        let text = house.own.send(Method::GET, &path, None).await.text().await.unwrap();
        assert!(text.contains("vis''ible"), "{tail}");
        for secret in SECRETS {
            assert!(!text.contains(secret), "{secret} is in {tail}");
        }
    }
    house.server.stop().await;
    // Blocks are compressed, so that a look at the file alone would prove little; the log above is all that is in them.
    for (place, bytes) in store::stored(house.server.directory.path()).await {
        for secret in SECRETS.iter().chain(&[house.sshd.pem("user").lines().nth(1).unwrap()]) {
            assert!(find(&bytes, secret.as_bytes()).is_none(), "{secret} is in {place}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machines_password_is_sealed_and_in_no_file() {
    let mut house = House::new().await;
    let mut body = machine_body(&house.sshd);
    body["credential"] = json!({ "type": "password", "password": SECRETS[0] });
    machine(&house.own, &body).await;
    house.server.stop().await;
    for (place, bytes) in store::stored(house.server.directory.path()).await {
        assert!(find(&bytes, SECRETS[0].as_bytes()).is_none(), "{place}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_of_bash_and_dash_are_those_that_were_entered() {
    for (shell, name) in [(crate::terminal::sshd::SHELL, "bash"), (DASH, "dash")] {
        let house = House::with(&[], shell, "").await;
        let (opened, mut client) = house.sit(&house.own).await;
        client.until("$ ").await;
        client.run("echo fi''rst", "first\r\n").await;
        client.until("$ ").await;
        // A typing error, taken back by whoever typed it.
        client.run("echo typpp\u{7f}\u{7f}e''d", "typed\r\n").await;
        client.until("$ ").await;
        client.run("for word in a b; do echo $word-lo''op; done", "b-loop\r\n").await;
        client.until("$ ").await;
        client.run("cat <<end\rnot a command by itself\rend", "by itself\r\n").await;
        client.until("$ ").await;
        client.run("echo größe-ma''tters", "matters\r\n").await;
        client.until("$ ").await;
        client.input("exit\r").await;
        client.farewell().await;
        house.ended(&opened.id).await;
        let commands = house.commands(&opened.id).await;
        for wanted in ["echo fi''rst", "echo type''d", "for word in a b; do echo $word-lo''op; done", "exit"]
        {
            assert_eq!(
                commands.iter().filter(|one| *one == wanted).count(),
                1,
                "{name}: {wanted}: {commands:?}"
            );
        }
        assert!(commands.iter().any(|one| one.starts_with("cat <<end")), "{name}: {commands:?}");
        assert!(commands.iter().any(|one| one == "echo größe-ma''tters"), "{name}: {commands:?}");
        assert_eq!(house.detail(&opened.id).await["commands_count"], commands.len(), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn in_bash_what_history_and_completion_made_of_the_keys_is_the_command() {
    let house = House::new().await;
    let (opened, mut client) = house.sit(&house.own).await;
    client.until("$ ").await;
    client.run("echo on''ce", "once\r\n").await;
    client.until("$ ").await;
    client.run("\u{1b}[A", "once\r\n").await;
    client.until("$ ").await;
    client.input("echo /usr/sbi\t").await;
    client.until("/usr/sbin/").await;
    client.run("x''y", "/usr/sbin/xy\r\n").await;
    client.input("exit\r").await;
    client.farewell().await;
    house.ended(&opened.id).await;
    let commands = house.commands(&opened.id).await;
    assert_eq!(commands, ["echo on''ce", "echo on''ce", "echo /usr/sbin/x''y", "exit"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_are_found_again_by_a_part_of_them_newest_sessions_first() {
    let house = House::new().await;
    let mut ids = vec![];
    for (holder, word) in [(&house.ada, "al''pha"), (&house.own, "be''ta"), (&house.ada, "gam''ma")] {
        let (opened, mut client) = house.sit(holder).await;
        client.until("$ ").await;
        client.run(&format!("echo needle {word}"), &format!("needle {}\r\n", word.replace('\'', ""))).await;
        client.input("exit\r").await;
        client.farewell().await;
        house.ended(&opened.id).await;
        ids.insert(0, opened.id);
        house.server.turn(60);
    }
    let path = format!("{SESSIONS}/commands");
    let found = async |holder: &crate::support::Holder, query: &str| {
        let (status, body) = holder.get(&format!("{path}?{query}")).await;
        assert_eq!(status, 200, "{body}");
        let commands = body["data"]["commands"].as_array().unwrap().clone();
        commands.into_iter().map(|one| one["session_id"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(found(&house.own, "q=needle").await, ids);
    assert_eq!(found(&house.own, "q=be%27%27ta").await, [ids[1].as_str()]);
    assert_eq!(found(&house.own, "q=haystack").await, [""; 0]);
    assert_eq!(found(&house.ada, "q=needle").await, [ids[0].as_str(), ids[2].as_str()], "a person's own");
    let started = house.detail(&ids[1]).await["started_at"].as_str().unwrap().to_owned();
    assert_eq!(found(&house.own, &format!("q=needle&from={started}&to=2100-01-01")).await, ids[..2]);
    assert_eq!(found(&house.own, &format!("q=needle&machine_id={}", house.machine)).await.len(), 3);
    assert_eq!(found(&house.own, "q=needle&machine_id=mch_1").await, [""; 0]);
    let (_, body) = house.own.get(&format!("{path}?q=be%27%27ta")).await;
    let one = &body["data"]["commands"][0];
    assert_eq!(
        *one,
        json!({
            "session_id": ids[1], "user": one["user"], "timestamp": one["timestamp"], "command": "echo needle be''ta",
            "machine": { "id": house.machine, "name": "Production Server" },
        })
    );
    for query in ["", "q=", "q=%20"] {
        let refused = house.own.get(&format!("{path}?{query}")).await;
        assert_eq!(super::refusal("VALIDATION_ERROR", refused).0, 400, "{query}");
    }
}
