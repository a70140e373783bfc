//! Whose credentials are behind sessions: what a thief of one of them may hold.

use std::collections::{BTreeSet, HashSet};

use sessiond_core::Time;
use sessiond_core::actor::ActorKind;
use sessiond_core::api_key::ApiKey;
use sessiond_core::application::Application;
use sessiond_core::bar::{BarredClient, Placer};
use sessiond_core::barring::KeptOut;
use sessiond_core::caller::{Caller, CredentialKind};
use sessiond_core::ids::{OrganizationNumber, PrincipalNumber, SessionNumber};
use sessiond_core::kind::Kind;
use sessiond_core::scope::{Scope, Scopes};
use sessiond_core::service_account::ServiceAccount;
use sessiond_core::session::Session;
use sessiond_core::token::AccessToken;
use uuid::Uuid;

use super::GateState;

/// Who is behind sessions, and what they were opened and kept alive with.
#[derive(Debug, Default)]
pub struct Behind {
    pub principals: BTreeSet<PrincipalNumber>,
    /// OAuth clients that opened them: application or service account, by number.
    pub clients: BTreeSet<(i64, i64)>,
    /// API keys that opened them.
    keys: HashSet<Uuid>,
    /// Access tokens by which they were last kept alive.
    pub presented: HashSet<Uuid>,
}

/// Whom bars are to keep out.
#[derive(Debug, Default)]
pub struct ToKeepOut {
    /// Principals, with the client that each is by itself.
    pub principals: Vec<(PrincipalNumber, Option<BarredClient>)>,
    /// How many OAuth clients that opened the sessions are not kept out.
    pub clients_left: usize,
    /// Whoever asks is left out.
    pub without_oneself: bool,
}

impl ToKeepOut {
    pub fn clients(&self) -> impl Iterator<Item = BarredClient> {
        self.principals.iter().filter_map(|(_, client)| *client)
    }

    /// Whether an API key opens nothing while they are kept out.
    pub fn has_key(&self, key: &ApiKey) -> bool {
        let itself = Some(BarredClient::ApiKey(key.number));
        self.principals
            .iter()
            .any(|(principal, client)| key.principal == Some(*principal) || *client == itself)
    }

    /// What is said of it.
    pub fn said(&self, until: Option<Time>) -> KeptOut {
        KeptOut {
            principals: self.principals.len() as u64,
            clients: self.clients().count() as u64,
            clients_left: self.clients_left as u64,
            until,
            without_oneself: self.without_oneself,
        }
    }
}

impl Behind {
    /// Whether this is one of its access tokens: of its clients, or presented with its sessions.
    pub fn has_token(&self, token: &AccessToken) -> bool {
        self.clients.contains(&(token.client_kind as i64, token.client)) || self.presented.contains(&token.id)
    }

    /// Whether this is one of its API keys, and opens anything at this moment: it acts for one of its principals, or
    /// opened one of its sessions. Where everything of the organization is meant, each that opens sessions is.
    pub fn has_key(&self, key: &ApiKey, everything: bool, now: Time) -> bool {
        let own = key.principal.is_some_and(|principal| self.principals.contains(&principal))
            || self.keys.contains(&key.id)
            || (everything && opens_sessions(key));
        own && key.revoked_at.is_none() && key.expires_at.is_none_or(|at| at > now)
    }
}

/// Whether somebody who is connected by a session of this kind holds the credential that opened it. Viewers of media and
/// workloads do not: servers and clusters report them, with a key of their own.
fn holds_its_credential(kind: Kind) -> bool {
    match kind {
        Kind::Agent | Kind::Mcp | Kind::Terminal => true,
        Kind::Media | Kind::Webui | Kind::Task => false,
    }
}

/// Whether a key opens sessions on any surface.
fn opens_sessions(key: &ApiKey) -> bool {
    let (scopes, _) = Scopes::parse(&key.scopes);
    [Scope::McpInvoke, Scope::Media, Scope::Session, Scope::Terminal].iter().any(|scope| scopes.has(*scope))
}

