//! The outbound policy: with any options, only the holes let a packet leave, and none of the proxy's is rejected.

use std::net::IpAddr;
use std::process::Command;

use sidetrack::plan::{Bypass, Direction};
use sidetrack::ruleset::Tracking;
use sidetrack::simulate::{End, Origin, Packet, Pod, Simulation, simulate};
use sidetrack::types::{
    Gid, Id as _, InterfaceName, IpProtocol, NoAccounts, Port, Ports, Uid, parse_cidrs, parse_ids, parse_ports,
    parse_ports_for_uids,
};

use crate::plans::plan;
use crate::program::Run;
use crate::{SIDETRACK, random};

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

/// Whether the plan lists a packet as one that bypasses the proxy.
fn is_listed(bypass: &Bypass, packet: &Packet, uid: Uid, gid: Gid, link: &InterfaceName) -> bool {
    let value = bypass.value.as_deref().unwrap_or_default();
    let is_tcp = packet.protocol == IpProtocol::TCP;
    let is_of = |ports: &Ports| packet.destination_port.is_some_and(|port| ports.contains(port));
    if bypass.direction == Direction::Inbound {
        return false;
    }
    // No packet of these has a mark.
    if bypass.option.starts_with("--proxy") && bypass.traffic.contains("with its mark") {
        return false;
    }
    match bypass.option.as_str() {
        "--proxy-uid" | "--exclude-uids" => parse_ids(value, &NoAccounts).unwrap().contains(uid),
        "--proxy-gid" | "--exclude-gids" => parse_ids(value, &NoAccounts).unwrap().contains(gid),
        "--exclude-outbound-ports" => is_tcp && is_of(&parse_ports(value).unwrap()),
        "--exclude-outbound-cidrs" => match (parse_cidrs(value).unwrap(), packet.destination) {
            (cidrs, IpAddr::V4(to)) => cidrs.v4().iter().any(|net| net.contains(&to)),
            (cidrs, IpAddr::V6(to)) => cidrs.v6().iter().any(|net| net.contains(&to)),
        },
        "--exclude-interfaces" => value.split(',').any(|name| name == link.as_str()),
        "--exclude-outbound-ports-for-uids" => {
            let entries = parse_ports_for_uids(value, &NoAccounts).unwrap();
            entries.iter().any(|entry| {
                let is_meant = match packet.protocol {
                    IpProtocol::TCP => entry.tcp,
                    IpProtocol::UDP => entry.udp,
                    _ => false,
                };
                is_meant && is_of(&entry.ports) && entry.uids.contains(uid)
            })
        }
        // Processes behind these send none of the packets.
        "--reroute-interfaces" => false,
        "--allow-dns" => {
            let is_query = match bypass.traffic.strip_prefix("DNS queries over ") {
                Some(text) if text.starts_with("TCP") => is_tcp,
                Some(_) => packet.protocol == IpProtocol::UDP,
                None => is_tcp || packet.protocol == IpProtocol::UDP,
            };
            let to = packet.destination.to_string();
            is_query && packet.to().port() == 53 && bypass.traffic.split([' ', ',']).any(|server| server == to)
        }
        other => panic!("{other}"),
    }
}

#[test]
fn only_what_the_plan_lists_leaves_with_any_options() {
    random::each(300, |options| {
        let options = [options, &["--outbound-policy", "proxy-only"]].concat();
        let plan = plan(&options);
        let bypasses = plan.bypasses.clone();
        let pod = Simulation::planned("the plan", plan, Pod::default(), None);
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
                        cgroup: None,
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
                let is_exempt = bypasses
                    .iter()
                    .any(|bypass| is_listed(bypass, &packet, uid, gid, &link));
                assert!(!leaves || is_exempt, "{options:?}: {packet:?}");
                if is_exempt {
                    assert_ne!(path.end, End::Rejected, "{options:?}: {packet:?}");
                }
            }
        }
    });
}

