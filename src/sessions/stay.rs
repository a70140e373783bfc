//! What stays open by a credential alone: a feed, a connection at a terminal, a download, what belongs to no session yet.

use sessiond_core::Time;
use sessiond_core::caller::Caller;
use sessiond_core::ending::{CredentialEnd, Ending};
use sessiond_core::session::Refusal;

use super::Sessions;
use crate::clock::Clock;
use crate::error::Error;
use crate::gate::{Pass, Side};

/// A place among what is open, as long as it is held.
pub struct Stay {
    pub pass: Pass,
    clock: Clock,
    expires_at: Time,
}

impl Stay {
    /// Resolves when the credential ends, in whatever way: also when it expires.
    pub async fn ended(&self) -> Ending {
        tokio::select! {
            biased;
            ending = self.pass.ended() => ending,
            () = self.clock.reached(self.expires_at) => Ending::Credential(CredentialEnd::Expired),
        }
    }
}

impl Sessions {
    /// Registers what a caller opens. The credential is judged after that: it may have ended since it was presented, and
    /// whoever ends it from now on finds what is registered.
    pub fn stay(&self, caller: &Caller, side: Side) -> Result<Stay, Error> {
        let pass = self.gate.stay(caller, side)?;
        let expires_at = caller.credential.expires_at;
        if self.clock.now() >= expires_at {
            return Err(Refusal::Expired.into());
        }
        if let Side::Agent(application, None) = side {
            self.agent_side(caller, application)?;
        }
        Ok(Stay { pass, clock: self.clock.clone(), expires_at })
    }
}
