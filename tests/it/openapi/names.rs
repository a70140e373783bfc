//! What generators make of the document: everything has a name, and words that the rules define are all there.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use sessiond_core::actor::ActorKind;
use sessiond_core::delivery::DeliveryStatus;
use sessiond_core::end_story::EnderKind;
use sessiond_core::kind::Kind;
use sessiond_core::phase::{Outcome, Phase, Stage};
use sessiond_core::policy::{OnLimit, Preset};
use sessiond_core::reason::Reason;
use sessiond_core::schedule::Missed;
use sessiond_core::scope::Scope;
use sessiond_core::session::event::ActivitySource;
use sessiond_core::status::DerivedStatus;
use sessiond_core::throughput::Reading;

use super::document::Document;
use crate::support::tree::sources;

/// Names that generated code cannot use for a class, in one language or another.
const TAKEN: [&str; 22] = [
    "From", "In", "Is", "Not", "Class", "Type", "Object", "String", "Date", "Error", "Map", "Set", "Array",
    "Default", "Function", "None", "Self", "Import", "Any", "Number", "Boolean", "Record",
];

/// Whether a schema has a name: it refers to one that has, alone or with a description beside it.
fn is_named(schema: &Value) -> bool {
    schema["$ref"].is_string()
}

/// Looks at every object of the document, with the way to it.
fn walk(value: &Value, way: &mut Vec<String>, look: &mut impl FnMut(&Value, &[String])) {
    look(value, way);
    let inner: Vec<(String, &Value)> = match value {
        Value::Object(members) => members.iter().map(|(name, member)| (name.clone(), member)).collect(),
        Value::Array(items) => items.iter().enumerate().map(|(at, item)| (at.to_string(), item)).collect(),
        _ => vec![],
    };
    for (name, member) in inner {
        way.push(name);
        walk(member, way, look);
        way.pop();
    }
}

#[test]
fn every_object_and_every_choice_has_a_name() {
    let document = Document::new();
    let mut faults = vec![];
    walk(&document.0, &mut vec![], &mut |value, way| {
        let place = way.join("/");
        let component = way.len() == 3 && place.starts_with("components/schemas/");
        // Parts of one object: generators put them together.
        let part = way.len() > 2 && way[way.len() - 2] == "allOf";
        if value["properties"].is_object() && value["type"] == "object" && !component && !part {
            faults.push(format!("{place}: an object without a name"));
        }
        for choice in ["oneOf", "anyOf"].into_iter().filter_map(|word| value[word].as_array()).flatten() {
            if !is_named(choice) && choice["type"] != "null" {
                faults.push(format!("{place}: a choice without a name: {choice}"));
            }
        }
    });
    assert!(faults.is_empty(), "{faults:#?}");
    let schemas = document.0["components"]["schemas"].as_object().unwrap();
    let taken: Vec<_> = schemas.keys().filter(|name| TAKEN.contains(&name.as_str())).collect();
    assert!(taken.is_empty(), "{taken:?}");
}

#[test]
fn every_body_and_every_good_answer_has_a_named_schema() {
    let document = Document::new();
    for operation in document.operations() {
        let id = operation.id;
        for content in operation.described["requestBody"]["content"].as_object().into_iter().flatten() {
            assert!(is_named(&content.1["schema"]), "{id} takes {content:?}");
        }
        let answers = operation.described["responses"].as_object().unwrap();
        for (status, answer) in answers.iter().filter(|(status, _)| status.starts_with('2')) {
            for (media_type, content) in answer["content"].as_object().into_iter().flatten() {
                assert!(is_named(&content["schema"]), "{id} {status} {media_type}: {content}");
            }
        }
    }
    // Generated clients read text, and no recordings.
    let recording = &document.operation("terminals.getRecording").described["responses"]["200"]["content"];
    assert!(recording["text/plain"].is_object(), "{recording}");
}

/// The words that serde takes for a type, as its complaint about another lists them.
fn taken<T: serde::de::DeserializeOwned>() -> BTreeSet<String> {
    let complaint = serde_json::from_value::<T>(json!("?")).err().unwrap().to_string();
    complaint.split('`').skip(3).step_by(2).map(str::to_owned).collect()
}

/// Enums whose description is that of the very type that is read or written.
const OF_THEMSELVES: [&str; 16] = [
    "BarStatus",
    "ClientType",
    "DisabledBecause",
    "ExportFormat",
    "HookDirection",
    "HookStatus",
    "LogSort",
    "Progressing",
    "RevocationBarScope",
    "ScheduleStatus",
    "SessionSort",
    "Status",
    "TerminalLogFormat",
    "TerminalPeriod",
    "TerminalStatus",
    "WorkloadSort",
];

