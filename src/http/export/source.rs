//! What is exported, in pages.

use serde_json::Value;
use sessiond_core::caller::Caller;
use sessiond_core::ids::Position;
use uuid::Uuid;

use crate::error::Error;
use crate::http::agents::Session;
use crate::http::history::recorded;
use crate::sessions::{EventQuery, Events, ListQuery, Queries};

/// Sessions or events that are read at a time.
const PAGE: u32 = 1_000;

/// A page of what is exported, each as its list shows it.
pub enum Page {
    Sessions(Vec<Session>),
    Events(Vec<Value>),
}

/// What is read, and how far that has come.
pub struct Source {
    queries: Queries,
    caller: Caller,
    what: What,
    /// The log position when it began; none before the first page.
    began: Option<Position>,
    /// The log position that the page was true at.
    position: Position,
    done: bool,
}

enum What {
    Sessions(Box<ListQuery>),
    Events(EventQuery),
    History { application: Uuid, session: Uuid, activity: bool, before: Option<Position> },
}

/// Columns of a table of sessions: each by its name, and where it is in what a list shows.
const SESSION: &[(&str, &str)] = &[
    ("id", "/id"),
    ("name", "/name"),
    ("kind", "/kind"),
    ("resource", "/resource"),
    ("status", "/status"),
    ("derivedStatus", "/derivedStatus"),
    ("connectedAt", "/connectedAt"),
    ("lastActiveAt", "/lastActiveAt"),
    ("tokenExpiresAt", "/tokenExpiresAt"),
    ("disconnectedAt", "/disconnectedAt"),
    ("disconnectReason", "/disconnectReason"),
    ("endReason", "/endReason"),
    ("endedByKind", "/endedBy/kind"),
    ("endedById", "/endedBy/id"),
    ("applicationId", "/agentId"),
    ("organizationId", "/organizationId"),
    ("principalId", "/principalId"),
    ("principalName", "/principal/name"),
    ("principalEmail", "/principal/email"),
    ("hostname", "/hostname"),
    ("userAgent", "/userAgent"),
    ("client", "/client"),
    ("clientInfo", "/clientInfo"),
    ("suspended", "/suspended"),
    ("requests", "/activity/requests"),
    ("bytesIn", "/activity/bytesIn"),
    ("bytesOut", "/activity/bytesOut"),
];

/// Columns of a table of events; the last has the event whole, as JSON.
const EVENT: &[(&str, &str)] = &[
    ("position", "/position"),
    ("type", "/type"),
    ("occurredAt", "/occurredAt"),
    ("recordedAt", "/recordedAt"),
    ("applicationId", "/applicationId"),
    ("sessionId", "/sessionId"),
    ("revocationId", "/revocationId"),
    ("actorKind", "/actor/kind"),
    ("actorId", "/actor/id"),
    ("reason", "/reason"),
    ("version", "/version"),
    ("hash", "/hash"),
    ("event", ""),
];

impl Source {
    pub fn sessions(queries: Queries, caller: Caller, query: ListQuery) -> Self {
        Self::of(queries, caller, What::Sessions(Box::new(ListQuery { limit: PAGE, ..query })))
    }

    pub fn events(queries: Queries, caller: Caller, query: EventQuery) -> Self {
        Self::of(queries, caller, What::Events(EventQuery { limit: PAGE, ..query }))
    }

    pub fn history(
        queries: Queries,
        caller: Caller,
        (application, session): (Uuid, Uuid),
        activity: bool,
        before: Option<Position>,
    ) -> Self {
        Self::of(queries, caller, What::History { application, session, activity, before })
    }

    fn of(queries: Queries, caller: Caller, what: What) -> Self {
        Self { queries, caller, what, began: None, position: Position(0), done: false }
    }

    /// The columns that what it has makes in a table.
    pub fn columns(&self) -> &'static [(&'static str, &'static str)] {
        match self.what {
            What::Sessions(_) => SESSION,
            What::Events(_) | What::History { .. } => EVENT,
        }
    }

    /// The log position of what was read so far: where it began, because what came after that is left out.
    pub fn position(&self) -> Position {
        self.began.unwrap_or(self.position)
    }

    /// The next page; none when there are no more. A page may be empty.
    pub async fn next(&mut self) -> Result<Option<Page>, Error> {
        if self.done {
            return Ok(None);
        }
        let page = match &mut self.what {
            What::Sessions(query) => {
                let page = self.queries.list(&self.caller, query).await?;
                let began = *self.began.get_or_insert(page.position);
                query.after = page.next;
                let count = page.items.len();
                let by_then = |view: &crate::sessions::View| view.session.connected_at_position <= began;
                let items: Vec<_> = page.items.into_iter().take_while(by_then).map(Session::from).collect();
                self.done = query.after.is_none() || items.len() < count;
                Page::Sessions(items)
            }
            What::Events(query) => {
                let events = self.queries.events(&self.caller, query).await?;
                let began = *self.began.get_or_insert(events.position);
                query.after = events.next;
                self.done = events.next.is_none_or(|next| next >= began);
                Page::Events(told(events, began))
            }
            What::History { application, session, activity, before } => {
                let (caller, before_now) = (&self.caller, *before);
                let found = self.queries.history(caller, *application, *session, *activity, before_now, PAGE);
                let events = found.await?;
                let began = *self.began.get_or_insert(events.position);
                *before = events.next;
                self.done = events.next.is_none();
                Page::Events(told(events, began))
            }
        };
        Ok(Some(page))
    }
}

/// Events as they are shown, without those that were recorded since it began.
fn told(events: Events, began: Position) -> Vec<Value> {
    let by_then = events.items.into_iter().filter(|(event, _)| event.entry.recorded.position <= began);
    by_then.map(recorded).collect()
}
