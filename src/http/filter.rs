//! The grammar of filters in a query string or a body: one reader for lists, counts and revocations.

use std::collections::BTreeMap;

use chrono::DateTime;
use serde::{Deserialize, Serialize};
use sessiond_core::Time;
use sessiond_core::kind::Kind;
use sessiond_core::phase::Stage;
use sessiond_core::status::DerivedStatus;
use uuid::Uuid;

use super::extract::given;
use super::problem::Problem;
use super::time;
use super::words::{KindWord, OpenStageWord, OpenStatusWord, StageWord};
use crate::sessions::{LONGEST, SessionQuery};

/// Which sessions are listed, counted or ended.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
pub struct FilterParameters {
    /// Only sessions of this principal: by its id or, with `management:all`, by a subject or e-mail address.
    pub principal: Option<String>,
    /// Only sessions from this host, spelled as the client reported it.
    pub hostname: Option<String>,
    /// Only sessions of clients that call themselves so (`clientInfo.name`).
    pub client: Option<String>,
    /// Only sessions connected to this within their application: the name of a media stream, the version of a workload's
    /// application.
    pub resource: Option<String>,
    /// What sort of session.
    #[param(value_type = KindWord, required = false)]
    pub kind: Option<String>,
    /// How far the work behind them has come. Sessions of other kinds run, and are terminated.
    #[param(value_type = StageWord, required = false)]
    pub stage: Option<String>,
    /// Connected before this instant (RFC 3339).
    #[param(value_type = Option<String>, format = DateTime)]
    pub connected_before: Option<String>,
    /// Connected at this instant or later.
    #[param(value_type = Option<String>, format = DateTime)]
    pub connected_after: Option<String>,
    /// Last active before this instant.
    #[param(value_type = Option<String>, format = DateTime)]
    pub last_active_before: Option<String>,
    /// Last active at this instant or later.
    #[param(value_type = Option<String>, format = DateTime)]
    pub last_active_after: Option<String>,
}

/// Which sessions a revocation ends: those that fit everything that is said. Something must be said; `organization`
/// means everything there is.
#[derive(Debug, Clone, Default, Deserialize, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = SessionFilter)]
pub struct FilterBody {
    /// Everything of the organization, unless more is said.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub organization: Option<bool>,
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub application_id: Option<Uuid>,
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub session_id: Option<Uuid>,
    /// A principal by id, or all of this subject or e-mail address. Without more, what was issued to it is barred too.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub principal: Option<String>,
    /// Any of these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub principals: Vec<Uuid>,
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub hostname: Option<String>,
    /// The client's own name (`clientInfo.name`).
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub client: Option<String>,
    /// What it is connected to within its application.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub resource: Option<String>,
    /// What sort of session.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, value_type = Option<KindWord>)]
    pub kind: Option<String>,
    /// Any of these; all if left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<OpenStageWord>)]
    pub stage: Vec<String>,
    /// Any of these; all if left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<OpenStatusWord>)]
    pub status: Vec<String>,
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, format = DateTime)]
    pub connected_before: Option<String>,
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, format = DateTime)]
    pub connected_after: Option<String>,
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, format = DateTime)]
    pub last_active_before: Option<String>,
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, format = DateTime)]
    pub last_active_after: Option<String>,
    /// All but these sessions; at most 1,000.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub except: Vec<Uuid>,
}

pub const LIVE: [DerivedStatus; 2] = [DerivedStatus::Active, DerivedStatus::Idle];
const INACTIVE: [DerivedStatus; 2] = [DerivedStatus::Expired, DerivedStatus::Disconnected];
/// How many sessions a revocation may leave out.
const MOST_EXCEPT: usize = 1_000;

impl FilterParameters {
    pub fn of(pairs: &Pairs) -> Self {
        Self {
            principal: pairs.one("principal"),
            hostname: pairs.one("hostname"),
            client: pairs.one("client"),
            resource: pairs.one("resource"),
            kind: pairs.one("kind"),
            stage: pairs.one("stage"),
            connected_before: pairs.one("connectedBefore"),
            connected_after: pairs.one("connectedAfter"),
            last_active_before: pairs.one("lastActiveBefore"),
            last_active_after: pairs.one("lastActiveAfter"),
        }
    }

