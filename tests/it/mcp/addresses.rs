//! Where an upstream may be.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;
use sessiond::mcp::check_upstream;
use sessiond::outbound::{Allowances, Purpose};
use tempfile::TempDir;

use crate::support::config;
use crate::webhooks::addresses::REFUSED;

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// What `--allow-upstream` may add at most.
const EVERYTHING: &str = "0.0.0.0/0,::/0";

/// What an upstream may have, over `http` and over `https`, with such a setting and perhaps this machine.
fn allowances(networks: &str, own: bool) -> [Allowances; 2] {
    let flags = match networks {
        "" => vec![],
        networks => vec!["--allow-upstream".to_owned(), networks.to_owned()],
    };
    let config = config(&TempDir::new().unwrap(), &flags);
    [Purpose::PlainUpstream, Purpose::Upstream].map(|purpose| Allowances::of(purpose, &config, own))
}

#[test]
fn loopback_is_allowed_and_nothing_else_unless_it_is_said() {
    let ([plain, _], others) = (allowances("", true), allowances("", false));
    for loopback in ["127.0.0.1", "127.8.9.10", "::1", "::ffff:127.0.0.1"] {
        assert!(plain.allows(address(loopback)), "{loopback}");
        for others in &others {
            assert!(!others.allows(address(loopback)), "{loopback} is of this machine's own");
        }
    }
    for other in
        ["10.0.0.1", "192.168.1.1", "8.8.8.8", "fd00::1", "2001:db8::1", "::ffff:10.0.0.1", "64:ff9b::7f00:1"]
    {
        assert!(!plain.allows(address(other)), "{other}");
    }
    let [private, _] = allowances("10.0.0.0/8", true);
    assert!(private.allows(address("10.1.2.3")));
    assert!(private.allows(address("::ffff:10.1.2.3")));
    assert!(!private.allows(address("11.1.2.3")));
}

#[test]
fn some_addresses_are_never_allowed() {
    let everything = allowances(EVERYTHING, true);
    for never in [
        "0.0.0.0",
        "0.1.2.3",
        "169.254.169.254",
        "169.254.0.1",
        "224.0.0.1",
        "255.255.255.255",
        "100.100.100.200",
        "168.63.129.16",
        "192.0.0.192",
        "::",
        "fe80::1",
        "fec0::1",
        "ff02::1",
        "fd00:ec2::254",
        "::ffff:169.254.169.254",
        "::169.254.169.254",
        "64:ff9b::169.254.169.254",
        "2002:a9fe:a9fe::",
    ] {
        for one in &everything {
            assert!(!one.allows(address(never)), "{never}");
        }
    }
}

#[test]
fn with_https_an_upstream_may_be_public_and_nothing_that_webhooks_may_not_reach_is() {
    let [plain, encrypted] = allowances("", true);
    for public in ["8.8.8.8", "2606:4700:4700::1111", "::ffff:8.8.8.8"] {
        assert!(encrypted.allows(address(public)), "{public}");
        assert!(!plain.allows(address(public)), "{public}");
    }
    let directory = TempDir::new().unwrap();
    let config = config(&directory, &[]);
    // Other spellings of an address that is public: refused to webhooks for the spelling alone.
    let public = ["0x08080808", "010.8.8.8", "[::ffff:8.8.8.8]"];
    for host in REFUSED {
        for scheme in ["http", "https"] {
            let url = format!("{scheme}://{host}:1/latest/meta-data");
            let Ok(checked) = check_upstream(&url, &config, true) else { continue };
            let loopback = match url::Url::parse(&checked).unwrap().host().unwrap() {
                url::Host::Ipv4(one) => one.is_loopback(),
                url::Host::Ipv6(one) => one.to_canonical().is_loopback(),
                url::Host::Domain(_) => false,
            };
            assert!(loopback || (scheme == "https" && public.contains(host)), "{url} is {checked}");
        }
    }
}

#[test]
fn an_ipv4_address_is_judged_alike_in_every_spelling() {
    let ([plain, encrypted], [everything, _]) = (allowances("", true), allowances(EVERYTHING, true));
    proptest!(|(bits: u32)| {
        let v4 = Ipv4Addr::from(bits);
        let mapped: Ipv6Addr = v4.to_ipv6_mapped();
        for one in [&plain, &encrypted, &everything] {
            prop_assert_eq!(one.allows(v4.into()), one.allows(mapped.into()));
        }
        prop_assert_eq!(plain.allows(v4.into()), v4.is_loopback());
    });
}

#[test]
fn a_url_is_checked_and_brought_into_its_normal_form() {
    let directory = TempDir::new().unwrap();
    let config = config(&directory, &["--allow-upstream", "10.0.0.0/8"].map(str::to_owned));
    let check = |url: &str| check_upstream(url, &config, true);
    assert_eq!(check("http://LOCALHOST:80/mcp").unwrap(), "http://localhost/mcp");
    assert_eq!(check("http://127.1:9000").unwrap(), "http://127.0.0.1:9000/");
    assert_eq!(check("http://[::1]:9000/mcp?a=b").unwrap(), "http://[::1]:9000/mcp?a=b");
    assert_eq!(check("http://10.1.2.3/mcp").unwrap(), "http://10.1.2.3/mcp");
    for fine in ["https://127.0.0.1/mcp", "https://10.1.2.3/mcp", "https://11.0.0.1/mcp"] {
        assert_eq!(check(fine).unwrap(), fine);
    }
    for (wrong, why) in [
        ("https://11.1.2.3#x", "fragment"),
        ("https://192.168.0.1/", "not allowed"),
        ("https://[fd00::1]/", "not allowed"),
        ("ftp://127.0.0.1/", "http://"),
        ("127.0.0.1:80", "is not a URL"),
        ("http://user@127.0.0.1/", "user name"),
        ("http://127.0.0.1/#x", "fragment"),
        ("http://11.0.0.1/", "public ones with https://"),
        ("http://169.254.169.254/latest/meta-data", "not allowed"),
        ("http://2852039166/", "not allowed"),
        ("http://0x7f000001.0x1/", "is not a URL"),
        ("http://", "is not a URL"),
    ] {
        let error = check(wrong).unwrap_err().to_string();
        assert!(error.contains(why), "{wrong}: {error}");
    }
    assert!(check(&format!("http://127.0.0.1/{}", "x".repeat(3_000))).is_err());
}
