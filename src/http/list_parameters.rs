//! The parameters of lists and counts of sessions in a query string. The grammar of the filter is in `filter`.

use std::collections::BTreeMap;

use axum::http::HeaderMap;
use serde::Deserialize;
use sessiond_core::Time;
use sessiond_core::ids::Position;
use sessiond_core::status::DerivedStatus;
use utoipa::IntoParams;
use utoipa::openapi::path::{Parameter, ParameterIn};
use uuid::Uuid;

use super::filter::{FilterParameters, LIVE, Pairs, read_id, read_status, read_time};
use super::page::{self, read_flag, read_limit};
use super::problem::Problem;
use super::words::{StatusWord, read_word};
use crate::gate::Order;
use crate::sessions::{AsOf, ListQuery, Page, SessionQuery, Sort, Walk, WordQuery};

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

/// The moment that a list, a count or a look is about.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
pub struct AsOfParameter {
    /// As of this instant (RFC 3339) or log position: who had connected by then, with the status of then, as recorded by then,
    /// in the order of connecting.
    #[param(example = "2026-11-30T14:03:00Z")]
    pub as_of: Option<String>,
}

impl AsOfParameter {
    pub fn read(&self) -> Result<Option<AsOf>, Problem> {
        let Some(text) = self.as_of.as_deref() else { return Ok(None) };
        if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
            let position =
                text.parse().map_err(|_| Problem::invalid("asOf", "asOf is beyond any log's end"))?;
            return Ok(Some(AsOf::Position(Position(position))));
        }
        let wrong = |_| {
            let message =
                "asOf must be an instant like 2026-11-30T14:03:00Z (RFC 3339), or a position of the log";
            Problem::invalid("asOf", message)
        };
        Ok(read_time("asOf", Some(text)).map_err(wrong)?.map(AsOf::Time))
    }
}

/// The words that sessions of a list or a count are looked for by.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub struct WordsParameter {
    /// Only sessions that all of these terms fit: each begins a word of the name, hostname or client, or the id (8 digits of it);
    /// with `management:all`, also a word of the principal. Not with `asOf`.
    #[param(min_length = 1, max_length = 200, example = "desk-17 claude")]
    pub q: Option<String>,
}

impl WordsParameter {
    fn read(&self) -> Result<Option<WordQuery>, Problem> {
        let query = self.q.as_deref().map(WordQuery::read).transpose();
        query.map_err(|message| Problem::invalid("q", message))
    }
}

/// How many sessions a page has if the client does not say.
pub const PAGE: u32 = 100;
/// How many the operations with older names have.
pub const OLDER_PAGE: u32 = page::PAGE;

/// The parameter for the length of a page, for the document.
pub struct LimitParameter;

/// The same parameter of the operations with older names.
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

/// The parameters of a list.
#[derive(Debug, Default)]
pub struct ListParameters {
    status: StatusParameters,
    filter: FilterParameters,
    page: PageParameters,
    limit: Option<String>,
    as_of: AsOfParameter,
    words: WordsParameter,
    /// All parameters, for the link to the next page.
    raw: BTreeMap<String, String>,
}

impl<'de> Deserialize<'de> for ListParameters {
    /// Reads the pairs once and makes everything of them; serde's `flatten` would read every value as text anyway.
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
            as_of: AsOfParameter { as_of: pairs.one("asOf") },
            words: WordsParameter { q: pairs.one("q") },
            raw: pairs.into_inner(),
        })
    }
}

impl ListParameters {
    /// Reads the filter for a list, which has only live sessions unless more is asked for.
    fn to_list(&self, application: Option<Uuid>) -> Result<SessionQuery, Problem> {
        let query = self.to_count(application)?;
        let include_inactive = read_flag("includeInactive", self.status.include_inactive.as_deref())?;
        let live = self.status.status.is_none() && !include_inactive;
        Ok(if live { SessionQuery { status: LIVE.to_vec(), ..query } } else { query })
    }

    /// Reads the filter for a count, which counts all sessions unless less is asked for.
    pub fn to_count(&self, application: Option<Uuid>) -> Result<SessionQuery, Problem> {
        read_flag("includeInactive", self.status.include_inactive.as_deref())?;
        let status = read_status(self.status.status.as_deref())?;
        Ok(SessionQuery { status, ..self.filter.read(application)? })
    }

    /// Reads what to list.
    pub fn read(&self, application: Option<Uuid>, default_limit: u32) -> Result<ListQuery, Problem> {
        let sort = read_sort(self.page.sort.as_deref())?;
        let (after, walk) = page::read_walk_cursor(tag(sort), self.page.cursor.as_deref())?;
        Ok(ListQuery {
            filter: self.to_list(application)?,
            sort,
            limit: read_limit(self.limit.as_deref(), default_limit)?,
            skip: 0,
            after,
            as_of: self.as_of.read()?,
            words: self.words.read()?,
            walk: walk.map(|(began, at_its_end)| Walk { began, at_its_end }),
        })
    }

    /// Reads what to export: all of a list, in the order in which they connected, after one of them.
    pub fn read_to_export(
        &self,
        application: Option<Uuid>,
        after: Option<Uuid>,
    ) -> Result<ListQuery, Problem> {
        Ok(ListQuery {
            filter: self.to_list(application)?,
            sort: Sort { by: Order::Connected, descending: false },
            // The order is that of the numbers alone.
            after: after.map(|id| (Time::default(), id)),
            as_of: self.as_of.read()?,
            ..ListQuery::default()
        })
    }

    /// A parameter as it is said.
    pub fn text(&self, name: &str) -> Option<String> {
        self.raw.get(name).cloned()
    }

    /// Reads the moment that is asked about.
    pub fn as_of(&self) -> Result<Option<AsOf>, Problem> {
        self.as_of.read()
    }

    /// Reads the words that are looked for.
    pub fn words(&self) -> Result<Option<WordQuery>, Problem> {
        self.words.read()
    }

    /// Reads `applicationId`, where a list takes it as a parameter.
    pub fn application(&self) -> Result<Option<Uuid>, Problem> {
        read_id("applicationId", self.raw.get("applicationId").map(String::as_str))
    }

    /// The cursor of the next page, and the header with the link to it.
    pub fn next(&self, path: &str, sort: Sort, page: &Page) -> (Option<String>, HeaderMap) {
        let cursor = page.next.map(|mark| match page.walk {
            Some(Walk { began, at_its_end }) => page::walk_cursor(tag(sort), mark, (began, at_its_end)),
            None => page::cursor_of(tag(sort), mark),
        });
        let others = self.raw.iter().filter(|(name, _)| *name != "cursor");
        let link = page::next_link(path, others, cursor.as_deref());
        (cursor, link)
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
    /// Reads which sessions are meant, in the words of a list. Without a status all open ones are.
    pub fn read(&self, application: Uuid) -> Result<SessionQuery, Problem> {
        let query = self.filter.read(Some(application))?;
        let mut status = read_status(self.pairs.one("status").as_deref())?;
        let inactive = status.len() > 1;
        // Sessions that have ended are not ended again.
        status.retain(|status| !inactive || *status != DerivedStatus::Disconnected);
        Ok(SessionQuery { status, ..query })
    }

    pub fn flag(&self, name: &'static str) -> Result<bool, Problem> {
        read_flag(name, self.pairs.one(name).as_deref())
    }

    /// A parameter as it is said.
    pub fn text(&self, name: &'static str) -> Option<String> {
        self.pairs.one(name)
    }
}

/// The tag of an order in a cursor.
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
