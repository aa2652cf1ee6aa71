//! Sets of addresses.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::{Invalid, list};

/// A set of addresses of both families, as the fewest CIDRs that cover them, sorted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Cidrs {
    v4: Vec<Ipv4Net>,
    v6: Vec<Ipv6Net>,
    /// Loopback ranges that were given beside a range that covers them: they still have an effect of their own.
    covered_loopback: Vec<IpNet>,
}

impl Cidrs {
    /// Every address of both families, written `*`.
    pub fn everything() -> Self {
        Self {
            v4: vec![Ipv4Net::default()],
            v6: vec![Ipv6Net::default()],
            covered_loopback: Vec::new(),
        }
    }

    /// The IPv4 part.
    pub fn v4(&self) -> &[Ipv4Net] {
        &self.v4
    }

    /// The IPv6 part.
    pub fn v6(&self) -> &[Ipv6Net] {
        &self.v6
    }

    /// All CIDRs, as the notation of options lists them.
    pub fn iter(&self) -> impl Iterator<Item = IpNet> + use<'_> {
        let (v4, v6) = (self.v4.iter().copied(), self.v6.iter().copied());
        let both = v4.map(IpNet::V4).chain(v6.map(IpNet::V6));
        both.chain(self.covered_loopback.iter().copied())
    }

    /// Whether the set holds an address.
    pub fn contains(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(address) => self.v4.iter().any(|net| net.contains(&address)),
            IpAddr::V6(address) => self.v6.iter().any(|net| net.contains(&address)),
        }
    }

    /// Whether the set holds no address.
    pub fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty()
    }

    /// Whether the set holds every address of both families.
    pub fn is_everything(&self) -> bool {
        let Self { v4, v6, .. } = Self::everything();
        self.v4 == v4 && self.v6 == v6
    }

    /// The part of the set that lies in the loopback ranges 127.0.0.0/8 and ::1/128.
    ///
    /// A wider range, such as 0.0.0.0/0, does not include loopback traffic.
    #[must_use]
    pub fn loopback(&self) -> Self {
        self.iter().filter(is_loopback).collect()
    }
}

fn is_loopback(net: &IpNet) -> bool {
    let min_length = match net {
        IpNet::V4(_) => 8,
        IpNet::V6(_) => 128,
    };
    net.prefix_len() >= min_length && net.addr().is_loopback()
}

/// Host bits are masked; overlapping and mergeable ranges become one. IPv4-mapped ranges (`::ffff:10.0.0.0/104`) are those
/// of IPv4: packets to such an address are IPv4 packets (RFC 4291, section 2.5.5.2).
impl FromIterator<IpNet> for Cidrs {
    fn from_iter<I: IntoIterator<Item = IpNet>>(nets: I) -> Self {
        let (mut v4, mut v6, mut loopback) = (Vec::new(), Vec::new(), Vec::new());
        for net in nets {
            let net = canonical(net.trunc());
            if is_loopback(&net) {
                loopback.push(net);
            }
            match net {
                IpNet::V4(net) => v4.push(net),
                IpNet::V6(net) => v6.push(net),
            }
        }
        let (v4, v6) = (Ipv4Net::aggregate(&v4), Ipv6Net::aggregate(&v6));
        let covers = |wide: IpNet, net: &IpNet| wide.contains(net) && !is_loopback(&wide);
        loopback.retain(|net| {
            v4.iter().any(|wide| covers((*wide).into(), net)) || v6.iter().any(|wide| covers((*wide).into(), net))
        });
        Self {
            v4,
            v6,
            covered_loopback: IpNet::aggregate(&loopback),
        }
    }
}

/// The length in bits of the prefix of IPv4-mapped addresses.
const MAPPED_BITS: u8 = 96;

fn canonical(net: IpNet) -> IpNet {
    let mapped = |net: Ipv6Net| {
        let length = net.prefix_len().checked_sub(MAPPED_BITS)?;
        Ipv4Net::new(net.addr().to_ipv4_mapped()?, length).ok()
    };
    match net {
        IpNet::V6(v6) => mapped(v6).map_or(net, IpNet::V4),
        IpNet::V4(_) => net,
    }
}

/// In the notation of options: `10.0.0.0/8,fd00::/8`, or `*` for everything.
impl fmt::Display for Cidrs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let skipped = if self.is_everything() {
            f.write_str("*")?;
            self.v4.len() + self.v6.len()
        } else {
            0
        };
        for (at, net) in self.iter().enumerate().skip(skipped) {
            let separator = if at == 0 { "" } else { "," };
            write!(f, "{separator}{net}")?;
        }
        Ok(())
    }
}

/// Reads a comma-separated list of CIDRs and addresses, or `*` for all addresses.
pub fn parse_cidrs(text: &str) -> Result<Cidrs, Vec<Invalid>> {
    let (mut everything, mut loopback) = (false, Vec::new());
    let nets: Vec<IpNet> = list(
        text,
        || {
            everything = true;
            vec![Ipv4Net::default().into(), Ipv6Net::default().into()]
        },
        |item| {
            let net = parse_cidr(item)?;
            loopback.extend(Some(net).filter(is_loopback));
            Ok(net)
        },
    )?;
    // Beside `*`, only loopback ranges have an effect.
    let beside = loopback.into_iter().filter(|_| everything);
    Ok(nets.into_iter().chain(beside).collect())
}

