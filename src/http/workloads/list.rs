//! Lists of sessions: filters named after a field and its comparison, and pages by offset.

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use sessiond_core::caller::Caller;
use sessiond_core::kind::Kind;
use sessiond_core::phase::Stage;
use uuid::Uuid;

use super::key::Key;
use super::{WorkloadSession, settled_by, shown_all, state};
use crate::gate::Order;
use crate::http::App;
use crate::http::extract::Query;
use crate::http::filter::read_time;
use crate::http::problem::Problem;
use crate::http::words::read_word;
use crate::sessions::{LONGEST, ListQuery, SessionQuery, Sort};

/// Which sessions are listed, and in what order.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct WorkloadParameters {
    /// So many sessions are passed over first, at most 10,000. Whoever wants to see more narrows the list with `before`:
    /// the `created_at` of the last session seen.
    #[param(value_type = Option<u32>, minimum = 0, maximum = 10_000, example = 0)]
    pub offset: Option<String>,
    /// Most sessions to return.
    #[param(value_type = u32, required = false, minimum = 1, maximum = 1_000, default = 100)]
    pub limit: Option<String>,
    /// What to order by, with a minus for the latest first; `-created_at` if nothing is said.
    #[param(value_type = WorkloadSort, required = false)]
    pub sort: Option<String>,
    /// Created at this instant or later (RFC 3339).
    #[param(value_type = Option<String>, format = DateTime)]
    pub after: Option<String>,
    /// Created before this instant (RFC 3339).
    #[param(value_type = Option<String>, format = DateTime)]
    pub before: Option<String>,
    /// In this state, in upper or lower case. A task that was ended from outside and whose cluster has not said so yet is
    /// found only where no state is asked for.
    pub state_equal_ci: Option<String>,
    /// In any of these states, separated by commas, in upper or lower case.
    pub state_in: Option<String>,
    /// In none of these states, separated by commas, in upper or lower case.
    pub state_not_in: Option<String>,
    /// Of the application of exactly this name.
    pub app_equal_cs: Option<String>,
    /// Of applications of this name, in upper or lower case.
    pub app_equal_ci: Option<String>,
    /// Of exactly this version of its application.
    pub version_equal_cs: Option<String>,
    /// Belonging to exactly this person.
    pub owner_equal_cs: Option<String>,
}

/// What a list is ordered by.
#[derive(Deserialize, utoipa::ToSchema)]
pub enum WorkloadSort {
    #[serde(rename = "created_at")]
    Created,
    #[serde(rename = "-created_at")]
    Newest,
    #[serde(rename = "last_active_at")]
    LastActive,
    #[serde(rename = "-last_active_at")]
    LatestActive,
}

/// A page of sessions.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct WorkloadSessions {
    /// How many sessions fit in all.
    pub total_sessions: u64,
    pub current_batch: Vec<WorkloadSession>,
}

const LIMIT: u32 = 100;
const LARGEST_LIMIT: u32 = 1_000;
/// How many sessions a page may pass over, which costs as much as showing them.
const LARGEST_OFFSET: u32 = 10_000;

/// List WebUI sessions
///
/// The newest first, unless asked for otherwise; `state` is `Running` or `Terminated`. An application or a person that there
/// is not has no sessions. Without the right to see everybody's, one's own are all there are.
#[utoipa::path(get, path = "/pro/session-manager/v1/sessions/webui", operation_id = "workloads.listWebuiSessions",
    tag = "workloads", security(("apiKey" = [])), params(WorkloadParameters),
    responses(
        (status = 200, description = "A page of them.", body = WorkloadSessions),
    ))]
pub async fn list_webui_sessions(
    Key(caller): Key,
    State(app): State<App>,
    Query(parameters): Query<WorkloadParameters>,
) -> Result<Json<WorkloadSessions>, Problem> {
    list(&app, &caller, Kind::Webui, &parameters).await
}

/// List task sessions
///
/// The newest first, unless asked for otherwise; `state` is `queued`, `launching`, `running`, `finished`, `failed`, `crashed`
/// or `terminated`. An application or a person that there is not has no sessions. Without the right to see everybody's, one's
/// own are all there are.
#[utoipa::path(get, path = "/pro/session-manager/v1/sessions/task", operation_id = "workloads.listTaskSessions",
    tag = "workloads", security(("apiKey" = [])), params(WorkloadParameters),
    responses(
        (status = 200, description = "A page of them.", body = WorkloadSessions),
    ))]
pub async fn list_task_sessions(
    Key(caller): Key,
    State(app): State<App>,
    Query(parameters): Query<WorkloadParameters>,
) -> Result<Json<WorkloadSessions>, Problem> {
    list(&app, &caller, Kind::Task, &parameters).await
}

async fn list(
    app: &App,
    caller: &Caller,
    kind: Kind,
    parameters: &WorkloadParameters,
) -> Result<Json<WorkloadSessions>, Problem> {
    let sort = read_sort(parameters.sort.as_deref())?;
    let limit = read_number("limit", parameters.limit.as_deref(), LIMIT, (1, LARGEST_LIMIT))?;
    let offset = read_offset(parameters.offset.as_deref())?;
    let Some(filter) = parameters.filter(app, caller, kind)? else {
        return Ok(Json(WorkloadSessions { total_sessions: 0, current_batch: vec![] }));
    };
    let counts = app.sessions.queries.count(caller, &filter, None).await?;
    let query = ListQuery { filter, sort, limit, skip: offset as usize, ..ListQuery::default() };
    let page = app.sessions.queries.list(caller, &query).await?;
    let all = app.sessions.workloads.views(page.items).await?;
    Ok(Json(WorkloadSessions {
        total_sessions: counts.active + counts.idle + counts.expired + counts.disconnected,
        current_batch: shown_all(app, all),
    }))
}

