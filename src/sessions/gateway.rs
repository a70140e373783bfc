//! What the MCP gateway asks of sessions, beyond what every surface does.

use std::time::Duration;

use chrono::TimeDelta;
use sessiond_core::Time;
use sessiond_core::caller::Caller;
use sessiond_core::ids::{ApplicationNumber, PrincipalNumber, SessionNumber};
use sessiond_core::kind::Kind;
use sessiond_core::natural_key::NaturalKey;
use sessiond_core::reason::Reason;
use sessiond_core::session::{Refusal, Session};
use sessiond_store::{McpSession, SideWrite};
use tokio::sync::mpsc::UnboundedReceiver;
use uuid::Uuid;

use super::{Sessions, principal_of};
use crate::committer::{Origin, WriteBeside};
use crate::error::Error;
use crate::gate::{Departed, GateState, Pass};
use crate::secret::{self, TokenKind};

impl Sessions {
    /// The anchor of a client that has no session id: what of its requests stays the same, and nobody else's. Whose
    /// credential it is goes in first, never the credential itself, so that a refreshed one finds the same session.
    pub fn anchor(&self, caller: &Caller, parts: &[&str]) -> String {
        let who = match caller.person() {
            Some(principal) => principal.0.to_be_bytes().to_vec(),
            None => {
                let (issuer, subject) = principal_of(caller, None);
                self.key.subject_digest(&issuer, &subject).to_vec()
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
            // None is not the same as an empty name.
            if client.is_some() { b"client" } else { b"" },
            client.unwrap_or_default().as_bytes(),
        ];
        all.extend(parts.iter().map(|part| part.as_bytes()));
        hex::encode(self.key.digest("mcp anchor", &all))
    }

    /// The key that seals the event ids of one stream of a session.
    pub fn event_seal(&self, session: SessionNumber, stream: &str) -> [u8; 32] {
        self.key.digest("event ids", &[&session.0.to_be_bytes(), stream.as_bytes()])
    }

    /// The open session that holds an anchor in an application.
    pub fn anchored(&self, application: ApplicationNumber, anchor: &str) -> Option<Session> {
        let key = NaturalKey::Anchor(anchor).digest(application);
        self.gate.known().holder(&key).cloned()
    }

    /// Registers a request or stream of a session as under way, if the caller may and the session is live. The pass
    /// says when it must stop. The credential is judged after that: it may have been revoked since it was presented, and
    /// whoever revokes from now on finds what is registered.
    pub fn enter(&self, caller: &Caller, session: &Session) -> Result<Pass, Error> {
        let pass = self.gate.enter(caller, session.number, self.clock.now())?;
        self.still_welcome(caller, session.application)?;
        self.gate_presented(caller, session.number);
        Ok(pass)
    }

    /// Resolves once so much time has passed by the clock.
    pub fn passes(&self, time: Duration) -> impl Future<Output = ()> + Send + use<> {
        let clock = self.clock.clone();
        let at = TimeDelta::from_std(time).ok().and_then(|time| clock.now().checked_add_signed(time));
        async move { clock.reached(at.unwrap_or(Time::MAX_UTC)).await }
    }

    /// Whether a credential that was good when it was presented still opens an application's agent side.
    pub fn still_welcome(&self, caller: &Caller, application: ApplicationNumber) -> Result<(), Error> {
        if self.clock.now() >= caller.credential.expires_at {
            return Err(Refusal::Expired.into());
        }
        self.agent_side(caller, application)
    }

    /// Notes a sign of life of a session: its silence counts from now.
    pub fn saw(&self, number: SessionNumber) {
        self.gate.saw(number, self.clock.now());
    }

    /// The open session behind a number.
    pub fn open_session(&self, number: SessionNumber) -> Option<Session> {
        self.gate.known().session(number).cloned()
    }

    /// Open sessions of the gateway that belong to the caller, some of them.
    pub fn open_of(&self, caller: &Caller, application: ApplicationNumber, limit: usize) -> Vec<Session> {
        let known = self.gate.known();
        let Some(principal) = self.principal(&known, caller) else { return vec![] };
        let all = known.open_of_principal(application, principal).filter_map(|number| known.session(number));
        all.filter(|one| one.kind == Kind::Mcp && one.owner == caller.actor).take(limit).cloned().collect()
    }

    /// Whom a caller is, in the caller's own name.
    fn principal(&self, known: &GateState, caller: &Caller) -> Option<PrincipalNumber> {
        caller.person().or_else(|| {
            let (issuer, subject) = principal_of(caller, None);
            let digest = self.key.subject_digest(&issuer, &subject);
            known.principal(caller.organization, &digest)
        })
    }

    /// Whether the caller is the principal the session was opened for: a foreign one learns nothing, not even that it
    /// exists.
    pub fn belongs_to(&self, caller: &Caller, session: &Session) -> bool {
        let principal = self.principal(&self.gate.known(), caller);
        session.organization == caller.organization
            && session.owner == caller.actor
            && principal == Some(session.principal)
    }

    /// Keeps what the gateway needs to speak to the server behind a session, sealed, under a fresh `Mcp-Session-Id`,
    /// which is returned: it exists nowhere else.
    pub async fn keep_mcp(&self, session: &Session, state: &[u8]) -> Result<String, Error> {
        let minted = secret::mint(TokenKind::Mcp, session.id);
        let sealed = self.key.seal(&mcp_label(session.id), state);
        let side = SideWrite::McpSession(session.number, McpSession { id_hash: minted.hash, sealed });
        self.committer.submit(Origin::system(), WriteBeside(side)).await?;
        Ok(minted.text)
    }

    /// Replaces what is kept, under the same `Mcp-Session-Id`.
    pub async fn update_mcp(&self, session: &Session, state: &[u8]) -> Result<(), Error> {
        let Some(kept) = self.reader.mcp_session(session.number).await? else { return Ok(()) };
        let sealed = self.key.seal(&mcp_label(session.id), state);
        let side = SideWrite::McpSession(session.number, McpSession { sealed, ..kept });
        self.committer.submit(Origin::system(), WriteBeside(side)).await.map(|_| ())
    }

    /// How a session of the gateway ended, by its genuine `Mcp-Session-Id`; for its owner only.
    pub async fn how_mcp_ended(
        &self,
        caller: &Caller,
        application: ApplicationNumber,
        id: &str,
    ) -> Result<Option<Reason>, Error> {
        let Some(presented) = secret::parse(id).filter(|presented| presented.kind == TokenKind::Mcp) else {
            return Ok(None);
        };
        let Some(session) = self.reader.session(presented.id).await?.map(|row| row.session) else {
            return Ok(None);
        };
        if session.application != application || !self.belongs_to(caller, &session) {
            return Ok(None);
        }
        let kept = self.reader.mcp_session(session.number).await?;
        let genuine = kept.is_some_and(|kept| secret::same(&kept.id_hash, &presented.hash));
        Ok(session.ended.filter(|_| genuine).map(|ended| ended.reason))
    }

    /// What was kept, opened.
    pub async fn kept_mcp(&self, session: &Session) -> Result<Option<Vec<u8>>, Error> {
        self.opened_mcp(session.number, session.id).await
    }

    /// What is still kept of a session that has ended, opened; nothing once its upstream has been told.
    pub async fn kept_of_departed(&self, departed: Departed) -> Result<Option<Vec<u8>>, Error> {
        self.opened_mcp(departed.number, departed.id).await
    }

    /// Sessions of the gateway that end from now on.
    pub fn departures(&self) -> UnboundedReceiver<Departed> {
        self.gate.departures()
    }

    /// Those that ended before, after this one in the order of their numbers, whose upstreams have not been told.
    pub async fn untold(&self, after: SessionNumber, limit: usize) -> Result<Vec<Departed>, Error> {
        let untold = self.reader.untold_mcp(after, limit).await?;
        let departed = |(number, id, application)| Departed { number, id, application };
        Ok(untold.into_iter().map(departed).collect())
    }

    /// The upstreams of these sessions know that they are over, or never will: what was kept to speak to them goes.
    pub async fn forget_mcp(&self, sessions: Vec<SessionNumber>) -> Result<(), Error> {
        self.committer.submit(Origin::system(), WriteBeside(SideWrite::ForgetMcp(sessions))).await.map(|_| ())
    }

    async fn opened_mcp(&self, number: SessionNumber, id: Uuid) -> Result<Option<Vec<u8>>, Error> {
        let kept = self.reader.mcp_session(number).await?.filter(|kept| !kept.sealed.is_empty());
        let Some(kept) = kept else { return Ok(None) };
        self.key
            .open(&mcp_label(id), &kept.sealed)
            .map(Some)
            .map_err(|error| Error::Internal(error.to_string()))
    }
}

fn mcp_label(id: Uuid) -> String {
    format!("mcp_session {id}")
}
