//! Words in the document that the rules define: taken from there, so that the document leaves none out. And names for
//! what would have none, since generators make up their own.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Serialize;
use sessiond_core::actor::ActorKind;
use sessiond_core::kind::Kind;
use sessiond_core::phase::{Phase, Stage};
use sessiond_core::status::DerivedStatus;
use utoipa::openapi::schema::{Discriminator, Object, Type};
use utoipa::openapi::{ObjectBuilder, OpenApi, Ref, RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

/// What sort of session.
pub struct KindWord;
/// How far the work behind a session has come.
pub struct StageWord;
/// The same of an open session.
pub struct OpenStageWord;
/// Which statuses are wanted.
pub struct StatusWord;
/// What an open session is at the moment of asking.
pub struct OpenStatusWord;
/// Which open sessions are meant, by status.
pub struct EndingWord;
/// Who did something.
pub struct ActorWord;

/// Text as it is, for people.
#[derive(Serialize, ToSchema)]
pub struct PlainText(String);

fn words(about: &str, words: impl IntoIterator<Item = &'static str>) -> RefOr<Schema> {
    let one = ObjectBuilder::new().schema_type(Type::String).description(Some(about));
    one.enum_values(Some(words)).into()
}

impl PartialSchema for KindWord {
    fn schema() -> RefOr<Schema> {
        words("What sort of session.", Kind::ALL.map(Kind::word))
    }
}

impl ToSchema for KindWord {
    fn name() -> Cow<'static, str> {
        "SessionKind".into()
    }
}

impl PartialSchema for StageWord {
    fn schema() -> RefOr<Schema> {
        words("How far the work behind a session has come.", Stage::ALL.map(Stage::word))
    }
}

impl ToSchema for StageWord {
    fn name() -> Cow<'static, str> {
        "SessionStage".into()
    }
}

impl PartialSchema for OpenStageWord {
    fn schema() -> RefOr<Schema> {
        words("How far the work behind an open session has come.", Phase::ALL.map(Phase::word))
    }
}

impl ToSchema for OpenStageWord {
    fn name() -> Cow<'static, str> {
        "OpenSessionStage".into()
    }
}

impl PartialSchema for StatusWord {
    fn schema() -> RefOr<Schema> {
        let statuses = DerivedStatus::ALL.map(DerivedStatus::word);
        words("Which statuses are wanted.", statuses.into_iter().chain(["inactive", "all"]))
    }
}

impl ToSchema for StatusWord {
    fn name() -> Cow<'static, str> {
        "StatusFilter".into()
    }
}

impl PartialSchema for OpenStatusWord {
    fn schema() -> RefOr<Schema> {
        let statuses = DerivedStatus::OPEN.map(DerivedStatus::word);
        words("What an open session is at the moment of asking.", statuses)
    }
}

impl ToSchema for OpenStatusWord {
    fn name() -> Cow<'static, str> {
        "OpenSessionStatus".into()
    }
}

impl PartialSchema for EndingWord {
    fn schema() -> RefOr<Schema> {
        let statuses = DerivedStatus::OPEN.map(DerivedStatus::word);
        words("Which open sessions are meant.", statuses.into_iter().chain(["inactive", "all"]))
    }
}

impl ToSchema for EndingWord {
    fn name() -> Cow<'static, str> {
        "EndingStatus".into()
    }
}

impl PartialSchema for ActorWord {
    fn schema() -> RefOr<Schema> {
        words("Who did something.", ActorKind::ALL.map(ActorKind::word))
    }
}

impl ToSchema for ActorWord {
    fn name() -> Cow<'static, str> {
        "ActorKind".into()
    }
}

/// Gives each choice that its `type` tells a name of its own: that of the whole, with the word behind it.
pub fn describe(document: &mut OpenApi) {
    let Some(components) = &mut document.components else { return };
    let mut named = BTreeMap::new();
    for (whole, schema) in &mut components.schemas {
        let RefOr::T(Schema::OneOf(choices)) = schema else { continue };
        let mut mapping = BTreeMap::new();
        for choice in &mut choices.items {
            let RefOr::T(Schema::Object(object)) = choice else { continue };
            let Some(word) = told_by(object) else { continue };
            let name = format!("{whole}{}", camel(&word));
            let reference = Ref::from_schema_name(&name);
            mapping.insert(word, reference.ref_location.clone());
            let object = std::mem::replace(choice, RefOr::Ref(reference));
            named.insert(name, object);
        }
        if !mapping.is_empty() {
            let mut discriminator = Discriminator::new("type");
            discriminator.mapping = mapping;
            choices.discriminator = Some(discriminator);
        }
    }
    components.schemas.extend(named);
}

/// The one word that `type` may be.
fn told_by(object: &Object) -> Option<String> {
    let RefOr::T(Schema::Object(told)) = object.properties.get("type")? else { return None };
    match told.enum_values.as_deref()? {
        [word] => word.as_str().map(str::to_owned),
        _ => None,
    }
}

fn camel(word: &str) -> String {
    let part = |part: &str| {
        let mut letters = part.chars();
        letters
            .next()
            .map(|first| first.to_uppercase().chain(letters).collect::<String>())
            .unwrap_or_default()
    };
    word.split('_').map(part).collect()
}