/// Enums whose words the rules define, and those words.
fn of_the_rules() -> BTreeMap<&'static str, BTreeSet<String>> {
    let all = |words: &[&str]| -> BTreeSet<String> { words.iter().map(|&word| word.to_owned()).collect() };
    let more = |words: &[&str]| all(&[words, &["inactive", "all"]].concat());
    BTreeMap::from([
        ("ActivitySource", taken::<ActivitySource>()),
        ("ActorKind", all(&ActorKind::ALL.map(ActorKind::word))),
        ("DeliveryStatus", all(&DeliveryStatus::ALL.map(DeliveryStatus::word))),
        ("Derived", all(&DerivedStatus::ALL.map(DerivedStatus::word))),
        ("EndReason", taken::<Reason>()),
        ("EndingStatus", more(&DerivedStatus::OPEN.map(DerivedStatus::word))),
        ("EnderKind", all(&EnderKind::ALL.map(EnderKind::word))),
        ("MediaReadingOutcome", taken::<Reading>()),
        ("MissedRuns", taken::<Missed>()),
        ("OnLimitWord", taken::<OnLimit>()),
        ("OpenSessionStage", all(&Phase::ALL.map(Phase::word))),
        ("OpenSessionStatus", all(&DerivedStatus::OPEN.map(DerivedStatus::word))),
        ("PresetWord", taken::<Preset>()),
        ("Scope", all(&Scope::ALL.map(Scope::word))),
        ("SessionKind", all(&Kind::ALL.map(Kind::word))),
        ("SessionStage", all(&Stage::ALL.map(Stage::word))),
        ("StatusFilter", more(&DerivedStatus::ALL.map(DerivedStatus::word))),
        ("WorkOutcome", taken::<Outcome>()),
    ])
}

#[test]
fn every_enum_of_the_document_is_one_of_the_code_with_all_its_words() {
    let document = Document::new();
    let rules = of_the_rules();
    let mut found = BTreeSet::new();
    walk(&document.0, &mut vec![], &mut |value, way| {
        let Some(words) = value["enum"].as_array() else { return };
        let place = way.join("/");
        // The one word that tells a choice from the others.
        if words.len() == 1 && place.ends_with("/properties/type") {
            return;
        }
        let name = place.strip_prefix("components/schemas/").unwrap_or_else(|| panic!("{place} has no name"));
        let said: BTreeSet<String> = words.iter().map(|word| word.as_str().unwrap().to_owned()).collect();
        match rules.get(name) {
            Some(all) => assert_eq!(&said, all, "{name}"),
            None => assert!(OF_THEMSELVES.contains(&name), "{name}: whose words are {said:?}?"),
        }
        found.insert(name.to_owned());
    });
    assert_eq!(found.len(), rules.len() + OF_THEMSELVES.len(), "{found:?}");
    let mut looked_at = 0;
    for operation in document.operations() {
        for one in operation.described["parameters"].as_array().into_iter().flatten() {
            let expected = match one["name"].as_str().unwrap() {
                "kind" => "SessionKind",
                "stage" => "SessionStage",
                _ => continue,
            };
            assert_eq!(
                one["schema"]["$ref"],
                format!("#/components/schemas/{expected}"),
                "{}: {one}",
                operation.id
            );
            looked_at += 1;
        }
    }
    assert!(looked_at > 5, "{looked_at}");
    // What is listed in words as well is forgotten there when there is more of it.
    let text = document.0.to_string();
    for by_hand in ["`media`, `webui`", "`api_key` or `user`"] {
        assert!(!text.contains(by_hand), "{by_hand} stands in the document");
    }
}

#[test]
fn no_type_is_there_for_the_document_alone_and_no_id_is_told_by_its_place() {
    for path in sources() {
        let text = std::fs::read_to_string(&path).unwrap();
        for wrong in ["allow(dead_code)", "[Uuid; N]"] {
            assert!(!text.contains(wrong), "{}: {wrong}", path.display());
        }
    }
}

#[test]
fn every_limit_says_what_it_is_if_nothing_is_said_and_how_far_it_goes() {
    let document = Document::new();
    let mut looked_at = 0;
    for operation in document.operations() {
        for one in operation.described["parameters"].as_array().into_iter().flatten() {
            if one["name"] == "limit" {
                for said in ["minimum", "maximum", "default"] {
                    assert!(one["schema"][said].is_number(), "{}: {said} of {one}", operation.id);
                }
                looked_at += 1;
            }
        }
    }
    assert!(looked_at > 20, "{looked_at}");
}
