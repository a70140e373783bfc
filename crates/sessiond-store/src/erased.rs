//! What is left of a body that older releases wrote, once what is personal has gone from it.

use sessiond_core::chain::body_digest;
use sessiond_core::session::event::Connected;

/// Older releases had names that the client chose in the hashed body of a `Connected`. The body without them, and the digest
/// of the one that was hashed; none where there are none in it.
pub(crate) fn without_names(body: &str) -> Option<(String, [u8; 32])> {
    let connected: Connected = serde_json::from_str(body).ok()?;
    // Plain data with string keys: serializing it cannot fail.
    let erased = serde_json::to_string(&connected.erased()?).unwrap_or_default();
    Some((erased, body_digest(body)))
}
