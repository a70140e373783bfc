//! What a revocation bars beside the sessions that it ends: who may ask for it, and what it would come to.

use sessiond_core::Time;
use sessiond_core::actor::ActorKind;
use sessiond_core::api_key::ApiKey;
use sessiond_core::bar::{KeepOut, LONGEST_MESSAGE};
use sessiond_core::barring::{BarOptions, BarScope, Barring, Credentials};
use sessiond_core::caller::Caller;
use sessiond_core::filter::Filter;
use sessiond_core::ids::{Position, RevocationNumber};
use sessiond_core::reason::Reason;
use sessiond_core::revocation::Revocation;
use sessiond_core::scope::Scope;
use uuid::Uuid;

use super::Revocations;
use crate::committer::not_too_many;
use crate::error::Error;
use crate::gate::ToKeepOut;

/// Most principals, clients and keys that a preview names of each.
const NAMED: usize = 100;

/// What is said of bars that are to be placed.
#[derive(Debug, Clone, Default)]
pub struct BarTerms {
    pub until: Option<Time>,
    /// What whoever is kept out reads.
    pub message: Option<String>,
}

/// Whose credentials a revocation would bar, one by one.
#[derive(Debug, Default)]
pub struct WouldBar {
    pub principals: Vec<Uuid>,
    /// Ids of OAuth clients.
    pub clients: Vec<String>,
    /// API keys, by id and name.
    pub keys: Vec<(Uuid, String)>,
}

/// The error for an application's own token: what bars somebody holds in the whole organization.
pub(super) fn confined() -> Error {
    let message = "This credential belongs to one application, and a bar holds in the whole organization; use a service \
                   account's";
    Error::Denied { code: "confined_to_application", message: message.to_owned() }
}

/// Checks what is said of bars that are placed at some moment.
fn check_terms(terms: &BarTerms, placed_at: Time) -> Result<(), Error> {
    if terms.until.is_some_and(|until| until <= placed_at) {
        let message = format!(
            "until must lie after {}, when the bar would be placed: a bar that is over keeps nobody out",
            placed_at.format("%Y-%m-%d %H:%M:%S UTC")
        );
        return Err(Error::field("until", message));
    }
    if terms.message.as_ref().is_some_and(|message| message.chars().count() > LONGEST_MESSAGE) {
        return Err(Error::field("message", format!("message must be at most {LONGEST_MESSAGE} characters")));
    }
    Ok(())
}

/// Checks that a caller may have barred what it asks for, and that the filter is wide enough for it.
pub(super) fn may_bar(caller: &Caller, filter: &Filter, bar: BarOptions) -> Result<(), Error> {
    if bar.is_none() {
        return Ok(());
    }
    if caller.confined_to.is_some() {
        return Err(confined());
    }
    if bar.keys && !caller.scopes.has(Scope::ManagementAll) {
        return Err(Error::Forbidden { missing: Scope::ManagementAll.word().to_owned() });
    }
    if bar.keys && matches!(bar.scope(filter), BarScope::Session | BarScope::Nothing) {
        let message = "includeKeys goes with bar: true, unless everything of a principal, an application or the \
                       organization is meant: keys are no use to bar while the tokens beside them are good";
        return Err(Error::field("includeKeys", message));
    }
    Ok(())
}

impl Revocations {
    /// Checks that a revocation may keep out the principals of what it matches, as it is said, if that is said. It begins at
    /// some moment, now or later.
    pub(super) fn may_keep_out(
        &self,
        caller: &Caller,
        filter: &Filter,
        bar: BarOptions,
        terms: Option<BarTerms>,
        begins_at: Time,
    ) -> Result<Option<KeepOut>, Error> {
        let Some(terms) = terms else { return Ok(None) };
        // It holds in the whole organization, as what `bar` does.
        may_bar(caller, filter, BarOptions { matched: true, ..bar })?;
        if !matches!(bar.scope(filter), BarScope::Matched | BarScope::Principal) {
            let message = "until and message keep out the principals behind the sessions that fit: they go with bar: true \
                           and a filter, or with a filter that is one principal's";
            return Err(Error::field(if terms.until.is_some() { "until" } else { "message" }, message));
        }
        if !caller.repeats() {
            check_terms(&terms, begins_at)?;
        }
        let BarTerms { until, message } = terms;
        Ok(Some(KeepOut { until, message, placer: self.context.gate.known().placer(caller) }))
    }

    /// Tells what would become of the credentials behind the sessions of a filter, by the same rules as when it is done.
    pub(super) fn would_bar(
        &self,
        caller: &Caller,
        filter: &Filter,
        bar: BarOptions,
        keep_out: Option<&KeepOut>,
    ) -> Result<(Barring, WouldBar), Error> {
        let now = self.context.clock.now();
        let (organization, scope) = (caller.organization, bar.scope(filter));
        let everything = scope == BarScope::Organization;
        let what = (filter, Reason::Revoked);
        let planned = Revocation::planned(RevocationNumber(0), organization, what, Position(i64::MAX), now);
        let known = self.context.gate.known();
        let mut behind = known.behind(&known.covered(&planned));
        behind.principals.extend(filter.whole_principals());
        let (mut tokens, mut presented) = (0, 0);
        for token in known.tokens_behind(organization, &behind, now) {
            tokens += 1;
            presented += u64::from(behind.presented.contains(&token.id));
        }
        let keys: Vec<_> = known
            .streams::<ApiKey>()
            .filter(|key| key.organization == organization && behind.has_key(key, everything, now))
            .collect();
        let own = Some(caller.actor.id).filter(|_| caller.actor.kind == ActorKind::ApiKey);
        let revoked: Vec<_> = keys.iter().filter(|key| bar.keys && Some(key.id) != own).collect();
        let found = Credentials {
            principals: behind.principals.len() as u64,
            access_tokens: tokens as u64,
            api_keys: keys.len() as u64,
        };
        let whom = match keep_out {
            Some(keep_out) => known.to_keep_out(&behind, &keep_out.placer),
            None => ToKeepOut::default(),
        };
        let is_revoked = |key: &ApiKey| revoked.iter().any(|one| one.number == key.number);
        let asleep = keys.iter().filter(|key| whom.has_key(key) && !is_revoked(key));
        let closed = revoked.len() + asleep.count();
        let kept_out = keep_out.map(|keep_out| whom.said(keep_out.until));
        let barring = Barring { kept_out, ..Barring::of(scope, found, presented, closed as u64) };
        if scope == BarScope::Matched {
            not_too_many(behind.principals.len(), tokens, revoked.len())?;
        }
        let mut would = WouldBar {
            keys: revoked.iter().take(NAMED).map(|key| (key.id, key.name.clone())).collect(),
            ..WouldBar::default()
        };
        if matches!(scope, BarScope::Matched | BarScope::Principal) {
            would.principals =
                behind.principals.iter().take(NAMED).map(|number| known.principal_id(*number)).collect();
        }
        if scope == BarScope::Matched {
            would.clients =
                behind.clients.iter().take(NAMED).filter_map(|one| known.client_id_of(*one)).collect();
        }
        Ok((barring, would))
    }
}