    /// Reads the filter. Sessions of any status fit it.
    pub fn read(&self, application: Option<Uuid>) -> Result<SessionQuery, Problem> {
        let (principal, called) = read_principal(self.principal.as_deref())?;
        Ok(SessionQuery {
            application,
            session: None,
            principal,
            called,
            kind: read_kind(self.kind.as_deref())?,
            hostname: read_text("hostname", self.hostname.clone())?,
            client: read_text("client", self.client.clone())?,
            resource: read_text("resource", self.resource.clone())?,
            stage: self
                .stage
                .as_deref()
                .map(|word| read_stage("stage", word))
                .transpose()?
                .into_iter()
                .collect(),
            connected_after: read_time("connectedAfter", self.connected_after.as_deref())?,
            connected_before: read_time("connectedBefore", self.connected_before.as_deref())?,
            last_active_after: read_time("lastActiveAfter", self.last_active_after.as_deref())?,
            last_active_before: read_time("lastActiveBefore", self.last_active_before.as_deref())?,
            ..SessionQuery::default()
        })
    }
}

/// The parameters of a query by name.
#[derive(Debug, Default)]
pub struct Pairs(BTreeMap<String, String>);

impl Pairs {
    /// Returns all parameters by name.
    pub fn into_inner(self) -> BTreeMap<String, String> {
        self.0
    }

    pub fn one(&self, name: &str) -> Option<String> {
        self.0.get(name).cloned()
    }
}

impl<'de> Deserialize<'de> for Pairs {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut pairs = BTreeMap::new();
        for (name, value) in Vec::<(String, String)>::deserialize(deserializer)? {
            if pairs.insert(name.clone(), value).is_some() {
                return Err(serde::de::Error::custom(format!("{name} is given more than once")));
            }
        }
        Ok(Self(pairs))
    }
}

impl FilterBody {
    /// Reads which sessions a revocation covers. An empty filter is refused: whoever means everything has to say so.
    pub fn read(&self) -> Result<SessionQuery, Problem> {
        let said = Self { organization: None, ..self.clone() };
        let nothing = serde_json::to_value(&said).is_ok_and(|said| said == serde_json::json!({}));
        if nothing && self.organization != Some(true) {
            let message = "filter must say which sessions; {\"organization\": true} means every one there is";
            return Err(Problem::invalid("filter", message));
        }
        if self.except.len() > MOST_EXCEPT {
            let message = format!("except must name at most {MOST_EXCEPT} sessions");
            return Err(Problem::invalid("filter.except", message));
        }
        let status = self.status.iter().map(|word| one_status(word)).collect::<Result<_, _>>()?;
        let stage = self.stage.iter().map(|word| open_stage(word)).collect::<Result<_, _>>()?;
        if self.principal.is_some() && !self.principals.is_empty() {
            return Err(Problem::invalid("filter.principals", "say either principal or principals"));
        }
        if self.principals.len() > MOST_EXCEPT {
            let message = format!("principals must name at most {MOST_EXCEPT}");
            return Err(Problem::invalid("filter.principals", message));
        }
        let (principal, called) = read_principal(self.principal.as_deref())?;
        Ok(SessionQuery {
            application: self.application_id,
            session: self.session_id,
            principal,
            called,
            principals: self.principals.clone(),
            kind: read_kind(self.kind.as_deref())?,
            hostname: read_text("hostname", self.hostname.clone())?,
            client: read_text("client", self.client.clone())?,
            resource: read_text("resource", self.resource.clone())?,
            stage,
            status,
            connected_after: read_time("connectedAfter", self.connected_after.as_deref())?,
            connected_before: read_time("connectedBefore", self.connected_before.as_deref())?,
            last_active_after: read_time("lastActiveAfter", self.last_active_after.as_deref())?,
            last_active_before: read_time("lastActiveBefore", self.last_active_before.as_deref())?,
            except: self.except.clone(),
            ..SessionQuery::default()
        })
    }
}

