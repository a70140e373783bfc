//! The public keys of issuers: fetched only from where the organization says, kept for a while, and bounded in number.

use std::sync::Arc;
use std::time::Duration;

use chrono::TimeDelta;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use parking_lot::Mutex;
use reqwest::Client;
use serde::Deserialize;
use serde_json::Value;
use sessiond_core::Time;
use sessiond_core::object::Object;
use sessiond_core::organization::Issuer;

use crate::config::Config;
use crate::outbound::{Allowances, Purpose, Resolver};

/// How long an issuer may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// The largest document of an issuer that is read.
const LARGEST: usize = 256 << 10;
/// How many keys of a document are looked at.
const MOST: usize = 64;
/// How often an issuer is asked at most, whatever tokens say.
const PAUSE: TimeDelta = TimeDelta::seconds(30);
/// Keys older than this are fetched again, while the request that finds them so is served with the old ones.
const FRESH: TimeDelta = TimeDelta::minutes(10);
/// How long the keys of an issuer that cannot be reached are believed.
const KEPT: TimeDelta = TimeDelta::hours(24);
/// The shortest RSA modulus that is accepted: 2,048 bits in base64url.
const SHORTEST_RSA: usize = 341;

/// Fetches documents of issuers. It follows no redirects, uses no proxy, and goes only to addresses that are allowed.
pub struct Fetcher {
    client: Client,
    allowances: Allowances,
}

/// The keys of one issuer.
#[derive(Default)]
pub struct KeySet {
    state: Mutex<State>,
    /// Held while the issuer is asked, so that it is asked by one at a time.
    asking: tokio::sync::Mutex<()>,
}

/// The keys as they were fetched last.
#[derive(Default)]
struct State {
    keys: Vec<Arc<Key>>,
    fetched_at: Option<Time>,
    tried_at: Option<Time>,
}

/// A public key for signatures.
pub struct Key {
    id: Option<String>,
    algorithms: Vec<Algorithm>,
    pub key: DecodingKey,
}

#[derive(Deserialize)]
struct Metadata {
    issuer: String,
    jwks_uri: String,
}

impl Fetcher {
    pub fn new(config: &Config) -> Result<Self, reqwest::Error> {
        let allowances = Allowances::of(Purpose::Issuer, config, false);
        let client = Client::builder()
            .dns_resolver(Resolver(allowances.clone()))
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .referer(false)
            .timeout(PATIENCE)
            .user_agent(concat!("sessiond/", env!("CARGO_PKG_VERSION")))
            .build()?;
        Ok(Self { client, allowances })
    }

    pub fn allowances(&self) -> &Allowances {
        &self.allowances
    }

    /// Fetches a document of an issuer; none if anything is wrong with it.
    async fn get(&self, url: &str) -> Option<Vec<u8>> {
        // The HTTP client does not ask its resolver about hosts that are addresses, and metadata may name any.
        let url = self.allowances.check("jwksUri", url).ok()?;
        let mut answer = self.client.get(url).send().await.ok()?;
        if answer.status() != reqwest::StatusCode::OK {
            return None;
        }
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await.ok()? {
            if body.len() + chunk.len() > LARGEST {
                return None;
            }
            body.extend_from_slice(&chunk);
        }
        Some(body)
    }

    /// Finds out where an issuer's keys are from its own metadata (RFC 8414, else OpenID Connect Discovery).
    async fn discover(&self, issuer: &str) -> Option<String> {
        let plain = issuer.trim_end_matches('/');
        let (start, path) = match plain.split_once("://").and_then(|(_, rest)| rest.split_once('/')) {
            Some((_, path)) => (plain.strip_suffix(path)?.trim_end_matches('/'), format!("/{path}")),
            None => (plain, String::new()),
        };
        let places = [
            format!("{start}/.well-known/oauth-authorization-server{path}"),
            format!("{plain}/.well-known/openid-configuration"),
        ];
        for place in places {
            let Some(body) = self.get(&place).await else { continue };
            let metadata = serde_json::from_slice::<Object<Metadata>>(&body).ok().map(|read| read.0);
            if let Some(metadata) = metadata.filter(|metadata| metadata.issuer == issuer) {
                return Some(metadata.jwks_uri);
            }
        }
        None
    }

