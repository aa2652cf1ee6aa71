//! Random options, random packets: the simulator, the kernel with our nftables rules and the kernel with our iptables
//! rules agree where each packet lands.
//!
//! A few thousand packets are sent whenever the tests run, always the same ones. More, and others:
//!
//! ```sh
//! PACKETS=60000 SEED=7 cargo test --test kernel -- explain::against_kernel --nocapture
//! ```

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use sidetrack::backend::{Namespace, RuleBackend};
use sidetrack::plan::{PASSTHROUGH_V4, PASSTHROUGH_V6, Plan};
use sidetrack::ruleset::netfilter::Netfilter;
use sidetrack::ruleset::{Elements, Protocol, Ruleset, Tracking};
use sidetrack::simulate::{End, LocalMark, Origin, Packet, Pod, Verdict, simulate, simulate_later};
use sidetrack::types::{Family, Gid, Id as _, InterfaceName, IpProtocol, Number as _, Port, Uid};

use super::options::{address, id, mark, options, own_address, port};
use super::packets::{Lab, Landing, Outcome, Shot, interface_to, is_usable};
use crate::common::Address;
use crate::plans::plan;
use crate::program::apply;

/// The default number of packets, on all backends together.
const PACKETS: usize = 3600;
/// How many go through the same rules, on each backend.
const PACKETS_A_PLAN: usize = 60;
/// How many ports of the pod are listened on at once.
const PORTS: usize = 24;

pub fn setting(name: &str, default: usize) -> usize {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|error| panic!("{name}={text}: {error}")),
        Err(_) => default,
    }
}

/// The values that rules distinguish, and adjacent ones, where mistakes would show.
#[derive(Clone, Debug)]
pub struct Edges {
    pub ports: Vec<u16>,
    pub ids: Vec<u32>,
    pub addresses: Vec<IpAddr>,
}

impl Edges {
    fn of(ruleset: &Ruleset) -> Self {
        let mut edges = Self {
            ports: vec![53, 80, 8080],
            ids: vec![0, 1000, 1337],
            addresses: Vec::new(),
        };
        for set in &ruleset.sets {
            match &set.elements {
                Elements::Ports(ports) => edges.ports.extend(ports.iter().flat_map(|range| {
                    let (first, last) = (range.first().get(), range.last().get());
                    [first.saturating_sub(1), first, last, last.saturating_add(1)]
                })),
                Elements::Uids(uids) => edges.ids.extend(
                    uids.iter()
                        .flat_map(|range| around(range.first().get(), range.last().get())),
                ),
                Elements::Gids(gids) => edges.ids.extend(
                    gids.iter()
                        .flat_map(|range| around(range.first().get(), range.last().get())),
                ),
                Elements::Ipv4(nets) => edges.addresses.extend(nets.iter().flat_map(|net| {
                    let (first, last) = (u32::from(net.network()), u32::from(net.broadcast()));
                    [first.wrapping_sub(1), first, last, last.wrapping_add(1)]
                        .map(|bits| IpAddr::from(Ipv4Addr::from(bits)))
                })),
                Elements::Ipv6(nets) => edges.addresses.extend(nets.iter().flat_map(|net| {
                    let (first, last) = (u128::from(net.network()), u128::from(net.broadcast()));
                    [first.wrapping_sub(1), first, last, last.wrapping_add(1)]
                        .map(|bits| IpAddr::from(Ipv6Addr::from(bits)))
                })),
            }
        }
        edges.ports.retain(|port| Port::new(*port).is_some_and(is_usable));
        edges
    }
}

fn around(first: u32, last: u32) -> [u32; 4] {
    [
        first.saturating_sub(1),
        first,
        last,
        last.saturating_add(1).min(u32::MAX - 1),
    ]
}

/// The pod of the laboratory.
pub fn pod(plan: &Plan) -> Pod {
    let mut addresses = Vec::new();
    for (interface, address) in [("eth0", Address::POD), ("eth1", Address::POD_SECOND)] {
        let interface = InterfaceName::parse(interface).expect("a name");
        addresses.extend(Family::BOTH.map(|family| (interface.clone(), address.of(family))));
    }
    addresses.extend(
        plan.loopback_addresses
            .iter()
            .map(|address| (InterfaceName::loopback(), IpAddr::from(*address))),
    );
    Pod {
        addresses,
        local_marks: plan.policy_routing.map(LocalMark::from).into_iter().collect(),
        route_localnet: Vec::new(),
    }
}

