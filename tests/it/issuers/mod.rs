//! JWT access tokens of other issuers: which are taken, for whom, and what ends them.

mod forged;
mod keys;
mod people;
mod settings;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256, RSA_PSS_SHA256,
    RsaEncoding,
};
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::support::{Holder, Server};

pub const ISSUERS: &str = "/api/v1/organization/issuers";
const SESSIONS: &str = "/api/v1/agent-sessions";
const AUDIENCE: &str = "https://sessiond.example";
pub const LOOPBACK: &[&str] = &["--issuer-allow-loopback"];

fn encoded(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// A key pair of an issuer.
enum Pair {
    Rsa(RsaKeyPair),
    Ec(EcdsaKeyPair),
    Ed(Ed25519KeyPair),
}

impl Pair {
    fn rsa() -> Self {
        Self::Rsa(RsaKeyPair::generate(KeySize::Rsa2048).unwrap())
    }

    fn ec() -> Self {
        Self::Ec(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap())
    }

    fn ed() -> Self {
        Self::Ed(Ed25519KeyPair::generate().unwrap())
    }

    fn public(&self) -> &[u8] {
        match self {
            Self::Rsa(pair) => pair.public_key().as_ref(),
            Self::Ec(pair) => pair.public_key().as_ref(),
            Self::Ed(pair) => pair.public_key().as_ref(),
        }
    }

    fn jwk(&self, kid: &str) -> Value {
        let public = self.public();
        match self {
            // In DER the modulus of 2,048 bits begins after nine bytes.
            Self::Rsa(_) => {
                json!({ "kty": "RSA", "kid": kid, "use": "sig", "n": encoded(&public[9..265]), "e": "AQAB" })
            }
            Self::Ec(_) => json!({
                "kty": "EC", "kid": kid, "crv": "P-256", "x": encoded(&public[1..33]), "y": encoded(&public[33..]),
            }),
            Self::Ed(_) => json!({ "kty": "OKP", "kid": kid, "crv": "Ed25519", "x": encoded(public) }),
        }
    }

    fn algorithm(&self) -> &'static str {
        match self {
            Self::Rsa(_) => "RS256",
            Self::Ec(_) => "ES256",
            Self::Ed(_) => "EdDSA",
        }
    }

    fn sign(&self, algorithm: &str, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match self {
            Self::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                let padding: &dyn RsaEncoding =
                    if algorithm == "PS256" { &RSA_PSS_SHA256 } else { &RSA_PKCS1_SHA256 };
                pair.sign(padding, &random, message, &mut signature).unwrap();
                signature
            }
            Self::Ec(pair) => pair.sign(&random, message).unwrap().as_ref().to_vec(),
            Self::Ed(pair) => pair.sign(message).as_ref().to_vec(),
        }
    }
}

/// An identity provider that answers as it is told.
pub struct Provider {
    url: String,
    pair: Pair,
    published: Arc<Published>,
}

struct Published {
    url: String,
    keys: Mutex<Value>,
    /// Answered instead of keys.
    instead: Mutex<Option<(StatusCode, String)>>,
    hits: AtomicUsize,
}

async fn answer(State(published): State<Arc<Published>>, uri: Uri) -> Response {
    published.hits.fetch_add(1, Ordering::SeqCst);
    if uri.path() == "/.well-known/openid-configuration" {
        let (issuer, place) = (&published.url, format!("{}/keys", published.url));
        return axum::Json(json!({ "issuer": issuer, "jwks_uri": place })).into_response();
    }
    match (uri.path(), published.instead.lock().clone()) {
        ("/keys", Some((status, text))) if status.is_redirection() => {
            (status, [(header::LOCATION, text)]).into_response()
        }
        ("/keys", Some((status, text))) => (status, text).into_response(),
        ("/keys" | "/elsewhere", _) => axum::Json(json!({ "keys": *published.keys.lock() })).into_response(),
        _ => StatusCode::NOT_FOUND.into_response(),
    }
}

impl Provider {
    async fn with(pair: Pair) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (keys, instead) = (Mutex::new(json!([pair.jwk("one")])), Mutex::default());
        let published = Arc::new(Published { url: url.clone(), keys, instead, hits: AtomicUsize::new(0) });
        let router = Router::new().fallback(answer).with_state(published.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { url, pair, published }
    }

    pub async fn start() -> Self {
        Self::with(Pair::ec()).await
    }

    fn hits(&self) -> usize {
        self.published.hits.load(Ordering::SeqCst)
    }

    pub fn trusted(&self) -> Value {
        json!({
            "issuer": self.url, "audience": AUDIENCE, "algorithms": [self.pair.algorithm()],
            "scopes": ["mcp:invoke"],
        })
    }

    pub fn header(&self) -> Value {
        json!({ "alg": self.pair.algorithm(), "typ": "at+jwt", "kid": "one" })
    }

    /// What a good token says now.
    pub fn claims(&self, server: &Server, subject: &str) -> Value {
        let now = server.clock.now().timestamp();
        json!({
            "iss": self.url, "aud": [AUDIENCE, "https://other.example"], "sub": subject, "iat": now,
            "exp": now + 600, "scope": "openid mcp:invoke management:all", "client_id": "app", "jti": "unique",
        })
    }

    pub fn sign(&self, header: &Value, claims: &Value) -> String {
        let message = format!("{}.{}", encoded(header.to_string()), encoded(claims.to_string()));
        let algorithm = header["alg"].as_str().unwrap_or_default();
        let signature = self.pair.sign(algorithm, message.as_bytes());
        format!("{message}.{}", encoded(signature))
    }

    pub fn token(&self, server: &Server, subject: &str) -> String {
        self.sign(&self.header(), &self.claims(server, subject))
    }

    pub fn holder(&self, server: &Server, subject: &str) -> Holder {
        server.holder(self.token(server, subject))
    }
}

/// A server whose organization trusts this provider.
async fn trusting(provider: &Provider) -> Server {
    let server = Server::with(LOOPBACK).await;
    trust(&server, json!([provider.trusted()])).await;
    server
}

async fn trust(server: &Server, issuers: Value) {
    let (status, body) = server.operator().await.put(ISSUERS, json!({ "issuers": issuers })).await;
    assert_eq!(status, StatusCode::OK, "{body}");
}

/// Whether a token opens a session.
async fn opens(server: &Server, token: &str) -> StatusCode {
    server.holder(token).post(SESSIONS, json!({})).await.0
}
