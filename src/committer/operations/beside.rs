//! Operations that write beside the log, or nothing.

use sessiond_core::change::Change;
use sessiond_core::ids::Position;
use sessiond_core::token::AccessToken;
use sessiond_store::SideWrite;

use crate::committer::{Draft, Operation, Origin};
use crate::error::Error;

/// Issues an access token; the draft fills in where in the log.
#[derive(Debug)]
pub struct IssueToken {
    pub token: AccessToken,
    /// When in the log its client was looked at: what has changed since has to be looked at again.
    pub as_of: Position,
}

impl Operation for IssueToken {
    type Outcome = ();

    fn decide(&self, _: &Origin, draft: &mut Draft<'_>) -> Result<(), Error> {
        draft.issue_token(&self.token, self.as_of)
    }
}

/// Writes what is no event.
#[derive(Debug)]
pub struct WriteBeside(pub SideWrite);

impl Operation for WriteBeside {
    type Outcome = ();

    fn decide(&self, _: &Origin, draft: &mut Draft<'_>) -> Result<(), Error> {
        draft.write_beside(self.0.clone());
        Ok(())
    }
}

/// Tells those who follow this process what is in its memory and on no record.
#[derive(Debug)]
pub struct Inform(pub Change);

impl Operation for Inform {
    type Outcome = ();

    fn decide(&self, _: &Origin, draft: &mut Draft<'_>) -> Result<(), Error> {
        draft.change(self.0.clone());
        Ok(())
    }
}

/// Nothing: whoever waits for its answer has waited for what was handed in before.
#[derive(Debug)]
pub struct Nothing;

impl Operation for Nothing {
    type Outcome = ();

    fn decide(&self, _: &Origin, _: &mut Draft<'_>) -> Result<(), Error> {
        Ok(())
    }
}
