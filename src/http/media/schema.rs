//! The schemas of bodies that hold another type: each has a name made of that type's, and refers to its schema.

use std::borrow::Cow;

use utoipa::openapi::schema::Type;
use utoipa::openapi::{ArrayBuilder, ObjectBuilder, OneOfBuilder, Ref, RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use super::MediaAnswer;
use super::several::{Each, MediaItem};

/// The schema of one item or an array of them.
pub struct OneOrMore<One, Item>(std::marker::PhantomData<(One, Item)>);

type Schemas = Vec<(String, RefOr<Schema>)>;

fn of<T: ToSchema>() -> Ref {
    Ref::from_schema_name(T::name())
}

/// Adds the schema of a type, and those that it refers to.
fn add<T: ToSchema>(schemas: &mut Schemas) {
    schemas.push((T::name().into_owned(), T::schema()));
    T::schemas(schemas);
}

/// The members that every response and item has.
fn outcome(about: &str, message: &str, status: &str) -> ObjectBuilder {
    let text = ObjectBuilder::new().schema_type(Type::String).description(Some(message));
    let number = ObjectBuilder::new()
        .schema_type(Type::Integer)
        .format(Some(utoipa::openapi::SchemaFormat::KnownFormat(utoipa::openapi::KnownFormat::Int32)))
        .minimum(Some(0))
        .description(Some(status));
    ObjectBuilder::new()
        .description(Some(about))
        .property("message", text)
        .required("message")
        .property("statusCode", number)
        .required("statusCode")
}

impl<T: ToSchema> PartialSchema for MediaAnswer<T> {
    fn schema() -> RefOr<Schema> {
        let about = "An answer with something in it. Members are in the order of their names.";
        let answer = outcome(about, "The status in words.", "The same as the HTTP status.");
        answer.property("response", of::<T>()).required("response").into()
    }
}

impl<T: ToSchema> ToSchema for MediaAnswer<T> {
    fn name() -> Cow<'static, str> {
        format!("{}Answer", T::name()).into()
    }

    fn schemas(schemas: &mut Schemas) {
        add::<T>(schemas);
    }
}

impl<T: ToSchema> PartialSchema for MediaItem<T> {
    fn schema() -> RefOr<Schema> {
        let item = outcome(
            "What became of one of several.",
            "The status in words, or what was wrong.",
            "As the HTTP status if this had come alone.",
        );
        item.property("response", of::<T>()).into()
    }
}

impl<T: ToSchema> ToSchema for MediaItem<T> {
    fn name() -> Cow<'static, str> {
        format!("{}Item", T::name()).into()
    }

    fn schemas(schemas: &mut Schemas) {
        add::<T>(schemas);
    }
}

impl<Item: ToSchema> PartialSchema for Each<Item> {
    fn schema() -> RefOr<Schema> {
        ArrayBuilder::new().items(of::<Item>()).into()
    }
}

impl<Item: ToSchema> ToSchema for Each<Item> {
    fn name() -> Cow<'static, str> {
        format!("{}s", Item::name()).into()
    }

    fn schemas(schemas: &mut Schemas) {
        add::<Item>(schemas);
    }
}

impl<One: ToSchema, Item: ToSchema> PartialSchema for OneOrMore<One, Item> {
    fn schema() -> RefOr<Schema> {
        let one = OneOfBuilder::new().description(Some("One, or an array."));
        one.item(of::<One>()).item(of::<Each<Item>>()).into()
    }
}

impl<One: ToSchema, Item: ToSchema> ToSchema for OneOrMore<One, Item> {
    fn name() -> Cow<'static, str> {
        format!("{}Or{}s", One::name(), Item::name()).into()
    }

    fn schemas(schemas: &mut Schemas) {
        add::<One>(schemas);
        add::<Each<Item>>(schemas);
    }
}
