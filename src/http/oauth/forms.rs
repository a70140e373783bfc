//! The forms that clients send to the OAuth endpoints, for the document. They are read by the names of their fields.

use std::borrow::Cow;

use utoipa::openapi::schema::{Object, Type};
use utoipa::openapi::{ObjectBuilder, RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

/// What a client asks for.
pub struct TokenRequest;
/// Which token is meant.
pub struct TokenForm;

fn text(description: &str) -> ObjectBuilder {
    let description = Some(description).filter(|text| !text.is_empty());
    ObjectBuilder::new().schema_type(Type::String).description(description)
}

/// The schema of a form with a client's id and secret.
fn form(description: &str) -> ObjectBuilder {
    ObjectBuilder::new()
        .schema_type(Type::Object)
        .description(Some(format!(
            "{description} Client id and secret come in HTTP Basic or here, not in both."
        )))
        .property("client_id", Object::with_type(Type::String))
        .property("client_secret", Object::with_type(Type::String))
}

impl PartialSchema for TokenRequest {
    fn schema() -> RefOr<Schema> {
        let grant_type = text("`client_credentials`").examples(["client_credentials"]);
        let scope = text("Scopes, separated by spaces; all that the client may have if left out.");
        let audience = "What the token is for: our public URL, the base of the API or of the gateway, each of which stands for \
                        all that the token's scopes open; or one application's gateway, `…/mcp/{applicationId}`, and then \
                        it opens nothing else.";
        form("What a client asks for.")
            .property("grant_type", grant_type)
            .required("grant_type")
            .property("scope", scope.examples(["management:all"]))
            .property("audience", text(audience))
            .property("resource", text("The same, as RFC 8707 calls it."))
            .into()
    }
}

impl ToSchema for TokenRequest {
    fn name() -> Cow<'static, str> {
        "TokenRequest".into()
    }
}

impl PartialSchema for TokenForm {
    fn schema() -> RefOr<Schema> {
        form("Which token.")
            .property("token", text(""))
            .required("token")
            .property("token_type_hint", text("Not needed: a token says itself what it is."))
            .into()
    }
}

impl ToSchema for TokenForm {
    fn name() -> Cow<'static, str> {
        "TokenForm".into()
    }
}
