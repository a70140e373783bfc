//! The application, as far as sessions go: connect, keep alive, renew, end, revoke, list, and what the clock demands.
//! Surfaces talk to this and to the directory, and to nothing below.

mod bar;
mod board;
mod erase;
mod gateway;
mod history;
mod list;
mod media;
mod once;
mod report;
mod revoke;
mod schedules;
mod stay;
mod terminals;
mod traffic;
mod upkeep;
mod view;
mod wanted;
mod work;

use std::sync::Arc;

use chrono::TimeDelta;
use parking_lot::Mutex;
use serde_json::Value;
use uuid::Uuid;

pub use bar::WouldBar;
pub use board::{Job, JobStatus};
pub use history::{EventQuery, Events};
pub use list::{Counts as StatusCounts, ListQuery, Page, Walk};
pub use media::{Found, Point};
pub use revoke::{Preview, Progress, Revoked};
pub use schedules::{NewSchedule, Scheduled};
pub use stay::Stay;
pub use terminals::{MachineUse, Usage};
pub use upkeep::Upkeep;
pub use view::View;
pub use wanted::{Sort, Wanted};
pub use work::{Ending, WorkView};

use crate::clock::Clock;
use crate::committer::{
    Activity, Committer, Connected, EndSessions, OpenSession, Operation, Origin, RecordActivity, RenewToken,
    SessionEnd, SetSuspended,
};
use crate::error::{Error, Thing};
use crate::gate::Gate;
use crate::secret::{self, SecretKey, TokenKind};
use sessiond_core::Time;
use sessiond_core::caller::{Caller, CredentialKind};
use sessiond_core::command::Connect;
use sessiond_core::ids::{ApplicationNumber, PrincipalNumber, SessionNumber};
use sessiond_core::kind::Kind;
use sessiond_core::personal::Personal;
use sessiond_core::phase::Phase;
use sessiond_core::policy::Policy;
use sessiond_core::principal::OWN_USERS;
use sessiond_core::reason::Reason;
use sessiond_core::relation::{MayAct, MayLook, OutOfReach, Way};
use sessiond_core::scope::Scope;
use sessiond_core::session::event::{ActivitySource, Counts};
use sessiond_core::session::{Refusal, Session};
use sessiond_store::{SessionRow, Store};

/// Longest text a client may give for anything about a session; longer is refused, never cut.
pub const LONGEST: usize = 1_024;
/// Most bytes of `clientInfo`, as JSON.
pub const LARGEST_CLIENT_INFO: usize = 16_384;

/// Sessions, for every surface.
pub struct Sessions {
    committer: Committer,
    gate: Arc<Gate>,
    reader: Arc<dyn Store>,
    clock: Clock,
    key: SecretKey,
    policy: Policy,
    revocations: revoke::Worker,
    under_way: once::UnderWay,
    traffic: Mutex<traffic::Traffic>,
    timetable: Mutex<schedules::Timetable>,
}

/// What a surface knows of a session that is about to be opened.
#[derive(Debug)]
pub struct NewSession {
    pub kind: Kind,
    /// Where; for a caller that may create in several applications.
    pub application: Option<Uuid>,
    /// The gateway's own natural key, from [`Sessions::anchor`]: of a client that has no session id.
    pub anchor: Option<String>,
    pub client_session_id: Option<String>,
    pub token_identifier: Option<String>,
    /// Whom the client acts for, in the client's own words.
    pub authenticated_user: Option<String>,
    pub name: Option<String>,
    pub hostname: Option<String>,
    pub user_agent: Option<String>,
    pub client_info: Option<Value>,
    pub ip: Option<String>,
    pub protocol_version: Option<String>,
    /// Whom it belongs to, where that is a person of the organization's own naming.
    pub owner: Option<String>,
    /// What it is connected to within its application.
    pub resource: Option<String>,
    pub phase: Option<Phase>,
    /// How long it may last at most, if less than its application's policy allows.
    pub lifetime: Option<TimeDelta>,
    /// Nothing will be reported of it but its end.
    pub silent: bool,
    /// Where a live session has its natural key: refused, instead of attached to that one.
    pub exclusive: bool,
}

