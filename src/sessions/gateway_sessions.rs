//! What the MCP gateway asks of sessions, beyond what every surface does.

use std::sync::Arc;

use sessiond_core::caller::Caller;
use sessiond_core::ids::{ApplicationNumber, PrincipalNumber, SessionNumber};
use sessiond_core::kind::Kind;
use sessiond_core::natural_key::NaturalKey;
use sessiond_core::reason::Reason;
use sessiond_core::session::Session;
use sessiond_store::{McpSession, SideWrite};
use tokio::sync::mpsc::UnboundedReceiver;
use uuid::Uuid;

use super::connect::principal_of;
use crate::context::AppContext;
use crate::error::Error;
use crate::gate::{Departed, GateState};
use crate::secret::{self, TokenKind, labels};

/// Sessions of the MCP gateway.
#[derive(Clone)]
pub struct GatewaySessions {
    context: Arc<AppContext>,
}

impl GatewaySessions {
    pub(super) fn new(context: Arc<AppContext>) -> Self {
        Self { context }
    }

    /// Makes the anchor of a client that has no session id, from what is the same in all of its requests and in nobody else's.
    /// Whose credential it is goes in first, never the credential itself, so that a refreshed one finds the same session.
    pub fn anchor(&self, caller: &Caller, parts: &[&str]) -> String {
        let who = match caller.person() {
            Some(principal) => principal.0.to_be_bytes().to_vec(),
            None => {
                let (issuer, subject) = principal_of(caller, None);
                self.context.key.subject_digest(&issuer, &subject).to_vec()
            }
        };
        let organization = caller.organization.0.to_be_bytes();
        let actor_kind = (caller.actor.kind as i64).to_be_bytes();
        let client = caller.client();
        let mut all: Vec<&[u8]> = vec![
            &organization,
            &who,
            &actor_kind,
            caller.actor.id.as_bytes(),
            // A client without a name is not the one whose name is empty.
            if client.is_some() { b"client" } else { b"" },
            client.unwrap_or_default().as_bytes(),
        ];
        all.extend(parts.iter().map(|part| part.as_bytes()));
        hex::encode(self.context.key.digest("mcp anchor", &all))
    }

    /// Makes the key that seals the event ids of one stream of a session.
    pub fn event_seal(&self, session: SessionNumber, stream: &str) -> [u8; 32] {
        self.context.key.digest("event ids", &[&session.0.to_be_bytes(), stream.as_bytes()])
    }

    /// Finds the open session that holds an anchor in an application.
    pub fn anchored(&self, application: ApplicationNumber, anchor: &str) -> Option<Session> {
        let key = NaturalKey::Anchor(anchor).digest(application);
        self.context.gate.known().holder(&key).cloned()
    }

    /// Notes a sign of life of a session: its silence counts from now.
    pub fn saw(&self, number: SessionNumber) {
        self.context.gate.saw(number, self.context.clock.now());
    }

    /// Lists open sessions of the gateway that belong to the caller, at most `limit`.
    pub fn open_of(&self, caller: &Caller, application: ApplicationNumber, limit: usize) -> Vec<Session> {
        let known = self.context.gate.known();
        let Some(principal) = self.principal(&known, caller) else { return vec![] };
        let all = known.open_of_principal(application, principal).filter_map(|number| known.session(number));
        all.filter(|one| one.kind == Kind::Mcp && one.owner == caller.actor).take(limit).cloned().collect()
    }

    /// Returns the principal that a caller is when it names no other user.
    fn principal(&self, known: &GateState, caller: &Caller) -> Option<PrincipalNumber> {
        caller.person().or_else(|| {
            let (issuer, subject) = principal_of(caller, None);
            let digest = self.context.key.subject_digest(&issuer, &subject);
            known.principal(caller.organization, &digest)
        })
    }

