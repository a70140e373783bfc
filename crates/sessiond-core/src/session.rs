//! A session's rules: what may happen to it (`decide`) and what has (`evolve`).

pub mod earlier;
pub mod ended;
pub mod event;
pub mod reading;

use chrono::TimeDelta;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::Time;
use crate::actor::Actor;
use crate::command::{Command, Connect};
use crate::ids::{ApplicationNumber, Head, OrganizationNumber, Position, PrincipalNumber, SessionNumber};
use crate::kind::Kind;
use crate::personal::personal_digest;
use crate::phase::{Outcome, Phase, Stage};
use crate::policy::{Policy, Preset, SessionPolicy};
use crate::presented::Presented;
use crate::reason::Reason;
use crate::session::ended::Ended;
use crate::session::event::{
    ActivityRecorded, Connected, Counts, Disconnected, Expired, PhaseChanged, SessionEvent, TokenRenewed,
};
use crate::throughput::{Reading, Sample, Throughput};

/// The fold of a session's events: everything a decision about it needs, and nothing personal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Session {
    pub number: SessionNumber,
    pub id: Uuid,
    pub organization: OrganizationNumber,
    pub application: ApplicationNumber,
    pub principal: PrincipalNumber,
    /// Who opened it.
    pub owner: Actor,
    pub kind: Kind,
    pub policy: SessionPolicy,
    pub connected_at: Time,
    /// Position of `Connected`: a revocation whose fence lies before it does not cover the session.
    pub connected_at_position: Position,
    pub lifetime_ends_at: Time,
    pub token_expires_at: Time,
    /// The value of `token_expires_at` that was announced as expired, if any.
    pub expiry_announced: Option<Time>,
    pub last_active_at: Time,
    pub total: Counts,
    /// The access token last recorded with it; revoking the session bars it.
    pub credential: Option<Uuid>,
    /// Since when every request of it is refused.
    pub suspended_at: Option<Time>,
    /// When it was last resumed: its silence counts from then.
    pub resumed_at: Option<Time>,
    /// What it is connected to within its application.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource: Option<String>,
    /// The node that it lives on, by number, where it cannot go on anywhere else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<i64>,
    /// How far the work behind it has come, or had come when it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<Phase>,
    /// What readings of its counter have come to, if there were any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub throughput: Option<Box<Throughput>>,
    pub ended: Option<Ended>,
    /// The last words of whoever ran the work behind it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    pub head: Head,
}

/// A session that made this many requests is in use: the first is the one that opened it.
const USED: u64 = 2;

impl Session {
    /// From the instant of `token_expires_at` on.
    pub fn token_expired(&self, now: Time) -> bool {
        now >= self.token_expires_at
    }

    /// Whether the current `token_expires_at` has been announced.
    pub fn announced(&self) -> bool {
        self.expiry_announced == Some(self.token_expires_at)
    }

    /// How it ended, if it has at an instant: also where its lifetime is over, and that is not recorded yet.
    pub fn over(&self, now: Time) -> Option<Ended> {
        let lifetime = || Ended { at: self.lifetime_ends_at, reason: Reason::Lifetime, outcome: None };
        self.ended.or_else(|| (now >= self.lifetime_ends_at).then(lifetime))
    }

    /// How far it has come at an instant.
    pub fn stage(&self, now: Time) -> Stage {
        self.over(now).map_or_else(|| Stage::open(self.phase), |ended| Stage::ended(ended.outcome))
    }

    /// When its token expires, if it has one.
    pub fn expiry(&self) -> Option<Time> {
        self.kind.has_token().then_some(self.token_expires_at)
    }

    /// What becomes of a reading of its counter, and what all readings come to then.
    pub fn read(&self, sample: Sample) -> (Reading, Throughput) {
        let before = self.throughput.as_deref().cloned();
        let mut throughput = before.unwrap_or_else(|| Throughput::new(self.connected_at));
        (throughput.take(sample), throughput)
    }

    /// When it goes stale, as far as the log knows: a later sign of life or start of ours moves it.
    pub fn stale_at(&self, last_sign_of_life: Time) -> Time {
        let last = last_sign_of_life.max(self.last_active_at);
        self.resumed_at.map_or(last, |resumed| last.max(resumed)) + seconds(self.stale_after())
    }

    /// After how long a silence: sooner while it was opened and then hardly used, because most such clients never come
    /// back, nor say goodbye.
    fn stale_after(&self) -> u32 {
        let unused = self.policy.unused_after.filter(|_| self.total.requests < USED);
        unused.unwrap_or(self.policy.stale_after)
    }
}

/// The unfinished revocation that covers a session, as far as a decision depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Covered {
    /// What its `Disconnected` events say.
    pub reason: Reason,
    /// When it began: the `occurred_at` of everything it does.
    pub instant: Time,
}