/// Uses the standard library's parser of addresses, which is several times faster than ipnet's.
fn parse_cidr(item: &str) -> Result<IpNet, Invalid> {
    let net = match item.split_once('/') {
        None => item.parse().ok().map(IpAddr::into),
        Some((address, length)) => network(address, length),
    };
    net.ok_or_else(|| Invalid::new(item, "an address or a CIDR, such as 10.0.0.0/8 or 2001:db8::/32, or *"))
}

fn network(address: &str, length: &str) -> Option<IpNet> {
    let digits = length.bytes().all(|byte| byte.is_ascii_digit());
    let length = length.parse().ok().filter(|_| digits)?;
    IpNet::new(address.parse().ok()?, length).ok()
}

/// The IPv4 addresses that count as loopback: a range inside 127.0.0.0/8.
///
/// Some applications answer on a wider range than 127.0.0.1 alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LoopbackCidr(Ipv4Net);

impl LoopbackCidr {
    /// Reads a CIDR inside 127.0.0.0/8.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let net = text
            .trim()
            .split_once('/')
            .and_then(|(address, length)| network(address, length));
        match net {
            Some(IpNet::V4(net)) if is_loopback(&net.into()) => Ok(Self(net.trunc())),
            _ => Err(Invalid::new(text, "a CIDR inside 127.0.0.0/8, such as 127.0.0.1/32")),
        }
    }

    /// The range.
    pub fn net(self) -> Ipv4Net {
        self.0
    }
}

impl Default for LoopbackCidr {
    fn default() -> Self {
        Self(Ipv4Net::from(Ipv4Addr::LOCALHOST))
    }
}

impl fmt::Display for LoopbackCidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_bits_are_masked_and_overlaps_merged() {
        let cidrs = parse_cidrs("10.1.2.3/8,10.2.0.0/16,192.168.0.0/24,192.168.1.0/24,fd00::1/8").unwrap();
        assert_eq!(cidrs.to_string(), "10.0.0.0/8,192.168.0.0/23,fd00::/8");
    }

    #[test]
    fn addresses_are_single_address_cidrs() {
        assert_eq!(parse_cidrs("1.2.3.4,::1").unwrap().to_string(), "1.2.3.4/32,::1/128");
    }

    #[test]
    fn everything_covers_both_families() {
        assert!(parse_cidrs("*").unwrap().is_everything());
        assert!(parse_cidrs("0.0.0.0/0,::/0").unwrap().is_everything());
        assert!(!parse_cidrs("0.0.0.0/0").unwrap().is_everything());
        assert!(parse_cidrs("*,10.0.0.0/8").unwrap().is_everything());
    }

    #[test]
    fn octal_and_signed_numbers_are_rejected() {
        for bad in [
            "010.0.0.0/8",
            "010.0.0.1",
            "10.0.0.0/+8",
            "10.0.0.0/",
            "10.0.0.0/-0",
            "10.0.0.0/8/8",
            "/8",
        ] {
            assert!(parse_cidrs(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn all_invalid_cidrs_are_reported() {
        let errors = parse_cidrs("10.0.0.0/33,10.0.0,::/129,x").unwrap_err();
        assert_eq!(errors.len(), 4);
    }

    #[test]
    fn loopback_excludes_wider_ranges() {
        let cidrs = parse_cidrs("127.1.2.3,::1,10.0.0.0/8").unwrap();
        assert_eq!(cidrs.loopback().to_string(), "127.1.2.3/32,::1/128");
        assert!(parse_cidrs("*,126.0.0.0/7,::/64").unwrap().loopback().is_empty());
    }

    /// They redirect loopback traffic, which the wide range alone does not; Istio checks each item of its list.
    #[test]
    fn loopback_ranges_are_kept_beside_covering_ranges() {
        for (text, written, loopback) in [
            (
                "0.0.0.0/0,127.1.2.3,10.0.0.0/8",
                "0.0.0.0/0,127.1.2.3/32",
                "127.1.2.3/32",
            ),
            ("127.1.2.3,*,::1", "*,127.1.2.3/32,::1/128", "127.1.2.3/32,::1/128"),
            ("127.0.0.0/8,127.1.2.3", "127.0.0.0/8", "127.0.0.0/8"),
        ] {
            let cidrs = parse_cidrs(text).unwrap();
            assert_eq!(cidrs.to_string(), written);
            assert_eq!(cidrs.loopback().to_string(), loopback);
            assert_eq!(parse_cidrs(written).unwrap(), cidrs);
        }
        assert!(parse_cidrs("*,127.0.0.1").unwrap().is_everything());
    }

    #[test]
    fn the_loopback_range_lies_inside_127_8() {
        assert_eq!(LoopbackCidr::parse("127.0.0.1/8").unwrap().to_string(), "127.0.0.0/8");
        for bad in [
            "126.0.0.0/8",
            "127.0.0.0/7",
            "0.0.0.0/0",
            "::1/128",
            "127.0.0.1",
            "0127.0.0.0/8",
            "",
        ] {
            assert!(LoopbackCidr::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn ipv4_mapped_ranges_become_ipv4_ranges() {
        let text = |list: &str| parse_cidrs(list).unwrap().to_string();
        assert_eq!(text("::ffff:10.1.2.3"), "10.1.2.3/32");
        assert_eq!(text("::ffff:10.0.0.0/104"), "10.0.0.0/8");
        assert_eq!(text("::ffff:0:0/96"), "0.0.0.0/0");
        assert_eq!(text("::ffff:0:0/95"), "::fffe:0:0/95");
        assert_eq!(text("::10.1.2.3"), "::a01:203/128");
    }
}
