//! The rights that a credential carries.

use serde::{Deserialize, Serialize};

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
