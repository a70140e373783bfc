//! How the document is made: small, and nothing in it twice.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::document::Document;

/// Operations with more than one shape of errors, and why.
const SEVERAL_SHAPES: [(&str, &str); 3] = [
    (
        "oauth.",
        "errors of OAuth are OAuth's own, and what is said before it is looked at is the main surface's",
    ),
    ("media.createSessions", "what went wrong with each of several"),
    ("media.report", "the same"),
];

/// 141 operations were held to 300 KB; what comes later is held to the same measure.
const BYTES_AN_OPERATION: usize = 2_130;

#[test]
fn the_document_says_no_more_of_an_operation_than_it_needs() {
    let operations = Document::new().operations().count();
    let size = sessiond::http::openapi_yaml().len();
    assert!(size <= operations * BYTES_AN_OPERATION, "{size} bytes for {operations} operations");
}

#[test]
fn no_failure_no_parameter_and_no_header_is_described_twice() {
    let document = Document::new();
    let mut seen: BTreeMap<String, u32> = BTreeMap::new();
    let mut see = |thing: &Value| {
        if thing["$ref"].is_null() {
            *seen.entry(thing.to_string()).or_default() += 1;
        }
    };
    for item in document.0["paths"].as_object().unwrap().values() {
        for operation in item.as_object().unwrap().values().filter(|one| one.is_object()) {
            operation["parameters"].as_array().into_iter().flatten().for_each(&mut see);
            for (status, answer) in operation["responses"].as_object().unwrap() {
                if !status.starts_with('2') {
                    see(answer);
                }
                answer["headers"].as_object().into_iter().flatten().for_each(|(_, header)| see(header));
            }
        }
    }
    let twice: Vec<_> = seen.into_iter().filter(|(_, times)| *times > 1).collect();
    assert!(twice.is_empty(), "give these a name in src/http/shared.rs: {twice:#?}");
}

#[test]
fn every_component_is_referred_to() {
    let document = Document::new();
    let text = document.0.to_string();
    for kind in ["schemas", "responses", "parameters", "headers"] {
        for name in document.0["components"][kind].as_object().unwrap().keys() {
            assert!(text.contains(&format!("#/components/{kind}/{name}\"")), "nothing uses {kind}/{name}");
        }
    }
}

#[test]
fn the_default_answer_of_a_surface_says_which_statuses_it_stands_for() {
    let document = Document::new();
    for (name, answer) in document.0["components"]["responses"].as_object().unwrap() {
        if name.ends_with("Default") {
            let text = answer["description"].as_str().unwrap();
            for status in answer["x-statuses"].as_array().unwrap() {
                assert!(text.contains(&format!("- {status}: ")), "{name} does not say what {status} is");
            }
        }
    }
    for operation in document.operations() {
        let raw = &document.0["paths"][operation.path][operation.method.as_str().to_lowercase()];
        let open = operation.described["security"] == serde_json::json!([{}]);
        assert_eq!(raw["responses"]["default"].is_object(), !open, "{}", operation.id);
    }
}

#[test]
fn an_operation_has_one_shape_of_errors() {
    let document = Document::new();
    for operation in document.operations() {
        if SEVERAL_SHAPES.iter().any(|(id, _)| operation.id.starts_with(id)) {
            continue;
        }
        let answers = operation.described["responses"].as_object().unwrap().iter();
        let shapes: BTreeSet<String> = answers
            .filter(|(status, _)| status.starts_with(['4', '5']))
            .flat_map(|(_, answer)| answer["content"].as_object().into_iter().flatten())
            .map(|(_, content)| content["schema"]["$ref"].to_string())
            .collect();
        assert!(shapes.len() <= 1, "{}: {shapes:?}", operation.id);
    }
}
