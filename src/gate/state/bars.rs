//! What the Gate is asked about who is kept out: by a bar, or because what is presented was issued before it was put aside.

use sessiond_core::Time;
use sessiond_core::api_key::ApiKey;
use sessiond_core::application::Application;
use sessiond_core::bar::{Bar, Barred, BarredClient};
use sessiond_core::caller::{Caller, CredentialKind};
use sessiond_core::ids::{ApplicationNumber, OrganizationNumber, Position, PrincipalNumber};
use sessiond_core::organization::Organization;
use sessiond_core::revocation::Revocation;
use uuid::Uuid;

use super::GateState;
use crate::gate::Client;

impl GateState {
    // ---- bars ----

    /// The bar that keeps somebody out at an instant; of several the one that does for longest.
    pub fn bar_on(&self, barred: Barred, now: Time) -> Option<&Bar> {
        let bars = self.bars.get(&barred)?.iter().filter_map(|number| self.stream::<Bar>(*number));
        bars.filter(|bar| bar.stands(now)).reduce(|one, other| if other.outlasts(one) { other } else { one })
    }

    /// The bars on somebody that were not lifted, by number.
    pub fn bars_on(&self, barred: Barred) -> impl Iterator<Item = i64> {
        self.bars.get(&barred).into_iter().flatten().copied()
    }

    /// The OAuth client with this client id, as bars name it.
    pub fn oauth_client(&self, client_id: &str) -> Option<BarredClient> {
        Some(match self.client(client_id)? {
            Client::Application(number) => BarredClient::Application(number),
            Client::ServiceAccount(number) => BarredClient::ServiceAccount(number),
        })
    }

    /// The API key with this id, as bars name it.
    pub fn key_client(&self, id: Uuid) -> Option<BarredClient> {
        self.stream_by_id::<ApiKey>(id).map(|key| BarredClient::ApiKey(key.number))
    }

    /// The client that a principal is, if it is one by itself.
    pub fn client_itself(&self, principal: PrincipalNumber) -> Option<BarredClient> {
        self.own_clients.get(&principal).copied()
    }

    /// The bar that stands against a caller: whoever it acts for, an API key itself, and on the agent side the OAuth client.
    pub fn bar_against(&self, caller: &Caller, agent_side: bool, now: Time) -> Option<&Bar> {
        let person = caller.principal.map(Barred::Principal);
        let client = match &caller.credential.kind {
            CredentialKind::Access { client, .. } if agent_side => self.oauth_client(client),
            CredentialKind::ApiKey { key, .. } => self.key_client(*key),
            _ => None,
        };
        let barred = person.into_iter().chain(client.map(Barred::Client));
        barred.filter_map(|barred| self.bar_on(barred, now)).next()
    }

    // ---- credentials that were put aside ----

    /// Whether an access token was barred by itself, or given up.
    pub fn token_barred(&self, id: Uuid) -> bool {
        self.given_up.contains_key(&id) || self.access_token(id).is_some_and(|token| token.barred)
    }

    /// The position before which agent-side credentials are barred from an application, and from acting for a principal,
    /// by what is on record or in memory only.
    pub fn valid_from(&self, application: ApplicationNumber, principal: Option<PrincipalNumber>) -> Position {
        match self.stream::<Application>(application) {
            Some(one) => self.barred_in(one.organization, Some(application), principal),
            None => Position(0),
        }
    }

    /// The same within an organization, where the application may not be known.
    pub fn barred_in(
        &self,
        organization: OrganizationNumber,
        application: Option<ApplicationNumber>,
        principal: Option<PrincipalNumber>,
    ) -> Position {
        let one = application.and_then(|number| self.stream::<Application>(number));
        let whole = self.stream::<Organization>(organization);
        let standing = principal.and_then(|principal| self.standing_of(principal));
        let recorded = one
            .map_or(Position(0), |one| one.valid_from)
            .max(whole.map_or(Position(0), |whole| whole.valid_from))
            .max(standing.map_or(Position(0), |standing| standing.valid_from));
        let provisional = self.streams::<Revocation>().take_while(|revocation| revocation.is_provisional());
        provisional
            .filter(|revocation| {
                let filter = &revocation.filter;
                revocation.organization == organization
                    && (filter.whole_organization()
                        || (application.is_some() && filter.whole_application() == application)
                        || principal.is_some_and(|one| filter.whole_principals().contains(&one)))
            })
            .map(|revocation| revocation.fence)
            .fold(recorded, Position::max)
    }

    /// The position that stands for a moment of another system's clock: after every bar of an earlier second, before every
    /// other. A time in whole seconds cannot tell whether it lies before a bar of the same second, and so counts as before.
    pub fn position_at(&self, at: Time) -> Position {
        let earlier = |(_, barred_at): &(&Position, &Time)| barred_at.timestamp() < at.timestamp();
        self.barrings.iter().rev().find(earlier).map_or(Position(0), |(position, _)| *position)
    }

    /// Whether a token was issued before the installation was restored from a backup without its credentials: it opens
    /// nothing, on whichever side.
    pub fn void_since_restore(&self, organization: OrganizationNumber, issued_at: Position) -> bool {
        self.stream::<Organization>(organization).is_some_and(|one| issued_at < one.restored_at)
    }
}
