//! An application's policy: how long its sessions last, and how many there may be.

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use sessiond_core::policy::{ApplicationPolicy, OnLimit, Policy, Preset};

use crate::http::App;
use crate::http::extract::{Body, CanManage, CanRead, given};
use crate::http::figures::PolicyBody;
use crate::http::ids::{self, Id};
use crate::http::problem::Problem;
use crate::http::words::{OnLimitWord, PresetWord};

/// What differs from the server's policy. All of it is replaced: what is left out is the preset's, else the server's.
#[derive(Debug, Default, Clone, Deserialize, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = ApplicationPolicy)]
pub struct PolicyChoice {
    /// `aal1` (30 days), `aal2` (24 hours, 1 hour without activity) or `aal3` (12 hours, 15 minutes without activity):
    /// the figures of NIST SP 800-63B-4. Others given beside it may only be stricter.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, value_type = Option<PresetWord>)]
    pub preset: Option<Preset>,
    /// Seconds without activity after which a session reads as idle; nothing ends.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, minimum = 1, format = "uint32")]
    pub idle_after: Option<u32>,
    /// Seconds without a sign of life after which a session is disconnected; more than clients may stay away when they
    /// back off, which is 5 minutes.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, minimum = 301, format = "uint32")]
    pub stale_after: Option<u32>,
    /// The same for MCP sessions, paused while a call or stream is open.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, minimum = 1, format = "uint32")]
    pub mcp_stale_after: Option<u32>,
    /// The same for MCP sessions that made no second request; at most the figure in force for the others.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, minimum = 1, format = "uint32")]
    pub mcp_unused_after: Option<u32>,
    /// Life of session tokens, in seconds.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, minimum = 1, format = "uint32")]
    pub token_lifetime: Option<u32>,
    /// Seconds after which a session ends, whatever happens.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, minimum = 1, format = "uint32")]
    pub absolute_lifetime: Option<u32>,
    /// Most live sessions of one principal.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, minimum = 1, format = "uint32")]
    pub max_per_principal: Option<u32>,
    /// Most live sessions in all.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, minimum = 1, format = "uint32")]
    pub max_per_application: Option<u32>,
    /// What happens to a connect beyond a limit: `reject` (the default), `evict-idle-first` or `evict-oldest`.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, value_type = Option<OnLimitWord>)]
    pub on_limit: Option<OnLimit>,
}

/// An application's policy.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct ApplicationPolicyEnvelope {
    /// What differs from the server's.
    pub policy: PolicyChoice,
    /// The figures that sessions opened now will keep.
    pub effective: PolicyBody,
}

/// Longest that anything may last: a year.
const YEAR: u32 = 365 * 86_400;
/// Clients back off to one heartbeat in 5 minutes; who stays away that long has not gone.
const BACK_OFF: u32 = 300;

impl PolicyChoice {
    fn read(self, server: Policy) -> Result<ApplicationPolicy, Problem> {
        for (field, seconds) in [
            ("idleAfter", self.idle_after),
            ("staleAfter", self.stale_after),
            ("mcpStaleAfter", self.mcp_stale_after),
            ("mcpUnusedAfter", self.mcp_unused_after),
            ("tokenLifetime", self.token_lifetime),
            ("absoluteLifetime", self.absolute_lifetime),
        ] {
            if seconds.is_some_and(|seconds| !(1..=YEAR).contains(&seconds)) {
                let message = format!("{field} must be 1 to {YEAR} seconds (a year)");
                return Err(Problem::invalid(field, message));
            }
        }
        for (field, most) in
            [("maxPerPrincipal", self.max_per_principal), ("maxPerApplication", self.max_per_application)]
        {
            if most == Some(0) {
                return Err(Problem::invalid(field, format!("{field} must be at least 1")));
            }
        }
        if self.stale_after.is_some_and(|seconds| seconds <= BACK_OFF) {
            let message =
                format!("staleAfter must be more than {BACK_OFF} seconds: clients back off that far");
            return Err(Problem::invalid("staleAfter", message));
        }
        self.check_preset(server)?;
        let policy = ApplicationPolicy {
            preset: self.preset,
            idle_after: self.idle_after,
            stale_after: self.stale_after,
            mcp_stale_after: self.mcp_stale_after,
            mcp_unused_after: self.mcp_unused_after,
            token_lifetime: self.token_lifetime,
            absolute_lifetime: self.absolute_lifetime,
            max_per_principal: self.max_per_principal,
            max_per_application: self.max_per_application,
            on_limit: self.on_limit,
        };
        let effective = policy.over(server);
        if let Some(asked) = self.mcp_unused_after.filter(|asked| *asked > effective.mcp_stale_after) {
            let message = format!(
                "mcpUnusedAfter ({asked} s) must not exceed mcpStaleAfter ({} s)",
                effective.mcp_stale_after
            );
            return Err(Problem::invalid("mcpUnusedAfter", message));
        }
        if effective.token_lifetime > effective.absolute_lifetime {
            let message = format!(
                "tokenLifetime ({} s) must not exceed absoluteLifetime ({} s)",
                effective.token_lifetime, effective.absolute_lifetime
            );
            return Err(Problem::invalid("tokenLifetime", message));
        }
        Ok(policy)
    }