/// Whether the neighbour has an address, and can send from it.
fn is_of_the_world(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(ip) => {
            let known = matches!(ip.octets(), [10, 99, 0 | 1, 1]);
            let connected = matches!(ip.octets(), [10, 99, 0 | 1, _]);
            let [first, ..] = ip.octets();
            known || !connected && (1..=223).contains(&first) && first != 127
        }
        IpAddr::V6(ip) => {
            let known = ["fd99::1", "fd99:1::1"].iter().any(|own| *own == ip.to_string());
            let connected = matches!(ip.segments(), [0xfd99, 0 | 1, 0, 0, ..]);
            let unicast = matches!(ip.segments()[0] >> 12, 2 | 3) || ip.segments()[0] >> 8 == 0xfd;
            known || !connected && unicast
        }
    }
}

/// A random packet for a pod, from the values that its rules distinguish.
pub fn shot(pod: &Pod, edges: &Edges, ports: &[u16]) -> impl Strategy<Value = Shot> {
    let port =
        prop_oneof![4 => select(ports.to_vec()), 1 => Just(53)].prop_map(|port| Port::new(port).expect("a port"));
    let protocol = prop_oneof![4 => Just(Protocol::Tcp), 1 => Just(Protocol::Udp)];
    let mut known = edges.addresses.clone();
    known.push(Address::FAR.of(Family::V4));
    let foreign =
        prop_oneof![1 => select(known), 1 => address()].prop_filter("of the world", |ip| is_of_the_world(*ip));
    prop_oneof![
        2 => outbound(pod, edges, foreign.clone(), port.clone(), protocol.clone()),
        1 => inbound(foreign, port, protocol),
    ]
}

/// A packet that arrives; one in ten belongs to no connection.
fn inbound(
    from: impl Strategy<Value = IpAddr>,
    port: impl Strategy<Value = Port>,
    protocol: impl Strategy<Value = Protocol>,
) -> impl Strategy<Value = Shot> {
    let links = select(vec![
        ("eth0", Address::POD, Address::PEER),
        ("eth1", Address::POD_SECOND, Address::PEER_SECOND),
    ]);
    (from, port, protocol, links, 0..10).prop_map(|(from, port, protocol, (name, to, neighbour), chance)| {
        let family = Family::of(from);
        let unasked = chance == 0;
        let packet = Packet {
            origin: Origin::Interface(InterfaceName::parse(name).expect("a name")),
            protocol: if unasked { Protocol::Tcp } else { protocol }.into(),
            source: if unasked { neighbour.of(family) } else { from },
            source_port: Some(Port::MIN),
            destination: to.of(family),
            destination_port: Some(port),
            mark: 0,
            tracking: if unasked { Tracking::Invalid } else { Tracking::New },
        };
        Shot {
            packet,
            bound: true,
            later_mark: 0,
        }
    })
}

/// A packet that a process sends.
fn outbound(
    pod: &Pod,
    edges: &Edges,
    foreign: impl Strategy<Value = IpAddr>,
    port: impl Strategy<Value = Port>,
    protocol: impl Strategy<Value = Protocol>,
) -> impl Strategy<Value = Shot> {
    let pod = pod.clone();
    let id = prop_oneof![2 => select(edges.ids.clone()), 1 => id(), 1 => Just(1000)];
    let owner =
        (id.clone(), id).prop_map(|(uid, gid)| (Uid::new(uid).expect("a user"), Gid::new(gid).expect("a group")));
    let to = prop_oneof![5 => foreign, 4 => own_address()];
    let later_mark = prop_oneof![4 => Just(None), 1 => mark().prop_map(Some)];
    let parts = (owner, to, port, protocol, (mark(), later_mark), 0..4);
    parts.prop_filter_map(
        "can be sent",
        move |((uid, gid), to, port, protocol, (mark, later_mark), chance)| {
            if !pod.has(to) && !is_of_the_world(to) {
                return None; // ::6 where it is not on the loopback interface.
            }
            let interface = InterfaceName::parse(interface_to(to)).expect("a name");
            let usual = pod.source(to, mark, &interface)?;
            let passthrough: IpAddr = match to {
                IpAddr::V4(_) => PASSTHROUGH_V4.into(),
                IpAddr::V6(_) => PASSTHROUGH_V6.into(),
            };
            let chosen = match chance {
                0 if pod.has(to) && pod.has(passthrough) => Some(passthrough),
                1 if !to.is_loopback() => pod.address(&interface, Family::of(to)),
                _ => None,
            };
            let packet = Packet {
                origin: Origin::Process {
                    uid,
                    gid,
                    cgroup: None,
                    interface,
                },
                protocol: protocol.into(),
                source: chosen.unwrap_or(usual),
                source_port: Some(Port::MIN),
                destination: to,
                destination_port: Some(port),
                mark,
                tracking: Tracking::New,
            };
            Some(Shot {
                packet,
                bound: chosen.is_some(),
                later_mark: later_mark.unwrap_or(mark),
            })
        },
    )
}

