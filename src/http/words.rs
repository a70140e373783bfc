//! The schemas of words that the rules define: taken from there, so that the document leaves none out. And names for schemas
//! that would have none, because generators of clients would make up their own.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::marker::PhantomData;

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

/// The words of the rules that a text in the document may be, under a name of their own.
pub trait WordList {
    /// The name of the schema.
    const NAME: &'static str;
    const DESCRIPTION: &'static str;
    /// All words, taken from the rules.
    fn words() -> Vec<&'static str>;
}

/// The schema of a text that is one of the words of a list.
pub struct Word<List>(PhantomData<List>);

impl<List: WordList> PartialSchema for Word<List> {
    fn schema() -> RefOr<Schema> {
        let word = ObjectBuilder::new().schema_type(Type::String).description(Some(List::DESCRIPTION));
        word.enum_values(Some(List::words())).into()
    }
}

impl<List: WordList> ToSchema for Word<List> {
    fn name() -> Cow<'static, str> {
        List::NAME.into()
    }
}

// Handlers and bodies refer to the schemas by these names.
pub type KindWord = Word<Kind>;
pub type StageWord = Word<Stage>;
pub type OpenStageWord = Word<Phase>;
pub type StatusWord = Word<StatusFilter>;
pub type OpenStatusWord = Word<OpenStatus>;
pub type EndingWord = Word<EndingStatus>;
pub type ActorWord = Word<ActorKind>;
pub type EnderWord = Word<EnderKind>;
pub type PresetWord = Word<Preset>;
pub type OnLimitWord = Word<OnLimit>;
pub type MissedWord = Word<Missed>;
pub type ReadingWord = Word<Reading>;
pub type OutcomeWord = Word<Outcome>;
pub type SourceWord = Word<ActivitySource>;
pub type ScopeWord = Word<Scope>;
pub type ReasonWord = Word<Reason>;
pub type DeliveryWord = Word<DeliveryStatus>;

/// The statuses that a filter may name.
pub struct StatusFilter;
/// The statuses that an open session may have.
pub struct OpenStatus;
/// The statuses that a call which ends sessions may name.
pub struct EndingStatus;

/// Text as it is, for people.
#[derive(Serialize, ToSchema)]
pub struct PlainText(String);

/// The groups of statuses that filters know beside the statuses themselves.
const GROUPS: [&str; 2] = ["inactive", "all"];

impl WordList for Kind {
    const NAME: &'static str = "SessionKind";
    const DESCRIPTION: &'static str = "What sort of session.";

    fn words() -> Vec<&'static str> {
        Kind::ALL.map(Kind::word).to_vec()
    }
}

impl WordList for Stage {
    const NAME: &'static str = "SessionStage";
    const DESCRIPTION: &'static str = "How far the work behind a session has come.";

    fn words() -> Vec<&'static str> {
        Stage::ALL.map(Stage::word).to_vec()
    }
}

impl WordList for Phase {
    const NAME: &'static str = "OpenSessionStage";
    const DESCRIPTION: &'static str = "How far the work behind an open session has come.";

    fn words() -> Vec<&'static str> {
        Phase::ALL.map(Phase::word).to_vec()
    }
}

impl WordList for StatusFilter {
    const NAME: &'static str = "StatusFilter";
    const DESCRIPTION: &'static str = "Which statuses are wanted.";

    fn words() -> Vec<&'static str> {
        DerivedStatus::ALL.map(DerivedStatus::word).into_iter().chain(GROUPS).collect()
    }
}

impl WordList for OpenStatus {
    const NAME: &'static str = "OpenSessionStatus";
    const DESCRIPTION: &'static str = "What an open session is at the moment of asking.";

    fn words() -> Vec<&'static str> {
        DerivedStatus::OPEN.map(DerivedStatus::word).to_vec()
    }
}

impl WordList for EndingStatus {
    const NAME: &'static str = "EndingStatus";
    const DESCRIPTION: &'static str = "Which open sessions are meant.";

    fn words() -> Vec<&'static str> {
        DerivedStatus::OPEN.map(DerivedStatus::word).into_iter().chain(GROUPS).collect()
    }
}

impl WordList for ActorKind {
    const NAME: &'static str = "ActorKind";
    const DESCRIPTION: &'static str = "Who did something.";

