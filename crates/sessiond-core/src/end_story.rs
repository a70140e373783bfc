//! Who ended a session and why, told to people: one sentence for each reason, whoever it was. Names and words of others go
//! into it through [`shown`] alone.

use serde::Serialize;
use uuid::Uuid;

use crate::Time;
use crate::actor::ActorKind;
use crate::filter::Filter;
use crate::reason::Reason;
use crate::shown;

/// Who ended a session. The words are wire format; never change one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EnderKind {
    ServiceAccount,
    ApiKey,
    Application,
    User,
    /// The session's own token.
    Session,
    Hook,
    Operator,
    /// A scheduled revocation, whoever made the schedule.
    Schedule,
    /// A limit that the session's application set.
    Policy,
    System,
}

impl EnderKind {
    /// Every kind, for whoever must know them all.
    pub const ALL: [Self; 10] = [
        Self::ServiceAccount,
        Self::ApiKey,
        Self::Application,
        Self::User,
        Self::Session,
        Self::Hook,
        Self::Operator,
        Self::Schedule,
        Self::Policy,
        Self::System,
    ];

    /// The word for programs.
    pub fn word(self) -> &'static str {
        match self {
            Self::ServiceAccount => "service_account",
            Self::ApiKey => "api_key",
            Self::Application => "application",
            Self::User => "user",
            Self::Session => "session",
            Self::Hook => "hook",
            Self::Operator => "operator",
            Self::Schedule => "schedule",
            Self::Policy => "policy",
            Self::System => "system",
        }
    }

    /// Who ended a session for this reason, by the event that says so: what a limit demands is the policy's doing, whoever
    /// was there to carry it out.
    pub fn of(reason: Reason, actor: ActorKind) -> Self {
        match (reason, actor) {
            (Reason::Stale | Reason::Idle | Reason::Lifetime | Reason::Evicted, _) => Self::Policy,
            (_, ActorKind::System) => Self::System,
            (_, ActorKind::Operator) => Self::Operator,
            (_, ActorKind::Session) => Self::Session,
            (_, ActorKind::Application) => Self::Application,
            (_, ActorKind::ServiceAccount) => Self::ServiceAccount,
            (_, ActorKind::ApiKey) => Self::ApiKey,
            (_, ActorKind::User) => Self::User,
            (_, ActorKind::Hook) => Self::Hook,
        }
    }
}

/// Who ended a session, as far as the reader may know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndedBy {
    pub kind: EnderKind,
    pub id: Option<Uuid>,
    pub name: Option<String>,
}

impl Serialize for EnderKind {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.word())
    }
}

impl EndedBy {
    /// In a sentence.
    fn words(&self) -> String {
        let (article, what) = match self.kind {
            EnderKind::ServiceAccount => ("a", "service account"),
            EnderKind::ApiKey => ("an", "API key"),
            EnderKind::Application => ("an", "application"),
            EnderKind::User => {
                return self.name.as_deref().map_or("a person".to_owned(), |name| shown::line(name).into());
            }
            EnderKind::Session => return "the session's own token".to_owned(),
            EnderKind::Hook => ("a", "hook"),
            EnderKind::Operator => return "the operator of the service".to_owned(),
            EnderKind::Schedule => ("a", "scheduled revocation"),
            EnderKind::Policy => return "the policy of its application".to_owned(),
            EnderKind::System => return "the service itself".to_owned(),
        };
        match &self.name {
            Some(name) => format!("{what} '{}'", shown::line(name)),
            None => format!("{article} {what}"),
        }
    }
}

/// What a revocation was to end, and in which words.
#[derive(Debug, Clone, Copy)]
pub struct RevokedWith<'a> {
    pub filter: &'a Filter,
    pub note: Option<&'a str>,
}

