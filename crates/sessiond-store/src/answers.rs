//! From rows to what look-ups answer, whatever database the rows lie in: [`values`](crate::values) has what is written too.

use sessiond_core::change::KeyHashes;
use sessiond_core::delivery::Delivery;
use sessiond_core::ids::{
    ApplicationNumber, OrganizationNumber, Position, PrincipalNumber, RevocationNumber, SessionNumber,
};
use sessiond_core::phase::Phase;
use sessiond_core::retention::{Departing, ResourceTotals};
use sessiond_core::session::earlier::EarlierState;
use sessiond_core::session::event::ACTIVITY;
use sessiond_core::statistics::cell::{Cell, Dimension, Group};
use uuid::Uuid;

use crate::StoreError;
use crate::row::{Addressed, ClientSecret, Confirmation, KeySecret, McpSession, WebhookSecret};
use crate::seam::{EndedTerminal, FoldableEvent, GroupCell, Label, Labelled, Sealed, SealedFor};
use crate::values::{Stored, bytes32, count, damaged, entry, optional_bytes32, optional_time, short, time};

const DAY: i64 = 86_400_000;

pub(crate) fn addressed(row: &impl Stored) -> Result<Addressed, StoreError> {
    Ok(Addressed {
        entry: entry(row)?,
        session_id: row.optional_id("session_id")?,
        application_id: row.optional_id("application_id")?,
        revocation_id: row.optional_id("revocation_id")?,
        resource: row.optional_string("resource")?,
        client_session_id: row.optional_string("client_session_id")?,
    })
}

pub(crate) fn earlier_state(row: &impl Stored) -> Result<EarlierState, StoreError> {
    let phase = row.optional_string("phase")?;
    let read = |word: &String| {
        Phase::from_word(word).ok_or_else(|| damaged(row, format!("there is no phase {word:?}")))
    };
    Ok(EarlierState {
        session: SessionNumber(row.integer("session")?),
        position: Position(row.integer("position")?),
        last_active_at: time(row.integer("last_active_at")?),
        token_expires_at: time(row.integer("token_expires_at")?),
        phase: phase.as_ref().map(read).transpose()?,
    })
}

pub(crate) fn delivery(row: &impl Stored) -> Result<Delivery, StoreError> {
    let status = row.optional_integer("status")?.map(u16::try_from).transpose();
    Ok(Delivery {
        webhook: row.id("webhook")?,
        position: Position(row.integer("position")?),
        stream: row.string("stream")?,
        attempts: short(row, "attempts")?,
        next_at: optional_time(row, "next_at")?,
        delivered_at: optional_time(row, "delivered_at")?,
        failed_at: optional_time(row, "failed_at")?,
        status: status.map_err(|_| damaged(row, "status is out of range".to_owned()))?,
        error: row.optional_string("error")?,
        created_at: time(row.integer("created_at")?),
        updated_at: time(row.integer("updated_at")?),
    })
}

pub(crate) fn ended_terminal(row: &impl Stored) -> Result<EndedTerminal, StoreError> {
    Ok(EndedTerminal {
        connected_at: time(row.integer("connected_at")?),
        ended_at: time(row.integer("ended_at")?),
        principal: PrincipalNumber(row.integer("principal")?),
        machine: row.optional_string("resource")?,
    })
}

pub(crate) fn confirmation(row: &impl Stored) -> Result<Confirmation, StoreError> {
    Ok(Confirmation {
        session: SessionNumber(row.integer("session")?),
        at: time(row.integer("at")?),
        message: row.optional_string("message")?,
    })
}

pub(crate) fn resource_totals(
    row: &impl Stored,
) -> Result<(ApplicationNumber, String, ResourceTotals), StoreError> {
    let totals = ResourceTotals { sessions: count(row, "sessions")?, bytes_out: count(row, "bytes_out")? };
    Ok((ApplicationNumber(row.integer("application")?), row.string("resource")?, totals))
}

// ---- secrets ----

pub(crate) fn key_secret(row: &impl Stored) -> Result<KeySecret, StoreError> {
    Ok(KeySecret {
        id: row.id("id")?,
        hashes: KeyHashes { hash: bytes32(row, "secret_hash")?, before: optional_bytes32(row, "before")? },
        used_at: optional_time(row, "last_used_at")?,
    })
}

pub(crate) fn client_secret(row: &impl Stored) -> Result<ClientSecret, StoreError> {
    let before = optional_bytes32(row, "before")?.zip(optional_time(row, "before_until")?);
    Ok(ClientSecret { hash: bytes32(row, "secret_hash")?, before })
}

