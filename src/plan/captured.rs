//! What the rules redirect to the proxy, by destination, of senders that no option excludes.

use std::net::IpAddr;

use super::context::{DNS_PORT, Lookups};
use crate::mesh;
use crate::options::Config;
use crate::ruleset::Protocol;
use crate::types::Port;

/// Whether TCP to this port of another host is redirected to the proxy's outbound port. Captured DNS queries aside.
pub fn captures_tcp(config: &Config, host: IpAddr, port: Port) -> bool {
    let outbound = &config.outbound;
    let is_excluded = outbound.exclude_ports.contains(port) || outbound.exclude_cidrs.contains(host);
    !is_excluded && (outbound.include_ports.contains(port) || outbound.include_cidrs.contains(host))
}

/// Whether DNS queries to this server go to the proxy: to its DNS port, or over TCP like any other connection.
pub fn captures_query(config: &Config, lookups: Option<&Lookups>, protocol: Protocol, server: IpAddr) -> bool {
    let is_lookup = match lookups {
        Some(Lookups::All) => true,
        Some(Lookups::To(servers) | Lookups::FromAllSenders(servers)) => servers.contains(server),
        None => false,
    };
    match (protocol, is_lookup) {
        (Protocol::Udp, _) => is_lookup,
        (Protocol::Tcp, true) => mesh::answers_dns_over_tcp(config.proxy.mesh),
        (Protocol::Tcp, false) => captures_tcp(config, server, DNS_PORT),
    }
}
