//! What each row must be, column by column, and the comparison with what it is.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use sessiond_core::application::Application;
use sessiond_core::ids::{ApplicationNumber, Head, StreamKind};
use sessiond_core::organization::Organization;
use sessiond_core::phase::{Outcome, Phase};
use sessiond_core::policy::Preset;
use sessiond_core::revocation::Revocation;
use sessiond_core::service_account::ServiceAccount;
use sessiond_core::session::Session;
use sessiond_core::session::earlier::EarlierState;
use sessiond_core::streams::AnyStream;
use sessiond_core::throughput::Throughput;

use super::Difference;
use super::log::{Chain, Folded, LogCheck, Point, State};
use super::value::Value;
use crate::{Detail, called};

/// The tables that are made from the log, one a kind of stream. A session's hot row and its details come with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Table {
    Organization,
    Application,
    ServiceAccount,
    Session,
    Revocation,
    /// These share a table.
    Principal,
    ApiKey,
    Schedule,
    Webhook,
    MediaStream,
    Hook,
    Machine,
    Bar,
}

impl Table {
    pub const ALL: [Self; 13] = [
        Self::Organization,
        Self::Application,
        Self::ServiceAccount,
        Self::Session,
        Self::Revocation,
        Self::Principal,
        Self::ApiKey,
        Self::Schedule,
        Self::Webhook,
        Self::MediaStream,
        Self::Hook,
        Self::Machine,
        Self::Bar,
    ];

    pub fn name(self) -> &'static str {
        self.kind().word()
    }

    /// Where its rows are, for a `from`.
    pub fn source(self) -> String {
        match self {
            Self::Organization
            | Self::Application
            | Self::ServiceAccount
            | Self::Session
            | Self::Revocation => self.name().to_owned(),
            _ => format!("(select * from item where kind = {})", self.kind() as i64),
        }
    }

    pub fn kind(self) -> StreamKind {
        match self {
            Self::Organization => StreamKind::Organization,
            Self::Application => StreamKind::Application,
            Self::ServiceAccount => StreamKind::ServiceAccount,
            Self::Session => StreamKind::Session,
            Self::Revocation => StreamKind::Revocation,
            Self::Principal => StreamKind::Principal,
            Self::ApiKey => StreamKind::ApiKey,
            Self::Schedule => StreamKind::Schedule,
            Self::Webhook => StreamKind::Webhook,
            Self::MediaStream => StreamKind::MediaStream,
            Self::Hook => StreamKind::Hook,
            Self::Machine => StreamKind::Machine,
            Self::Bar => StreamKind::Bar,
        }
    }
}

/// Rows of one table, by number, as they are stored.
#[derive(Debug, Default)]
pub struct Rows {
    pub columns: Vec<String>,
    pub by_number: BTreeMap<i64, Vec<Value>>,
}

/// A page of a table, with what belongs to it.
#[derive(Debug, Default)]
pub struct Page {
    pub rows: Rows,
    /// For sessions: hot rows and details of the same numbers, and `body` and `personal` of what opened them.
    pub hot: Rows,
    pub details: Rows,
    pub connected: BTreeMap<i64, (Option<String>, Option<String>)>,
    /// And how they stood before, in the order of the log.
    pub earlier: Vec<EarlierState>,
    /// And the words that they are found by, with the application under which each is filed.
    pub words: BTreeMap<i64, BTreeSet<(i64, String)>>,
    /// How far activity was settled when the page was read.
    pub settled: i64,
    /// The last number of the page; none when it reaches to the end of the table.
    pub last: Option<i64>,
}

