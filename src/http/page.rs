//! Pages of lists: `limit`, and a cursor that says where the page before ended. Cursors begin with a version byte.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sessiond_core::Time;
use sessiond_core::ids::Position;
use uuid::Uuid;

use super::problem::Problem;

/// The first byte: the layout's version, and above it what the list was ordered by.
const VERSION: u8 = 1;
const LARGEST: u32 = 200;
/// Bytes of a mark: version, time and id.
const MARK: usize = 1 + 8 + 16;

/// The parameters of a list that has one order only, as the document describes them.
#[derive(utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[allow(dead_code)] // the document's words for what each list reads
pub struct PagedParameters {
    /// Most to return.
    #[param(value_type = u32, required = false, minimum = 1, maximum = 200, default = 50)]
    limit: Option<String>,
    /// `nextCursor` of the page before.
    #[param(value_type = String, required = false)]
    cursor: Option<String>,
}

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

/// The opaque text for a mark in a walk through a list of this order, with the moment at which it began.
pub fn walk_cursor(order: u8, mark: Mark, (began, at_its_end): (Time, bool)) -> String {
    let mut bytes = URL_SAFE_NO_PAD.decode(cursor_of(order, mark)).unwrap_or_default();
    bytes.extend(began.timestamp_millis().to_be_bytes());
    bytes.push(u8::from(at_its_end));
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Reads `cursor` of a list of this order, which may be a walk's.
#[allow(clippy::type_complexity)]
pub fn read_walk_cursor(
    order: u8,
    text: Option<&str>,
) -> Result<(Option<Mark>, Option<(Time, bool)>), Problem> {
    let Some(text) = text else { return Ok((None, None)) };
    let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| not_ours())?;
    let Some((mark, walk)) = bytes.split_at_checked(MARK) else { return Err(not_ours()) };
    let mark = read_cursor_of(order, Some(&URL_SAFE_NO_PAD.encode(mark)))?;
    let walk = match walk {
        [] => None,
        [began @ .., at_its_end] => {
            let began = began.try_into().ok().map(i64::from_be_bytes).and_then(Time::from_timestamp_millis);
            Some((began.ok_or_else(not_ours)?, *at_its_end == 1))
        }
    };
    Ok((mark, walk))
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
