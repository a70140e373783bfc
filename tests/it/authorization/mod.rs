//! Who may do what: one table that every operation of the document must have a line in. The matrix holds the service to
//! it, and `docs/authorization.md` shows it.

pub mod endings;
mod gifts;
mod leaks;
mod matrix;
mod relation;
mod world;

use std::fmt::Write as _;

use crate::openapi::document::Document;
use crate::support::tree::hold;

/// Who asks, by the credential that is presented.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Stranger,
    Invalid,
    Session,
    Application,
    Reader,
    Writer,
    Manager,
    Platform,
    MediaKey,
    SessionKey,
    TerminalKey,
    TerminalUserKey,
    UserKey,
}

use Role::{
    Application, Invalid, Manager, MediaKey, Platform, Reader, Session, SessionKey, Stranger, TerminalKey,
    TerminalUserKey, UserKey, Writer,
};

impl Role {
    pub const ALL: [Self; 13] = [
        Stranger,
        Invalid,
        Session,
        Application,
        Reader,
        Writer,
        Manager,
        Platform,
        MediaKey,
        SessionKey,
        TerminalKey,
        TerminalUserKey,
        UserKey,
    ];

    /// Head of its column, and what it is.
    fn said(self) -> (&'static str, &'static str) {
        match self {
            Stranger => ("nobody", "presents nothing"),
            Invalid => ("invalid", "presents a token that was never issued"),
            Session => ("session", "a session's own token (`sst_…`), for that session"),
            Application => ("agent", "an application's token with `mcp:invoke`, for that application"),
            Reader => ("read", "a service account with `management:sessions:read`"),
            Writer => ("write", "a service account with `management:sessions:write`"),
            Manager => ("manage", "a service account with `management:all`"),
            Platform => ("platform", "a service account with `platform:admin` alone"),
            MediaKey => ("key media", "an API key with `media`"),
            SessionKey => ("key session", "an API key with `session`"),
            TerminalKey => ("key terminal", "an API key with `terminal`"),
            TerminalUserKey => ("key terminal user", "an API key with `terminal` that acts for a person"),
            UserKey => ("key user", "an API key with `mcp:invoke` that acts for a person"),
        }
    }
}

/// What opens an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    /// No credential is asked for.
    Open,
    /// A client's id and secret, and nothing else.
    Client,
    Read,
    End,
    Manage,
    Platform,
    /// A credential of a person's own.
    Person,
    /// An API key for the workload surface.
    Work,
    /// What keeps sessions: agents, and whoever fronts them.
    Keep,
    /// The same, but a session's token is for the session that there is, and opens none.
    Begin,
    /// An API key for the terminal surface.
    Terminal,
    /// The same, of the organization's own: none that acts for a person alone.
    Machines,
    /// An API key for the media surface, as Basic credentials.
    Media,
    /// The signature of a hook.
    Hook,
}

impl Door {
    pub fn opens(self, role: Role) -> bool {
        match self {
            Self::Open => true,
            Self::Client | Self::Hook => false,
            Self::Read => matches!(role, Reader | Manager),
            Self::End => matches!(role, Writer | Manager),
            Self::Manage => role == Manager,
            Self::Platform => role == Platform,
            Self::Person => matches!(role, TerminalUserKey | UserKey),
            Self::Work => role == SessionKey,
            Self::Keep => matches!(role, Session | Application | Writer | Manager | UserKey),
            Self::Begin => matches!(role, Application | Writer | Manager | UserKey),
            Self::Media => role == MediaKey,
            Self::Terminal => matches!(role, TerminalKey | TerminalUserKey),
            Self::Machines => role == TerminalKey,
        }
    }

    fn said(self) -> &'static str {
        match self {
            Self::Open => "everybody",
            Self::Client => "a client's id and secret",
            Self::Read => "`management:sessions:read`, `management:all`",
            Self::End => "`management:sessions:write`, `management:all`",
            Self::Manage => "`management:all`",
            Self::Platform => "`platform:admin`",
            Self::Person => "a person's own credential",
            Self::Work => "an API key with `session`",
            Self::Keep => "`mcp:invoke`, `management:sessions:write`, `management:all`",
            Self::Begin => "the same, but no session's token",
            Self::Terminal => "a key with `terminal`",
            Self::Machines => "a key with `terminal` of the organization's own",
            Self::Media => "a key with `media`",
            Self::Hook => "the hook's signature",
        }
    }
}