/// One excluded thing of each kind, beside packets that differ in nothing else.
#[test]
fn each_listed_bypass_passes_and_its_like_does_not() {
    let cases: [(&[&str], &str, &str); 8] = [
        (&[], "outbound icmp 10.0.0.5 --uid 1337", "outbound icmp 10.0.0.5"),
        (
            &["--exclude-outbound-ports", "22"],
            "outbound tcp 10.0.0.5:22",
            "outbound udp 10.0.0.5:22",
        ),
        (
            &["--exclude-uids", "7"],
            "outbound 47 10.0.0.5 --uid 7",
            "outbound 47 10.0.0.5 --uid 8",
        ),
        (
            &["--exclude-gids", "9"],
            "outbound udp 10.0.0.5:9 --gid 9",
            "outbound udp 10.0.0.5:9 --gid 10",
        ),
        (
            &["--exclude-outbound-ports-for-uids", "udp:123:7"],
            "outbound udp 10.0.0.5:123 --uid 7",
            "outbound udp 10.0.0.5:124 --uid 7",
        ),
        (
            &["--exclude-outbound-cidrs", "10.0.0.0/8"],
            "outbound sctp 10.0.0.5:9",
            "outbound sctp 11.0.0.5:9",
        ),
        (
            &["--exclude-interfaces", "eth1"],
            "outbound icmp 10.0.0.5 --interface eth1",
            "outbound icmp 10.0.0.5",
        ),
        (
            &["--allow-dns", "--dns-servers", "10.96.0.10"],
            "outbound udp 10.96.0.10:53",
            "outbound udp 10.96.0.11:53",
        ),
    ];
    for (options, passes, like) in cases {
        let options = [options, &["--outbound-policy", "proxy-only"]].concat();
        let listed = plan(&options).bypasses;
        let own = options[0];
        assert!(
            own == "--outbound-policy" || listed.iter().any(|bypass| bypass.option == own),
            "{listed:?}"
        );
        let explained = |packet: &str| {
            let mut command = Command::new(SIDETRACK);
            let run = Run::of(command.arg("explain").args(packet.split(' ')).args(&options));
            run.succeeded().stdout.lines().next().unwrap().to_owned()
        };
        assert!(
            explained(passes).contains("is not redirected"),
            "{options:?}: {}",
            explained(passes)
        );
        assert_eq!(
            explained(like),
            "The packet is rejected: outbound policy.",
            "{options:?}"
        );
    }
}

#[test]
fn dry_run_lists_what_bypasses_the_proxy_in_each_output() {
    let dry_run = |output: &str, policy: &[&str]| {
        let mut command = Command::new(SIDETRACK);
        let options = [
            "apply",
            "--dry-run",
            "--output",
            output,
            "--exclude-uids",
            "7",
            "--exclude-inbound-ports",
            "22",
        ];
        Run::of(command.args(options).args(policy)).succeeded().stdout
    };
    let both = ["--outbound-policy", "proxy-only", "--inbound-policy", "proxy-only"];
    for output in ["nft", "iptables"] {
        let text = dry_run(output, &both);
        for line in [
            "# Bypasses the proxy, outbound: --proxy-uid=1337: the proxy's traffic\n",
            "# Bypasses the proxy, outbound: --exclude-uids=7: everything that these users send\n",
            "# Bypasses the proxy, inbound: --exclude-inbound-ports=22: TCP to these ports\n",
        ] {
            assert!(text.contains(line), "{line:?} is missing in {text}");
        }
        assert!(!dry_run(output, &[]).contains("Bypasses"));
    }
    let json: serde_json::Value = serde_json::from_str(&dry_run("json", &both)).unwrap();
    let listed = json["bypasses"].as_array().unwrap();
    let expected = serde_json::json!({
        "direction": "outbound",
        "option": "--exclude-uids",
        "value": "7",
        "traffic": "everything that these users send",
    });
    assert!(listed.contains(&expected), "{listed:?}");
    assert!(!dry_run("json", &[]).contains("bypasses"));
}
