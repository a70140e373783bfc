//! Where webhooks may not go: nothing on this machine, beside it, or where clouds keep credentials is ever connected to.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;
use tokio::net::TcpListener;

use super::{WEBHOOKS, webhook};
use crate::support::Server;

/// Hosts that are refused as they stand, in a URL that is good otherwise.
pub const REFUSED: &[&str] = &[
    "127.0.0.1",
    "127.1",
    "127.255.255.254",
    "2130706433",
    "0x7f000001",
    "0x7f.0.0.1",
    "0177.0.0.1",
    "017700000001",
    "%31%32%37.0.0.1",
    "１２７.0.0.1",
    "127。0。0。1",
    "0",
    "0.0.0.0",
    "0.1.2.3",
    "10.0.0.1",
    "10.255.255.255",
    "100.64.0.1",
    "100.100.100.200",
    "168.63.129.16",
    "169.254.169.254",
    "0xa9fea9fe",
    "2852039166",
    "0251.0376.0251.0376",
    "169.254.0.1",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.192",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.0.1",
    "198.18.0.1",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "239.255.255.255",
    "240.0.0.1",
    "255.255.255.255",
    "0x08080808",
    "010.8.8.8",
    "[::]",
    "[::1]",
    "[::127.0.0.1]",
    "[::ffff:127.0.0.1]",
    "[::ffff:10.0.0.1]",
    "[::ffff:8.8.8.8]",
    "[::ffff:a9fe:a9fe]",
    "[64:ff9b::7f00:1]",
    "[64:ff9b::a9fe:a9fe]",
    "[100::1]",
    "[2001::1]",
    "[2001:db8::1]",
    "[2002:7f00:1::]",
    "[fc00::1]",
    "[fd00:ec2::254]",
    "[fe80::1]",
    "[fec0::1]",
    "[ff02::1]",
];

/// A port of this machine that counts who comes.
async fn trap() -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("[::]:0").await.unwrap();
    let (port, count) = (listener.local_addr().unwrap().port(), Arc::new(AtomicUsize::new(0)));
    let counting = count.clone();
    tokio::spawn(async move {
        while listener.accept().await.is_ok() {
            counting.fetch_add(1, Ordering::SeqCst);
        }
    });
    (port, count)
}

#[tokio::test(flavor = "multi_thread")]
async fn no_url_leads_to_an_address_that_is_not_public() {
    let server = Server::start().await;
    let operator = server.operator().await;
    let (port, came) = trap().await;
    assert!(REFUSED.len() >= 40);
    for host in REFUSED {
        for scheme in ["https", "http"] {
            let body = json!({ "url": format!("{scheme}://{host}:{port}/latest/meta-data") });
            let (status, answer) = operator.post(WEBHOOKS, body).await;
            assert_eq!((status.as_u16(), answer["field"].as_str()), (400, Some("url")), "{host}: {answer}");
        }
    }
    for url in [
        format!("https://user@localhost:{port}/"),
        format!("https://localhost:{port}/#fragment"),
        format!("https:\\\\127.0.0.1:{port}/"),
        format!("https://127.0.0.1\t:{port}/"),
        format!("ftp://localhost:{port}/"),
        "file:///etc/passwd".to_owned(),
        format!("//localhost:{port}/"),
        format!("https://{}/", "x".repeat(2_048)),
    ] {
        assert_eq!(operator.post(WEBHOOKS, json!({ "url": url })).await.0, 400, "{url}");
    }
    assert_eq!(came.load(Ordering::SeqCst), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_is_judged_by_the_address_it_has_when_something_is_sent() {
    let server = Server::start().await;
    let operator = server.operator().await;
    let (port, came) = trap().await;
    let made = webhook(&operator, json!({ "url": format!("https://localhost:{port}/") })).await;
    let (_, answer) = operator.post(&format!("{}/test", made.path), json!({})).await;
    assert_eq!(answer["error"], "the endpoint has no address that is allowed");
    operator.connect(json!({})).await;
    server
        .until("an attempt on record", || async {
            let delivered = super::deliveries(&operator, &made, "").await;
            delivered.first().is_some_and(|one| one["attempts"] == 1)
        })
        .await;
    assert_eq!(came.load(Ordering::SeqCst), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_allowed_once_is_judged_anew_after_a_restart_without_the_setting() {
    let receiver = super::Receiver::start().await;
    let mut server = super::server().await;
    let made = super::webhook_to(&server.operator().await, &receiver).await;
    server.flags.retain(|flag| flag != "--webhook-allow-loopback");
    let server = server.restart().await;
    let operator = server.operator().await;
    let (_, answer) = operator.post(&format!("{}/test", made.path), json!({})).await;
    assert_eq!(answer["error"], "the URL is not allowed; see --webhook-allow");
    assert!(receiver.taken().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_can_be_allowed_but_no_link_local_one() {
    let flags = ["--webhook-allow", "10.0.0.0/8,169.254.0.0/16,::/0"];
    let server = Server::with(&flags).await;
    let operator = server.operator().await;
    for (url, status) in [
        ("https://10.1.2.3/", 201),
        ("https://[fc00::1]/", 201),
        ("http://10.1.2.3/", 400),
        ("https://172.16.0.1/", 400),
        ("https://169.254.169.254/", 400),
        ("https://[fe80::1]/", 400),
        ("https://[::ffff:10.1.2.3]/", 400),
    ] {
        assert_eq!(operator.post(WEBHOOKS, json!({ "url": url })).await.0, status, "{url}");
    }
}
