//! Misdirected connections and lookups.

use sidetrack::types::Family;

use super::{INJECTED, everything, istio_iptables, run};
use crate::common::Transport::{Tcp, Udp};
use crate::common::{Address, Caller, Netns, Owner, Pod, Server, To, Transport, call, call_from, output_of, with_file};
use crate::program::{BACKENDS, apply, feed};

/// A pod and its neighbour. The proxy listens on all that could be redirected to it.
struct Lab {
    pod: Pod,
    _servers: [Server; 3],
}

/// The proxy's ports.
const OUTBOUND: &str = "proxy 15001";
const INBOUND: &str = "proxy 15006";

impl Lab {
    fn new() -> Self {
        Self::around(Pod::new())
    }

    fn around(pod: Pod) -> Self {
        Self {
            _servers: [
                Server::start(&pod.netns, "proxy", Owner::PROXY, &[15001, 15006]),
                Server::start(&pod.netns, "app", Owner::APP, &[8080]),
                Server::start(&pod.peer, "peer", Owner::ROOT, &[53, 443, 9090]),
            ],
            pod,
        }
    }

    /// The server and port that a call lands at.
    #[track_caller]
    fn landing(&self, transport: Transport, caller: Caller, to: To, family: Family) -> String {
        let made = call(&self.pod, transport, caller, to, family);
        let made = made.unwrap_or_else(|error| panic!("{family}, {transport:?}, {caller:?} to {to:?}: {error}"));
        let arrival = made.arrival.expect("an answer");
        format!("{} {}", arrival.server, arrival.port)
    }

    /// Where a neighbour's call to the app and the app's call to a neighbour land.
    #[track_caller]
    fn in_and_out(&self, family: Family) -> [String; 2] {
        [
            self.landing(Tcp, Caller::Peer, To::Pod(8080), family),
            self.landing(Tcp, Caller::App, To::Peer(9090), family),
        ]
    }
}

/// Istio's rules for nftables send outbound IPv6 to a port of `::1` then.
#[test]
fn istio_nft_ipv6_that_is_not_redirected_reaches_its_destination() {
    let lab = Lab::new();
    for backend in BACKENDS {
        run(&lab.pod.netns, backend, INJECTED);
        assert_eq!(lab.in_and_out(Family::V4), [INBOUND, OUTBOUND], "{backend}");
        assert_eq!(lab.in_and_out(Family::V6), ["app 8080", "peer 9090"], "{backend}");
    }
}

#[test]
fn istio_46625_both_families_of_a_dual_stack_pod_are_redirected() {
    let lab = Lab::new();
    for backend in BACKENDS {
        run(&lab.pod.netns, backend, &[INJECTED, &["--dual-stack"]].concat());
        for family in Family::BOTH {
            assert_eq!(lab.in_and_out(family), [INBOUND, OUTBOUND], "{backend}: {family}");
        }
    }
}

/// Istio's rules for nftables jump to a chain that there is none of, and nothing at all is applied.
#[test]
fn istio_nft_ipv6_name_servers_work_if_ipv6_is_not_redirected() {
    let lab = Lab::new();
    for backend in BACKENDS {
        let mut command = istio_iptables(&lab.pod.netns, backend, INJECTED);
        command.arg("--redirect-dns");
        with_file(&mut command, "/etc/resolv.conf", "nameserver fd99::1\n");
        output_of(&mut command);
        assert_eq!(lab.in_and_out(Family::V4), [INBOUND, OUTBOUND], "{backend}");
        for family in Family::BOTH {
            let landing = lab.landing(Udp, Caller::App, To::Peer(53), family);
            assert_eq!(landing, "peer 53", "{backend}: {family}");
        }
    }
}

/// Gives the pod's second interface another name. It loses its IPv6 address meanwhile.
fn rename(netns: &Netns, from: &str, to: &str) {
    let address = Address::POD_SECOND.of(Family::V6);
    netns.ip(&format!(
        "link set {from} down\nlink set {from} name {to}\nlink set {to} up\naddr add {address}/64 dev {to} nodad\n"
    ));
}

#[test]
fn istio_nft_interface_names_may_be_keywords() {
    let lab = Lab::new();
    let mut before = "eth1";
    for name in ["bridge", "meta", "set"] {
        rename(&lab.pod.netns, before, name);
        before = name;
        for backend in BACKENDS {
            let arguments = [INJECTED, &["--dual-stack", "-c", name, "-k", "accept"]].concat();
            run(&lab.pod.netns, backend, &arguments);
            for family in Family::BOTH {
                assert_eq!(lab.in_and_out(family), [INBOUND, OUTBOUND], "{backend}: {name}");
                let inside = lab.landing(Tcp, Caller::PeerSecond, To::PodSecond(8080), family);
                let outside = lab.landing(Tcp, Caller::App, To::PeerSecond(9090), family);
                assert_eq!([inside, outside], ["app 8080", "peer 9090"], "{backend}: {name}");
            }
            let script = run(&lab.pod.netns, "nftables", &[&arguments, &["-n"][..]].concat()).stdout;
            feed(&Netns::new(), "nft", &["-f", "-"], &script);
        }
    }
}

#[test]
fn istio_58135_54288_empty_inbound_ports_redirect_nothing_in_either_mode() {
    let lab = Lab::new();
    let routing = |netns: &Netns| output_of(netns.command("ip").args(["rule", "show"]));
    let without = routing(&lab.pod.netns);
    for (backend, mode) in BACKENDS
        .iter()
        .flat_map(|backend| ["TPROXY", "REDIRECT"].map(|mode| (backend, mode)))
    {
        let arguments = [INJECTED, &["--dual-stack", "-b", "", "-m", mode]].concat();
        run(&lab.pod.netns, backend, &arguments);
        assert_eq!(routing(&lab.pod.netns), without, "{backend}: {mode}");
        for family in Family::BOTH {
            assert_eq!(lab.in_and_out(family), ["app 8080", OUTBOUND], "{backend}: {mode}");
        }
    }
}

