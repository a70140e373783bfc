//! Authentication: finds out from what a request presents who makes it. It only reads, from the Gate and, for what the Gate
//! does not hold, from the store; only a principal of another issuer whom nobody met before is written.

mod external;
mod introspect;

use std::borrow::Cow;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use axum::http::request::Parts;
use axum::http::{Extensions, HeaderMap, header};
use base64::Engine;
use base64::prelude::BASE64_STANDARD as STANDARD;
use parking_lot::Mutex;
use uuid::Uuid;

use crate::clock::Clock;
use crate::directory::Principals;
use crate::error::Error;
use crate::gate::{Client, Gate, GateState};
use crate::issuers::Issuers;
use crate::secret::{self, Presented, TokenKind};
use sessiond_core::Time;
use sessiond_core::actor::{Actor, ActorKind};
use sessiond_core::api_key::ApiKey;
use sessiond_core::application::Application;
use sessiond_core::bar::{Barred, BarredClient};
use sessiond_core::caller::{Caller, Credential, CredentialKind};
use sessiond_core::ids::{ApplicationNumber, Position, ServiceAccountNumber, SessionNumber};
use sessiond_core::scope::{Scope, Scopes};
use sessiond_core::service_account::ServiceAccount;
use sessiond_core::session::{Refusal, Session};
use sessiond_core::token::{AccessToken, SessionToken};
use sessiond_store::{ClientSecret, Store};

pub use introspect::{GivenUp, Introspected};

/// Authentication.
pub struct Auth {
    gate: Arc<Gate>,
    reader: Arc<dyn Store>,
    clock: Clock,
    issuers: Arc<Issuers>,
    principals: Principals,
    /// The ids that the rate limit counts genuine JWTs under, by the hashes of the JWTs.
    remembered: Mutex<HashMap<[u8; 32], Uuid>>,
}

/// Identifies a request in responses, logs and events; an extension of every request.
#[derive(Debug, Clone)]
pub struct RequestId(pub String);

/// The address that a request comes from, as far as that can be believed; an extension of every request.
#[derive(Debug, Clone, Copy)]
pub struct ClientAddress(pub IpAddr);

impl ClientAddress {
    /// The address in a request's extensions.
    pub fn of(extensions: &Extensions) -> IpAddr {
        extensions.get().map_or(Ipv4Addr::UNSPECIFIED.into(), |&Self(address)| address)
    }
}

/// Marks a response to a client that presented no credential of ours, which is limited in number. A client whose credential
/// has ended is not counted, because it is to learn why.
#[derive(Debug, Clone, Copy)]
pub struct NothingGenuine;

/// The token of `Authorization: Bearer …`.
pub fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

/// The credential that a request presents, on whichever surface: a bearer token, an API key as the whole of Basic
/// credentials, or an API key in the header `apiKey`.
pub fn presented(headers: &HeaderMap) -> Option<Cow<'_, str>> {
    let basic = || {
        let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
        let (scheme, credentials) = value.split_once(' ')?;
        let bytes = STANDARD.decode(credentials).ok().filter(|_| scheme.eq_ignore_ascii_case("basic"))?;
        String::from_utf8(bytes).ok().map(Cow::Owned)
    };
    let key = || headers.get("apikey")?.to_str().ok().map(Cow::Borrowed);
    bearer(headers).map(Cow::Borrowed).or_else(basic).or_else(key)
}

/// A valid W3C `traceparent`; none for any other value. Of a version from the future only the parts that are specified to
/// stay are kept (https://www.w3.org/TR/trace-context/#versioning-of-traceparent).
pub fn traceparent(headers: &HeaderMap) -> Option<String> {
    let mut values = headers.get_all("traceparent").iter();
    let (Some(value), None) = (values.next(), values.next()) else { return None };
    let value = value.to_str().ok()?;
    let (known, rest) = value.split_at_checked(TRACEPARENT)?;
    let hex = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    let zero = |text: &str| text.bytes().all(|byte| byte == b'0');
    let parts: Vec<_> = known.split('-').collect();
    let [version, trace, parent, flags] = parts[..] else { return None };
    let shaped = [(version, 2), (trace, 32), (parent, 16), (flags, 2)]
        .iter()
        .all(|(part, length)| part.len() == *length && hex(part));
    let ended = rest.is_empty() || (version != "00" && rest.starts_with('-'));
    (shaped && ended && version != "ff" && !zero(trace) && !zero(parent)).then(|| known.to_owned())
}

