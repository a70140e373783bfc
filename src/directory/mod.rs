//! The application, as far as the directory goes: a struct a subject, over one context.

mod access_tokens;
mod admission_hooks;
mod api_keys;
mod applications;
mod erasure;
mod machines;
mod organizations;
mod principals;
mod public_ids;
mod recovery;
mod retention_settings;
mod service_accounts;
mod trusted_issuers;
mod upstream_settings;
mod webhooks;

use std::cmp::Reverse;
use std::sync::Arc;

use chrono::TimeDelta;
use sessiond_core::Time;
use sessiond_core::caller::Caller;
use sessiond_core::scope::{Scope, Scopes};
use sessiond_core::stream::SecretRotated;
use uuid::Uuid;

pub use access_tokens::{AccessTokens, Issued};
pub use admission_hooks::{AdmissionHooks, NewAdmissionHook};
pub use api_keys::{ApiKeys, KeyView, NewKey, User};
pub use applications::{Applications, NewApplication, rights_of};
pub use machines::{ChangedMachine, MachineSecret, Machines, NewMachine};
pub use organizations::{Chosen, CreatedOrganization, Credentials, Organizations, Plan};
pub use principals::{Person, PersonQuery, Principals};
pub use public_ids::PublicIds;
pub use recovery::{LeftOpen, Recovery, Reset};
pub use retention_settings::{EndedBefore, RetentionSettings};
pub use service_accounts::ServiceAccounts;
pub use trusted_issuers::{NewIssuer, TrustedIssuers};
pub use upstream_settings::{NewUpstream, UpstreamSecret, UpstreamSettings};
pub use webhooks::{NewWebhook, SigningKeys, Webhooks};

use crate::context::AppContext;
use crate::error::Error;

/// Longest name or description.
const LONGEST: usize = 200;
/// Shortest secret that may be chosen from outside.
pub const SHORTEST_SECRET: usize = 32;

/// The subjects, for whoever needs several of them. Each is cheap to clone, for whoever needs one.
pub struct Directory {
    pub organizations: Organizations,
    pub applications: Applications,
    /// The MCP servers behind applications' gateways.
    pub upstream_settings: UpstreamSettings,
    pub service_accounts: ServiceAccounts,
    pub access_tokens: AccessTokens,
    pub api_keys: ApiKeys,
    /// The people and clients behind sessions.
    pub principals: Principals,
    /// Whose access tokens organizations take beside ours.
    pub trusted_issuers: TrustedIssuers,
    pub webhooks: Webhooks,
    pub machines: Machines,
    /// What media servers call before they let somebody in.
    pub admission_hooks: AdmissionHooks,
    pub public_ids: PublicIds,
    /// For whoever stands at the console while the service is stopped.
    pub recovery: Recovery,
    /// How long organizations keep things.
    pub retention_settings: RetentionSettings,
}

impl Directory {
    pub fn new(context: &Arc<AppContext>) -> Self {
        Self {
            organizations: Organizations::new(context.clone()),
            applications: Applications::new(context.clone()),
            upstream_settings: UpstreamSettings::new(context.clone()),
            service_accounts: ServiceAccounts::new(context.clone()),
            access_tokens: AccessTokens::new(context.clone()),
            api_keys: ApiKeys::new(context.clone()),
            principals: Principals::new(context.clone()),
            trusted_issuers: TrustedIssuers::new(context.clone()),
            webhooks: Webhooks::new(context.clone()),
            machines: Machines::new(context.clone()),
            admission_hooks: AdmissionHooks::new(context.clone()),
            public_ids: PublicIds::new(context.clone()),
            recovery: Recovery::new(context.clone()),
            retention_settings: RetentionSettings::new(context.clone()),
        }
    }
}

/// Something that was made, with the secret that is shown this once.
pub struct WithSecret<T> {
    pub made: T,
    pub secret: Option<String>,
}

/// Where a page of a directory list begins, and how long it is.
#[derive(Debug, Clone, Copy)]
pub struct Slice {
    pub after: Option<(Time, Uuid)>,
    pub limit: u32,
}

impl Slice {
    /// Cuts the page out of all these things, the newest first; and tells whether there are more. `made` tells when a thing
    /// was made, and its id.
    fn page<T>(self, all: impl Iterator<Item = T>, made: impl Fn(&T) -> (Time, Uuid)) -> (Vec<T>, bool) {
        let mut page: Vec<T> = all.filter(|one| self.after.is_none_or(|after| made(one) < after)).collect();
        page.sort_unstable_by_key(|one| Reverse(made(one)));
        let more = page.len() > self.limit as usize;
        page.truncate(self.limit as usize);
        (page, more)
    }
}

fn checked_name(field: &'static str, name: &str) -> Result<String, Error> {
    let name = name.trim();
    if name.is_empty() || name.chars().count() > LONGEST || name.chars().any(char::is_control) {
        let message = format!("{field} must be 1 to {LONGEST} characters, without control characters");
        return Err(Error::field(field, message));
    }
    Ok(name.to_owned())
}

/// Reads scopes by their words; an unknown word is refused.
fn known_scopes(field: &'static str, words: &[String]) -> Result<Scopes, Error> {
    let mut scopes = Scopes::default();
    for word in words {
        scopes = scopes.with(Scope::from_word(word).ok_or_else(|| Error::field(field, unknown_scope(word)))?);
    }
    Ok(scopes)
}

/// Reads scopes for an OAuth client, to which the words of other surfaces are refused: they are for API keys.
fn client_scopes(field: &'static str, words: &[String]) -> Result<Scopes, Error> {
    let scopes = known_scopes(field, words)?;
    match scopes.iter().find(|scope| scope.is_for_keys()) {
        Some(scope) => Err(Error::field(field, format!("{} is for API keys only", scope.word()))),
        None => Ok(scopes),
    }
}

/// Checks that a caller gives away, or takes from others, no more than it has.
fn check_gift(caller: &Caller, scopes: Scopes) -> Result<(), Error> {
    Error::unless_may_give(caller.scopes, scopes)
}

/// Longest time for which the secret before a rotation may be good beside the new one.
const LONGEST_OVERLAP: TimeDelta = TimeDelta::days(30);

/// Until when the secret before is to be good beside the new one, as it was asked for. A request that is sent again after
/// that time is answered as it was.
fn overlap(context: &AppContext, caller: &Caller, wanted: Option<Time>) -> Result<SecretRotated, Error> {
    let now = context.clock.now();
    if !caller.repeats() && wanted.is_some_and(|at| at <= now || at > now + LONGEST_OVERLAP) {
        let message = "expireOldAt must be in the future and within 30 days; leave it out to have the old secret end now";
        return Err(Error::field("expireOldAt", message));
    }
    Ok(SecretRotated { old_until: wanted })
}

fn unknown_scope(word: &str) -> String {
    let all: Vec<_> = Scope::ALL.into_iter().map(Scope::word).collect();
    format!("unknown scope {word:?}; there are: {}", all.join(", "))
}