    /// Fetches the keys of an issuer.
    async fn keys(&self, issuer: &Issuer) -> Option<Vec<Arc<Key>>> {
        let place = match &issuer.jwks_uri {
            Some(place) => place.clone(),
            None => self.discover(&issuer.issuer).await?,
        };
        let document: Value = serde_json::from_slice(&self.get(&place).await?).ok()?;
        let keys = document.get("keys")?.as_array()?;
        // Keys of kinds that are not known here are passed over.
        let keys = keys.iter().take(MOST).filter_map(|key| Key::read(key.clone()));
        Some(keys.map(Arc::new).collect())
    }
}

impl Key {
    /// Reads a key of a key set; none if it cannot check signatures here.
    fn read(key: Value) -> Option<Self> {
        let jwk: Jwk = serde_json::from_value(key).ok()?;
        if jwk.common.public_key_use.as_ref().is_some_and(|purpose| *purpose != PublicKeyUse::Signature) {
            return None;
        }
        let mut algorithms = match &jwk.algorithm {
            AlgorithmParameters::RSA(key) if key.n.len() >= SHORTEST_RSA => vec![
                Algorithm::RS256,
                Algorithm::RS384,
                Algorithm::RS512,
                Algorithm::PS256,
                Algorithm::PS384,
                Algorithm::PS512,
            ],
            AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => {
                vec![Algorithm::ES256]
            }
            AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P384 => {
                vec![Algorithm::ES384]
            }
            AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => {
                vec![Algorithm::EdDSA]
            }
            _ => return None,
        };
        if let Some(only) = &jwk.common.key_algorithm {
            algorithms.retain(|algorithm| format!("{algorithm:?}") == only.to_string());
        }
        let key = DecodingKey::from_jwk(&jwk).ok()?;
        Some(Self { id: jwk.common.key_id, algorithms, key })
    }
}

impl KeySet {
    /// The key with this id for this algorithm. If it is not known, the issuer is asked, but not more often than it may be.
    pub async fn find(
        self: &Arc<Self>,
        fetcher: &Arc<Fetcher>,
        issuer: &Issuer,
        (id, algorithm): (Option<&str>, Algorithm),
        now: Time,
    ) -> Option<Arc<Key>> {
        if let Some(key) = self.kept(id, algorithm, now) {
            if self.is_old(now) && self.may_ask(now) {
                let (this, fetcher, issuer) = (self.clone(), fetcher.clone(), issuer.clone());
                tokio::spawn(async move { this.ask(&fetcher, &issuer, now).await });
            }
            return Some(key);
        }
        if self.may_ask(now) || self.asking.try_lock().is_err() {
            self.ask(fetcher, issuer, now).await;
        }
        self.kept(id, algorithm, now)
    }

    /// The key with this id for this algorithm among those that are kept and still believed.
    fn kept(&self, id: Option<&str>, algorithm: Algorithm, now: Time) -> Option<Arc<Key>> {
        let state = self.state.lock();
        state.fetched_at.filter(|at| now - *at < KEPT)?;
        let fits = |key: &&Arc<Key>| {
            key.algorithms.contains(&algorithm) && (id.is_none() || key.id.as_deref() == id)
        };
        let mut fitting = state.keys.iter().filter(fits);
        // A token that names no key may mean only one.
        match (fitting.next(), fitting.next()) {
            (Some(key), None) => Some(key.clone()),
            _ => None,
        }
    }

    fn is_old(&self, now: Time) -> bool {
        self.state.lock().fetched_at.is_none_or(|at| now - at >= FRESH)
    }

    fn may_ask(&self, now: Time) -> bool {
        self.state.lock().tried_at.is_none_or(|at| now - at >= PAUSE)
    }

    /// Fetches the keys, unless another request has just done so.
    async fn ask(&self, fetcher: &Fetcher, issuer: &Issuer, now: Time) {
        let _asking = self.asking.lock().await;
        if !self.may_ask(now) {
            return;
        }
        self.state.lock().tried_at = Some(now);
        match fetcher.keys(issuer).await {
            Some(keys) => {
                let mut state = self.state.lock();
                state.keys = keys;
                state.fetched_at = Some(now);
            }
            None => tracing::warn!(issuer = issuer.issuer, "the issuer's keys cannot be fetched"),
        }
    }
}