impl NewSession {
    /// A session of which nothing more is known.
    pub fn of(kind: Kind) -> Self {
        Self {
            kind,
            application: None,
            anchor: None,
            client_session_id: None,
            token_identifier: None,
            authenticated_user: None,
            name: None,
            hostname: None,
            user_agent: None,
            client_info: None,
            ip: None,
            protocol_version: None,
            owner: None,
            resource: None,
            phase: None,
            lifetime: None,
            silent: false,
            exclusive: false,
        }
    }
}

/// A session that was opened, or attached to.
pub struct Opened {
    pub session: Session,
    pub application_id: Uuid,
    pub name: String,
    /// Its token, if its kind has one; shown this once.
    pub token: Option<String>,
    /// False for an attach.
    pub opened: bool,
}

impl Sessions {
    pub fn new(
        committer: Committer,
        gate: Arc<Gate>,
        reader: Arc<dyn Store>,
        clock: Clock,
        key: SecretKey,
        policy: Policy,
    ) -> Self {
        let (revocations, under_way, traffic, timetable) = Default::default();
        Self { committer, gate, reader, clock, key, policy, revocations, under_way, traffic, timetable }
    }

    /// The policy new sessions are opened under.
    pub fn policy(&self) -> Policy {
        self.policy
    }

    pub fn now(&self) -> Time {
        self.clock.now()
    }

    /// Opens a session, or attaches to the live one with the same natural key (`sessiond_core::command::natural_key`): same id,
    /// fresh token, the old token dead.
    pub async fn connect(&self, caller: &Caller, new: NewSession) -> Result<Opened, Error> {
        self.connect_by(caller, Origin::caller(caller), new).await
    }

    /// The same, as a part of a request.
    pub async fn connect_by(
        &self,
        caller: &Caller,
        origin: Origin,
        new: NewSession,
    ) -> Result<Opened, Error> {
        if let Some(connected) = origin.recorded::<OpenSession>()? {
            return self.opened_before(caller, connected).await;
        }
        let application = self.application_to_create_in(caller, new.application)?;
        self.agent_side(caller, application)?;
        check_lengths(&new)?;
        // A person's own credential opens for that person, whomever the client names; others are known by number later.
        let person = caller.person().filter(|_| new.owner.is_none());
        let (principal, id) = (person.unwrap_or(PrincipalNumber(0)), secret::new_id());
        let (issuer, subject) = match &new.owner {
            Some(owner) => (OWN_USERS.to_owned(), owner.clone()),
            None => principal_of(caller, new.authenticated_user.as_deref()),
        };
        let name = new.name.clone().unwrap_or_else(|| default_name(&new));
        let token =
            new.kind.has_token().then(|| secret::mint_for(caller.once.as_deref(), TokenKind::Session, id));
        let connect = Connect {
            id,
            kind: new.kind,
            organization: caller.organization,
            application,
            principal,
            anchor: new.anchor,
            client_session_id: new.client_session_id,
            token_identifier: new.token_identifier,
            protocol_version: new.protocol_version,
            resource: new.resource,
            phase: new.phase,
            lifetime: new.lifetime,
            silent: new.silent,
            exclusive: new.exclusive,
            personal: Personal {
                salt: secret::salt(),
                name: name.clone(),
                hostname: new.hostname,
                user_agent: new.user_agent,
                client_info: new.client_info,
                ip: new.ip,
                ..Personal::default()
            },
            presented: caller.presented(caller.actor),
        };
        let subject_digest = self.key.subject_digest(&issuer, &subject);
        let token_hash = token.as_ref().map(|token| token.hash);
        let opening = OpenSession { connect, token_hash, issuer, subject, subject_digest };
        let Connected { session, opened } = self.committer.submit(origin, opening).await?.outcome;
        let name = if opened { name } else { self.name(session.number).await?.unwrap_or(name) };
        // The token names the session it belongs to: for an attach that is the older one, and a new one may have got a
        // later id.
        let own = |token: secret::Minted| {
            token.text.replace(&id.simple().to_string(), &session.id.simple().to_string())
        };
        let token = token.map(own);
        let application_id = self.gate.known().application_id(application);
        Ok(Opened { session: *session, application_id, name, token, opened })
    }