/// The length of a `traceparent` of version 00.
const TRACEPARENT: usize = 55;

/// The error for a client that presents nothing genuine.
const NOBODY: Error = Error::Unauthorized { reason: None };

impl Auth {
    pub fn new(
        gate: Arc<Gate>,
        reader: Arc<dyn Store>,
        clock: Clock,
        issuers: Arc<Issuers>,
        principals: Principals,
    ) -> Self {
        Self { gate, reader, clock, issuers, principals, remembered: Mutex::default() }
    }

    /// The caller of a request, by its bearer token.
    pub async fn caller(&self, parts: &Parts) -> Result<Caller, Error> {
        self.presenting(parts, bearer(&parts.headers).ok_or(NOBODY)?).await
    }

    /// The caller of a request with this token, wherever in the request the token is.
    pub async fn presenting(&self, parts: &Parts, token: &str) -> Result<Caller, Error> {
        let caller = self.bearer(token).await?;
        Ok(Self::making(parts, caller))
    }

    /// Adds to a caller what the events of its request will say: the request's id and trace.
    pub fn making(parts: &Parts, mut caller: Caller) -> Caller {
        caller.request_id = parts.extensions.get::<RequestId>().map(|id| id.0.clone());
        caller.traceparent = traceparent(&parts.headers);
        caller
    }

    /// The caller who presents this bearer token. A session's token keeps opening after its session has ended, with
    /// [`Caller::ended`] set.
    pub async fn bearer(&self, token: &str) -> Result<Caller, Error> {
        let caller = self.presenter(token).await?;
        if self.gate.known().void_since_restore(caller.organization, caller.credential.issued_at) {
            return Err(Error::Unauthorized { reason: Some(Refusal::CredentialBarred) });
        }
        Ok(caller)
    }

    async fn presenter(&self, token: &str) -> Result<Caller, Error> {
        if external::is_jwt(token) {
            return self.external(token).await;
        }
        let presented = secret::parse(token).ok_or(NOBODY)?;
        match presented.kind {
            TokenKind::Access => self.access(&presented),
            TokenKind::ApiKey => self.api_key(&presented),
            TokenKind::Session => match self.live_session(&presented)? {
                Some(caller) => Ok(caller),
                None => self.ended_session(&presented).await,
            },
            TokenKind::Mcp | TokenKind::Terminal => Err(NOBODY),
        }
    }

    /// The id of a token that is genuine, whatever it may do; looks at memory only. A token that is not genuine has none, so
    /// that nobody who knows only the id can use up its allowance.
    pub fn genuine(&self, token: &str) -> Option<Uuid> {
        if external::is_jwt(token) {
            return self.remembered(token);
        }
        let presented = secret::parse(token)?;
        let known = self.gate.known();
        let hash = match presented.kind {
            TokenKind::Access => known.access_token(presented.id)?.secret_hash,
            TokenKind::Session => known.session_token(known.session_number(presented.id)?)?.secret_hash,
            TokenKind::ApiKey => {
                return known.key_secrets.age(presented.id, &presented.hash).map(|_| presented.id);
            }
            TokenKind::Mcp | TokenKind::Terminal => return None,
        };
        secret::same(&hash, &presented.hash).then_some(presented.id)
    }

    fn access(&self, presented: &Presented) -> Result<Caller, Error> {
        let known = self.gate.known();
        let token = known.access_token(presented.id).ok_or(NOBODY)?;
        if !secret::same(&token.secret_hash, &presented.hash) {
            return Err(NOBODY);
        }
        if self.clock.now() >= token.expires_at {
            return Err(Error::Unauthorized { reason: Some(Refusal::Expired) });
        }
        access_caller(&known, token).ok_or(NOBODY)
    }

