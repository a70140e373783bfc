//! Where an operation comes from.

use std::sync::Arc;

use serde_json::Value;
use sessiond_core::actor::Actor;
use sessiond_core::caller::{Authority, Caller};
use sessiond_core::idempotency::IdempotencyKey;

use super::Operation;
use crate::error::Error;

/// Who wants something, as the envelope of its events will tell.
#[derive(Debug, Clone)]
pub struct Origin {
    pub actor: Actor,
    pub request_id: Option<String>,
    pub traceparent: Option<String>,
    /// The request that this is the effect of, where it is to take effect once. Its outcome is recorded with it; so a
    /// request hands in one operation, or one for each part of it.
    pub once: Option<Arc<IdempotencyKey>>,
    /// What the operation rests on: judged again in the batch, because what came before it in there may have ended it.
    pub authority: Option<Authority>,
}

impl Origin {
    /// sessiond itself.
    pub fn system() -> Self {
        Self { actor: Actor::SYSTEM, request_id: None, traceparent: None, once: None, authority: None }
    }

    /// A caller, with the request it made.
    pub fn caller(caller: &Caller) -> Self {
        Self {
            actor: caller.actor,
            request_id: caller.request_id.clone(),
            traceparent: caller.traceparent.clone(),
            once: caller.once.clone(),
            authority: Some(caller.authority()),
        }
    }

    /// What follows from what a caller did while it might: it goes on record, whatever became of the credential since.
    pub fn consequence_of(caller: &Caller) -> Self {
        Self { once: None, authority: None, ..Self::caller(caller) }
    }

    /// Whoever stands at the console.
    pub fn operator() -> Self {
        Self { actor: Actor::OPERATOR, ..Self::system() }
    }

    /// sessiond, on behalf of whoever asked.
    pub fn as_system(&self) -> Self {
        Self { actor: Actor::SYSTEM, once: None, ..self.clone() }
    }

    /// What an operation came to before, if its request repeats one that took effect.
    pub fn recorded<O: Operation>(&self) -> Result<Option<O::Outcome>, Error> {
        let recorded = self.once.as_ref().and_then(|once| once.recorded.as_deref());
        recorded.map(read_outcome::<O>).transpose()
    }
}

/// Reads a recorded outcome. Each was within the name of its kind before outcomes had types, and records are
/// replayed for a day: what does not read as it stands is looked for inside.
fn read_outcome<O: Operation>(text: &str) -> Result<O::Outcome, Error> {
    let unreadable = |error| Error::Internal(format!("a recorded outcome cannot be read: {error}"));
    let first = match serde_json::from_str(text) {
        Ok(outcome) => return Ok(outcome),
        Err(error) => error,
    };
    let mut value: Value = serde_json::from_str(text).map_err(unreadable)?;
    loop {
        value = match value {
            Value::Object(mut object) if object.contains_key("session") => object["session"].take(),
            Value::Object(object) if object.len() == 1 => {
                object.into_iter().next().map_or(Value::Null, |(_, inner)| inner)
            }
            Value::String(word) if word == "nothing" => Value::Null,
            _ => return Err(unreadable(first)),
        };
        if let Ok(outcome) = serde_json::from_value(value.clone()) {
            return Ok(outcome);
        }
    }
}
