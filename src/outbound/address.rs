//! The kinds of addresses: public ones, IPv4 addresses inside IPv6 ones, and those that nothing may ever be sent to.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};

const fn v4(a: u8, b: u8, c: u8, d: u8, prefix: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), prefix)
}

const fn v6(a: u16, b: u16, prefix: u8) -> Ipv6Net {
    Ipv6Net::new_assert(Ipv6Addr::new(a, b, 0, 0, 0, 0, 0, 0), prefix)
}

/// IPv4 networks that are not public: https://www.iana.org/assignments/iana-ipv4-special-registry
const SPECIAL_V4: [Ipv4Net; 16] = [
    v4(0, 0, 0, 0, 8),
    v4(10, 0, 0, 0, 8),
    v4(100, 64, 0, 0, 10),
    v4(127, 0, 0, 0, 8),
    v4(168, 63, 129, 16, 32), // where Azure's machines ask about themselves
    v4(169, 254, 0, 0, 16),
    v4(172, 16, 0, 0, 12),
    v4(192, 0, 0, 0, 24),
    v4(192, 0, 2, 0, 24),
    v4(192, 88, 99, 0, 24),
    v4(192, 168, 0, 0, 16),
    v4(198, 18, 0, 0, 15),
    v4(198, 51, 100, 0, 24),
    v4(203, 0, 113, 0, 24),
    v4(224, 0, 0, 0, 4),
    v4(240, 0, 0, 0, 4),
];

/// The network of all IPv6 addresses that are routed …
const PUBLIC_V6: Ipv6Net = v6(0x2000, 0, 3);
/// … except for these: assignments for protocols, documentation, and 6to4, which reaches IPv4 addresses.
const SPECIAL_V6: [Ipv6Net; 4] =
    [v6(0x2001, 0, 23), v6(0x2001, 0xdb8, 32), v6(0x2002, 0, 16), v6(0x3fff, 0, 20)];

/// Whether an address is of the public Internet. An IPv6 address that reaches an IPv4 one is not.
pub(super) fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => !SPECIAL_V4.iter().any(|network| network.contains(&address)),
        IpAddr::V6(address) => {
            PUBLIC_V6.contains(&address) && !SPECIAL_V6.iter().any(|network| network.contains(&address))
        }
    }
}

/// Whether an address is one that no setting can allow: it means nobody or everybody, is link-local, or is one at which
/// clouds hand out credentials.
fn is_never(address: IpAddr) -> bool {
    const METADATA_V4: [Ipv4Addr; 3] = [
        Ipv4Addr::new(100, 100, 100, 200), // Alibaba
        Ipv4Addr::new(168, 63, 129, 16),   // Azure
        Ipv4Addr::new(192, 0, 0, 192),     // Oracle
    ];
    const METADATA_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254); // Amazon
    if address.is_unspecified() || address.is_multicast() {
        return true;
    }
    match address {
        IpAddr::V4(address) => {
            // 0.0.0.0/8 is "this network", which some systems take for loopback.
            address.octets()[0] == 0
                || address.is_broadcast()
                || address.is_link_local()
                || METADATA_V4.contains(&address)
        }
        // fe80::/10, and fec0::/10, which older systems treat alike.
        IpAddr::V6(address) => address.segments()[0] & 0xff80 == 0xfe80 || address == METADATA_V6,
    }
}

/// Whether an IPv6 address stands for an IPv4 one.
pub(super) fn is_disguised(address: IpAddr) -> bool {
    let IpAddr::V6(address) = address else { return false };
    let [first, second, ..] = address.segments();
    address.to_ipv4_mapped().is_some()
        || (first, second) == (0x64, 0xff9b)
        || (address.to_ipv4().is_some() && !address.is_loopback())
}

/// Whether no setting can allow an address, by itself or as the IPv4 address inside an IPv6 one.
pub(super) fn is_forbidden(address: IpAddr) -> bool {
    let inner = match address {
        IpAddr::V6(address) => inner_v4(address).map(IpAddr::V4),
        IpAddr::V4(_) => None,
    };
    is_never(address) || inner.is_some_and(is_never)
}

/// The IPv4 address that a translator would reach for an IPv6 one: NAT64 (RFC 6052), 6to4 (RFC 3056), and the form
/// `::a.b.c.d` that RFC 4291 gave up.
fn inner_v4(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let [a, b, c, d, e, f, g, h] = address.segments();
    let from = |high: u16, low: u16| Ipv4Addr::from(u32::from(high) << 16 | u32::from(low));
    match (a, b) {
        (0x64, 0xff9b) => Some(from(g, h)),
        (0x2002, _) => Some(from(b, c)),
        (0, 0) if [c, d, e, f] == [0; 4] && !address.is_loopback() => Some(from(g, h)),
        _ => None,
    }
}
