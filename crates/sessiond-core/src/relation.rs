//! Whose a session is: the one place where every look at a session and every act on one is judged by who asks. A scope
//! opens a way in; whose things are behind it is decided here. What acts on a session takes [`MayAct`], what shows one
//! takes [`MayLook`], and nothing but a judgement makes either, so that no handler can forget to ask.

use std::ops::Deref;

use crate::caller::{Caller, CredentialKind};
use crate::ids::PrincipalNumber;
use crate::kind::Kind;
use crate::scope::Scope;
use crate::session::Session;

/// By which way in a session is asked for. Each has kinds of its own, and acts on these alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Whoever reads or ends an organization's sessions: of every kind.
    Management,
    /// A person's own sessions, of every kind, whatever else the person may.
    Person,
    /// What agents report of themselves over REST.
    Agents,
    Media,
    Webui,
    Task,
    /// Either of the two.
    Work,
    Terminals,
}

impl Way {
    /// The kinds that are reached by it.
    pub fn kinds(self) -> &'static [Kind] {
        match self {
            Self::Management | Self::Person => &Kind::ALL,
            Self::Agents => &[Kind::Agent, Kind::Mcp],
            Self::Media => &[Kind::Media],
            Self::Webui => &[Kind::Webui],
            Self::Task => &[Kind::Task],
            Self::Work => &[Kind::Webui, Kind::Task],
            Self::Terminals => &[Kind::Terminal],
        }
    }

    fn reaches(self, kind: Kind) -> bool {
        self.kinds().contains(&kind)
    }
}

/// A session that the caller may know of.
#[derive(Debug, Clone)]
pub struct MayLook(Session);

/// A session that the caller may keep alive, change and end.
#[derive(Debug, Clone)]
pub struct MayAct(Session);

/// Why a session is out of reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutOfReach {
    /// The caller may not even know of it: it is answered as what there is not.
    Unknown,
    /// It is the caller's, but of a kind that this way in is not for.
    OtherKind(Kind),
}

impl MayLook {
    /// Whether the caller may know of a session, by this way.
    pub fn judge(caller: &Caller, way: Way, session: Session) -> Result<Self, OutOfReach> {
        let all = caller.looks_at_all() && way != Way::Person;
        related(caller, &session, all)?;
        // Who reads an organization's sessions reads them on every surface that goes by ids of any kind.
        let reads = way == Way::Agents && caller.has_any(&EVERYBODYS);
        if reads { Ok(Self(session)) } else { of_its_kind(way, &session).map(|()| Self(session)) }
    }
}

impl MayAct {
    /// Whether the caller may act on a session, by this way: to look is not enough.
    pub fn judge(caller: &Caller, way: Way, session: Session) -> Result<Self, OutOfReach> {
        let all = caller.acts_on_all() && way != Way::Person;
        related(caller, &session, all)?;
        of_its_kind(way, &session).map(|()| Self(session))
    }
}

impl Deref for MayLook {
    type Target = Session;

    fn deref(&self) -> &Session {
        &self.0
    }
}

impl Deref for MayAct {
    type Target = Session;

    fn deref(&self) -> &Session {
        &self.0
    }
}

/// The relation itself: the session's own token, the person's credential, the application's, the organization's. With
/// `all` a person's credential reaches what is the organization's, too.
fn related(caller: &Caller, session: &Session, all: bool) -> Result<(), OutOfReach> {
    let own = match caller.credential.kind {
        CredentialKind::Session(number) => number == session.number,
        _ => all || caller.principal.is_none_or(|person| person == session.principal),
    };
    let within = session.organization == caller.organization && caller.may_touch(session.application);
    if own && within { Ok(()) } else { Err(OutOfReach::Unknown) }
}

fn of_its_kind(way: Way, session: &Session) -> Result<(), OutOfReach> {
    match way {
        _ if way.reaches(session.kind) => Ok(()),
        // Ids of other surfaces are written so that they name nothing else.
        Way::Agents => Err(OutOfReach::OtherKind(session.kind)),
        _ => Err(OutOfReach::Unknown),
    }
}

/// The scopes with which a credential sees everybody's sessions of its organization.
const EVERYBODYS: [Scope; 3] = [Scope::SessionsRead, Scope::SessionsWrite, Scope::ManagementAll];
/// The scopes with which it acts on them.
const EVERYBODYS_TO_END: [Scope; 2] = [Scope::SessionsWrite, Scope::ManagementAll];

/// Whom a reader knows by name. Everybody else is an id to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Acquaintance {
    /// Whoever may read the organization's principals.
    Everybody,
    /// A person, by the person's own credential.
    Oneself(PrincipalNumber),
    Nobody,
}

impl Acquaintance {
    /// Whether it is told what a principal is called.
    pub fn knows(self, principal: PrincipalNumber) -> bool {
        match self {
            Self::Everybody => true,
            Self::Oneself(own) => own == principal,
            Self::Nobody => false,
        }
    }
}

impl Caller {
    /// Whom the caller knows by name: who may read principals knows them all, a person itself.
    pub fn acquaintance(&self) -> Acquaintance {
        match self.person() {
            _ if self.manages_organization() => Acquaintance::Everybody,
            Some(person) => Acquaintance::Oneself(person),
            None => Acquaintance::Nobody,
        }
    }

    /// Whether the caller manages the whole organization, its principals among the rest. What is confined to one application
    /// manages nothing beside it.
    pub fn manages_organization(&self) -> bool {
        self.scopes.has(Scope::ManagementAll) && self.confined_to.is_none()
    }

    fn has_any(&self, scopes: &[Scope]) -> bool {
        scopes.iter().any(|scope| self.scopes.has(*scope))
    }

    /// Whether the caller may know of everybody's sessions of its organization: a credential that acts for a person
    /// knows of that person's alone, unless it may read or end all sessions anyway.
    pub fn looks_at_all(&self) -> bool {
        self.principal.is_none() || self.has_any(&EVERYBODYS)
    }

    /// Whether the caller may act on everybody's sessions of its organization. To read them all is no right to that.
    pub fn acts_on_all(&self) -> bool {
        self.principal.is_none() || self.has_any(&EVERYBODYS_TO_END)
    }

    /// Whether the caller may change what belongs to the whole organization on a surface that has no scope for that.
    pub fn acts_for_organization(&self) -> bool {
        self.principal.is_none() || self.scopes.has(Scope::ManagementAll)
    }
}
