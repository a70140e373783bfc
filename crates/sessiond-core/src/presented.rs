//! The credential that comes with a command, as far as the rules care.

use uuid::Uuid;

use crate::Time;
use crate::ids::Position;

/// The credential a command came with, as far as the rules care. The system presents none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Presented {
    /// The log position at which it was issued.
    pub issued_at: Position,
    pub expires_at: Time,
    /// The access token's id; none for the session's own token.
    pub access_token: Option<Uuid>,
    /// Whether it may renew a session's token that it outlives: access tokens, ours and others'; no session's own token,
    /// no API key.
    pub renews: bool,
    /// Whether it belongs to whoever opened the session.
    pub by_owner: bool,
}
