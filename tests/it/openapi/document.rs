//! The document, and answers held against it.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use reqwest::{Method, RequestBuilder, Response};
use serde_json::{Value, json};

use crate::support::Holder;

const METHODS: [Method; 5] = [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE];

/// The document, as JSON; and its paths with everything in its place that they refer to, save schemas.
pub struct Document(pub Value, Value);

/// One operation of it.
pub struct Operation<'a> {
    pub id: &'a str,
    pub method: Method,
    pub path: &'a str,
    pub described: &'a Value,
}

impl Operation<'_> {
    /// A request that presents a credential where the operation expects one.
    pub fn presenting(&self, request: RequestBuilder, token: &str) -> RequestBuilder {
        let by_key = json!([{ "apiKey": [] }]);
        if of_media(self) {
            request.header("authorization", format!("Basic {}", BASE64_STANDARD.encode(token)))
        } else if self.described["security"] == by_key {
            request.header("apiKey", token)
        } else {
            request.bearer_auth(token)
        }
    }
}

impl Document {
    pub fn new() -> Self {
        let whole = serde_json::to_value(sessiond::http::document()).unwrap();
        let mut paths = whole["paths"].clone();
        for item in paths.as_object_mut().unwrap().values_mut() {
            let item = item.as_object_mut().unwrap();
            let taken = item.remove("parameters").unwrap_or(json!([]));
            for operation in item.values_mut() {
                let own = operation["parameters"].as_array().cloned().unwrap_or_default();
                let both: Vec<_> = taken.as_array().unwrap().iter().cloned().chain(own).collect();
                operation["parameters"] = both.into();
                put_in_place(operation, &whole);
                spread_default(operation);
            }
        }
        Self(whole, paths)
    }

    pub fn operations(&self) -> impl Iterator<Item = Operation<'_>> {
        self.1.as_object().unwrap().iter().flat_map(|(path, methods)| {
            METHODS.into_iter().filter_map(move |method| {
                let described = methods.get(method.as_str().to_lowercase())?;
                let id = described["operationId"].as_str().unwrap();
                Some(Operation { id, method, path, described })
            })
        })
    }

    pub fn operation(&self, id: &str) -> Operation<'_> {
        self.operations().find(|operation| operation.id == id).unwrap_or_else(|| panic!("no operation {id}"))
    }

    /// The answer to an operation, held against its description: status, media type and every member of the body.
    pub async fn check(&self, operation: &Operation<'_>, response: Response) -> Value {
        let (id, status) = (operation.id, response.status());
        let described = &operation.described["responses"][status.as_str()];
        assert!(described.is_object(), "{id} does not describe {status}");
        let Some(content) = described.get("content") else {
            assert_eq!(response.text().await.unwrap(), "", "{id} {status} describes no body");
            return Value::Null;
        };
        let media_type =
            response.headers()["content-type"].to_str().unwrap().split(';').next().unwrap().to_owned();
        let schema = &content[&media_type]["schema"];
        assert!(schema.is_object(), "{id} {status} does not describe {media_type}");
        if media_type == "text/event-stream" {
            return Value::Null;
        }
        let text = response.text().await.unwrap();
        let body = if media_type.ends_with("json") && media_type != "application/x-ndjson" {
            serde_json::from_str(&text).unwrap()
        } else {
            Value::String(text)
        };
        if let Err(fault) = self.fits(schema, &body) {
            panic!("{id} {status}: {fault}\n{body:#}");
        }
        body
    }

    /// Whether a value is as a schema says, in the words this document uses; members that it does not name are wrong.
    fn fits(&self, schema: &Value, value: &Value) -> Result<(), String> {
        if let Some(reference) = schema["$ref"].as_str() {
            let schema =
                self.0.pointer(&reference[1..]).ok_or_else(|| format!("{reference} leads nowhere"))?;
            return self.fits(schema, value);
        }
        if let Some(parts) = schema["allOf"].as_array() {
            return self.fits(&self.together(parts), value);
        }
        if let Some(choices) = schema["oneOf"].as_array() {
            let fitting = choices.iter().filter(|choice| self.fits(choice, value).is_ok()).count();
            return if fitting == 1 { Ok(()) } else { Err(format!("{value} fits {fitting} of {schema}")) };
        }
        let types: Vec<&str> = match &schema["type"] {
            Value::Array(types) => types.iter().filter_map(Value::as_str).collect(),
            one => one.as_str().into_iter().collect(),
        };
        let kind = match value {
            Value::Null => "null",
            Value::Bool(_) => "boolean",
            Value::Number(number) if number.is_f64() || types.contains(&"number") => "number",
            Value::Number(_) => "integer",
            Value::String(_) => "string",
            Value::Array(_) => "array",
            Value::Object(_) => "object",
        };
        if !types.contains(&kind) {
            return Err(format!("{value} is no {types:?}"));
        }
        match value {
            Value::String(text) => fits_text(schema, text),
            Value::Array(items) => items.iter().try_for_each(|item| self.fits(&schema["items"], item)),
            Value::Object(members) => self.fits_object(schema, members),
            _ => Ok(()),
        }
    }

    /// One object of several, each of which describes some of its members.
    fn together(&self, parts: &[Value]) -> Value {
        let mut whole = json!({ "type": "object", "required": [], "properties": {} });
        for part in parts {
            let part = part["$ref"].as_str().and_then(|at| self.0.pointer(&at[1..])).unwrap_or(part);
            whole["required"]
                .as_array_mut()
                .unwrap()
                .extend(part["required"].as_array().into_iter().flatten().cloned());
            for (name, member) in part["properties"].as_object().into_iter().flatten() {
                whole["properties"][name] = member.clone();
            }
        }
        whole
    }

    fn fits_object(&self, schema: &Value, members: &serde_json::Map<String, Value>) -> Result<(), String> {
        let required = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
        if let Some(missing) = required.into_iter().find(|name| !members.contains_key(*name)) {
            return Err(format!("{missing} is missing"));
        }
        let Some(properties) = schema["properties"].as_object() else { return Ok(()) };
        members.iter().try_for_each(|(name, member)| {
            let schema = properties.get(name).ok_or_else(|| format!("{name} is not described"))?;
            self.fits(schema, member).map_err(|fault| format!("{name}: {fault}"))
        })
    }
}

