//! Refuses what a request says and its operation does not know, and names what the operation knows: whoever misspells a
//! filter wants one session ended, not all of them. What an operation knows of a query is what its description says, so that
//! the document and the service cannot differ; what it knows of a body, its type says.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use axum::extract::{MatchedPath, Request, State};
use axum::http::request::Parts;
use axum::http::{Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use url::form_urlencoded;
use utoipa::openapi::path::{Operation, ParameterIn};
use utoipa::openapi::schema::{AdditionalProperties, ArrayItems};
use utoipa::openapi::security::SecurityRequirement;
use utoipa::openapi::{Content, OpenApi, PathItem, Ref, RefOr, ResponseBuilder, Schema};

use super::document::Surfaces;
use super::problem::Problem;
use super::shared;

/// The part of a request in which an operation takes more than it knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    Query,
    Body,
}

const OAUTH: &str =
    "RFC 6749, section 3.2: an authorization server ignores parameters that it does not recognize";
const AGENTS: &str = "published clients of the write side send more than is kept";
const PROBE: &str = "whoever watches over the service restarts what refuses to answer; it changes nothing";
const ENGINE: &str = "a media server says what its release knows, and refuses the stream if it is refused";
const VIEWER: &str = "a reporter hands on what the engine says of a viewer as it is, more than is kept";
const FIGURES: &str =
    "a reporter hands on the engine's figures of a session as they are: seven, of which one is kept";

/// The operations that take more than they know, by their ids in the document, and why they do. All others refuse it.
pub const LENIENT: [(&str, Part, &str); 14] = [
    ("agent.create", Part::Body, AGENTS),
    ("agent.activity", Part::Body, AGENTS),
    ("agent.activityMany", Part::Body, AGENTS),
    ("media.createSessions", Part::Body, VIEWER),
    ("media.reportSession", Part::Body, FIGURES),
    ("media.reportStream", Part::Body, FIGURES),
    ("media.reportApp", Part::Body, FIGURES),
    ("media.callHook", Part::Body, ENGINE),
    ("media.callHook", Part::Query, ENGINE),
    ("oauth.token", Part::Query, OAUTH),
    ("oauth.introspect", Part::Query, OAUTH),
    ("oauth.revoke", Part::Query, OAUTH),
    ("service.live", Part::Query, PROBE),
    ("service.ready", Part::Query, PROBE),
];

/// Whether an operation takes more than it knows.
pub fn is_lenient(operation: &str, part: Part) -> bool {
    LENIENT.iter().any(|(id, where_, _)| *id == operation && *where_ == part)
}

/// How alike two names must be, from 0 to 1, for one to be taken for a misspelling of the other.
const ALIKE: f64 = 0.84;

/// The parameters that each operation takes in its query, by the route and method that lead to it.
pub struct Parameters(BTreeMap<String, Vec<(Method, Accepted)>>);

struct Accepted {
    names: Vec<String>,
    /// Whether anybody may ask, so that the query can be refused before the caller is known.
    open: bool,
}

/// The extension that says what is wrong with a query while it is not yet known who asks.
#[derive(Clone)]
struct Misunderstood(Arc<(String, String)>);

impl Parameters {
    /// Takes the parameters from a document.
    pub fn of(document: &OpenApi) -> Self {
        let mut routes = BTreeMap::<String, Vec<(Method, Accepted)>>::new();
        for (path, item) in &document.paths.paths {
            // To the router the last segment is one parameter, with the action behind its colon.
            let route = path.rsplit_once("}:").map_or(path.clone(), |(route, _)| format!("{route}}}"));
            let accepted = operations(item)
                .filter(|(_, operation)| {
                    !operation.operation_id.as_ref().is_some_and(|id| is_lenient(id, Part::Query))
                })
                .map(|(method, operation)| (method, Accepted::by(operation, document)));
            routes.entry(route).or_default().extend(accepted);
        }
        Self(routes)
    }

