//! Which sessions: the one grammar that lists, counts and revocations share.

use serde::{Deserialize, Serialize};

use crate::Time;
use crate::ids::{ApplicationNumber, PrincipalNumber, SessionNumber};
use crate::kind::Kind;
use crate::phase::Stage;
use crate::session::Session;
use crate::status::{DerivedStatus, derived_status};

/// Sessions that fit every field that is set. Stored with a revocation: add optional fields, never change one. The application
/// stays the first, because a store may find revocations by the beginning of that text.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Filter {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub application: Option<ApplicationNumber>,
    /// Any of these; empty means any at all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub applications: Vec<ApplicationNumber>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionNumber>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub principal: Option<PrincipalNumber>,
    /// Any of these, where several are meant; empty means any at all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub principals: Vec<PrincipalNumber>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<Kind>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// The client's own name: `clientInfo.name`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    /// What it is connected to within its application.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resource: Option<String>,
    /// Any of these; empty means any at all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub stage: Vec<Stage>,
    /// Any of these; empty means any at all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub status: Vec<DerivedStatus>,
    /// Connected at or after this instant.
    #[serde(with = "chrono::serde::ts_milliseconds_option", skip_serializing_if = "Option::is_none")]
    pub connected_after: Option<Time>,
    /// Connected before this instant.
    #[serde(with = "chrono::serde::ts_milliseconds_option", skip_serializing_if = "Option::is_none")]
    pub connected_before: Option<Time>,
    /// Last active at or after this instant.
    #[serde(with = "chrono::serde::ts_milliseconds_option", skip_serializing_if = "Option::is_none")]
    pub last_active_after: Option<Time>,
    /// Last active before this instant.
    #[serde(with = "chrono::serde::ts_milliseconds_option", skip_serializing_if = "Option::is_none")]
    pub last_active_before: Option<Time>,
    /// All but these.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub except: Vec<SessionNumber>,
    /// Of work that was ended from outside, only what is known to have ended where it ran, or ended at this instant or
    /// before. Asked by lists alone: no revocation is about what has ended.
    #[serde(skip)]
    pub settled_by: Option<Time>,
}

/// What a filter asks of a session beyond its fold: facts that can be erased, and a sign of life not yet in the log.
#[derive(Debug, Clone, Copy, Default)]
pub struct Facts<'a> {
    pub hostname: Option<&'a str>,
    pub client: Option<&'a str>,
    pub seen_at: Option<Time>,
}

impl Filter {
    /// Whether a session fits, at an instant.
    pub fn fits(&self, session: &Session, facts: &Facts<'_>, at: Time) -> bool {
        let connected = session.connected_at;
        let last = facts.seen_at.map_or(session.last_active_at, |seen| seen.max(session.last_active_at));
        self.application.is_none_or(|application| application == session.application)
            && (self.applications.is_empty() || self.applications.contains(&session.application))
            && self.session.is_none_or(|number| number == session.number)
            && self.principal.is_none_or(|principal| principal == session.principal)
            && (self.principals.is_empty() || self.principals.contains(&session.principal))
            && self.kind.is_none_or(|kind| kind == session.kind)
            && self.connected_after.is_none_or(|after| connected >= after)
            && self.connected_before.is_none_or(|before| connected < before)
            && self.last_active_after.is_none_or(|after| last >= after)
            && self.last_active_before.is_none_or(|before| last < before)
            && self.hostname.as_deref().is_none_or(|hostname| facts.hostname == Some(hostname))
            && self.client.as_deref().is_none_or(|client| facts.client == Some(client))
            && self.resource.as_deref().is_none_or(|resource| session.resource.as_deref() == Some(resource))
            && (self.stage.is_empty() || self.stage.contains(&session.stage(at)))
            && self.settled_by.is_none_or(|by| session.over(at).is_none_or(|ended| ended.known_by(by)))
            && !self.except.contains(&session.number)
            && self.has_status(derived_status(session, facts.seen_at, at))
    }

    /// Whether sessions of this status are wanted.
    pub fn has_status(&self, status: DerivedStatus) -> bool {
        self.status.is_empty() || self.status.contains(&status)
    }

    /// Everything of one application, and nothing else is said: such a revocation bars the application's credentials.
    pub fn whole_application(&self) -> Option<ApplicationNumber> {
        let number = self.application?;
        (*self == Self { application: Some(number), ..Self::default() }).then_some(number)
    }

    /// The principals of whom everything is meant, in all applications, and nothing else is said.
    pub fn whole_principals(&self) -> &[PrincipalNumber] {
        let principals = self.principals.clone();
        let whole = *self == Self { principal: self.principal, principals, ..Self::default() };
        match (whole, &self.principal) {
            (false, _) => &[],
            (true, Some(principal)) => std::slice::from_ref(principal),
            (true, None) => &self.principals,
        }
    }

    /// Everything of the organization.
    pub fn whole_organization(&self) -> bool {
        *self == Self::default()
    }

    /// Whether it depends on the clock, on activity or on how far work has come, so that what it covers is settled at one
    /// instant.
    pub fn moves(&self) -> bool {
        !self.status.is_empty()
            || !self.stage.is_empty()
            || self.last_active_after.is_some()
            || self.last_active_before.is_some()
    }
}
