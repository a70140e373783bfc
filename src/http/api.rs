//! The main surface, `/api/v1`: sessions for the owners of applications and for their agents, what has happened, and
//! whatever an organization manages.

use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::surface::{MANY, PLAIN, Routes, Surface};
use super::{App, agents, bars, directory, events, export, history, revocations, statistics};

static API: Surface = Surface { prefixes: &["/api/v1"], idempotency: true, ..PLAIN };
/// The part of the surface for reports about many sessions at once.
static REPORTS: Surface = Surface { body_limit: MANY, ..API };
/// The part for revocations, which take as long as their sessions do: the response is their count.
static REVOCATIONS: Surface = Surface { deadline: false, ..API };

pub fn surface() -> Routes {
    Routes::of(&API, sessions().merge(managed()))
        .with(&REPORTS, OpenApiRouter::new().routes(routes!(agents::activity_many)))
        .with(
            &REVOCATIONS,
            OpenApiRouter::new()
                .routes(routes!(revocations::list_revocations, revocations::create_revocation))
                .routes(routes!(revocations::get_revocation))
                .routes(routes!(bars::list_bars, bars::place_bar))
                .routes(routes!(bars::get_bar, bars::lift_bar)),
        )
}

fn sessions() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(agents::list, agents::revoke_all))
        .routes(routes!(agents::count))
        .routes(routes!(agents::list_all))
        .routes(routes!(export::sessions))
        .routes(routes!(export::all_sessions))
        .routes(routes!(export::events))
        .routes(routes!(export::history))
        .routes(routes!(agents::count_all))
        .routes(routes!(agents::get, agents::revoke))
        .routes(routes!(agents::terminate))
        .routes(routes!(agents::suspend))
        .routes(routes!(agents::resume))
        .routes(routes!(history::session_history))
        .routes(routes!(history::list_events))
        .routes(routes!(statistics::of_application))
        .routes(routes!(statistics::of_organization))
        .routes(routes!(revocations::list_scheduled_revocations, revocations::create_scheduled_revocation))
        .routes(routes!(revocations::get_scheduled_revocation, revocations::delete_scheduled_revocation))
        .routes(routes!(revocations::pause_scheduled_revocation))
        .routes(routes!(revocations::resume_scheduled_revocation))
        .routes(routes!(events::application))
        .routes(routes!(agents::create))
        .routes(routes!(agents::heartbeat))
        .routes(routes!(agents::activity))
        .routes(routes!(agents::renew))
        .routes(routes!(agents::disconnect))
        .routes(routes!(events::session))
        .routes(routes!(agents::list_instances))
        .routes(routes!(agents::get_instance, agents::revoke_instance))
        .routes(routes!(agents::revoke_instances))
        .routes(routes!(agents::my_sessions))
        .routes(routes!(agents::my_session, agents::end_my_session))
        .routes(routes!(agents::policy))
}

fn managed() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(directory::list_applications, directory::create_application))
        .routes(routes!(
            directory::get_application,
            directory::update_application,
            directory::archive_application
        ))
        .routes(routes!(directory::rotate_application_secret))
        .routes(routes!(directory::set_upstream))
        .routes(routes!(directory::get_policy, directory::set_policy))
        .routes(routes!(directory::list_service_accounts, directory::create_service_account))
        .routes(routes!(directory::get_service_account, directory::archive_service_account))
        .routes(routes!(directory::rotate_service_account_secret))
        .routes(routes!(directory::list_principals))
        .routes(routes!(directory::get_principal))
        .routes(routes!(directory::disable_principal))
        .routes(routes!(directory::enable_principal))
        .routes(routes!(directory::erase_principal))
        .routes(routes!(directory::list_nodes))
        .routes(routes!(directory::list_organizations, directory::create_organization))
        .routes(routes!(directory::get_organization, directory::update_organization))
        .routes(routes!(directory::get_issuers, directory::set_issuers))
        .routes(routes!(directory::get_retention, directory::set_retention))
        .routes(routes!(directory::list_api_keys, directory::create_api_key))
        .routes(routes!(directory::get_api_key, directory::revoke_api_key))
        .routes(routes!(directory::rotate_api_key_secret))
        .routes(routes!(directory::list_webhooks, directory::create_webhook))
        .routes(routes!(directory::get_webhook, directory::update_webhook, directory::delete_webhook))
        .routes(routes!(directory::rotate_webhook_secret))
        .routes(routes!(directory::test_webhook))
        .routes(routes!(directory::list_deliveries))
        .routes(routes!(directory::resend_delivery))
        .routes(routes!(directory::list_hooks, directory::create_hook))
        .routes(routes!(directory::get_hook, directory::delete_hook))
        .routes(routes!(directory::rotate_hook_secret))
}
