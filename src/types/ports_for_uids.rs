//! Ports that are excluded for some users only.

use std::fmt;

use super::{Accounts, Invalid, Ports, Uids, parse_ids, parse_ports};

/// Outbound ports that are not redirected for some users.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PortsForUids {
    /// Whether TCP is excluded.
    pub tcp: bool,
    /// Whether UDP is excluded. This matters if DNS is captured.
    pub udp: bool,
    /// The ports.
    pub ports: Ports,
    /// The users.
    pub uids: Uids,
}

/// In the notation of the option: `tcp:22,80-90:1000-2000`.
impl fmt::Display for PortsForUids {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.tcp, self.udp) {
            (true, false) => f.write_str("tcp:")?,
            (false, true) => f.write_str("udp:")?,
            (true, true) | (false, false) => {}
        }
        write!(f, "{}:{}", self.ports, self.uids)
    }
}

/// Reads `[tcp:|udp:]PORTS:UIDS` entries, separated by `;`. Without a protocol, both apply.
///
/// # Errors
/// Every part of every entry that is not valid.
pub fn parse_ports_for_uids(text: &str, accounts: &dyn Accounts) -> Result<Vec<PortsForUids>, Vec<Invalid>> {
    let (mut entries, mut errors) = (Vec::new(), Vec::new());
    for item in text.split(';').map(str::trim).filter(|item| !item.is_empty()) {
        match entry(item, accounts) {
            Ok(entry) => entries.push(entry),
            Err(more) => errors.extend(more),
        }
    }
    if errors.is_empty() { Ok(entries) } else { Err(errors) }
}

fn entry(item: &str, accounts: &dyn Accounts) -> Result<PortsForUids, Vec<Invalid>> {
    const EXPECTED: &str = "[tcp:|udp:]PORTS:UIDS, such as tcp:22,8000-8080:1000-2000";
    let parts: Vec<&str> = item.split(':').map(str::trim).collect();
    let (tcp, udp, ports, uids) = match parts.as_slice() {
        ["tcp", ports, uids] => (true, false, *ports, *uids),
        ["udp", ports, uids] => (false, true, *ports, *uids),
        ["", ports, uids] | [ports, uids] => (true, true, *ports, *uids),
        _ => return Err(vec![Invalid::new(item, EXPECTED)]),
    };
    match (parse_ports(ports), parse_ids(uids, accounts)) {
        (Ok(ports), Ok(uids)) if !ports.is_empty() && !uids.is_empty() => Ok(PortsForUids { tcp, udp, ports, uids }),
        (Ok(_), Ok(_)) => Err(vec![Invalid::new(item, EXPECTED)]),
        (ports, uids) => Err([ports.err(), uids.err()].into_iter().flatten().flatten().collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::NoAccounts;

    #[test]
    fn entries_with_and_without_protocol_are_read() {
        let entries = parse_ports_for_uids("tcp:22,80-90:1000-2000; 53:106 ;udp:*:7", &NoAccounts).unwrap();
        let texts: Vec<String> = entries.iter().map(ToString::to_string).collect();
        assert_eq!(texts, ["tcp:22,80-90:1000-2000", "53:106", "udp:*:7"]);
        assert!(entries[1].tcp && entries[1].udp);
    }

    #[test]
    fn all_invalid_parts_are_reported() {
        let errors = parse_ports_for_uids("sctp:1:2;tcp:0:x;5;tcp::1", &NoAccounts).unwrap_err();
        let values: Vec<&str> = errors.iter().map(|e| e.value.as_str()).collect();
        assert_eq!(values, ["sctp:1:2", "0", "x", "5", "tcp::1"]);
    }
}