    /// Beside a preset, other figures may only be stricter: a session that says `aal2` is one.
    fn check_preset(&self, server: Policy) -> Result<(), Problem> {
        let Some(preset) = self.preset else { return Ok(()) };
        let most = preset.over(server);
        let inactivity = preset != Preset::Aal1;
        for (field, asked, most) in [
            ("absoluteLifetime", self.absolute_lifetime, Some(most.absolute_lifetime)),
            ("staleAfter", self.stale_after, inactivity.then_some(most.stale_after)),
            ("mcpStaleAfter", self.mcp_stale_after, inactivity.then_some(most.mcp_stale_after)),
        ] {
            if let (Some(asked), Some(most)) = (asked, most)
                && asked > most
            {
                let message = format!("{field} must be at most {most} seconds with preset {}", preset.word());
                return Err(Problem::invalid(field, message));
            }
        }
        Ok(())
    }
}

impl From<ApplicationPolicy> for PolicyChoice {
    fn from(policy: ApplicationPolicy) -> Self {
        Self {
            preset: policy.preset,
            idle_after: policy.idle_after,
            stale_after: policy.stale_after,
            mcp_stale_after: policy.mcp_stale_after,
            mcp_unused_after: policy.mcp_unused_after,
            token_lifetime: policy.token_lifetime,
            absolute_lifetime: policy.absolute_lifetime,
            max_per_principal: policy.max_per_principal,
            max_per_application: policy.max_per_application,
            on_limit: policy.on_limit,
        }
    }
}

fn enveloped(app: &App, policy: Option<ApplicationPolicy>) -> Json<ApplicationPolicyEnvelope> {
    let policy = policy.unwrap_or_default();
    let effective = policy.over(app.directory.applications.server_policy()).into();
    Json(ApplicationPolicyEnvelope { policy: policy.into(), effective })
}

/// Get an application's policy
#[utoipa::path(
    get, path = "/api/v1/applications/{applicationId}/policy", operation_id = "applications.getPolicy", tag = "applications",
    security(("bearer" = [])),
    params(("applicationId" = Uuid, Path, description = "The application.")),
    responses(
        (status = 200, description = "What it chose, and what is in force.", body = ApplicationPolicyEnvelope),
    ),
)]
pub async fn get_policy(
    CanRead(caller): CanRead,
    State(app): State<App>,
    Id(id, ..): Id<ids::Application>,
) -> Result<Json<ApplicationPolicyEnvelope>, Problem> {
    let (application, _) = app.directory.applications.find(&caller, id)?;
    Ok(enveloped(&app, application.policy))
}

/// Set an application's policy
///
/// For sessions opened from now on: each keeps the policy it was opened under. Limits hold from now on for all.
#[utoipa::path(
    put, path = "/api/v1/applications/{applicationId}/policy", operation_id = "applications.setPolicy", tag = "applications",
    security(("bearer" = [])),
    params(("applicationId" = Uuid, Path, description = "The application.")),
    request_body = PolicyChoice,
    responses(
        (status = 200, description = "What it chose, and what is in force.", body = ApplicationPolicyEnvelope),
    ),
)]
pub async fn set_policy(
    CanManage(caller): CanManage,
    State(app): State<App>,
    Id(id, ..): Id<ids::Application>,
    Body(body): Body<PolicyChoice>,
) -> Result<Json<ApplicationPolicyEnvelope>, Problem> {
    let policy = body.read(app.directory.applications.server_policy())?;
    let application = app.directory.applications.set_policy(&caller, id, policy).await?;
    Ok(enveloped(&app, application.policy))
}