    fn words() -> Vec<&'static str> {
        ActorKind::ALL.map(ActorKind::word).to_vec()
    }
}

impl WordList for EnderKind {
    const NAME: &'static str = "EnderKind";
    const DESCRIPTION: &'static str = "Who ended a session.";

    fn words() -> Vec<&'static str> {
        Self::ALL.map(Self::word).to_vec()
    }
}

/// The schema of who ended a session.
pub struct Ender;

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

impl WordList for Preset {
    const NAME: &'static str = "PresetWord";
    const DESCRIPTION: &'static str = "A named set of figures.";

    fn words() -> Vec<&'static str> {
        words_of::<Self>()
    }
}

impl WordList for OnLimit {
    const NAME: &'static str = "OnLimitWord";
    const DESCRIPTION: &'static str = "What happens at a limit.";

    fn words() -> Vec<&'static str> {
        words_of::<Self>()
    }
}

impl WordList for Missed {
    const NAME: &'static str = "MissedRuns";
    const DESCRIPTION: &'static str = "What becomes of missed runs.";

    fn words() -> Vec<&'static str> {
        words_of::<Self>()
    }
}

impl WordList for Reading {
    const NAME: &'static str = "MediaReadingOutcome";
    const DESCRIPTION: &'static str = "`counted`; `repeated`: there is one of this instant that says as much, or more; `late`: it comes after \
                     four newer ones, or is older than the session, and changes nothing; `restarted`: the counter went \
                     back, so what it says now has come on top; `jumped`: it counts in the total, and is too much to be a \
                     throughput.";

    fn words() -> Vec<&'static str> {
        words_of::<Self>()
    }
}

impl WordList for Outcome {
    const NAME: &'static str = "WorkOutcome";
    const DESCRIPTION: &'static str = "What came of work that ended by itself.";

    fn words() -> Vec<&'static str> {
        words_of::<Self>()
    }
}

impl WordList for ActivitySource {
    const NAME: &'static str = "ActivitySource";
    const DESCRIPTION: &'static str = "Where a sign of life came from.";

    fn words() -> Vec<&'static str> {
        words_of::<Self>()
    }
}

impl WordList for Scope {
    const NAME: &'static str = "Scope";
    const DESCRIPTION: &'static str = "What a credential may do.";

    fn words() -> Vec<&'static str> {
        Scope::ALL.map(Scope::word).to_vec()
    }
}

impl WordList for Reason {
    const NAME: &'static str = "EndReason";
    const DESCRIPTION: &'static str = "Why a session ended.";

    fn words() -> Vec<&'static str> {
        words_of::<Self>()
    }
}

impl WordList for DeliveryStatus {
    const NAME: &'static str = "DeliveryStatus";
    const DESCRIPTION: &'static str = "How a delivery stands.";

    fn words() -> Vec<&'static str> {
        DeliveryStatus::ALL.map(DeliveryStatus::word).to_vec()
    }
}

/// An object schema in which a member refers to another schema by its name, with the description that the member has.
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

/// All words that serde accepts for an enum.
fn words_of<T: for<'de> Deserialize<'de>>() -> Vec<&'static str> {
    let mut asked = Asked::default();
    // The enum is only asked for the words that it would accept: there is nothing to read.
    let _ = T::deserialize(&mut asked);
    asked.0.to_vec()
}

/// A deserializer that remembers for which words an enum asks, and has no value.
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

/// Gives each choice of an enum that its `type` tells apart a name: that of the enum, with the word behind it.
pub fn describe(document: &mut OpenApi) {
    let Some(components) = &mut document.components else { return };
    let mut named = BTreeMap::new();
    for (whole, schema) in &mut components.schemas {
        let RefOr::T(Schema::OneOf(choices)) = schema else { continue };
        let mut mapping = BTreeMap::new();
        for choice in &mut choices.items {
            let RefOr::T(Schema::Object(object)) = choice else { continue };
            let Some(word) = tag_of(object) else { continue };
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

/// The one word that the `type` of a choice may be.
fn tag_of(object: &Object) -> Option<String> {
    let RefOr::T(Schema::Object(kind)) = object.properties.get("type")? else { return None };
    match kind.enum_values.as_deref()? {
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
