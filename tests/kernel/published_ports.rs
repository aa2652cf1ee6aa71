//! Rules of docker and kube-proxy in the same network namespace: they translate destinations after sidetrack's rules.
//!
//! The rules are those that the programs write: docker 28 for a container with a published port
//! (`daemon/libnetwork/drivers/bridge/internal/iptabler` of moby/moby, its golden files), and kube-proxy 1.34 in mode
//! iptables for a Service with a node port (`pkg/proxy/iptables/proxier.go` of kubernetes/kubernetes, `syncProxyRules`).

use std::fs;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use sidetrack::types::{Family, InboundMode};

use crate::common::call::call_from;
use crate::common::envoy::Accepted;
use crate::common::{Address, Call, Caller, Netns, Owner, Pod, Server, Sidecar, Transport};
use crate::program::{apply, feed, sidetrack};

const BRIDGE: Address = Address::new(Ipv4Addr::new(172, 17, 0, 1), Ipv6Addr::new(0xfd17, 0, 0, 0, 0, 0, 0, 1));
const CONTAINER: Address = Address::new(Ipv4Addr::new(172, 17, 0, 2), Ipv6Addr::new(0xfd17, 0, 0, 0, 0, 0, 0, 2));
const SERVICE: Address = Address::new(
    Ipv4Addr::new(172, 30, 0, 41),
    Ipv6Addr::new(0xfd30, 0, 0, 0, 0, 0, 0, 0x41),
);

/// Published by docker, and the port in the container.
const PUBLISHED: u16 = 8088;
const INSIDE: u16 = 80;
/// The node port of the Service, its own port, and that of its endpoint, the neighbour.
const NODE_PORT: u16 = 30001;
const SERVICE_PORT: u16 = 80;
const ENDPOINT_PORT: u16 = 9090;

const WARNING: &str = "this chain translates the destination of inbound connections to these ports";

/// Backends of sidetrack, and the variant of iptables that the other program runs.
const NEIGHBOURS: [(&str, &str); 4] = [
    ("nftables", "nft"),
    ("nftables", "legacy"),
    ("iptables-nft", "nft"),
    ("iptables-legacy", "legacy"),
];

/// A host with a container behind docker's bridge.
struct Host {
    pod: Pod,
    container: Netns,
    _server: Server,
}

impl Host {
    fn new(variant: &str) -> Self {
        let (pod, container) = (Pod::new(), Netns::new());
        let address = |address: Address| {
            let [v4, v6] = address.both();
            format!("addr add {v4}/16 dev docker0\naddr add {v6}/64 dev docker0 nodad\n")
        };
        pod.netns.ip(&format!(
            "link add docker0 type bridge\nlink add veth0 type veth peer name eth0 netns {}\n\
             link set veth0 master docker0 up\nlink set docker0 up\n{}",
            container.path().display(),
            address(BRIDGE)
        ));
        let [gateway4, gateway6] = BRIDGE.both();
        container.ip(&format!(
            "link set eth0 up\n{}route add default via {gateway4}\nroute add ::/0 via {gateway6}\n",
            address(CONTAINER).replace("docker0", "eth0")
        ));
        pod.netns.run(forward);
        for family in Family::BOTH {
            feed(&pod.netns, &restore(family, variant), &["--noflush"], &docker(family));
        }
        Self {
            _server: Server::start(&container, "container", Owner::ROOT, &[INSIDE]),
            pod,
            container,
        }
    }
}

fn forward() {
    for setting in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
        fs::write(format!("/proc/sys/net/{setting}"), "1").expect("a host that forwards");
    }
}

fn restore(family: Family, variant: &str) -> String {
    match family {
        Family::V4 => format!("iptables-{variant}-restore"),
        Family::V6 => format!("ip6tables-{variant}-restore"),
    }
}

