//! JWT access tokens of other issuers (RFC 9068, RFC 8725): whether a token is what it claims to be. What it opens is
//! decided elsewhere.

mod claims;
mod keys;

use std::collections::HashMap;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::TimeDelta;
use jsonwebtoken::Algorithm;
use keys::{Fetcher, KeySet};
use parking_lot::Mutex;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use sessiond_core::Time;
use sessiond_core::caller::External;
use sessiond_core::object::Object;
use sessiond_core::organization::Issuer;
use sessiond_core::scope::{Scope, Scopes};

use crate::clock::Clock;
use crate::config::Config;
use crate::outbound::Allowances;

pub use claims::Claimant;

/// The signature algorithms that an organization may accept; all are asymmetric.
pub const ALGORITHMS: [&str; 9] =
    ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA"];
/// The longest token that is looked at.
const LONGEST: usize = 8 << 10;
/// The longest subject that is accepted.
const LONGEST_SUBJECT: usize = 1_024;
/// How far an issuer's clock may be from ours.
pub const SKEW: TimeDelta = TimeDelta::seconds(60);
/// How often the log says at most that an issuer's tokens are refused.
const NOTED: TimeDelta = TimeDelta::seconds(60);
/// How many key sets are kept: as many as there are issuers, and some of issuers that are trusted no more.
const MOST_SETS: usize = 4_096;

/// What a key set is kept under: the issuer, and the URL of its keys if the organization names one.
type Source = (String, Option<String>);

/// The issuers' keys, and where they come from.
pub struct Issuers {
    fetcher: Arc<Fetcher>,
    clock: Clock,
    sets: Mutex<HashMap<Source, Arc<KeySet>>>,
    /// When the log last said of an issuer that its tokens are refused.
    noted: Mutex<HashMap<String, Time>>,
}

/// A token before it is known to be genuine.
pub struct Unverified<'token> {
    algorithm: Algorithm,
    key_id: Option<String>,
    message: &'token str,
    signature: &'token str,
    issuer: String,
    /// The token's claims, or why it is no access token, which is told only to the holder of a genuine token.
    claims: Result<Claims, Unfit>,
}

/// Why a genuine token of a trusted issuer is not accepted, in words for the person who set that issuer up. The words go
/// into a header, and so have no quotation marks.
pub type Unfit = &'static str;

/// The members of a token's header that are read. All others are ignored, `jku`, `x5u` and `jwk` first of all.
#[derive(Deserialize)]
struct Header {
    alg: String,
    typ: Option<String>,
    kid: Option<String>,
    crit: Option<Value>,
}

/// The claims of a token.
#[derive(Deserialize)]
struct Claims {
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
    /// Reads a token; none if the text is no JWT.
    pub fn read(token: &'token str) -> Option<Self> {
        if token.len() > LONGEST {
            return None;
        }
        let (message, signature) = token.rsplit_once('.')?;
        let (header, claims) = message.split_once('.').filter(|(_, claims)| !claims.contains('.'))?;
        let header: Header = part(header)?;
        let known = ALGORITHMS.contains(&header.alg.as_str());
        let algorithm = known.then(|| header.alg.parse().ok()).flatten()?;
        let claims: Value = part(claims)?;
        let issuer = claims.get("iss")?.as_str()?.to_owned();
        let claims = header.fit().and_then(|()| read_claims(claims));
        Some(Self { algorithm, key_id: header.kid, message, signature, issuer, claims })
    }

    /// The issuer that the token names.
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// Whether this issuer, as an organization trusts it, may have signed the token.
    pub fn may_be_of(&self, issuer: &Issuer) -> bool {
        let algorithm = format!("{:?}", self.algorithm);
        issuer.issuer == self.issuer && issuer.algorithms.contains(&algorithm)
    }

    /// Whether the token is meant for the organization that trusts this issuer with this audience.
    pub fn is_for(&self, issuer: &Issuer) -> bool {
        let claims = self.claims.as_ref();
        self.may_be_of(issuer) && claims.is_ok_and(|claims| claims.aud.as_slice().contains(&issuer.audience))
    }
}

impl Header {
    /// Whether the header is one of an access token.
    fn fit(&self) -> Result<(), Unfit> {
        let kind = self.typ.as_deref().unwrap_or_default().to_ascii_lowercase();
        if !matches!(kind.as_str(), "at+jwt" | "application/at+jwt") {
            return Err("typ must be at+jwt: only access tokens of RFC 9068 are taken");
        }
        if self.crit.is_some() { Err("crit names extensions that are not known here") } else { Ok(()) }
    }
}

/// Reads the claims, or names the first that is not as it should be.
fn read_claims(claims: Value) -> Result<Claims, Unfit> {
    let kind = |name: &str, fits: fn(&Value) -> bool| claims.get(name).is_some_and(fits);
    let absent_or = |name: &str, fits: fn(&Value) -> bool| claims.get(name).is_none_or(fits);
    let subject = claims.get("sub").and_then(Value::as_str).map_or(0, str::len);
    let faults = [
        (kind("aud", |aud| aud.is_string() || aud.is_array()), "aud must be there, as a text or a list"),
        ((1..=LONGEST_SUBJECT).contains(&subject), "sub must be there, as a text of 1 to 1024 bytes"),
        (kind("exp", Value::is_number), "exp must be there, as a number of seconds"),
        (kind("iat", Value::is_number), "iat must be there, as a number of seconds"),
        (absent_or("nbf", |nbf| nbf.is_number() || nbf.is_null()), "nbf must be a number of seconds"),
        (
            absent_or("scope", |scope| scope.is_string() || scope.is_null()),
            "scope must be one text, with spaces between the scopes",
        ),
        (absent_or("events", Value::is_null), "it has events: it is a logout token or the like"),
    ];
    match faults.into_iter().find(|(fits, _)| !fits) {
        Some((_, fault)) => Err(fault),
        None => serde_json::from_value(claims).map_err(|_| "a claim is of another kind than it should be"),
    }
}

