//! Makes components of what several operations of the document say word for word, each under a name of its own, and has the
//! operations refer to them. So each handler describes in its own place what it takes and how it answers, and need not know
//! whether others say the same.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use utoipa::openapi::path::{Operation, Parameter, ParameterIn};
use utoipa::openapi::{Components, Header, OpenApi, PathItem, Ref, RefOr};

use super::document::Surfaces;
use super::surface::Surface;

/// The names of responses that several operations give, by their descriptions.
const ANSWERS: [(&str, &str); 42] = [
    ("The file.", "Exported"),
    ("The figures.", "FiguresOfWindow"),
    ("A page of it.", "LogPageRead"),
    ("A page of sessions.", "PageOfSessions"),
    ("A page of events.", "PageOfEvents"),
    ("A page of them.", "PageOfSessions"),
    ("One session ended, or none where it had ended before.", "OneEnded"),
    ("How many there are.", "Counted"),
    ("The session, live or ended.", "SessionFound"),
    ("The session, which is over.", "SessionOver"),
    ("Recorded.", "Reported"),
    ("The feed.", "Feed"),
    ("The application as it is now.", "ApplicationChanged"),
    ("What it chose, and what is in force.", "PolicyInForce"),
    ("It is deleted.", "Deleted"),
    ("The issuers.", "IssuersTrusted"),
    ("The organization.", "OrganizationFound"),
    ("They are in the log.", "LinesFiled"),
    ("The log.", "LogText"),
    ("Their names, in order.", "Names"),
    ("The sessions of its streams, added up.", "StatisticsOfStreams"),
    ("Step by step.", "StepByStep"),
    ("What became of each.", "ReadingsTaken"),
    ("Not all were taken in, or for different reasons none.", "ReadingsTakenInPart"),
    ("A field is wrong, or there are too many.", "ReadingsWrong"),
    ("The disk is full; nothing was written.", "DiskFull"),
    ("Busy or about to stop: try again after `Retry-After` seconds.", "Busy"),
    ("Authentication failed.", "AuthenticationFailed"),
    ("The body is too large.", "BodyTooLarge"),
    ("`ok`.", "Ok"),
    ("The credential is no person's.", "NoPerson"),
    (
        "A scope is missing, or the session is of a kind that another surface keeps (`other_surface`).",
        "OtherSurface",
    ),
    ("The session has ended; `reason` says why.", "SessionEnded"),
    ("It has ended, or was ended.", "SessionEnded"),
    ("Another application has this name.", "ApplicationNameTaken"),
    ("It would bar more one by one than fits into one step (`too_many_to_bar`).", "TooManyToBar"),
    ("There are as many as there may be.", "TooMany"),
    ("The application allows no more sessions at a time.", "TooManySessions"),
    ("It is over already, or about to be.", "SessionAlmostOver"),
    ("It is over already.", "SessionAlreadyOver"),
    ("It is being terminated; its log can be read when it is over.", "BeingTerminated"),
    ("The machine cannot be reached, shows another key, or refuses.", "MachineUnreachable"),
];

/// The names of parameters that are not the only ones of their name on their surface, by how their descriptions begin.
const PARAMETERS: [(&str, &str); 7] = [
    ("Recorded at this instant or later", "RecordedFrom"),
    ("Only these types, separated", "EventTypes"),
    ("Only lines that come after", "LogAfter"),
    ("Most sessions to return.", "SessionLimit"),
    ("Most lines to return.", "LogLimit"),
    ("`position` (the default),", "LogSort"),
    ("Only this application's.", "OfApplication"),
];

/// Every operation of a document, with its path.
pub fn operations(document: &mut OpenApi) -> impl Iterator<Item = (&str, &mut Operation)> {
    document.paths.paths.iter_mut().flat_map(|(path, item)| {
        let PathItem { get, put, post, delete, patch, .. } = item;
        [get, put, post, delete, patch].into_iter().flatten().map(move |operation| (path.as_str(), operation))
    })
}

/// A parameter, described in place or as a component.
pub fn parameter<'a>(document: &'a OpenApi, one: &'a RefOr<Parameter>) -> Option<&'a Parameter> {
    let reference = match one {
        RefOr::T(one) => return Some(one),
        RefOr::Ref(reference) => reference,
    };
    let name = reference.ref_location.rsplit('/').next()?;
    match document.components.as_ref()?.parameters.get(name)? {
        RefOr::T(one) => Some(one),
        RefOr::Ref(_) => None,
    }
}

/// Moves into the components what is described more than once.
pub fn describe(document: &mut OpenApi, surfaces: &Surfaces) {
    let mut components = document.components.take().unwrap_or_default();
    share_headers(document, &mut components, surfaces);
    share_answers(document, &mut components, surfaces);
    share_parameters(document, &mut components, surfaces);
    share_within_paths(document);
    document.components = Some(components);
}