/// What docker writes for its bridge, and for one published port.
fn docker(family: Family) -> String {
    let (container, subnet, loopback, to, more) = match family {
        Family::V4 => ("172.17.0.2/32", "172.17.0.0/16", "127.0.0.0/8", "172.17.0.2:80", ""),
        Family::V6 => ("fd17::2/128", "fd17::/64", "::1/128", "[fd17::2]:80", "! -s fe80::/10 "),
    };
    format!(
        "*raw\n-A PREROUTING -d {container} ! -i docker0 -j DROP\nCOMMIT\n\
         *filter\n:FORWARD DROP [0:0]\n:DOCKER - [0:0]\n:DOCKER-BRIDGE - [0:0]\n:DOCKER-CT - [0:0]\n\
         :DOCKER-FORWARD - [0:0]\n:DOCKER-INTERNAL - [0:0]\n-A FORWARD -j DOCKER-FORWARD\n\
         -A DOCKER -d {container} ! -i docker0 -o docker0 -p tcp -m tcp --dport {INSIDE} -j ACCEPT\n\
         -A DOCKER ! -i docker0 -o docker0 -j DROP\n-A DOCKER-BRIDGE -o docker0 -j DOCKER\n\
         -A DOCKER-CT -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n\
         -A DOCKER-FORWARD -j DOCKER-CT\n-A DOCKER-FORWARD -j DOCKER-INTERNAL\n-A DOCKER-FORWARD -j DOCKER-BRIDGE\n\
         -A DOCKER-FORWARD -i docker0 -j ACCEPT\nCOMMIT\n\
         *nat\n:DOCKER - [0:0]\n-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER\n\
         -A OUTPUT ! -d {loopback} -m addrtype --dst-type LOCAL -j DOCKER\n\
         -A POSTROUTING -s {subnet} ! -o docker0 -j MASQUERADE\n\
         -A DOCKER {more}! -i docker0 -p tcp -m tcp --dport {PUBLISHED} -j DNAT --to-destination {to}\nCOMMIT\n"
    )
}

/// What kube-proxy writes for one Service with a node port and one endpoint, which is the neighbour.
fn kube_proxy(family: Family) -> String {
    let (service, endpoint, to, localnet) = match family {
        Family::V4 => (
            "172.30.0.41",
            "10.99.0.1",
            "10.99.0.1:9090",
            "-A KUBE-FIREWALL -m comment --comment \"block incoming localnet connections\" -d 127.0.0.0/8 \
             ! -s 127.0.0.0/8 -m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP\n",
        ),
        Family::V6 => ("fd30::41", "fd99::1", "[fd99::1]:9090", ""),
    };
    format!(
        "*filter\n:KUBE-FIREWALL - [0:0]\n:KUBE-FORWARD - [0:0]\n-I INPUT -j KUBE-FIREWALL\n\
         -I FORWARD -m comment --comment \"kubernetes forwarding rules\" -j KUBE-FORWARD\n\
         {localnet}-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP\n\
         -A KUBE-FORWARD -m mark --mark 0x4000/0x4000 -j ACCEPT\n\
         -A KUBE-FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\nCOMMIT\n\
         *nat\n:KUBE-NODEPORTS - [0:0]\n:KUBE-SERVICES - [0:0]\n:KUBE-EXT-XPGD46QRK7WJZT7O - [0:0]\n\
         :KUBE-MARK-MASQ - [0:0]\n:KUBE-POSTROUTING - [0:0]\n:KUBE-SEP-SXIVWICOYRO3J4NJ - [0:0]\n\
         :KUBE-SVC-XPGD46QRK7WJZT7O - [0:0]\n\
         -I OUTPUT -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES\n\
         -I PREROUTING -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES\n\
         -I POSTROUTING -m comment --comment \"kubernetes postrouting rules\" -j KUBE-POSTROUTING\n\
         -A KUBE-NODEPORTS -m comment --comment ns1/svc1:p80 -m tcp -p tcp --dport {NODE_PORT} \
         -j KUBE-EXT-XPGD46QRK7WJZT7O\n\
         -A KUBE-SERVICES -m comment --comment \"ns1/svc1:p80 cluster IP\" -m tcp -p tcp -d {service} \
         --dport {SERVICE_PORT} -j KUBE-SVC-XPGD46QRK7WJZT7O\n\
         -A KUBE-SERVICES -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS\n\
         -A KUBE-EXT-XPGD46QRK7WJZT7O -j KUBE-MARK-MASQ\n-A KUBE-EXT-XPGD46QRK7WJZT7O -j KUBE-SVC-XPGD46QRK7WJZT7O\n\
         -A KUBE-MARK-MASQ -j MARK --or-mark 0x4000\n\
         -A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN\n\
         -A KUBE-POSTROUTING -j MARK --xor-mark 0x4000\n-A KUBE-POSTROUTING -j MASQUERADE\n\
         -A KUBE-SEP-SXIVWICOYRO3J4NJ -m comment --comment ns1/svc1:p80 -s {endpoint} -j KUBE-MARK-MASQ\n\
         -A KUBE-SEP-SXIVWICOYRO3J4NJ -m comment --comment ns1/svc1:p80 -m tcp -p tcp -j DNAT --to-destination {to}\n\
         -A KUBE-SVC-XPGD46QRK7WJZT7O -m comment --comment \"ns1/svc1:p80 -> endpoint\" \
         -j KUBE-SEP-SXIVWICOYRO3J4NJ\nCOMMIT\n"
    )
}

