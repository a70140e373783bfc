//! The application, as far as sessions go: a struct a subject, over one context. Surfaces talk to these and to the
//! directory's, and to nothing below.

mod access;
mod admission;
mod as_of;
mod bar;
mod bars;
mod by_number;
mod connect;
mod gateway_sessions;
mod history;
mod idempotency;
mod job_status;
mod lifecycle;
mod list;
mod maintenance;
mod media;
mod media_throughput;
mod parts;
mod queries;
mod query;
mod revocation_worker;
mod revocations;
mod schedules;
mod search;
mod terminal_sessions;
mod traffic;
mod view;
mod word_query;
mod workloads;

use std::sync::Arc;

pub use admission::{Admission, Registration};
pub use as_of::AsOf;
pub use bar::{BarTerms, WouldBar};
pub use bars::{BarShown, Bars, Whom};
pub use connect::{AGENT_SCOPES, LARGEST_CLIENT_INFO, NewSession, Opened};
pub use gateway_sessions::GatewaySessions;
pub use history::{EventQuery, Events, NamedEvent};
pub use idempotency::Idempotency;
pub use job_status::{Job, JobStatus};
pub use lifecycle::Lifecycle;
pub use list::{Counts as StatusCounts, ListQuery, Page, Walk};
pub use maintenance::{DeadlinesMet, Maintenance};
pub use media::{LiveSession, MediaSessions};
pub use media_throughput::Point;
pub use queries::Queries;
pub use query::{SessionQuery, Sort};
pub use revocations::{Preview, Progress, Revocations, Revoked};
pub use schedules::{NewSchedule, Scheduled, Schedules};
pub use terminal_sessions::{MachineUse, TerminalSessions, Usage};
pub use traffic::Traffic;
pub use view::View;
pub use word_query::WordQuery;
pub use workloads::{WorkEnd, WorkView, Workloads};

use crate::context::AppContext;

/// Longest text a client may give for anything about a session; longer is refused, never cut.
pub const LONGEST: usize = 1_024;

/// The subjects, for whoever needs several of them. Each is cheap to clone, for whoever needs one.
pub struct Sessions {
    /// Connecting, staying alive, ending.
    pub lifecycle: Lifecycle,
    /// Who may go on, and what is told when it may not.
    pub admission: Admission,
    /// Finding, listing, counting; what happened.
    pub queries: Queries,
    pub revocations: Revocations,
    /// Who is kept out.
    pub bars: Bars,
    pub schedules: Schedules,
    /// Traffic that is not in the log yet.
    pub traffic: Traffic,
    pub gateway: GatewaySessions,
    pub media: MediaSessions,
    pub workloads: Workloads,
    pub terminals: TerminalSessions,
    /// Requests that take effect once.
    pub idempotency: Idempotency,
    /// What the clock demands, and what keeps the database in order.
    pub maintenance: Maintenance,
}

impl Sessions {
    pub fn new(context: &Arc<AppContext>) -> Self {
        let traffic = Traffic::new(context.clone());
        let lifecycle = Lifecycle::new(context.clone(), traffic.clone());
        let queries = Queries::new(context.clone());
        let revocations = Revocations::new(context.clone(), queries.clone(), traffic.clone());
        Self {
            admission: Admission::new(context.clone()),
            bars: Bars::new(context.clone(), revocations.clone()),
            schedules: Schedules::new(context.clone(), revocations.clone(), traffic.clone()),
            gateway: GatewaySessions::new(context.clone()),
            media: MediaSessions::new(context.clone()),
            workloads: Workloads::new(context.clone(), queries.clone()),
            terminals: TerminalSessions::new(context.clone()),
            idempotency: Idempotency::new(context.clone()),
            maintenance: Maintenance::new(context.clone(), traffic.clone()),
            lifecycle,
            queries,
            revocations,
            traffic,
        }
    }
}
