//! Which sessions a caller asks for, in the public ids of the outside, and in what order.

use sessiond_core::Time;
use sessiond_core::caller::Caller;
use sessiond_core::filter::Filter;
use sessiond_core::ids::{PrincipalNumber, SessionNumber};
use sessiond_core::kind::Kind;
use sessiond_core::phase::Stage;
use sessiond_core::relation::Acquaintance;
use sessiond_core::scope::Scope;
use sessiond_core::status::DerivedStatus;
use uuid::Uuid;

use crate::context::AppContext;
use crate::error::{Error, Thing};
use crate::gate::Order;

/// The filter as it is asked for; lists, counts and revocations share it.
#[derive(Debug, Clone, Default)]
pub struct SessionQuery {
    /// The application to look in; all of the organization if absent.
    pub application: Option<Uuid>,
    /// The applications to look in; empty means any at all.
    pub applications: Vec<Uuid>,
    pub session: Option<Uuid>,
    pub principal: Option<Uuid>,
    /// The principals whom their issuers call so, or whose e-mail address this is.
    pub called: Option<String>,
    /// Any of these principals; empty means any at all.
    pub principals: Vec<Uuid>,
    pub kind: Option<Kind>,
    pub hostname: Option<String>,
    pub client: Option<String>,
    /// The thing within their application that they are connected to.
    pub resource: Option<String>,
    /// Any of these; empty means any at all.
    pub stage: Vec<Stage>,
    /// Any of these; empty means any at all.
    pub status: Vec<DerivedStatus>,
    pub connected_after: Option<Time>,
    pub connected_before: Option<Time>,
    pub last_active_after: Option<Time>,
    pub last_active_before: Option<Time>,
    /// Sessions that are left out.
    pub except: Vec<Uuid>,
    /// Leaves out work that was ended from outside after this instant and is not yet known to have ended where it ran.
    pub settled_by: Option<Time>,
}

/// The order of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sort {
    pub by: Order,
    pub descending: bool,
}

impl Default for Sort {
    fn default() -> Self {
        Self { by: Order::Connected, descending: true }
    }
}

/// A number that no principal has.
const NOBODY: PrincipalNumber = PrincipalNumber(-1);
/// Most principals that one subject or e-mail address may stand for.
const MOST_CALLED: u32 = 100;

impl AppContext {
    /// Turns a query into a filter, in our own numbers. An application that the caller may not know of is not found; a
    /// principal that is unknown has no sessions.
    pub(super) async fn filter(&self, caller: &Caller, query: &SessionQuery) -> Result<Filter, Error> {
        let application = match query.application {
            Some(id) => Some(self.application_number(caller, id)?),
            None => caller.confined_to,
        };
        let mut applications = Vec::with_capacity(query.applications.len());
        for id in &query.applications {
            applications.push(self.application_number(caller, *id)?);
        }
        let session = match query.session {
            Some(id) => Some(self.session_number(caller, id).await?.ok_or(Error::NotFound(Thing::Session))?),
            None => None,
        };
        let mut except = Vec::with_capacity(query.except.len());
        for id in &query.except {
            let number = self.session_number(caller, *id).await?;
            let message = || format!("there is no session {id}; nothing was done");
            except.push(number.ok_or_else(|| Error::field("except", message()))?);
        }
        let mut principals = self.principals_meant(caller, query).await?;
        let principal = if principals.len() == 1 { principals.pop() } else { None };
        Ok(Filter {
            application,
            applications,
            session,
            principal,
            principals,
            kind: query.kind,
            hostname: query.hostname.clone(),
            client: query.client.clone(),
            resource: query.resource.clone(),
            stage: query.stage.clone(),
            status: query.status.clone(),
            connected_after: query.connected_after,
            connected_before: query.connected_before,
            last_active_after: query.last_active_after,
            last_active_before: query.last_active_before,
            except,
            settled_by: query.settled_by,
        })
    }

    /// The principals that a query names, in whichever way; none where it names none, and nobody where there are none.
    async fn principals_meant(
        &self,
        caller: &Caller,
        query: &SessionQuery,
    ) -> Result<Vec<PrincipalNumber>, Error> {
        if let Some(called) = &query.called {
            let found = self.principals_called(caller, called).await?;
            return Ok(if found.is_empty() { vec![NOBODY] } else { found });
        }
        let known = self.gate.known();
        let number = |id: &Uuid| known.principal_by_id(caller.organization, *id).unwrap_or(NOBODY);
        Ok(query.principal.iter().chain(&query.principals).map(number).collect())
    }

    /// The principals whom their issuers call so, or whose e-mail address this is: to ask is to learn whose it is, which is
    /// for those who may read principals.
    pub(super) async fn principals_called(
        &self,
        caller: &Caller,
        called: &str,
    ) -> Result<Vec<PrincipalNumber>, Error> {
        if caller.acquaintance() != Acquaintance::Everybody {
            return Err(Error::Forbidden { missing: Scope::ManagementAll.word().to_owned() });
        }
        let found = self.store.principals_called(caller.organization, called, MOST_CALLED + 1).await?;
        if found.len() > MOST_CALLED as usize {
            let message = format!("more than {MOST_CALLED} principals are called so: name them by id");
            return Err(Error::field("principal", message));
        }
        Ok(found)
    }

    /// Turns a filter back into a query, in public ids.
    pub(super) async fn query_of(&self, filter: &Filter) -> Result<SessionQuery, Error> {
        let sessions: Vec<_> = filter.session.into_iter().chain(filter.except.iter().copied()).collect();
        let rows = self.store.sessions(&sessions).await?;
        let id = |number: &SessionNumber| {
            rows.iter().find(|row| row.session.number == *number).map(|row| row.session.id)
        };
        let known = self.gate.known();
        Ok(SessionQuery {
            application: filter.application.map(|number| known.application_id(number)),
            applications: filter.applications.iter().map(|number| known.application_id(*number)).collect(),
            session: filter.session.as_ref().and_then(id),
            principal: filter.principal.map(|number| known.principal_id(number)),
            called: None,
            principals: filter.principals.iter().map(|number| known.principal_id(*number)).collect(),
            kind: filter.kind,
            hostname: filter.hostname.clone(),
            client: filter.client.clone(),
            resource: filter.resource.clone(),
            stage: filter.stage.clone(),
            status: filter.status.clone(),
            connected_after: filter.connected_after,
            connected_before: filter.connected_before,
            last_active_after: filter.last_active_after,
            last_active_before: filter.last_active_before,
            except: filter.except.iter().filter_map(id).collect(),
            settled_by: None,
        })
    }
}
