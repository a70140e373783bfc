//! Words in the document that the rules define: taken from there, so that the document leaves none out. And names for
//! what would have none, since generators make up their own.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::de::value::{Error as NotAWord, StrDeserializer};
use serde::de::{Deserialize, Deserializer, IntoDeserializer, Visitor};
use serde::{Serialize, forward_to_deserialize_any};
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
use utoipa::openapi::schema::{Discriminator, Object, Type};
use utoipa::openapi::{ObjectBuilder, OpenApi, Ref, RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use crate::telling::EndedByBody;

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

/// Who ended a session: a word.
pub struct EnderWord;
/// Who ended a session, whole.
pub struct Ender;

/// A named set of figures.
pub struct PresetWord;
/// What happens at a limit.
pub struct OnLimitWord;
/// What becomes of missed runs.
pub struct MissedWord;
/// What became of a reading.
pub struct ReadingWord;

/// What came of work that ended by itself.
pub struct OutcomeWord;
/// Where a sign of life came from.
pub struct SourceWord;

/// What a credential may do.
pub struct ScopeWord;
/// Why a session ended.
pub struct ReasonWord;
/// How a delivery stands.
pub struct DeliveryWord;

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

impl PartialSchema for EnderWord {
    fn schema() -> RefOr<Schema> {
        words("Who ended a session.", EnderKind::ALL.map(EnderKind::word))
    }
}

impl ToSchema for EnderWord {
    fn name() -> Cow<'static, str> {
        "EnderKind".into()
    }
}

impl PartialSchema for Ender {
    fn schema() -> RefOr<Schema> {
        named(EndedByBody::schema(), "kind", &EnderWord::name())
    }
}

impl ToSchema for Ender {
    fn name() -> Cow<'static, str> {
        "Ender".into()
    }

    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        schemas.push((EnderWord::name().into_owned(), EnderWord::schema()));
    }
}

impl PartialSchema for PresetWord {
    fn schema() -> RefOr<Schema> {
        words("A named set of figures.", words_of::<Preset>())
    }
}

impl ToSchema for PresetWord {
    fn name() -> Cow<'static, str> {
        "PresetWord".into()
    }
}

impl PartialSchema for OnLimitWord {
    fn schema() -> RefOr<Schema> {
        words("What happens at a limit.", words_of::<OnLimit>())
    }
}

impl ToSchema for OnLimitWord {
    fn name() -> Cow<'static, str> {
        "OnLimitWord".into()
    }
}

impl PartialSchema for MissedWord {
    fn schema() -> RefOr<Schema> {
        words("What becomes of missed runs.", words_of::<Missed>())
    }
}

impl ToSchema for MissedWord {
    fn name() -> Cow<'static, str> {
        "MissedRuns".into()
    }
}

impl PartialSchema for ReadingWord {
    fn schema() -> RefOr<Schema> {
        let about = "`counted`; `repeated`: there is one of this instant that says as much, or more; `late`: it comes after \
                     four newer ones, or is older than the session, and changes nothing; `restarted`: the counter went \
                     back, so what it says now has come on top; `jumped`: it counts in the total, and is too much to be a \
                     throughput.";
        words(about, words_of::<Reading>())
    }
}

impl ToSchema for ReadingWord {
    fn name() -> Cow<'static, str> {
        "MediaReadingOutcome".into()
    }
}

impl PartialSchema for OutcomeWord {
    fn schema() -> RefOr<Schema> {
        words("What came of work that ended by itself.", words_of::<Outcome>())
    }
}

impl ToSchema for OutcomeWord {
    fn name() -> Cow<'static, str> {
        "WorkOutcome".into()
    }
}

impl PartialSchema for SourceWord {
    fn schema() -> RefOr<Schema> {
        words("Where a sign of life came from.", words_of::<ActivitySource>())
    }
}

impl ToSchema for SourceWord {
    fn name() -> Cow<'static, str> {
        "ActivitySource".into()
    }
}

impl PartialSchema for ScopeWord {
    fn schema() -> RefOr<Schema> {
        words("What a credential may do.", Scope::ALL.map(Scope::word))
    }
}

impl ToSchema for ScopeWord {
    fn name() -> Cow<'static, str> {
        "Scope".into()
    }
}

impl PartialSchema for ReasonWord {
    fn schema() -> RefOr<Schema> {
        words("Why a session ended.", words_of::<Reason>())
    }
}

impl ToSchema for ReasonWord {
    fn name() -> Cow<'static, str> {
        "EndReason".into()
    }
}

impl PartialSchema for DeliveryWord {
    fn schema() -> RefOr<Schema> {
        words("How a delivery stands.", DeliveryStatus::ALL.map(DeliveryStatus::word))
    }
}

impl ToSchema for DeliveryWord {
    fn name() -> Cow<'static, str> {
        "DeliveryStatus".into()
    }
}

/// An object of which a member is another schema, by its name, with the description it has.
pub fn named(mut schema: RefOr<Schema>, member: &str, name: &str) -> RefOr<Schema> {
    if let RefOr::T(Schema::Object(object)) = &mut schema
        && let Some(place) = object.properties.get_mut(member)
    {
        let description = match place {
            RefOr::T(Schema::Object(text)) => text.description.clone().unwrap_or_default(),
            _ => String::new(),
        };
        let mut reference = Ref::from_schema_name(name);
        reference.description = description;
        *place = RefOr::Ref(reference);
    }
    schema
}

/// Reads one of the words that serde takes for a type.
pub fn read_word<'a, T: Deserialize<'a>>(text: &'a str) -> Option<T> {
    let words: StrDeserializer<'a, NotAWord> = text.into_deserializer();
    T::deserialize(words).ok()
}

/// All words that serde takes for an enum.
fn words_of<T: for<'de> Deserialize<'de>>() -> Vec<&'static str> {
    let mut asked = Asked::default();
    // It is only asked for what it would take: there is nothing to read.
    let _ = T::deserialize(&mut asked);
    asked.0.to_vec()
}

/// Remembers for which words an enum asks, and has none.
#[derive(Default)]
struct Asked(&'static [&'static str]);

impl<'de> Deserializer<'de> for &mut Asked {
    type Error = NotAWord;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, NotAWord> {
        Err(serde::de::Error::custom("there is nothing to read"))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        words: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, NotAWord> {
        self.0 = words;
        self.deserialize_any(visitor)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf option unit unit_struct newtype_struct seq
        tuple tuple_struct map struct identifier ignored_any
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
