//! Sessions, as SQLite hands them over: each as one JSON array, and not in the sixty values that its rows have.
//! The driver copies every value of every row on its own, nulls included, and frees it in another thread: that took
//! three quarters of a start with a million open sessions.

use serde::Deserialize;
use sessiond_core::ids::Position;
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use crate::StoreError;
use crate::row::{OpenSession, SessionRow, SessionToken};
use crate::session::{Bytes, Columns};
use crate::values::time;

/// A whole session as one value, in the order of the fields of [`Columns`]: `s` is its row, `d` its details and `a` its
/// activity, if it has any.
pub(super) const WHOLE_SESSION: &str = "json_array(\
     s.number, hex(s.id), s.organization, s.application, s.principal, s.owner_kind, hex(s.owner_id), \
     s.kind, s.idle_after, s.stale_after, s.absolute_lifetime, s.token_lifetime, s.unused_after, \
     s.preset, s.connected_at, s.connected_head, s.lifetime_ends_at, s.token_expires_at, \
     s.expiry_announced, nullif(hex(s.credential), ''), s.suspended_at, s.resumed_at, s.resource, \
     s.node, s.phase, s.ended_at, s.ended_reason, s.ended_outcome, s.message, s.last_active_at, s.requests, \
     s.bytes_in, s.bytes_out, json(s.throughput), s.version, s.head, hex(s.hash), d.name, d.hostname, \
     d.user_agent, d.client_info, d.ip, d.anchor, d.client_session_id, d.token_identifier, \
     d.protocol_version, d.client, iif(a.number is null, null, json_array(a.last_active_at, a.requests, \
     a.bytes_in, a.bytes_out, json(a.throughput), a.version, a.head, hex(a.hash))))";

/// The session in a row's only value, which is [`WHOLE_SESSION`].
pub(super) fn whole_session(row: &SqliteRow) -> Result<SessionRow, StoreError> {
    parsed::<Columns>(row.try_get(0)?)?.session()
}

/// An open session as one value: whole, with its token (`t`), and with the hash of its `Mcp-Session-Id` (`m`).
pub(super) fn open_session() -> String {
    format!(
        "json_array({WHOLE_SESSION}, iif(t.session is null, null, json_array(hex(t.secret_hash), t.issued_at, \
         t.expires_at)), nullif(hex(m.id_hash), ''))"
    )
}

/// The open sessions in a JSON array of what [`open_session`] says.
pub(super) fn open_sessions(array: &str) -> Result<Vec<OpenSession>, StoreError> {
    type Open = (Columns, Option<(Bytes<32>, Position, i64)>, Option<Bytes<32>>);
    let open = |(session, token, mcp_hash): Open| {
        let token = token.map(|(secret_hash, issued_at, expires_at)| SessionToken {
            secret_hash: secret_hash.0,
            issued_at,
            expires_at: time(expires_at),
        });
        Ok(OpenSession { row: session.session()?, token, mcp_hash: mcp_hash.map(|hash| hash.0) })
    };
    parsed::<Vec<Open>>(array)?.into_iter().map(open).collect()
}

fn parsed<'text, Value: Deserialize<'text>>(text: &'text str) -> Result<Value, StoreError> {
    let damaged = |error| StoreError::Damaged { position: 0, what: format!("a row of session: {error}") };
    serde_json::from_str(text).map_err(damaged)
}
