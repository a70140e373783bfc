//! Encryption, as a client meets it.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::support::Daemon;
use crate::support::daemon::command;

/// Puts a fresh certificate and key where the flags of [`serve`] name them.
fn certificate(directory: &Path) -> CertificateDer<'static> {
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(directory.join("cert.pem"), cert.pem()).unwrap();
    std::fs::write(directory.join("key.pem"), signing_key.serialize_pem()).unwrap();
    cert.der().clone()
}

/// A process with the certificate, and what flags it is given besides.
fn serve(directory: &Path, flags: &[&str]) -> Daemon {
    let file = |name: &str| directory.join(name).display().to_string();
    let (certificate, key) = (file("cert.pem"), file("key.pem"));
    let tls = ["--tls-certificate", &certificate, "--tls-key", &key];
    Daemon::start(directory, &[&tls, flags].concat())
}

fn address(daemon: &Daemon) -> SocketAddr {
    let address = daemon.base.strip_prefix("https://").expect("the default URL is encrypted");
    address.replace("0.0.0.0", "127.0.0.1").parse().unwrap()
}

/// Shakes hands, trusting one certificate and no other.
async fn shake(daemon: &Daemon, trusted: &CertificateDer<'static>) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let stream = TcpStream::connect(address(daemon)).await?;
    let name = ServerName::try_from("localhost").unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, stream).await
}

/// One request on a connection that stays open, and the head of its answer.
async fn get(stream: &mut TlsStream<TcpStream>, path: &str) -> String {
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n").as_bytes()).await.unwrap();
    let mut answer = vec![];
    while !answer.ends_with(b"ok\n") {
        let mut some = [0; 4_096];
        let count = stream.read(&mut some).await.unwrap();
        assert_ne!(count, 0, "{}", String::from_utf8_lossy(&answer));
        answer.extend_from_slice(&some[..count]);
    }
    String::from_utf8(answer).unwrap()
}

fn hang_up(daemon: &Daemon) {
    assert!(Command::new("kill").args(["-HUP", &daemon.child.id().to_string()]).status().unwrap().success());
}

async fn until_logged(daemon: &Daemon, text: &str) {
    for _ in 0..1_000 {
        if daemon.log().contains(text) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("waited in vain for {text:?}: {}", daemon.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_certificate_connections_are_encrypted_and_others_can_reach_it_without_further_consent() {
    let directory = TempDir::new().unwrap();
    let trusted = certificate(directory.path());
    let daemon = serve(directory.path(), &["--listen", "0.0.0.0:0"]);
    let mut stream = shake(&daemon, &trusted).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
    let answer = get(&mut stream, "/livez").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.contains("strict-transport-security: max-age=31536000\r\n"), "{answer}");
    let plain = reqwest::get(format!("http://{}/livez", address(&daemon))).await;
    assert!(plain.is_err(), "unencrypted requests are not answered");
    drop(stream);
    assert!(daemon.terminate().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn sighup_puts_a_new_certificate_in_force_and_a_bad_one_changes_nothing() {
    let directory = TempDir::new().unwrap();
    let old = certificate(directory.path());
    let daemon = serve(directory.path(), &[]);
    let mut kept = shake(&daemon, &old).await.unwrap();
    get(&mut kept, "/livez").await;

    let new = certificate(directory.path());
    hang_up(&daemon);
    until_logged(&daemon, "the certificate was read again").await;
    assert!(shake(&daemon, &old).await.is_err(), "the old one is not shown any more");
    get(&mut shake(&daemon, &new).await.unwrap(), "/livez").await;
    get(&mut kept, "/livez").await;

    std::fs::write(directory.path().join("cert.pem"), "no certificate at all").unwrap();
    hang_up(&daemon);
    until_logged(&daemon, "there is no certificate in").await;
    get(&mut shake(&daemon, &new).await.unwrap(), "/livez").await;

    // A key that belongs to another certificate is as bad.
    let other = TempDir::new().unwrap();
    certificate(other.path());
    std::fs::copy(other.path().join("cert.pem"), directory.path().join("cert.pem")).unwrap();
    hang_up(&daemon);
    until_logged(&daemon, "do not fit").await;
    get(&mut shake(&daemon, &new).await.unwrap(), "/livez").await;
    drop(kept);
    assert!(daemon.terminate().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_does_not_finish_the_handshake_is_cut_off() {
    let directory = TempDir::new().unwrap();
    certificate(directory.path());
    let daemon = serve(directory.path(), &["--head-timeout", "1s"]);
    let begun = Instant::now();
    let mut silent = TcpStream::connect(address(&daemon)).await.unwrap();
    let mut rest = vec![];
    tokio::time::timeout(Duration::from_secs(8), silent.read_to_end(&mut rest)).await.unwrap().ok();
    assert!(begun.elapsed() >= Duration::from_millis(900), "{:?}", begun.elapsed());
    assert!(daemon.terminate().success());
}

#[test]
fn a_certificate_without_its_key_and_files_that_are_none_are_refused_by_name() {
    let directory = TempDir::new().unwrap();
    certificate(directory.path());
    let path = |name: &str| directory.path().join(name).display().to_string();
    let (certificate, key, none) = (path("cert.pem"), path("key.pem"), path("none.pem"));
    for (flags, word) in [
        (vec!["--tls-certificate", &certificate], "--tls-key"),
        (vec!["--tls-key", &key], "--tls-certificate"),
        (vec!["--tls-certificate", &none, "--tls-key", &key], "none.pem"),
        (vec!["--tls-certificate", &certificate, "--tls-key", &certificate], "cert.pem"),
    ] {
        let output = command(directory.path(), &flags).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains(word), "{flags:?}: {said}");
    }
}