/// What a row must be: its columns in the table's order.
type Expected = Vec<(&'static str, Value)>;

impl LogCheck {
    /// Compares a page of rows with the folds of the same numbers: those after `after`, up to the page's last.
    pub fn compare(&mut self, table: Table, after: i64, page: &Page) -> Result<(), Difference> {
        let kind = table.kind() as i64;
        let upto = page.last.unwrap_or(i64::MAX);
        let streams = self.streams.range((kind, after)..=(kind, upto)).filter(|(key, _)| key.1 > after);
        for ((_, number), chain) in streams {
            let place = || format!("row of {} {number}", table.name());
            let Some(row) = page.rows.by_number.get(number) else {
                // It may have been let go since it was read.
                if chain.has_ended() && self.let_go.may_miss_row() {
                    continue;
                }
                return Err(missing(place()));
            };
            if chain.unknown {
                continue;
            }
            if let State::Session(folded) = &chain.state {
                compare_session(*number, folded, row, page)?;
            } else {
                compare_row(place, &expected(chain), &page.rows.columns, row)?;
            }
        }
        for (rows, name) in
            [(&page.rows, table.name()), (&page.hot, "session_activity"), (&page.details, "session_detail")]
        {
            for number in rows.by_number.keys() {
                if !self.streams.contains_key(&(kind, *number)) {
                    return Err(unknown(name, *number));
                }
            }
        }
        match page.words.keys().find(|number| !self.streams.contains_key(&(kind, **number))) {
            Some(number) => Err(unknown("session_word", *number)),
            None => Ok(()),
        }
    }
}

fn unknown(name: &str, number: i64) -> Difference {
    Difference {
        place: format!("row of {name} {number}"),
        what: "row".to_owned(),
        expected: "none: the log knows nothing of it".to_owned(),
        found: "one".to_owned(),
    }
}

fn compare_session(number: i64, folded: &Folded, row: &[Value], page: &Page) -> Result<(), Difference> {
    let place = || format!("row of session {number}");
    let mut expected = session_columns(&folded.lifecycle_row());
    if folded.row.total.is_none() {
        leave_out_totals(&mut expected, &page.rows.columns, row);
    }
    compare_row(place, &expected, &page.rows.columns, row)?;
    if !folded.counted {
        return Err(Difference {
            place: format!("position {} (session {number})", folded.session.head.position),
            what: "body".to_owned(),
            expected: "a body: the session's last activity is never pruned".to_owned(),
            found: "none".to_owned(),
        });
    }
    compare_hot(number, folded, page)?;
    let place = || format!("row of session_detail {number}");
    let detail = page.details.by_number.get(&number).ok_or_else(|| missing(place()))?;
    let (body, personal) = page.connected.get(&number).cloned().unwrap_or_default();
    let expected = super::place::detail_of(body.as_deref(), personal.as_deref()).unwrap_or_default();
    compare_words(number, folded.session.application, &expected, page)?;
    let expected = detail_columns(number, folded.session.application, &expected);
    compare_row(place, &expected, &page.details.columns, detail)?;
    compare_earlier(number, folded, &page.earlier)
}

/// The words that a session is found by.
fn compare_words(
    number: i64,
    application: ApplicationNumber,
    detail: &Detail,
    page: &Page,
) -> Result<(), Difference> {
    let expected: BTreeSet<_> =
        called::of_session(detail).into_iter().map(|word| (application.0, word)).collect();
    let none = BTreeSet::new();
    let found = page.words.get(&number).unwrap_or(&none);
    let Some(word) = found.symmetric_difference(&expected).next() else { return Ok(()) };
    let text = |words: &BTreeSet<_>| if words.contains(word) { "one" } else { "none" }.to_owned();
    Err(Difference {
        place: format!("row of session_word {} (session {number}, application {})", word.1, word.0),
        what: "row".to_owned(),
        expected: text(&expected),
        found: text(found),
    })
}

/// How a session stood before its events, but for those up to which it is not known any more.
fn compare_earlier(number: i64, folded: &Folded, rows: &[EarlierState]) -> Result<(), Difference> {
    let known = |state: &&EarlierState| state.session.0 == number && state.position.0 > folded.cut;
    let expected: Vec<_> = folded.earlier.iter().filter(known).collect();
    let found: Vec<_> = rows.iter().filter(known).collect();
    let both = (0..expected.len().max(found.len())).map(|index| (expected.get(index), found.get(index)));
    let Some((expected, found)) = both.into_iter().find(|(expected, found)| expected != found) else {
        return Ok(());
    };
    let text = |state: Option<&&EarlierState>| state.map_or("none".to_owned(), |state| format!("{state:?}"));
    let position = expected.or(found).map_or(0, |state| state.position.0);
    Err(Difference {
        place: format!("row of session_earlier {position} (session {number})"),
        what: "row".to_owned(),
        expected: text(expected),
        found: text(found),
    })
}

/// A hot row stands where the session stands, or after an earlier activity if all later ones are beyond what is
/// settled; there is none if that holds for all since the lifecycle row.
fn compare_hot(number: i64, folded: &Folded, page: &Page) -> Result<(), Difference> {
    let place = || format!("row of session_activity {number}");
    let row = page.hot.by_number.get(&number);
    let found = match row {
        Some(row) => column(&page.hot.columns, row, "version").cloned(),
        None => Some(Value::Integer(folded.row.head.version)),
    };
    if folded.session.ended.is_some() {
        return match row {
            None => Ok(()),
            Some(_) => Err(Difference {
                place: place(),
                what: "row".to_owned(),
                expected: "none: the session has ended".to_owned(),
                found: "one".to_owned(),
            }),
        };
    }
    let newest = folded.newest();
    let mut points = folded.tail.iter().chain([&newest]).peekable();
    let mut stands = None;
    while let Some(point) = points.next() {
        let rest_is_settled = points.peek().is_some_and(|next| next.head.position.0 <= page.settled);
        if found == Some(Value::Integer(point.head.version)) && !rest_is_settled {
            stands = Some(point);
        }
    }
    match (stands, row) {
        (Some(_), None) => Ok(()),
        (Some(point), Some(row)) => compare_row(place, &hot_columns(number, point), &page.hot.columns, row),
        (None, row) => Err(Difference {
            place: place(),
            what: "version".to_owned(),
            expected: newest.head.version.to_string(),
            found: row.map_or_else(|| "no row".to_owned(), |_| Value::from(found).to_string()),
        }),
    }
}

fn missing(place: String) -> Difference {
    Difference {
        place,
        what: "row".to_owned(),
        expected: "one: the log has its stream".to_owned(),
        found: "none".to_owned(),
    }
}

fn column<'row>(columns: &[String], row: &'row [Value], name: &str) -> Option<&'row Value> {
    columns.iter().position(|column| column == name).and_then(|index| row.get(index))
}

