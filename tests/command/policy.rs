//! The outbound policy: with any options, only the holes let a packet leave, and none of the proxy's is rejected.

use std::net::IpAddr;

use sidetrack::options::Config;
use sidetrack::ruleset::Tracking;
use sidetrack::simulate::{End, Origin, Packet, Pod, Simulation, simulate};
use sidetrack::types::{Gid, Id as _, InterfaceName, IpProtocol, Port, Ports, Uid};

use crate::plans::{plan, settings};
use crate::random;

const OWNERS: [(u32, u32); 3] = [(1000, 1000), (1337, 1337), (7, 3000)];
const HOSTS: [&str; 4] = ["198.51.100.1", "2001:db8:ffff::1", "169.254.169.254", "10.0.0.5"];
const GRE: IpProtocol = IpProtocol::new(47);
const PORTS: [u16; 5] = [22, 53, 80, 443, 15001];

/// TCP, UDP, and some that nothing redirects.
fn protocols(to: IpAddr) -> [IpProtocol; 5] {
    let icmp = match to {
        IpAddr::V4(_) => IpProtocol::ICMP,
        IpAddr::V6(_) => IpProtocol::ICMPV6,
    };
    [IpProtocol::TCP, IpProtocol::UDP, IpProtocol::SCTP, icmp, GRE]
}

/// Whether options exempt a packet from the policy: it is the proxy's, or excluded.
fn is_exempt(config: &Config, packet: &Packet, uid: Uid, gid: Gid, link: &InterfaceName) -> bool {
    let (proxy, outbound) = (&config.proxy, &config.outbound);
    let is_tcp = packet.protocol == IpProtocol::TCP;
    let excluded = match packet.destination {
        IpAddr::V4(to) => outbound.exclude_cidrs.v4().iter().any(|net| net.contains(&to)),
        IpAddr::V6(to) => outbound.exclude_cidrs.v6().iter().any(|net| net.contains(&to)),
    };
    let is_of = |ports: &Ports| packet.destination_port.is_some_and(|port| ports.contains(port));
    proxy.uids.contains(uid)
        || proxy.gids.contains(gid)
        || outbound.exclude_uids.contains(uid)
        || outbound.exclude_gids.contains(gid)
        || excluded
        || is_tcp && is_of(&outbound.exclude_ports)
        || config.general.exclude_interfaces.contains(link)
        || outbound.exclude_ports_for_uids.iter().any(|entry| {
            let is_meant = match packet.protocol {
                IpProtocol::TCP => entry.tcp,
                IpProtocol::UDP => entry.udp,
                _ => false,
            };
            is_meant && is_of(&entry.ports) && entry.uids.contains(uid)
        })
}

#[test]
fn only_exempt_packets_leave_with_any_options() {
    random::each(300, |options| {
        let options = [options, &["--outbound-policy", "proxy-only"]].concat();
        let config = settings(&options).config;
        let pod = Simulation::planned("the plan", plan(&options), Pod::default(), None);
        let link = pod.pod.addresses[0].0.clone();
        let each = OWNERS
            .iter()
            .flat_map(|owner| HOSTS.iter().flat_map(move |to| PORTS.map(|port| (*owner, *to, port))));
        for ((uid, gid), to, port) in each {
            let to: IpAddr = to.parse().unwrap();
            let (uid, gid) = (Uid::new(uid).unwrap(), Gid::new(gid).unwrap());
            for protocol in protocols(to) {
                let has_ports = protocol.has_ports();
                let packet = Packet {
                    origin: Origin::Process {
                        uid,
                        gid,
                        interface: link.clone(),
                    },
                    protocol,
                    source: pod.pod.source(to, 0, &link).unwrap(),
                    source_port: Port::new(40000).filter(|_| has_ports),
                    destination: to,
                    destination_port: Port::new(port).filter(|_| has_ports),
                    mark: 0,
                    tracking: Tracking::New,
                };
                let path = simulate(&pod.rules, &pod.pod, &packet).unwrap();
                let leaves = matches!(path.end, End::Sent { .. });
                assert!(path.certain, "{options:?}: {packet:?}: {:?}", path.doubts);
                let is_exempt = is_exempt(&config, &packet, uid, gid, &link);
                assert!(!leaves || is_exempt, "{options:?}: {packet:?}");
                if is_exempt {
                    assert_ne!(path.end, End::Rejected, "{options:?}: {packet:?}");
                }
            }
        }
    });
}