/// Calls an address, and says which server answered, and what the proxy accepted meanwhile.
fn landing(sidecar: &Sidecar, caller: &dyn Fn() -> io::Result<Call>) -> (Option<String>, Accepted) {
    let before = sidecar.envoy.accepted();
    let server = caller()
        .ok()
        .and_then(|call| call.arrival)
        .map(|arrival| arrival.server);
    (server, sidecar.envoy.accepted().since(before))
}

const PAST: Accepted = Accepted {
    inbound: 0,
    outbound: 0,
};
const INBOUND: Accepted = Accepted { inbound: 1, ..PAST };
const OUTBOUND: Accepted = Accepted { outbound: 1, ..PAST };

fn at(address: Address, family: Family, port: u16) -> SocketAddr {
    (address.of(family), port).into()
}

/// Whether a connection that the proxy passes on can leave the host once its destination is translated: its source is
/// 127.0.0.6, which the kernel does not route, or ::6.
fn passed_on(family: Family) -> bool {
    family == Family::V6
}

/// Calls as this caller of the laboratory.
fn by<'l>(pod: &'l Pod, caller: Caller, to: SocketAddr, family: Family) -> impl Fn() -> io::Result<Call> + 'l {
    move || caller.run(pod, || call_from(Transport::Tcp, caller.source(family), to))
}

/// Applies these options; says whether sidetrack warns of the ports, which check must do, too.
fn warns(netns: &Netns, backend: &str, options: &[&str]) -> bool {
    let log = apply(netns, backend, options);
    let check = sidetrack(netns, &[&["check", "--backend", backend], options].concat());
    assert_eq!(
        log.contains(WARNING),
        check.stderr.contains(WARNING),
        "{log}\n{check:?}"
    );
    log.contains(WARNING)
}

#[test]
fn port_published_by_docker_reaches_container_only_if_excluded() {
    for (backend, variant) in NEIGHBOURS {
        let host = Host::new(variant);
        let sidecar = Sidecar::start(host.pod);
        let netns = &sidecar.pod.netns;
        let lands = |caller, family| {
            let published = at(Address::POD, family, PUBLISHED);
            landing(&sidecar, &by(&sidecar.pod, caller, published, family))
        };
        let reaches_container = |when: &str| {
            for family in Family::BOTH {
                for caller in [Caller::Peer, Caller::App] {
                    let container = (Some("container".to_owned()), PAST);
                    assert_eq!(
                        lands(caller, family),
                        container,
                        "{backend}, {variant}: {caller:?}, {when}"
                    );
                }
            }
        };
        reaches_container("without rules");
        assert!(warns(netns, backend, &[]), "{backend}, {variant}");
        for family in Family::BOTH {
            let container = passed_on(family).then(|| "container".to_owned());
            assert_eq!(
                lands(Caller::Peer, family),
                (container, INBOUND),
                "{backend}, {variant}: {family}"
            );
        }
        assert!(
            !warns(netns, backend, &["--exclude-inbound-ports", "8088"]),
            "{backend}, {variant}"
        );
        reaches_container("excluded");
    }
}

#[test]
fn container_behind_bridge_calls_out_through_proxy_only_if_its_bridge_is_rerouted() {
    for (backend, variant) in NEIGHBOURS {
        let host = Host::new(variant);
        let sidecar = Sidecar::start(host.pod);
        let netns = &sidecar.pod.netns;
        let lands = |family| {
            let out = at(Address::PEER, family, ENDPOINT_PORT);
            landing(&sidecar, &|| {
                host.container.run(|| call_from(Transport::Tcp, None, out))
            })
        };
        let server = Some("server".to_owned());
        let all = |expected: &(Option<String>, Accepted), when: &str| {
            for family in Family::BOTH {
                assert_eq!(lands(family), *expected, "{backend}, {variant}: {family}, {when}");
            }
        };
        all(&(server.clone(), PAST), "without rules");
        let hints = |options: &[&str]| {
            let log = apply(netns, backend, options);
            let check = sidetrack(netns, &[&["check", "--backend", backend], options].concat());
            let hint = "--reroute-interfaces docker0 treats them as outbound";
            assert_eq!(log.contains(hint), check.stderr.contains(hint), "{log}\n{check:?}");
            log.contains(hint)
        };
        assert!(hints(&[]));
        all(&(None, INBOUND), "by default");
        assert!(!hints(&["--exclude-interfaces", "docker0"]));
        all(&(server.clone(), PAST), "bridge excluded");
        assert!(!hints(&["--reroute-interfaces", "docker0"]));
        all(&(server, OUTBOUND), "bridge rerouted");
    }
}

/// Rules of kube-proxy in both families.
fn run_kube_proxy(pod: &Pod, variant: &str) {
    for family in Family::BOTH {
        let rules = kube_proxy(family);
        feed(&pod.netns, &restore(family, variant), &["--noflush"], &rules);
    }
}