/// Decodes a part of a token.
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
    /// Whether the token has expired.
    pub expired: bool,
}

impl Issuers {
    pub fn new(config: &Config, clock: Clock) -> Result<Self, reqwest::Error> {
        let (fetcher, sets) = (Arc::new(Fetcher::new(config)?), Mutex::default());
        Ok(Self { fetcher, clock, sets, noted: Mutex::default() })
    }

    /// The addresses that issuers may have.
    pub fn allowances(&self) -> &Allowances {
        self.fetcher.allowances()
    }

    /// Verifies a token: whether this issuer signed it with a key of its own, and whether its claims and times are accepted.
    /// The error says why only for a token that is genuine.
    pub async fn verify(&self, token: &Unverified<'_>, issuer: &Issuer) -> Result<Genuine, Option<Unfit>> {
        // The times are of the issuer's clock, so they are compared with the time of day.
        let now = self.clock.wall();
        if !token.may_be_of(issuer) || !self.is_signed(token, issuer, now).await {
            return Err(None);
        }
        let claims = token.claims.as_ref().map_err(|fault| Some(*fault))?;
        if !token.is_for(issuer) {
            return Err(Some("aud does not name the audience that is trusted here"));
        }
        let no_time = Some("iat, nbf and exp must be seconds since 1970");
        let (issued_at, expires_at) = (time(claims.iat).ok_or(no_time)?, time(claims.exp).ok_or(no_time)?);
        let begins_at = claims.nbf.map_or(Some(issued_at), time).ok_or(no_time)?;
        if issued_at > now + SKEW {
            return Err(Some("iat lies in the future: compare the clocks"));
        }
        if begins_at > now + SKEW {
            return Err(Some("nbf lies in the future: it is not yet valid"));
        }
        let external = External {
            issuer: issuer.issuer.clone(),
            audience: issuer.audience.clone(),
            subject: claims.sub.clone(),
            client: client(claims),
            id: claims.jti.clone(),
            issued_at,
            expires_at,
            trusted: issuer.clone(),
        };
        let expired = expires_at.checked_add_signed(SKEW).is_some_and(|until| now >= until);
        Ok(Genuine { external, scopes: scopes(claims, issuer), expired })
    }

    /// Whether one of the issuer's keys signed the token.
    async fn is_signed(&self, token: &Unverified<'_>, issuer: &Issuer, now: Time) -> bool {
        let wanted = (token.key_id.as_deref(), token.algorithm);
        let Some(key) = self.set(issuer).find(&self.fetcher, issuer, wanted, now).await else { return false };
        let message = token.message.as_bytes();
        jsonwebtoken::crypto::verify(token.signature, message, &key.key, token.algorithm).unwrap_or(false)
    }

    /// Says in the log why genuine tokens of an issuer are refused, but only once in a while, because many follow the first.
    pub fn note(&self, issuer: &Issuer, fault: Unfit) {
        let now = self.clock.now();
        let mut noted = self.noted.lock();
        if noted.len() >= MOST_SETS {
            noted.clear();
        }
        let before = noted.insert(issuer.issuer.clone(), now);
        match before.filter(|before| now - *before < NOTED && now >= *before) {
            Some(before) => drop(noted.insert(issuer.issuer.clone(), before)),
            None => {
                let issuer = &issuer.issuer;
                tracing::warn!(issuer, fault, "a genuine token of a trusted issuer is refused");
            }
        }
    }

    /// The keys of an issuer, which are fetched when they are first looked for.
    fn set(&self, issuer: &Issuer) -> Arc<KeySet> {
        let mut sets = self.sets.lock();
        if sets.len() >= MOST_SETS {
            sets.clear();
        }
        sets.entry((issuer.issuer.clone(), issuer.jwks_uri.clone())).or_default().clone()
    }
}

/// The OAuth client that a token was issued to; none if the token names none, or by something else than a text.
fn client(claims: &Claims) -> Option<String> {
    let said = [&claims.client_id, &claims.azp].into_iter().flatten().filter_map(Value::as_str);
    said.map(str::to_owned).find(|client| !client.is_empty())
}

/// The scopes of ours in the token that the organization lets this issuer grant.
fn scopes(claims: &Claims, issuer: &Issuer) -> Scopes {
    let said = claims.scp.as_ref().map_or(&[][..], OneOrMany::as_slice).join(" ");
    let said = format!("{} {said}", claims.scope.as_deref().unwrap_or_default());
    let allowed = Scopes::parse(&issuer.scopes.join(" ")).0;
    let both = Scopes::parse(&said).0.iter();
    both.filter(|scope| allowed.has(*scope) && *scope != Scope::PlatformAdmin)
        .fold(Scopes::default(), Scopes::with)
}
