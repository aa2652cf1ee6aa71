//! The protocol of a packet's payload.

use std::fmt;

use super::Invalid;

/// A protocol number (IANA, "Protocol Numbers").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct IpProtocol(u8);

impl IpProtocol {
    /// ICMP, of IPv4.
    pub const ICMP: Self = Self(1);
    /// TCP.
    pub const TCP: Self = Self(6);
    /// UDP.
    pub const UDP: Self = Self(17);
    /// DCCP.
    pub const DCCP: Self = Self(33);
    /// ICMPv6.
    pub const ICMPV6: Self = Self(58);
    /// SCTP.
    pub const SCTP: Self = Self(132);
    /// UDP-Lite.
    pub const UDP_LITE: Self = Self(136);

    /// Those with names: as arguments have them, and as texts do.
    const NAMES: [(Self, &str, &str); 7] = [
        (Self::TCP, "tcp", "TCP"),
        (Self::UDP, "udp", "UDP"),
        (Self::ICMP, "icmp", "ICMP"),
        (Self::ICMPV6, "icmpv6", "ICMPv6"),
        (Self::SCTP, "sctp", "SCTP"),
        (Self::DCCP, "dccp", "DCCP"),
        (Self::UDP_LITE, "udplite", "UDP-Lite"),
    ];

    /// The protocol with this number.
    pub const fn new(number: u8) -> Self {
        Self(number)
    }

    /// Parses a name or a number.
    ///
    /// # Errors
    /// It is neither.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let named = Self::NAMES.iter().find(|(_, name, _)| *name == text);
        let number = || text.parse().ok().map(Self);
        named.map(|(protocol, ..)| *protocol).or_else(number).ok_or_else(|| {
            let names: Vec<&str> = Self::NAMES.iter().map(|(_, name, _)| *name).collect();
            Invalid::new(text, format!("{}, or a number from 0 to 255", names.join(", ")))
        })
    }

    /// The number.
    pub const fn get(self) -> u8 {
        self.0
    }

    /// Its name as an argument, or its number.
    pub fn word(self) -> String {
        match self.names() {
            Some((word, _)) => word.to_owned(),
            None => self.0.to_string(),
        }
    }

    /// Whether its headers begin with a source and a destination port.
    pub const fn has_ports(self) -> bool {
        matches!(self, Self::TCP | Self::UDP | Self::DCCP | Self::SCTP | Self::UDP_LITE)
    }

    fn names(self) -> Option<(&'static str, &'static str)> {
        let mut names = Self::NAMES.iter().filter(|(protocol, ..)| *protocol == self);
        names.next().map(|(_, word, name)| (*word, *name))
    }
}

impl fmt::Display for IpProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.names() {
            Some((_, name)) => f.write_str(name),
            None => write!(f, "protocol {}", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_parsed() {
        for (text, protocol) in [
            ("tcp", IpProtocol::TCP),
            ("icmpv6", IpProtocol::ICMPV6),
            ("udplite", IpProtocol::UDP_LITE),
            ("47", IpProtocol::new(47)),
        ] {
            assert_eq!(IpProtocol::parse(text).unwrap(), protocol);
            assert_eq!(protocol.word(), text);
        }
        assert_eq!(IpProtocol::parse("6").unwrap(), IpProtocol::TCP);
        for text in ["", "256", "-1", "TCP", "gre"] {
            assert!(IpProtocol::parse(text).is_err(), "{text}");
        }
        assert_eq!(IpProtocol::new(47).to_string(), "protocol 47");
        assert_eq!(IpProtocol::SCTP.to_string(), "SCTP");
    }
}