    /// The caller with an API key, which is no token: no revocation bars it. It ends at its own expiry, when it is revoked
    /// or its secret is replaced, and while the person it acts for is disabled.
    fn api_key(&self, presented: &Presented) -> Result<Caller, Error> {
        let known = self.gate.known();
        let (_, caller) = self.key_behind(&known, presented)?;
        known.key_secrets.note(presented.id, self.clock.now());
        Ok(caller)
    }

    fn key_behind<'known>(
        &self,
        known: &'known GateState,
        presented: &Presented,
    ) -> Result<(&'known ApiKey, Caller), Error> {
        let key = known.stream_by_id::<ApiKey>(presented.id).ok_or(NOBODY)?;
        let age = known.key_secrets.age(presented.id, &presented.hash).ok_or(NOBODY)?;
        let rotations = key.rotations.checked_sub(age).ok_or(NOBODY)?;
        let good_until = key.good_until(rotations).ok_or(NOBODY)?;
        if self.clock.now() >= good_until {
            return Err(Error::Unauthorized { reason: Some(Refusal::Expired) });
        }
        if key.principal.is_some_and(|principal| known.disabled(principal)) {
            return Err(Refusal::PrincipalDisabled.into());
        }
        let person = key.principal.map(Barred::Principal);
        let barred = person.into_iter().chain([Barred::Client(BarredClient::ApiKey(key.number))]);
        match barred.filter_map(|barred| known.bar_on(barred, self.clock.now())).next() {
            Some(bar) => Err(Error::Barred(bar.told())),
            None => Ok((key, key_caller(known, key, rotations, good_until))),
        }
    }

    fn live_session(&self, presented: &Presented) -> Result<Option<Caller>, Error> {
        let known = self.gate.known();
        let Some(number) = known.session_number(presented.id) else { return Ok(None) };
        let Some(session) = known.session(number) else { return Ok(None) };
        let token = known.session_token(number);
        let token = token.filter(|token| secret::same(&token.secret_hash, &presented.hash)).ok_or(NOBODY)?;
        if self.clock.now() >= token.expires_at {
            return Err(Error::Unauthorized { reason: Some(Refusal::Expired) });
        }
        Ok(Some(session_caller(&known, session, token)))
    }

    async fn ended_session(&self, presented: &Presented) -> Result<Caller, Error> {
        let row = self.reader.session(presented.id).await?.ok_or(NOBODY)?;
        let token = self.reader.session_token(row.session.number).await?.ok_or(NOBODY)?;
        if !secret::same(&token.secret_hash, &presented.hash) {
            return Err(NOBODY);
        }
        match row.session.ended {
            Some(_) => Ok(session_caller(&self.gate.known(), &row.session, token)),
            // The session ended between the two looks, and its row was read before that.
            None => Err(NOBODY),
        }
    }

    /// The number of the open session with this `Mcp-Session-Id`, if the id is genuine. `None` says nothing about any other
    /// id.
    pub fn mcp_session(&self, id: &str) -> Option<SessionNumber> {
        let presented = secret::parse(id).filter(|presented| presented.kind == TokenKind::Mcp)?;
        let known = self.gate.known();
        let number = known.session_number(presented.id)?;
        let hash = known.mcp_hash(number)?;
        secret::same(&hash, &presented.hash).then_some(number)
    }

    /// The OAuth client with this id and secret. An unknown client, a wrong secret and an archived client get the same
    /// error.
    pub async fn client(&self, client_id: &str, client_secret: &str) -> Result<Client, Error> {
        let hash = secret::hash(client_secret);
        let stored = self.reader.client_secret(client_id).await?;
        let now = self.clock.now();
        let good = |stored: ClientSecret| {
            let old = stored.before.is_some_and(|(old, until)| now < until && secret::same(&old, &hash));
            old || secret::same(&stored.hash, &hash)
        };
        if !stored.is_some_and(good) {
            return Err(NOBODY);
        }
        let known = self.gate.known();
        let client = known.client(client_id).ok_or(NOBODY)?;
        let archived = match client {
            Client::Application(number) => {
                known.stream::<Application>(number).is_none_or(|one| one.archived_at.is_some())
            }
            Client::ServiceAccount(number) => {
                known.stream::<ServiceAccount>(number).is_none_or(|one| one.archived_at.is_some())
            }
        };
        if archived { Err(NOBODY) } else { Ok(client) }
    }
}

