//! Access tokens: issued to clients, and given up.

use std::sync::Arc;

use chrono::TimeDelta;
use sessiond_core::actor::ActorKind;
use sessiond_core::application::Application;
use sessiond_core::bar::{Barred, BarredClient};
use sessiond_core::caller::Caller;
use sessiond_core::ids::{ApplicationNumber, OrganizationNumber, Position};
use sessiond_core::scope::{Scope, Scopes};
use sessiond_core::service_account::ServiceAccount;
use sessiond_core::token::AccessToken;
use sessiond_store::SideWrite;
use uuid::Uuid;

use super::{check_gift, unknown_scope};
use crate::committer::{IssueToken, Origin, WriteBeside};
use crate::context::AppContext;
use crate::error::Error;
use crate::gate::Client;
use crate::secret::{self, TokenKind};

/// An issued access token.
pub struct Issued {
    pub token: String,
    pub scopes: Scopes,
    /// In seconds.
    pub expires_in: u32,
}

/// Access tokens of our own.
#[derive(Clone)]
pub struct AccessTokens {
    context: Arc<AppContext>,
}

impl AccessTokens {
    pub(super) fn new(context: Arc<AppContext>) -> Self {
        Self { context }
    }

    /// Returns how far the log goes. Whoever reads a client's secret asks before, and hands it in when a token is issued.
    pub fn position(&self) -> Position {
        self.context.committer.tip().borrow().position
    }

    /// Issues an access token to a client that authenticated with what there was as of a position (`Error::Busy` where it
    /// has changed since: authenticate again): with the scopes it asks for, or all it may have; for the gateway
    /// of one application alone, or for all that its scopes open.
    pub async fn issue(
        &self,
        client: Client,
        asked: Option<&str>,
        audience: Option<Uuid>,
        as_of: Position,
    ) -> Result<Issued, Error> {
        self.check_audience(client, audience)?;
        let Facts { client_kind, number, organization, allowed, token_lifetime } = self.facts_of(client)?;
        let scopes = match asked.filter(|asked| !asked.trim().is_empty()) {
            None => allowed,
            Some(asked) => {
                let (scopes, unknown) = Scopes::parse(asked);
                if let Some(unknown) = unknown.first() {
                    return Err(Error::field("scope", unknown_scope(unknown)));
                }
                if !allowed.covers(scopes) {
                    return Err(Error::field("scope", format!("this client may ask for at most: {allowed}")));
                }
                scopes
            }
        };
        self.check_not_barred(client, scopes)?;
        let id = secret::new_id();
        let minted = secret::mint(TokenKind::Access, id);
        let token = AccessToken {
            id,
            secret_hash: minted.hash,
            organization,
            client_kind,
            client: number,
            scopes,
            issued_at: Position(0),
            expires_at: self.context.clock.now() + TimeDelta::seconds(token_lifetime.into()),
            barred: false,
            audience,
        };
        let scopes = token.scopes;
        self.context.committer.submit(Origin::system(), IssueToken { token, as_of }).await?;
        Ok(Issued { token: minted.text, scopes, expires_in: token_lifetime })
    }

    /// Refuses a token for the agent side to a client that is barred there. What manages stays open to it, so that nobody
    /// locks the last one out who could lift the bar.
    fn check_not_barred(&self, client: Client, scopes: Scopes) -> Result<(), Error> {
        let barred = Barred::Client(match client {
            Client::Application(number) => BarredClient::Application(number),
            Client::ServiceAccount(number) => BarredClient::ServiceAccount(number),
        });
        let known = self.context.gate.known();
        match known.bar_on(barred, self.context.clock.now()).filter(|_| scopes.has(Scope::McpInvoke)) {
            Some(bar) => Err(Error::Barred(bar.told())),
            None => Ok(()),
        }
    }

    /// Checks that a client can open the gateway it asks a token for: else the token would only be found useless later. The
    /// error does not tell whether the id is another organization's.
    fn check_audience(&self, client: Client, audience: Option<Uuid>) -> Result<(), Error> {
        let Some(id) = audience else { return Ok(()) };
        let known = self.context.gate.known();
        let application = known.application(id).filter(|one| one.archived_at.is_none());
        let good = application.is_some_and(|application| match client {
            Client::Application(number) => application.number == number,
            Client::ServiceAccount(number) => known
                .stream::<ServiceAccount>(number)
                .is_some_and(|account| account.organization == application.organization),
        });
        if good { Ok(()) } else { Err(Error::InvalidTarget(format!("{id} is no application of yours"))) }
    }

    /// Forgets an access token: it opens nothing any more when this returns, and never will.
    pub async fn revoke(&self, caller: &Caller, id: Uuid) -> Result<(), Error> {
        let scopes = self.context.gate.known().access_token(id).map(|token| token.scopes);
        check_gift(caller, scopes.unwrap_or_default())?;
        let revoked = WriteBeside(SideWrite::RevokeAccessToken(id));
        self.context.submit(caller, revoked).await
    }

    fn facts_of(&self, client: Client) -> Result<Facts, Error> {
        let known = self.context.gate.known();
        let nobody = Error::Unauthorized { reason: None };
        let lifetime = |application: Option<ApplicationNumber>| {
            let own = application.and_then(|number| known.stream::<Application>(number)?.policy.as_ref());
            own.map_or(self.context.policy, |policy| policy.over(self.context.policy)).token_lifetime
        };
        match client {
            Client::Application(number) => {
                let one = known.stream::<Application>(number).ok_or(nobody)?;
                Ok(Facts {
                    client_kind: ActorKind::Application,
                    number: number.0,
                    organization: one.organization,
                    allowed: Scopes::parse(&one.oauth.scopes.join(" ")).0,
                    token_lifetime: lifetime(Some(number)),
                })
            }
            Client::ServiceAccount(number) => {
                let one = known.stream::<ServiceAccount>(number).ok_or(nobody)?;
                Ok(Facts {
                    client_kind: ActorKind::ServiceAccount,
                    number: number.0,
                    organization: one.organization,
                    allowed: one.scopes,
                    token_lifetime: lifetime(one.application),
                })
            }
        }
    }
}

/// What a token for a client is made of.
struct Facts {
    client_kind: ActorKind,
    /// The number of the application or service account.
    number: i64,
    organization: OrganizationNumber,
    /// The most scopes it may ask for.
    allowed: Scopes,
    /// The lifetime by the policy of the application that it is, or is bound to; else by the server's.
    token_lifetime: u32,
}
