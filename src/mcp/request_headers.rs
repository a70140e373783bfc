//! Reads single headers of a request.

use axum::http::{HeaderMap, HeaderName, header};

/// Whether a request takes an answer of a media type; one without `Accept` takes all (RFC 9110, section 12.5.1).
pub fn accepts(headers: &HeaderMap, media: &str) -> bool {
    if !headers.contains_key(header::ACCEPT) {
        return true;
    }
    let family = media.split('/').next().unwrap_or(media);
    headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok()).any(|value| {
        value.split(',').any(|range| {
            let range = range.split(';').next().unwrap_or(range).trim();
            range.eq_ignore_ascii_case(media)
                || range == "*/*"
                || range.strip_suffix("/*").is_some_and(|one| one.eq_ignore_ascii_case(family))
        })
    })
}

/// A header as text, if it is readable; the first of several.
pub fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}
