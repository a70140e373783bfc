//! The names under which the service is reached, and which of them a request came by.

use std::net::SocketAddr;

use axum::http::uri::Authority;
use axum::http::{HeaderMap, Uri, header};
use url::Url;

use super::Config;

/// The names by which every machine reaches itself.
pub const LOOPBACK: [&str; 3] = ["localhost", "127.0.0.1", "[::1]"];

/// All URLs that are ours. A client is told of URLs that begin with the one that it came by, because clients compare: they
/// reject a document about another name than they asked for (RFC 9728, section 3.3; RFC 8414, section 3.3).
#[derive(Debug)]
pub struct Names {
    /// The URLs as others are told them, without a slash at the end, each parsed. The first is for texts that answer no
    /// request: mails, webhooks, logs.
    urls: Vec<(String, Option<Url>)>,
    /// The address that is listened on, if it is a single one.
    listen: Option<String>,
}

impl Names {
    pub fn new(config: &Config, listening: SocketAddr) -> Self {
        let urls = config.public_urls(listening);
        let listen = config.listen.ip();
        let listen = (!listen.is_unspecified()).then(|| match listen.is_ipv6() {
            true => format!("[{listen}]"),
            false => listen.to_string(),
        });
        let urls = urls.into_iter().map(|url| (Url::parse(&url).ok(), url)).map(|(read, url)| (url, read));
        Self { urls: urls.collect(), listen }
    }

    /// The URLs as others are told them.
    pub fn all(&self) -> impl Iterator<Item = &str> {
        self.urls.iter().map(|(url, _)| url.as_str())
    }

    /// The hosts that are ours, without ports; the names by which a machine reaches itself among them.
    pub fn hosts(&self) -> Vec<String> {
        let mut hosts: Vec<_> = LOOPBACK.map(str::to_owned).into();
        hosts.extend(self.read().filter_map(|url| url.host_str().map(str::to_owned)));
        hosts.extend(self.listen.clone());
        hosts
    }

    /// The origins of pages that are ours.
    pub fn origins(&self) -> Vec<String> {
        self.read().map(|url| url.origin().ascii_serialization()).collect()
    }

    /// The base of URLs for a client that asked by this host. A name by which the machine reaches itself counts only where
    /// one of our URLs has such a name: otherwise a proxy may have put it there, and the client asked by another.
    pub fn asked(&self, uri: &Uri, headers: &HeaderMap) -> String {
        let Some(host) = host(uri, headers) else { return self.first() };
        let named = name(&host);
        let of_name = |url: &Url| url.host_str() == Some(named.as_str());
        let port = |url: &Url| host.port_u16().or_else(|| default_port(url)) == url.port_or_known_default();
        let exact = self.find(|url| of_name(url) && port(url));
        if let Some(url) = exact {
            return url;
        }
        let own = self.read().find(|url| url.host_str().is_some_and(|name| self.is_local(name)));
        match own.filter(|_| self.is_local(&named)) {
            Some(own) => {
                let path = own.path().trim_end_matches('/');
                format!("{}://{}{path}", own.scheme(), host.as_str().to_ascii_lowercase())
            }
            // A proxy may leave out the port.
            None => self.find(of_name).unwrap_or_else(|| self.first()),
        }
    }

    /// The base that a URL begins with, if that is one of ours or a name by which this machine reaches itself.
    pub fn base_of<'a>(&self, url: &'a str) -> Option<&'a str> {
        let after_scheme = url.find("://")? + 3;
        let end = url[after_scheme..].find(['/', '?', '#']).map_or(url.len(), |at| after_scheme + at);
        let origin = url.get(..end)?;
        let headers = HeaderMap::new();
        let base = self.asked(&origin.parse().ok()?, &headers);
        let begins = url.get(..base.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(&base));
        let whole = matches!(url.as_bytes().get(base.len()), None | Some(b'/' | b'?' | b'#'));
        (begins && whole).then(|| &url[..base.len()])
    }

    fn is_local(&self, name: &str) -> bool {
        LOOPBACK.contains(&name) || self.listen.as_deref() == Some(name)
    }

    fn first(&self) -> String {
        self.urls.first().map(|(url, _)| url.clone()).unwrap_or_default()
    }

    fn find(&self, wanted: impl Fn(&Url) -> bool) -> Option<String> {
        let found = self.urls.iter().find(|(_, read)| read.as_ref().is_some_and(&wanted));
        found.map(|(url, _)| url.clone())
    }

    fn read(&self) -> impl Iterator<Item = &Url> {
        self.urls.iter().filter_map(|(_, read)| read.as_ref())
    }
}

fn default_port(url: &Url) -> Option<u16> {
    match url.scheme() {
        "https" => Some(443),
        "http" => Some(80),
        _ => None,
    }
}

/// The host that a request names; none if it names several.
pub fn host(uri: &Uri, headers: &HeaderMap) -> Option<Authority> {
    if let Some(authority) = uri.authority() {
        return Some(authority.clone());
    }
    let mut hosts = headers.get_all(header::HOST).iter();
    match (hosts.next(), hosts.next()) {
        (Some(host), None) => Authority::try_from(host.as_bytes()).ok(),
        _ => None,
    }
}

/// A host in the form in which names are compared: without the port, the dot at its end, and capitals.
pub fn name(authority: &Authority) -> String {
    authority.host().trim_end_matches('.').to_ascii_lowercase()
}
