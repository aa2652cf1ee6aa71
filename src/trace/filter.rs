//! The connections to trace, as arguments such as `outbound tcp 10.0.0.0/8:443 --uid 1000` select them.

use std::net::IpAddr;

use ipnet::IpNet;

use super::Direction;
use crate::ruleset::Protocol;
use crate::types::{Accounts, Family, Id as _, Invalid, Port, Uid, parse_ids};

/// The port of UDP packets that begin a connection, unless the filter names another one.
pub const DNS_PORT: Port = match Port::new(53) {
    Some(port) => port,
    None => unreachable!(),
};

/// The connections to trace; `None` selects all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// The direction.
    pub direction: Option<Direction>,
    /// The transport protocol.
    pub protocol: Option<Protocol>,
    /// The original destination address.
    pub destination: Option<IpNet>,
    /// The original destination port.
    pub port: Option<Port>,
    /// The source address.
    pub source: Option<IpNet>,
    /// The user that owns the sending socket.
    pub uid: Option<Uid>,
}

impl Filter {
    /// Whether connections of this direction are traced.
    pub fn includes(&self, direction: Direction) -> bool {
        self.direction.is_none_or(|only| only == direction)
    }
}

/// Reads the filter: words in any order, and the values of `--source` and `--uid`.
///
/// # Errors
/// All mistakes, a sentence each.
pub fn read(
    words: &[&str],
    source: Option<&str>,
    uid: Option<&str>,
    accounts: &dyn Accounts,
) -> Result<Filter, Vec<String>> {
    let mut filter = Filter::default();
    let mut mistakes = Vec::new();
    for word in words {
        let is_first = match *word {
            "outbound" => filter.direction.replace(Direction::Outbound).is_none(),
            "inbound" => filter.direction.replace(Direction::Inbound).is_none(),
            "tcp" => filter.protocol.replace(Protocol::Tcp).is_none(),
            "udp" => filter.protocol.replace(Protocol::Udp).is_none(),
            word => match destination(word) {
                Some((address, port)) => {
                    let is_first = filter.destination.is_none() && filter.port.is_none();
                    (filter.destination, filter.port) = (address, port);
                    is_first
                }
                None => {
                    mistakes.push(format!(
                        "FILTER: {word:?} is not outbound, inbound, tcp, udp, or a destination such as 10.0.0.5, \
                         10.0.0.0/8:443, [2001:db8::5]:443 or :443"
                    ));
                    true
                }
            },
        };
        if !is_first {
            mistakes.push(format!(
                "FILTER: {word:?} is a second direction, protocol or destination; give one of each"
            ));
        }
    }
    if let Some(text) = source {
        match network(text) {
            Some(network) => filter.source = Some(network),
            None => mistakes.push(format!(
                "--source: {text:?} is not an address or a network, such as 10.0.0.5 or 10.0.0.0/8"
            )),
        }
    }
    if let Some(text) = uid {
        match user(text, accounts) {
            Ok(uid) => filter.uid = Some(uid),
            Err(invalid) => mistakes.push(format!("--uid: {:?} is not {}", invalid.value, invalid.expected)),
        }
        match filter.direction {
            Some(Direction::Inbound) => mistakes.push(
                "--uid: it names the local sender of a packet, which an inbound packet does not have; leave it out"
                    .to_owned(),
            ),
            Some(Direction::Outbound) | None => filter.direction = Some(Direction::Outbound),
        }
    }
    if let (Some(from), Some(to)) = (filter.source, filter.destination)
        && Family::of(from.addr()) != Family::of(to.addr())
    {
        mistakes.push(format!(
            "no packet from {from} goes to {to}: name two networks of one family"
        ));
    }
    if mistakes.is_empty() { Ok(filter) } else { Err(mistakes) }
}

fn user(text: &str, accounts: &dyn Accounts) -> Result<Uid, Invalid> {
    let users = parse_ids::<Uid>(text, accounts).map_err(|mut invalid| invalid.remove(0))?;
    users
        .only()
        .ok_or_else(|| Invalid::new(text, format!("one {}", Uid::WHAT)))
}

/// An address or a network.
fn network(text: &str) -> Option<IpNet> {
    let address = |text: &str| text.parse::<IpAddr>().ok().map(IpNet::from);
    let network = || text.parse::<IpNet>().ok().map(|network| network.trunc());
    address(text).or_else(network)
}

/// A destination: a network, a port after a colon, or both. An IPv6 network before a port is in brackets.
fn destination(text: &str) -> Option<(Option<IpNet>, Option<Port>)> {
    if let Some(whole) = network(text) {
        return Some((Some(whole), None));
    }
    let (address, port) = text.rsplit_once(':')?;
    let port = Some(Port::parse(port).ok()?);
    if address.is_empty() {
        return Some((None, port));
    }
    let bracketed = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let network = network(bracketed.unwrap_or(address))?;
    // Without brackets, the last group of an IPv6 address could be the port.
    let is_clear = bracketed.is_some() || network.addr().is_ipv4();
    is_clear.then_some((Some(network), port))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::NoAccounts;

    fn filter(words: &[&str]) -> Result<Filter, Vec<String>> {
        read(words, None, None, &NoAccounts)
    }

    #[test]
    fn words_select_in_any_order() {
        let expected = Filter {
            direction: Some(Direction::Outbound),
            protocol: Some(Protocol::Tcp),
            destination: "10.0.0.0/8".parse().ok(),
            port: Port::new(443),
            ..Filter::default()
        };
        assert_eq!(filter(&["outbound", "tcp", "10.1.0.0/8:443"]), Ok(expected.clone()));
        assert_eq!(filter(&["10.0.0.0/8:443", "tcp", "outbound"]), Ok(expected));
        assert_eq!(filter(&[]), Ok(Filter::default()));
    }

    #[test]
    fn destinations_have_networks_and_ports() {
        let read = |text: &str| {
            let filter = filter(&[text]).unwrap();
            (
                filter.destination.map(|network| network.to_string()),
                filter.port.map(Port::get),
            )
        };
        assert_eq!(read("10.0.0.5"), (Some("10.0.0.5/32".to_owned()), None));
        assert_eq!(read("10.0.0.5:80"), (Some("10.0.0.5/32".to_owned()), Some(80)));
        assert_eq!(read("fd00::5"), (Some("fd00::5/128".to_owned()), None));
        assert_eq!(read("fd00::/64"), (Some("fd00::/64".to_owned()), None));
        assert_eq!(read("[fd00::/64]:80"), (Some("fd00::/64".to_owned()), Some(80)));
        assert_eq!(read(":80"), (None, Some(80)));
    }

    #[test]
    fn every_mistake_is_reported() {
        let mistakes = read(
            &["inbound", "outbound", "sctp", ":0"],
            Some("ten"),
            Some("-1"),
            &NoAccounts,
        )
        .unwrap_err();
        assert_eq!(mistakes.len(), 5, "{mistakes:?}");
        let with_uid = |words: &[&str]| read(words, None, Some("1000"), &NoAccounts);
        assert_eq!(
            with_uid(&[]).map(|filter| filter.direction),
            Ok(Some(Direction::Outbound))
        );
        assert!(with_uid(&["inbound"]).is_err());
        assert!(read(&["10.0.0.1"], Some("fd00::1"), None, &NoAccounts).is_err());
    }
}
