//! Opening a session, or attaching to the live one with the same natural key.

use chrono::TimeDelta;
use serde_json::Value;
use sessiond_core::application::Application;
use sessiond_core::caller::{Caller, CredentialKind};
use sessiond_core::command::Connect;
use sessiond_core::ids::{ApplicationNumber, PrincipalNumber, SessionNumber};
use sessiond_core::kind::Kind;
use sessiond_core::personal::Personal;
use sessiond_core::phase::Phase;
use sessiond_core::principal::{CLIENTS_THEMSELVES, OWN_USERS};
use sessiond_core::scope::Scope;
use sessiond_core::session::Session;
use uuid::Uuid;

use super::{LONGEST, Lifecycle};
use crate::committer::{Connected, OpenSession, Origin};
use crate::error::{Error, Thing};
use crate::secret::{self, TokenKind};

/// The scopes any one of which lets a caller keep sessions.
pub const AGENT_SCOPES: [Scope; 3] = [Scope::McpInvoke, Scope::SessionsWrite, Scope::ManagementAll];

/// Most bytes of `clientInfo`, as JSON.
pub const LARGEST_CLIENT_INFO: usize = 16_384;

/// What a surface knows of a session that is about to be opened.
#[derive(Debug)]
pub struct NewSession {
    pub kind: Kind,
    /// The application to open it in; for a caller that may create in several.
    pub application: Option<Uuid>,
    /// The gateway's own natural key for a client that has no session id, from
    /// [`GatewaySessions::anchor`](super::GatewaySessions::anchor).
    pub anchor: Option<String>,
    pub client_session_id: Option<String>,
    pub token_identifier: Option<String>,
    /// The user the client acts for, in the client's own words.
    pub authenticated_user: Option<String>,
    pub name: Option<String>,
    pub hostname: Option<String>,
    pub user_agent: Option<String>,
    pub client_info: Option<Value>,
    pub ip: Option<String>,
    pub protocol_version: Option<String>,
    /// The person it belongs to, where the organization names that person itself.
    pub owner: Option<String>,
    /// The thing within its application that it is connected to.
    pub resource: Option<String>,
    pub phase: Option<Phase>,
    /// The node that it lives on, where it cannot go on anywhere else.
    pub node: Option<i64>,
    /// How long it may last at most, if less than its application's policy allows.
    pub lifetime: Option<TimeDelta>,
    /// Whether nothing will be reported of it but its end.
    pub silent: bool,
    /// Whether it is refused where a live session has its natural key, instead of attached to that one.
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
            node: None,
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

impl Lifecycle {
    /// Opens a session, or attaches to the live one with the same natural key (`sessiond_core::command::natural_key`): same id,
    /// fresh token, the old token dead.
    pub async fn connect(&self, caller: &Caller, new: NewSession) -> Result<Opened, Error> {
        self.connect_by(caller, Origin::caller(caller), new).await
    }

    /// The same as [`Self::connect`] for a part of a request, with the origin of that part.
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
        self.context.check_agent_side(caller, application)?;
        check_lengths(&new)?;
        // A person's own credential opens for that person, whomever the client names. Anybody else gets a number when the
        // operation is decided.
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
            node: new.node,
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
        let subject_digest = self.context.key.subject_digest(&issuer, &subject);
        let token_hash = token.as_ref().map(|token| token.hash);
        let opening = OpenSession { connect, token_hash, issuer, subject, subject_digest };
        let Connected { session, opened } = self.context.committer.submit(origin, opening).await?.outcome;
        let name = if opened { name } else { self.name_of(session.number).await?.unwrap_or(name) };
        // The token names the session it belongs to: for an attach that is the older one, and a new one may have got a
        // later id.
        let own = |token: secret::Minted| {
            token.text.replace(&id.simple().to_string(), &session.id.simple().to_string())
        };
        let token = token.map(own);
        let application_id = self.context.gate.known().application_id(application);
        Ok(Opened { session: *session, application_id, name, token, opened })
    }

    /// Answers a connect that took effect before, from the same facts.
    async fn opened_before(&self, caller: &Caller, connected: Connected) -> Result<Opened, Error> {
        let Connected { session, opened } = connected;
        self.context.check_not_barred(caller, session.application)?;
        let name = self.name_of(session.number).await?.unwrap_or_else(|| "(erased)".to_owned());
        let mint = || secret::mint_for(caller.once.as_deref(), TokenKind::Session, session.id).text;
        let token = session.kind.has_token().then(mint);
        let application_id = self.context.gate.known().application_id(session.application);
        Ok(Opened { session: *session, application_id, name, token, opened })
    }

    async fn name_of(&self, number: SessionNumber) -> Result<Option<String>, Error> {
        Ok(self.context.store.session_by_number(number).await?.and_then(|row| row.detail.name))
    }

    /// Finds the application to open a session in: the one named, else the one the caller is bound to, else the organization's
    /// only one.
    fn application_to_create_in(
        &self,
        caller: &Caller,
        named: Option<Uuid>,
    ) -> Result<ApplicationNumber, Error> {
        let known = self.context.gate.known();
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
            .streams::<Application>()
            .filter(|one| one.organization == caller.organization && one.archived_at.is_none())
            // An application that was made because another system named it is not what the caller means.
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

/// Returns issuer and subject of the principal that a session belongs to: the user the client names, else the client itself.
pub(super) fn principal_of(caller: &Caller, authenticated_user: Option<&str>) -> (String, String) {
    let client = match &caller.credential.kind {
        CredentialKind::Access { client, .. } => client.clone(),
        _ => caller.actor.id.to_string(),
    };
    match authenticated_user {
        Some(user) => (client, user.to_owned()),
        None => (CLIENTS_THEMSELVES.to_owned(), client),
    }
}

/// Makes a name: `<client> on <host>`, as far as the two are known, else two words and a number.
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