/// What a decision needs beyond the session.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    pub application_archived: bool,
    /// The principal that is to get a session was disabled.
    pub principal_disabled: bool,
    /// A bar keeps that principal out.
    pub principal_barred: bool,
    /// The limit that one more session would exceed, where nothing can make room.
    pub full: Option<Limit>,
    /// Credentials issued before this position open no agent-side path of the application.
    pub valid_from: Position,
    /// The presented access token was barred by itself.
    pub credential_barred: bool,
    /// The unfinished revocation that covers the session, if any.
    pub revocation: Option<Covered>,
    /// The application's figures over the server's.
    pub policy: Policy,
    pub preset: Option<Preset>,
    /// The stored form of a connect's personal facts.
    pub personal: Option<&'a str>,
}

/// A limit on live sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Limit {
    PerPrincipal(u32),
    PerApplication(u32),
}

impl std::fmt::Display for Limit {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::PerPrincipal(most) => write!(formatter, "{most} live sessions of one principal"),
            Self::PerApplication(most) => write!(formatter, "{most} live sessions"),
        }
    }
}

/// Why the rules said no.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum Refusal {
    #[error("session disconnected: {}", .0.reason)]
    Ended(Ended),
    #[error("session disconnected: {0}")]
    Revoked(Reason),
    #[error("the session's token has expired")]
    Expired,
    #[error("the credential was revoked")]
    CredentialBarred,
    #[error("a live session of another principal holds this clientSessionId or tokenIdentifier")]
    KeyTaken,
    #[error("the work is {} already; it does not go back to {}", .0.word(), .1.word())]
    PhasePassed(Phase, Phase),
    #[error("the session is suspended; an operator can resume it")]
    Suspended,
    #[error("this principal is disabled; an operator can enable it")]
    PrincipalDisabled,
    #[error("whoever this is for is barred; an operator can lift the bar")]
    Barred,
    #[error("the application allows {0} at a time; end one first")]
    LimitReached(Limit),
    #[error("the application is archived")]
    ApplicationArchived,
    #[error("no such session")]
    Unknown,
    /// No rule says so: this process has lost touch with what others have recorded, and lets nobody in until it knows it.
    #[error("this server has lost touch with its database; try again shortly")]
    Lapsed,
}

/// Whether a command may be carried out, and what happens then. An empty answer is success with nothing to change.
pub fn decide(
    context: &Context<'_>,
    session: Option<&Session>,
    command: &Command,
    now: Time,
) -> Result<Vec<SessionEvent>, Refusal> {
    if let Command::Connect(connect) = command {
        return decide_connect(context, session, connect, now);
    }
    let session = session.ok_or(Refusal::Unknown)?;
    if let Some(ended) = session.ended {
        return match command {
            Command::RecordActivity { .. } | Command::ChangePhase { .. } | Command::RenewToken { .. } => {
                Err(Refusal::Ended(ended))
            }
            _ => Ok(vec![]),
        };
    }
    match command {
        Command::Connect(_) => Err(Refusal::Unknown),
        Command::RecordActivity { source, counts, presented } => {
            let mut events = admit(context, session, presented, now)?;
            events.push(SessionEvent::ActivityRecorded(ActivityRecorded {
                source: *source,
                counts: *counts,
                total: session.total.plus(*counts),
                throughput: session.throughput.clone(),
            }));
            Ok(events)
        }
        Command::ChangePhase { phase, presented } => {
            pass(context, session, presented)?;
            match session.phase {
                Some(before) if before == *phase => Ok(vec![]),
                Some(before) if before > *phase => Err(Refusal::PhasePassed(before, *phase)),
                _ => Ok(vec![SessionEvent::PhaseChanged(PhaseChanged { phase: *phase })]),
            }
        }
        Command::Finish { outcome, message } => {
            let reason = if *outcome == Outcome::Finished { Reason::Exited } else { Reason::Failed };
            let (outcome, message) = (Some(*outcome), message.clone());
            Ok(vec![SessionEvent::Disconnected(Disconnected { reason, outcome, message })])
        }
        Command::RenewToken { presented } => {
            pass(context, session, presented)?;
            if now >= presented.expires_at || now >= session.lifetime_ends_at {
                return Err(Refusal::Expired);
            }
            let token_lifetime = session.policy.token_lifetime.unwrap_or(context.policy.token_lifetime);
            Ok(vec![SessionEvent::TokenRenewed(TokenRenewed {
                token_expires_at: session.lifetime_ends_at.min(now + seconds(token_lifetime)),
                credential: presented.access_token,
            })])
        }
        Command::Expire if session.expiry().is_some_and(|at| now >= at) && !session.announced() => {
            Ok(vec![SessionEvent::Expired(Expired { token_expires_at: session.token_expires_at })])
        }
        Command::EndStale { not_before, seen_at } => {
            let last = seen_at.map_or(*not_before, |seen| seen.max(*not_before));
            // One that may not show signs of life does not go stale for want of them.
            let stale = session.suspended_at.is_none() && now >= session.stale_at(last);
            Ok(end_if(stale, Reason::Stale))
        }
        Command::EndLifetime => Ok(end_if(now >= session.lifetime_ends_at, Reason::Lifetime)),
        Command::Suspend if session.suspended_at.is_none() => Ok(vec![SessionEvent::Suspended]),
        Command::Resume if session.suspended_at.is_some() => Ok(vec![SessionEvent::Resumed]),
        Command::Disconnect { reason } => Ok(end_if(true, *reason)),
        Command::Expire | Command::Suspend | Command::Resume => Ok(vec![]),
    }
}