/// What is known of an end and of the session.
#[derive(Debug, Clone, Copy)]
pub struct End<'a> {
    pub reason: Reason,
    pub by: &'a EndedBy,
    pub at: Time,
    pub revoked_with: Option<RevokedWith<'a>>,
    /// The last words of whoever ran what was behind it.
    pub message: Option<&'a str>,
    pub last_active_at: Time,
    /// When its token expired, or would have.
    pub token_expires_at: Option<Time>,
    /// The session's own, where they were not erased.
    pub hostname: Option<&'a str>,
    pub client: Option<&'a str>,
    pub resource: Option<&'a str>,
}

impl End<'_> {
    /// Why the session ended, in one sentence.
    pub fn sentence(&self) -> String {
        let by = self.by.words();
        let with = self.revoked_with.map_or(String::new(), |with| self.scope(with.filter));
        let told = match self.reason {
            Reason::Client if self.by.kind == EnderKind::Session => "Its client said goodbye".to_owned(),
            Reason::Client => format!("Its client said goodbye, by {by}"),
            Reason::Terminated => format!("Terminated by {by}{with}"),
            Reason::Revoked => format!("Revoked by {by}{with}"),
            Reason::Archived => format!("Its application was archived by {by}"),
            Reason::Stale => match self.token_expires_at.filter(|expired_at| *expired_at <= self.at) {
                Some(expired_at) => {
                    format!("Its token expired at {} and nobody renewed it", instant(expired_at))
                }
                None => format!("It gave no sign of life after {}", instant(self.last_active_at)),
            },
            Reason::Idle => {
                format!("It was idle for longer than it may be, since {}", instant(self.last_active_at))
            }
            Reason::Lifetime => format!("Its lifetime was over at {}", instant(self.at)),
            Reason::Evicted => {
                "It made room for a newer one, since its application allows no more".to_owned()
            }
            Reason::Superseded => format!("A newer session took its place, opened by {by}"),
            Reason::UpstreamLost => "The server behind it is gone".to_owned(),
            Reason::MachineLost => "The machine behind it is gone".to_owned(),
            Reason::Exited => "What it ran came to its own end".to_owned(),
            Reason::Failed => "What it ran broke".to_owned(),
        };
        let said = self.revoked_with.and_then(|with| with.note).or(self.message);
        match said.map(str::trim).filter(|said| !said.is_empty()) {
            Some(said) => full_stop(format!("{told}: {}", shown::line(said))),
            None => full_stop(told),
        }
    }

    /// What else was revoked with the session. The revocation fits it, so what the filter names is what the session has: it
    /// is told from there, where it can be erased.
    fn scope(&self, filter: &Filter) -> String {
        if filter.session.is_some() {
            return String::new();
        }
        if filter.whole_organization() {
            return " with everything of the organization".to_owned();
        }
        let named = |what: &str, name: Option<&str>| match name {
            Some(name) => format!("{what} {}", shown::line(name)),
            None => format!("its {what}"),
        };
        let mut of = vec![];
        if filter.application.is_some() || !filter.applications.is_empty() {
            of.push("its application".to_owned());
        }
        if filter.principal.is_some() || !filter.principals.is_empty() {
            of.push("its principal".to_owned());
        }
        of.extend(filter.hostname.as_ref().map(|_| named("host", self.hostname)));
        of.extend(filter.client.as_ref().map(|_| named("client", self.client)));
        of.extend(filter.resource.as_ref().map(|_| named("resource", self.resource)));
        of.extend(filter.kind.map(|kind| format!("the kind {}", kind.word())));
        if of.is_empty() {
            return " with everything else that fitted".to_owned();
        }
        let narrowed = filter.moves()
            || filter.connected_after.is_some()
            || filter.connected_before.is_some()
            || !filter.except.is_empty();
        let everything = if narrowed { "what else fitted" } else { "everything" };
        format!(" with {everything} of {}", of.join(" and "))
    }
}

fn instant(at: Time) -> String {
    at.format("%Y-%m-%d %H:%M:%S UTC").to_string()
}

fn full_stop(mut sentence: String) -> String {
    if !sentence.ends_with(['.', '!', '?']) {
        sentence.push('.');
    }
    sentence
}
