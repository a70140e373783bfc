//! By which words people and sessions are found: what a name, an address and a hostname are cut into, the same for whoever
//! files them and for whoever asks.

use std::collections::BTreeSet;

use crate::row::Detail;

/// Most words that a principal is found by, and that a session is found by of each of its texts; and most characters of a word.
const MOST_WORDS: usize = 16;
const LONGEST_WORD: usize = 64;

/// The words of a text, in lower case: whatever letters and digits stand together.
pub fn words(text: &str) -> impl Iterator<Item = String> {
    let parts = text.split(|c: char| !c.is_alphanumeric()).filter(|part| !part.is_empty());
    parts.map(|part| part.chars().flat_map(char::to_lowercase).take(LONGEST_WORD).collect())
}

/// The words that somebody of this name and address is found by.
pub fn found_by(name: Option<&str>, email: Option<&str>) -> BTreeSet<String> {
    [name, email].into_iter().flatten().flat_map(words).take(MOST_WORDS).collect()
}

/// The words that a session is found by: those of its name, of its hostname and of its client's name.
pub fn of_session(detail: &Detail) -> BTreeSet<String> {
    let texts = [&detail.name, &detail.hostname, &detail.client];
    texts.into_iter().flatten().flat_map(|text| words(text).take(MOST_WORDS)).collect()
}

/// Whether a word that is looked for begins one of these.
pub fn begins_one_of(words: &BTreeSet<String>, prefix: &str) -> bool {
    words.range(prefix.to_owned()..).next().is_some_and(|word| word.starts_with(prefix))
}