fn decide_connect(
    context: &Context<'_>,
    holder: Option<&Session>,
    connect: &Connect,
    now: Time,
) -> Result<Vec<SessionEvent>, Refusal> {
    if context.application_archived {
        return Err(Refusal::ApplicationArchived);
    }
    if context.credential_barred || connect.presented.issued_at < context.valid_from {
        return Err(Refusal::CredentialBarred);
    }
    if now >= connect.presented.expires_at {
        return Err(Refusal::Expired);
    }
    if context.principal_disabled {
        return Err(Refusal::PrincipalDisabled);
    }
    if context.principal_barred {
        return Err(Refusal::Barred);
    }
    match holder.filter(|holder| holder.ended.is_none()) {
        Some(holder) if connect.exclusive || holder.principal != connect.principal => Err(Refusal::KeyTaken),
        Some(holder) if holder.suspended_at.is_some() => Err(Refusal::Suspended),
        Some(holder) => Ok(vec![SessionEvent::TokenRenewed(TokenRenewed {
            // A credential that ends sooner than the one before takes nothing away.
            token_expires_at: holder
                .lifetime_ends_at
                .min(connect.presented.expires_at.max(holder.token_expires_at)),
            credential: connect.presented.access_token,
        })]),
        None => {
            if let Some(limit) = context.full {
                return Err(Refusal::LimitReached(limit));
            }
            let mut policy = context.policy.for_session(connect.kind, context.preset);
            if connect.silent {
                policy.stale_after = SessionPolicy::NEVER;
            }
            let longest = seconds(policy.absolute_lifetime);
            let lifetime_ends_at = now + connect.lifetime.map_or(longest, |wanted| wanted.min(longest));
            let by_credential =
                if connect.kind.has_token() { connect.presented.expires_at } else { Time::MAX_UTC };
            Ok(vec![SessionEvent::Connected(Box::new(Connected {
                id: connect.id,
                kind: connect.kind,
                principal: connect.principal,
                anchor: connect.anchor.clone(),
                client_session_id: connect.client_session_id.clone().filter(|_| connect.resource.is_some()),
                token_identifier: None,
                token_expires_at: lifetime_ends_at.min(by_credential),
                lifetime_ends_at,
                policy,
                credential: connect.presented.access_token,
                protocol_version: connect.protocol_version.clone(),
                resource: connect.resource.clone(),
                phase: connect.phase,
                node: connect.node,
                personal: personal_digest(context.personal.unwrap_or("")),
            }))])
        }
    }
}

/// How the live holder of a natural key must end before a connect may open a new session under it: it is covered by
/// an unfinished revocation, or past its lifetime. `None` when the connect may attach to it.
pub fn must_end_first(context: &Context<'_>, holder: &Session, now: Time) -> Option<Command> {
    if let Some(revocation) = context.revocation {
        Some(Command::Disconnect { reason: revocation.reason })
    } else if now >= holder.lifetime_ends_at {
        Some(Command::EndLifetime)
    } else {
        None
    }
}

/// Whether the caller may act on the session at all.
fn pass(context: &Context<'_>, session: &Session, presented: &Presented) -> Result<(), Refusal> {
    if let Some(revocation) = context.revocation {
        Err(Refusal::Revoked(revocation.reason))
    } else if context.credential_barred || presented.issued_at < context.valid_from {
        Err(Refusal::CredentialBarred)
    } else if context.application_archived && session.ended.is_none() {
        Err(Refusal::ApplicationArchived)
    } else if context.principal_disabled {
        Err(Refusal::PrincipalDisabled)
    } else if context.principal_barred {
        Err(Refusal::Barred)
    } else if session.suspended_at.is_some() {
        Err(Refusal::Suspended)
    } else {
        Ok(())
    }
}