/// Takes the totals from the row itself, where the log no longer has them.
fn leave_out_totals(expected: &mut Expected, columns: &[String], row: &[Value]) {
    for (name, value) in expected {
        if matches!(*name, "requests" | "bytes_in" | "bytes_out" | "throughput")
            && let Some(found) = column(columns, row, name)
        {
            *value = found.clone();
        }
    }
}

fn compare_row(
    place: impl Fn() -> String,
    expected: &Expected,
    columns: &[String],
    row: &[Value],
) -> Result<(), Difference> {
    if !columns.iter().eq(expected.iter().map(|(name, _)| name)) {
        let names: Vec<_> = expected.iter().map(|(name, _)| *name).collect();
        return Err(Difference {
            place: place(),
            what: "columns".to_owned(),
            expected: names.join(", "),
            found: columns.join(", "),
        });
    }
    let mut both = expected.iter().zip(row);
    match both.find(|((_, expected), found)| expected != *found) {
        None => Ok(()),
        Some(((name, expected), found)) => Err(Difference {
            place: place(),
            what: (*name).to_owned(),
            expected: expected.to_string(),
            found: found.to_string(),
        }),
    }
}

fn expected(chain: &Chain) -> Expected {
    match &chain.state {
        State::Nothing | State::Session(_) => vec![],
        State::Stream(AnyStream::Organization(row)) => organization_columns(row),
        State::Stream(AnyStream::Application(row)) => application_columns(row),
        State::Stream(AnyStream::ServiceAccount(row)) => service_account_columns(row),
        State::Stream(AnyStream::Revocation(row)) => revocation_columns(row),
        State::Stream(row) => item_columns(row),
    }
}