impl WorkloadParameters {
    /// Reads the filter; none where nothing can fit it.
    fn filter(&self, app: &App, caller: &Caller, kind: Kind) -> Result<Option<SessionQuery>, Problem> {
        let after = read_time("after", self.after.as_deref())?;
        let before = read_time("before", self.before.as_deref())?;
        let resource = read_text("version_equal_cs", self.version_equal_cs.as_deref())?;
        let stages = self.stages(kind)?;
        let applications = self.applications(app, caller)?;
        let owner = read_text("owner_equal_cs", self.owner_equal_cs.as_deref())?;
        let owner = owner.map(|name| app.sessions.workloads.own_user(caller, &name));
        let own = (!caller.looks_at_all()).then(|| app.directory.principals.person(caller));
        let (principal, nobody) = match (owner, own) {
            (Some(owner), Some(own)) => (own, owner != own || own.is_none()),
            (Some(one), None) | (None, Some(one)) => (one, one.is_none()),
            (None, None) => (None, false),
        };
        let impossible = |all: &Option<Vec<_>>| all.as_ref().is_some_and(Vec::is_empty);
        if nobody || impossible(&applications) || stages.as_ref().is_some_and(Vec::is_empty) {
            return Ok(None);
        }
        let settled_by = (kind == Kind::Task && stages.is_some())
            .then(|| settled_by(app.clock.now(), app.config.workload_grace));
        Ok(Some(SessionQuery {
            applications: applications.unwrap_or_default(),
            principal,
            kind: Some(kind),
            resource,
            stage: stages.unwrap_or_default(),
            connected_after: after,
            connected_before: before,
            settled_by,
            ..SessionQuery::default()
        }))
    }

    /// The stages that the states asked for stand for; none where no state is asked for.
    fn stages(&self, kind: Kind) -> Result<Option<Vec<Stage>>, Problem> {
        let asked = [
            ("state_equal_ci", self.state_equal_ci.as_deref(), true),
            ("state_in", self.state_in.as_deref(), true),
            ("state_not_in", self.state_not_in.as_deref(), false),
        ];
        if asked.iter().all(|(_, text, _)| text.is_none()) {
            return Ok(None);
        }
        let mut left = Stage::ALL.to_vec();
        for (field, text, wanted) in asked {
            let Some(text) = text else { continue };
            let words: Vec<&str> =
                if field == "state_equal_ci" { vec![text] } else { text.split(',').collect() };
            let mut named = Vec::new();
            for word in words {
                named.push(read_state(field, kind, word.trim())?);
            }
            left.retain(|stage| named.contains(&state(kind, *stage)) == wanted);
        }
        Ok(Some(left))
    }

    /// The applications that are named, which may not exist; none where no name is given.
    fn applications(&self, app: &App, caller: &Caller) -> Result<Option<Vec<Uuid>>, Problem> {
        let mut both: Option<Vec<Uuid>> = None;
        for (field, name, either_case) in
            [("app_equal_cs", &self.app_equal_cs, false), ("app_equal_ci", &self.app_equal_ci, true)]
        {
            let Some(name) = read_text(field, name.as_deref())? else { continue };
            let called = app.sessions.workloads.applications_named(caller, &name, either_case);
            both = Some(match both {
                Some(before) => called.into_iter().filter(|id| before.contains(id)).collect(),
                None => called,
            });
        }
        Ok(both)
    }
}

/// Reads a state of this surface, in upper or lower case.
fn read_state(field: &'static str, kind: Kind, word: &str) -> Result<&'static str, Problem> {
    let mut known: Vec<_> = Stage::ALL.into_iter().map(|stage| state(kind, stage)).collect();
    known.dedup();
    known.iter().find(|one| one.eq_ignore_ascii_case(word)).copied().ok_or_else(|| {
        let message = format!("{field}: {word:?} is no state; there are {}", known.join(", "));
        Problem::invalid(field, message)
    })
}

fn read_sort(word: Option<&str>) -> Result<Sort, Problem> {
    let Some(word) = word else { return Ok(Sort::default()) };
    let (by, descending) = match read_word(word) {
        Some(WorkloadSort::Created) => (Order::Connected, false),
        Some(WorkloadSort::Newest) => (Order::Connected, true),
        Some(WorkloadSort::LastActive) => (Order::LastActive, false),
        Some(WorkloadSort::LatestActive) => (Order::LastActive, true),
        None => {
            let message = "sort must be created_at or last_active_at, with a minus for the latest first";
            return Err(Problem::invalid("sort", message));
        }
    };
    Ok(Sort { by, descending })
}

fn read_offset(text: Option<&str>) -> Result<u32, Problem> {
    read_number("offset", text, 0, (0, LARGEST_OFFSET)).map_err(|problem| {
        let message = format!(
            "{}; to see more, narrow the list by created_at with before: that costs the same wherever you are",
            problem.message
        );
        Problem { message, ..problem }
    })
}

/// Reads a whole number within bounds.
pub fn read_number(
    field: &'static str,
    text: Option<&str>,
    default: u32,
    (least, most): (u32, u32),
) -> Result<u32, Problem> {
    let Some(text) = text else { return Ok(default) };
    let number = text.parse().ok().filter(|number| (least..=most).contains(number));
    number.ok_or_else(|| {
        Problem::invalid(field, format!("{field} must be a whole number from {least} to {most}"))
    })
}

fn read_text(field: &'static str, text: Option<&str>) -> Result<Option<String>, Problem> {
    if text.is_some_and(|text| text.len() > LONGEST) {
        return Err(Problem::invalid(field, format!("{field} must be at most {LONGEST} bytes")));
    }
    Ok(text.map(str::to_owned))
}