/// Puts what is referred to where it is referred to. Schemas keep their names: they may contain themselves.
fn put_in_place(value: &mut Value, whole: &Value) {
    if let Some(at) = value["$ref"].as_str().filter(|at| !at.contains("/schemas/")) {
        *value = whole.pointer(&at[1..]).unwrap_or_else(|| panic!("{at} leads nowhere")).clone();
    }
    match value {
        Value::Object(members) => members.values_mut().for_each(|member| put_in_place(member, whole)),
        Value::Array(items) => items.iter_mut().for_each(|item| put_in_place(item, whole)),
        _ => {}
    }
}

/// Describes each status that the default answer of an operation stands for, as far as the operation can come to it.
fn spread_default(operation: &mut Value) {
    let Some(default) = operation["responses"].as_object_mut().unwrap().remove("default") else { return };
    let mut parameters = operation["parameters"].as_array().into_iter().flatten();
    let keyed = parameters.any(|one| one["name"] == "Idempotency-Key");
    let body = operation["requestBody"].is_object();
    for status in default["x-statuses"].as_array().unwrap() {
        let possible = match status.as_u64().unwrap() {
            408 | 413 => body || keyed,
            409 | 422 => keyed,
            _ => true,
        };
        let answers = operation["responses"].as_object_mut().unwrap();
        if possible {
            answers.entry(status.to_string()).or_insert_with(|| default.clone());
        }
    }
}

fn fits_text(schema: &Value, text: &str) -> Result<(), String> {
    let shape: String = text
        .chars()
        .map(|one| match one {
            '0'..='9' => '0',
            'a'..='f' => 'a',
            other => other,
        })
        .collect();
    let good = match schema["format"].as_str() {
        Some("date-time") => shape == "0000-00-00T00:00:00.000Z",
        Some("uuid") => shape.len() == 36 && shape.chars().all(|one| matches!(one, '0' | 'a' | '-')),
        _ => true,
    };
    let listed = schema["enum"].as_array().is_none_or(|all| all.iter().any(|one| one == text));
    if good && listed { Ok(()) } else { Err(format!("{text:?} is not as {schema}")) }
}

/// A path with every parameter filled in.
pub fn filled(path: &str, ids: &[(&str, &str)], rest: &str) -> String {
    let filled =
        ids.iter().fold(path.to_owned(), |path, (name, id)| path.replace(&format!("{{{name}}}"), id));
    let mut pieces = filled.split('{');
    let first = pieces.next().unwrap_or_default().to_owned();
    pieces.fold(first, |path, piece| path + rest + piece.split_once('}').map_or("", |(_, after)| after))
}

/// Whether an operation is one of the media surface.
pub fn of_media(operation: &Operation<'_>) -> bool {
    operation.described["security"] == json!([{ "accessToken": [] }])
}

/// Asks for an operation; bodies are JSON where it describes JSON, else a form.
pub async fn ask(holder: &Holder, operation: &Operation<'_>, path: &str, body: Option<&Value>) -> Response {
    let mut request = holder.http.request(operation.method.clone(), format!("{}{path}", holder.base));
    if let Some(token) = &holder.token {
        request = operation.presenting(request, token);
    }
    let content = &operation.described["requestBody"]["content"];
    if content.get("application/x-www-form-urlencoded").is_some() {
        request = request.form(body.unwrap_or(&json!({})));
    } else if let Some(body) = body {
        request = request.json(body);
    }
    request.send().await.unwrap()
}
