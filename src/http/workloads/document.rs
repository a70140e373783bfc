//! The surface's own document: its part of the document of all surfaces, with only the components that it uses.

use std::collections::{BTreeMap, BTreeSet};

use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderMap, header};
use axum::routing::get;
use serde_json::Value;
use utoipa::openapi::OpenApi;

use super::surface::{SCHEME, WORKLOADS};
use crate::http::App;
use crate::http::document::{Documented, yaml};

/// The document of this surface alone.
fn document(all: &Documented) -> OpenApi {
    let mut own = all.document.clone();
    "sessiond: session manager".clone_into(&mut own.info.title);
    own.info.description = Some(
        "WebUI and task sessions: listed, logged, terminated, and reported by those who run them.".into(),
    );
    own.paths.paths.retain(|path, _| all.surfaces.at(path).name == WORKLOADS.name);
    own.tags.get_or_insert_default().retain(|tag| tag.name == "workloads");
    let used = used(&own);
    if let Some(components) = &mut own.components {
        keep_used("schemas", &mut components.schemas, &used);
        keep_used("responses", &mut components.responses, &used);
        keep_used("parameters", &mut components.parameters, &used);
        keep_used("headers", &mut components.headers, &used);
        components.security_schemes.retain(|name, _| name == SCHEME);
    }
    own
}

fn keep_used<T>(kind: &str, all: &mut BTreeMap<String, T>, used: &BTreeSet<String>) {
    all.retain(|name, _| used.contains(&format!("#/components/{kind}/{name}")));
}

/// The components that operations refer to, and those that these refer to in turn.
fn used(document: &OpenApi) -> BTreeSet<String> {
    // Writing plain data with string keys cannot fail.
    let whole = serde_json::to_value(document).unwrap_or_default();
    let mut used = BTreeSet::new();
    let mut waiting = vec![&whole["paths"]];
    while let Some(value) = waiting.pop() {
        match value {
            Value::Object(members) => {
                let reference = members.get("$ref").and_then(Value::as_str);
                if let Some(at) = reference.filter(|at| used.insert((*at).to_owned())) {
                    waiting.extend(at.strip_prefix('#').and_then(|at| whole.pointer(at)));
                }
                waiting.extend(members.values());
            }
            Value::Array(items) => waiting.extend(items),
            _ => {}
        }
    }
    used
}

/// The route of the document, where this surface's clients look for it: YAML, or JSON for clients that accept that. It needs
/// no key.
pub fn documents(all: &Documented) -> Router<App> {
    let own = document(all);
    let text = Bytes::from(yaml(&own));
    let json = Bytes::from(own.to_pretty_json().unwrap_or_default());
    let as_json = json.clone();
    let chosen = move |headers: HeaderMap| async move {
        let (kind, body) =
            if wants_json(&headers) { ("application/json", as_json) } else { ("application/yaml", text) };
        ([(header::CONTENT_TYPE, kind), (header::VARY, "accept")], body)
    };
    let always = move || async move { ([(header::CONTENT_TYPE, "application/json")], json) };
    Router::new()
        .route("/pro/session-manager/v1/openapi.yaml", get(chosen))
        .route("/pro/session-manager/v1/openapi.json", get(always))
}

/// Whether JSON is asked for by name, and YAML is not.
fn wants_json(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::ACCEPT).iter();
    let accepted: Vec<_> = values.filter_map(|value| value.to_str().ok()).collect();
    let named = |kind: &str| accepted.iter().any(|value| value.contains(kind));
    named("application/json") && !named("yaml")
}