/// Where a connection of the application to the Service lands.
fn by_service(sidecar: &Sidecar, family: Family) -> (Option<String>, Accepted) {
    let service = at(SERVICE, family, SERVICE_PORT);
    landing(sidecar, &by(&sidecar.pod, Caller::App, service, family))
}

#[test]
fn services_of_kube_proxy_are_translated_for_proxy_and_for_what_is_excluded() {
    for (backend, variant) in NEIGHBOURS {
        let pod = Pod::new();
        pod.netns.run(forward);
        run_kube_proxy(&pod, variant);
        let sidecar = Sidecar::start(pod);
        let netns = &sidecar.pod.netns;
        let by_node_port = |family| {
            let node_port = at(Address::POD, family, NODE_PORT);
            landing(&sidecar, &by(&sidecar.pod, Caller::Far, node_port, family))
        };
        let server = Some("server".to_owned());
        for family in Family::BOTH {
            let context = format!("{backend}, {variant}: {family}");
            assert_eq!(by_service(&sidecar, family), (server.clone(), PAST), "{context}");
            assert_eq!(by_node_port(family), (server.clone(), PAST), "{context}");
        }
        assert!(warns(netns, backend, &[]), "{backend}, {variant}");
        for family in Family::BOTH {
            let context = format!("{backend}, {variant}: {family}");
            // The proxy's own connection is translated.
            assert_eq!(by_service(&sidecar, family), (server.clone(), OUTBOUND), "{context}");
            let passed_on = passed_on(family).then(|| "server".to_owned());
            assert_eq!(by_node_port(family), (passed_on, INBOUND), "{context}");
        }
        let excluded = [
            "--exclude-inbound-ports",
            "30001",
            "--exclude-outbound-cidrs",
            "172.30.0.41,fd30::41",
        ];
        assert!(!warns(netns, backend, &excluded), "{backend}, {variant}");
        for family in Family::BOTH {
            let context = format!("{backend}, {variant}: {family}");
            assert_eq!(by_service(&sidecar, family), (server.clone(), PAST), "{context}");
            assert_eq!(by_node_port(family), (server.clone(), PAST), "{context}");
        }
    }
}

/// kube-proxy inserts its rules at the beginning of the built-in chains.
#[test]
fn rules_that_kube_proxy_inserts_later_come_before_those_of_iptables_backends_and_check_says_so() {
    for (backend, variant) in NEIGHBOURS {
        let pod = Pod::new();
        apply(&pod.netns, backend, &[]);
        run_kube_proxy(&pod, variant);
        let sidecar = Sidecar::start(pod);
        let netns = &sidecar.pod.netns;
        let check = sidetrack(netns, &["check", "--backend", backend]);
        let (state, way) = match backend {
            "nftables" => (0, OUTBOUND),
            _ => (3, PAST),
        };
        assert_eq!(check.code, Some(state), "{backend}: {check:?}");
        for family in Family::BOTH {
            let context = format!("{backend}, {variant}: {family}");
            assert_eq!(
                by_service(&sidecar, family),
                (Some("server".to_owned()), way),
                "{context}"
            );
        }
        apply(netns, backend, &[]);
        sidetrack(netns, &["check", "--backend", backend]).succeeded();
        for family in Family::BOTH {
            let context = format!("{backend}, {variant}: {family}, applied again");
            assert_eq!(
                by_service(&sidecar, family),
                (Some("server".to_owned()), OUTBOUND),
                "{context}"
            );
        }
    }
}

#[test]
fn port_published_by_docker_does_not_reach_container_with_tproxy() {
    const TPROXY: &[&str] = &["--inbound-mode", "tproxy"];
    for (backend, variant) in NEIGHBOURS {
        let host = Host::new(variant);
        let sidecar = Sidecar::start_as(Owner::PROXY_AS_ROOT, InboundMode::Tproxy, host.pod);
        let netns = &sidecar.pod.netns;
        let lands = |family| {
            let published = at(Address::POD, family, PUBLISHED);
            landing(&sidecar, &by(&sidecar.pod, Caller::Peer, published, family))
        };
        assert!(warns(netns, backend, TPROXY), "{backend}, {variant}");
        for family in Family::BOTH {
            assert_eq!(lands(family), (None, INBOUND), "{backend}, {variant}: {family}");
        }
        warns(netns, backend, &[TPROXY, &["--exclude-inbound-ports", "8088"]].concat());
        for family in Family::BOTH {
            let container = Some("container".to_owned());
            assert_eq!(lands(family), (container, PAST), "{backend}, {variant}: {family}");
        }
    }
}
