//! The workload surface: people at web applications and queued work, reported by the portals and clusters that run them.
//! Here is what its parts share: how a session is shown, in the words and states of this surface.

mod document;
mod end;
mod key;
mod lines;
mod list;
mod logs;
mod read;
mod report;
mod surface;

pub use end::*;
pub use lines::*;
pub use list::*;
pub use logs::*;
pub use read::*;
pub use report::*;
pub use surface::surface;

use std::time::Duration;

use axum::Json;
use chrono::TimeDelta;
use serde::Serialize;
use serde_json::Value;
use uuid::Uuid;

use super::problem::Problem;
use super::{App, time};
use crate::sessions::WorkView;
use sessiond_core::Time;
use sessiond_core::caller::Caller;
use sessiond_core::kind::Kind;
use sessiond_core::phase::Stage;
use sessiond_core::reason::Reason;
use sessiond_core::relation::Way;
use sessiond_core::session::ended::Ended;

/// A WebUI or task session.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct WorkloadSession {
    /// 32 hexadecimal digits.
    #[schema(example = "68ce8ce7c4a6fd1afa97672e7080d645")]
    pub id: String,
    /// `webui` or `task`.
    pub kind: &'static str,
    /// Of a WebUI session `Running` or `Terminated`. Of a task `queued`, `launching`, `running`, `finished`, `failed`,
    /// `crashed` or `terminated`; one that was ended from outside keeps the state it had until its cluster says that it is
    /// over, or a grace period has passed.
    pub state: &'static str,
    #[schema(format = DateTime)]
    pub created_at: String,
    /// The last sign of life.
    #[schema(format = DateTime)]
    pub last_active_at: String,
    /// When a task ended; null while it has not, and always of a WebUI session.
    #[schema(required = true, format = DateTime)]
    pub ended_at: Option<String>,
    /// What was said of a task's end; empty while it has not ended, and always of a WebUI session.
    pub message: String,
    pub app: WorkloadApp,
    /// Whom it belongs to; null where nobody was named, or the person was erased.
    #[schema(required = true)]
    pub owner: Option<String>,
    #[schema(required = true)]
    pub environment: Option<String>,
    #[schema(required = true)]
    pub description: Option<String>,
    /// The machine it runs on, as far as it was said.
    #[schema(required = true)]
    pub hostname: Option<String>,
}

/// Of which application a session is.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct WorkloadApp {
    pub name: String,
    #[schema(required = true)]
    pub version: Option<String>,
}

/// The state of a session as this surface shows it.
enum Standing {
    Open(Stage),
    /// The session was ended from outside, and those who run it have not yet said that they know.
    Dying(Stage),
    Over(Ended),
}

impl Standing {
    fn of(one: &WorkView, now: Time, grace: Duration) -> Self {
        let session = &one.view.session;
        let open = Stage::open(session.phase);
        match session.over(now) {
            None => Self::Open(open),
            Some(ended) => {
                let known = one.confirmed || ended.known_by(settled_by(now, grace));
                if session.kind == Kind::Task && !known { Self::Dying(open) } else { Self::Over(ended) }
            }
        }
    }

    fn stage(&self) -> Stage {
        match self {
            Self::Open(stage) | Self::Dying(stage) => *stage,
            Self::Over(ended) => Stage::ended(ended.outcome),
        }
    }
}

/// The instant up to which ends are shown even if those who run the work have not confirmed them.
fn settled_by(now: Time, grace: Duration) -> Time {
    TimeDelta::from_std(grace).ok().and_then(|grace| now.checked_sub_signed(grace)).unwrap_or(now)
}

/// A session as this surface shows it.
fn shown(one: WorkView, now: Time, grace: Duration) -> WorkloadSession {
    let standing = Standing::of(&one, now, grace);
    let WorkView { view, application, owner, said, note, .. } = one;
    let task = view.session.kind == Kind::Task;
    let ended = match standing {
        Standing::Over(ended) if task => Some(ended),
        _ => None,
    };
    let info: Option<Value> =
        view.detail.client_info.as_deref().and_then(|text| serde_json::from_str(text).ok());
    let told = |name: &str| info.as_ref()?.get(name)?.as_str().map(str::to_owned);
    WorkloadSession {
        id: view.session.id.simple().to_string(),
        kind: view.session.kind.word(),
        state: state(view.session.kind, standing.stage()),
        created_at: time(view.session.connected_at),
        last_active_at: time(view.last_active_at),
        ended_at: ended.map(|ended| time(ended.at)),
        message: ended.map_or_else(String::new, |ended| {
            let own = if ended.outcome.is_some() { view.session.message.clone() } else { said };
            own.unwrap_or_else(|| sentence(ended, note.as_deref()))
        }),
        app: WorkloadApp { name: application, version: view.session.resource },
        owner,
        environment: told("environment"),
        description: told("description"),
        hostname: view.detail.hostname,
    }
}

/// Sessions as this surface shows them.
fn shown_all(app: &App, all: Vec<WorkView>) -> Vec<WorkloadSession> {
    let (now, grace) = (app.clock.now(), app.config.workload_grace);
    all.into_iter().map(|one| shown(one, now, grace)).collect()
}

/// One session, as it is now.
async fn show(app: &App, caller: &Caller, way: Way, id: Uuid) -> Result<Json<WorkloadSession>, Problem> {
    let one = app.sessions.workloads.view(caller, way, id).await?;
    Ok(Json(shown(one, app.clock.now(), app.config.workload_grace)))
}

/// The way to sessions of this kind.
fn way_to(kind: Kind) -> Way {
    if kind == Kind::Task { Way::Task } else { Way::Webui }
}

/// The word for a state, of which WebUI sessions have only two.
fn state(kind: Kind, stage: Stage) -> &'static str {
    match kind {
        Kind::Task => stage.word(),
        _ if stage.is_over() => "Terminated",
        _ => "Running",
    }
}

/// The message for an end of which nobody said anything.
fn sentence(ended: Ended, note: Option<&str>) -> String {
    let why = match ended.reason {
        Reason::Exited => return String::new(),
        Reason::Failed => "The work failed",
        Reason::Client => "Ended by whoever opened it",
        Reason::Terminated => "Terminated on request",
        Reason::Revoked => "Revoked by an operator",
        Reason::Archived => "Its application was archived",
        Reason::Stale => "Nothing was heard of it for too long",
        Reason::Idle => "It was idle for too long",
        Reason::Lifetime => "It reached the end of its lifetime",
        Reason::Evicted => "Ended to make room for another session",
        Reason::Superseded => "Another session took its place",
        Reason::UpstreamLost | Reason::MachineLost => "What it ran on is gone",
    };
    match note {
        Some(note) => format!("{why}: {note}"),
        None => why.to_owned(),
    }
}