fn with_head(mut columns: Expected, head: &Head) -> Expected {
    columns.extend([
        ("version", head.version.into()),
        ("head", head.position.0.into()),
        ("hash", head.hash.into()),
    ]);
    columns
}

fn organization_columns(row: &Organization) -> Expected {
    let columns = vec![
        ("number", row.number.0.into()),
        ("id", row.id.into()),
        ("name", (&row.name).into()),
        ("created_at", row.created_at.into()),
    ];
    let mut columns = with_head(columns, &row.head);
    columns.extend([
        ("barred_before", row.valid_from.0.into()),
        ("issuers", serde_json::to_string(&row.issuers).unwrap_or_default().into()),
        ("restored_at", row.restored_at.0.into()),
        ("retention", chosen_text(&row.retention).into()),
        ("let_go", chosen_text(&row.let_go).into()),
    ]);
    columns
}

fn item_columns(row: &AnyStream) -> Expected {
    let columns = vec![
        ("kind", (row.stream().kind as i64).into()),
        ("number", row.stream().number.into()),
        ("id", row.id().into()),
        ("organization", row.organization().0.into()),
        ("state", row.state().into()),
    ];
    with_head(columns, &row.head())
}

fn application_columns(row: &Application) -> Expected {
    let columns = vec![
        ("number", row.number.0.into()),
        ("id", row.id.into()),
        ("organization", row.organization.0.into()),
        ("name", (&row.name).into()),
        ("description", row.description.as_ref().into()),
        ("oauth", serde_json::to_string(&row.oauth).unwrap_or_default().into()),
        ("upstream", row.upstream.as_ref().into()),
        ("created_at", row.created_at.into()),
        ("updated_at", row.updated_at.into()),
        ("archived_at", row.archived_at.into()),
        ("barred_before", row.valid_from.0.into()),
    ];
    let mut columns = with_head(columns, &row.head);
    let policy = row.policy.as_ref().map(|policy| serde_json::to_string(policy).unwrap_or_default());
    columns.push(("policy", policy.into()));
    let credential = row.upstream_credential.as_ref();
    let credential = credential.map(|one| serde_json::to_string(one).unwrap_or_default());
    columns.push(("upstream_credential", credential.into()));
    columns.push(("on_the_way", i64::from(row.on_the_way).into()));
    let headers = row.upstream_headers.as_ref();
    let headers = headers.map(|one| serde_json::to_string(one).unwrap_or_default());
    columns.push(("upstream_headers", headers.into()));
    columns
}

fn service_account_columns(row: &ServiceAccount) -> Expected {
    let columns = vec![
        ("number", row.number.0.into()),
        ("id", row.id.into()),
        ("organization", row.organization.0.into()),
        ("name", (&row.name).into()),
        ("client_id", (&row.client_id).into()),
        ("scopes", row.scopes.to_string().into()),
        ("application", row.application.map(|application| application.0).into()),
        ("created_at", row.created_at.into()),
        ("archived_at", row.archived_at.into()),
    ];
    with_head(columns, &row.head)
}

fn revocation_columns(row: &Revocation) -> Expected {
    let columns = vec![
        ("number", row.number.0.into()),
        ("id", row.id.into()),
        ("organization", row.organization.0.into()),
        ("filter", serde_json::to_string(&row.filter).unwrap_or_default().into()),
        ("reason", row.reason.word().into()),
        ("note", row.note.as_ref().into()),
        ("fence", row.fence.0.into()),
        ("instant", row.instant.into()),
        ("ended_at", row.ended_at.into()),
        ("disconnected_count", row.disconnected_count.into()),
    ];
    with_head(columns, &row.head)
}

