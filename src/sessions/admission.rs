//! Admission: who may go on by a credential that was good when it was presented, and what tells whoever is inside that it has
//! ended.

use std::sync::Arc;

use sessiond_core::Time;
use sessiond_core::bar::Barred;
use sessiond_core::caller::Caller;
use sessiond_core::ending::{CredentialEnd, Ending};
use sessiond_core::ids::{ApplicationNumber, PrincipalNumber};
use sessiond_core::session::{Refusal, Session};

use crate::clock::Clock;
use crate::context::AppContext;
use crate::error::Error;
use crate::gate::{Lease, Pass, Side};

/// The way in for whatever takes longer than the check of its credential.
#[derive(Clone)]
pub struct Admission {
    context: Arc<AppContext>,
}

/// What is open by a credential alone, as long as this is held: a feed, a connection at a terminal, a download, what belongs
/// to no session yet.
pub struct Registration {
    pub pass: Pass,
    clock: Clock,
    expires_at: Time,
}

impl Registration {
    /// Resolves when the credential ends, in whatever way: also when it expires.
    pub async fn ended(&self) -> Ending {
        tokio::select! {
            biased;
            ending = self.pass.ended() => ending,
            () = self.clock.reached(self.expires_at) => Ending::Credential(CredentialEnd::Expired),
        }
    }
}

impl Admission {
    pub(super) fn new(context: Arc<AppContext>) -> Self {
        Self { context }
    }

    /// Until when anything may be handed on.
    pub fn lease(&self) -> Arc<Lease> {
        self.context.gate.lease()
    }

    /// Registers a request or stream of a session as under way, if the caller may and the session is live. The pass
    /// says when it must stop. The credential is judged after that: it may have been revoked since it was presented, and
    /// whoever revokes from now on finds what is registered.
    pub fn enter(&self, caller: &Caller, session: &Session) -> Result<Pass, Error> {
        let pass = self
            .context
            .gate
            .enter(caller, session.number, self.context.clock.now())
            .map_err(|refusal| self.refused(refusal, caller, session.principal))?;
        self.check_again(caller, session.application)?;
        self.context.note_presented(caller, session.number);
        Ok(pass)
    }

    /// Registers what a caller opens by the credential alone, which is judged after that for the same reason.
    pub fn register(&self, caller: &Caller, side: Side) -> Result<Registration, Error> {
        let pass = self.context.gate.register(caller, side, self.context.clock.now());
        let pass =
            pass.map_err(|refusal| self.refused(refusal, caller, caller.principal.unwrap_or_default()))?;
        let expires_at = caller.credential.expires_at;
        if self.context.clock.now() >= expires_at {
            return Err(Refusal::Expired.into());
        }
        if let Side::Agent(application, None) = side {
            self.context.check_agent_side(caller, application)?;
        }
        Ok(Registration { pass, clock: self.context.clock.clone(), expires_at })
    }

    /// The error for a refusal: of a bar it says what whoever is barred is told.
    fn refused(&self, refusal: Refusal, caller: &Caller, principal: PrincipalNumber) -> Error {
        let (known, now) = (self.context.gate.known(), self.context.clock.now());
        let bar = || {
            known.bar_on(Barred::Principal(principal), now).or_else(|| known.bar_against(caller, true, now))
        };
        match refusal {
            Refusal::Barred => bar().map_or(refusal.into(), |bar| Error::Barred(bar.told())),
            refusal => refusal.into(),
        }
    }

    /// Refuses credentials on agent-side paths that were issued before the last revocation which covers them, and all of
    /// them where the application is archived.
    pub fn check_agent_side(&self, caller: &Caller, application: ApplicationNumber) -> Result<(), Error> {
        self.context.check_agent_side(caller, application)
    }

    /// Checks again a credential that was good when it was presented: whether it still opens an application's agent side.
    pub fn check_again(&self, caller: &Caller, application: ApplicationNumber) -> Result<(), Error> {
        if self.context.clock.now() >= caller.credential.expires_at {
            return Err(Refusal::Expired.into());
        }
        self.context.check_agent_side(caller, application)
    }
}
