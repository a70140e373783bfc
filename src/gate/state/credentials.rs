//! Credentials while something is open by them. Whoever stays is registered first and judged then, both under the lock under
//! which changes are made; each change that can end a credential has those judged again whom it can concern. So nothing slips
//! between, and nobody polls.

use std::sync::Arc;

use sessiond_core::Time;
use sessiond_core::admission_hook::AdmissionHook;
use sessiond_core::api_key::ApiKey;
use sessiond_core::application::Application;
use sessiond_core::bar::Barred;
use sessiond_core::caller::{Caller, CredentialKind};
use sessiond_core::change::Change;
use sessiond_core::ending::{CredentialEnd, Ending};
use sessiond_core::organization::Organization;
use sessiond_core::service_account::ServiceAccount;
use sessiond_core::streams::AnyStream;

use super::GateState;
use crate::gate::Client;
use crate::gate::flight::Flight;
use crate::gate::holdings::{Concerned, CredentialId, Held, Holding, Side};

impl GateState {
    /// Registers what a caller opens, if the credential still is what it was when it was presented.
    pub(in crate::gate) fn hold(
        &self,
        caller: &Caller,
        side: Side,
        now: Time,
    ) -> Result<Held, CredentialEnd> {
        let held = self.holdings.hold(caller, side);
        self.credential_end(&held.holding, now).map_or(Ok(held), Err)
    }

    /// How many things are open by credentials.
    pub fn open_by_credentials(&self) -> usize {
        self.holdings.count()
    }

    /// Whose credentials a change can end; to be asked before it is made.
    pub(in crate::gate) fn concerned(&self, change: &Change) -> Option<Concerned> {
        match change {
            Change::SessionToken(number, _) => Some(Concerned::One(CredentialId::Session(*number))),
            Change::BarAccessToken(id) | Change::RevokeAccessToken(id) => {
                Some(Concerned::One(CredentialId::Access(*id)))
            }
            Change::Stream(stream) => match stream {
                AnyStream::Organization(after) => {
                    let before = self.stream::<Organization>(after.number)?;
                    let same = before.issuers == after.issuers && before.valid_from == after.valid_from;
                    (!same).then_some(Concerned::Organization(after.number))
                }
                AnyStream::Application(after) => {
                    let before = self.stream::<Application>(after.number)?;
                    let same =
                        before.archived_at == after.archived_at && before.valid_from == after.valid_from;
                    (!same).then_some(Concerned::Organization(after.organization))
                }
                AnyStream::ServiceAccount(after) => {
                    let before = self.stream::<ServiceAccount>(after.number)?;
                    let same = before.archived_at == after.archived_at;
                    (!same).then_some(Concerned::Organization(after.organization))
                }
                // It bars from memory what it could not bar on record.
                AnyStream::Revocation(revocation) => {
                    revocation.is_provisional().then_some(Concerned::Organization(revocation.organization))
                }
                AnyStream::Bar(bar) => Some(Concerned::Organization(bar.organization)),
                AnyStream::Principal(standing) => Some(Concerned::Organization(standing.organization)),
                AnyStream::ApiKey(key) => Some(Concerned::One(CredentialId::ApiKey(key.id))),
                AnyStream::Hook(hook) => Some(Concerned::One(CredentialId::Hook(hook.id))),
                AnyStream::Schedule(_)
                | AnyStream::Webhook(_)
                | AnyStream::MediaStream(_)
                | AnyStream::Machine(_) => None,
            },
            // An end of a session is told to what belongs to it; a bar comes with the row that it is of; tokens that are
            // forgotten have expired, and whoever stays has a timer for that; the rest takes nothing from anybody.
            Change::Session(..)
            | Change::CredentialsBarred(..)
            | Change::ForgetTokens(_)
            | Change::McpSession(..)
            | Change::AccessToken(_)
            | Change::Principal(_)
            | Change::ApiKeySecret(..)
            | Change::ApiKeysUsed(_)
            | Change::ErasePersonal(_)
            | Change::SessionTotal(..)
            | Change::SessionsLetGo(..)
            | Change::ResourceTotals(..)
            | Change::Presented(..)
            | Change::SeenAlive(_) => None,
        }
    }

    /// Ends what was opened by credentials that have ended.
    pub(in crate::gate) fn end_opened(&self, concerned: Concerned, now: Time) -> Vec<Arc<Flight>> {
        let mut cancelled = Vec::new();
        for holding in self.holdings.concerned(concerned) {
            if let Some(end) = self.credential_end(&holding, now) {
                holding.flight.cancel(Ending::Credential(end));
                cancelled.push(holding.flight.clone());
            }
        }
        cancelled
    }

