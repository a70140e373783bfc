//! The way most people go: from a new machine to a recording of what was done on it.

use serde_json::{Value, json};

use super::{House, MACHINES, SESSIONS, TerminalClient, machine, machine_body};

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_is_tried_its_key_pinned_and_a_shell_on_it_opened_used_left_and_looked_at_afterwards() {
    let house = House::new().await;
    let path = format!("{MACHINES}/{}", machine(&house.own, &machine_body(&house.sshd)).await);
    let (_, looked) = house.own.post(&format!("{path}/test"), json!({})).await;
    assert_eq!(looked["data"]["pinned"], false, "{looked}");
    assert_eq!(looked["data"]["host_key_fingerprint"], house.sshd.fingerprint("host_ed25519"));
    assert_eq!(looked["data"]["logged_in_ms"], Value::Null, "nobody logs in where no key is known");
    let (_, pinned) = house.own.post(&format!("{path}/test"), json!({ "pin_host_key": true })).await;
    assert_eq!(pinned["data"]["machine"]["host_key"], looked["data"]["host_key"]);
    assert!(pinned["data"]["logged_in_ms"].is_u64(), "{pinned}");

    let size = json!({ "cols": 100, "rows": 30 });
    let opened =
        house.open_with(&house.ada, json!({ "machine_id": house.machine, "terminal_size": size })).await;
    let mut client = TerminalClient::take(&opened).await;
    assert_eq!((&client.ready["cols"], &client.ready["rows"]), (&json!(100), &json!(30)));
    client.until("$ ").await;
    client.run("echo hel''lo", "hello\r\n").await;
    client.run("stty size", "30 100\r\n").await;
    client.resize(132, 43).await;
    client.run("stty size", "43 132\r\n").await;
    assert_eq!(house.listed(&house.ada, "").await, [opened.id.as_str()]);
    client.input("exit 3\r").await;
    let farewell = client.farewell().await;
    assert_eq!(
        farewell,
        json!({
            "type": "disconnect", "reason": "closed", "message": "the shell ended with status 3",
        })
    );

    let detail = house.ended(&opened.id).await;
    assert_eq!(
        (&detail["ended_reason"], &detail["user"]["name"]),
        (&json!("exited"), &json!("Ada Lovelace"))
    );
    assert_eq!(detail["ended_message"], "the shell ended with status 3");
    assert_eq!(house.disconnects(&opened.id).await, ["exited"]);
    let commands = ["echo hel''lo", "stty size", "stty size", "exit 3"];
    assert_eq!(house.commands(&opened.id).await, commands);
    assert_eq!(detail["commands_count"], 4);
    assert_eq!(house.printed(&opened.id).await, client.text());
    let path = format!("{SESSIONS}/{}/logs?format=text", opened.id);
    let text = house.ada.send(reqwest::Method::GET, &path, None).await.text().await.unwrap();
    assert!(text.contains("Z] $ stty size\n"), "{text}");
    let cast =
        house.ada.send(reqwest::Method::GET, &format!("{SESSIONS}/{}/recording", opened.id), None).await;
    assert_eq!(cast.headers()["content-type"], "application/x-asciicast");
    let cast = cast.text().await.unwrap();
    let mut lines = cast.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let header = lines.next().unwrap();
    assert_eq!((&header["version"], &header["term"]["cols"]), (&json!(3), &json!(100)), "{header}");
    let events: Vec<Value> = lines.collect();
    let of = |code: &str| -> Vec<&str> {
        events.iter().filter(|one| one[1] == code).map(|one| one[2].as_str().unwrap()).collect()
    };
    assert_eq!(of("o").concat(), client.text());
    assert_eq!(of("m"), commands);
    assert_eq!(of("r"), ["132x43"]);
    assert_eq!(of("x"), ["3"]);
    assert!(of("i").concat().contains("stty size"));
    let older = format!("{SESSIONS}/{}/recording?version=2", opened.id);
    let older = house.ada.send(reqwest::Method::GET, &older, None).await;
    assert_eq!(older.headers()["content-type"], "application/x-asciicast");
    let older = older.text().await.unwrap();
    let mut lines = older.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let header = lines.next().unwrap();
    assert_eq!((&header["version"], &header["width"]), (&json!(2), &json!(100)), "{header}");
    let older: Vec<Value> = lines.collect();
    // Since the beginning, and not since the event before; and nothing of the exit.
    let mut since = 0.0;
    let without_exit = events.iter().filter(|one| one[1] != "x");
    for (three, two) in without_exit.zip(&older) {
        since += three[0].as_f64().unwrap();
        assert_eq!((&three[1], &three[2]), (&two[1], &two[2]));
        assert!((two[0].as_f64().unwrap() - since).abs() < 0.001, "{two} is not at {since}");
    }
    assert_eq!(older.len() + 1, events.len());
}