/// The destination of a machine behind the pod's second interface: no host has it.
const BEYOND: Address = Address::new(
    std::net::Ipv4Addr::new(203, 0, 113, 5),
    std::net::Ipv6Addr::new(0x2001, 0xdb8, 5, 0, 0, 0, 0, 5),
);

/// Both names of the option mean the same: connections of a machine inside the pod are outbound, not inbound.
#[test]
fn istio_57662_connections_of_a_virtual_machine_are_outbound() {
    let lab = Lab::new();
    let routes = Family::BOTH.map(|family| {
        let (to, by) = (BEYOND.of(family), Address::POD_SECOND.of(family));
        format!("route add {to} via {by}\n")
    });
    lab.pod.peer.ip(&routes.concat());
    for (backend, by_variable) in BACKENDS
        .iter()
        .flat_map(|backend| [true, false].map(|by| (backend, by)))
    {
        let mut command = istio_iptables(&lab.pod.netns, backend, INJECTED);
        command.arg("--dual-stack");
        match by_variable {
            true => command.env("KUBE_VIRT_INTERFACES", "eth1"),
            false => command.args(["-k", "eth1"]),
        };
        output_of(&mut command);
        for family in Family::BOTH {
            let made = Caller::PeerSecond.run(&lab.pod, || {
                call_from(Tcp, Caller::PeerSecond.source(family), (BEYOND.of(family), 443).into())
            });
            let arrival = made.expect("a connection").arrival.expect("an answer");
            assert_eq!(
                (arrival.server.as_str(), arrival.port),
                ("proxy", 15001),
                "{backend}: {family}"
            );
            assert_eq!(lab.in_and_out(family), [INBOUND, OUTBOUND], "{backend}: {family}");
        }
    }
}

/// Those of OpenShift are. Kuma takes 16 bits.
#[test]
fn kuma_ports_are_excluded_for_uids_above_65535() {
    let lab = Lab::new();
    for backend in BACKENDS {
        apply(
            &lab.pod.netns,
            backend,
            &["--exclude-outbound-ports-for-uids", "tcp:9090:1000650000-1000659999"],
        );
        for family in Family::BOTH {
            let of_user = |uid, port| lab.landing(Tcp, Caller::Process(uid, 1000), To::Peer(port), family);
            assert_eq!(of_user(1_000_650_000, 9090), "peer 9090", "{backend}");
            assert_eq!(of_user(1_000_659_999, 9090), "peer 9090", "{backend}");
            assert_eq!(of_user(1_000_660_000, 9090), OUTBOUND, "{backend}");
            assert_eq!(of_user(1_000_650_000, 443), OUTBOUND, "{backend}");
            // The same number, cut to 16 bits.
            assert_eq!(of_user(1_000_650_000 % 65536, 9090), OUTBOUND, "{backend}");
        }
    }
}

/// Packets to an IPv4-mapped address are IPv4 packets: a rule for IPv6 with that address matches nothing.
#[test]
fn ipv4_mapped_destinations_are_excluded_as_ipv4() {
    let lab = Lab::new();
    let neighbour = To::Peer(9090).address(Family::V4).expect("an address");
    let excluded = format!("::ffff:{}", neighbour.ip());
    for backend in BACKENDS {
        apply(&lab.pod.netns, backend, &["--exclude-outbound-cidrs", &excluded]);
        assert_eq!(
            lab.landing(Tcp, Caller::App, To::Peer(9090), Family::V4),
            "peer 9090",
            "{backend}"
        );
        assert_eq!(
            lab.landing(Tcp, Caller::App, To::Peer(9090), Family::V6),
            OUTBOUND,
            "{backend}"
        );
    }
}

#[test]
fn istio_4286_an_app_of_uid_1337_is_captured_where_the_proxy_is_another_user() {
    let lab = Lab::new();
    for backend in BACKENDS {
        run(
            &lab.pod.netns,
            backend,
            &[INJECTED, &["--dual-stack", "-u", "1500"]].concat(),
        );
        for family in Family::BOTH {
            let of_user = |uid| lab.landing(Tcp, Caller::Process(uid, uid), To::Peer(9090), family);
            assert_eq!([of_user(1337), of_user(1500)], [OUTBOUND, "peer 9090"], "{backend}");
        }
    }
}

/// With `ipv6.disable=1` or without, a pod may have no IPv6.
#[test]
fn istio_57199_a_pod_without_ipv6_has_ipv4_redirected() {
    let netns = Netns::new();
    netns
        .run(|| std::fs::write("/proc/sys/net/ipv6/conf/all/disable_ipv6", "1"))
        .expect("a sysctl");
    netns.ip("link add eth0 type veth peer name host0\nlink set eth0 up\nlink set host0 up\naddress add 10.0.0.2/24 dev eth0\n");
    for backend in BACKENDS {
        for arguments in [INJECTED, &[INJECTED, &["--dual-stack"]].concat()] {
            let untouched = everything(&netns, backend);
            run(&netns, backend, arguments);
            let _proxy = Server::start(&netns, "proxy", Owner::PROXY, &[15001]);
            let made = netns.run(|| {
                Owner::APP.assume()?;
                call_from(Tcp, None, ([10, 0, 0, 9], 80).into())
            });
            let arrival = made.expect("a connection").arrival.expect("an answer");
            assert_eq!((arrival.server.as_str(), arrival.port), ("proxy", 15001), "{backend}");
            run(&netns, backend, &["--cleanup-only"]);
            assert_eq!(everything(&netns, backend), untouched, "{backend}");
        }
    }
}
