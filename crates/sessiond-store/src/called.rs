//! By which words people are found: what a name and an e-mail address are cut into, the same for whoever files them and for
//! whoever asks.

use std::collections::BTreeSet;

/// Most words that a principal is found by, and most characters of each.
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
