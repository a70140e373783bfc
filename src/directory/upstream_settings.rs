//! Upstreams: the MCP servers behind applications' gateways, how the gateway authenticates there, and whose tokens open
//! it.

use std::sync::Arc;
use std::time::Duration;

use sessiond_core::application::{Application, UpstreamCredential, UpstreamHeaders, UpstreamSet};
use sessiond_core::caller::Caller;
use sessiond_core::ids::{ApplicationNumber, Position};
use sessiond_core::organization::{Issuer, Organization};
use sessiond_core::scope::Scope;
use uuid::Uuid;

use crate::committer::SetUpstream;
use crate::context::AppContext;
use crate::error::Error;
use crate::secret::labels;

/// The longest time between a commit and what memory knows of it.
const SETTLED: Duration = Duration::from_millis(20);

/// The MCP server that is to be behind a gateway. URL and credential have been checked by the gateway's rules.
pub struct NewUpstream {
    pub url: String,
    /// How to authenticate there, and the secret that belongs to it.
    pub credential: Option<(UpstreamCredential, String)>,
    /// Which headers pass beside those that always do.
    pub headers: Option<UpstreamHeaders>,
}

/// How the gateway authenticates at an upstream. Never shown: it has no `Debug`.
#[derive(Clone, PartialEq)]
pub struct UpstreamSecret {
    pub credential: UpstreamCredential,
    pub secret: String,
}

/// Returns the upstream as it was set, if it has this URL.
fn set_at(application: &Application, url: &str) -> Option<UpstreamSet> {
    labels::upstream_set(application).filter(|set| set.url == url)
}

/// The MCP servers behind applications' gateways, and how the gateway authenticates there.
#[derive(Clone)]
pub struct UpstreamSettings {
    context: Arc<AppContext>,
}

impl UpstreamSettings {
    pub(super) fn new(context: Arc<AppContext>) -> Self {
        Self { context }
    }

    /// Names the MCP server behind an application's gateway, and how to authenticate there: all of it anew.
    pub async fn set(&self, caller: &Caller, id: Uuid, new: NewUpstream) -> Result<Application, Error> {
        let application = self.context.application(caller, id)?;
        let (credential, secret) = new.credential.unzip();
        let set = UpstreamSet { url: new.url, credential, headers: new.headers };
        let sealed = secret
            .map(|secret| self.context.key.seal(&labels::upstream(application.id, &set), secret.as_bytes()));
        self.context.submit(caller, SetUpstream { number: application.number, set, sealed }).await
    }

    /// Whether an application is of the organization whose installation this is.
    pub fn is_operators(&self, number: ApplicationNumber) -> bool {
        self.context
            .gate
            .known()
            .stream::<Application>(number)
            .is_some_and(|one| one.organization.is_operators())
    }

    /// Lists which of an upstream's headers pass to clients beside those that always do.
    pub fn passes_to_client(&self, number: ApplicationNumber) -> Vec<String> {
        let known = self.context.gate.known();
        let headers = known.stream::<Application>(number).and_then(|one| one.upstream_headers.as_ref());
        headers.map(|headers| headers.to_client.clone()).unwrap_or_default()
    }

    /// Returns as of which event an application authenticates at this URL; `None` if it does not, or its upstream is another.
    /// This runs for every request that goes there.
    pub fn authenticates_at(&self, number: ApplicationNumber, url: &str) -> Option<Position> {
        let known = self.context.gate.known();
        let application = known.stream::<Application>(number).filter(|one| one.archived_at.is_none())?;
        application.upstream_credential.as_ref()?;
        (application.upstream.as_deref() == Some(url)).then_some(application.head.position)
    }

    /// Returns how it authenticates there, with the secret.
    pub async fn secret(
        &self,
        number: ApplicationNumber,
        url: &str,
    ) -> Result<Option<UpstreamSecret>, Error> {
        match self.open_secret(number, url).await {
            // The row may be newer than what memory knew; after a moment both are alike.
            Err(_) => {
                tokio::time::sleep(SETTLED).await;
                self.open_secret(number, url).await
            }
            found => found,
        }
    }

    async fn open_secret(
        &self,
        number: ApplicationNumber,
        url: &str,
    ) -> Result<Option<UpstreamSecret>, Error> {
        let found = {
            let known = self.context.gate.known();
            known.stream::<Application>(number).and_then(|one| Some((one.id, set_at(one, url)?)))
        };
        let Some((id, set)) = found else { return Ok(None) };
        let label = labels::upstream(id, &set);
        let Some(credential) = set.credential else { return Ok(None) };
        let sealed = self.context.store.upstream_secret(number).await?;
        let sealed = sealed.ok_or_else(|| Error::Internal("an upstream's secret is missing".to_owned()))?;
        let opened =
            self.context.key.open(&label, &sealed).map_err(|error| Error::Internal(error.to_string()))?;
        let secret = String::from_utf8(opened).map_err(|error| Error::Internal(error.to_string()))?;
        Ok(Some(UpstreamSecret { credential, secret }))
    }

    /// Lists the issuers whose tokens can open an application's gateway, beside ours. There is none if there is no such
    /// application.
    pub fn gateway_issuers(&self, application: Uuid) -> Vec<String> {
        let known = self.context.gate.known();
        let found = known.application(application).filter(|one| one.archived_at.is_none());
        let Some(application) = found else { return vec![] };
        let Some(organization) = known.stream::<Organization>(application.organization) else {
            return vec![];
        };
        let opens = |one: &&Issuer| {
            one.scopes.iter().any(|word| word == Scope::McpInvoke.word())
                && one.application.is_none_or(|only| only == application.number)
        };
        let mut issuers: Vec<_> =
            organization.issuers.iter().filter(opens).map(|one| one.issuer.clone()).collect();
        // An issuer may be trusted for several audiences.
        issuers.sort_unstable();
        issuers.dedup();
        issuers
    }
}
