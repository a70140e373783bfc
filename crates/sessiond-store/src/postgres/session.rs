//! Sessions, as PostgreSQL hands them over: a row's values in its binary form, taken by their places. To make JSON of them
//! takes the server three times as long, and looking columns up by name takes longer than reading them.

use serde::Deserialize;
use serde::de::value::{BorrowedStrDeserializer, Error as NoSuchWord};
use sessiond_core::ids::{ApplicationNumber, OrganizationNumber, Position, PrincipalNumber, SessionNumber};
use sessiond_core::throughput::Throughput;
use sqlx::postgres::{PgRow, Postgres};
use sqlx::{Decode, Row, Type, ValueRef};

use crate::StoreError;
use crate::row::{OpenSession, SessionRow, SessionToken};
use crate::session::{Activity, Bytes, Columns};
use crate::values::time;

/// A whole session, in the order in which [`whole`] takes it: `s` is its row, `d` its details and `a` its activity, if it
/// has any.
pub(super) const WHOLE_SESSION: &str = "s.number, s.id, s.organization, s.application, s.principal, s.owner_kind, \
     s.owner_id, s.kind, s.idle_after, s.stale_after, s.absolute_lifetime, s.token_lifetime, s.unused_after, s.preset, \
     s.connected_at, s.connected_head, s.lifetime_ends_at, s.token_expires_at, s.expiry_announced, s.credential, \
     s.suspended_at, s.resumed_at, s.resource, s.node, s.phase, s.ended_at, s.ended_reason, s.ended_outcome, s.message, \
     s.last_active_at, s.requests, s.bytes_in, s.bytes_out, s.throughput, s.version, s.head, s.hash, d.name, d.hostname, \
     d.user_agent, d.client_info, d.ip, d.anchor, d.client_session_id, d.token_identifier, d.protocol_version, d.client, \
     a.last_active_at, a.requests, a.bytes_in, a.bytes_out, a.throughput, a.version, a.head, a.hash";

/// What else an open session has: its token (`t`), and the hash of its `Mcp-Session-Id` (`m`).
pub(super) const OPEN_SESSION: &str = "t.secret_hash, t.issued_at, t.expires_at, m.id_hash";

/// The session in a row of what [`WHOLE_SESSION`] says.
pub(super) fn whole_session(row: &PgRow) -> Result<SessionRow, StoreError> {
    whole(&mut Values { row, place: 0 })?.session()
}

/// The open session in a row of what [`WHOLE_SESSION`] and [`OPEN_SESSION`] say.
pub(super) fn open_session(row: &PgRow) -> Result<OpenSession, StoreError> {
    let mut values = Values { row, place: 0 };
    let columns = whole(&mut values)?;
    let token = values.group(3, |values| {
        let (secret_hash, issued_at) = (values.next()?, Position(values.next()?));
        Ok(SessionToken { secret_hash, issued_at, expires_at: time(values.next()?) })
    })?;
    Ok(OpenSession { row: columns.session()?, token, mcp_hash: values.next()? })
}

/// The values of a row, one after the other.
struct Values<'row> {
    row: &'row PgRow,
    place: usize,
}