/// How often each description is in the document, and on which surfaces.
#[derive(Default)]
struct Said(BTreeMap<String, (usize, BTreeSet<&'static str>)>);

impl Said {
    fn count(&mut self, thing: &impl Serialize, surface: &Surface) {
        let (times, names) = self.0.entry(text(thing)).or_default();
        *times += 1;
        names.insert(surface.name);
    }

    /// The prefix of a component's name, if its description is there more than once: the surface's, if only one surface has
    /// it.
    fn prefix(&self, thing: &impl Serialize) -> Option<&'static str> {
        let (times, names) = self.0.get(&text(thing))?;
        match (times, names.first()) {
            (2.., Some(only)) if names.len() == 1 => Some(only),
            (2.., _) => Some(""),
            _ => None,
        }
    }
}

/// The description as text. Writing plain data with string keys cannot fail.
fn text(thing: &impl Serialize) -> String {
    serde_json::to_string(thing).unwrap_or_default()
}

/// Makes a description the component of that name, and puts a reference in its place. Where another component has the name
/// already, the description stays.
fn move_to<T: Clone + Serialize>(
    place: &mut RefOr<T>,
    kind: &str,
    name: String,
    all: &mut BTreeMap<String, RefOr<T>>,
) {
    let reference = Ref::new(format!("#/components/{kind}/{name}"));
    if text(all.entry(name).or_insert_with(|| place.clone())) == text(place) {
        *place = RefOr::Ref(reference);
    }
}

fn share_headers(document: &mut OpenApi, components: &mut Components, surfaces: &Surfaces) {
    let mut said = Said::default();
    for (path, header) in headers(document) {
        said.count(&header.1, surfaces.at(path));
    }
    for (_, (name, header)) in headers(document) {
        if said.prefix(header).is_some() {
            move_to(header, "headers", camel(name), &mut components.headers);
        }
    }
}

type NamedHeader<'a> = (&'a String, &'a mut RefOr<Header>);

fn headers(document: &mut OpenApi) -> impl Iterator<Item = (&str, NamedHeader<'_>)> {
    operations(document).flat_map(|(path, operation)| {
        let answers = operation.responses.responses.values_mut();
        let described = answers.filter_map(|answer| match answer {
            RefOr::T(answer) => Some(&mut answer.headers),
            RefOr::Ref(_) => None,
        });
        described.flatten().map(move |header| (path, header))
    })
}

fn share_answers(document: &mut OpenApi, components: &mut Components, surfaces: &Surfaces) {
    let mut said = Said::default();
    for (path, operation) in operations(document) {
        for answer in operation.responses.responses.values() {
            said.count(answer, surfaces.at(path));
        }
    }
    for (_, operation) in operations(document) {
        for answer in operation.responses.responses.values_mut() {
            if let (Some(prefix), RefOr::T(response)) = (said.prefix(answer), &*answer)
                && let Some((_, name)) = ANSWERS.iter().find(|(said, _)| *said == response.description)
            {
                move_to(answer, "responses", format!("{prefix}{name}"), &mut components.responses);
            }
        }
    }
}

fn share_parameters(document: &mut OpenApi, components: &mut Components, surfaces: &Surfaces) {
    let mut said = Said::default();
    for (path, operation) in operations(document) {
        for one in operation.parameters.iter().flatten() {
            said.count(one, surfaces.at(path));
        }
    }
    for (_, operation) in operations(document) {
        for one in operation.parameters.iter_mut().flatten() {
            if let (Some(prefix), RefOr::T(parameter)) = (said.prefix(one), &*one) {
                let name = format!("{prefix}{}", parameter_name(parameter));
                move_to(one, "parameters", name, &mut components.parameters);
            }
        }
    }
}

/// Moves parameters that all operations of a path take to the path.
fn share_within_paths(document: &mut OpenApi) {
    for item in document.paths.paths.values_mut() {
        let PathItem { parameters, get, put, post, delete, patch, .. } = item;
        let mut operations: Vec<_> = [get, put, post, delete, patch].into_iter().flatten().collect();
        let [first, others @ ..] = operations.as_slice() else { continue };
        let taken_by = |operation: &Operation, one: &RefOr<Parameter>| {
            operation.parameters.iter().flatten().any(|other| other == one)
        };
        let all = first.parameters.iter().flatten();
        let shared: Vec<_> = all
            .filter(|one| matches!(one, RefOr::Ref(one) if one.ref_location.ends_with("Path")))
            .filter(|one| others.iter().all(|other| taken_by(other, one)))
            .cloned()
            .collect();
        if others.is_empty() || shared.is_empty() {
            continue;
        }
        for operation in &mut operations {
            let own = operation.parameters.take().into_iter().flatten();
            let own: Vec<_> = own.filter(|one| !shared.contains(one)).collect();
            operation.parameters = Some(own).filter(|own| !own.is_empty());
        }
        *parameters = Some(shared);
    }
}

fn parameter_name(parameter: &Parameter) -> String {
    let description = parameter.description.as_deref().unwrap_or_default();
    let place = match parameter.parameter_in {
        ParameterIn::Path => "Path",
        ParameterIn::Header => "Header",
        ParameterIn::Query => "Query",
        ParameterIn::Cookie => "Cookie",
        ParameterIn::QueryString => "QueryString",
    };
    match PARAMETERS.iter().find(|(said, _)| description.starts_with(said)) {
        Some((_, name)) => format!("{name}{place}"),
        None => format!("{}{place}", camel(&parameter.name)),
    }
}

/// A name in the form of names of types.
fn camel(name: &str) -> String {
    let part = |part: &str| {
        let mut letters = part.chars();
        let first = letters.next().map(|first| first.to_uppercase().chain(letters).collect::<String>());
        first.unwrap_or_default()
    };
    name.split(['-', '_']).map(part).collect()
}