    /// Whether the caller is the principal the session was opened for: a foreign one learns nothing, not even that it
    /// exists.
    pub fn belongs_to(&self, caller: &Caller, session: &Session) -> bool {
        let principal = self.principal(&self.context.gate.known(), caller);
        session.organization == caller.organization
            && session.owner == caller.actor
            && principal == Some(session.principal)
    }

    /// Keeps what the gateway needs to speak to the server behind a session, sealed, under a fresh `Mcp-Session-Id`,
    /// which is returned: it exists nowhere else.
    pub async fn keep_state(&self, session: &Session, state: &[u8]) -> Result<String, Error> {
        let minted = secret::mint(TokenKind::Mcp, session.id);
        let sealed = self.context.key.seal(&labels::mcp_session(session.id), state);
        let side = SideWrite::McpSession(session.number, McpSession { id_hash: minted.hash, sealed });
        self.context.write_beside(side).await?;
        Ok(minted.text)
    }

    /// Replaces what is kept, under the same `Mcp-Session-Id`.
    pub async fn update_state(&self, session: &Session, state: &[u8]) -> Result<(), Error> {
        let Some(kept) = self.context.store.mcp_session(session.number).await? else { return Ok(()) };
        let sealed = self.context.key.seal(&labels::mcp_session(session.id), state);
        let side = SideWrite::McpSession(session.number, McpSession { sealed, ..kept });
        self.context.write_beside(side).await
    }

    /// Returns how a session of the gateway ended, by its genuine `Mcp-Session-Id`, and only to its owner.
    pub async fn how_it_ended(
        &self,
        caller: &Caller,
        application: ApplicationNumber,
        id: &str,
    ) -> Result<Option<Reason>, Error> {
        let Some(presented) = secret::parse(id).filter(|presented| presented.kind == TokenKind::Mcp) else {
            return Ok(None);
        };
        let Some(session) = self.context.store.session(presented.id).await?.map(|row| row.session) else {
            return Ok(None);
        };
        if session.application != application || !self.belongs_to(caller, &session) {
            return Ok(None);
        }
        let kept = self.context.store.mcp_session(session.number).await?;
        let genuine = kept.is_some_and(|kept| secret::same(&kept.id_hash, &presented.hash));
        Ok(session.ended.filter(|_| genuine).map(|ended| ended.reason))
    }

    /// Opens what was kept of a session.
    pub async fn state(&self, session: &Session) -> Result<Option<Vec<u8>>, Error> {
        self.open_state(session.number, session.id).await
    }

    /// Opens what is still kept of a session that has ended; nothing once its upstream has been told.
    pub async fn state_of_departed(&self, departed: Departed) -> Result<Option<Vec<u8>>, Error> {
        self.open_state(departed.number, departed.id).await
    }

    /// Returns the sessions of the gateway that end from now on, as they do.
    pub fn departures(&self) -> UnboundedReceiver<Departed> {
        self.context.gate.departures()
    }

    /// Lists sessions that have ended and whose upstreams have not been told, after one in the order of their numbers.
    pub async fn untold(&self, after: SessionNumber, limit: usize) -> Result<Vec<Departed>, Error> {
        let untold = self.context.store.untold_mcp(after, limit).await?;
        let departed = |(number, id, application)| Departed { number, id, application };
        Ok(untold.into_iter().map(departed).collect())
    }

    /// Forgets what was kept of sessions whose upstreams know that they have ended, or never will.
    pub async fn forget_states(&self, sessions: Vec<SessionNumber>) -> Result<(), Error> {
        self.context.write_beside(SideWrite::ForgetMcp(sessions)).await
    }

    async fn open_state(&self, number: SessionNumber, id: Uuid) -> Result<Option<Vec<u8>>, Error> {
        let kept = self.context.store.mcp_session(number).await?.filter(|kept| !kept.sealed.is_empty());
        let Some(kept) = kept else { return Ok(None) };
        self.context
            .key
            .open(&labels::mcp_session(id), &kept.sealed)
            .map(Some)
            .map_err(|error| Error::Internal(error.to_string()))
    }
}
