//! What a revocation bars beside the sessions that it ends: whose credentials are behind them, and which of those open
//! nothing more.

use std::collections::HashSet;

use sessiond_core::actor::ActorKind;
use sessiond_core::api_key::{ApiKey, ApiKeyEvent};
use sessiond_core::bar::{Bar, BarEvent, BarPlaced, KeepOut};
use sessiond_core::barring::{BarScope, Barring, Credentials};
use sessiond_core::change::Change;
use sessiond_core::ids::{
    OrganizationNumber, PrincipalNumber, RevocationNumber, SessionNumber, StreamId, StreamKind,
};
use sessiond_core::principal::{Principal, PrincipalEvent, Standing};
use sessiond_core::scope::Scopes;
use sessiond_core::streams::Registered;
use sessiond_store::SideWrite;
use uuid::Uuid;

use super::Draft;
use crate::committer::{BeginRevocation, Origin};
use crate::error::Error;
use crate::gate::{Behind, ToKeepOut};

/// Most principals and API keys that one revocation bars one by one, and most access tokens. All that an application or
/// the organization has is barred in one step, however many they are.
const MOST: usize = 1_000;
const MOST_TOKENS: usize = 10_000;

/// What a revocation is to bar one by one, and what is said of it.
pub(super) struct Plan {
    principals: Vec<PrincipalNumber>,
    tokens: Vec<Uuid>,
    keys: Vec<i64>,
    keep_out: ToKeepOut,
    pub said: Barring,
}