pub(crate) fn mcp_session(row: &impl Stored) -> Result<McpSession, StoreError> {
    Ok(McpSession { id_hash: bytes32(row, "id_hash")?, sealed: row.bytes("sealed")?.to_vec() })
}

pub(crate) fn untold(row: &impl Stored) -> Result<(SessionNumber, Uuid, ApplicationNumber), StoreError> {
    let application = ApplicationNumber(row.integer("application")?);
    Ok((SessionNumber(row.integer("number")?), row.id("id")?, application))
}

pub(crate) fn webhook_secret(row: &impl Stored) -> Result<WebhookSecret, StoreError> {
    let before = row.optional_bytes("before")?.map(<[u8]>::to_vec);
    let before = before.zip(optional_time(row, "before_until")?);
    Ok(WebhookSecret { sealed: row.bytes("sealed")?.to_vec(), before })
}

pub(crate) fn sealed(kind: SealedFor, row: &impl Stored) -> Result<Sealed, StoreError> {
    Ok(Sealed { kind, id: row.id("id")?, bytes: row.bytes("sealed")?.to_vec() })
}

// ---- what may be let go ----

pub(crate) fn departing(row: &impl Stored) -> Result<Departing, StoreError> {
    Ok(Departing {
        session: SessionNumber(row.integer("number")?),
        id: row.id("id")?,
        application: ApplicationNumber(row.integer("application")?),
        ended_at: time(row.integer("ended_at")?),
        resource: row.optional_string("resource")?,
        bytes_out: count(row, "bytes_out")?,
        revocation: row.optional_integer("revocation")?.map(RevocationNumber),
        events: vec![],
    })
}

/// The activity just before an activity, where both are of the same day and time did not go back between them. A session's row
/// may stand at an activity: where that came with something else in one commit, the row was written whole at its end.
pub(crate) fn foldable_before(row: &impl Stored) -> Result<Option<FoldableEvent>, StoreError> {
    if row.text("type")? != ACTIVITY || row.optional_text("before_type")? != Some(ACTIVITY) {
        return Ok(None);
    }
    if row.flag("row_stands")? {
        return Ok(None);
    }
    let (earlier, later) = (row.integer("before_at")?, row.integer("occurred_at")?);
    if earlier > later || earlier.div_euclid(DAY) != later.div_euclid(DAY) {
        return Ok(None);
    }
    Ok(Some(FoldableEvent {
        organization: OrganizationNumber(row.integer("organization")?),
        position: Position(row.integer("before")?),
        hash: bytes32(row, "before_hash")?,
        previous: Position(row.integer("previous")?),
        next: Position(row.integer("position")?),
    }))
}

/// One that was found as such.
pub(crate) fn foldable(
    row: &impl Stored,
    organization: OrganizationNumber,
) -> Result<FoldableEvent, StoreError> {
    Ok(FoldableEvent {
        organization,
        position: Position(row.integer("position")?),
        hash: bytes32(row, "hash")?,
        previous: Position(row.integer("previous")?),
        next: Position(row.integer("next")?),
    })
}

// ---- what was counted ----

fn dimension(row: &impl Stored) -> Result<Dimension, StoreError> {
    let code = row.integer("dimension")?;
    Dimension::from_code(code).ok_or_else(|| damaged(row, format!("there is no dimension {code}")))
}

pub(crate) fn group_cell(row: &impl Stored) -> Result<GroupCell, StoreError> {
    let group = Group {
        organization: OrganizationNumber(row.integer("organization")?),
        application: ApplicationNumber(row.integer("application")?),
        dimension: dimension(row)?,
        value: row.integer("value")?,
    };
    let cell = Cell::of(row.integer("open")?, row.text("body")?);
    let cell = cell.map_err(|error| damaged(row, format!("a cell of statistics: {error}")))?;
    Ok(GroupCell { group, hour: row.integer("hour")?, cell })
}

pub(crate) fn label(row: &impl Stored) -> Result<Label, StoreError> {
    Ok(Label {
        number: row.integer("number")?,
        organization: OrganizationNumber(row.integer("organization")?),
        dimension: dimension(row)?,
        text: row.string("text")?,
    })
}

pub(crate) fn labelled(row: &impl Stored) -> Result<Labelled, StoreError> {
    Ok(Labelled {
        session: SessionNumber(row.integer("session")?),
        client: row.integer("client")?,
        host: row.integer("host")?,
    })
}