impl Auth {
    /// An authenticated OAuth client as a caller, as if it presented a token with all that it may ask for.
    pub fn client_caller(&self, client: Client) -> Option<Caller> {
        let known = self.gate.known();
        let (client_kind, client, organization, scopes) = match client {
            Client::Application(number) => {
                let one = known.stream::<Application>(number)?;
                let scopes = Scopes::parse(&one.oauth.scopes.join(" ")).0;
                (ActorKind::Application, number.0, one.organization, scopes)
            }
            Client::ServiceAccount(number) => {
                let one = known.stream::<ServiceAccount>(number)?;
                (ActorKind::ServiceAccount, number.0, one.organization, one.scopes)
            }
        };
        let token = AccessToken {
            id: Uuid::nil(),
            secret_hash: [0; 32],
            organization,
            client_kind,
            client,
            scopes,
            issued_at: Position(i64::MAX),
            expires_at: Time::MAX_UTC,
            barred: false,
            audience: None,
        };
        access_caller(&known, &token)
    }
}

fn access_caller(known: &GateState, token: &AccessToken) -> Option<Caller> {
    let (actor, client, confined_to, bound_to) = match token.client_kind {
        ActorKind::Application => {
            let one = known.stream::<Application>(ApplicationNumber(token.client))?;
            let actor = Actor { kind: ActorKind::Application, id: one.id };
            (actor, one.oauth.client_id.clone(), Some(one.number), Some(one.number))
        }
        _ => {
            let one = known.stream::<ServiceAccount>(ServiceAccountNumber(token.client))?;
            if one.archived_at.is_some() {
                return None;
            }
            let actor = Actor { kind: ActorKind::ServiceAccount, id: one.id };
            (actor, one.client_id.clone(), None, one.application)
        }
    };
    Some(Caller {
        organization: token.organization,
        organization_id: known.organization_id(token.organization),
        actor,
        principal: None,
        scopes: token.scopes,
        confined_to,
        bound_to,
        credential: Credential {
            kind: CredentialKind::Access { token: token.id, client, audience: token.audience },
            issued_at: token.issued_at,
            expires_at: token.expires_at,
            barred: token.barred,
        },
        ended: None,
        request_id: None,
        traceparent: None,
        once: None,
    })
}

fn key_caller(known: &GateState, key: &ApiKey, rotations: u32, expires_at: Time) -> Caller {
    Caller {
        organization: key.organization,
        organization_id: known.organization_id(key.organization),
        actor: Actor { kind: ActorKind::ApiKey, id: key.id },
        principal: key.principal,
        scopes: Scopes::parse(&key.scopes).0,
        confined_to: None,
        bound_to: None,
        credential: Credential {
            kind: CredentialKind::ApiKey { key: key.id, rotations },
            issued_at: Position(i64::MAX),
            expires_at,
            barred: false,
        },
        ended: None,
        request_id: None,
        traceparent: None,
        once: None,
    }
}

fn session_caller(known: &GateState, session: &Session, token: SessionToken) -> Caller {
    Caller {
        organization: session.organization,
        organization_id: known.organization_id(session.organization),
        actor: Actor { kind: ActorKind::Session, id: session.id },
        principal: Some(session.principal),
        scopes: Scopes::default().with(Scope::McpInvoke),
        confined_to: Some(session.application),
        bound_to: Some(session.application),
        credential: Credential {
            kind: CredentialKind::Session(session.number),
            issued_at: token.issued_at,
            expires_at: token.expires_at,
            barred: false,
        },
        ended: session.ended,
        request_id: None,
        traceparent: None,
        once: None,
    }
}