    fn at(&self, route: &str, method: &Method) -> Option<&Accepted> {
        let method = if method == Method::HEAD { &Method::GET } else { method };
        self.0.get(route)?.iter().find(|(own, _)| own == method).map(|(_, accepted)| accepted)
    }
}

impl Accepted {
    fn by(operation: &Operation, document: &OpenApi) -> Self {
        let parameters = operation.parameters.iter().flatten();
        let described = parameters.filter_map(|one| shared::parameter(document, one));
        let names =
            described.filter(|one| one.parameter_in == ParameterIn::Query).map(|one| one.name.clone());
        let nobody = [SecurityRequirement::default()];
        Self {
            names: names.collect(),
            open: operation.security.as_ref().is_some_and(|security| security == &nobody),
        }
    }

    /// What is wrong with a query: the name of the parameter, and a message.
    fn fault(&self, query: &str) -> Option<(String, String)> {
        let mut seen = BTreeSet::new();
        for (name, _) in form_urlencoded::parse(query.as_bytes()) {
            if !self.names.iter().any(|known| *known == name) {
                let known: Vec<&str> = self.names.iter().map(String::as_str).collect();
                return Some((name.to_string(), in_query(&name, &known)));
            }
            if !seen.insert(name.to_string()) {
                return Some((name.to_string(), format!("In the query: {name} is given more than once")));
            }
        }
        None
    }
}

fn operations(item: &PathItem) -> impl Iterator<Item = (Method, &Operation)> {
    let PathItem { get, put, post, delete, patch, .. } = item;
    let all = [
        (Method::GET, get),
        (Method::PUT, put),
        (Method::POST, post),
        (Method::DELETE, delete),
        (Method::PATCH, patch),
    ];
    all.into_iter().filter_map(|(method, operation)| operation.as_ref().map(|operation| (method, operation)))
}

/// Looks at the query once the route is known. A client that has to authenticate is told of it only after that: see
/// [`understood`].
pub async fn layer(State(known): State<Arc<Parameters>>, mut request: Request, next: Next) -> Response {
    let fault = request.uri().query().filter(|query| !query.is_empty()).and_then(|query| {
        let route = request.extensions().get::<MatchedPath>()?;
        let accepted = known.at(route.as_str(), request.method())?;
        Some((accepted.open, accepted.fault(query)?))
    });
    match fault {
        Some((true, (name, message))) => return Problem::invalid(name, message).into_response(),
        Some((false, fault)) => drop(request.extensions_mut().insert(Misunderstood(Arc::new(fault)))),
        None => {}
    }
    next.run(request).await
}

/// Refuses a request whose query was found wrong. Every extractor of a caller calls this next.
pub fn understood(parts: &Parts) -> Result<(), Problem> {
    match parts.extensions.get::<Misunderstood>() {
        Some(Misunderstood(fault)) => Err(Problem::invalid(fault.0.clone(), fault.1.clone())),
        None => Ok(()),
    }
}

fn in_query(name: &str, known: &[&str]) -> String {
    let takes = match known {
        [] => "this operation takes none".to_owned(),
        known => format!("this operation takes {}", known.join(", ")),
    };
    format!("In the query: unknown parameter `{name}`{}; {takes}", hint(name, known))
}

/// The name of an unknown member of a body and a message, from serde's own: "unknown field `a`, expected one of `b`, `c`".
pub fn in_body(said: &str) -> Option<(String, String)> {
    let rest = said.strip_prefix("unknown field `")?;
    let (name, rest) = rest.split_once('`')?;
    let known: Vec<&str> = rest.split('`').skip(1).step_by(2).collect();
    let takes = match known.as_slice() {
        [] => "there are none here".to_owned(),
        known => format!("known here are {}", known.join(", ")),
    };
    Some((name.to_owned(), format!("unknown field `{name}`{}; {takes}", hint(name, &known))))
}

