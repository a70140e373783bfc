//! What a revocation bars beside the sessions that it ends, and what it leaves alone.

use serde::{Deserialize, Serialize};

use crate::Time;
use crate::filter::Filter;

/// Whose credentials a revocation bars beyond those that its filter bars by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BarOptions {
    /// What was issued before to the principals and OAuth clients of the sessions that it matches.
    #[serde(skip_serializing_if = "is_false")]
    pub matched: bool,
    /// The API keys of those principals, and the keys by which those sessions were opened, are revoked.
    #[serde(skip_serializing_if = "is_false")]
    pub keys: bool,
}

impl BarOptions {
    /// Nothing but what the filter bars by itself.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// Whose older credentials a revocation with this filter bars.
    pub fn scope(self, filter: &Filter) -> BarScope {
        if filter.whole_organization() {
            BarScope::Organization
        } else if filter.whole_application().is_some() {
            BarScope::Application
        } else if self.matched {
            BarScope::Matched
        } else if !filter.whole_principals().is_empty() {
            BarScope::Principal
        } else if filter.session.is_some() {
            BarScope::Session
        } else {
            BarScope::Nothing
        }
    }
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde passes it so
fn is_false(flag: &bool) -> bool {
    !*flag
}

/// What became of the credentials behind the sessions of a revocation, at the moment it began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Barring {
    pub scope: BarScope,
    pub barred: Credentials,
    /// They open sessions as before.
    pub left: Credentials,
    /// Who is kept out from then on, whatever it presents.
    #[serde(rename = "keptOut", default, skip_serializing_if = "Option::is_none")]
    pub kept_out: Option<KeptOut>,
}

/// Bars that a revocation placed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct KeptOut {
    pub principals: u64,
    /// Of those, OAuth clients and API keys that act for themselves.
    pub clients: u64,
    /// OAuth clients that opened these sessions for others: they may be everybody's, and go on.
    pub clients_left: u64,
    #[serde(with = "chrono::serde::ts_milliseconds_option", skip_serializing_if = "Option::is_none")]
    pub until: Option<Time>,
    /// Whoever asked is behind these sessions too, and was left out.
    #[serde(skip_serializing_if = "is_false")]
    pub without_oneself: bool,
}

impl Barring {
    /// Of what is behind the sessions, `found`; of its access tokens, `presented` were last presented with them, and of
    /// its API keys, `keys` are revoked.
    pub fn of(scope: BarScope, found: Credentials, presented: u64, keys: u64) -> Self {
        let Credentials { principals, access_tokens, .. } = found;
        let (principals, access_tokens) = match scope {
            BarScope::Organization | BarScope::Application | BarScope::Matched => (principals, access_tokens),
            BarScope::Principal => (principals, 0),
            BarScope::Session => (0, presented),
            BarScope::Nothing => (0, 0),
        };
        let left = Credentials {
            principals: found.principals.saturating_sub(principals),
            access_tokens: found.access_tokens.saturating_sub(access_tokens),
            api_keys: found.api_keys.saturating_sub(keys),
        };
        let barred = Credentials { principals, access_tokens, api_keys: keys };
        Self { scope, barred, left, kept_out: None }
    }
}

/// Whose older credentials a revocation bars. Never change a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BarScope {
    /// All of the organization's.
    Organization,
    /// All of them, from this one application.
    Application,
    /// One principal's.
    Principal,
    /// Those of the principals and OAuth clients of the sessions that it matches.
    Matched,
    /// The access tokens by which one session was last kept alive.
    Session,
    Nothing,
}

/// Numbers of credentials, and of those whose they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Credentials {
    /// Principals: what was issued to them, or acts for them.
    pub principals: u64,
    /// Access tokens of OAuth clients.
    pub access_tokens: u64,
    pub api_keys: u64,
}