impl GateState {
    /// Adds what is behind a session.
    pub fn add_behind(&self, behind: &mut Behind, session: &Session) {
        behind.principals.insert(session.principal);
        if !holds_its_credential(session.kind) {
            return;
        }
        behind.presented.extend(session.credential);
        behind.presented.extend(self.presented(session.number));
        let owner = session.owner;
        let client = match owner.kind {
            ActorKind::ApiKey => {
                behind.keys.insert(owner.id);
                None
            }
            ActorKind::Application => self.application(owner.id).map(|one| one.number.0),
            ActorKind::ServiceAccount => {
                self.stream_by_id::<ServiceAccount>(owner.id).map(|one| one.number.0)
            }
            _ => None,
        };
        behind.clients.extend(client.map(|number| (owner.kind as i64, number)));
    }

    /// Whoever asks, as one who wants bars placed.
    pub fn placer(&self, caller: &Caller) -> Placer {
        let client = match &caller.credential.kind {
            CredentialKind::Access { client, .. } => self.oauth_client(client),
            CredentialKind::ApiKey { key, .. } => self.key_client(*key),
            _ => None,
        };
        Placer { principal: caller.principal, client, scopes: caller.scopes }
    }

    /// Whom bars on the principals behind sessions keep out: all but whoever wants them placed, who could not lift them.
    pub fn to_keep_out(&self, behind: &Behind, placer: &Placer) -> ToKeepOut {
        let mut whom = ToKeepOut::default();
        for principal in &behind.principals {
            let client = self.client_itself(*principal);
            if placer.principal == Some(*principal) || (client.is_some() && client == placer.client) {
                whom.without_oneself = true;
            } else {
                whom.principals.push((*principal, client));
            }
        }
        let kept_out = |kind, number| whom.clients().any(|client| client.stored() == (kind, number));
        whom.clients_left = behind.clients.iter().filter(|(kind, number)| !kept_out(*kind, *number)).count();
        whom
    }

    /// The organization of a client.
    pub fn organization_of(&self, client: BarredClient) -> Option<OrganizationNumber> {
        match client {
            BarredClient::Application(number) => {
                self.stream::<Application>(number).map(|one| one.organization)
            }
            BarredClient::ServiceAccount(number) => {
                self.stream::<ServiceAccount>(number).map(|one| one.organization)
            }
            BarredClient::ApiKey(number) => self.stream::<ApiKey>(number).map(|key| key.organization),
        }
    }

    /// What may be done with the credentials of whom bars keep out.
    pub fn rights_of(&self, client: BarredClient) -> Scopes {
        match client {
            BarredClient::Application(number) => {
                let scopes = self.stream::<Application>(number).map(|one| one.oauth.scopes.join(" "));
                Scopes::parse(&scopes.unwrap_or_default()).0
            }
            BarredClient::ServiceAccount(number) => {
                self.stream::<ServiceAccount>(number).map(|one| one.scopes).unwrap_or_default()
            }
            BarredClient::ApiKey(number) => {
                let scopes = self.stream::<ApiKey>(number).map(|key| Scopes::parse(&key.scopes).0);
                scopes.unwrap_or_default()
            }
        }
    }

    /// What an OAuth client behind sessions is called by whoever authenticates as it.
    pub fn client_id_of(&self, (kind, number): (i64, i64)) -> Option<String> {
        match ActorKind::from_code(kind)? {
            ActorKind::Application => {
                self.stream::<Application>(number).map(|one| one.oauth.client_id.clone())
            }
            ActorKind::ServiceAccount => {
                self.stream::<ServiceAccount>(number).map(|one| one.client_id.clone())
            }
            _ => None,
        }
    }

    /// What is behind open sessions.
    pub fn behind(&self, sessions: &[SessionNumber]) -> Behind {
        let mut behind = Behind::default();
        for session in sessions.iter().filter_map(|number| self.session(*number)) {
            self.add_behind(&mut behind, session);
        }
        behind
    }

    /// The access tokens behind sessions that open anything at this moment.
    pub fn tokens_behind<'a>(
        &'a self,
        organization: OrganizationNumber,
        behind: &'a Behind,
        now: Time,
    ) -> impl Iterator<Item = &'a AccessToken> {
        self.access_tokens.values().filter(move |token| {
            token.organization == organization
                && token.expires_at > now
                && behind.has_token(token)
                && !self.token_barred(token.id)
        })
    }
}