/// Every operation, by what opens it.
const TABLE: [(Door, &str); 14] = [
    (Door::Open, "oauth.authorizationServer service.live service.ready"),
    (Door::Client, "oauth.token"),
    (
        Door::Read,
        "agentSessions.list agentSessions.count agentSessions.get agentSessions.history agentSessions.events \
         agentInstances.list agentInstances.get sessions.list sessions.count events.list policy.get \
         agentSessions.export agentSessions.exportHistory sessions.export events.export \
         statistics.get statistics.ofApplication \
         applications.list applications.get applications.getPolicy revocations.list revocations.get \
         scheduledRevocations.list scheduledRevocations.get bars.list bars.get oauth.introspect",
    ),
    (
        Door::End,
        "agentSessions.revoke agentSessions.revokeAll agentSessions.terminate agentSessions.suspend \
         agentSessions.resume agentInstances.revoke agentInstances.revokeAll revocations.create \
         scheduledRevocations.create scheduledRevocations.pause scheduledRevocations.resume \
         scheduledRevocations.delete bars.place bars.lift oauth.revoke",
    ),
    (
        Door::Manage,
        "applications.create applications.update applications.archive applications.rotateSecret \
         applications.setUpstream applications.setPolicy serviceAccounts.list serviceAccounts.get \
         serviceAccounts.create serviceAccounts.archive serviceAccounts.rotateSecret apiKeys.list apiKeys.get \
         apiKeys.create apiKeys.revoke apiKeys.rotateSecret principals.list principals.get principals.disable principals.enable \
         principals.erase webhooks.list webhooks.get webhooks.create webhooks.update webhooks.delete \
         webhooks.rotateSecret webhooks.test webhooks.deliveries webhooks.resend issuers.get issuers.set \
         retention.get retention.set \
         hooks.list hooks.get hooks.create hooks.delete hooks.rotateSecret",
    ),
    (
        Door::Platform,
        "nodes.list organizations.list organizations.get organizations.create organizations.update",
    ),
    (Door::Person, "me.sessions me.session me.endSession"),
    (
        Door::Keep,
        "agent.heartbeat agent.activity agent.activityMany agent.renew agent.disconnect agent.events",
    ),
    (Door::Begin, "agent.create"),
    (
        Door::Terminal,
        "terminals.listMachines terminals.getMachine terminals.listSessions terminals.createSession \
         terminals.statistics terminals.searchCommands terminals.getSession terminals.terminateSession \
         terminals.createViewer terminals.getLogs terminals.getRecording",
    ),
    (
        Door::Machines,
        "terminals.createMachine terminals.updateMachine terminals.deleteMachine terminals.testMachine",
    ),
    (
        Door::Media,
        "media.listVhosts media.listApps media.listStreams media.declareStream media.listSessions \
         media.createSessions media.terminateSession media.reportSession media.reportStream media.reportApp \
         media.throughput media.currentThroughput media.streamThroughput media.appThroughput \
         media.vhostThroughput media.sessionStatistics media.streamStatistics \
         media.appStatistics media.vhostStatistics",
    ),
    (Door::Hook, "media.callHook"),
    (
        Door::Work,
        "workloads.listWebuiSessions workloads.listTaskSessions workloads.getWebuiSession workloads.getTaskSession \
         workloads.createWebuiSession workloads.createTaskSession workloads.changeTaskState \
         workloads.heartbeatWebuiSession workloads.heartbeatTaskSession workloads.heartbeats \
         workloads.endWebuiSession workloads.endTaskSession workloads.deleteWebuiSession \
         workloads.deleteTaskSession workloads.terminateWebuiSession workloads.terminateTaskSession \
         workloads.getWebuiLogs workloads.getTaskLogs workloads.listWebuiLogs workloads.listTaskLogs \
         workloads.downloadWebuiLogs workloads.downloadTaskLogs workloads.logWebuiSession workloads.logTaskSession",
    ),
];

/// What opens an operation. One that nobody thought about has no line, and fails whatever asks.
pub fn door(operation: &str) -> Door {
    let mut lines = TABLE.iter().filter(|(_, all)| all.split(' ').any(|one| one == operation));
    let (door, _) = lines.next().unwrap_or_else(|| panic!("say in the table who may {operation}"));
    assert!(lines.next().is_none(), "{operation} has two lines");
    *door
}

/// The page about rights.
fn page(document: &Document) -> String {
    let mut page = "# Who may do what\n\n\
        Written by `make authorization` from the table in `tests/it/authorization/mod.rs`, which the tests beside it hold \
        every operation to, with the ids of one's own organization, of another's and of none.\n\n\
        Without the right the answer is 403, whatever is asked for; nothing valid presented is 401. What belongs to \
        another organization is answered as what does not exist: 404. A token that is confined to an application or \
        a session finds nothing beside it. A credential that acts for a person finds that person's sessions alone, on every surface: with `management:sessions:read` it looks at everybody's of its organization, and acts on none of them. What may be known of and not acted on is 403. Of media streams the credential is the whole of Basic credentials. `/oauth2/revoke` also takes the very token that is presented.\n\n\
        | column | who |\n|---|---|\n"
        .to_owned();
    for (name, who) in Role::ALL.map(Role::said) {
        writeln!(page, "| {name} | {who} |").unwrap();
    }
    page.push_str("\n| operation | opened by | of a person's sessions |");
    for (name, _) in Role::ALL.map(Role::said) {
        write!(page, " {name} |").unwrap();
    }
    page.push_str("\n|---|---|---|");
    page.push_str(&":-:|".repeat(Role::ALL.len()));
    for operation in document.operations() {
        let door = door(operation.id);
        let (id, method, path) = (operation.id, &operation.method, operation.path);
        let whose = relation::whose(&operation);
        write!(page, "\n| `{id}`<br>{method} {path} | {} | {whose} |", door.said()).unwrap();
        for role in Role::ALL {
            page.push_str(if door.opens(role) { " yes |" } else { " |" });
        }
    }
    page.push('\n');
    page.push_str(&endings::page());
    page
}

#[test]
fn every_operation_has_a_line_in_the_table_and_every_line_an_operation() {
    let document = Document::new();
    let known: Vec<&str> = document.operations().map(|operation| operation.id).collect();
    for id in &known {
        door(id);
    }
    for id in TABLE.iter().flat_map(|(_, all)| all.split(' ')) {
        assert!(known.contains(&id), "there is no {id}");
    }
}

#[test]
fn the_page_about_rights_is_what_the_table_says() {
    hold("docs/authorization.md", &page(&Document::new()), "WRITE_AUTHORIZATION", "authorization");
}