impl<'row> Values<'row> {
    fn next<Value: Decode<'row, Postgres> + Type<Postgres>>(&mut self) -> Result<Value, StoreError> {
        let value = self.row.try_get(self.place).map_err(|error| damaged(self.place, &error));
        self.place += 1;
        value
    }

    fn number<Number: TryFrom<i64>>(&mut self) -> Result<Number, StoreError> {
        let place = self.place;
        Number::try_from(self.next()?).map_err(|_| damaged(place, &"a number is out of range"))
    }

    fn optional<Number: TryFrom<i64>>(&mut self) -> Result<Option<Number>, StoreError> {
        let place = self.place;
        let number: Option<i64> = self.next()?;
        let fits = |number| Number::try_from(number).map_err(|_| damaged(place, &"a number is out of range"));
        number.map(fits).transpose()
    }

    fn word<Word: Deserialize<'row>>(&mut self) -> Result<Word, StoreError> {
        let place = self.place;
        self.optional_word()?.ok_or_else(|| damaged(place, &"it is null"))
    }

    fn optional_word<Word: Deserialize<'row>>(&mut self) -> Result<Option<Word>, StoreError> {
        let place = self.place;
        let word: Option<&'row str> = self.next()?;
        let known = |word| {
            let word: BorrowedStrDeserializer<'row, NoSuchWord> = BorrowedStrDeserializer::new(word);
            Word::deserialize(word).map_err(|error| damaged(place, &error))
        };
        word.map(known).transpose()
    }

    fn throughput(&mut self) -> Result<Option<Box<Throughput>>, StoreError> {
        let place = self.place;
        let text: Option<&str> = self.next()?;
        text.map(|text| serde_json::from_str(text).map_err(|error| damaged(place, &error))).transpose()
    }

    /// The values of another row that belongs to this one, so many; where there is none, the first is null as all are.
    fn group<Group>(
        &mut self,
        count: usize,
        read: fn(&mut Self) -> Result<Group, StoreError>,
    ) -> Result<Option<Group>, StoreError> {
        if self.row.try_get_raw(self.place)?.is_null() {
            self.place += count;
            return Ok(None);
        }
        read(self).map(Some)
    }
}

fn damaged(place: usize, what: &dyn std::fmt::Display) -> StoreError {
    let column = WHOLE_SESSION.split(", ").nth(place).unwrap_or("what belongs to it");
    StoreError::Damaged { position: 0, what: format!("a row of session: {column}: {what}") }
}

fn whole(values: &mut Values<'_>) -> Result<Columns, StoreError> {
    Ok(Columns {
        number: SessionNumber(values.next()?),
        id: values.next()?,
        organization: OrganizationNumber(values.next()?),
        application: ApplicationNumber(values.next()?),
        principal: PrincipalNumber(values.next()?),
        owner_kind: values.next()?,
        owner_id: values.next()?,
        kind: values.word()?,
        idle_after: values.number()?,
        stale_after: values.number()?,
        absolute_lifetime: values.number()?,
        token_lifetime: values.optional()?,
        unused_after: values.optional()?,
        preset: values.optional_word()?,
        connected_at: values.next()?,
        connected_head: Position(values.next()?),
        lifetime_ends_at: values.next()?,
        token_expires_at: values.next()?,
        expiry_announced: values.next()?,
        credential: values.next()?,
        suspended_at: values.next()?,
        resumed_at: values.next()?,
        resource: values.next()?,
        node: values.next()?,
        phase: values.optional_word()?,
        ended_at: values.next()?,
        ended_reason: values.optional_word()?,
        ended_outcome: values.optional_word()?,
        message: values.next()?,
        last_active_at: values.next()?,
        requests: values.number()?,
        bytes_in: values.number()?,
        bytes_out: values.number()?,
        throughput: values.throughput()?,
        version: values.next()?,
        head: Position(values.next()?),
        hash: Bytes(values.next()?),
        name: values.next()?,
        hostname: values.next()?,
        user_agent: values.next()?,
        client_info: values.next()?,
        ip: values.next()?,
        anchor: values.next()?,
        client_session_id: values.next()?,
        token_identifier: values.next()?,
        protocol_version: values.next()?,
        client: values.next()?,
        activity: values.group(8, activity)?,
    })
}

fn activity(values: &mut Values<'_>) -> Result<Activity, StoreError> {
    Ok(Activity {
        last_active_at: values.next()?,
        requests: values.number()?,
        bytes_in: values.number()?,
        bytes_out: values.number()?,
        throughput: values.throughput()?,
        version: values.next()?,
        head: Position(values.next()?),
        hash: Bytes(values.next()?),
    })
}
