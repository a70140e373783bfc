//! Which addresses outside may be reached: one table for everybody who reaches any.

use std::net::IpAddr;

use sessiond::outbound::{Allowances, LookUpError, Purpose};
use tempfile::TempDir;

use crate::support::config;
use crate::support::tree::{files, root};

/// Kinds of addresses, with some of each.
const KINDS: [(&str, &[&str]); 10] = [
    ("loopback", &["127.0.0.1", "127.8.9.10", "::1"]),
    ("private", &["10.1.2.3", "172.16.0.1", "192.168.1.1", "100.64.0.1"]),
    ("unique local", &["fd00::1", "fc00::1"]),
    ("public", &["8.8.8.8", "2606:4700:4700::1111"]),
    ("loopback, mapped", &["::ffff:127.0.0.1"]),
    ("private, mapped", &["::ffff:10.1.2.3"]),
    ("public, mapped", &["::ffff:8.8.8.8"]),
    ("private, through a translator", &["64:ff9b::10.1.2.3", "::10.1.2.3"]),
    ("private, through 6to4", &["2002:a01:203::1"]),
    ("never", NEVER),
];

/// Nobody, everybody, beside us, and where clouds hand out credentials, in every spelling.
const NEVER: &[&str] = &[
    "0.0.0.0",
    "0.1.2.3",
    "169.254.0.1",
    "169.254.169.254",
    "100.100.100.200",
    "168.63.129.16",
    "192.0.0.192",
    "224.0.0.1",
    "239.255.255.255",
    "255.255.255.255",
    "::",
    "fe80::1",
    "fec0::1",
    "ff02::1",
    "fd00:ec2::254",
    "::ffff:0.0.0.0",
    "::ffff:169.254.169.254",
    "::169.254.169.254",
    "64:ff9b::169.254.169.254",
    "2002:a9fe:a9fe::1",
];

/// The flag that adds networks, and the one that adds this machine where it is not the operators' organization that decides.
fn flags(purpose: Purpose) -> (&'static str, Option<&'static str>) {
    match purpose {
        Purpose::Upstream | Purpose::PlainUpstream => ("--allow-upstream", None),
        Purpose::Machine => ("--allow-machine", None),
        Purpose::Issuer => ("--issuer-allow", Some("--issuer-allow-loopback")),
        Purpose::Webhook => ("--webhook-allow", Some("--webhook-allow-loopback")),
    }
}

/// Kinds of addresses, by their names.
type Kinds = &'static [&'static str];

const ALL: Kinds = &[
    "loopback",
    "private",
    "unique local",
    "public",
    "loopback, mapped",
    "private, mapped",
    "public, mapped",
    "private, through a translator",
    "private, through 6to4",
];
/// No disguise, but 6to4 is a network of its own.
const ALL_PLAIN: Kinds = &["loopback", "private", "unique local", "public", "private, through 6to4"];

/// The kinds that may be reached: as it comes, with this machine as well, and with every network allowed.
fn reached(purpose: Purpose) -> (Kinds, Kinds, Kinds) {
    match purpose {
        Purpose::Upstream => (
            &["public", "public, mapped"],
            &["loopback", "public", "loopback, mapped", "public, mapped"],
            ALL,
        ),
        Purpose::PlainUpstream | Purpose::Machine => (&[], &["loopback", "loopback, mapped"], ALL),
        Purpose::Issuer | Purpose::Webhook => (&["public"], &["loopback", "public"], ALL_PLAIN),
    }
}

fn allowances(purpose: Purpose, own: bool, flags: &[&str]) -> Allowances {
    let flags: Vec<_> = flags.iter().map(|&flag| flag.to_owned()).collect();
    Allowances::of(purpose, &config(&TempDir::new().unwrap(), &flags), own)
}

#[test]
fn each_who_reaches_out_reaches_these_kinds_of_addresses_and_no_others() {
    for purpose in Purpose::ALL {
        let (networks, loopback) = flags(purpose);
        let everything = [networks, "0.0.0.0/0,::/0"];
        let as_it_comes = allowances(purpose, false, &[]);
        let here = match loopback {
            Some(flag) => allowances(purpose, false, &[flag]),
            None => allowances(purpose, true, &[]),
        };
        let all = allowances(purpose, true, &everything);
        let (plain, with_here, with_all) = reached(purpose);
        for (allowances, reached) in [(as_it_comes, plain), (here, with_here), (all, with_all)] {
            for (kind, addresses) in KINDS {
                for address in addresses {
                    let allowed = allowances.allows(address.parse::<IpAddr>().unwrap());
                    assert_eq!(
                        allowed,
                        reached.contains(&kind),
                        "{purpose:?}: {address}, {kind}: {allowances:?}"
                    );
                }
            }
        }
    }
}

#[tokio::test]
async fn who_connects_gets_only_addresses_that_were_judged() {
    for purpose in Purpose::ALL {
        let here = match flags(purpose).1 {
            Some(flag) => allowances(purpose, false, &[flag]),
            None => allowances(purpose, true, &[]),
        };
        let found = here.look_up("localhost", 7).await.unwrap();
        assert!(!found.is_empty() && found.iter().all(|one| one.ip().is_loopback() && one.port() == 7));
        let others = allowances(purpose, false, &[]);
        for host in ["localhost", "127.0.0.1", "::1", "169.254.169.254"] {
            assert!(matches!(others.look_up(host, 7).await, Err(LookUpError::NotAllowed)), "{host}");
        }
        let nowhere = others.look_up("nothing.invalid", 7).await;
        assert!(matches!(nowhere, Err(LookUpError::Unresolved(_))), "{nowhere:?}");
    }
}

/// The files that look a name up or make a connection or a client, and how each goes only where it may.
const REACHING: &[(&str, &str, &str)] = &[
    ("lookup_host(", "outbound/resolver.rs", "it is the engine"),
    ("TcpStream::connect(", "terminal/ssh/mod.rs", "to addresses from the engine"),
    ("HttpConnector::new_with_resolver(", "mcp/upstream.rs", "with the engine's resolver"),
    ("Client::builder(", "issuers/keys.rs", "with the engine's resolver"),
    ("Client::builder(", "webhooks/sender.rs", "with the engine's resolver"),
    ("HttpConnector::new(", "nodes/peers.rs", "to other nodes, where their own operators say that they are"),
    ("Client::builder(", "nodes/peers.rs", "on that connector"),
    ("Client::builder(", "mcp/upstream.rs", "on the connector with the engine's resolver"),
];

#[test]
fn nobody_reaches_out_without_the_engine() {
    let source = root().join("src");
    let marks = [
        "lookup_host(",
        "TcpStream::connect(",
        "HttpConnector::new",
        "Client::builder(",
        "Client::new(",
        "ClientBuilder::new(",
        "reqwest::get(",
        "UdpSocket::",
    ];
    let mut found = vec![];
    for path in files("src", "rs") {
        let text = std::fs::read_to_string(&path).unwrap();
        let file = path.strip_prefix(&source).unwrap().to_str().unwrap().to_owned();
        for mark in marks {
            if text.lines().any(|line| !line.trim_start().starts_with("//") && line.contains(mark)) {
                found.push((mark.to_owned(), file.clone()));
            }
        }
    }
    for (mark, file) in &found {
        let known = REACHING.iter().any(|(one, known, _)| one.starts_with(mark.as_str()) && known == file);
        assert!(known, "{file} has {mark}: go by src/outbound, and say here how");
    }
    for (mark, file, _) in REACHING {
        assert!(found.iter().any(|(one, known)| mark.starts_with(one.as_str()) && known == file), "{file}");
    }
}