/// What the simulator says about a packet, and those that follow upon it.
pub struct Explained {
    pub outcome: Outcome,
    pub verdict: Verdict,
    pub is_certain: bool,
}

pub fn explained(rules: &Netfilter, pod: &Pod, shot: &Shot) -> Explained {
    let packet = &shot.packet;
    let path = simulate(rules, pod, packet).expect("an end");
    let mut is_certain = path.certain;
    let tcp = packet.protocol == IpProtocol::TCP;
    let original = packet.to();
    let landing = match (&path.end, path.verdict) {
        // The kernel, or a rule, answers with a reset. It belongs to no connection, so a lock holds it.
        (End::Delivered(_) | End::PassedThrough(_) | End::Rejected, _) if packet.tracking == Tracking::Invalid => {
            match is_locked(rules) {
                true => Landing::Nowhere,
                false => Landing::Refused,
            }
        }
        (End::Delivered(local), Verdict::Tproxy(port)) => Landing::Pod(port.get(), tcp.then_some((*local, original))),
        (End::Delivered(local), _) => Landing::Pod(local.port(), tcp.then_some((*local, original))),
        // Other hosts refuse loopback addresses.
        (End::Sent { .. }, _) if path.source.is_some_and(|source| source.is_loopback()) => Landing::Nowhere,
        (End::Sent { to, .. }, _) => Landing::World(tcp.then_some(*to)),
        // The pod does not forward.
        (End::PassedThrough(_) | End::Dropped | End::Rejected, _) => Landing::Nowhere,
    };
    let stands = matches!(landing, Landing::Pod(_, Some(_)) | Landing::World(Some(_)));
    let from_pod = matches!(packet.origin, Origin::Process { .. });
    let followed = (stands && from_pod).then(|| {
        let later = simulate_later(rules, pod, packet, shot.later_mark).expect("an end");
        is_certain &= later.certain;
        later.end == path.end
    });
    Explained {
        outcome: Outcome { landing, followed },
        verdict: path.verdict,
        is_certain,
    }
}

/// Whether an outbound policy is among the rules.
fn is_locked(rules: &Netfilter) -> bool {
    let mut chains = rules.tables.iter().flat_map(|table| &table.chains);
    chains.any(|chain| chain.name.to_lowercase().ends_with("filter_output"))
}

/// What the simulator expects of a packet through rules that it can read.
fn expected(rules: &Netfilter, pod: &Pod, shot: &Shot) -> (Outcome, Verdict) {
    let explained = explained(rules, pod, shot);
    assert!(explained.is_certain, "{shot:?}");
    (explained.outcome, explained.verdict)
}

pub struct Chance(TestRunner);

impl Chance {
    pub fn new(seed: usize) -> Self {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
        Self(TestRunner::new_with_rng(
            Config {
                failure_persistence: None,
                ..Config::default()
            },
            rng,
        ))
    }

    pub fn one<T: std::fmt::Debug>(&mut self, of: impl Strategy<Value = T>) -> T {
        of.new_tree(&mut self.0).expect("something to choose from").current()
    }
}

/// Redirecting needs an address of the interface that a packet arrives on.
#[test]
fn inbound_packets_without_an_address_to_redirect_to_are_dropped() {
    let mut lab = Lab::new();
    lab.pod.netns.ip("addr del 10.99.1.2/24 dev eth1\n");
    lab.pod.peer.ip("route add 10.99.0.2/32 dev eth1\n");
    let plan = plan(&["--exclude-inbound-ports", "22"]);
    let mut pod = pod(&plan);
    pod.addresses
        .retain(|(_, address)| *address != Address::POD_SECOND.of(Family::V4));
    let shot = |port| Shot {
        packet: Packet {
            origin: Origin::Interface(InterfaceName::parse("eth1").expect("a name")),
            protocol: IpProtocol::TCP,
            source: Address::PEER_SECOND.of(Family::V4),
            source_port: Some(Port::MIN),
            destination: Address::POD.of(Family::V4),
            destination_port: Port::new(port),
            mark: 0,
            tracking: Tracking::New,
        },
        bound: true,
        later_mark: 0,
    };
    let shots = [shot(80), shot(22)];
    let rules = Netfilter::from(plan.ruleset);
    let expectations = shots.each_ref().map(|shot| expected(&rules, &pod, shot));
    assert_eq!(
        expectations.map(|(_, verdict)| verdict),
        [Verdict::Drop, Verdict::Accept]
    );
    for backend in RuleBackend::ALL {
        apply(&lab.pod.netns, &backend.to_string(), &["--exclude-inbound-ports", "22"]);
        let seen = lab.send(&[80, 22, 15006], &shots);
        assert_eq!(seen, expectations.map(|(outcome, _)| outcome), "{backend}");
    }
}

