//! The terminal surface: shells on machines, in a WebSocket. Here is what its parts share: the envelope, the callers, and
//! names.

mod logs;
mod machines;
mod open;
mod read;
mod socket;
mod surface;

pub use logs::*;
pub use machines::*;
pub use open::*;
pub use read::*;
use socket::websocket;
pub use surface::surface;

use axum::extract::FromRequestParts;
use axum::http::StatusCode;
use axum::http::request::Parts;
use chrono::SecondsFormat;
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::problem::Problem;
use super::{App, extract};
use sessiond_core::Time;
use sessiond_core::caller::Caller;
use sessiond_core::ids::PrincipalNumber;

/// What every success is wrapped in.
#[derive(Serialize, ToSchema)]
pub struct Success<T> {
    success: bool,
    data: T,
}

impl<T> Success<T> {
    pub fn of(data: T) -> Self {
        Self { success: true, data }
    }
}

/// A success with nothing to show.
#[derive(Serialize, ToSchema)]
pub struct Said {
    success: bool,
    message: &'static str,
}

impl Said {
    pub fn that(message: &'static str) -> Self {
        Self { success: true, message }
    }
}

/// A caller who may open terminals: a person, by a key with the scope `terminal`, or a program.
pub use extract::Admitted as User;
/// A caller who also manages the organization's machines, for which the right to see everybody's sessions is not enough.
pub struct Admin(pub Caller);

impl FromRequestParts<App> for Admin {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let User(caller) = User::from_request_parts(parts, app).await?;
        if caller.acts_for_organization() {
            return Ok(Self(caller));
        }
        let message = "This key acts for a person; machines are managed with a key of the organization's own, or one \
                       that has the scope management:all too";
        Err(Problem::new(StatusCode::FORBIDDEN, "forbidden", message))
    }
}

/// Writes an id as this surface does: a prefix for its kind, and the UUID without hyphens.
pub fn id(prefix: &str, id: Uuid) -> String {
    format!("{prefix}_{}", id.simple())
}

/// Reads an id of this kind; none if the text is not one.
pub fn read_id(prefix: &str, text: &str) -> Option<Uuid> {
    let digits = text.strip_prefix(prefix)?.strip_prefix('_')?;
    Uuid::try_parse(digits).ok().filter(|_| digits.len() == 32)
}

/// Writes a time as this surface does: ISO 8601, UTC, whole seconds.
pub fn seconds(time: Time) -> String {
    time.to_rfc3339_opts(SecondsFormat::Secs, true)
}

/// An id in the path, of this kind.
pub struct Id<const KIND: char>(pub Uuid);

/// The kinds of ids in paths.
pub const SESSION: char = 's';
pub const MACHINE: char = 'm';

impl<const KIND: char> FromRequestParts<App> for Id<KIND> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let (prefix, what) = if KIND == SESSION { ("sess", "Session") } else { ("mch", "Machine") };
        let path = axum::extract::RawPathParams::from_request_parts(parts, app).await;
        let path = path.map_err(|_| not_found(what))?;
        let text = path.iter().next().map(|(_, text)| text.to_owned()).unwrap_or_default();
        read_id(prefix, &text).map(Self).ok_or_else(|| not_found(what))
    }
}

pub fn not_found(what: &str) -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "not_found", format!("{what} not found"))
}

/// A machine as sessions name it.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct MachineName {
    id: String,
    name: String,
}

/// Whose a session is.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct UserName {
    id: String,
    name: String,
}

/// The machine that the resource of a session names.
fn machine_name(app: &App, caller: &Caller, resource: Option<&str>) -> MachineName {
    let machine = resource.and_then(|text| Uuid::try_parse(text).ok());
    let found = machine.and_then(|id| app.directory.machines.find_any(caller, id));
    MachineName {
        id: machine.map_or_else(String::new, |machine| id("mch", machine)),
        name: found.map_or_else(String::new, |one| one.name),
    }
}

/// A person with name and mail address, as far as they are known.
struct Named {
    user: UserName,
    email: Option<String>,
}

async fn user_name(app: &App, number: PrincipalNumber, principal: Uuid) -> Result<Named, Problem> {
    let person = app.directory.principals.row(number).await?;
    let (name, email) = person.map_or((None, None), |one| (one.name.or(one.principal.subject), one.email));
    Ok(Named {
        user: UserName { id: id("usr", principal), name: name.unwrap_or_else(|| "(erased)".to_owned()) },
        email,
    })
}

/// A JSON body, refused with the messages of the main surface in the form of this one.
pub use extract::Body;