impl From<SessionQuery> for FilterBody {
    fn from(query: SessionQuery) -> Self {
        let said = Self {
            organization: None,
            application_id: query.application,
            session_id: query.session,
            principal: query.principal.map(|id| id.to_string()),
            principals: query.principals,
            hostname: query.hostname,
            client: query.client,
            resource: query.resource,
            kind: query.kind.map(|kind| kind.word().to_owned()),
            stage: query.stage.into_iter().map(|stage| stage.word().to_owned()).collect(),
            status: query.status.into_iter().map(|status| status.word().to_owned()).collect(),
            connected_before: query.connected_before.map(time),
            connected_after: query.connected_after.map(time),
            last_active_before: query.last_active_before.map(time),
            last_active_after: query.last_active_after.map(time),
            except: query.except,
        };
        let whose = said.principal.is_some() || !said.principals.is_empty();
        let narrowed = whose || said.application_id.or(said.session_id).is_some();
        Self { organization: (!narrowed).then_some(true), ..said }
    }
}

pub fn read_status(word: Option<&str>) -> Result<Vec<DerivedStatus>, Problem> {
    match word {
        None | Some("all") => Ok(vec![]),
        Some("active") => Ok(LIVE.to_vec()),
        Some("inactive") => Ok(INACTIVE.to_vec()),
        Some(word) => match DerivedStatus::from_word(word) {
            Some(status) => Ok(vec![status]),
            None => {
                let message = "status must be active, inactive, all, idle, expired or disconnected";
                Err(Problem::invalid("status", message))
            }
        },
    }
}

fn one_status(word: &str) -> Result<DerivedStatus, Problem> {
    let open = DerivedStatus::from_word(word).filter(|status| *status != DerivedStatus::Disconnected);
    open.ok_or_else(|| Problem::invalid("filter.status", "status must be active, idle or expired"))
}

fn read_stage(field: &'static str, word: &str) -> Result<Stage, Problem> {
    let words: Vec<_> = Stage::ALL.into_iter().map(Stage::word).collect();
    let stage = Stage::from_word(word);
    stage.ok_or_else(|| Problem::invalid(field, format!("{field} must be one of {}", words.join(", "))))
}

fn open_stage(word: &str) -> Result<Stage, Problem> {
    let open = Stage::from_word(word).filter(|stage| !stage.is_over());
    open.ok_or_else(|| Problem::invalid("filter.stage", "stage must be queued, launching or running"))
}

pub fn read_kind(word: Option<&str>) -> Result<Option<Kind>, Problem> {
    let Some(word) = word else { return Ok(None) };
    let words: Vec<_> = Kind::ALL.into_iter().map(Kind::word).collect();
    let kind = Kind::from_word(word);
    kind.map(Some)
        .ok_or_else(|| Problem::invalid("kind", format!("kind must be one of {}", words.join(", "))))
}

/// Reads an id in a parameter.
pub fn read_id(field: &'static str, text: Option<&str>) -> Result<Option<Uuid>, Problem> {
    let Some(text) = text else { return Ok(None) };
    let id = Uuid::try_parse(text).ok().filter(|_| text.len() == 36);
    id.map(Some).ok_or_else(|| Problem::invalid(field, "Validation failed (uuid is expected)"))
}

/// A principal in a parameter or field: its id, or else what it is called.
pub fn read_principal(text: Option<&str>) -> Result<(Option<Uuid>, Option<String>), Problem> {
    let Some(text) = text else { return Ok((None, None)) };
    let id = Uuid::try_parse(text).ok().filter(|_| text.len() == 36);
    if id.is_none() && (text.trim().is_empty() || text.len() > LONGEST) {
        let message =
            format!("principal must be an id, a subject or an e-mail address of at most {LONGEST} bytes");
        return Err(Problem::invalid("principal", message));
    }
    Ok((id, id.is_none().then(|| text.to_owned())))
}

/// Reads a time in a parameter or field (RFC 3339). A `+` that was not encoded in a query string has become a space.
pub fn read_time(field: &'static str, text: Option<&str>) -> Result<Option<Time>, Problem> {
    let Some(text) = text else { return Ok(None) };
    let read = DateTime::parse_from_rfc3339(&text.replace(' ', "+"));
    let time = read.ok().and_then(|time| Time::from_timestamp_millis(time.timestamp_millis()));
    time.map(Some).ok_or_else(|| {
        let message = format!("{field} must be a time in RFC 3339, such as 2026-11-22T09:00:00Z");
        Problem::invalid(field, message)
    })
}

fn read_text(field: &'static str, text: Option<String>) -> Result<Option<String>, Problem> {
    if text.as_ref().is_some_and(|text| text.len() > LONGEST) {
        return Err(Problem::invalid(field, format!("{field} must be at most {LONGEST} bytes")));
    }
    Ok(text)
}
