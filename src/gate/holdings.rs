//! What is open, by the credential that opened it: whatever a credential opened ends with it.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use parking_lot::Mutex;
use sessiond_core::caller::{Caller, CredentialKind};
use sessiond_core::ids::{ApplicationNumber, OrganizationNumber, Position, PrincipalNumber, SessionNumber};
use uuid::Uuid;

use super::flight::Flight;

/// Where a credential is used: what ends it there differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Among what manages and watches: no revocation bars a credential there.
    Management,
    /// On the agent side of an application. Where it is about one session, that session's end speaks for itself.
    Agent(ApplicationNumber, Option<SessionNumber>),
}

/// Finds what a credential opened. Other issuers' tokens are found by their organization: those who end them do not tell
/// them apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum CredentialId {
    Access(Uuid),
    Session(SessionNumber),
    ApiKey(Uuid),
    Hook(Uuid),
    External(OrganizationNumber),
}

impl CredentialId {
    fn of(caller: &Caller) -> Self {
        match &caller.credential.kind {
            CredentialKind::Access { token, .. } => Self::Access(*token),
            CredentialKind::Session(number) => Self::Session(*number),
            CredentialKind::ApiKey { key, .. } => Self::ApiKey(*key),
            CredentialKind::Hook(id) => Self::Hook(*id),
            CredentialKind::External(_) => Self::External(caller.organization),
        }
    }
}

/// Whose credentials a change may have ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Concerned {
    One(CredentialId),
    Organization(OrganizationNumber),
}

/// One thing that is open, with what must be known to judge its credential again.
pub(super) struct Holding {
    pub organization: OrganizationNumber,
    pub kind: CredentialKind,
    pub principal: Option<PrincipalNumber>,
    pub issued_at: Position,
    pub side: Side,
    /// Counts to one: it is open, or it is not.
    pub flight: Arc<Flight>,
}

/// Everything that is open.
#[derive(Default)]
pub(super) struct Holdings {
    open: Mutex<Open>,
}

type HoldingKey = (CredentialId, u64);

#[derive(Default)]
struct Open {
    last: u64,
    by_credential: BTreeMap<HoldingKey, Arc<Holding>>,
}

/// What a caller has open, until it is let go of.
pub(super) struct Held {
    holdings: Arc<Holdings>,
    key: HoldingKey,
    pub holding: Arc<Holding>,
}

impl Holdings {
    /// Registers one more thing that a caller has open.
    pub fn hold(self: &Arc<Self>, caller: &Caller, side: Side) -> Held {
        let holding = Arc::new(Holding {
            organization: caller.organization,
            kind: caller.credential.kind.clone(),
            principal: caller.principal,
            issued_at: caller.credential.issued_at,
            side,
            flight: Arc::default(),
        });
        holding.flight.begin();
        let mut open = self.open.lock();
        open.last += 1;
        let key = (CredentialId::of(caller), open.last);
        open.by_credential.insert(key, holding.clone());
        Held { holdings: self.clone(), key, holding }
    }

    /// What is open by credentials that a change concerns.
    pub fn concerned(&self, concerned: Concerned) -> Vec<Arc<Holding>> {
        let open = self.open.lock();
        match concerned {
            Concerned::One(id) => {
                open.by_credential.range((id, 0)..=(id, u64::MAX)).map(|(_, one)| one.clone()).collect()
            }
            Concerned::Organization(number) => {
                open.by_credential.values().filter(|one| one.organization == number).cloned().collect()
            }
        }
    }

    /// All that is open.
    pub fn all(&self) -> Vec<Arc<Holding>> {
        self.open.lock().by_credential.values().cloned().collect()
    }

    /// The sessions that something is open of.
    pub fn sessions(&self) -> HashSet<SessionNumber> {
        let open = self.open.lock();
        let of = |one: &Arc<Holding>| match one.side {
            Side::Agent(_, session) => session,
            Side::Management => None,
        };
        open.by_credential.values().filter_map(of).collect()
    }

    /// How many things are open.
    pub fn count(&self) -> usize {
        self.open.lock().by_credential.len()
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.holdings.open.lock().by_credential.remove(&self.key);
        self.holding.flight.land();
    }
}