    /// The answer to a connect that took effect before, from the same facts.
    async fn opened_before(&self, caller: &Caller, connected: Connected) -> Result<Opened, Error> {
        let Connected { session, opened } = connected;
        self.not_barred(caller, session.application)?;
        let name = self.name(session.number).await?.unwrap_or_else(|| "(erased)".to_owned());
        let mint = || secret::mint_for(caller.once.as_deref(), TokenKind::Session, session.id).text;
        let token = session.kind.has_token().then(mint);
        let application_id = self.gate.known().application_id(session.application);
        Ok(Opened { session: *session, application_id, name, token, opened })
    }

    async fn name(&self, number: SessionNumber) -> Result<Option<String>, Error> {
        Ok(self.reader.session_by_number(number).await?.and_then(|row| row.detail.name))
    }

    /// A sign of life, durable when this returns.
    pub async fn record(
        &self,
        caller: &Caller,
        id: Uuid,
        source: ActivitySource,
        counts: Counts,
    ) -> Result<Session, Error> {
        let session = self.own(caller, id).await?.map_err(other_surface)?;
        self.gate_presented(caller, session.number);
        let activity = Activity { source, counts, presented: caller.presented(session.owner) };
        let (session, origin) = (session.number, Origin::caller(caller));
        self.on_session(origin, session, RecordActivity { session, activity }).await
    }

    /// Replaces the session's token; the old one is dead when this returns.
    pub async fn renew(&self, caller: &Caller, id: Uuid) -> Result<(Session, String), Error> {
        let session = self.own(caller, id).await?.map_err(no_token)?;
        let token = secret::mint_for(caller.once.as_deref(), TokenKind::Session, id);
        let (presented, session) = (caller.presented(session.owner), session.number);
        let renewal = RenewToken { session, presented, token_hash: token.hash };
        Ok((self.on_session(Origin::caller(caller), session, renewal).await?, token.text))
    }

    /// The client says goodbye. Ending twice is success.
    pub async fn disconnect(&self, caller: &Caller, id: Uuid) -> Result<View, Error> {
        let session = self.to_end(caller, id).await?;
        if session.ended.is_none() {
            self.flush(session.number).await;
            self.end(caller, &session, Reason::Client).await?;
        }
        let row = self.reader.session(id).await?.ok_or(Error::NotFound(Thing::Session))?;
        self.view(row).await
    }

    /// From now on every request of the session is refused, and nothing else changes.
    pub async fn suspend(&self, caller: &Caller, application: Uuid, id: Uuid) -> Result<View, Error> {
        self.set_suspended(caller, application, id, true).await
    }

    /// A suspended session may go on.
    pub async fn resume(&self, caller: &Caller, application: Uuid, id: Uuid) -> Result<View, Error> {
        self.set_suspended(caller, application, id, false).await
    }

    async fn set_suspended(
        &self,
        caller: &Caller,
        application: Uuid,
        id: Uuid,
        suspended: bool,
    ) -> Result<View, Error> {
        let session = self.managed(caller, application, id).await?;
        if let Some(ended) = session.ended.filter(|_| !caller.repeats()) {
            return Err(Error::Gone(ended));
        }
        let (session, origin) = (session.number, Origin::caller(caller));
        self.on_session(origin, session, SetSuspended { session, suspended }).await?;
        let row = self.reader.session(id).await?.ok_or(Error::NotFound(Thing::Session))?;
        self.view(row).await
    }

