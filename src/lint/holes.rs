//! What annotations exempt from a policy that the pod has.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::Report;
use super::annotations::place;
use super::code::Code;
use super::subject::Subject;
use crate::facts::Facts;
use crate::plan::bypasses;
use crate::types::Families;

/// The pod's name servers are not known: one of each family stands for them (RFC 5737, RFC 3849).
const NAME_SERVERS: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(192, 0, 2, 53)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 53)),
];

/// Reports each annotation of a pod with a policy that lets traffic bypass the proxy.
pub fn check(subject: &Subject<'_>, report: &mut Report) {
    let facts = Facts {
        resolvers: NAME_SERVERS.to_vec(),
        ..Facts::default()
    };
    for bypass in bypasses(&subject.config, &facts, Families::Both) {
        let name = bypass.option.trim_start_matches('-');
        let Some(at) = place(&subject.said, name) else {
            continue;
        };
        let value = bypass.value.map(|value| format!("={value}")).unwrap_or_default();
        let traffic = match name {
            "allow-dns" => "DNS queries",
            _ => &bypass.traffic,
        };
        let message = format!(
            "{name}{value}: a hole in the {} policy, for {traffic}",
            bypass.direction.name()
        );
        report.add(Code::Hole, at, message);
    }
}
