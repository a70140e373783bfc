//! Applications and service accounts, as those who manage them see them.

mod applications;
mod rights;
mod service_accounts;

use serde_json::{Value, json};

use crate::support::{Holder, Server};

const APPLICATIONS: &str = "/api/v1/applications";
const ACCOUNTS: &str = "/api/v1/service-accounts";
const UNKNOWN: &str = "44444444-4444-4444-8444-444444444444";

fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_else(|| panic!("no {pointer} in {value}"))
}

/// What was created, by whom, under a name.
async fn created(holder: &Holder, path: &str, body: Value) -> Value {
    let (status, answer) = holder.post(path, body).await;
    assert_eq!(status, 201, "{answer}");
    answer
}

fn names(list: &Value) -> Vec<&str> {
    list["items"].as_array().unwrap().iter().map(|item| text(item, "/name")).collect()
}

/// Every member of an answer, with what differs from run to run replaced by a word; those that name an instant are
/// checked to have the form they should.
fn plain(mut answer: Value, server: &Server) -> Value {
    fn walk(value: &mut Value, base: &str) {
        match value {
            Value::Object(members) => {
                for (name, member) in members {
                    match (name.as_str(), member.as_str()) {
                        (name, Some(at)) if name.ends_with("At") => {
                            let digits: String =
                                at.chars().map(|one| if one.is_ascii_digit() { '0' } else { one }).collect();
                            assert_eq!(digits, "0000-00-00T00:00:00.000Z", "{name}");
                            *member = json!("<time>");
                        }
                        ("clientSecret", Some(secret)) => {
                            assert!(secret.starts_with("sck_") && secret.len() >= 40, "{secret}");
                            *member = json!("<secret>");
                        }
                        _ => walk(member, base),
                    }
                }
            }
            Value::Array(items) => items.iter_mut().for_each(|item| walk(item, base)),
            Value::String(text) => {
                *text = text.replace(base, "<base>");
                let words: Vec<_> = text.split(['/', '_']).map(str::to_owned).collect();
                for word in words.iter().filter(|word| word.len() == 36 && word.matches('-').count() == 4) {
                    *text = text.replace(word.as_str(), "<id>");
                }
            }
            _ => {}
        }
    }
    walk(&mut answer, &server.url(""));
    answer
}
