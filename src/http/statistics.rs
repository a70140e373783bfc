//! Statistics of an application or of the organization.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use chrono_tz::Tz;
use serde::{Deserialize, Serialize};
use sessiond_core::statistics::cell::Dimension;
use sessiond_core::statistics::histogram::{ACCURACY, Histogram};
use sessiond_core::statistics::series::{self, Series};
use sessiond_core::statistics::window::{Step, Window, begin_of};
use uuid::Uuid;

use super::extract::{CanRead, Query};
use super::filter::read_time;
use super::ids::{self, Id};
use super::problem::Problem;
use super::{App, time};
use crate::statistics::{Answered, Named, Question, ShownGroup};

/// How many groups are shown if the client does not say, and at most.
const GROUPS: usize = 10;
const MOST_GROUPS: usize = 100;

/// What is asked.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
pub struct StatisticsParameters {
    /// From when on; a day before `to` if absent. The window is made of whole steps around it.
    #[param(format = DateTime)]
    from: Option<String>,
    /// Until when; until now if absent.
    #[param(format = DateTime)]
    to: Option<String>,
    /// `15m`, `1h`, `1d`, `7d` (from Monday on) or `month`.
    step: Option<String>,
    /// `kind`, `client` (name and version), `host` or `principal`.
    by: Option<String>,
    /// Whose calendar steps go by, such as `Europe/Berlin`; `UTC` if absent.
    zone: Option<String>,
    /// Most groups to return, those with the most connects.
    #[param(value_type = Option<u32>, minimum = 1, maximum = 100)]
    groups: Option<String>,
}

/// How many were open at the same time.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = OpenSessions)]
struct Open {
    /// Null of `others`, where it is not known.
    #[schema(required = true)]
    peak: Option<i64>,
    mean: f64,
    /// At the end, or now.
    last: i64,
}

/// How long sessions lasted that ended, in seconds, each off by `lifetimeAccuracy` at most.
#[derive(Debug, Serialize, utoipa::ToSchema)]
struct Lifetimes {
    count: u64,
    #[schema(required = true)]
    median: Option<f64>,
    #[schema(required = true)]
    p95: Option<f64>,
    #[schema(required = true)]
    p99: Option<f64>,
}

/// What a step, or the whole window, came to.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = StatisticsFigures)]
struct Figures {
    /// Of a step.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, format = DateTime)]
    start: Option<String>,
    connects: u64,
    /// By reason.
    ends: BTreeMap<&'static str, u64>,
    /// Those of them without a goodbye: `stale` and `lifetime`.
    abandoned: u64,
    open: Open,
    lifetimes: Lifetimes,
    requests: u64,
    bytes_in: u64,
    bytes_out: u64,
}

/// The figures of the window, and step by step.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = StatisticsSeries)]
struct SeriesBody {
    totals: Figures,
    steps: Vec<Figures>,
}

/// A group; `name` is null where sessions have none, and where it was erased.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = StatisticsGroup)]
struct Group {
    #[schema(required = true)]
    name: Option<String>,
    /// Of a client.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    version: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    principal_id: Option<Uuid>,
    #[serde(flatten)]
    series: SeriesBody,
}

/// Statistics of a window, in whole steps.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Statistics {
    #[schema(format = DateTime)]
    from: String,
    #[schema(format = DateTime)]
    to: String,
    step: &'static str,
    zone: &'static str,
    #[serde(flatten)]
    series: SeriesBody,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    groups: Option<Vec<Group>>,
    /// All that is in no group shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    others: Option<SeriesBody>,
    lifetime_accuracy: f64,
    /// The log up to here was counted, which was all of it at `asOf`.
    position: i64,
    #[schema(format = DateTime)]
    as_of: String,
    lag_seconds: f64,
    /// Before that, some had been let go when it was counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, format = DateTime)]
    exact_since: Option<String>,
}

impl StatisticsParameters {
    fn read(&self) -> Result<Question, Problem> {
        let step = self.step.as_deref().map(|word| {
            let words = Step::ALL.map(Step::word).join(", ");
            Step::from_word(word)
                .ok_or_else(|| Problem::invalid("step", format!("step must be one of {words}")))
        });
        let by = self.by.as_deref().map(|word| match word {
            "kind" => Ok(Dimension::Kind),
            "client" => Ok(Dimension::Client),
            "host" => Ok(Dimension::Host),
            "principal" => Ok(Dimension::Principal),
            _ => Err(Problem::invalid("by", "by must be one of kind, client, host, principal")),
        });
        let zone = self.zone.as_deref().map(|name| {
            let message = "zone must be the name of a time zone, such as UTC or Europe/Berlin";
            name.parse::<Tz>().map_err(|_| Problem::invalid("zone", message))
        });
        let groups = self.groups.as_deref().map(|text| match text.parse() {
            Ok(groups @ 1..=MOST_GROUPS) => Ok(groups),
            _ => {
                let message = format!("groups must be a whole number from 1 to {MOST_GROUPS}");
                Err(Problem::invalid("groups", message))
            }
        });
        Ok(Question {
            from: read_time("from", self.from.as_deref())?,
            to: read_time("to", self.to.as_deref())?,
            step: step.transpose()?,
            zone: zone.transpose()?.unwrap_or(Tz::UTC),
            by: by.transpose()?,
            groups: groups.transpose()?.unwrap_or(GROUPS),
        })
    }
}

