//! What a command rests on, judged in the batch: what was decided before it, in the same batch or since it was presented, may
//! have replaced or ended the credential.

use sessiond_core::actor::ActorKind;
use sessiond_core::admission_hook::AdmissionHook;
use sessiond_core::api_key::ApiKey;
use sessiond_core::bar::Barred;
use sessiond_core::caller::{Authority, CredentialKind};
use sessiond_core::change::Change;
use sessiond_core::ids::{ApplicationNumber, Head, Position};
use sessiond_core::organization::Organization;
use sessiond_core::service_account::ServiceAccount;
use sessiond_core::session::Refusal;
use sessiond_core::streams::Registered;
use sessiond_core::token::AccessToken;

use super::Draft;
use crate::committer::Origin;
use crate::error::Error;
use crate::gate::Client;

const NOBODY: Error = Error::Unauthorized { reason: None };

impl Draft<'_> {
    /// That the credential behind a command still opens what it opened when it was presented.
    pub(super) fn still_stands(&self, origin: &Origin) -> Result<(), Error> {
        let Some(authority) = &origin.authority else { return Ok(()) };
        if self.now >= authority.credential.expires_at && !self.is_of_ended_session(authority) {
            return Err(Error::Unauthorized { reason: Some(Refusal::Expired) });
        }
        let good = match &authority.credential.kind {
            CredentialKind::Access { token, client, .. } => self.access_stands(*token, client),
            CredentialKind::Session(number) => self.session_token_stands(authority, *number),
            CredentialKind::ApiKey { key, rotations } => {
                let good_until = self.stream_by_id::<ApiKey>(*key).and_then(|key| key.good_until(*rotations));
                good_until.is_some_and(|until| self.now < until)
            }
            CredentialKind::Hook(id) => {
                self.stream_by_id::<AdmissionHook>(*id).is_some_and(|hook| hook.deleted_at.is_none())
            }
            CredentialKind::External(external) => {
                self.stream::<Organization>(authority.organization).is_some_and(|organization| {
                    let trusts = |one: &sessiond_core::organization::Issuer| {
                        one.issuer == external.issuer && one.audience == external.audience
                    };
                    organization.issuers.iter().any(trusts)
                })
            }
        };
        if !good {
            return Err(NOBODY);
        }
        self.person_stands(authority)
    }

    /// A person who was disabled acts no more, and neither does whoever is barred. Of a session's own token the rules of its session say so.
    fn person_stands(&self, authority: &Authority) -> Result<(), Error> {
        let own = !matches!(authority.credential.kind, CredentialKind::Session(_));
        let person = authority.principal.filter(|_| own);
        let disabled =
            person.and_then(|person| self.standing(person)).is_some_and(|one| one.disabled_at.is_some());
        if disabled {
            return Err(Refusal::PrincipalDisabled.into());
        }
        let key = match authority.credential.kind {
            CredentialKind::ApiKey { key, .. } => self.known.key_client(key),
            _ => None,
        };
        let barred = person.map(Barred::Principal).into_iter().chain(key.map(Barred::Client));
        match barred.filter_map(|barred| self.bar_on(barred)).next() {
            Some(bar) => Err(Error::Barred(bar.told())),
            None => Ok(()),
        }
    }

    fn stream_by_id<S: Registered>(&self, id: uuid::Uuid) -> Option<&S> {
        let known = self.known.any_stream_by_id(id)?;
        S::of(self.any_stream(known.stream())?)
    }

    fn access_stands(&self, token: uuid::Uuid, client: &str) -> bool {
        let given_up = |change: &Change| matches!(change, Change::RevokeAccessToken(id) if *id == token);
        // A client that has authenticated by itself presents no token.
        let known = token.is_nil() || self.known.access_token(token).is_some();
        let archived = match self.known.client(client) {
            Some(Client::ServiceAccount(number)) => {
                self.stream::<ServiceAccount>(number).is_none_or(|account| account.archived_at.is_some())
            }
            // What an archived application may still do is a question of each path.
            Some(Client::Application(_)) => false,
            None => true,
        };
        known && !archived && !self.changes.iter().any(|(change, _)| given_up(change))
    }

    /// A session has one token at a time, and each is known by where in the log it was issued.
    fn session_token_stands(&self, authority: &Authority, number: sessiond_core::ids::SessionNumber) -> bool {
        let open = self.session(number).is_some_and(|session| session.ended.is_none());
        let drafted = self.tokens.get(&number).copied();
        let known = || self.known.session_token(number).map(|token| token.issued_at);
        // The token of a session that has ended opens what the rules say, and there is no other.
        !open || drafted.or_else(known) == Some(authority.credential.issued_at)
    }

    fn is_of_ended_session(&self, authority: &Authority) -> bool {
        match authority.credential.kind {
            CredentialKind::Session(number) => {
                self.session(number).is_none_or(|session| session.ended.is_some())
            }
            _ => false,
        }
    }

    /// That nothing has happened to the client of a token since it was looked at: its secret may have been another's.
    pub(super) fn unchanged_since(&self, token: &AccessToken, as_of: Position) -> Result<(), Error> {
        let head = match token.client_kind {
            ActorKind::Application => self.application(ApplicationNumber(token.client)).map(|one| one.head),
            _ => self.stream::<ServiceAccount>(token.client).map(|one| one.head),
        };
        let changed = head.is_none_or(|head: Head| head.position > as_of);
        if changed { Err(Error::Busy) } else { Ok(()) }
    }
}
