//! The filter grammar as it stands in a query string or in a body: one reading for lists, counts and revocations.

use std::collections::BTreeMap;

use chrono::DateTime;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::extract::given;
use super::page::{self, read_flag, read_limit};
use super::problem::Problem;
use super::time;
use crate::core::Time;
use crate::core::kind::Kind;
use crate::core::phase::Stage;
use crate::core::status::DerivedStatus;
use crate::gate::Order;
use crate::sessions::{LONGEST, ListQuery, Sort, Wanted};

/// Which sessions are listed or counted.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
pub struct FilterParameters {
    /// `active` (the default of a list: active and idle ones), `inactive` (expired and disconnected), `all`, or one of
    /// `idle`, `expired`, `disconnected`. Wins over `includeInactive`.
    #[param(inline, value_type = Option<StatusFilter>)]
    pub status: Option<String>,
    /// Without `status`: include expired and disconnected sessions.
    #[param(value_type = Option<bool>)]
    pub include_inactive: Option<String>,
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
    /// `agent`, `mcp`, `media`, `webui` or `task`.
    #[param(inline, value_type = Option<KindFilter>)]
    pub kind: Option<String>,
    /// How far the work behind them has come: `queued`, `launching`, `running`, `finished`, `failed`, `crashed` or
    /// `terminated`. Sessions of other kinds run, and are terminated.
    #[param(inline, value_type = Option<StageFilter>)]
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

/// How a list is ordered and cut into pages.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
pub struct PageParameters {
    /// Most sessions to return, 1 to 200.
    #[param(value_type = Option<u32>, minimum = 1, maximum = 200, example = 100)]
    pub limit: Option<String>,
    /// What to order by; a minus for the latest first.
    #[param(inline, value_type = Option<SortWord>)]
    pub sort: Option<String>,
    /// `nextCursor` of the page before, asked for in the same order.
    pub cursor: Option<String>,
}

/// Which statuses are wanted.
#[derive(utoipa::ToSchema)]
#[schema(rename_all = "lowercase")]
#[allow(dead_code)] // the document's words for what `statuses` reads
pub enum StatusFilter {
    Active,
    Inactive,
    All,
    Idle,
    Expired,
    Disconnected,
}

/// What sort of session.
#[derive(utoipa::ToSchema)]
#[schema(rename_all = "lowercase")]
#[allow(dead_code)] // as above
pub enum KindFilter {
    Agent,
    Mcp,
    Media,
    Webui,
    Task,
}

/// How far work has come.
#[derive(utoipa::ToSchema)]
#[schema(rename_all = "lowercase")]
#[allow(dead_code)] // as above
pub enum StageFilter {
    Queued,
    Launching,
    Running,
    Finished,
    Failed,
    Crashed,
    Terminated,
}

/// What a list is ordered by.
#[derive(utoipa::ToSchema)]
#[allow(dead_code)] // as above
pub enum SortWord {
    #[schema(rename = "created")]
    Created,
    #[schema(rename = "-created")]
    Newest,
    #[schema(rename = "lastActive")]
    LastActive,
    #[schema(rename = "-lastActive")]
    LatestActive,
    #[schema(rename = "expires")]
    Expires,
    #[schema(rename = "-expires")]
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
    /// `agent`, `mcp`, `media`, `webui` or `task`.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub kind: Option<String>,
    /// `queued`, `launching`, `running`: any of these; all if left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stage: Vec<String>,
    /// `active`, `idle`, `expired`: any of these; all if left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
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
    pub filter: FilterParameters,
    pub page: PageParameters,
    /// All of them, for the link to the next page.
    raw: BTreeMap<String, String>,
}

impl FilterParameters {
    /// As a list reads it: only the live ones unless more is asked for.
    fn for_list(&self, application: Option<Uuid>) -> Result<Wanted, Problem> {
        let wanted = self.read(application)?;
        let include_inactive = read_flag("includeInactive", self.include_inactive.as_deref())?;
        let live = self.status.is_none() && !include_inactive;
        Ok(if live { Wanted { status: LIVE.to_vec(), ..wanted } } else { wanted })
    }

