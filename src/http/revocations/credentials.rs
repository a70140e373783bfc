//! What a revocation says of credentials: what it barred, what it left alone, and who may come back for it.

use serde::Serialize;
use sessiond_core::barring::{BarScope, Barring, Credentials, KeptOut};
use uuid::Uuid;

use super::time;
use crate::sessions::WouldBar;

/// What became of the credentials behind the sessions of a revocation, when it began.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = RevocationCredentials)]
pub struct CredentialsView {
    pub scope: BarScopeView,
    /// They open nothing on the agent side any more. API keys are revoked, and open nothing at all.
    pub barred: CredentialCounts,
    /// They open sessions as before.
    pub not_barred: CredentialCounts,
    /// Bars that it placed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub kept_out: Option<KeptOutView>,
    /// Who may come back for all that, and what keeps them out; for people.
    pub may_come_back: Vec<String>,
}

/// Who is kept out, whatever is presented.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = RevocationKeptOut)]
pub struct KeptOutView {
    pub principals: u64,
    /// How many of them are OAuth clients or API keys.
    pub clients: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, format = DateTime)]
    pub until: Option<String>,
}

impl From<KeptOut> for KeptOutView {
    fn from(kept_out: KeptOut) -> Self {
        let KeptOut { principals, clients, until, .. } = kept_out;
        Self { principals, clients, until: until.map(time) }
    }
}

/// Whose credentials issued before are barred: all of the `organization`'s; all, from one `application`; one
/// `principal`'s; those of the principals and OAuth clients of the sessions that `matched`; the access tokens last
/// presented with one `session`; or `nothing` is.
#[derive(Debug, Clone, Copy, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = RevocationBarScope)]
pub enum BarScopeView {
    Organization,
    Application,
    Principal,
    Matched,
    Session,
    Nothing,
}

/// Of what is behind the sessions that a revocation covered when it began.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CredentialCounts {
    /// Principals: what was issued to them, or acts for them.
    pub principals: u64,
    /// Access tokens of OAuth clients.
    pub access_tokens: u64,
    /// API keys that act for those principals, or opened those sessions.
    pub api_keys: u64,
}

/// Whose credentials would be barred one by one; at most 100 of each.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct WouldBarView {
    /// Ids of principals.
    pub principals: Vec<Uuid>,
    /// Ids of OAuth clients.
    pub clients: Vec<String>,
    pub api_keys: Vec<KeyNamed>,
}

/// An API key, by id and name.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct KeyNamed {
    pub id: Uuid,
    pub name: String,
}

impl From<WouldBar> for WouldBarView {
    fn from(would: WouldBar) -> Self {
        let keys = would.keys.into_iter().map(|(id, name)| KeyNamed { id, name });
        Self { principals: would.principals, clients: would.clients, api_keys: keys.collect() }
    }
}

impl From<Credentials> for CredentialCounts {
    fn from(counts: Credentials) -> Self {
        let Credentials { principals, access_tokens, api_keys } = counts;
        Self { principals, access_tokens, api_keys }
    }
}

impl CredentialsView {
    /// Of a revocation; `disabled` says that its principal is disabled with it.
    pub fn of(barring: Barring, disabled: bool) -> Self {
        let scope = match barring.scope {
            BarScope::Organization => BarScopeView::Organization,
            BarScope::Application => BarScopeView::Application,
            BarScope::Principal => BarScopeView::Principal,
            BarScope::Matched => BarScopeView::Matched,
            BarScope::Session => BarScopeView::Session,
            BarScope::Nothing => BarScopeView::Nothing,
        };
        Self {
            scope,
            barred: barring.barred.into(),
            not_barred: barring.left.into(),
            kept_out: barring.kept_out.map(KeptOutView::from),
            may_come_back: may_come_back(&barring, disabled),
        }
    }
}

fn may_come_back(barring: &Barring, disabled: bool) -> Vec<String> {
    let Barring { scope, left, .. } = barring;
    let mut said = vec![];
    if left.principals > 0 {
        said.push(format!(
            "What was issued before to {} opens sessions again at once: `bar: true` bars it.",
            number(left.principals, "principal")
        ));
    }
    if left.access_tokens > 0 {
        said.push(format!(
            "{} of OAuth clients behind these sessions still open{} some until they expire: `bar: true` bars them.",
            number(left.access_tokens, "access token"),
            if left.access_tokens == 1 { "s" } else { "" }
        ));
    }
    if left.api_keys > 0 {
        let until = if disabled { " once the principal is enabled" } else { "" };
        said.push(format!(
            "{} still open{} sessions{until}: `includeKeys: true` revokes them, as does revoking each.",
            number(left.api_keys, "API key"),
            if left.api_keys == 1 { "s" } else { "" }
        ));
    }
    if *scope == BarScope::Application {
        said.push("Of other applications nothing is barred.".to_owned());
    }
    if let Some(kept_out) = barring.kept_out {
        said.extend(beyond_the_bars(kept_out));
        return said;
    }
    said.push(if disabled {
        "Nothing is opened for the principal until it is enabled.".to_owned()
    } else {
        "Whoever authenticates anew is welcome, JWTs that an issuer refreshes included: disabling a principal keeps a \
         person out, a new secret keeps a client out."
            .to_owned()
    });
    said
}

/// Of bars that were placed: whom they keep out, and whom they do not.
fn beyond_the_bars(kept_out: KeptOut) -> Vec<String> {
    let KeptOut { principals, clients_left, until, without_oneself, .. } = kept_out;
    let end = until.map_or("they are lifted".to_owned(), time);
    let mut said = vec![format!(
        "{}: whatever is presented for them is refused until {end}.",
        number(principals, "principal") + " barred"
    )];
    if clients_left > 0 {
        said.push(format!(
            "{} opened these sessions for others and go on: `POST /api/v1/bars` with `clientId` bars one.",
            number(clients_left, "OAuth client")
        ));
    }
    if without_oneself {
        said.push("You are behind these sessions too, and were left out.".to_owned());
    }
    said
}

fn number(count: u64, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}
