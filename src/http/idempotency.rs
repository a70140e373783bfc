//! `Idempotency-Key`: a request with a key takes effect once, on whatever writes by POST or DELETE
//! (draft-ietf-httpapi-idempotency-key-header). The layer keeps the key with the request; the extractors, which know the
//! caller and whether they may do this, read the body, take the request's fingerprint, and look up the outcome of an earlier
//! request.

use std::sync::{Arc, OnceLock};

use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use axum::middleware::Next;
use axum::response::Response;
use parking_lot::Mutex;
use serde_json::Value;
use sessiond_core::caller::Caller;
use sessiond_core::idempotency::IdempotencyKey;
use sha2::{Digest, Sha256};
use url::form_urlencoded;
use utoipa::openapi::path::{Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::schema::Type;
use utoipa::openapi::{Header, HeaderBuilder, ObjectBuilder, OpenApi, RefOr, Required};

use super::App;
use super::document::Surfaces;
use super::extract;
use super::problem::Problem;

static KEY: HeaderName = HeaderName::from_static("idempotency-key");
static REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");
/// The longest key.
const LONGEST: usize = 255;

/// The extension by which a request carries its key.
#[derive(Clone)]
struct Slot(Arc<Keyed>);

/// A request with a key.
struct Keyed {
    /// The key; none where the header is malformed.
    key: Option<String>,
    /// The digest of method, path and query, to which the body's is added.
    fingerprint: Sha256,
    /// The body, until it is known who asks and that they may.
    waiting: Mutex<Option<Body>>,
    /// The body, once it was read.
    read: OnceLock<Bytes>,
    /// The key with what is known of earlier requests, once it was looked up.
    once: OnceLock<Arc<IdempotencyKey>>,
}

/// Keeps the key and body of a request that has a key, and marks a response that repeats an earlier one.
pub async fn layer(request: Request, next: Next) -> Response {
    let writes = [Method::POST, Method::DELETE].contains(request.method());
    let keyed = request.headers().contains_key(&KEY);
    if !writes || !keyed {
        return next.run(request).await;
    }
    let (mut parts, body) = request.into_parts();
    let slot = Slot(Arc::new(Keyed {
        key: read(&parts.headers),
        fingerprint: begun(&parts.method, &parts.uri),
        waiting: Mutex::new(Some(body)),
        read: OnceLock::new(),
        once: OnceLock::new(),
    }));
    parts.extensions.insert(slot.clone());
    let mut response = next.run(Request::from_parts(parts, Body::empty())).await;
    let replays = slot.0.once.get().is_some_and(|once| once.recorded.is_some());
    if replays && response.status().is_success() {
        response.headers_mut().insert(&REPLAYED, HeaderValue::from_static("true"));
    }
    response
}

/// The body of a request with a key, which was read when it became known who asks.
pub fn body_of(parts: &Parts) -> Option<Bytes> {
    let Slot(slot) = parts.extensions.get()?;
    Some(slot.read.get().cloned().unwrap_or_default())
}

/// The caller of a request, with its key if it came with one.
pub async fn caller_of(parts: &Parts, app: &App, mut caller: Caller) -> Result<Caller, Problem> {
    let Some(Slot(slot)) = parts.extensions.get::<Slot>() else { return Ok(caller) };
    let key = slot.key.as_deref().ok_or_else(|| {
        let message = format!(
            "Idempotency-Key must be 1 to {LONGEST} visible ASCII characters, in double quotes or without"
        );
        Problem::invalid("Idempotency-Key", message)
    })?;
    let once = match slot.once.get() {
        Some(once) => once.clone(),
        None => {
            let fingerprint = slot.fingerprint(parts, app).await?;
            let once = app.sessions.idempotency.begin(&caller, key, fingerprint).await?;
            slot.once.get_or_init(|| once).clone()
        }
    };
    caller.once = Some(once);
    Ok(caller)
}

/// The key of a request: a string of RFC 9651 without parameters, or its characters without quotes.
fn read(headers: &HeaderMap) -> Option<String> {
    let mut values = headers.get_all(&KEY).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return None };
    let text = value.to_str().ok()?.trim();
    let key = match text.strip_prefix('"') {
        Some(rest) => unquoted(rest)?,
        None => text.to_owned(),
    };
    let visible = key.bytes().all(|byte| byte.is_ascii_graphic());
    (visible && (1..=LONGEST).contains(&key.len())).then_some(key)
}