/// The known name that was probably meant, if one is alike.
fn hint(name: &str, known: &[&str]) -> String {
    let plain = |text: &str| text.replace(['_', '-', '.'], "").to_lowercase();
    let alike = |one: &str| strsim::jaro_winkler(&plain(one), &plain(name));
    let nearest = known.iter().max_by(|a, b| alike(a).total_cmp(&alike(b)));
    match nearest.filter(|nearest| alike(nearest) >= ALIKE) {
        Some(nearest) => format!(", did you mean `{nearest}`?"),
        None => String::new(),
    }
}

/// Says in the document that operations refuse what they do not know.
pub fn describe(document: &mut OpenApi, surfaces: &Surfaces) {
    describe_queries(document, surfaces);
    close_choices(document);
}

/// Says of the choices of an enum that nothing else may be in them; utoipa says it of structs by itself.
fn close_choices(document: &mut OpenApi) {
    let mut names = BTreeSet::new();
    for (_, operation) in document.paths.paths.values().flat_map(operations) {
        let lenient = operation.operation_id.as_ref().is_some_and(|id| is_lenient(id, Part::Body));
        if let Some(RefOr::T(body)) = operation.request_body.as_ref().filter(|_| !lenient)
            && let Some(RefOr::T(json)) = body.content.get("application/json")
        {
            json.schema.iter().for_each(|schema| name_references(schema, &mut names));
        }
    }
    let Some(components) = &mut document.components else { return };
    let mut waiting: Vec<String> = names.iter().cloned().collect();
    while let Some(schema) = waiting.pop().and_then(|name| components.schemas.get(&name)) {
        let mut inner = BTreeSet::new();
        name_references(schema, &mut inner);
        waiting.extend(inner.into_iter().filter(|name| names.insert(name.clone())));
    }
    for name in names {
        let Some(RefOr::T(Schema::OneOf(choices))) = components.schemas.get_mut(&name) else { continue };
        for choice in &mut choices.items {
            if let RefOr::T(Schema::Object(object)) = choice
                && !object.properties.is_empty()
            {
                object.additional_properties = Some(Box::new(AdditionalProperties::FreeForm(false)));
            }
        }
    }
}

/// The names of the schemas that a schema refers to.
fn name_references(schema: &RefOr<Schema>, names: &mut BTreeSet<String>) {
    let schema = match schema {
        RefOr::Ref(reference) => {
            names.extend(reference.ref_location.rsplit('/').next().map(str::to_owned));
            return;
        }
        RefOr::T(schema) => schema,
    };
    match schema {
        Schema::Object(object) => object.properties.values().for_each(|one| name_references(one, names)),
        Schema::Array(array) => {
            if let ArrayItems::RefOrSchema(items) = &array.items {
                name_references(items, names);
            }
        }
        Schema::OneOf(choices) => choices.items.iter().for_each(|one| name_references(one, names)),
        Schema::AllOf(parts) => parts.items.iter().for_each(|one| name_references(one, names)),
        Schema::AnyOf(choices) => choices.items.iter().for_each(|one| name_references(one, names)),
        _ => {}
    }
}

/// Describes the refusal of unknown parameters where the default response of the surface does not.
fn describe_queries(document: &mut OpenApi, surfaces: &Surfaces) {
    let nobody = [SecurityRequirement::default()];
    for (path, operation) in shared::operations(document) {
        let open = operation.security.as_ref().is_some_and(|security| security == &nobody);
        if !open || operation.operation_id.as_ref().is_some_and(|id| is_lenient(id, Part::Query)) {
            continue;
        }
        let content = Content::new(Some(Ref::from_schema_name(surfaces.at(path).errors.schema)));
        let refused = ResponseBuilder::new()
            .description("The query says something that is not known here; the message names it.")
            .content("application/json", content)
            .build();
        let status = StatusCode::BAD_REQUEST.as_str().to_owned();
        operation.responses.responses.entry(status).or_insert(RefOr::T(refused));
    }
}