/// The ports of the pod that are listened on, and packets to them.
fn volley(chance: &mut Chance, plan: &Plan, pod: &Pod) -> (Vec<u16>, Vec<Shot>) {
    let edges = Edges::of(&plan.ruleset);
    let mut listening: Vec<u16> = [15001, 15006, 15053, 16001, 16006, 53].into();
    let usable = port().prop_filter("usable", |port| Port::new(*port).is_some_and(is_usable));
    let more = prop_oneof![4 => select(edges.ports.clone()), 1 => usable];
    listening.extend(chance.one(vec(more, PORTS - listening.len())));
    listening.sort_unstable();
    listening.dedup();
    let mut shots = chance.one(vec(shot(pod, &edges, &listening), PACKETS_A_PLAN));
    // The simulator knows no routes: it takes every source as one behind its interface.
    if plan.ruleset.chain("rerouted_sources").is_some() {
        shots.retain(|shot| match &shot.packet.origin {
            Origin::Interface(name) => interface_to(shot.packet.source) == name.as_str(),
            Origin::Process { .. } => true,
        });
    }
    (listening, shots)
}

#[test]
fn simulator_nftables_and_iptables_agree() {
    let (wanted, seed) = (setting("PACKETS", PACKETS), setting("SEED", 1));
    let mut chance = Chance::new(seed);
    let (mut sent, mut plans, mut differing) = (0, 0, Vec::new());
    let mut verdicts = BTreeMap::<&str, usize>::new();
    let mut lab = Lab::new();
    while sent < wanted {
        if lab.left() < RuleBackend::ALL.len() * (PACKETS_A_PLAN + PORTS) {
            lab = Lab::new();
        }
        let options = chance.one(options());
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        let plan = plan(&options);
        let pod = pod(&plan);
        let (listening, shots) = volley(&mut chance, &plan, &pod);
        let rules = Netfilter::from(plan.ruleset);
        let expectations: Vec<_> = shots.iter().map(|shot| expected(&rules, &pod, shot)).collect();
        for (_, verdict) in &expectations {
            *verdicts.entry(name(*verdict)).or_default() += 1;
        }
        for backend in RuleBackend::ALL {
            apply(&lab.pod.netns, &backend.to_string(), &options);
            let installed = lab.pod.netns.run(|| Namespace::default().netfilter());
            let installed = installed.expect("rules that can be read");
            let outcomes = lab.send(&listening, &shots);
            sent += shots.len();
            for ((shot, mut seen), expectation) in shots.iter().zip(outcomes).zip(&expectations) {
                // A busy machine may take longer than is waited for, and old connections may be in the way.
                if seen != expectation.0 && seen.landing == Landing::Nowhere {
                    let mut fresh = Lab::new();
                    apply(&fresh.pod.netns, &backend.to_string(), &options);
                    seen = fresh.send(&listening, std::slice::from_ref(shot)).remove(0);
                }
                if seen != expectation.0 {
                    differing.push(format!(
                        "{backend} {}: {shot:?}: {seen:?}, explained as {expectation:?}",
                        options.join(" ")
                    ));
                }
                assert_eq!(
                    expected(&installed, &pod, shot),
                    *expectation,
                    "{backend} {options:?}: {shot:?}"
                );
            }
        }
        plans += 1;
        if differing.len() > 20 {
            break;
        }
    }
    let count = differing.len();
    assert!(
        differing.is_empty(),
        "seed {seed}: {sent} packets, {plans} plans, {count} differ:\n{}",
        differing.join("\n")
    );
    let enough = |verdict: &str| verdicts.get(verdict).is_some_and(|count| *count >= wanted / 400);
    let all = ["redirect", "tproxy", "accept", "drop", "reject"];
    assert!(
        all.into_iter().all(enough),
        "the packets are of little use: {verdicts:?}"
    );
    let backends = RuleBackend::ALL.len();
    println!("{sent} packets through {plans} plans, each on {backends} backends, and none differs: {verdicts:?}");
}

fn name(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Redirect(_) => "redirect",
        Verdict::Tproxy(_) => "tproxy",
        Verdict::Accept => "accept",
        Verdict::Drop => "drop",
        Verdict::Dnat(_) => "dnat",
        Verdict::Reject => "reject",
    }
}
