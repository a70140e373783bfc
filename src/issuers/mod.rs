//! Other issuers' JWT access tokens (RFC 9068, RFC 8725): whether one is what it claims to be. What it opens is decided
//! elsewhere.

mod keys;

use std::collections::HashMap;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::TimeDelta;
use jsonwebtoken::Algorithm;
use parking_lot::Mutex;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::clock::Clock;
use crate::config::Config;
use crate::core::Time;
use crate::core::caller::{External, Scope, Scopes};
use crate::core::event::Issuer;
use crate::core::object::Object;
use crate::outbound::Rules;
use keys::{Fetcher, KeySet};

/// Signature algorithms that may be accepted; all asymmetric.
pub const ALGORITHMS: [&str; 9] =
    ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA"];
/// Longest token that is looked at.
const LONGEST: usize = 8 << 10;
/// Longest subject.
const LONGEST_SUBJECT: usize = 1_024;
/// How far an issuer's clock may be from ours.
pub const SKEW: TimeDelta = TimeDelta::seconds(60);
/// Key sets kept: as many as there are issuers, save for ones that are configured no more.
const MOST_SETS: usize = 4_096;

/// Where a key set is from: the issuer, and where its keys are if that is said.
type Source = (String, Option<String>);

/// The issuers' keys, and where they come from.
pub struct Issuers {
    fetcher: Arc<Fetcher>,
    clock: Clock,
    sets: Mutex<HashMap<Source, Arc<KeySet>>>,
}

/// A token before it is known to be genuine.
pub struct Unverified<'token> {
    algorithm: Algorithm,
    key_id: Option<String>,
    message: &'token str,
    signature: &'token str,
    claims: Claims,
}

/// Anything else in a header is ignored, `jku`, `x5u` and `jwk` first of all.
#[derive(Deserialize)]
struct Header {
    alg: String,
    typ: Option<String>,
    kid: Option<String>,
    crit: Option<Value>,
}

#[derive(Deserialize)]
struct Claims {
    iss: String,
    aud: OneOrMany,
    sub: String,
    exp: f64,
    iat: f64,
    nbf: Option<f64>,
    jti: Option<String>,
    client_id: Option<Value>,
    azp: Option<Value>,
    scope: Option<String>,
    scp: Option<OneOrMany>,
    /// Of a security event token, a logout token among them.
    events: Option<Value>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl OneOrMany {
    fn as_slice(&self) -> &[String] {
        match self {
            Self::One(one) => std::slice::from_ref(one),
            Self::Many(many) => many,
        }
    }
}

impl<'token> Unverified<'token> {
    /// Reads a token; `None` if it is none, or not an access token.
    pub fn read(token: &'token str) -> Option<Self> {
        if token.len() > LONGEST {
            return None;
        }
        let (message, signature) = token.rsplit_once('.')?;
        let (header, claims) = message.split_once('.').filter(|(_, claims)| !claims.contains('.'))?;
        let header: Header = part(header)?;
        let kind = header.typ?.to_ascii_lowercase();
        if !matches!(kind.as_str(), "at+jwt" | "application/at+jwt") || header.crit.is_some() {
            return None;
        }
        let known = ALGORITHMS.contains(&header.alg.as_str());
        let algorithm = known.then(|| header.alg.parse().ok()).flatten()?;
        let claims: Claims = part(claims)?;
        let named = !claims.sub.is_empty() && claims.sub.len() <= LONGEST_SUBJECT;
        let access = named && claims.events.is_none();
        access.then_some(Self { algorithm, key_id: header.kid, message, signature, claims })
    }

    /// Whose token it claims to be.
    pub fn issuer(&self) -> &str {
        &self.claims.iss
    }

    /// Whether an issuer, as an organization trusts it, may have issued it.
    pub fn is_for(&self, issuer: &Issuer) -> bool {
        let algorithm = format!("{:?}", self.algorithm);
        issuer.issuer == self.claims.iss
            && self.claims.aud.as_slice().contains(&issuer.audience)
            && issuer.algorithms.contains(&algorithm)
    }
}

/// A part of a token.
fn part<T: DeserializeOwned>(text: &str) -> Option<T> {
    let read: Option<Object<T>> = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(text).ok()?).ok();
    read.map(|Object(part)| part)
}

/// A `NumericDate`, in whole seconds.
#[allow(clippy::cast_possible_truncation)] // saturates, and what is out of range is no time
fn time(seconds: f64) -> Option<Time> {
    Time::from_timestamp(seconds.floor() as i64, 0)
}

/// A genuine token.
pub struct Genuine {
    pub external: External,
    pub scopes: Scopes,
    /// It is over, and was genuine.
    pub expired: bool,
}

impl Issuers {
    pub fn new(config: &Config, clock: Clock) -> Result<Self, reqwest::Error> {
        let (fetcher, sets) = (Arc::new(Fetcher::new(config)?), Mutex::default());
        Ok(Self { fetcher, clock, sets })
    }

    /// Where issuers may be.
    pub fn rules(&self) -> &Rules {
        self.fetcher.rules()
    }

    /// Whether a token is genuine and its time has come: signed by this issuer, with a key of its own.
    pub async fn verify(&self, token: &Unverified<'_>, issuer: &Issuer) -> Option<Genuine> {
        let (now, claims) = (self.clock.now(), &token.claims);
        let (issued_at, expires_at) = (time(claims.iat)?, time(claims.exp)?);
        let begins_at = claims.nbf.map_or(Some(issued_at), time)?;
        if !token.is_for(issuer) || issued_at > now + SKEW || begins_at > now + SKEW {
            return None;
        }
        let wanted = (token.key_id.as_deref(), token.algorithm);
        let key = self.set(issuer).find(&self.fetcher, issuer, wanted, now).await?;
        let message = token.message.as_bytes();
        let signed = jsonwebtoken::crypto::verify(token.signature, message, &key.key, token.algorithm);
        signed.ok().filter(|signed| *signed)?;
        let external = External {
            issuer: issuer.issuer.clone(),
            audience: issuer.audience.clone(),
            subject: claims.sub.clone(),
            client: client(claims),
            id: claims.jti.clone(),
            issued_at,
            expires_at,
        };
        let expired = expires_at.checked_add_signed(SKEW).is_some_and(|until| now >= until);
        Some(Genuine { external, scopes: scopes(claims, issuer), expired })
    }

    fn set(&self, issuer: &Issuer) -> Arc<KeySet> {
        let mut sets = self.sets.lock();
        if sets.len() >= MOST_SETS {
            sets.clear();
        }
        sets.entry((issuer.issuer.clone(), issuer.jwks_uri.clone())).or_default().clone()
    }
}

/// The OAuth client a token was issued to, as far as it says so: one that calls it something else than a text is as good
/// as any that does not say.
fn client(claims: &Claims) -> Option<String> {
    let said = [&claims.client_id, &claims.azp].into_iter().flatten().filter_map(Value::as_str);
    said.map(str::to_owned).find(|client| !client.is_empty())
}

/// Words of ours in the token that the organization lets this issuer say.
fn scopes(claims: &Claims, issuer: &Issuer) -> Scopes {
    let said = claims.scp.as_ref().map_or(&[][..], OneOrMany::as_slice).join(" ");
    let said = format!("{} {said}", claims.scope.as_deref().unwrap_or_default());
    let allowed = Scopes::parse(&issuer.scopes.join(" ")).0;
    let both = Scopes::parse(&said).0.iter();
    both.filter(|scope| allowed.has(*scope) && *scope != Scope::PlatformAdmin)
        .fold(Scopes::default(), Scopes::with)
}
