//! The name servers whose queries are captured.

use std::fmt;
use std::net::IpAddr;

use super::{Invalid, list};

/// The name servers whose queries are redirected to the proxy.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum DnsServers {
    /// The servers of the pod's `/etc/resolv.conf`.
    ResolvConf,
    /// All servers on port 53.
    All,
    /// These servers; never empty.
    These(Vec<IpAddr>),
}

impl DnsServers {
    /// Reads `resolv.conf`, `all`, or a list of addresses.
    ///
    /// # Errors
    /// Every invalid address.
    pub fn parse(text: &str) -> Result<Self, Vec<Invalid>> {
        const EXPECTED: &str = "resolv.conf, all, or a list of addresses";
        let address = |item: &str| match item.parse::<IpAddr>() {
            // A query to an IPv4-mapped address is an IPv4 packet.
            Ok(address) => Ok(Some(address.to_canonical())),
            Err(_) => Err(Invalid::new(item, EXPECTED)),
        };
        match text.trim() {
            "resolv.conf" => Ok(Self::ResolvConf),
            "all" => Ok(Self::All),
            items => match list::<_, Option<Vec<_>>, _>(items, || None, address)? {
                None => Ok(Self::All),
                Some(none) if none.is_empty() => Err(vec![Invalid::new(text, EXPECTED)]),
                Some(addresses) => Ok(Self::These(addresses)),
            },
        }
    }
}

impl DnsServers {
    /// The number of listed servers.
    pub fn listed(&self) -> usize {
        match self {
            Self::ResolvConf | Self::All => 1,
            Self::These(addresses) => addresses.len(),
        }
    }
}

impl fmt::Display for DnsServers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ResolvConf => f.write_str("resolv.conf"),
            Self::All => f.write_str("all"),
            Self::These(addresses) => {
                let texts: Vec<String> = addresses.iter().map(ToString::to_string).collect();
                f.write_str(&texts.join(","))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_without_an_address_are_rejected() {
        for text in [",", " , ,"] {
            assert!(DnsServers::parse(text).is_err(), "{text}");
        }
        for text in ["*", "*,10.96.0.10", "10.96.0.10,*"] {
            assert_eq!(DnsServers::parse(text), Ok(DnsServers::All), "{text}");
        }
    }

    #[test]
    fn keywords_and_lists_are_read_back() {
        for text in ["resolv.conf", "all", "10.96.0.10", "127.0.0.53,::1"] {
            assert_eq!(DnsServers::parse(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn names_and_empty_values_are_rejected() {
        for text in ["", "dns.example", "10.0.0.1,x", "10.0.0.0/8"] {
            assert!(DnsServers::parse(text).is_err(), "{text}");
        }
    }
}
