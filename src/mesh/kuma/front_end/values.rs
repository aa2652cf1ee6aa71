//! Values of `kumactl install transparent-proxy`.

use crate::mesh::front_end::{each, items};
use crate::options::VirtualNetwork;
use crate::types::{
    Backend, Cidrs, InterfaceName, Invalid, IpFamily, NoAccounts, Number as _, Port, Ports, PortsForUids, Range, Uids,
    parse_cidrs, parse_ids,
};

/// Reads a port: only digits.
pub fn port(text: &str) -> Result<Port, Invalid> {
    number(text)
        .and_then(Port::new)
        .ok_or_else(|| Invalid::new(text, "a port from 1 to 65535"))
}

fn number(text: &str) -> Option<u16> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| digits)
}

/// Reads `NAME:PATH` items: the backend follows from the file names.
pub fn executables(text: &str) -> Result<Backend, Invalid> {
    const NAMES: [&str; 6] = [
        "iptables",
        "iptables-save",
        "iptables-restore",
        "ip6tables",
        "ip6tables-save",
        "ip6tables-restore",
    ];
    let mut backend = Backend::Auto;
    for item in items(text) {
        let invalid = || {
            Invalid::new(
                item,
                "NAME:PATH, with a name of iptables, iptables-save, iptables-restore or of ip6tables",
            )
        };
        let (name, path) = item.split_once(':').ok_or_else(invalid)?;
        if !NAMES.contains(&name) {
            return Err(invalid());
        }
        let file = path.rsplit('/').next().unwrap_or(path);
        if file.contains("legacy") {
            backend = Backend::IptablesLegacy;
        } else if file.contains("nft") && backend == Backend::Auto {
            backend = Backend::IptablesNft;
        }
    }
    Ok(backend)
}

/// Reads a list of ports, without ranges.
pub fn ports(text: &str) -> Result<Ports, Vec<Invalid>> {
    each(items(text), port).map(|ports| ports.into_iter().collect())
}

/// Reads the IP families to redirect.
pub fn family_mode(text: &str) -> Result<IpFamily, Invalid> {
    match text {
        "" | "dualstack" => Ok(IpFamily::Auto),
        "ipv4" => Ok(IpFamily::Ipv4),
        _ => Err(Invalid::new(text, "dualstack or ipv4")),
    }
}

/// Reads addresses and CIDRs from several lists.
pub fn cidrs(texts: &[String]) -> Result<Cidrs, Vec<Invalid>> {
    const EXPECTED: &str = "an address or a CIDR, such as 10.0.0.1 or fd00::/8";
    let (mut all, mut errors) = (Vec::new(), Vec::new());
    for text in texts {
        if text.is_empty() {
            errors.push(Invalid::new(text, EXPECTED));
        }
        for item in items(text) {
            match parse_cidrs(item) {
                Ok(cidrs) if item != "*" => all.push(cidrs),
                _ => errors.push(Invalid::new(item, EXPECTED)),
            }
        }
    }
    if errors.is_empty() {
        let nets = |cidrs: &Cidrs| {
            let v4 = cidrs.v4().iter().copied().map(Into::into);
            v4.chain(cidrs.v6().iter().copied().map(Into::into)).collect::<Vec<_>>()
        };
        Ok(all.iter().flat_map(nets).collect())
    } else {
        Err(errors)
    }
}

/// Reads `[PROTOCOLS:][PORTS:]USERS`. A missing or empty part means all.
pub fn ports_for_uids(text: &str) -> Result<PortsForUids, Invalid> {
    let parts: Vec<&str> = text.split(':').collect();
    let (protocols, ports, uids) = match parts.as_slice() {
        [uids] => ("", "", *uids),
        [ports, uids] => ("", *ports, *uids),
        [protocols, ports, uids] => (*protocols, *ports, *uids),
        _ => {
            return Err(Invalid::new(
                text,
                "[PROTOCOLS:][PORTS:]USERS, such as tcp:22:1000-2000",
            ));
        }
    };
    let (tcp, udp) = protocols_of(protocols)?;
    Ok(PortsForUids {
        tcp,
        udp,
        ports: ports_of(ports)?,
        uids: uids_of(uids)?,
    })
}

fn protocols_of(text: &str) -> Result<(bool, bool), Invalid> {
    if matches!(text, "" | "*") {
        return Ok((true, true));
    }
    let (mut tcp, mut udp) = (false, false);
    for item in items(text) {
        match item.to_ascii_lowercase().as_str() {
            "tcp" => tcp = true,
            "udp" => udp = true,
            _ => return Err(Invalid::new(item, "tcp or udp")),
        }
    }
    Ok((tcp, udp))
}

/// Reads ports. Port 0 is accepted and ignored: it is not a valid destination.
fn ports_of(text: &str) -> Result<Ports, Invalid> {
    if matches!(text, "" | "*") {
        return Ok(Ports::everything());
    }
    let mut ports = Vec::new();
    for item in items(text) {
        let (first, last) = range(item).ok_or_else(|| Invalid::new(item, "a port, a range a-b, or *"))?;
        let first = Port::new(first).unwrap_or(Port::MIN);
        ports.extend(Port::new(last).and_then(|last| Range::new(first, last)));
    }
    Ok(ports.into_iter().collect())
}

/// Reads UIDs. Kuma accepts UIDs up to 65535 only, but OpenShift's are larger.
fn uids_of(text: &str) -> Result<Uids, Invalid> {
    const EXPECTED: &str = "a UID, or one range a-b";
    if text.is_empty() {
        return Ok(Uids::everything());
    }
    let numbers = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-');
    let uids = parse_ids(text, &NoAccounts).ok().filter(|_| numbers);
    uids.ok_or_else(|| Invalid::new(text, EXPECTED))
}

fn range(text: &str) -> Option<(u16, u16)> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (number(first)?, number(last)?);
    (first <= last).then_some((first, last))
}

/// Reads `INTERFACE:CIDR` entries. Of several for one interface and family, the last one applies.
pub fn networks(texts: &[String]) -> Result<Vec<VirtualNetwork>, Vec<Invalid>> {
    let mut networks: Vec<VirtualNetwork> = Vec::new();
    for network in each(texts.iter().map(String::as_str), network)? {
        networks.retain(|other| other.interface != network.interface || other.family() != network.family());
        networks.push(network);
    }
    Ok(networks)
}

fn network(text: &str) -> Result<VirtualNetwork, Invalid> {
    let invalid = || Invalid::new(text, "INTERFACE:CIDR, such as docker0:172.17.0.0/16, without wildcards");
    let (interface, cidr) = text.split_once(':').ok_or_else(invalid)?;
    let cidr = Some(cidr)
        .filter(|cidr| cidr.contains('/'))
        .and_then(|cidr| parse_cidrs(cidr).ok());
    let cidr = cidr.ok_or_else(invalid)?;
    let cidr = match (cidr.v4(), cidr.v6()) {
        ([net], []) => (*net).into(),
        ([], [net]) => (*net).into(),
        _ => return Err(invalid()),
    };
    let interface = InterfaceName::parse(interface).map_err(|_| invalid())?;
    Ok(VirtualNetwork { interface, cidr })
}