/// Whether the caller may keep the session alive. An owner's access token that outlives the session's token renews
/// it; the session's own token never does.
fn admit(
    context: &Context<'_>,
    session: &Session,
    presented: &Presented,
    now: Time,
) -> Result<Vec<SessionEvent>, Refusal> {
    pass(context, session, presented)?;
    if now >= presented.expires_at {
        return Err(Refusal::Expired);
    }
    let until = session.lifetime_ends_at.min(presented.expires_at);
    if presented.by_owner && presented.renews && until > session.token_expires_at {
        Ok(vec![SessionEvent::TokenRenewed(TokenRenewed {
            token_expires_at: until,
            credential: presented.access_token,
        })])
    } else if session.token_expired(now) {
        Err(Refusal::Expired)
    } else {
        Ok(vec![])
    }
}

fn end_if(due: bool, reason: Reason) -> Vec<SessionEvent> {
    if due { vec![SessionEvent::Disconnected(Disconnected::because(reason))] } else { vec![] }
}

fn seconds(seconds: u32) -> TimeDelta {
    TimeDelta::seconds(seconds.into())
}

/// When an event takes effect: what the clock decided carries the clock's instant, what a revocation does carries the
/// instant at which it began, all else happens now.
pub fn takes_effect_at(
    event: &SessionEvent,
    session: Option<&Session>,
    revocation: Option<Covered>,
    now: Time,
) -> Time {
    match event {
        SessionEvent::Expired(expired) => expired.token_expires_at,
        SessionEvent::Disconnected(Disconnected { reason: Reason::Lifetime, .. }) => {
            session.map_or(now, |session| session.lifetime_ends_at)
        }
        SessionEvent::Disconnected(_) => revocation.map_or(now, |revocation| revocation.instant),
        _ => now,
    }
}

/// What the fold needs from an event's envelope.
#[derive(Debug, Clone, Copy)]
pub struct Envelope {
    pub number: SessionNumber,
    pub organization: OrganizationNumber,
    pub application: ApplicationNumber,
    pub actor: Actor,
    pub occurred_at: Time,
    /// Where the stream stands after the event.
    pub head: Head,
}

/// The fold. Cannot fail: what happened, happened. An event before `Connected` folds to nothing.
pub fn evolve(session: Option<Session>, event: &SessionEvent, envelope: &Envelope) -> Option<Session> {
    let head = envelope.head;
    if let SessionEvent::Connected(connected) = event {
        return Some(Session {
            number: envelope.number,
            id: connected.id,
            organization: envelope.organization,
            application: envelope.application,
            principal: connected.principal,
            owner: envelope.actor,
            kind: connected.kind,
            policy: connected.policy,
            connected_at: envelope.occurred_at,
            connected_at_position: head.position,
            lifetime_ends_at: connected.lifetime_ends_at,
            token_expires_at: connected.token_expires_at,
            expiry_announced: None,
            last_active_at: envelope.occurred_at,
            total: Counts::default(),
            credential: connected.credential,
            suspended_at: None,
            resumed_at: None,
            resource: connected.resource.clone(),
            node: connected.node,
            phase: connected.phase,
            throughput: None,
            ended: None,
            message: None,
            head,
        });
    }
    let session = session?;
    Some(match event {
        SessionEvent::Connected(_) => Session { head, ..session },
        SessionEvent::ActivityRecorded(activity) => Session {
            last_active_at: session.last_active_at.max(envelope.occurred_at),
            total: activity.total,
            throughput: activity.throughput.clone().or(session.throughput),
            head,
            ..session
        },
        SessionEvent::TokenRenewed(renewed) => Session {
            token_expires_at: renewed.token_expires_at,
            last_active_at: session.last_active_at.max(envelope.occurred_at),
            credential: renewed.credential.or(session.credential),
            head,
            ..session
        },
        SessionEvent::Expired(expired) => {
            Session { expiry_announced: Some(expired.token_expires_at), head, ..session }
        }
        SessionEvent::Suspended => Session { suspended_at: Some(envelope.occurred_at), head, ..session },
        SessionEvent::Resumed => {
            Session { suspended_at: None, resumed_at: Some(envelope.occurred_at), head, ..session }
        }
        SessionEvent::PhaseChanged(changed) => Session {
            phase: Some(changed.phase),
            last_active_at: session.last_active_at.max(envelope.occurred_at),
            head,
            ..session
        },
        SessionEvent::Disconnected(disconnected) => Session {
            ended: Some(Ended {
                at: envelope.occurred_at,
                reason: disconnected.reason,
                outcome: disconnected.outcome,
            }),
            message: disconnected.message.clone(),
            head,
            ..session
        },
    })
}
