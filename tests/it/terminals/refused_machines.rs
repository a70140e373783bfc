//! Machines that are not opened, and why.

use serde_json::{Value, json};

use super::{House, MACHINES, SESSIONS, machine, machine_body, refusal};
use crate::terminal::sshd::{SHELL, Sshd, user};

/// Why no terminal is opened on a machine, and why it cannot be tried.
async fn both(house: &House, machine: &str, code: &str) -> [(u16, String); 2] {
    let opened = house.own.post(SESSIONS, json!({ "machine_id": machine })).await;
    let tried = house.own.post(&format!("{MACHINES}/{machine}/test"), json!({})).await;
    [refusal(code, opened), refusal(code, tried)]
}

#[tokio::test(flavor = "multi_thread")]
async fn another_host_key_than_the_pinned_one_is_refused_with_both_named() {
    let house = House::new().await;
    let other = house.sshd.public("other_host");
    let path = format!("{MACHINES}/{}", house.machine);
    assert_eq!(house.own.patch(&path, json!({ "host_key": other })).await.0, 200);
    for (status, message) in both(&house, &house.machine, "HOST_KEY_CHANGED").await {
        assert_eq!(status, 502);
        for named in [house.sshd.fingerprint("other_host"), house.sshd.fingerprint("host_ed25519")] {
            assert!(message.contains(&named), "{message}");
        }
    }
    let pinning = house.own.post(&format!("{path}/test"), json!({ "pin_host_key": true })).await;
    assert_eq!(refusal("HOST_KEY_CHANGED", pinning).0, 502, "a changed key is not pinned in passing");
    let fingerprint = json!({ "host_key": house.sshd.fingerprint("host_ed25519") });
    assert_eq!(house.own.patch(&path, fingerprint).await.0, 200);
    house.open(&house.own).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_pinned_key_nothing_is_opened() {
    let house = House::new().await;
    let unpinned = machine(&house.own, &machine_body(&house.sshd)).await;
    let opened = house.own.post(SESSIONS, json!({ "machine_id": unpinned })).await;
    let (status, message) = refusal("HOST_KEY_NOT_PINNED", opened);
    assert!(status == 409 && message.contains("test it"), "{message}");
    assert_eq!(house.listed(&house.own, "").await, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_machine_does_not_accept_is_said_without_the_secret() {
    let house = House::new().await;
    let locked = house.sshd.pem("locked");
    for (credential, code) in [
        (json!({ "type": "private_key", "private_key": house.sshd.pem("stranger") }), "CREDENTIAL_REFUSED"),
        (json!({ "type": "password", "password": "a wrong password" }), "CREDENTIAL_REFUSED"),
    ] {
        let path = format!("{MACHINES}/{}", house.machine);
        assert_eq!(house.own.patch(&path, json!({ "credential": credential })).await.0, 200);
        for (status, message) in both(&house, &house.machine, code).await {
            assert_eq!(status, 502, "{message}");
            for secret in ["a wrong", "PRIVATE", "no key at all"] {
                assert!(!message.contains(secret), "{message}");
            }
        }
    }
    // A key that nobody could use is not taken at all.
    for (key, passphrase, why) in [
        (locked.as_str(), Value::Null, "needs its passphrase"),
        (&locked, json!("a wrong phrase"), "cannot be read with this passphrase"),
        ("no key at all", Value::Null, "no private key in a format of OpenSSH's"),
        (&house.sshd.public("user"), Value::Null, "this is a public key"),
        (&house.sshd.pem("rsa"), Value::Null, "ssh-keygen -t ed25519"),
    ] {
        let credential = json!({ "type": "private_key", "private_key": key, "passphrase": passphrase });
        let made = json!({
            "name": "another", "host": "127.0.0.1", "port": 22, "user": user(), "credential": credential,
        });
        let path = format!("{MACHINES}/{}", house.machine);
        for answer in [
            house.own.post(MACHINES, made).await,
            house.own.patch(&path, json!({ "credential": credential })).await,
        ] {
            let (status, message) = refusal("VALIDATION_ERROR", answer);
            assert!(status == 400 && message.contains(why), "{message}");
            assert!(!message.contains("a wrong") && !message.contains("PRIVATE KEY"), "{message}");
        }
    }
    let opens = json!({ "type": "private_key", "private_key": locked, "passphrase": "open sesame" });
    let path = format!("{MACHINES}/{}", house.machine);
    assert_eq!(house.own.patch(&path, json!({ "credential": opens })).await.0, 200);
    house.open(&house.own).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hosts_that_are_not_allowed_or_not_there_are_refused() {
    let house = House::new().await;
    let with = |changes: Value| {
        let mut body = machine_body(&house.sshd);
        body.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        body["host_key"] = json!(house.sshd.public("host_ed25519"));
        body
    };
    for host in ["10.1.2.3", "169.254.169.254", "192.168.1.100", "::ffff:10.1.2.3", "0.0.0.0", "8.8.8.8"] {
        let (status, message) =
            refusal("VALIDATION_ERROR", house.own.post(MACHINES, with(json!({ "host": host }))).await);
        assert!(status == 400 && message.contains("--allow-machine"), "{host}: {message}");
        let path = format!("{MACHINES}/{}", house.machine);
        let changed = json!({ "host": host, "credential": with(json!({}))["credential"] });
        assert_eq!(refusal("VALIDATION_ERROR", house.own.patch(&path, changed).await).0, 400, "{host}");
    }
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let nothing = machine(&house.own, &with(json!({ "port": closed }))).await;
    for (status, message) in both(&house, &nothing, "MACHINE_UNREACHABLE").await {
        assert!(status == 502 && message.contains(&closed.to_string()), "{message}");
    }
    let unknown = machine(&house.own, &with(json!({ "host": "nowhere.invalid" }))).await;
    assert_eq!(both(&house, &unknown, "HOST_UNKNOWN").await[0].0, 502);
    let web = house.server.running.as_ref().unwrap().address.port();
    let no_ssh = machine(&house.own, &with(json!({ "port": web }))).await;
    assert_eq!(both(&house, &no_ssh, "SSH_HANDSHAKE_FAILED").await[0].0, 502);
}

#[tokio::test(flavor = "multi_thread")]
async fn machines_are_managed_by_the_organization_and_their_secrets_shown_nowhere() {
    let house = House::new().await;
    let path = format!("{MACHINES}/{}", house.machine);
    let (_, body) = house.ada.get(&path).await;
    let pinned = house.sshd.public("host_ed25519");
    let pinned: Vec<&str> = pinned.split_whitespace().take(2).collect();
    let data = &body["data"];
    assert_eq!(
        body,
        json!({ "success": true, "data": {
            "id": house.machine, "name": "Production Server", "host": "127.0.0.1", "port": house.sshd.port,
            "user": user(), "credential": "private_key", "host_key": pinned.join(" "),
            "host_key_fingerprint": house.sshd.fingerprint("host_ed25519"),
            "created_at": data["created_at"], "updated_at": data["updated_at"],
        }})
    );
    for refused in [
        house.ada.post(MACHINES, machine_body(&house.sshd)).await,
        house.ada.patch(&path, json!({ "name": "Mine" })).await,
        house.ada.post(&format!("{path}/test"), json!({})).await,
        house.ada.delete(&path).await,
    ] {
        assert_eq!(refusal("FORBIDDEN", refused).0, 403);
    }
    let (_, list) = house.ada.get(MACHINES).await;
    assert_eq!(list["data"]["pagination"], json!({ "page": 1, "limit": 20, "total": 1, "total_pages": 1 }));
    assert_eq!(list["data"]["machines"][0], *data);
    for (changes, field) in [
        (json!({ "name": "" }), "name"),
        (json!({ "host": "" }), "host"),
        (json!({ "host": "a b" }), "host"),
        (json!({ "port": 0 }), "port"),
        (json!({ "port": 70_000 }), "port"),
        (json!({ "user": "root\n" }), "user"),
        (json!({ "credential": { "type": "password", "password": "" } }), "credential"),
        (json!({ "credential": { "type": "certificate" } }), "credential"),
        (json!({ "host_key": "ssh-ed25519 nonsense" }), "host_key"),
        (json!({ "password": "x" }), "password"),
    ] {
        let mut body = machine_body(&house.sshd);
        body.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        let (status, message) = refusal("VALIDATION_ERROR", house.own.post(MACHINES, body).await);
        assert!(status == 400 && message.contains(field), "{changes}: {message}");
    }
    let elsewhere = json!({ "port": 2_222 });
    let (_, message) = refusal("VALIDATION_ERROR", house.own.patch(&path, elsewhere).await);
    assert!(message.contains("credential"), "{message}");
    let credential = machine_body(&house.sshd)["credential"].clone();
    let elsewhere = json!({ "port": 2_222, "credential": credential });
    let (_, moved) = house.own.patch(&path, elsewhere).await;
    assert_eq!((&moved["data"]["port"], &moved["data"]["host_key"]), (&json!(2_222), &Value::Null));
    let (status, gone) = house.own.delete(&path).await;
    assert_eq!(
        (status.as_u16(), gone),
        (200, json!({ "success": true, "message": "Machine deleted successfully" }))
    );
    for refused in [
        house.own.get(&path).await,
        house.own.delete(&path).await,
        house.own.patch(&path, json!({ "name": "x" })).await,
        house.own.post(&format!("{path}/test"), json!({})).await,
        house.own.post(SESSIONS, json!({ "machine_id": house.machine })).await,
    ] {
        let (status, message) = refusal("NOT_FOUND", refused);
        assert_eq!((status, message.as_str()), (404, "Machine not found"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_machine_keeps_its_name_in_the_sessions_that_were_on_it_and_those_go_on() {
    let house = House::new().await;
    let (opened, mut client) = house.sit(&house.own).await;
    client.until("$ ").await;
    assert_eq!(house.own.delete(&format!("{MACHINES}/{}", house.machine)).await.0, 200);
    client.run("echo st''ill", "still\r\n").await;
    assert_eq!(house.detail(&opened.id).await["machine"]["name"], "Production Server");
}

#[tokio::test(flavor = "multi_thread")]
async fn there_are_as_many_sessions_as_the_applications_policy_says() {
    let house = House::new().await;
    let operator = house.server.operator().await;
    house.open(&house.ada).await;
    let (_, applications) = operator.get("/api/v1/applications").await;
    let terminals =
        applications["items"].as_array().unwrap().iter().find(|one| one["name"] == "terminals").unwrap();
    let path = format!("/api/v1/applications/{}/policy", terminals["id"].as_str().unwrap());
    let (status, body) = operator.put(&path, json!({ "maxPerPrincipal": 1, "onLimit": "reject" })).await;
    assert_eq!(status, 200, "{body}");
    let (status, body) = house.ada.post(SESSIONS, json!({ "machine_id": house.machine })).await;
    assert_eq!((status.as_u16(), &body["success"]), (409, &json!(false)), "{body}");
    house.server.until("the shell is gone again", async || shells(&house.sshd) == 1).await;
    house.open(&house.own).await;
}

fn shells(sshd: &Sshd) -> usize {
    let names = sshd.children().into_iter().map(|one| std::fs::read_to_string(format!("/proc/{one}/comm")));
    names.filter_map(Result::ok).filter(|name| SHELL.contains(name.trim()) && name.trim() == "bash").count()
}
