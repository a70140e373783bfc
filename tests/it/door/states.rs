//! One limit, in every state of a connection, at every door.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::json;
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::{LIVENESS, Wire, address_at, metric, metrics_at};
use crate::support::{Daemon, daemon};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];

/// What a client does and then no more.
const STATES: &[(&str, &[&[u8]])] = &[
    ("silent", &[]),
    ("one letter", &[b"P"]),
    ("most of HTTP/2's preface", &[b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r"]),
    ("HTTP/2's preface", &[PREFACE]),
    ("HTTP/2's preface and settings", &[PREFACE, SETTINGS]),
    ("half a head", &[b"GET /livez HTTP/1.1\r\nhost: local"]),
    ("half a second head", &[b"GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n", b"GET /li"]),
    (
        "half a second head at once",
        &[b"GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\nGET /livez HTTP/1.1\r\n"],
    ),
    ("a second letter", &[b"GET /metrics HTTP/1.1\r\nhost: localhost\r\n\r\n", b"P"]),
    ("the first letter of a handshake", &[&[22]]),
    ("nothing but line ends", &[b"\r\n"]),
];

/// One way to a door.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Way {
    Plain,
    /// What is said is said inside.
    Encrypted,
    /// What is said is no handshake.
    Unshaken,
}

struct Doors {
    trusted: CertificateDer<'static>,
    plain: Daemon,
    encrypted: Daemon,
    _directories: [TempDir; 2],
}

impl Doors {
    fn open(flags: &[&str]) -> Self {
        let directories = [TempDir::new().unwrap(), TempDir::new().unwrap()];
        let CertifiedKey { cert, signing_key } =
            generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let file = |name: &str| directories[1].path().join(name).display().to_string();
        let (certificate, key) = (file("cert.pem"), file("key.pem"));
        std::fs::write(&certificate, cert.pem()).unwrap();
        std::fs::write(&key, signing_key.serialize_pem()).unwrap();
        let plain = [&["--metrics-listen", "127.0.0.1:0"], flags].concat();
        let encrypted = [&["--tls-certificate", &certificate, "--tls-key", &key], flags].concat();
        Self {
            trusted: cert.der().clone(),
            plain: Daemon::start(directories[0].path(), &plain),
            encrypted: Daemon::start(directories[1].path(), &encrypted),
            _directories: directories,
        }
    }

    async fn wire(&self, door: &str, way: Way) -> Wire {
        match (door, way) {
            ("main", Way::Plain) => Wire::to(address_at(&self.plain)).await,
            ("metrics", _) => Wire::to(metrics_at(&self.plain)).await,
            (_, Way::Unshaken) => Wire::to(address_at(&self.encrypted)).await,
            _ => {
                let mut roots = RootCertStore::empty();
                roots.add(self.trusted.clone()).unwrap();
                let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
                let mut config = ClientConfig::builder_with_provider(provider)
                    .with_safe_default_protocol_versions()
                    .unwrap()
                    .with_root_certificates(roots)
                    .with_no_client_auth();
                config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
                let stream = TcpStream::connect(address_at(&self.encrypted)).await.unwrap();
                let name = ServerName::try_from("localhost").unwrap();
                let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap();
                assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
                Wire::over(stream)
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_does_not_bring_a_whole_head_is_let_go_in_every_state_at_every_door() {
    let doors = Doors::open(&["--head-timeout", "1s"]);
    let ways =
        [("main", Way::Plain), ("main", Way::Encrypted), ("main", Way::Unshaken), ("metrics", Way::Plain)];
    let cases = ways.iter().flat_map(|way| STATES.iter().map(move |state| (*way, *state)));
    let doors = &doors;
    join_all(cases.map(|((door, way), (state, said))| async move {
        let mut wire = doors.wire(door, way).await;
        for part in said {
            wire.say(part).await;
        }
        // It fails where nothing closes it for a minute.
        let told = wire.until_closed().await;
        let http = told.is_empty() || told.starts_with("HTTP/1.1") || way == Way::Unshaken;
        assert!(http, "{door} {way:?} {state}: {told}");
    }))
    .await;
    for door in ["main", "metrics"] {
        let name = format!("sessiond_connections_overdue_total{{door=\"{door}\",state=\"head\"}}");
        assert!(metric(&doors.plain, &name).await >= 4.0, "{door}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_trickles_is_let_go_whenever_it_began() {
    let doors = Doors::open(&["--head-timeout", "1s", "--idle-timeout", "30s"]);
    for (door, way) in [("main", Way::Plain), ("main", Way::Encrypted), ("metrics", Way::Plain)] {
        for kept in [false, true] {
            let mut wire = doors.wire(door, way).await;
            if kept {
                let told = wire.ask("GET /metrics HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
                assert!(!told.closes(), "{told:?}");
                // Longer than a head may take, and shorter than a connection is kept.
                tokio::time::sleep(Duration::from_millis(1_500)).await;
            }
            let begun = Instant::now();
            while wire.say(b"x").await {
                assert!(begun.elapsed() < LIVENESS, "{door} {way:?} {kept}");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            assert!(begun.elapsed() >= Duration::from_millis(800), "{door} {way:?} {kept}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_who_say_nothing_keep_nobody_out_for_longer_than_a_head_may_take() {
    let directory = TempDir::new().unwrap();
    let flags = ["--head-timeout", "1s", "--max-connections", "20", "--metrics-listen", "127.0.0.1:0"];
    let daemon = Daemon::start(directory.path(), &flags);
    let address = address_at(&daemon);
    let silent = join_all((0..60).map(|_| Wire::to(address))).await;
    assert_eq!(
        Wire::to(address).await.ask("GET /livez HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap().status,
        200
    );
    assert!(metric(&daemon, "sessiond_connections_full_total{door=\"main\"}").await >= 1.0);
    assert!(metric(&daemon, "sessiond_connections_taken_total{door=\"main\"}").await >= 21.0);
    drop(silent);
}

const UPGRADE: &str = "GET /v1/sessions/sess_00000000000000000000000000000000/ws HTTP/1.1\r\nhost: localhost\r\n\
                       connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
                       sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

fn descriptors(daemon: &Daemon) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", daemon.child.id())).unwrap().count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_websocket_keeps_its_place_until_it_ends_and_has_no_longer_than_a_head_to_say_whose_it_is() {
    let directory = TempDir::new().unwrap();
    let flags = ["--head-timeout", "2s", "--max-connections", "20", "--metrics-listen", "127.0.0.1:0"];
    let daemon = Daemon::start(directory.path(), &flags);
    let address = address_at(&daemon);
    let before = descriptors(&daemon);
    let mut sockets = join_all((0..300).map(|_| async {
        let mut wire = Wire::to(address).await;
        wire.say(UPGRADE).await;
        wire
    }))
    .await;
    let told = sockets[0].told().await.unwrap();
    assert_eq!(told.status, 101);
    for _ in 0..10 {
        assert!(descriptors(&daemon) <= before + 20 + 5, "{} more", descriptors(&daemon) - before);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let upgraded = metric(&daemon, "sessiond_connections{door=\"main\",state=\"upgraded\"}").await;
    assert!((1.0..=20.0).contains(&upgraded), "{upgraded}");
    let farewell = sockets[0].until_closed().await;
    assert!(farewell.contains("no auth frame came in time"), "{farewell}");
    sockets.truncate(1);
    assert_eq!(
        Wire::to(address).await.ask("GET /livez HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap().status,
        200
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_websocket_that_has_not_said_whose_it_is_only_a_little_is_listened_to() {
    let directory = TempDir::new().unwrap();
    let daemon = Daemon::start(directory.path(), &["--head-timeout", "60s"]);
    let mut wire = Wire::to(address_at(&daemon)).await;
    assert_eq!(wire.ask(UPGRADE).await.unwrap().status, 101);
    // The beginning of a text of a megabyte, masked with zeros.
    let mut frame = vec![0x81, 0x80 | 127];
    frame.extend_from_slice(&(1_u64 << 20).to_be_bytes());
    frame.extend_from_slice(&[0; 4]);
    wire.say(&frame).await;
    let mut sent = 0;
    // It ends well before the time in which it may say who it is.
    while wire.say([b'x'; 1 << 10]).await && sent < 4_000 {
        sent += 1;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(sent < 4_000, "{sent}");
}

/// The limit of open files of a process: the soft one and the hard one.
fn limits_of(daemon: &Daemon) -> (u64, u64) {
    let text = std::fs::read_to_string(format!("/proc/{}/limits", daemon.child.id())).unwrap();
    let line = text.lines().find(|line| line.starts_with("Max open files")).unwrap();
    let mut numbers = line.split_whitespace().filter_map(|word| word.parse().ok());
    (numbers.next().unwrap(), numbers.next().unwrap())
}

/// The process under a limit of open files, soft and hard.
fn limited(directory: &Path, soft: &str, hard: &str, flags: &[&str]) -> Daemon {
    let inner = daemon::command(directory, flags);
    let mut command = Command::new("sh");
    command.arg("-c").arg(format!("ulimit -S -n {soft}; ulimit -H -n {hard}; exec \"$0\" \"$@\""));
    command.arg(inner.get_program()).args(inner.get_args());
    for (name, value) in inner.get_envs() {
        command.env(name, value.unwrap());
    }
    Daemon::spawn(command)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_limit_of_open_files_is_raised_and_what_does_not_fit_into_it_waits_instead_of_failing() {
    let directory = TempDir::new().unwrap();
    let daemon = limited(directory.path(), "64", "200", &["--head-timeout", "2s"]);
    assert_eq!(limits_of(&daemon), (200, 200));
    assert!(daemon.log().contains("does not fit into the limit of open files"), "{}", daemon.log());
    let operator = daemon.operator().await;
    let answers = join_all((0..200).map(|number| {
        let token = operator.token.clone().unwrap();
        let http = reqwest::Client::builder().pool_max_idle_per_host(0).timeout(LIVENESS).build().unwrap();
        let url = format!("{}/api/v1/agent-sessions", daemon.base);
        async move {
            let body = json!({ "name": format!("agent {number}") });
            http.post(url).bearer_auth(token).json(&body).send().await.unwrap().status().as_u16()
        }
    }))
    .await;
    assert!(answers.iter().all(|status| *status == 201), "{answers:?}");
    assert!(!daemon.log().contains("cannot accept"), "{}", daemon.log());

    let directory = TempDir::new().unwrap();
    let roomy = limited(directory.path(), "256", "1024", &["--max-connections", "100"]);
    assert_eq!(limits_of(&roomy), (1_024, 1_024));
    assert!(!roomy.log().contains("does not fit"), "{}", roomy.log());
}
