//! Statements that write many rows, and what is bound to them.

use std::sync::OnceLock;

use sessiond_core::Time;
use sessiond_core::event::TYPE_VERSION;
use sessiond_core::ids::{ApplicationNumber, Head, SessionNumber};
use sessiond_core::phase::{Outcome, Phase};
use sessiond_core::policy::Preset;
use sessiond_core::session::Session;
use sqlx::sqlite::SqliteArguments;
use sqlx::{Arguments, Encode, Sqlite, SqliteConnection, Type};

use crate::StoreError;
use crate::check::throughput_text;
use crate::row::{Detail, Entry, SessionActivity};
use crate::tables::session_state;

/// Rows of one statement come in these numbers, so that few statements are ever prepared.
const LARGEST: usize = 256;

/// `insert into … (columns) values (…), (…) …`, for any power of two of rows.
pub(super) struct Insert {
    into: &'static str,
    columns: usize,
    then: &'static str,
    prepared: [OnceLock<&'static str>; 9],
}

impl Insert {
    pub(super) const fn new(into: &'static str, columns: usize, then: &'static str) -> Self {
        Self { into, columns, then, prepared: [const { OnceLock::new() }; 9] }
    }

    /// The statement for 2^`exponent` rows. Leaked once per size: they live as long as the process.
    fn sql(&'static self, exponent: usize) -> &'static str {
        self.prepared[exponent].get_or_init(|| {
            let row = format!("({})", vec!["?"; self.columns].join(","));
            let rows = vec![row; 1 << exponent].join(",");
            format!("insert into {} values {rows} {}", self.into, self.then).leak()
        })
    }
}

/// Arguments of a statement, in order.
#[derive(Default)]
pub(super) struct Bound {
    pub(super) arguments: SqliteArguments,
    pub(super) failed: Option<String>,
}

impl Bound {
    pub(super) fn add<'value, T>(&mut self, value: T) -> &mut Self
    where
        T: Encode<'value, Sqlite> + Type<Sqlite>,
    {
        if let Err(error) = self.arguments.add(value) {
            self.failed = Some(error.to_string());
        }
        self
    }

    pub(super) fn time(&mut self, time: Time) -> &mut Self {
        self.add(time.timestamp_millis())
    }

    pub(super) fn optional_time(&mut self, time: Option<Time>) -> &mut Self {
        self.add(time.map(|time| time.timestamp_millis()))
    }

    /// Counts are held at `i64::MAX` where they are made.
    pub(super) fn count(&mut self, count: u64) -> &mut Self {
        self.add(i64::try_from(count).unwrap_or(i64::MAX))
    }

