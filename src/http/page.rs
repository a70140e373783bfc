//! Pages of lists: `limit`, and a cursor that says where the page before ended. Cursors begin with a version byte.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use uuid::Uuid;

use super::problem::Problem;
use crate::core::Time;
use crate::core::ids::Position;

/// The first byte: the layout's version, and above it what the list was ordered by.
const VERSION: u8 = 1;
const LARGEST: u32 = 200;

/// Where a page ended: the sort key of its last item.
pub type Mark = (Time, Uuid);

/// The opaque text for a mark in a list that has one order only.
pub fn cursor(mark: Mark) -> String {
    cursor_of(0, mark)
}

/// Reads `cursor` of a list that has one order only.
pub fn read_cursor(text: Option<&str>) -> Result<Option<Mark>, Problem> {
    read_cursor_of(0, text)
}

/// The opaque text for a mark in a list of this order.
pub fn cursor_of(order: u8, (at, id): Mark) -> String {
    let mut bytes = Vec::with_capacity(25);
    bytes.push(VERSION + order);
    bytes.extend(at.timestamp_millis().to_be_bytes());
    bytes.extend(id.as_bytes());
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Reads `cursor` of a list of this order.
pub fn read_cursor_of(order: u8, text: Option<&str>) -> Result<Option<Mark>, Problem> {
    let Some(text) = text else { return Ok(None) };
    let read = || {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        let (version, rest) = bytes.split_first()?;
        let (at, id) = rest.split_at_checked(8)?;
        let at = Time::from_timestamp_millis(i64::from_be_bytes(at.try_into().ok()?))?;
        (*version == VERSION + order).then_some((at, Uuid::from_slice(id).ok()?))
    };
    match read() {
        Some(mark) => Ok(Some(mark)),
        None => Err(not_ours()),
    }
}

/// The opaque text for a place in a list that is in the order of the log.
pub fn position_cursor(position: Position) -> String {
    let mut bytes = vec![VERSION];
    bytes.extend(position.0.to_be_bytes());
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Reads `cursor` of a list that is in the order of the log.
pub fn read_position_cursor(text: Option<&str>) -> Result<Option<Position>, Problem> {
    let Some(text) = text else { return Ok(None) };
    let read = || {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        let (version, rest) = bytes.split_first()?;
        (*version == VERSION).then_some(Position(i64::from_be_bytes(rest.try_into().ok()?)))
    };
    match read() {
        Some(position) => Ok(Some(position)),
        None => Err(not_ours()),
    }
}

fn not_ours() -> Problem {
    let message = "cursor is not one that this server gave out for this list; start without one";
    Problem::invalid("cursor", message)
}

/// Reads `limit`: 1 to 200.
pub fn read_limit(text: Option<&str>, default: u32) -> Result<u32, Problem> {
    let Some(text) = text else { return Ok(default) };
    match text.parse() {
        Ok(limit @ 1..=LARGEST) => Ok(limit),
        _ => Err(Problem::invalid("limit", format!("limit must be a whole number from 1 to {LARGEST}"))),
    }
}

/// Reads `true` or `false`.
pub fn read_flag(field: &'static str, text: Option<&str>) -> Result<bool, Problem> {
    match text {
        None | Some("false") => Ok(false),
        Some("true") => Ok(true),
        Some(_) => Err(Problem::invalid(field, format!("{field} must be true or false"))),
    }
}
