//! Reads the values of options. Its errors say how to write a value that cannot be read.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use url::Url;

/// Reads an address to listen on. `localhost` is this machine.
pub fn address(text: &str) -> Result<SocketAddr, String> {
    let named = text.strip_prefix("localhost:").map(|port| format!("127.0.0.1:{port}"));
    let numeric = named.as_deref().unwrap_or(text);
    numeric.parse().map_err(|_| not_an_address(text))
}

fn not_an_address(text: &str) -> String {
    let (host, port) = text.rsplit_once(':').unwrap_or(("", text));
    let digits = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    if digits && port.parse::<u16>().is_err() {
        format!("{port} is no port: ports go from 0 to 65535")
    } else if digits && host.is_empty() {
        format!(
            "say on which address: 127.0.0.1:{port} for this machine alone, 0.0.0.0:{port} for all of its networks"
        )
    } else if text.parse::<IpAddr>().is_ok_and(|address| address.is_ipv6()) || host.matches(':').count() > 1 {
        "an IPv6 address stands in brackets before its port, as in [::1]:8080".to_owned()
    } else if !digits {
        format!(
            "a port is missing: write an address and a port, as in {}:8080",
            if host.is_empty() { text } else { host }
        )
    } else {
        "an address is wanted, not a name: 127.0.0.1:8080, [::1]:8080 or localhost:8080".to_owned()
    }
}

/// Reads a network; an address alone is a network of one.
pub fn network(text: &str) -> Result<IpNet, String> {
    let alone = text.parse::<IpAddr>().map(IpNet::from);
    alone.or_else(|_| text.parse()).map_err(|_| {
        format!("{text:?} is neither an address nor a network; write 10.0.0.1, 10.0.0.0/8 or fd00::/8")
    })
}

/// Reads the URL at which clients reach this server.
pub fn public_url(text: &str) -> Result<String, String> {
    let wrong = |what: &str| format!("{what}; write it as https://sessions.example.com");
    let url = Url::parse(text).map_err(|_| wrong("it is no URL with a scheme and a host"))?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return Err(wrong("its scheme is neither http nor https"));
    }
    if !url.username().is_empty()
        || url.password().is_some()
        || url.query().is_some()
        || url.fragment().is_some()
    {
        return Err(wrong("it is the base of other URLs, and has no user, query or fragment"));
    }
    Ok(text.to_owned())
}

/// Reads an origin, as browsers send it: scheme, host and port.
pub fn origin(text: &str) -> Result<String, String> {
    let origin = text.trim_end_matches('/').to_ascii_lowercase();
    let url = Url::parse(&origin).ok().filter(|url| url.origin().is_tuple());
    if url.is_some_and(|url| url.origin().ascii_serialization() == origin) {
        Ok(origin)
    } else {
        Err(format!(
            "{text:?} is no origin; write scheme, host and port as browsers send them: https://app.example.com"
        ))
    }
}

/// Reads a client id, which HTTP Basic must be able to carry and people to tell apart.
pub fn client_id(text: &str) -> Result<String, String> {
    match text {
        "" => Err("it is empty".to_owned()),
        _ if text.len() > 200 => Err("it has more than 200 characters".to_owned()),
        _ if text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b':') => Ok(text.to_owned()),
        _ => Err("letters, digits and signs of ASCII are wanted, without spaces and colons".to_owned()),
    }
}
