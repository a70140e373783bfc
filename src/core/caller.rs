//! Who asks, and who an event was done by.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::Time;
use super::command::Presented;
use super::event::Issuer;
use super::ids::{ApplicationNumber, OrganizationNumber, Position, PrincipalNumber, SessionNumber};
use super::once::Once;
use super::session::Ended;

/// Who did something: a kind and an id, never a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Actor {
    pub kind: ActorKind,
    /// Id of the session, application or service account; nil for the system and the operator at the console.
    pub id: Uuid,
}

impl Actor {
    /// sessiond itself: its scheduler and its revocation worker.
    pub const SYSTEM: Self = Self { kind: ActorKind::System, id: Uuid::nil() };
    /// Whoever runs `sessiond organizations …` or starts it on an empty database.
    pub const OPERATOR: Self = Self { kind: ActorKind::Operator, id: Uuid::nil() };

    /// The id as it is stored: the system and the operator have none.
    pub fn stored_id(&self) -> Option<&Uuid> {
        (!matches!(self.kind, ActorKind::System | ActorKind::Operator)).then_some(&self.id)
    }
}

/// The codes are stored; never renumber them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(i64)]
pub enum ActorKind {
    System = 0,
    Operator = 1,
    Session = 2,
    Application = 3,
    ServiceAccount = 4,
    ApiKey = 5,
    /// A person or agent whom an external issuer vouches for; its id is the principal's.
    User = 6,
    /// A hook that a media server calls.
    Hook = 7,
}

impl ActorKind {
    pub const ALL: [Self; 8] = [
        Self::System,
        Self::Operator,
        Self::Session,
        Self::Application,
        Self::ServiceAccount,
        Self::ApiKey,
        Self::User,
        Self::Hook,
    ];

    /// The kind behind a stored code.
    pub fn from_code(code: i64) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as i64 == code)
    }

    /// The word used on feeds.
    pub fn word(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::Operator => "operator",
            Self::Session => "session",
            Self::Application => "application",
            Self::ServiceAccount => "service_account",
            Self::ApiKey => "api_key",
            Self::User => "user",
            Self::Hook => "hook",
        }
    }
}

/// A right that a credential carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scope {
    ManagementAll,
    SessionsRead,
    SessionsWrite,
    McpInvoke,
    /// Organizations, for whoever runs the installation.
    PlatformAdmin,
    /// The media surface; for API keys.
    Media,
    /// The workload surface; for API keys.
    Session,
    /// The terminal surface; for API keys.
    Terminal,
}

impl Scope {
    /// Every scope, in the order in which they are listed to people.
    pub const ALL: [Self; 8] = [
        Self::ManagementAll,
        Self::SessionsRead,
        Self::SessionsWrite,
        Self::McpInvoke,
        Self::PlatformAdmin,
        Self::Media,
        Self::Session,
        Self::Terminal,
    ];

    /// The word in OAuth's `scope`.
    pub fn word(self) -> &'static str {
        match self {
            Self::ManagementAll => "management:all",
            Self::SessionsRead => "management:sessions:read",
            Self::SessionsWrite => "management:sessions:write",
            Self::McpInvoke => "mcp:invoke",
            Self::PlatformAdmin => "platform:admin",
            Self::Media => "media",
            Self::Session => "session",
            Self::Terminal => "terminal",
        }
    }

    /// Whether only API keys have it: it opens a surface of its own that takes no OAuth token.
    pub fn is_for_keys(self) -> bool {
        matches!(self, Self::Media | Self::Session | Self::Terminal)
    }

    /// The scope behind a word.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scope| scope.word() == word)
    }
}

/// A set of scopes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(into = "String", from = "String")]
pub struct Scopes(u16);

impl Scopes {
    /// The words of an OAuth `scope` string that are known; unknown ones are returned beside.
    pub fn parse(text: &str) -> (Self, Vec<&str>) {
        let mut scopes = Self::default();
        let mut unknown = Vec::new();
        for word in text.split_ascii_whitespace() {
            match Scope::from_word(word) {
                Some(scope) => scopes = scopes.with(scope),
                None => unknown.push(word),
            }
        }
        (scopes, unknown)
    }

    pub fn with(self, scope: Scope) -> Self {
        Self(self.0 | 1 << scope as u8)
    }

    pub fn has(self, scope: Scope) -> bool {
        self.0 & (1 << scope as u8) != 0
    }

    /// Whether every scope of `other` is in `self`.
    pub fn covers(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Which of these rights whoever has `self` may not give to others, nor take from them: nobody gives away more than they
    /// have. Who manages the whole organization has every right in it; the installation is another matter.
    pub fn lacks_to_give(self, scopes: Self) -> Self {
        let organization = self.has(Scope::ManagementAll);
        let lacking = scopes
            .iter()
            .filter(|scope| !(self.has(*scope) || organization && *scope != Scope::PlatformAdmin));
        lacking.fold(Self::default(), Self::with)
    }

    pub fn iter(self) -> impl Iterator<Item = Scope> {
        Scope::ALL.into_iter().filter(move |scope| self.has(*scope))
    }
}

impl std::fmt::Display for Scopes {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let words: Vec<_> = self.iter().map(Scope::word).collect();
        formatter.write_str(&words.join(" "))
    }
}

