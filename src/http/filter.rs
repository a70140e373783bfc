//! The filter grammar as it stands in a query string or in a body: one reading for lists, counts and revocations.

use std::collections::BTreeMap;

use chrono::DateTime;
use serde::{Deserialize, Serialize};
use sessiond_core::Time;
use sessiond_core::kind::Kind;
use sessiond_core::phase::Stage;
use sessiond_core::status::DerivedStatus;
use utoipa::IntoParams;
use utoipa::openapi::path::{Parameter, ParameterIn};
use uuid::Uuid;

use super::extract::given;
use super::page::{self, read_flag, read_limit};
use super::problem::Problem;
use super::time;
use super::words::{KindWord, OpenStageWord, OpenStatusWord, StageWord, StatusWord, read_word};
use crate::gate::Order;
use crate::sessions::{LONGEST, ListQuery, Page, SessionQuery, Sort, Walk};

/// With which status sessions are listed or counted.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
pub struct StatusParameters {
    /// `active` (the default of a list: active and idle ones), `inactive` (expired and disconnected), `all`, or one of
    /// `idle`, `expired`, `disconnected`. Wins over `includeInactive`.
    #[param(value_type = StatusWord, required = false)]
    pub status: Option<String>,
    /// Without `status`: include expired and disconnected sessions.
    #[param(value_type = Option<bool>)]
    pub include_inactive: Option<String>,
}

/// Which sessions are listed, counted or ended.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
pub struct FilterParameters {
    /// Only sessions of this principal, by its id.
    #[param(value_type = Option<Uuid>)]
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

/// Most sessions of a page, if nothing is said; and the same under the older names.
pub const PAGE: u32 = 100;
pub const OLDER_PAGE: u32 = page::PAGE;

/// How long a page of a list is, for the document.
pub struct LimitParameter;
/// The same under the older names.
pub struct OlderLimitParameter;

impl IntoParams for LimitParameter {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        vec![page::limit_parameter("Most sessions to return.", PAGE)]
    }
}

impl IntoParams for OlderLimitParameter {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        vec![page::limit_parameter("Most sessions to return.", OLDER_PAGE)]
    }
}

/// How a list is ordered and cut into pages.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
pub struct PageParameters {
    /// What to order by; a minus for the latest first. Whoever is active while a list by `-lastActive` is walked comes again
    /// at its end: tell sessions by their ids.
    #[param(value_type = SessionSort, required = false)]
    pub sort: Option<String>,
    /// `nextCursor` of the page before, asked for in the same order.
    pub cursor: Option<String>,
}

