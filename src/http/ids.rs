//! The ids in a path, each found by the name of its parameter. The type of an id says what it is an id of.

use std::marker::PhantomData;

use axum::extract::{FromRequestParts, RawPathParams};
use axum::http::StatusCode;
use axum::http::request::Parts;
use uuid::Uuid;

use super::App;
use super::problem::Problem;

/// The id of one thing of this kind.
pub struct Id<T>(pub Uuid, pub PhantomData<T>);

/// A kind of thing that paths have ids of.
pub trait Kind {
    /// The name of the parameter, as it stands between braces in paths.
    const PARAMETER: &'static str;
}

/// An application.
pub struct Application;
/// A session.
pub struct Session;
/// A revocation.
pub struct Revocation;
/// A scheduled revocation.
pub struct ScheduledRevocation;
/// A service account.
pub struct ServiceAccount;
/// A principal.
pub struct Principal;
/// An organization.
pub struct Organization;
/// An API key.
pub struct ApiKey;
/// A webhook.
pub struct Webhook;
/// A hook.
pub struct Hook;
/// A bar.
pub struct Bar;

impl Kind for Application {
    const PARAMETER: &'static str = "applicationId";
}

impl Kind for Session {
    const PARAMETER: &'static str = "sessionId";
}

impl Kind for Revocation {
    const PARAMETER: &'static str = "revocationId";
}

impl Kind for ScheduledRevocation {
    const PARAMETER: &'static str = "scheduledRevocationId";
}

impl Kind for ServiceAccount {
    const PARAMETER: &'static str = "serviceAccountId";
}

impl Kind for Principal {
    const PARAMETER: &'static str = "principalId";
}

impl Kind for Organization {
    const PARAMETER: &'static str = "organizationId";
}

impl Kind for ApiKey {
    const PARAMETER: &'static str = "apiKeyId";
}

impl Kind for Webhook {
    const PARAMETER: &'static str = "webhookId";
}

impl Kind for Hook {
    const PARAMETER: &'static str = "hookId";
}

impl Kind for Bar {
    const PARAMETER: &'static str = "barId";
}

impl<T: Kind> FromRequestParts<App> for Id<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let wrong = || {
            Problem::new(StatusCode::BAD_REQUEST, "invalid_request", "Validation failed (uuid is expected)")
        };
        let path = RawPathParams::from_request_parts(parts, app).await.map_err(|_| wrong())?;
        let (_, text) = path.iter().find(|(name, _)| *name == T::PARAMETER).ok_or_else(wrong)?;
        // Only the hyphenated form is accepted, so that a UUID has one spelling on this surface.
        let uuid = Uuid::try_parse(text).ok().filter(|_| text.len() == 36).ok_or_else(wrong)?;
        Ok(Self(uuid, PhantomData))
    }
}
