//! What the tables are in every database, and how a batch comes into them.

use std::collections::BTreeMap;

use sessiond_core::session::Session;
use sessiond_core::streams::{AnyStream, Registered};

use crate::row::Batch;

/// The tables of what the log has made; all others hold the log, or what stands beside it.
pub(crate) const ROWS: [&str; 12] = [
    "organization",
    "application",
    "service_account",
    "session",
    "session_activity",
    "session_detail",
    "session_earlier",
    "session_block",
    "session_word",
    "revocation",
    "item",
    "let_go_resource",
];

/// The tables of the log.
pub(crate) const LOG: [&str; 3] = ["event", "gone", "cut"];

/// The tables of what stands beside the log: they are copied as they are, in this order. Housekeeping's marks are another
/// matter.
pub(crate) const BESIDE: [&str; 20] = [
    "principal",
    "principal_word",
    "client_secret",
    "access_token",
    "session_token",
    "api_key_secret",
    "mcp_session",
    "upstream_secret",
    "machine_secret",
    "confirmation",
    "webhook_secret",
    "webhook_progress",
    "webhook_delivery",
    "idempotency",
    "folding",
    "key_check",
    "statistic_cell",
    "statistic_label",
    "statistic_session",
    "statistic_mark",
];

/// The tables of journals, which may be a store of their own.
pub(crate) const JOURNALS: [&str; 2] = ["block", "tail"];

/// Every table that knows of a session by its number, with the column that has it. `tests/it/retention` walks the schema for
/// others.
pub const OF_SESSIONS: [(&str, &str); 10] = [
    ("session", "number"),
    ("session_activity", "number"),
    ("session_detail", "number"),
    ("session_earlier", "session"),
    ("session_word", "session"),
    ("session_token", "session"),
    ("mcp_session", "session"),
    ("confirmation", "session"),
    ("idempotency", "session"),
    ("statistic_session", "session"),
];

/// The mark of a store that tells how sessions stood before: one that an earlier release has written to does not, until it is
/// opened.
pub(crate) const EARLIER_FILED: &str = "earlier";

/// The mark of a store whose sessions are found by their words, likewise.
pub(crate) const WORDS_FILED: &str = "words";

/// Sessions that are written at a time where rows are made again.
const CHUNK: usize = 2_048;

/// `session.state`: 2 live, 1 live but announced as expired, 0 ended.
pub(crate) fn session_state(session: &Session) -> i64 {
    match (session.ended, session.announced()) {
        (Some(_), _) => 0,
        (None, true) => 1,
        (None, false) => 2,
    }
}

/// The streams of one kind.
pub(crate) fn of<'stream, S: Registered>(
    streams: impl IntoIterator<Item = &'stream AnyStream>,
) -> Vec<&'stream S> {
    streams.into_iter().filter_map(S::of).collect()
}

/// Whether the row of a stream is not one of those that share a table.
pub(crate) fn has_own_table(stream: &AnyStream) -> bool {
    matches!(
        stream,
        AnyStream::Organization(_)
            | AnyStream::Application(_)
            | AnyStream::ServiceAccount(_)
            | AnyStream::Revocation(_)
    )
}

/// The last of the rows of each key: what writing one after the other would leave.
pub(crate) fn newest<'row, Row, Key: Ord>(
    rows: impl IntoIterator<Item = &'row Row>,
    key: impl Fn(&Row) -> Key,
) -> Vec<&'row Row> {
    let newest: BTreeMap<Key, &Row> = rows.into_iter().map(|row| (key(row), row)).collect();
    newest.into_values().collect()
}

/// Where commits begin and end, as stretches of those that follow one another.
pub(crate) fn stretches(commits: Vec<(i64, i64)>) -> Vec<(i64, i64)> {
    let mut stretches: Vec<(i64, i64)> = Vec::new();
    for (first, last) in commits {
        match stretches.last_mut() {
            Some(before) if before.1 + 1 == first => before.1 = last,
            _ => stretches.push((first, last)),
        }
    }
    stretches
}

/// The next chunk of rows that are made again; none when there are no more.
pub(crate) fn next_chunk(rest: &mut impl Iterator<Item = Batch>) -> Option<Batch> {
    let mut chunk = rest.next()?;
    for row in rest.take(CHUNK) {
        chunk.streams.extend(row.streams);
        chunk.sessions.extend(row.sessions);
        chunk.activity.extend(row.activity);
        chunk.earlier.extend(row.earlier);
    }
    Some(chunk)
}
