//! The outbound policy: with any options, only the holes let a packet leave, and none of the proxy's is rejected.

use std::net::IpAddr;

use sidetrack::options::Config;
use sidetrack::ruleset::{Protocol, Tracking};
use sidetrack::simulate::{End, Origin, Packet, Pod, Simulation, simulate};
use sidetrack::types::{Gid, Id as _, InterfaceName, Port, Uid};

use crate::plans::{plan, settings};
use crate::random;

const OWNERS: [(u32, u32); 3] = [(1000, 1000), (1337, 1337), (7, 3000)];
const HOSTS: [&str; 4] = ["198.51.100.1", "2001:db8:ffff::1", "169.254.169.254", "10.0.0.5"];
const PORTS: [u16; 5] = [22, 53, 80, 443, 15001];

/// Whether options exempt a packet from the policy: it is the proxy's, or excluded.
fn is_exempt(config: &Config, packet: &Packet, uid: Uid, gid: Gid, link: &InterfaceName) -> bool {
    let (proxy, outbound) = (&config.proxy, &config.outbound);
    let is_tcp = packet.protocol == Protocol::Tcp;
    let excluded = match packet.destination {
        IpAddr::V4(to) => outbound.exclude_cidrs.v4().iter().any(|net| net.contains(&to)),
        IpAddr::V6(to) => outbound.exclude_cidrs.v6().iter().any(|net| net.contains(&to)),
    };
    let port = packet.destination_port;
    // No packet of these has a mark.
    let is_proxy = proxy.mark.is_none() && (proxy.uids.contains(uid) || proxy.gids.contains(gid));
    is_proxy
        || outbound.exclude_uids.contains(uid)
        || outbound.exclude_gids.contains(gid)
        || excluded
        || is_tcp && outbound.exclude_ports.contains(port)
        || config.general.exclude_interfaces.contains(link)
        || outbound.exclude_ports_for_uids.iter().any(|entry| {
            let is_meant = if is_tcp { entry.tcp } else { entry.udp };
            is_meant && entry.ports.contains(port) && entry.uids.contains(uid)
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
            for protocol in [Protocol::Tcp, Protocol::Udp] {
                let packet = Packet {
                    origin: Origin::Process {
                        uid,
                        gid,
                        cgroup: None,
                        interface: link.clone(),
                    },
                    protocol,
                    source: pod.pod.source(to, 0, &link).unwrap(),
                    source_port: Port::new(40000).unwrap(),
                    destination: to,
                    destination_port: Port::new(port).unwrap(),
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