fn lifetimes(histogram: &Histogram) -> Lifetimes {
    let seconds = |percent| histogram.quantile(percent).map(|milliseconds| milliseconds as f64 / 1_000.0);
    Lifetimes { count: histogram.count(), median: seconds(50), p95: seconds(95), p99: seconds(99) }
}

fn figures(figures: &series::Figures, start: Option<i64>) -> Figures {
    Figures {
        start: start.map(|quarter| time(begin_of(quarter))),
        connects: figures.connects,
        ends: figures.ends.iter().map(|(reason, count)| (reason.word(), *count)).collect(),
        abandoned: figures.abandoned(),
        open: Open { peak: figures.peak, mean: figures.mean(), last: figures.last },
        lifetimes: lifetimes(&figures.lifetimes),
        requests: figures.activity.requests,
        bytes_in: figures.activity.bytes_in,
        bytes_out: figures.activity.bytes_out,
    }
}

fn shown(window: &Window, series: &Series) -> SeriesBody {
    let steps = window.steps().zip(&series.steps);
    SeriesBody {
        totals: figures(&series.total, None),
        steps: steps.map(|((start, _), step)| figures(step, Some(start))).collect(),
    }
}

fn group(window: &Window, shown_group: ShownGroup) -> Group {
    let (name, version, principal_id) = match shown_group.named {
        Named::Kind(kind) => (Some(kind.word().to_owned()), None, None),
        Named::Client { name, version } => (Some(name), version, None),
        Named::Host(host) => (Some(host), None, None),
        Named::Principal(person) => (person.name, None, Some(person.id)),
        Named::Nameless => (None, None, None),
    };
    Group { name, version, principal_id, series: shown(window, &shown_group.series) }
}

impl Statistics {
    fn of(answered: Answered, zone: Tz) -> Self {
        let window = &answered.window;
        let groups = answered.groups.map(|groups| groups.into_iter().map(|one| group(window, one)).collect());
        Self {
            from: time(begin_of(window.begin())),
            to: time(begin_of(window.end())),
            step: answered.step.word(),
            zone: zone.name(),
            series: shown(window, &answered.series),
            groups,
            others: answered.others.map(|others| shown(window, &others)),
            lifetime_accuracy: ACCURACY,
            position: answered.position.0,
            as_of: time(answered.as_of),
            lag_seconds: answered.behind.num_milliseconds() as f64 / 1_000.0,
            exact_since: answered.exact_since.map(time),
        }
    }
}

/// Get statistics of an application
///
/// By when the log learnt of it. `docs/questions.md` says what is counted how.
#[utoipa::path(get, path = "/api/v1/applications/{applicationId}/statistics", operation_id = "statistics.ofApplication",
    tag = "statistics", security(("bearer" = [])),
    params(("applicationId" = Uuid, Path, description = "The application."), StatisticsParameters),
    responses((status = 200, description = "The figures.", body = Statistics)))]
pub async fn of_application(
    CanRead(caller): CanRead,
    Id(application, ..): Id<ids::Application>,
    Query(parameters): Query<StatisticsParameters>,
    State(app): State<App>,
) -> Result<Json<Statistics>, Problem> {
    let question = parameters.read()?;
    let answered = app.statistics.ask(&caller, Some(application), &question).await?;
    Ok(Json(Statistics::of(answered, question.zone)))
}

/// Get statistics of the organization
#[utoipa::path(get, path = "/api/v1/statistics", operation_id = "statistics.get", tag = "statistics",
    security(("bearer" = [])), params(StatisticsParameters),
    responses((status = 200, description = "The figures.", body = Statistics)))]
pub async fn of_organization(
    CanRead(caller): CanRead,
    Query(parameters): Query<StatisticsParameters>,
    State(app): State<App>,
) -> Result<Json<Statistics>, Problem> {
    let question = parameters.read()?;
    let answered = app.statistics.ask(&caller, None, &question).await?;
    Ok(Json(Statistics::of(answered, question.zone)))
}
