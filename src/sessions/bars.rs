//! Bars: placed, looked at, lifted. One is placed by a revocation, which ends what there is in the same step.

use std::sync::Arc;

use sessiond_core::actor::Actor;
use sessiond_core::api_key::ApiKey;
use sessiond_core::bar::{Bar, BarEvent, Barred, BarredClient};
use sessiond_core::caller::Caller;
use sessiond_core::filter::Filter;
use sessiond_core::ids::PrincipalNumber;
use sessiond_core::principal::CLIENTS_THEMSELVES;
use uuid::Uuid;

use super::bar::confined;
use super::revocations::nobody_called;
use super::{BarTerms, Revocations, Revoked};
use crate::committer::IntroducePrincipal;
use crate::context::AppContext;
use crate::error::{Error, Thing};
use crate::telling::PersonNamed;

/// Whom to bar.
#[derive(Debug, Clone)]
pub enum Whom {
    Principal(Uuid),
    /// A principal by its subject or e-mail address, if that is one's alone.
    Called(String),
    /// An OAuth client by its client id.
    Client(String),
}

/// A bar as it is shown.
pub struct BarShown {
    pub bar: Bar,
    pub stands: bool,
    pub principal: PersonNamed,
    /// The OAuth client or API key that the principal is by itself.
    pub client: Option<String>,
    /// Who placed it, with what that one is called.
    pub actor: Actor,
    pub actor_name: Option<String>,
    pub revocation: Option<Uuid>,
}

/// Bars of an organization.
#[derive(Clone)]
pub struct Bars {
    context: Arc<AppContext>,
    revocations: Revocations,
}

impl Bars {
    pub(super) fn new(context: Arc<AppContext>, revocations: Revocations) -> Self {
        Self { context, revocations }
    }

    /// Keeps somebody out, and ends everything that one has. Returns the bar and what ending came to.
    pub async fn place(
        &self,
        caller: &Caller,
        whom: &Whom,
        terms: BarTerms,
        note: Option<String>,
    ) -> Result<(BarShown, Revoked), Error> {
        self.check_whole_organization(caller)?;
        let principal = self.principal(caller, whom).await?;
        let filter = Filter { principal: Some(principal), ..Filter::default() };
        let revoked = self.revocations.keep_out(caller, filter, terms, note).await?;
        let id = revoked.id.unwrap_or_default();
        let number = self.context.store.revocation_by_id(id).await?.map(|revocation| revocation.number);
        let bar = {
            let known = self.context.gate.known();
            let on = known.bars_on(Barred::Principal(principal)).filter_map(|one| known.stream::<Bar>(one));
            on.filter(|bar| Some(bar.revocation) == number).last().cloned()
        };
        let bar = bar.ok_or(Error::NotFound(Thing::Bar))?;
        let shown = self.shown(caller, vec![bar]).await?.pop();
        Ok((shown.ok_or(Error::NotFound(Thing::Bar))?, revoked))
    }

    /// Finds a bar.
    pub async fn find(&self, caller: &Caller, id: Uuid) -> Result<BarShown, Error> {
        let bar = self.own(caller, id)?;
        self.shown(caller, vec![bar]).await?.pop().ok_or(Error::NotFound(Thing::Bar))
    }

    /// Lists the organization's bars, newest first, after one of them; with `standing` those alone that keep somebody out now.
    /// Tells whether there are more.
    pub async fn list(
        &self,
        caller: &Caller,
        standing: bool,
        after: Option<Uuid>,
        limit: u32,
    ) -> Result<(Vec<BarShown>, bool), Error> {
        self.check_whole_organization(caller)?;
        let now = self.context.clock.now();
        let page: Vec<Bar> = {
            let known = self.context.gate.known();
            let before = match after {
                Some(id) => {
                    let bar = known.stream_by_id::<Bar>(id);
                    let own = bar.filter(|bar| bar.organization == caller.organization);
                    own.ok_or_else(Error::foreign_cursor)?.number
                }
                None => i64::MAX,
            };
            let own = known.streams::<Bar>().rev().filter(|bar| {
                bar.organization == caller.organization
                    && bar.number < before
                    && (!standing || bar.stands(now))
            });
            own.take(limit as usize + 1).cloned().collect()
        };
        let more = page.len() > limit as usize;
        let page = page.into_iter().take(limit as usize).collect();
        Ok((self.shown(caller, page).await?, more))
    }

