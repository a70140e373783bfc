//! Whatever a credential or a session opened ends with it: every way in which either can end, crossed with everything that
//! stays open. Whoever adds a way, or something that stays, adds it here: the tests in `complete` see to that.

mod complete;
mod house;
mod ways;

use std::fmt::Write as _;
use std::time::Duration;

use house::Open;

/// What stays open, by the column it has in the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Thing {
    ApplicationFeed,
    SessionFeed,
    McpStream,
    McpCall,
    McpEvents,
    ModernCall,
    ModernListen,
    SseConnection,
    BareSseConnection,
    Terminal,
    Watcher,
}

impl Thing {
    pub const ALL: [Self; 11] = [
        Self::ApplicationFeed,
        Self::SessionFeed,
        Self::McpStream,
        Self::McpCall,
        Self::McpEvents,
        Self::ModernCall,
        Self::ModernListen,
        Self::SseConnection,
        Self::BareSseConnection,
        Self::Terminal,
        Self::Watcher,
    ];

    /// Those that have a session at the server behind: where theirs ends, that one is told goodbye.
    pub const WITH_UPSTREAM: [Self; 4] =
        [Self::McpStream, Self::McpCall, Self::McpEvents, Self::SseConnection];

    fn said(self) -> &'static str {
        match self {
            Self::ApplicationFeed => "an application's feed",
            Self::SessionFeed => "a session's feed",
            Self::McpStream => "an MCP session's standalone stream",
            Self::McpCall => "an MCP call in flight",
            Self::McpEvents => "an MCP call that is answered with events",
            Self::ModernCall => "the same without sessions (2026-07-28)",
            Self::ModernListen => "`subscriptions/listen`",
            Self::SseConnection => "an HTTP+SSE stream",
            Self::BareSseConnection => "the same before `initialize`",
            Self::Terminal => "who types at a terminal",
            Self::Watcher => "who watches one",
        }
    }
}

/// What becomes of a thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It ends with the credential, and says so in this word.
    Credential(&'static str),
    /// It ends with its session, for this reason.
    Session(&'static str),
    Stays,
}

impl Fate {
    fn said(self) -> String {
        match self {
            Self::Credential(word) => format!("ends: `{word}`"),
            Self::Session(reason) => format!("ends with its session: {reason}"),
            Self::Stays => "stays".to_owned(),
        }
    }
}

/// With what credential everything was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// An API key of the organization's own.
    Key,
    /// An API key that acts for a person.
    PersonKey,
    /// A service account's access token.
    Account,
    /// An application's access token.
    Client,
    /// Another issuer's JWT.
    Jwt,
    /// A session's own token, which opens that session's feed and nothing else.
    Session,
}

impl By {
    /// What it can open at all.
    fn opens(self, thing: Thing) -> bool {
        match self {
            Self::Session => thing == Thing::SessionFeed,
            Self::Key | Self::PersonKey => true,
            _ => !matches!(thing, Thing::Terminal | Thing::Watcher),
        }
    }

    fn said(self) -> &'static str {
        match self {
            Self::Key => "an API key",
            Self::PersonKey => "an API key of a person",
            Self::Account => "a service account's token",
            Self::Client => "an application's token",
            Self::Jwt => "another issuer's JWT",
            Self::Session => "a session's token",
        }
    }
}

/// One way in which something ends.
pub struct Way {
    pub name: &'static str,
    pub by: By,
    pub fate: fn(Thing) -> Fate,
    /// The operations by which it comes about; none for what the clock does.
    pub operations: &'static [&'static str],
    /// The events that it is.
    pub events: &'static [&'static str],
}

/// How long anything may take to end. It takes a hundredth of that; the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long what stays is looked at.
const LOOK: Duration = Duration::from_millis(300);

/// Opens everything that this way's credential can open, goes that way, and looks at what became of each.
async fn cross(name: &str) {
    let way = ways::named(name);
    let house = house::House::before(way).await;
    let mut open = vec![];
    for thing in Thing::ALL.into_iter().filter(|thing| way.by.opens(*thing)) {
        open.push((thing, house.open(thing).await));
    }
    let answered = house.go(way).await;
    for (thing, open) in &mut open {
        match (way.fate)(*thing) {
            Fate::Stays => assert!(open.goes_on(LOOK).await, "{name}: {thing:?} ended:\n{}", open.said()),
            fate => {
                let ended = tokio::time::timeout(PATIENCE, open.end()).await;
                assert!(ended.is_ok(), "{name}: {thing:?} stays:\n{}", open.said());
                let took = answered.elapsed();
                open.check(fate, &format!("{name}: {thing:?}"));
                if std::env::var_os("SHOW_ENDINGS").is_some() {
                    println!("{name}: {thing:?} ended {took:?} after the answer");
                }
            }
        }
    }
    for (thing, open) in open {
        if let (Open::TerminalClient(seat), true) = (open, (way.fate)(thing) != Fate::Stays) {
            assert!(seat.is_refused_again().await, "{name}: {thing:?}: its token opens a new connection");
        }
    }
    assert_eq!(house.is_welcome().await, way.leaves_credential(), "{name}: an ordinary request afterwards");
    house.check_upstream(way).await;
}

impl Way {
    /// Whether the credential goes on opening what manages and watches.
    fn leaves_credential(&self) -> bool {
        (self.fate)(Thing::ApplicationFeed) == Fate::Stays
    }

    /// What becomes of MCP sessions at the server behind the gateway.
    fn upstream(&self) -> &'static str {
        match (self.fate)(Thing::McpStream) {
            _ if !self.by.opens(Thing::McpStream) => "",
            Fate::Session(_) => "told goodbye (DELETE)",
            Fate::Credential(_) => "stay with theirs; calls are cancelled",
            Fate::Stays => "stay",
        }
    }
}

/// The part of the page about rights that says what ends with what.
pub fn page() -> String {
    let mut page = "\n# What ends with what\n\n\
        Whatever a credential opened ends with it, within a tenth of a second of the answer that says it has ended, and with \
        words: a last event `credential_ended` (or `expired`) without an `id` on feeds, a JSON-RPC error for each call in \
        flight, a `disconnect` frame on a terminal's WebSocket. So does what a session opened. Rows are the ways in which \
        either can end, with what was used to open everything; the table is `tests/it/authorization/endings/ways.rs`, and \
        the tests beside it go every way.\n\n| how | opened by |"
        .to_owned();
    for thing in Thing::ALL {
        write!(page, " {} |", thing.said()).unwrap();
    }
    page.push_str(" the sessions at the server behind |\n|---|---|");
    page.push_str(&"---|".repeat(Thing::ALL.len() + 1));
    for way in ways::ALL {
        write!(page, "\n| {} | {} |", way.name, way.by.said()).unwrap();
        for thing in Thing::ALL {
            let fate = if way.by.opens(thing) { (way.fate)(thing).said() } else { String::new() };
            write!(page, " {fate} |").unwrap();
        }
        write!(page, " {} |", way.upstream()).unwrap();
    }
    page.push_str(
        "\n\nSecrets of clients are no credentials for requests: rotating one ends no token that was issued before. Sessions \
         that are only reported (agents', media, workloads) are records and stay when the credential ends that reported \
         them; nothing can be done to them with it any more.\n",
    );
    page
}
