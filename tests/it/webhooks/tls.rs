//! Receivers are reached over TLS, and only those whose certificate is trusted.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::ServerConfig;
use rustls::pki_types::PrivatePkcs8KeyDer;
use serde_json::json;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::{FLAGS, webhook};
use crate::support::Daemon;
use crate::support::daemon::command;

/// A receiver that answers 204 to all it gets over TLS; its port, its certificate, and how many it answered.
async fn receiver() -> (u16, String, Arc<AtomicUsize>) {
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = PrivatePkcs8KeyDer::from(signing_key.serialize_der()).into();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (port, count) = (listener.local_addr().unwrap().port(), Arc::new(AtomicUsize::new(0)));
    let answered = count.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let mut read = vec![0; 65_536];
            let length = stream.read(&mut read).await.unwrap_or(0);
            if String::from_utf8_lossy(&read[..length]).contains("webhook-signature: v1,") {
                answered.fetch_add(1, Ordering::SeqCst);
                stream.write_all(b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n").await.ok();
            }
            stream.shutdown().await.ok();
        }
    });
    (port, cert.pem(), count)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_is_reached_over_tls_if_its_certificate_is_trusted_and_not_otherwise() {
    let (port, certificate, count) = receiver().await;
    for trusted in [true, false] {
        let directory = TempDir::new().unwrap();
        let mut command = command(directory.path(), &FLAGS);
        if trusted {
            let file = directory.path().join("roots.pem");
            std::fs::write(&file, &certificate).unwrap();
            command.env("SSL_CERT_FILE", file);
        }
        let daemon = Daemon::spawn(command);
        let operator = daemon.operator().await;
        let made = webhook(&operator, json!({ "url": format!("https://localhost:{port}/in") })).await;
        let (_, answer) = operator.post(&format!("{}/test", made.path), json!({})).await;
        assert_eq!(answer["delivered"], json!(trusted), "{answer}");
        assert_eq!(count.load(Ordering::SeqCst), 1);
    }
}