/// What a list is ordered by.
#[derive(Deserialize, utoipa::ToSchema)]
pub enum SessionSort {
    #[serde(rename = "created")]
    Created,
    #[serde(rename = "-created")]
    Newest,
    #[serde(rename = "lastActive")]
    LastActive,
    #[serde(rename = "-lastActive")]
    LatestActive,
    #[serde(rename = "expires")]
    Expires,
    #[serde(rename = "-expires")]
    LatestExpiry,
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
    /// A principal, by its id. Without more, its credentials issued before are barred too.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub principal: Option<Uuid>,
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

const LIVE: [DerivedStatus; 2] = [DerivedStatus::Active, DerivedStatus::Idle];
const INACTIVE: [DerivedStatus; 2] = [DerivedStatus::Expired, DerivedStatus::Disconnected];
/// Most sessions that a revocation may leave out.
const MOST_EXCEPT: usize = 1_000;

/// The parameters of a list.
#[derive(Debug, Default)]
pub struct ListParameters {
    status: StatusParameters,
    filter: FilterParameters,
    page: PageParameters,
    limit: Option<String>,
    /// All of them, for the link to the next page.
    raw: BTreeMap<String, String>,
}

impl FilterParameters {
    fn of(pairs: &Pairs) -> Self {
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

    /// What is wanted, whatever its status.
    fn read(&self, application: Option<Uuid>) -> Result<SessionQuery, Problem> {
        Ok(SessionQuery {
            application,
            session: None,
            principal: read_id("principal", self.principal.as_deref())?,
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

/// A query, by name.
#[derive(Debug, Default)]
pub struct Pairs(BTreeMap<String, String>);

impl Pairs {
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

impl<'de> Deserialize<'de> for ListParameters {
    /// Structs and the whole beside them: serde's `flatten` would do the same, but reads every value as text anyway.
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let pairs = Pairs::deserialize(deserializer)?;
        Ok(Self {
            status: StatusParameters {
                status: pairs.one("status"),
                include_inactive: pairs.one("includeInactive"),
            },
            filter: FilterParameters::of(&pairs),
            page: PageParameters { sort: pairs.one("sort"), cursor: pairs.one("cursor") },
            limit: pairs.one("limit"),
            raw: pairs.0,
        })
    }
}

/// Which sessions of an application a call ends, and how.
#[derive(Debug, Default)]
pub struct EndingParameters {
    filter: FilterParameters,
    pairs: Pairs,
}

impl<'de> Deserialize<'de> for EndingParameters {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let pairs = Pairs::deserialize(deserializer)?;
        Ok(Self { filter: FilterParameters::of(&pairs), pairs })
    }
}

impl EndingParameters {
    /// Which sessions: with the same words as a list. Without a status, all that are open.
    pub fn read(&self, application: Uuid) -> Result<SessionQuery, Problem> {
        let wanted = self.filter.read(Some(application))?;
        let mut status = read_status(self.pairs.one("status").as_deref())?;
        let inactive = status.len() > 1;
        // Those that have ended are not ended again.
        status.retain(|status| !inactive || *status != DerivedStatus::Disconnected);
        Ok(SessionQuery { status, ..wanted })
    }

    pub fn flag(&self, name: &'static str) -> Result<bool, Problem> {
        read_flag(name, self.pairs.one(name).as_deref())
    }

    /// The operator's own words.
    pub fn reason(&self) -> Option<String> {
        self.pairs.one("reason")
    }
}

impl ListParameters {
    /// As a list reads it: only the live ones unless more is asked for.
    fn to_list(&self, application: Option<Uuid>) -> Result<SessionQuery, Problem> {
        let wanted = self.to_count(application)?;
        let include_inactive = read_flag("includeInactive", self.status.include_inactive.as_deref())?;
        let live = self.status.status.is_none() && !include_inactive;
        Ok(if live { SessionQuery { status: LIVE.to_vec(), ..wanted } } else { wanted })
    }

    /// As a count reads it: all of them unless less is asked for.
    pub fn to_count(&self, application: Option<Uuid>) -> Result<SessionQuery, Problem> {
        read_flag("includeInactive", self.status.include_inactive.as_deref())?;
        let status = read_status(self.status.status.as_deref())?;
        Ok(SessionQuery { status, ..self.filter.read(application)? })
    }

    /// What to list.
    pub fn read(&self, application: Option<Uuid>, default_limit: u32) -> Result<ListQuery, Problem> {
        let sort = read_sort(self.page.sort.as_deref())?;
        let (after, walk) = page::read_walk_cursor(tag(sort), self.page.cursor.as_deref())?;
        Ok(ListQuery {
            filter: self.to_list(application)?,
            sort,
            limit: read_limit(self.limit.as_deref(), default_limit)?,
            skip: 0,
            after,
            walk: walk.map(|(began, at_its_end)| Walk { began, at_its_end }),
        })
    }

    /// `applicationId`, where a list takes it as a parameter.
    pub fn application(&self) -> Result<Option<Uuid>, Problem> {
        read_id("applicationId", self.raw.get("applicationId").map(String::as_str))
    }

    /// The cursor of the next page, and the `Link` to it (RFC 8288).
    pub fn next(&self, path: &str, sort: Sort, page: &Page) -> Option<(String, String)> {
        let cursor = match page.walk {
            Some(Walk { began, at_its_end }) => page::walk_cursor(tag(sort), page.next?, (began, at_its_end)),
            None => page::cursor_of(tag(sort), page.next?),
        };
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        query.extend_pairs(self.raw.iter().filter(|(name, _)| *name != "cursor"));
        query.append_pair("cursor", &cursor);
        let link = format!("<{path}?{}>; rel=\"next\"", query.finish());
        Some((cursor, link))
    }
}

impl FilterBody {
    /// What a revocation covers. An empty filter is refused: whoever means everything says so.
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
        Ok(SessionQuery {
            application: self.application_id,
            session: self.session_id,
            principal: self.principal,
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
    fn from(wanted: SessionQuery) -> Self {
        let said = Self {
            organization: None,
            application_id: wanted.application,
            session_id: wanted.session,
            principal: wanted.principal,
            hostname: wanted.hostname,
            client: wanted.client,
            resource: wanted.resource,
            kind: wanted.kind.map(|kind| kind.word().to_owned()),
            stage: wanted.stage.into_iter().map(|stage| stage.word().to_owned()).collect(),
            status: wanted.status.into_iter().map(|status| status.word().to_owned()).collect(),
            connected_before: wanted.connected_before.map(time),
            connected_after: wanted.connected_after.map(time),
            last_active_before: wanted.last_active_before.map(time),
            last_active_after: wanted.last_active_after.map(time),
            except: wanted.except,
        };
        let narrowed = said.application_id.or(said.session_id).or(said.principal).is_some();
        Self { organization: (!narrowed).then_some(true), ..said }
    }
}

/// What stands in a cursor for the order it belongs to.
fn tag(sort: Sort) -> u8 {
    let by = match sort.by {
        Order::Connected => 0,
        Order::LastActive => 2,
        Order::Expires => 4,
    };
    by + u8::from(!sort.descending)
}

fn read_sort(word: Option<&str>) -> Result<Sort, Problem> {
    let Some(word) = word else { return Ok(Sort::default()) };
    let (by, descending) = match read_word(word) {
        Some(SessionSort::Created) => (Order::Connected, false),
        Some(SessionSort::Newest) => (Order::Connected, true),
        Some(SessionSort::LastActive) => (Order::LastActive, false),
        Some(SessionSort::LatestActive) => (Order::LastActive, true),
        Some(SessionSort::Expires) => (Order::Expires, false),
        Some(SessionSort::LatestExpiry) => (Order::Expires, true),
        None => {
            let message = "sort must be created, lastActive or expires, with a minus for the latest first";
            return Err(Problem::invalid("sort", message));
        }
    };
    Ok(Sort { by, descending })
}

fn read_status(word: Option<&str>) -> Result<Vec<DerivedStatus>, Problem> {
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

/// An id in a parameter.
pub fn read_id(field: &'static str, text: Option<&str>) -> Result<Option<Uuid>, Problem> {
    let Some(text) = text else { return Ok(None) };
    let id = Uuid::try_parse(text).ok().filter(|_| text.len() == 36);
    id.map(Some).ok_or_else(|| Problem::invalid(field, "Validation failed (uuid is expected)"))
}

/// A time in a parameter or field: RFC 3339. A `+` in a query string that was not encoded has become a space.
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
