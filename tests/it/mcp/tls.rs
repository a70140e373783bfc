//! Upstreams behind TLS: reached if their certificate is good, and never otherwise.

use std::path::PathBuf;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd};
use reqwest::StatusCode;
use rustls::ServerConfig;
use rustls::pki_types::PrivatePkcs8KeyDer;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use super::House;
use super::upstream::Upstream;
use crate::support::daemon::command;

/// A certificate authority, with the file of its certificate.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    directory: TempDir,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let this = Self { issuer, directory: TempDir::new().unwrap() };
        std::fs::write(this.file(), this.issuer.pem()).unwrap();
        this
    }

    fn file(&self) -> PathBuf {
        self.directory.path().join("authority.pem")
    }

    /// Encrypts the way to a server, with a certificate for a name; the URL of that way.
    async fn before(&self, plain: &str, name: &str, expired: bool) -> String {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        if expired {
            params.not_before = date_time_ymd(2019, 1, 1);
            params.not_after = date_time_ymd(2020, 1, 1);
        }
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let key = PrivatePkcs8KeyDer::from(key.serialize_der()).into();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let plain = url::Url::parse(plain).unwrap();
        let behind = plain.socket_addrs(|| None).unwrap()[0];
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    let Ok(mut stream) = acceptor.accept(stream).await else { return };
                    let Ok(mut behind) = TcpStream::connect(behind).await else { return };
                    tokio::io::copy_bidirectional(&mut stream, &mut behind).await.ok();
                });
            }
        });
        format!("https://localhost:{port}{}", plain.path())
    }
}

/// What a client is told that tries to initialize.
async fn told(house: &House) -> Value {
    let answer = house.client(&house.token().await).try_initialize().await;
    assert_eq!(answer.status(), StatusCode::OK);
    answer.json().await.unwrap()
}

#[tokio::test]
async fn an_upstream_is_reached_over_tls_if_its_certificate_is_good_and_told_nothing_otherwise() {
    let (ours, others) = (Authority::new(), Authority::new());
    let upstream = Upstream::start().await;
    let file = ours.file();
    let house = House::before(&upstream.url, &["--upstream-ca", file.to_str().unwrap()]).await;
    let key = json!({ "type": "header", "name": "Authorization", "value": "secret" });
    for (url, words) in [
        (others.before(&upstream.url, "localhost", false).await, "authority that is not trusted here"),
        (ours.before(&upstream.url, "localhost", true).await, "has expired"),
        (ours.before(&upstream.url, "elsewhere.example", false).await, "for another name"),
        (upstream.url.replace("http://", "https://"), "cannot be spoken to in encrypted form"),
    ] {
        house.set_upstream_with(&url, key.clone()).await;
        let answer = told(&house).await;
        assert_eq!(answer["error"]["data"]["reason"], "upstream_not_trusted", "{answer}");
        let message = answer["error"]["message"].as_str().unwrap();
        assert!(message.contains(words) && !message.contains("secret"), "{message}");
    }
    assert_eq!((upstream.sent().len(), house.connected().await), (0, 0));

    let good = ours.before(&upstream.url, "localhost", false).await;
    house.set_upstream_with(&good, key).await;
    let client = house.connect().await;
    assert_eq!(client.call("echo").await.0, StatusCode::OK);
    let call = upstream.sent_rpc("tools/call").pop().unwrap();
    assert_eq!(call.header("authorization"), Some("secret"));
    assert_eq!(call.header("host"), good.strip_prefix("https://").and_then(|rest| rest.strip_suffix("/mcp")));
}

#[tokio::test]
async fn a_private_authority_is_believed_only_if_it_is_named() {
    let authority = Authority::new();
    let upstream = Upstream::start().await;
    let house = House::before(&authority.before(&upstream.url, "localhost", false).await, &[]).await;
    assert_eq!(told(&house).await["error"]["data"]["reason"], "upstream_not_trusted");
}

#[tokio::test]
async fn a_token_endpoint_with_a_bad_certificate_gets_no_secret() {
    let authority = Authority::new();
    let upstream = Upstream::start().await;
    let house = House::before(&upstream.url, &[]).await;
    let endpoint = authority.before(&upstream.url, "localhost", false).await;
    let credential = json!({
        "type": "client_credentials", "tokenUrl": endpoint, "clientId": "gateway", "clientSecret": "hush",
    });
    house.set_upstream_with(&upstream.url, credential).await;
    assert_eq!(told(&house).await["error"]["data"]["reason"], "upstream_credential");
    assert_eq!(upstream.sent().len(), 0);
}

#[test]
fn a_file_of_authorities_that_is_none_is_refused_by_name() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("authorities.pem");
    for text in [None, Some("no certificate at all")] {
        if let Some(text) = text {
            std::fs::write(&file, text).unwrap();
        }
        let output = command(directory.path(), &["--upstream-ca", file.to_str().unwrap()]).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains("--upstream-ca"), "{said}");
        assert!(said.contains("authorities.pem"), "{said}");
    }
}