    /// The same for a client that gives up a session's token.
    pub async fn say_goodbye(&self, caller: &Caller, number: SessionNumber) -> Result<u64, Error> {
        self.flush(number).await;
        self.end_by(caller, number, SessionEnd::Disconnect(Reason::Client)).await
    }

    /// An operator ends one session and leaves every credential alone. Returns how many it ended: one or none.
    pub async fn terminate(&self, caller: &Caller, application: Uuid, id: Uuid) -> Result<u64, Error> {
        let session = self.managed(caller, application, id).await?;
        if session.ended.is_some() && !caller.repeats() {
            return Ok(0);
        }
        self.end(caller, &session, Reason::Terminated).await
    }

    /// Ends a session and returns once nothing of it is under way any more: how many this call ended, one or none.
    pub async fn end(&self, caller: &Caller, session: &MayAct, reason: Reason) -> Result<u64, Error> {
        self.end_by(caller, session.number, SessionEnd::Disconnect(reason)).await
    }

    /// The same for what the service itself opened and minds: a shell that is over, a gateway's session that nobody got.
    pub async fn end_minded(
        &self,
        caller: &Caller,
        number: SessionNumber,
        reason: Reason,
    ) -> Result<u64, Error> {
        self.end_as(Origin::consequence_of(caller), number, SessionEnd::Disconnect(reason)).await
    }

    async fn end_by(&self, caller: &Caller, number: SessionNumber, end: SessionEnd) -> Result<u64, Error> {
        self.end_as(Origin::caller(caller), number, end).await
    }

    async fn end_as(&self, origin: Origin, number: SessionNumber, end: SessionEnd) -> Result<u64, Error> {
        let ending = EndSessions { ends: vec![(number, end)], revocation: None };
        let answer = self.committer.submit(origin, ending).await?;
        answer.landed().await;
        Ok(answer.outcome)
    }

    /// Hands in an operation on an open session.
    async fn on_session<O>(
        &self,
        origin: Origin,
        number: SessionNumber,
        operation: O,
    ) -> Result<Session, Error>
    where
        O: Operation<Outcome = Box<Session>>,
    {
        match self.committer.submit(origin, operation).await {
            Ok(answer) => Ok(*answer.outcome),
            // It ended after we looked: say how.
            Err(Error::NotFound(Thing::Session)) => Err(self.how_it_ended(number).await?),
            Err(error) => Err(error),
        }
    }

    async fn how_it_ended(&self, number: SessionNumber) -> Result<Error, Error> {
        let row = self.reader.session_by_number(number).await?;
        Ok(match row.and_then(|row| row.session.ended) {
            Some(ended) => Error::Gone(ended),
            None => Error::NotFound(Thing::Session),
        })
    }

    // ---- who may ----

    /// The open session behind an id on the agent side, to act on; one that has ended is 410, a foreign one 404. Within it,
    /// why it is none of this side's.
    async fn own(&self, caller: &Caller, id: Uuid) -> Result<Result<MayAct, OutOfReach>, Error> {
        let session = match self.reachable(caller, id).await? {
            Ok(session) => session,
            other => return Ok(other),
        };
        if caller.repeats() {
            return Ok(Ok(session));
        }
        if let Some(ended) = session.ended {
            return Err(Error::Gone(ended));
        }
        self.agent_side(caller, session.application)?;
        Ok(Ok(session))
    }

    /// The session behind an id, whoever asks: from memory while it is open, else from the store.
    async fn look_up(&self, id: Uuid) -> Result<Option<Session>, Error> {
        let open = {
            let known = self.gate.known();
            known.session_number(id).and_then(|number| known.session(number)).cloned()
        };
        match open {
            Some(session) => Ok(Some(session)),
            None => Ok(self.reader.session(id).await?.map(|row| row.session)),
        }
    }

