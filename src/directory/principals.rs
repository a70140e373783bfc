//! Principals: the people and clients behind sessions.

use std::sync::Arc;

use sessiond_core::Time;
use sessiond_core::caller::Caller;
use sessiond_core::filter::Filter;
use sessiond_core::ids::{OrganizationNumber, PrincipalNumber};
use sessiond_core::principal::{PrincipalEvent, Standing};
use sessiond_store::{PrincipalRow, called};
use uuid::Uuid;

use super::check_gift;
use crate::committer::IntroducePrincipal;
use crate::context::AppContext;
use crate::error::{Error, Thing};

/// Which principals to list.
#[derive(Debug, Default)]
pub struct PersonQuery {
    pub issuer: Option<String>,
    pub subject: Option<String>,
    /// What words of the name or e-mail address begin with, separated by whatever is neither letter nor digit.
    pub words: Option<String>,
    /// The last of the page before.
    pub after: Option<Uuid>,
    pub limit: u32,
}

/// Most words that people are searched by, and fewest characters of the longest of them.
const MOST_WORDS: usize = 4;
const SHORTEST: usize = 2;

/// What words have to begin with. One letter alone would find a tenth of all there are.
fn prefixes(text: &str) -> Result<Vec<String>, Error> {
    let words: Vec<_> = called::words(text).collect();
    let long_enough = words.iter().any(|word| word.chars().count() >= SHORTEST);
    if !long_enough || words.len() > MOST_WORDS {
        let message =
            format!("q must be 1 to {MOST_WORDS} words, one of them of at least {SHORTEST} characters");
        return Err(Error::field("q", message));
    }
    Ok(words)
}

/// A principal as it is shown.
#[derive(Debug)]
pub struct Person {
    pub id: Uuid,
    pub issuer: String,
    pub subject: Option<String>,
    pub name: Option<String>,
    pub email: Option<String>,
    pub disabled_at: Option<Time>,
    pub open_sessions: u64,
}

/// The people and clients behind sessions.
#[derive(Clone)]
pub struct Principals {
    pub(super) context: Arc<AppContext>,
}

impl Principals {
    pub(super) fn new(context: Arc<AppContext>) -> Self {
        Self { context }
    }

    /// Returns the number of a subject of another issuer. Nothing is written when the subject is known.
    pub async fn meet(
        &self,
        organization: OrganizationNumber,
        issuer: &str,
        subject: &str,
    ) -> Result<PrincipalNumber, Error> {
        let subject_digest = self.subject_digest(issuer, subject);
        if let Some(number) = self.context.gate.known().principal(organization, &subject_digest) {
            return Ok(number);
        }
        if subject.contains('\0') {
            return Err(Error::Unfit("its subject has the character U+0000"));
        }
        let (issuer, subject) = (issuer.to_owned(), subject.to_owned());
        let introduction =
            IntroducePrincipal { organization, issuer, subject, subject_digest, name: None, email: None };
        self.context.introduce(introduction).await
    }

    /// Reads what a principal is called.
    pub async fn row(&self, number: PrincipalNumber) -> Result<Option<PrincipalRow>, Error> {
        Ok(self.context.store.principal(number).await?)
    }

    /// Makes the digest that a subject of an issuer is known by.
    pub fn subject_digest(&self, issuer: &str, subject: &str) -> [u8; 32] {
        self.context.key.subject_digest(issuer, subject)
    }

    /// Returns the id of the person whose own credential was presented.
    pub fn person(&self, caller: &Caller) -> Option<Uuid> {
        caller.person().map(|number| self.context.gate.known().principal_id(number))
    }

    /// Lists the organization's principals, in the order in which they were met; and whether there are more.
    pub async fn list(&self, caller: &Caller, query: &PersonQuery) -> Result<(Vec<Person>, bool), Error> {
        let after = match query.after {
            Some(id) => {
                let number = self.context.gate.known().principal_by_id(caller.organization, id);
                number.ok_or_else(Error::foreign_cursor)?
            }
            None => PrincipalNumber(0),
        };
        let (issuer, subject) = (query.issuer.as_deref(), query.subject.as_deref());
        let limit = query.limit + 1;
        let mut rows = match &query.words {
            Some(words) => {
                let prefixes = prefixes(words)?;
                self.context.store.principals_found(caller.organization, &prefixes, after, limit).await?
            }
            None => self.context.store.principals(caller.organization, issuer, subject, after, limit).await?,
        };
        let more = rows.len() > query.limit as usize;
        rows.truncate(query.limit as usize);
        Ok((rows.into_iter().map(|row| self.shown(row)).collect(), more))
    }

    /// Finds a principal.
    pub async fn find(&self, caller: &Caller, id: Uuid) -> Result<Person, Error> {
        let number = self.principal_number(caller, id)?;
        let row = self.context.store.principal(number).await?.ok_or(Error::NotFound(Thing::Principal))?;
        Ok(self.shown(row))
    }

    /// Lets a principal in again. What was revoked stays revoked.
    pub async fn enable(&self, caller: &Caller, id: Uuid) -> Result<Person, Error> {
        let number = self.principal_number(caller, id)?;
        // It gives the person's keys what they had.
        check_gift(caller, self.context.gate.known().rights_of_keys(number))?;
        match self
            .context
            .change_stream::<Standing>(caller, Some(number.0), PrincipalEvent::Enabled, vec![])
            .await
        {
            // It was never disabled.
            Ok(_) | Err(Error::NotFound(_)) => self.find(caller, id).await,
            Err(error) => Err(error),
        }
    }

    fn principal_number(&self, caller: &Caller, id: Uuid) -> Result<PrincipalNumber, Error> {
        let number = self.context.gate.known().principal_by_id(caller.organization, id);
        number.ok_or(Error::NotFound(Thing::Principal))
    }

    fn shown(&self, row: PrincipalRow) -> Person {
        let PrincipalRow { principal, name, email } = row;
        let now = self.context.clock.now();
        let known = self.context.gate.known_at(now);
        let filter = Filter { principal: Some(principal.number), ..Filter::default() };
        let open = known.count(principal.organization, &filter, now);
        Person {
            id: principal.id(),
            disabled_at: known.standing_of(principal.number).and_then(|standing| standing.disabled_at),
            open_sessions: open.active + open.idle + open.expired,
            issuer: principal.issuer,
            subject: principal.subject,
            name,
            email,
        }
    }
}
