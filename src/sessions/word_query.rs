//! What sessions are looked for by, in words.

use std::collections::BTreeSet;

use sessiond_store::{PrincipalRow, SessionRow, called};
use uuid::Uuid;

/// Most bytes of what is looked for, and most terms in it.
const LONGEST: usize = 200;
const MOST_TERMS: usize = 8;
/// The fewest digits by which an id is found: as many as stand before its first hyphen.
const FEWEST_DIGITS: usize = 8;

/// Terms that all have to fit a session, each anywhere.
#[derive(Debug, Clone)]
pub struct WordQuery {
    pub(super) terms: Vec<Term>,
}

/// What stands between blanks: the words of it, each of which begins a word of the session's texts or of its principal's; or
/// all that its principal's issuer calls it, or its address; or the beginning of the session's id.
#[derive(Debug, Clone)]
pub(super) struct Term {
    pub(super) text: String,
    pub(super) words: Vec<String>,
    /// The least and the greatest id that begins so.
    pub(super) ids: Option<(Uuid, Uuid)>,
}

impl WordQuery {
    /// Reads what is looked for, or says what is wrong with it.
    pub fn read(text: &str) -> Result<Self, String> {
        let terms: Vec<_> = text.split_whitespace().map(Term::of).collect();
        if text.len() > LONGEST || terms.is_empty() || terms.len() > MOST_TERMS {
            return Err(format!("q must be 1 to {MOST_TERMS} terms of together at most {LONGEST} bytes"));
        }
        match terms.iter().find(|term| term.words.is_empty()) {
            Some(term) => {
                Err(format!("q must have a letter or a digit in each term: {} has none", term.text))
            }
            None => Ok(Self { terms }),
        }
    }

    /// Whether all terms fit a session; with whose it is, where it may be found by that.
    pub(super) fn fits(&self, row: &SessionRow, person: Option<&PrincipalRow>) -> bool {
        let mut words = called::of_session(&row.detail);
        if let Some(person) = person {
            words.extend(called::found_by(person.name.as_deref(), person.email.as_deref()));
        }
        self.terms.iter().all(|term| term.fits(row.session.id, &words, person))
    }
}

impl Term {
    fn of(text: &str) -> Self {
        let words: BTreeSet<_> = called::words(text).collect();
        Self { text: text.to_owned(), words: words.into_iter().collect(), ids: ids(text) }
    }

    fn fits(&self, id: Uuid, words: &BTreeSet<String>, person: Option<&PrincipalRow>) -> bool {
        self.words.iter().all(|word| called::begins_one_of(words, word))
            || self.ids.is_some_and(|(first, last)| first <= id && id <= last)
            || person.is_some_and(|person| {
                let address = person.email.as_deref();
                person.principal.subject.as_deref() == Some(self.text.as_str())
                    || address.is_some_and(|address| address.eq_ignore_ascii_case(&self.text))
            })
    }
}

/// The ids that begin with these digits, with or without hyphens.
fn ids(text: &str) -> Option<(Uuid, Uuid)> {
    let digits: String = text.chars().filter(|one| *one != '-').collect();
    if !(FEWEST_DIGITS..=32).contains(&digits.len()) || !digits.bytes().all(|one| one.is_ascii_hexdigit()) {
        return None;
    }
    let first = Uuid::try_parse(&format!("{digits:0<32}")).ok()?;
    let last = Uuid::try_parse(&format!("{digits:f<32}")).ok()?;
    Some((first, last))
}