    /// The session behind an id on the agent side, open or ended, to act on.
    async fn reachable(&self, caller: &Caller, id: Uuid) -> Result<Result<MayAct, OutOfReach>, Error> {
        let session = self.look_up(id).await?.ok_or(Error::NotFound(Thing::Session))?;
        let application = session.application;
        let judged = MayAct::judge(caller, Way::Agents, session);
        if judged.as_ref().err() == Some(&OutOfReach::Unknown) {
            return Err(Error::NotFound(Thing::Session));
        }
        // What was revoked is told so, whatever it asks about; what was not is told how the session ended.
        self.not_barred(caller, application)?;
        Ok(judged)
    }

    /// As `reachable`, to say goodbye: a session's own token may always learn how its session stands, an access token
    /// only as long as no revocation has barred it.
    async fn to_end(&self, caller: &Caller, id: Uuid) -> Result<MayAct, Error> {
        let session = self.look_up(id).await?.ok_or(Error::NotFound(Thing::Session))?;
        let session = MayAct::judge(caller, Way::Agents, session).map_err(other_surface)?;
        if caller.session().is_none() {
            self.not_barred(caller, session.application)?;
        }
        Ok(session)
    }

    /// A session of an application, live or ended, for those who end an organization's sessions.
    async fn managed(&self, caller: &Caller, application: Uuid, id: Uuid) -> Result<MayAct, Error> {
        let application = self.readable(caller, application)?;
        let session = self.look_up(id).await?.filter(|session| session.application == application);
        let session = session.ok_or(Error::NotFound(Thing::Session))?;
        MayAct::judge(caller, Way::Management, session).map_err(other_surface)
    }

    /// The session behind an id, open or ended, if the caller may know of it.
    async fn visible(&self, caller: &Caller, way: Way, id: Uuid) -> Result<SessionRow, Error> {
        let row = self.reader.session(id).await?.ok_or(Error::NotFound(Thing::Session))?;
        MayLook::judge(caller, way, row.session.clone()).map_err(other_surface)?;
        Ok(row)
    }

    /// As `visible`, on the agent side: a session's own token may always learn how its session stands, an access token
    /// only as long as no revocation has barred it.
    async fn told(&self, caller: &Caller, id: Uuid) -> Result<SessionRow, Error> {
        let row = self.visible(caller, Way::Agents, id).await?;
        if caller.session().is_none() {
            self.not_barred(caller, row.session.application)?;
        }
        Ok(row)
    }

    /// Agent-side paths are closed to credentials issued before the last revocation that covers them, and to archived
    /// applications.
    pub fn agent_side(&self, caller: &Caller, application: ApplicationNumber) -> Result<(), Error> {
        self.not_barred(caller, application)?;
        let known = self.gate.known();
        let found = known.applications.get(&application).ok_or(Error::NotFound(Thing::Application))?;
        if found.archived_at.is_some() { Err(Error::NotFound(Thing::Application)) } else { Ok(()) }
    }

    fn not_barred(&self, caller: &Caller, application: ApplicationNumber) -> Result<(), Error> {
        let barred_before = self.gate.known().barred_before(application, caller.principal);
        if caller.credential.barred || caller.credential.issued_at < barred_before {
            return Err(Refusal::CredentialBarred.into());
        }
        Ok(())
    }

    /// Remembers which access token keeps a session alive: revoking the session bars it.
    fn gate_presented(&self, caller: &Caller, number: SessionNumber) {
        if let Some(token) = caller.access_token().filter(|_| !caller.repeats()) {
            self.gate.presented(number, token);
        }
    }

