//! Lists, details and statistics of terminal sessions.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use chrono::{NaiveDate, TimeDelta};
use serde::{Deserialize, Serialize};
use sessiond_core::Time;
use sessiond_core::caller::Caller;
use sessiond_core::ids::PrincipalNumber;
use sessiond_core::kind::Kind;
use sessiond_core::relation::Way;
use sessiond_core::status::DerivedStatus;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::machines::{Pagination, read_page};
use super::{
    Id, MachineName, SESSION, Success, User, UserName, id, machine_name, read_id, seconds, user_name,
};
use crate::http::App;
use crate::http::extract::Query;
use crate::http::problem::Problem;
use crate::http::words::read_word;
use crate::sessions::{ListQuery, SessionQuery, View};

/// How many sessions a page may have, and has if the client does not say.
const PAGE: usize = 100;
/// How many machines statistics name.
const TOP: usize = 10;

/// A terminal session in a list.
#[derive(Serialize, ToSchema)]
#[schema(as = TerminalSession)]
pub struct Item {
    id: String,
    user: UserName,
    machine: MachineName,
    /// `active` or `ended`.
    status: &'static str,
    started_at: String,
    /// Moves with input.
    last_activity: String,
    #[schema(required = true)]
    ip_address: Option<String>,
}

/// The sessions of a page, newest first.
#[derive(Serialize, ToSchema)]
#[schema(as = TerminalSessionList)]
pub struct List {
    sessions: Vec<Item>,
    pagination: Pagination,
}

/// A terminal session with everything.
#[derive(Serialize, ToSchema)]
#[schema(as = TerminalSessionDetail)]
pub struct Detail {
    id: String,
    user: UserWithEmail,
    machine: MachineWithHost,
    status: &'static str,
    started_at: String,
    last_activity: String,
    #[schema(required = true)]
    ip_address: Option<String>,
    #[schema(required = true)]
    user_agent: Option<String>,
    /// Command lines that were entered.
    commands_count: u64,
    /// When it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    ended_at: Option<String>,
    /// Why: `exited`, `terminated`, `revoked`, `lifetime`, `idle`, `machine_lost`, `failed`, …
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    ended_reason: Option<&'static str>,
    /// How its shell ended, where it did by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    ended_message: Option<String>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = TerminalUser)]
pub struct UserWithEmail {
    id: String,
    name: String,
    #[schema(required = true)]
    email: Option<String>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = TerminalMachine)]
pub struct MachineWithHost {
    id: String,
    name: String,
    #[schema(required = true)]
    host: Option<String>,
}

/// Which sessions.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ListParameters {
    /// `active` or `ended`; active ones if nothing is said.
    #[param(value_type = StatusWord, required = false)]
    status: Option<String>,
    /// `mch_…`
    machine_id: Option<String>,
    /// `usr_…`
    user_id: Option<String>,
    /// Started at this instant or later: ISO 8601, or a date.
    #[param(value_type = Option<String>)]
    from: Option<String>,
    /// Started at this instant or before; a date means the whole of that day, UTC.
    #[param(value_type = Option<String>)]
    to: Option<String>,
    /// Which page, from 1 on.
    #[param(value_type = u32, required = false, minimum = 1, default = 1)]
    page: Option<String>,
    /// Most of a page, 1 to 100.
    #[param(value_type = u32, required = false, minimum = 1, maximum = 100, default = 100)]
    limit: Option<String>,
}

/// Which sessions are wanted.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = TerminalStatus)]
pub enum StatusWord {
    Active,
    Ended,
}

/// How many sessions a page may pass over; beyond that clients narrow the list by time.
const FARTHEST: usize = 10_000;

/// List sessions
///
/// Active ones, unless `status=ended` is asked for. Whoever acts for a person sees that person's alone.
#[utoipa::path(get, path = "/v1/sessions", operation_id = "terminals.listSessions", tag = "terminals",
    security(("terminalKey" = [])), params(ListParameters),
    responses(
        (status = 200, description = "A page of them.", body = Success<List>),
    ))]
