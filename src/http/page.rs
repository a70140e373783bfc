//! Pages of lists: `limit`, and a cursor that says where the page before ended. Cursors begin with a version byte.

use axum::http::{HeaderMap, HeaderValue, header};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sessiond_core::Time;
use sessiond_core::ids::Position;
use url::form_urlencoded;
use utoipa::IntoParams;
use utoipa::openapi::Required;
use utoipa::openapi::path::{Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::schema::{KnownFormat, Object, ObjectBuilder, SchemaFormat, Type};
use uuid::Uuid;

use super::problem::Problem;

/// The first byte of a cursor: the version of its layout, and above it the order of the list.
const VERSION: u8 = 1;
const LARGEST: u32 = 200;
/// The length of a mark in bytes: version, time and id.
const MARK: usize = 1 + 8 + 16;

/// How many items a page has if the client does not say.
pub const PAGE: u32 = 50;

/// The parameters of a list that has one order only, for the document.
pub struct PagedParameters;

impl IntoParams for PagedParameters {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let cursor = ParameterBuilder::new()
            .name("cursor")
            .parameter_in(ParameterIn::Query)
            .required(Required::False)
            .description(Some("`nextCursor` of the page before, asked for in the same order."))
            .schema(Some(Object::with_type(Type::String)));
        vec![limit_parameter("How many to return at most.", PAGE), cursor.build()]
    }
}

/// The parameter `limit`, as [`read_limit`] reads it.
pub fn limit_parameter(description: &str, default: u32) -> Parameter {
    let schema = ObjectBuilder::new()
        .schema_type(Type::Integer)
        .format(Some(SchemaFormat::KnownFormat(KnownFormat::Int32)))
        .minimum(Some(1))
        .maximum(Some(LARGEST))
        .default(Some(default.into()));
    ParameterBuilder::new()
        .name("limit")
        .parameter_in(ParameterIn::Query)
        .required(Required::False)
        .description(Some(description))
        .schema(Some(schema))
        .build()
}

/// `Link` to the next page (RFC 8288), where there is one: the same path with these parameters and the cursor.
pub fn next_link<Name: AsRef<str>, Value: AsRef<str>>(
    path: &str,
    others: impl IntoIterator<Item = (Name, Value)>,
    cursor: Option<&str>,
) -> HeaderMap {
    let link = cursor.and_then(|cursor| {
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.extend_pairs(others).append_pair("cursor", cursor);
        HeaderValue::try_from(format!("<{path}?{}>; rel=\"next\"", query.finish())).ok()
    });
    link.map(|link| (header::LINK, link)).into_iter().collect()
}

/// The end of a page: the sort key of its last item.
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

/// Reads a position of the log in a parameter.
pub fn read_position(field: &'static str, text: Option<&str>) -> Result<Option<Position>, Problem> {
    let Some(text) = text else { return Ok(None) };
    match text.parse() {
        Ok(position @ 0..) => Ok(Some(Position(position))),
        _ => Err(Problem::invalid(field, format!("{field} must be the position of an event"))),
    }
}