    /// The application named, else the one the caller is bound to, else the organization's only one.
    fn application_to_create_in(
        &self,
        caller: &Caller,
        named: Option<Uuid>,
    ) -> Result<ApplicationNumber, Error> {
        let known = self.gate.known();
        if let Some(id) = named {
            let application = known.application(id).filter(|one| {
                one.organization == caller.organization
                    && caller.may_touch(one.number)
                    && one.archived_at.is_none()
            });
            return application.map(|one| one.number).ok_or(Error::NotFound(Thing::Application));
        }
        if let Some(number) = caller.bound_to {
            return Ok(number);
        }
        let mut own = known
            .applications
            .values()
            .filter(|one| one.organization == caller.organization && one.archived_at.is_none())
            // What was made for another system is that system's, and nobody's only one.
            .filter(|one| !one.on_the_way);
        match (own.next(), own.next()) {
            (Some(only), None) => Ok(only.number),
            (None, _) => Err(Error::field(
                "applicationId",
                "the organization has no application yet; create one first",
            )),
            (Some(_), Some(_)) => Err(Error::field(
                "applicationId",
                "applicationId is required: the organization has several applications and this credential is bound to none",
            )),
        }
    }
}

/// Why a session cannot be acted on by this way.
pub(super) fn other_surface(out: OutOfReach) -> Error {
    let OutOfReach::OtherKind(kind) = out else { return Error::NotFound(Thing::Session) };
    let message = format!(
        "This is a session of the kind {}, which is kept on a surface of its own; here agents keep theirs",
        kind.word()
    );
    Error::Denied { code: "other_surface", message }
}

/// The same for a wish to renew its token.
fn no_token(out: OutOfReach) -> Error {
    let OutOfReach::OtherKind(kind) = out else { return Error::NotFound(Thing::Session) };
    let message = format!("A session of the kind {} has no token to renew", kind.word());
    Error::Conflict { code: "no_session_token", message }
}

/// Issuer and subject of whom a session belongs to: the user the client names, else the client itself.
fn principal_of(caller: &Caller, authenticated_user: Option<&str>) -> (String, String) {
    let client = match &caller.credential.kind {
        CredentialKind::Access { client, .. } => client.clone(),
        _ => caller.actor.id.to_string(),
    };
    match authenticated_user {
        Some(user) => (client, user.to_owned()),
        None => ("sessiond".to_owned(), client),
    }
}

/// `<client> on <host>`, as far as the two are known, else two words and a number.
fn default_name(new: &NewSession) -> String {
    let client = new.client_info.as_ref().and_then(|info| info.get("name")).and_then(Value::as_str);
    let name = match (client, &new.hostname) {
        (Some(client), Some(hostname)) => format!("{client} on {hostname}"),
        (Some(client), None) => format!("{client} {}", secret::session_name()),
        (None, _) => secret::session_name(),
    };
    name.chars().filter(|character| !character.is_control()).take(200).collect()
}

fn check_lengths(new: &NewSession) -> Result<(), Error> {
    let texts = [
        ("clientSessionId", &new.client_session_id),
        ("tokenIdentifier", &new.token_identifier),
        ("authenticatedUserId", &new.authenticated_user),
        ("name", &new.name),
        ("hostname", &new.hostname),
        ("owner", &new.owner),
    ];
    for (field, text) in texts {
        let Some(text) = text else { continue };
        if text.len() > LONGEST {
            return Err(Error::field(field, format!("{field} must be at most {LONGEST} bytes")));
        }
        if text.trim().is_empty() {
            return Err(Error::field(field, format!("{field} must not be empty; leave it out instead")));
        }
        if text.chars().any(char::is_control) {
            return Err(Error::field(field, format!("{field} must not contain control characters")));
        }
    }
    if new.client_info.as_ref().is_some_and(|info| !info.is_object()) {
        return Err(Error::field(
            "clientInfo",
            "clientInfo must be an object; leave it out if there is none",
        ));
    }
    let info = new.client_info.as_ref().map_or(0, |info| info.to_string().len());
    if info > LARGEST_CLIENT_INFO {
        let message = format!("clientInfo must be at most {LARGEST_CLIENT_INFO} bytes of JSON");
        return Err(Error::field("clientInfo", message));
    }
    Ok(())
}

/// The scopes any one of which lets a caller keep sessions.
pub const AGENT_SCOPES: [Scope; 3] = [Scope::McpInvoke, Scope::SessionsWrite, Scope::ManagementAll];
