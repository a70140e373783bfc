//! The OpenAPI document: put together from what the surfaces say of their operations, and completed with what holds for all
//! of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use utoipa::openapi::OpenApi;

use super::surface::{PLAIN, Routes, Surface};
use super::{export, extract, idempotency, list_parameters, problem, shared, unknown, words};

/// What follows from the descriptions of all surfaces.
pub struct Documented {
    pub document: OpenApi,
    pub surfaces: Surfaces,
    /// The parameters that each operation takes in its query.
    pub parameters: Arc<unknown::Parameters>,
}

/// The surface, or the part of one, that each path of the document belongs to.
pub struct Surfaces(BTreeMap<String, &'static Surface>);

impl Surfaces {
    pub fn at(&self, path: &str) -> &'static Surface {
        self.0.get(path).copied().unwrap_or(&PLAIN)
    }

    /// The surfaces, one of each name.
    pub fn all(&self) -> impl Iterator<Item = &'static Surface> {
        let named: BTreeMap<_, _> = self.0.values().map(|surface| (surface.name, *surface)).collect();
        named.into_values()
    }
}

impl Documented {
    pub fn of(column: &[Routes]) -> Self {
        let (mut document, mut paths) = (<Head as utoipa::OpenApi>::openapi(), BTreeMap::new());
        for routes in column {
            let surface_of = |path: &String| routes.own.get(path).copied().unwrap_or(routes.surface());
            paths.extend(routes.document.paths.paths.keys().map(|path| (path.clone(), surface_of(path))));
            document.merge(routes.document.clone());
        }
        let surfaces = Surfaces(paths);
        extract::describe(&mut document);
        idempotency::describe(&mut document, &surfaces);
        unknown::describe(&mut document, &surfaces);
        words::describe(&mut document);
        problem::describe(&mut document, &surfaces);
        shared::describe(&mut document, &surfaces);
        let parameters = Arc::new(unknown::Parameters::of(&document));
        Self { document, surfaces, parameters }
    }
}

/// A document as YAML; the same document gives the same bytes.
pub fn yaml(document: &OpenApi) -> String {
    // Writing plain data with string keys cannot fail.
    let text = document.to_yaml().unwrap_or_default();
    format!("{}\n", text.trim_end())
}

/// The document's head; the operations come from the handlers. Tags are here for the order in which readers meet them; a
/// surface may bring tags, schemes and schemas of its own.
#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "sessiond",
        description = include_str!("begin.md"),
        license(name = "MIT", identifier = "MIT"),
    ),
    servers((url = "http://127.0.0.1:8080", description = "`make run`")),
    tags(
        (name = "agentSessions", description = "Sessions of an application: list, inspect, revoke."),
        (name = "bars", description = "Who is kept out, until when, and what they are told."),
        (name = "revocations", description = "Ending many sessions, now or on a schedule, with an exact count."),
        (name = "events", description = "The log: what happened, by whom and why."),
        (name = "statistics", description = "How it went: figures of a window of time."),
        (name = "agent", description = "The write side: what agents, and those who front them, report."),
        (name = "agentInstances", description = "The older names of the same sessions."),
        (name = "applications", description = "Applications, what they are called elsewhere agents."),
        (name = "serviceAccounts", description = "Credentials of an organization's own programs."),
        (name = "apiKeys", description = "Long-lived credentials of programs, for one surface or several."),
        (name = "principals", description = "The people and clients behind sessions."),
        (name = "terminals", description = "Shells on machines, in a WebSocket, recorded."),
        (name = "me", description = "A person's own sessions."),
        (name = "workloads", description = "WebUI and task sessions, as portals and clusters report and end them."),
        (name = "nodes", description = "The processes that serve one database, for whoever runs the installation."),
        (name = "organizations", description = "Organizations, for whoever runs the installation."),
        (name = "issuers", description = "Whose JWT access tokens are taken beside our own."),
        (name = "retention", description = "How long what happened is kept."),
        (name = "webhooks", description = "Where events are delivered to."),
        (name = "hooks", description = "Where media servers ask whether a viewer may come in."),
        (name = "media", description = "Viewers of media streams: reported, listed by name, measured, terminated; in the words of OvenMediaEngine's REST API."),
        (name = "oauth", description = "Tokens."),
        (name = "service", description = "The service itself."),
    ),
    // Schemas that only parameters refer to have to be named here, because utoipa does not find them.
    components(schemas(
        words::EndingWord,
        words::StageWord,
        words::StatusWord,
        export::ExportFormat,
        list_parameters::SessionSort,
    )),
    modifiers(&Security),
)]
struct Head;

struct Security;

impl utoipa::Modify for Security {
    fn modify(&self, document: &mut OpenApi) {
        use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
        let mut bearer = Http::new(HttpAuthScheme::Bearer);
        bearer.description = Some(
            "An access token (`sat_…`) from `POST /oauth2/token`, a JWT access token of an issuer that the organization trusts, an API key (`sak_…`), or a session's token (`sst_…`)."
                .into(),
        );
        let mut basic = Http::new(HttpAuthScheme::Basic);
        basic.description = Some("OAuth client id and secret.".into());
        let components = document.components.get_or_insert_default();
        components.add_security_scheme("bearer", SecurityScheme::Http(bearer));
        components.add_security_scheme("client", SecurityScheme::Http(basic));
    }
}