impl Draft<'_> {
    /// What a revocation that begins now bars of what is behind the sessions that it covers.
    pub(super) fn plan_to_bar(
        &self,
        origin: &Origin,
        beginning: &BeginRevocation,
        covered: &[SessionNumber],
    ) -> Result<Plan, Error> {
        let BeginRevocation { organization, filter, bar, .. } = beginning;
        let scope = bar.scope(filter);
        let behind = self.behind(covered, filter.whole_principals());
        let tokens = self.tokens_behind(*organization, &behind);
        let keys = self.keys_behind(*organization, scope, &behind);
        let own = Some(origin.actor.id).filter(|_| origin.actor.kind == ActorKind::ApiKey);
        // Whoever asks is to hear the answer.
        let revoked = keys.iter().filter(|key| bar.keys && Some(key.id) != own);
        if let Some(authority) = &origin.authority {
            // To end a key is to take its rights.
            let rights = revoked.clone().map(|key| Scopes::parse(&key.scopes).0);
            for rights in rights {
                Error::unless_may_give(authority.scopes, rights)?;
            }
        }
        let revoked: Vec<_> = revoked.map(|key| key.number).collect();
        let keep_out = self.plan_to_keep_out(beginning, &behind, &keys)?;
        let asleep = keys.iter().filter(|key| keep_out.has_key(key) && !revoked.contains(&key.number));
        let closed = revoked.len() + asleep.count();
        let found = Credentials {
            principals: behind.principals.len() as u64,
            access_tokens: tokens.len() as u64,
            api_keys: keys.len() as u64,
        };
        let presented = tokens.iter().filter(|token| behind.presented.contains(*token)).count() as u64;
        let kept_out = beginning.keep_out.as_ref().map(|terms| keep_out.said(terms.until));
        let said = Barring { kept_out, ..Barring::of(scope, found, presented, closed as u64) };
        let (principals, tokens) = match scope {
            BarScope::Matched => {
                // Where it is everything of principals, the revocation bars those anyway.
                let others =
                    behind.principals.into_iter().filter(|one| !filter.whole_principals().contains(one));
                (others.collect(), tokens.into_iter().collect())
            }
            _ => (vec![], vec![]),
        };
        not_too_many(principals.len(), tokens.len(), revoked.len())?;
        Ok(Plan { principals, tokens, keys: revoked, keep_out, said })
    }

    /// Whom a revocation keeps out from now on, if it does that at all. To keep somebody out is to take the rights of its
    /// credentials.
    fn plan_to_keep_out(
        &self,
        beginning: &BeginRevocation,
        behind: &Behind,
        keys: &[ApiKey],
    ) -> Result<ToKeepOut, Error> {
        let Some(KeepOut { placer, .. }) = &beginning.keep_out else { return Ok(ToKeepOut::default()) };
        let keep_out = self.known.to_keep_out(behind, placer);
        // Nobody reads words about the run of a schedule, and its sessions end all the same.
        let asked = beginning.schedule.is_none();
        if asked && keep_out.without_oneself && keep_out.principals.is_empty() {
            let message = "this would keep out nobody but yourself, and whoever is barred lifts no bar: leave out until and \
                           message, or let somebody else do it";
            return Err(Error::field("principal", message));
        }
        let clients = keep_out.clients().map(|client| self.known.rights_of(client));
        let asleep = keys.iter().filter(|key| keep_out.has_key(key));
        for rights in clients.chain(asleep.map(|key| Scopes::parse(&key.scopes).0)) {
            Error::unless_may_give(placer.scopes, rights)?;
        }
        not_too_many(keep_out.principals.len(), 0, 0)?;
        self.room_for_more::<Bar>(beginning.organization, keep_out.principals.len())?;
        Ok(keep_out)
    }

    /// Carries a plan out, in the transaction that begins the revocation.
    pub(super) fn bar_one_by_one(
        &mut self,
        origin: &Origin,
        beginning: &BeginRevocation,
        number: RevocationNumber,
        plan: Plan,
    ) -> Result<(), Error> {
        let organization = beginning.organization;
        for token in plan.tokens {
            self.write_beside(SideWrite::BarAccessToken(token));
        }
        for principal in plan.principals {
            let barred = PrincipalEvent::CredentialsBarred(Principal { id: self.principal_id(principal) });
            self.change_stream_for::<Standing>(origin, organization, principal.0, &barred, number)?;
        }
        for key in plan.keys {
            self.change_stream_for::<ApiKey>(origin, organization, key, &ApiKeyEvent::Revoked, number)?;
        }
        let Some(terms) = &beginning.keep_out else { return Ok(()) };
        for (place, (principal, client)) in plan.keep_out.principals.into_iter().enumerate() {
            let placed = BarEvent::Placed(Box::new(BarPlaced {
                id: Uuid::from_u128(beginning.id.as_u128().wrapping_add(place as u128 + 1)),
                principal,
                client,
                until: terms.until,
                message: terms.message.clone(),
                note: beginning.note.clone(),
                revocation: number,
            }));
            let bar = self.next_stream(StreamKind::Bar).number;
            self.stream_event::<Bar>(origin, organization, bar, &placed, Some(number))?;
        }
        Ok(())
    }

    fn behind(&self, covered: &[SessionNumber], principals: &[PrincipalNumber]) -> Behind {
        let mut behind = Behind::default();
        behind.principals.extend(principals);
        for session in covered.iter().filter_map(|number| self.session(*number)) {
            self.known.add_behind(&mut behind, session);
        }
        behind
    }

    /// The access tokens behind sessions that open anything, those of this batch too.
    fn tokens_behind(&self, organization: OrganizationNumber, behind: &Behind) -> HashSet<Uuid> {
        let known = self.known.tokens_behind(organization, behind, self.now);
        let drafted = self.changes.iter().filter_map(|(change, _)| match change {
            Change::AccessToken(token) if behind.has_token(token) => Some(token),
            _ => None,
        });
        known.chain(drafted).map(|token| token.id).filter(|token| !self.token_barred(*token)).collect()
    }

    /// The API keys behind sessions; where everything of the organization is meant, all that open any.
    fn keys_behind(&self, organization: OrganizationNumber, scope: BarScope, behind: &Behind) -> Vec<ApiKey> {
        let drafted = self.streams.values().filter_map(ApiKey::of);
        let known = self.known.streams::<ApiKey>().filter(|key| {
            !self.streams.contains_key(&StreamId { kind: StreamKind::ApiKey, number: key.number })
        });
        let everything = scope == BarScope::Organization;
        let good =
            |key: &&ApiKey| key.organization == organization && behind.has_key(key, everything, self.now);
        known.chain(drafted).filter(good).cloned().collect()
    }

    /// The public id of a principal, of one that this batch met too.
    fn principal_id(&self, number: PrincipalNumber) -> Uuid {
        let drafted = self.changes.iter().find_map(|(change, _)| match change {
            Change::Principal(principal) if principal.number == number => Some(principal.id()),
            _ => None,
        });
        drafted.unwrap_or_else(|| self.known.principal_id(number))
    }
}

/// That a revocation does not bar more one by one than fits into the transaction that begins it.
pub fn not_too_many(principals: usize, tokens: usize, keys: usize) -> Result<(), Error> {
    if principals + keys <= MOST && tokens <= MOST_TOKENS {
        return Ok(());
    }
    let message = format!(
        "that would bar {principals} principals, {keys} API keys and {tokens} access tokens one by one; at most {MOST} \
         principals and keys and {MOST_TOKENS} tokens are barred so. Say less with the filter, or revoke all of an \
         application or of the organization, which bars everything at once; nothing was done"
    );
    Err(Error::TooManyToBar(message))
}