    /// Ends all that is open, because this process may let nobody in for now.
    pub(in crate::gate) fn lapse(&self) {
        for holding in self.holdings.all() {
            holding.flight.cancel(Ending::Lapsed);
        }
    }

    /// Ends what was opened by the secrets of a key that it had before.
    pub(in crate::gate) fn end_replaced(&self, key: &ApiKey) {
        for holding in self.holdings.concerned(Concerned::One(CredentialId::ApiKey(key.id))) {
            if matches!(holding.kind, CredentialKind::ApiKey { rotations, .. } if rotations < key.rotations) {
                holding.flight.cancel(Ending::Credential(CredentialEnd::Replaced));
            }
        }
    }

    /// How a credential has ended where it is used, if it has. Its own expiry is no part of this; of bars those count that
    /// stand now.
    fn credential_end(&self, holding: &Holding, now: Time) -> Option<CredentialEnd> {
        if holding.principal.is_some_and(|principal| self.disabled(principal)) {
            return Some(CredentialEnd::PrincipalDisabled);
        }
        if self.void_since_restore(holding.organization, holding.issued_at) {
            return Some(CredentialEnd::Revoked);
        }
        if self.kept_out(holding, now) {
            return Some(CredentialEnd::Barred);
        }
        self.ended_itself(holding).or_else(|| self.barred_from(holding))
    }

    /// Whether a bar stands against it: against a person or an API key everywhere, against an OAuth client on the agent side.
    fn kept_out(&self, holding: &Holding, now: Time) -> bool {
        let barred = |barred| self.bar_on(barred, now).is_some();
        let client = match (&holding.kind, holding.side) {
            (CredentialKind::Access { client, .. }, Side::Agent(..)) => self.oauth_client(client),
            (CredentialKind::ApiKey { key, .. }, _) => self.key_client(*key),
            _ => None,
        };
        holding.principal.is_some_and(|principal| barred(Barred::Principal(principal)))
            || client.is_some_and(|client| barred(Barred::Client(client)))
    }

    fn ended_itself(&self, holding: &Holding) -> Option<CredentialEnd> {
        match &holding.kind {
            CredentialKind::Access { token, .. } if self.given_up.contains_key(token) => {
                Some(CredentialEnd::GivenUp)
            }
            CredentialKind::Access { client, .. } => match self.client(client)? {
                Client::ServiceAccount(number) => {
                    let archived = self.stream::<ServiceAccount>(number)?.archived_at.is_some();
                    archived.then_some(CredentialEnd::ServiceAccountArchived)
                }
                Client::Application(_) => None,
            },
            CredentialKind::Session(number) => {
                let replaced = self.session_token(*number)?.issued_at != holding.issued_at;
                replaced.then_some(CredentialEnd::Replaced)
            }
            CredentialKind::ApiKey { key, rotations } => {
                let key = self.stream_by_id::<ApiKey>(*key)?;
                if key.revoked_at.is_some() {
                    return Some(CredentialEnd::ApiKeyDeleted);
                }
                key.good_until(*rotations).is_none().then_some(CredentialEnd::Replaced)
            }
            CredentialKind::Hook(id) => {
                let deleted = self.stream_by_id::<AdmissionHook>(*id)?.deleted_at.is_some();
                deleted.then_some(CredentialEnd::HookDeleted)
            }
            CredentialKind::External(external) => {
                let trusts = |one: &Organization| one.issuers.contains(&external.trusted);
                let trusted = self.stream::<Organization>(holding.organization).is_some_and(trusts);
                (!trusted).then_some(CredentialEnd::IssuerChanged)
            }
        }
    }

    /// Whether the agent side is closed to a credential that is good otherwise.
    fn barred_from(&self, holding: &Holding) -> Option<CredentialEnd> {
        let Side::Agent(application, session) = holding.side else { return None };
        if let Some(number) = session {
            // It has ended, or is about to: what is open ends with it, and is told by its end.
            let session = self.session(number)?;
            if self.covering(session).is_some() {
                return None;
            }
        }
        let barred =
            matches!(&holding.kind, CredentialKind::Access { token, .. } if self.token_barred(*token));
        if barred || holding.issued_at < self.valid_from(application, holding.principal) {
            return Some(CredentialEnd::Revoked);
        }
        let archived = self.stream::<Application>(application)?.archived_at.is_some();
        archived.then_some(CredentialEnd::ApplicationArchived)
    }
}
