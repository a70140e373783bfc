//! Cookies that upstreams set: a load balancer in front of them may find a session's replica by one.

use std::collections::{HashMap, VecDeque};

use axum::http::{HeaderMap, HeaderValue, header};
use chrono::DateTime;
use parking_lot::Mutex;
use sessiond_core::Time;
use url::Url;

/// How many jars are kept. Beyond them the oldest is forgotten, and its session may have to be reopened at its
/// upstream.
const MOST: usize = 10_000;
/// How many cookies one session may have.
const MOST_COOKIES: usize = 16;
/// How many bytes the cookies of one session may have together.
const LARGEST: usize = 4_096;

/// A cookie jar for each session at an upstream. Cookies go back to the URL that they came from, in the same session,
/// and nowhere else; they never reach a client, nor come from one.
#[derive(Default)]
pub struct CookieJars(Mutex<Jars>);

#[derive(Default)]
struct Jars {
    jars: HashMap<JarKey, Vec<(String, String)>>,
    /// The keys of the jars, the oldest first.
    order: VecDeque<JarKey>,
}

/// A URL, and the upstream's id of the session there.
type JarKey = (String, String);

impl CookieJars {
    /// The cookies for a request of this session.
    pub fn of(&self, url: &str, session: &str) -> Option<HeaderValue> {
        let jars = self.0.lock();
        if jars.jars.is_empty() {
            return None;
        }
        let jar = jars.jars.get(&(url.to_owned(), session.to_owned()))?;
        let pairs: Vec<_> = jar.iter().map(|(name, value)| format!("{name}={value}")).collect();
        HeaderValue::try_from(pairs.join("; ")).ok()
    }

    /// Keeps the cookies that an answer sets.
    pub fn take(&self, url: &str, session: &str, headers: &HeaderMap, now: Time) {
        if !headers.contains_key(header::SET_COOKIE) {
            return;
        }
        let Ok(read) = Url::parse(url) else { return };
        let said = headers.get_all(header::SET_COOKIE).iter().filter_map(|value| value.to_str().ok());
        let cookies: Vec<_> = said.filter_map(|said| Cookie::read(said, &read, now)).collect();
        if cookies.is_empty() {
            return;
        }
        let key = (url.to_owned(), session.to_owned());
        let mut jars = self.0.lock();
        if !jars.jars.contains_key(&key) {
            jars.make_room();
            jars.order.push_back(key.clone());
        }
        let jar = jars.jars.entry(key).or_default();
        for Cookie { name, value } in cookies {
            jar.retain(|(known, _)| *known != name);
            let length: usize = jar.iter().map(|(name, value)| name.len() + value.len()).sum();
            if let Some(value) = value
                && jar.len() < MOST_COOKIES
                && length + name.len() + value.len() <= LARGEST
            {
                jar.push((name, value));
            }
        }
    }

    /// Forgets the cookies of a session that is over.
    pub fn forget(&self, url: &str, session: &str) {
        self.0.lock().jars.remove(&(url.to_owned(), session.to_owned()));
    }
}

impl Jars {
    /// Forgets the oldest jars, so that there is room for another.
    fn make_room(&mut self) {
        while self.jars.len() >= MOST {
            let Some(oldest) = self.order.pop_front() else { return };
            self.jars.remove(&oldest);
        }
        // Sessions that are over have no jar any more, but their keys are still in the order.
        if self.order.len() > 2 * MOST {
            let jars = &self.jars;
            self.order.retain(|key| jars.contains_key(key));
        }
    }
}

/// The content of a `Set-Cookie` header; without a value it deletes the cookie.
struct Cookie {
    name: String,
    value: Option<String>,
}

impl Cookie {
    /// Reads a header whose cookie is for this URL (RFC 6265, sections 5.2 and 5.3).
    fn read(said: &str, url: &Url, now: Time) -> Option<Self> {
        let mut parts = said.split(';');
        let (name, value) = parts.next()?.split_once('=')?;
        let (name, value) = (name.trim(), value.trim());
        let good = |text: &str| text.bytes().all(|byte| matches!(byte, b'!'..=b'~') && byte != b';');
        if name.is_empty() || !good(name) || !good(value) {
            return None;
        }
        let mut gone = false;
        let mut lives = None;
        for part in parts {
            let (attribute, value) = part.split_once('=').unwrap_or((part, ""));
            let value = value.trim();
            match attribute.trim().to_ascii_lowercase().as_str() {
                // A cookie for another site, or only for another part of this site, does not go to our URL.
                "domain" if !covers(value.trim_start_matches('.'), url.host_str()?) => return None,
                "path" if value.starts_with('/') && !under(value, url.path()) => return None,
                "max-age" => lives = Some(value.parse::<i64>().ok()? > 0),
                "expires" => {
                    let at = DateTime::parse_from_rfc2822(&value.replace('-', " "));
                    gone = at.is_ok_and(|at| at <= now);
                }
                _ => {}
            }
        }
        let lives = lives.unwrap_or(!gone);
        Some(Self { name: name.to_owned(), value: lives.then(|| value.to_owned()) })
    }
}

/// Whether a domain is the host, or one above it.
fn covers(domain: &str, host: &str) -> bool {
    let (domain, host) = (domain.to_ascii_lowercase(), host.to_ascii_lowercase());
    host == domain || host.strip_suffix(&domain).is_some_and(|rest| rest.ends_with('.'))
}

/// Whether a path is this one, or one below it.
fn under(path: &str, whole: &str) -> bool {
    whole
        .strip_prefix(path)
        .is_some_and(|rest| path.ends_with('/') || rest.is_empty() || rest.starts_with('/'))
}
