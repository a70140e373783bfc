//! An issuer's public keys: fetched only from where the organization says, kept for a while, never too many.

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

/// An issuer has this long to answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// Largest document of an issuer.
const LARGEST: usize = 256 << 10;
/// Most keys that are looked at.
const MOST: usize = 64;
/// An issuer is asked at most once in this time, whatever tokens say.
const PAUSE: TimeDelta = TimeDelta::seconds(30);
/// Keys older than this are fetched again, beside a request that is served with the old ones.
const FRESH: TimeDelta = TimeDelta::minutes(10);
/// Keys of an issuer that cannot be reached are believed this long.
const KEPT: TimeDelta = TimeDelta::hours(24);
/// A shorter RSA modulus is no key: 2,048 bits in base64url.
const SHORTEST_RSA: usize = 341;

/// Fetches from issuers. Follows no redirects, uses no proxy, goes only where it may.
pub struct Fetcher {
    client: Client,
    allowances: Allowances,
}

/// The keys of one issuer.
#[derive(Default)]
pub struct KeySet {
    state: Mutex<State>,
    /// Held by the one who asks the issuer.
    asking: tokio::sync::Mutex<()>,
}

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

    /// A document of an issuer; `None` whatever is wrong with it.
    async fn get(&self, url: &str) -> Option<Vec<u8>> {
        // Nobody asks the resolver about addresses, and metadata may name anything.
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

    /// Where an issuer's keys are, by its own metadata (RFC 8414, else OpenID Connect Discovery).
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

    async fn keys(&self, issuer: &Issuer) -> Option<Vec<Arc<Key>>> {
        let place = match &issuer.jwks_uri {
            Some(place) => place.clone(),
            None => self.discover(&issuer.issuer).await?,
        };
        let document: Value = serde_json::from_slice(&self.get(&place).await?).ok()?;
        let keys = document.get("keys")?.as_array()?;
        // Kinds of keys that we do not know are none of our business.
        let keys = keys.iter().take(MOST).filter_map(|key| Key::read(key.clone()));
        Some(keys.map(Arc::new).collect())
    }
}

impl Key {
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
    /// The key with this id for this algorithm. Asks the issuer if it is not known, and not more often than it may.
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

    fn kept(&self, id: Option<&str>, algorithm: Algorithm, now: Time) -> Option<Arc<Key>> {
        let state = self.state.lock();
        state.fetched_at.filter(|at| now - *at < KEPT)?;
        let fits = |key: &&Arc<Key>| {
            key.algorithms.contains(&algorithm) && (id.is_none() || key.id.as_deref() == id)
        };
        let mut fitting = state.keys.iter().filter(fits);
        // Whoever names no key may mean one only.
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

    /// Fetches the keys, unless another has just done so.
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