pub async fn list_sessions(
    User(caller): User,
    Query(parameters): Query<ListParameters>,
    State(app): State<App>,
) -> Result<Json<Success<List>>, Problem> {
    let (page, limit) = read_page(parameters.page.as_deref(), parameters.limit.as_deref(), PAGE)?;
    let skip = (page - 1) * limit;
    if skip > FARTHEST {
        let message = format!("page goes beyond {FARTHEST} sessions; narrow the list by from and to");
        return Err(Problem::invalid("page", message));
    }
    let Some(filter) = filter(&app, &caller, &parameters)? else {
        let pagination = Pagination::of(page, limit, 0);
        return Ok(Json(Success::of(List { sessions: vec![], pagination })));
    };
    let counts = app.sessions.queries.count(&caller, &filter, None).await?;
    let total = counts.active + counts.idle + counts.expired + counts.disconnected;
    let limit_asked = u32::try_from(limit).unwrap_or(u32::MAX);
    let query = ListQuery { filter, limit: limit_asked, skip, ..ListQuery::default() };
    let found = app.sessions.queries.list(&caller, &query).await?;
    let mut people: BTreeMap<PrincipalNumber, UserName> = BTreeMap::new();
    let mut sessions = Vec::with_capacity(found.items.len());
    for view in found.items {
        let number = view.session.principal;
        let user = match people.get(&number) {
            Some(user) => user.clone(),
            None => {
                let named = user_name(&app, number, view.principal.id).await?;
                people.entry(number).or_insert(named.user).clone()
            }
        };
        sessions.push(Item {
            id: id("sess", view.session.id),
            user,
            machine: machine_name(&app, &caller, view.session.resource.as_deref()),
            status: status(&view),
            started_at: seconds(view.session.connected_at),
            last_activity: seconds(view.last_active_at),
            ip_address: view.detail.ip,
        });
    }
    let pagination = Pagination::of(page, limit, usize::try_from(total).unwrap_or(usize::MAX));
    Ok(Json(Success::of(List { sessions, pagination })))
}

/// Reads the filter; none if nothing can fit it.
fn filter(app: &App, caller: &Caller, parameters: &ListParameters) -> Result<Option<SessionQuery>, Problem> {
    let status = read_status(parameters.status.as_deref())?;
    let from = parameters.from.as_deref().map(|text| read_moment("from", text, false)).transpose()?;
    let to = parameters.to.as_deref().map(|text| read_moment("to", text, true)).transpose()?;
    if from.zip(to).is_some_and(|(from, to)| from > to) {
        return Err(Problem::invalid("from", "from must not be after to"));
    }
    let machine = parameters.machine_id.as_deref().map(|text| read_id("mch", text));
    let user = parameters.user_id.as_deref().map(|text| read_id("usr", text));
    if machine == Some(None) || user == Some(None) {
        return Ok(None);
    }
    let own = app.directory.principals.person(caller).filter(|_| !caller.looks_at_all());
    let user = user.flatten();
    if own.is_some() && user.is_some() && user != own {
        return Ok(None);
    }
    Ok(Some(SessionQuery {
        kind: Some(Kind::Terminal),
        principal: user.or(own),
        resource: machine.flatten().map(|machine| machine.to_string()),
        status: status.to_vec(),
        connected_after: from,
        connected_before: to.map(|to| to + TimeDelta::milliseconds(1)),
        ..SessionQuery::default()
    }))
}

fn read_status(text: Option<&str>) -> Result<[DerivedStatus; 2], Problem> {
    match text.map(read_word) {
        None | Some(Some(StatusWord::Active)) => Ok([DerivedStatus::Active, DerivedStatus::Idle]),
        Some(Some(StatusWord::Ended)) => Ok([DerivedStatus::Expired, DerivedStatus::Disconnected]),
        Some(None) => Err(Problem::invalid("status", "status must be active or ended")),
    }
}

/// Reads an instant or a date, which stands for its first moment or, with `end`, its last.
pub fn read_moment(field: &'static str, text: &str, end: bool) -> Result<Time, Problem> {
    if let Ok(time) = chrono::DateTime::parse_from_rfc3339(text) {
        return Ok(time.to_utc());
    }
    let wrong = || {
        Problem::invalid(
            field,
            format!("{field} must be ISO 8601, such as 2024-01-01T12:00:00Z or 2024-01-01"),
        )
    };
    let date: NaiveDate = text.parse().map_err(|_| wrong())?;
    let date = if end { date.succ_opt().ok_or_else(wrong)? } else { date };
    let midnight = date.and_hms_opt(0, 0, 0).ok_or_else(wrong)?.and_utc();
    Ok(if end { midnight - TimeDelta::milliseconds(1) } else { midnight })
}

fn status(view: &View) -> &'static str {
    match view.derived {
        DerivedStatus::Active | DerivedStatus::Idle => "active",
        DerivedStatus::Expired | DerivedStatus::Disconnected => "ended",
    }
}