    pub(super) fn head(&mut self, head: &Head) -> &mut Self {
        self.add(head.version).add(head.position.0).add(head.hash.as_slice())
    }
}

pub(super) static EVENT: Insert = Insert::new(
    "event (position, stream_kind, stream_number, version, previous_position, occurred_at, recorded_at, type, \
     type_version, organization, application, actor_kind, actor_id, revocation, request_id, traceparent, body, \
     personal, hash, commit_hash)",
    20,
    "",
);

pub(super) static SESSION: Insert = Insert::new(
    "session (number, id, organization, application, principal, owner_kind, owner_id, kind, state, idle_after, \
     stale_after, absolute_lifetime, connected_at, connected_head, lifetime_ends_at, token_expires_at, \
     expiry_announced, credential, ended_at, ended_reason, last_active_at, requests, bytes_in, bytes_out, version, \
     head, hash, token_lifetime, preset, suspended_at, resumed_at, unused_after, resource, phase, ended_outcome, \
     message, throughput, node)",
    38,
    "on conflict (number) do update set state = excluded.state, token_expires_at = excluded.token_expires_at, \
     expiry_announced = excluded.expiry_announced, credential = excluded.credential, ended_at = excluded.ended_at, \
     ended_reason = excluded.ended_reason, last_active_at = excluded.last_active_at, requests = excluded.requests, \
     bytes_in = excluded.bytes_in, bytes_out = excluded.bytes_out, version = excluded.version, head = excluded.head, \
     hash = excluded.hash, suspended_at = excluded.suspended_at, resumed_at = excluded.resumed_at, \
     phase = excluded.phase, ended_outcome = excluded.ended_outcome, message = excluded.message, \
     throughput = excluded.throughput",
);

pub(super) static ACTIVITY_ROW: Insert = Insert::new(
    "session_activity (number, last_active_at, requests, bytes_in, bytes_out, version, head, hash, throughput)",
    9,
    "on conflict (number) do update set last_active_at = excluded.last_active_at, requests = excluded.requests, \
     bytes_in = excluded.bytes_in, bytes_out = excluded.bytes_out, version = excluded.version, head = excluded.head, \
     hash = excluded.hash, throughput = excluded.throughput",
);

pub(super) static DETAIL: Insert = Insert::new(
    "session_detail (number, name, hostname, user_agent, client_info, ip, client_session_id, token_identifier, \
     protocol_version, application, client, anchor)",
    12,
    "",
);

// The directory's rows replace the row of the same number and no other: a taken id or client id is an error.

pub(super) static ORGANIZATION: Insert = Insert::new(
    "organization (number, id, name, created_at, version, head, hash, barred_before, issuers, restored_at, \
     retention, let_go)",
    12,
    "on conflict (number) do update set name = excluded.name, version = excluded.version, head = excluded.head, \
     hash = excluded.hash, barred_before = excluded.barred_before, issuers = excluded.issuers, \
     restored_at = excluded.restored_at, retention = excluded.retention, let_go = excluded.let_go",
);

pub(super) static APPLICATION: Insert = Insert::new(
    "application (number, id, organization, name, description, oauth, upstream, created_at, updated_at, archived_at, \
     barred_before, version, head, hash, policy, upstream_credential, on_the_way, upstream_headers)",
    18,
    "on conflict (number) do update set name = excluded.name, description = excluded.description, \
     oauth = excluded.oauth, upstream = excluded.upstream, updated_at = excluded.updated_at, \
     archived_at = excluded.archived_at, barred_before = excluded.barred_before, version = excluded.version, \
     head = excluded.head, hash = excluded.hash, policy = excluded.policy, \
     upstream_credential = excluded.upstream_credential, on_the_way = excluded.on_the_way, \
     upstream_headers = excluded.upstream_headers",
);

pub(super) static SERVICE_ACCOUNT: Insert = Insert::new(
    "service_account (number, id, organization, name, client_id, scopes, application, created_at, archived_at, \
     version, head, hash)",
    12,
    "on conflict (number) do update set name = excluded.name, scopes = excluded.scopes, \
     application = excluded.application, archived_at = excluded.archived_at, version = excluded.version, \
     head = excluded.head, hash = excluded.hash",
);

pub(super) static REVOCATION: Insert = Insert::new(
    "revocation (number, id, organization, filter, reason, note, fence, instant, ended_at, disconnected_count, version, \
     head, hash)",
    13,
    "on conflict (number) do update set ended_at = excluded.ended_at, \
     disconnected_count = excluded.disconnected_count, version = excluded.version, head = excluded.head, \
     hash = excluded.hash",
);

pub(super) static ITEM: Insert = Insert::new(
    "item (kind, number, id, organization, state, version, head, hash)",
    8,
    "on conflict (kind, number) do update set state = excluded.state, version = excluded.version, \
     head = excluded.head, hash = excluded.hash",
);

pub(super) static SESSION_TOKEN: Insert = Insert::new(
    "session_token (session, secret_hash, issued_at, expires_at)",
    4,
    "on conflict (session) do update set secret_hash = excluded.secret_hash, issued_at = excluded.issued_at, \
     expires_at = excluded.expires_at",
);

pub(super) static PRINCIPAL: Insert =
    Insert::new("principal (number, organization, issuer, subject_digest, subject, kept_id)", 6, "");

pub(super) fn bind_event(bound: &mut Bound, entry: &Entry) {
    let recorded = &entry.recorded;
    bound
        .add(recorded.position.0)
        .add(recorded.stream.kind as i64)
        .add(recorded.stream.number)
        .add(recorded.version)
        .add(recorded.previous_position.0)
        .time(recorded.occurred_at)
        .time(recorded.recorded_at)
        .add(recorded.event.name())
        .add(TYPE_VERSION)
        .add(recorded.organization.0)
        .add(recorded.application.map(|number| number.0))
        .add(recorded.actor.kind as i64)
        .add(recorded.actor.stored_id().copied())
        .add(recorded.revocation.map(|number| number.0))
        .add(recorded.request_id.as_deref())
        .add(recorded.traceparent.as_deref())
        .add(entry.body.as_str())
        .add(recorded.personal.as_deref())
        .add(entry.hash.as_slice())
        .add(entry.commit_hash.as_ref().map(|hash| hash.as_slice()));
}

pub(super) fn bind_session(bound: &mut Bound, session: &Session) {
    bound
        .add(session.number.0)
        .add(session.id)
        .add(session.organization.0)
        .add(session.application.0)
        .add(session.principal.0)
        .add(session.owner.kind as i64)
        .add(session.owner.id)
        .add(session.kind.word())
        .add(session_state(session))
        .add(i64::from(session.policy.idle_after))
        .add(i64::from(session.policy.stale_after))
        .add(i64::from(session.policy.absolute_lifetime))
        .time(session.connected_at)
        .add(session.connected_at_position.0)
        .time(session.lifetime_ends_at)
        .time(session.token_expires_at)
        .optional_time(session.expiry_announced)
        .add(session.credential)
        .optional_time(session.ended.map(|ended| ended.at))
        .add(session.ended.map(|ended| ended.reason.word()))
        .time(session.last_active_at)
        .count(session.total.requests)
        .count(session.total.bytes_in)
        .count(session.total.bytes_out)
        .head(&session.head)
        .add(session.policy.token_lifetime.map(i64::from))
        .add(session.policy.preset.map(Preset::word))
        .optional_time(session.suspended_at)
        .optional_time(session.resumed_at)
        .add(session.policy.unused_after.map(i64::from))
        .add(session.resource.as_deref())
        .add(session.phase.map(Phase::word))
        .add(session.ended.and_then(|ended| ended.outcome).map(Outcome::word))
        .add(session.message.as_deref())
        .add(throughput_text(session.throughput.as_deref()))
        .add(session.node);
}

pub(super) fn bind_activity(bound: &mut Bound, activity: &SessionActivity) {
    bound
        .add(activity.session.0)
        .time(activity.last_active_at)
        .count(activity.total.requests)
        .count(activity.total.bytes_in)
        .count(activity.total.bytes_out)
        .head(&activity.head)
        .add(throughput_text(activity.throughput.as_deref()));
}

pub(super) fn bind_detail(
    bound: &mut Bound,
    (session, application, detail): &(SessionNumber, ApplicationNumber, Detail),
) {
    bound
        .add(session.0)
        .add(detail.name.as_deref())
        .add(detail.hostname.as_deref())
        .add(detail.user_agent.as_deref())
        .add(detail.client_info.as_deref())
        .add(detail.ip.as_deref())
        .add(detail.client_session_id.as_deref())
        .add(detail.token_identifier.as_deref())
        .add(detail.protocol_version.as_deref())
        .add(application.0)
        .add(detail.client.as_deref())
        .add(detail.anchor.as_deref());
}

/// Writes rows in statements of the largest powers of two that fit.
pub(super) async fn put<Value>(
    connection: &mut SqliteConnection,
    insert: &'static Insert,
    mut rows: &[Value],
    bind: impl Fn(&mut Bound, &Value),
) -> Result<(), StoreError> {
    while !rows.is_empty() {
        let exponent = rows.len().min(LARGEST).ilog2() as usize;
        let (now, later) = rows.split_at(1 << exponent);
        let mut bound = Bound::default();
        bound.arguments.reserve(now.len() * insert.columns, 0);
        for row in now {
            bind(&mut bound, row);
        }
        if let Some(failed) = bound.failed {
            return Err(StoreError::Failed(failed));
        }
        let query = sqlx::query_with(insert.sql(exponent), bound.arguments);
        query.execute(&mut *connection).await.map_err(|error| {
            let taken = error.as_database_error().is_some_and(|error| error.is_unique_violation());
            // Positions and versions are given out by one writer, from memory: whoever finds one taken is not alone.
            match std::ptr::eq(insert, &raw const EVENT) && taken {
                true => StoreError::Raced(error.to_string()),
                false => error.into(),
            }
        })?;
        rows = later;
    }
    Ok(())
}