fn session_columns(row: &Session) -> Expected {
    let state: i64 = match row.ended {
        Some(_) => 0,
        None if row.expiry_announced == Some(row.token_expires_at) => 1,
        None => 2,
    };
    let columns = vec![
        ("number", row.number.0.into()),
        ("id", row.id.into()),
        ("organization", row.organization.0.into()),
        ("application", row.application.0.into()),
        ("principal", row.principal.0.into()),
        ("owner_kind", (row.owner.kind as i64).into()),
        ("owner_id", row.owner.id.into()),
        ("kind", row.kind.word().into()),
        ("state", state.into()),
        ("idle_after", row.policy.idle_after.into()),
        ("stale_after", row.policy.stale_after.into()),
        ("absolute_lifetime", row.policy.absolute_lifetime.into()),
        ("connected_at", row.connected_at.into()),
        ("connected_head", row.connected_at_position.0.into()),
        ("lifetime_ends_at", row.lifetime_ends_at.into()),
        ("token_expires_at", row.token_expires_at.into()),
        ("expiry_announced", row.expiry_announced.into()),
        ("credential", row.credential.into()),
        ("ended_at", row.ended.map(|ended| ended.at).into()),
        ("ended_reason", row.ended.map(|ended| ended.reason.word()).into()),
        ("last_active_at", row.last_active_at.into()),
        ("requests", row.total.requests.into()),
        ("bytes_in", row.total.bytes_in.into()),
        ("bytes_out", row.total.bytes_out.into()),
    ];
    let mut columns = with_head(columns, &row.head);
    columns.extend([
        ("token_lifetime", row.policy.token_lifetime.into()),
        ("preset", row.policy.preset.map(Preset::word).into()),
        ("suspended_at", row.suspended_at.into()),
        ("resumed_at", row.resumed_at.into()),
        ("unused_after", row.policy.unused_after.into()),
        ("resource", row.resource.as_ref().into()),
        ("phase", row.phase.map(Phase::word).into()),
        ("ended_outcome", row.ended.and_then(|ended| ended.outcome).map(Outcome::word).into()),
        ("message", row.message.as_ref().into()),
        ("throughput", throughput_text(row.throughput.as_deref()).into()),
        ("node", row.node.into()),
    ]);
    columns
}

/// JSON of what is not as it is from the beginning.
pub fn chosen_text<T: Default + PartialEq + Serialize>(value: &T) -> Option<String> {
    (*value != T::default()).then(|| serde_json::to_string(value).unwrap_or_default())
}

/// What readings have come to, as rows keep it.
pub fn throughput_text(throughput: Option<&Throughput>) -> Option<String> {
    throughput.map(|one| serde_json::to_string(one).unwrap_or_default())
}

fn hot_columns(number: i64, point: &Point) -> Expected {
    let total = point.total.unwrap_or_default();
    let columns = vec![
        ("number", number.into()),
        ("last_active_at", point.last_active_at.into()),
        ("requests", total.requests.into()),
        ("bytes_in", total.bytes_in.into()),
        ("bytes_out", total.bytes_out.into()),
    ];
    let mut columns = with_head(columns, &point.head);
    columns.push(("throughput", throughput_text(point.throughput.as_deref()).into()));
    columns
}

fn detail_columns(number: i64, application: ApplicationNumber, row: &Detail) -> Expected {
    vec![
        ("number", number.into()),
        ("name", row.name.as_ref().into()),
        ("hostname", row.hostname.as_ref().into()),
        ("user_agent", row.user_agent.as_ref().into()),
        ("client_info", row.client_info.as_ref().into()),
        ("ip", row.ip.as_ref().into()),
        ("client_session_id", row.client_session_id.as_ref().into()),
        ("token_identifier", row.token_identifier.as_ref().into()),
        ("protocol_version", row.protocol_version.as_ref().into()),
        ("application", application.0.into()),
        ("client", row.client.as_ref().into()),
        ("anchor", row.anchor.as_ref().into()),
    ]
}