impl From<Scopes> for String {
    fn from(scopes: Scopes) -> Self {
        scopes.to_string()
    }
}

impl From<String> for Scopes {
    fn from(words: String) -> Self {
        Self::parse(&words).0
    }
}

/// Who asks: the outcome of authentication.
#[derive(Debug, Clone)]
pub struct Caller {
    pub organization: OrganizationNumber,
    pub organization_id: Uuid,
    pub actor: Actor,
    /// The person or agent it acts for, where the credential names one.
    pub principal: Option<PrincipalNumber>,
    pub scopes: Scopes,
    /// The application this caller is confined to: an application's token its own, a session token its session's.
    pub confined_to: Option<ApplicationNumber>,
    /// The application in which a service account creates by default.
    pub bound_to: Option<ApplicationNumber>,
    pub credential: Credential,
    /// Set for the token of a session that has ended: it opens the story of the end and nothing else.
    pub ended: Option<Ended>,
    /// The request, as the envelope of its events will tell.
    pub request_id: Option<String>,
    pub traceparent: Option<String>,
    /// Set for a request that is to take effect once.
    pub once: Option<Arc<Once>>,
}

/// What a wish rests on, as far as it may have ended by the time the wish is decided.
#[derive(Debug, Clone)]
pub struct Authority {
    pub organization: OrganizationNumber,
    pub scopes: Scopes,
    pub principal: Option<PrincipalNumber>,
    pub credential: Credential,
}

/// What was presented.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credential {
    pub kind: CredentialKind,
    /// The log position at which it was issued; barred by any later revocation that covers it.
    pub issued_at: Position,
    pub expires_at: Time,
    /// Barred by itself: it was presented for a session that was revoked. Management paths do not care.
    pub barred: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CredentialKind {
    /// `sat_…`: an access token, by its id; `client` is the OAuth client it was issued to, `audience` the application
    /// whose gateway alone it opens.
    Access { token: Uuid, client: String, audience: Option<Uuid> },
    /// `sst_…`: the token of one session.
    Session(SessionNumber),
    /// `sak_…`: an API key, by its id.
    ApiKey(Uuid),
    /// The signature of a hook, by its id.
    Hook(Uuid),
    /// A JWT access token of an issuer that the organization trusts.
    External(Box<External>),
}

/// What an issuer says in one of its tokens, beyond what [`Caller`] holds of every credential.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct External {
    pub issuer: String,
    pub audience: String,
    pub subject: String,
    /// The OAuth client it was issued to: its `client_id` (RFC 9068), else its `azp`.
    pub client: Option<String>,
    /// Its `jti`, if it has one.
    pub id: Option<String>,
    pub issued_at: Time,
    /// Its `exp`, to the second: it is taken a little longer, because clocks differ.
    pub expires_at: Time,
    /// How the organization trusted its issuer when it was presented.
    pub trusted: Issuer,
}

impl Caller {
    /// Whether the caller may touch things of this application.
    pub fn may_touch(&self, application: ApplicationNumber) -> bool {
        self.confined_to.is_none_or(|own| own == application)
    }

    /// What the caller's wishes rest on.
    pub fn authority(&self) -> Authority {
        Authority {
            organization: self.organization,
            scopes: self.scopes,
            principal: self.principal,
            credential: self.credential.clone(),
        }
    }

    /// The person it is the credential of; a session's own token is the session's.
    pub fn person(&self) -> Option<PrincipalNumber> {
        self.principal.filter(|_| self.session().is_none())
    }

    /// Whether what this request is to do was done before: it is answered as then, and checks of how things stand now
    /// must not come between.
    pub fn repeats(&self) -> bool {
        self.once.as_ref().is_some_and(|once| once.recorded.is_some())
    }

    /// The session whose own token was presented.
    pub fn session(&self) -> Option<SessionNumber> {
        match self.credential.kind {
            CredentialKind::Session(number) => Some(number),
            _ => None,
        }
    }

    /// The credential as the rules of a session owned by `owner` see it.
    pub fn presented(&self, owner: Actor) -> Presented {
        Presented {
            issued_at: self.credential.issued_at,
            expires_at: self.credential.expires_at,
            access_token: self.access_token(),
            renews: self.renews(),
            by_owner: owner == self.actor,
        }
    }

    /// Whether the credential renews a session's token that it outlives.
    pub fn renews(&self) -> bool {
        matches!(self.credential.kind, CredentialKind::Access { .. } | CredentialKind::External(_))
    }

    /// The OAuth client that the credential was issued to; an API key or a hook's signature was issued to none.
    pub fn client(&self) -> Option<&str> {
        match &self.credential.kind {
            CredentialKind::Access { client, .. } => Some(client),
            CredentialKind::External(external) => external.client.as_deref(),
            CredentialKind::Session(_) | CredentialKind::ApiKey(_) | CredentialKind::Hook(_) => None,
        }
    }

    /// The application whose gateway is all that the credential opens.
    pub fn audience(&self) -> Option<Uuid> {
        match self.credential.kind {
            CredentialKind::Access { audience, .. } => audience,
            _ => None,
        }
    }

    /// The caller's access token, if that is what was presented.
    pub fn access_token(&self) -> Option<Uuid> {
        match self.credential.kind {
            CredentialKind::Access { token, .. } => Some(token),
            _ => None,
        }
    }
}