/// A terminal session that the caller may see.
pub async fn visible(app: &App, caller: &Caller, id: Uuid) -> Result<View, Problem> {
    Ok(app.sessions.queries.find(caller, Way::Terminals, id).await?)
}

/// Get a session
#[utoipa::path(get, path = "/v1/sessions/{sessionId}", operation_id = "terminals.getSession", tag = "terminals",
    security(("terminalKey" = [])), params(("sessionId" = String, Path, description = "`sess_…`")),
    responses(
        (status = 200, description = "The session.", body = Success<Detail>),
    ))]
pub async fn get_session(
    User(caller): User,
    Id(session): Id<SESSION>,
    State(app): State<App>,
) -> Result<Json<Success<Detail>>, Problem> {
    let view = visible(&app, &caller, session).await?;
    let named = user_name(&app, view.session.principal, view.principal.id).await?;
    let machine = machine_name(&app, &caller, view.session.resource.as_deref());
    let found = view.session.resource.as_deref().and_then(|text| Uuid::try_parse(text).ok());
    let host =
        found.and_then(|machine| app.directory.machines.find_any(&caller, machine)).map(|one| one.host);
    let ended = view.session.ended;
    // An open terminal knows a newer count than the log.
    let open = app.terminals.terminal(session).filter(|_| ended.is_none());
    let commands = open.map_or(view.session.total.requests, |terminal| terminal.commands());
    Ok(Json(Success::of(Detail {
        id: id("sess", view.session.id),
        user: UserWithEmail { id: named.user.id, name: named.user.name, email: named.email },
        machine: MachineWithHost { id: machine.id, name: machine.name, host },
        status: status(&view),
        started_at: seconds(view.session.connected_at),
        last_activity: seconds(view.last_active_at),
        ip_address: view.detail.ip,
        user_agent: view.detail.user_agent,
        commands_count: commands,
        ended_at: ended.map(|ended| seconds(ended.at)),
        ended_reason: ended.map(|ended| ended.reason.word()),
        ended_message: view.session.message,
    })))
}

/// Statistics of a period that ends now.
#[derive(Serialize, ToSchema)]
#[schema(as = TerminalStatistics)]
pub struct Statistics {
    /// Sessions that were open at some time in it.
    total_sessions: u64,
    /// Those that are now.
    active_sessions: u64,
    /// Their time within the period, together.
    total_duration_hours: f64,
    unique_users: u64,
    /// The most used ones first.
    top_machines: Vec<TopMachine>,
}

#[derive(Serialize, ToSchema)]
pub struct TopMachine {
    machine_id: String,
    name: String,
    sessions_count: u64,
}

/// Which period.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct PeriodParameters {
    /// `day`, `week` or `month`: the last 24 hours, 7 days or 30 days.
    #[param(value_type = PeriodWord, required = false)]
    period: Option<String>,
}

/// How far statistics look back.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = TerminalPeriod)]
pub enum PeriodWord {
    Day,
    Week,
    Month,
}

/// Statistics
///
/// Of the organization; whoever acts for a person gets figures of that person's sessions.
#[utoipa::path(get, path = "/v1/sessions/stats", operation_id = "terminals.statistics", tag = "terminals",
    security(("terminalKey" = [])), params(PeriodParameters),
    responses(
        (status = 200, description = "The figures.", body = Success<Statistics>),
    ))]
pub async fn statistics(
    User(caller): User,
    Query(parameters): Query<PeriodParameters>,
    State(app): State<App>,
) -> Result<Json<Success<Statistics>>, Problem> {
    let days = match parameters.period.as_deref().map(read_word) {
        Some(Some(PeriodWord::Day)) => 1,
        Some(Some(PeriodWord::Week)) => 7,
        None | Some(Some(PeriodWord::Month)) => 30,
        Some(None) => return Err(Problem::invalid("period", "period must be day, week or month")),
    };
    let since = app.clock.now() - TimeDelta::days(days);
    let usage = app.sessions.terminals.usage(&caller, since, TOP).await?;
    let machines = usage.machines.into_iter().map(|one| {
        let MachineName { id, name } = machine_name(&app, &caller, Some(&one.machine));
        TopMachine { machine_id: id, name, sessions_count: one.sessions }
    });
    Ok(Json(Success::of(Statistics {
        total_sessions: usage.sessions,
        active_sessions: usage.active,
        total_duration_hours: (usage.seconds / 36.0).round() / 100.0,
        unique_users: usage.users,
        top_machines: machines.collect(),
    })))
}