    /// Lifts a bar: whom it kept out may authenticate anew. Lifting twice is success.
    pub async fn lift(&self, caller: &Caller, id: Uuid) -> Result<BarShown, Error> {
        self.check_whole_organization(caller)?;
        let bar = self.own(caller, id)?;
        // It gives back what the bar took.
        let rights = {
            let known = self.context.gate.known();
            let keys = known.rights_of_keys(bar.principal);
            bar.client.map_or(keys, |client| {
                known.rights_of(client).iter().fold(keys, |rights, scope| rights.with(scope))
            })
        };
        Error::unless_may_give(caller.scopes, rights)?;
        self.context.change_stream::<Bar>(caller, Some(bar.number), BarEvent::Lifted, vec![]).await?;
        self.find(caller, id).await
    }

    fn own(&self, caller: &Caller, id: Uuid) -> Result<Bar, Error> {
        self.check_whole_organization(caller)?;
        let known = self.context.gate.known();
        let bar = known.stream_by_id::<Bar>(id).filter(|bar| bar.organization == caller.organization);
        bar.cloned().ok_or(Error::NotFound(Thing::Bar))
    }

    /// A bar holds in the whole organization.
    fn check_whole_organization(&self, caller: &Caller) -> Result<(), Error> {
        if caller.confined_to.is_some() { Err(confined()) } else { Ok(()) }
    }

    /// The number of whom a bar is to keep out. A client that never acted for itself is met.
    async fn principal(&self, caller: &Caller, whom: &Whom) -> Result<PrincipalNumber, Error> {
        let client_id = match whom {
            Whom::Principal(id) => {
                let number = self.context.gate.known().principal_by_id(caller.organization, *id);
                return number.ok_or(Error::NotFound(Thing::Principal));
            }
            Whom::Called(called) => {
                return match self.context.principals_called(caller, called).await?.as_slice() {
                    [one] => Ok(*one),
                    [] => Err(nobody_called(called)),
                    _ => Err(Error::field(
                        "principal",
                        format!("several are called {called:?}: name one by its id"),
                    )),
                };
            }
            Whom::Client(client_id) => client_id,
        };
        let own = {
            let known = self.context.gate.known();
            let client = known.oauth_client(client_id);
            client.is_some_and(|client| known.organization_of(client) == Some(caller.organization))
        };
        if !own {
            let message = format!("there is no OAuth client {client_id:?}; nothing was done");
            return Err(Error::field("clientId", message));
        }
        let (issuer, subject) = (CLIENTS_THEMSELVES.to_owned(), client_id.clone());
        let subject_digest = self.context.key.subject_digest(&issuer, &subject);
        let (organization, name, email) = (caller.organization, None, None);
        let introduction = IntroducePrincipal { organization, issuer, subject, subject_digest, name, email };
        self.context.introduce(introduction).await
    }

    /// Adds to bars who is who.
    async fn shown(&self, caller: &Caller, bars: Vec<Bar>) -> Result<Vec<BarShown>, Error> {
        let (telling, reader, now) = (&self.context.telling, caller.acquaintance(), self.context.clock.now());
        let revocations: Vec<_> = bars.iter().map(|bar| bar.revocation).collect();
        let began = telling.beginnings(&revocations).await?;
        let actors: Vec<_> = began.values().map(|(actor, _)| *actor).collect();
        let principals = bars.iter().map(|bar| bar.principal);
        let told = telling.actors(caller.organization, &actors, principals).await?;
        let shown = bars.into_iter().map(|bar| {
            let (actor, id) = began.get(&bar.revocation).map(|(actor, began)| (*actor, began.id)).unzip();
            let actor = actor.unwrap_or(Actor::SYSTEM);
            BarShown {
                stands: bar.stands(now),
                principal: telling.principal(bar.principal, &told, reader),
                client: bar.client.and_then(|client| self.client_word(client)),
                actor_name: telling.actor_name((caller.organization, actor), &told, reader),
                actor,
                revocation: id,
                bar,
            }
        });
        Ok(shown.collect())
    }

    /// What a client that acts for itself is called by: its client id, or the id of the API key.
    fn client_word(&self, client: BarredClient) -> Option<String> {
        let known = self.context.gate.known();
        match client {
            BarredClient::ApiKey(number) => known.stream::<ApiKey>(number).map(|key| key.id.to_string()),
            client => known.client_id_of(client.stored()),
        }
    }
}