    /// As a count reads it: all of them unless less is asked for.
    pub fn read(&self, application: Option<Uuid>) -> Result<Wanted, Problem> {
        read_flag("includeInactive", self.include_inactive.as_deref())?;
        Ok(Wanted {
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
            status: read_status(self.status.as_deref())?,
            connected_after: read_time("connectedAfter", self.connected_after.as_deref())?,
            connected_before: read_time("connectedBefore", self.connected_before.as_deref())?,
            last_active_after: read_time("lastActiveAfter", self.last_active_after.as_deref())?,
            last_active_before: read_time("lastActiveBefore", self.last_active_before.as_deref())?,
            ..Wanted::default()
        })
    }
}

impl<'de> Deserialize<'de> for ListParameters {
    /// Two structs and the whole beside them: serde's `flatten` would do the same, but reads every value as text anyway.
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let pairs = Vec::<(String, String)>::deserialize(deserializer)?;
        let mut raw = BTreeMap::new();
        for (name, value) in pairs {
            if raw.insert(name.clone(), value).is_some() {
                return Err(serde::de::Error::custom(format!("{name} is given more than once")));
            }
        }
        let one = |name: &str| raw.get(name).cloned();
        Ok(Self {
            filter: FilterParameters {
                status: one("status"),
                include_inactive: one("includeInactive"),
                principal: one("principal"),
                hostname: one("hostname"),
                client: one("client"),
                resource: one("resource"),
                kind: one("kind"),
                stage: one("stage"),
                connected_before: one("connectedBefore"),
                connected_after: one("connectedAfter"),
                last_active_before: one("lastActiveBefore"),
                last_active_after: one("lastActiveAfter"),
            },
            page: PageParameters { limit: one("limit"), sort: one("sort"), cursor: one("cursor") },
            raw,
        })
    }
}

impl ListParameters {
    /// What to list.
    pub fn read(&self, application: Option<Uuid>, default_limit: u32) -> Result<ListQuery, Problem> {
        let sort = read_sort(self.page.sort.as_deref())?;
        Ok(ListQuery {
            wanted: self.filter.for_list(application)?,
            sort,
            limit: read_limit(self.page.limit.as_deref(), default_limit)?,
            skip: 0,
            after: page::read_cursor_of(tag(sort), self.page.cursor.as_deref())?,
        })
    }

    /// `applicationId`, where a list takes it as a parameter.
    pub fn application(&self) -> Result<Option<Uuid>, Problem> {
        read_id("applicationId", self.raw.get("applicationId").map(String::as_str))
    }

    /// The cursor of the next page, and the `Link` to it (RFC 8288).
    pub fn next(&self, path: &str, sort: Sort, next: Option<(Time, Uuid)>) -> Option<(String, String)> {
        let cursor = page::cursor_of(tag(sort), next?);
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        query.extend_pairs(self.raw.iter().filter(|(name, _)| *name != "cursor"));
        query.append_pair("cursor", &cursor);
        let link = format!("<{path}?{}>; rel=\"next\"", query.finish());
        Some((cursor, link))
    }
}

impl FilterBody {
    /// What a revocation covers. An empty filter is refused: whoever means everything says so.
    pub fn read(&self) -> Result<Wanted, Problem> {
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
        Ok(Wanted {
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
            ..Wanted::default()
        })
    }
}

impl From<Wanted> for FilterBody {
    fn from(wanted: Wanted) -> Self {
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
    let (descending, name) = word.strip_prefix('-').map_or((false, word), |name| (true, name));
    let by = match name {
        "created" => Order::Connected,
        "lastActive" => Order::LastActive,
        "expires" => Order::Expires,
        _ => {
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