/// The content of a quoted string that begins behind its first quote, without escapes.
fn unquoted(text: &str) -> Option<String> {
    let mut key = String::new();
    let mut characters = text.chars();
    loop {
        match characters.next()? {
            '"' => return characters.next().is_none().then_some(key),
            '\\' => key.push(characters.next().filter(|escaped| "\"\\".contains(*escaped))?),
            character => key.push(character),
        }
    }
}

impl Keyed {
    /// The fingerprint of the request: the same for requests that ask for the same.
    async fn fingerprint(&self, parts: &Parts, app: &App) -> Result<[u8; 32], Problem> {
        let waiting = self.waiting.lock().take();
        if let Some(body) = waiting {
            let bytes = extract::body_of(&parts.extensions, body, app).await?;
            self.read.get_or_init(|| bytes);
        }
        let body = self.read.get().map_or(&[][..], |bytes| &bytes[..]);
        Ok(self.fingerprint.clone().chain_update(canonical(body)).finalize().into())
    }
}

/// Begins a fingerprint with method, path and query.
fn begun(method: &Method, uri: &Uri) -> Sha256 {
    let mut digest = Sha256::new();
    let mut query: Vec<_> = form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()).collect();
    query.sort_unstable();
    let pairs = query.iter().flat_map(|(name, value)| [name.as_ref(), value.as_ref()]);
    for part in [method.as_str(), uri.path()].into_iter().chain(pairs) {
        digest.update((part.len() as u64).to_be_bytes());
        digest.update(part);
    }
    digest
}

/// The content of a body in one form: the same whatever the order of members, the spaces and the escapes. A body that is not
/// JSON stands for itself, and an absent one for `{}`.
fn canonical(body: &[u8]) -> Vec<u8> {
    if body.is_empty() {
        return b"{}".to_vec();
    }
    let Ok(value) = serde_json::from_slice::<Value>(body) else { return body.to_vec() };
    let mut plain = Vec::with_capacity(body.len());
    write_plainly(&value, &mut plain);
    plain
}

/// Writes a value in the one form: members sorted, without spaces.
fn write_plainly(value: &Value, plain: &mut Vec<u8>) {
    match value {
        Value::Object(members) => {
            let mut members: Vec<_> = members.iter().collect();
            members.sort_unstable_by_key(|(name, _)| *name);
            plain.push(b'{');
            for (name, member) in members {
                write_plainly(&Value::String(name.clone()), plain);
                plain.push(b':');
                write_plainly(member, plain);
                plain.push(b',');
            }
            plain.push(b'}');
        }
        Value::Array(items) => {
            plain.push(b'[');
            for item in items {
                write_plainly(item, plain);
                plain.push(b',');
            }
            plain.push(b']');
        }
        one => plain.extend(one.to_string().into_bytes()),
    }
}

// ---- the document ----

/// Adds the header to every operation that takes it, and to its responses the header that marks a repeated one.
pub fn describe(document: &mut OpenApi, surfaces: &Surfaces) {
    for (_, item) in document.paths.paths.iter_mut().filter(|(path, _)| surfaces.at(path).idempotency) {
        for operation in [&mut item.post, &mut item.delete].into_iter().flatten() {
            operation.parameters.get_or_insert_default().push(RefOr::T(parameter()));
            for (status, answer) in &mut operation.responses.responses {
                if let (true, RefOr::T(answer)) = (status.starts_with('2'), answer) {
                    answer.headers.insert("Idempotency-Replayed".to_owned(), RefOr::T(replayed()));
                }
            }
        }
    }
}

fn replayed() -> Header {
    let text = "`true` where this is the answer to a request that took effect before.";
    HeaderBuilder::new().description(Some(text)).build()
}

fn parameter() -> Parameter {
    let schema = ObjectBuilder::new().schema_type(Type::String).min_length(Some(1)).max_length(Some(257));
    ParameterBuilder::new()
        .name("Idempotency-Key")
        .parameter_in(ParameterIn::Header)
        .required(Required::False)
        .description(Some(
            "Makes it safe to send this again: for 24 hours the same request with the same key is answered as the first \
             time and does nothing more. 1 to 255 visible ASCII characters, in double quotes or without; a UUID is best. \
             A request that was refused did nothing, and is decided afresh.",
        ))
        .schema(Some(schema))
        .build()
}
