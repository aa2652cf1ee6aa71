//! Probes of installed rules whose options are not known: the rules suggest what to probe, and a simulation of each probe
//! says what it should find.

use std::net::IpAddr;

use ipnet::IpNet;

use super::{Caller, Expected, Needs, Probe, Source, Subject, Transport, Trial};
use crate::options::{Config, Settings};
use crate::plan::DNS_PORT;
use crate::ruleset::netfilter::Netfilter;
use crate::ruleset::{
    Action, Addresses, Chain, Elements, GidMatch, Hook, Installed, Match, PortMatch, Protocol, Rejection, Rule,
    Ruleset, Tracking, UidMatch,
};
use crate::simulate::{Origin, Packet, Pod, Verdict, simulate};
use crate::types::{
    DnsServers, Family, Gids, InboundMode, InterfaceName, IpProtocol, Mark, Number as _, Policy, Port, Ports, Uids,
};

const DROPPED: &str = "the installed rules drop its packets";
const UNCERTAIN: &str = "sidetrack cannot read all installed rules, so nothing says what to expect";

/// The rules of a namespace, and the properties of its pod that a simulation needs.
pub struct Scene<'s> {
    /// The rules, as they apply to each family.
    pub rules: &'s [(Family, Installed)],
    /// The same rules, as a simulation takes them.
    pub all: &'s Netfilter,
    /// The pod, with the link to a host outside.
    pub pod: &'s Pod,
    /// The interface by which packets to this address leave.
    pub route: &'s dyn Fn(IpAddr) -> InterfaceName,
}

/// Whether any of these rules redirects. Without one, they give no expectation that is worth a probe.
pub fn redirects(rules: &[(Family, Installed)]) -> bool {
    let chains = rules.iter().flat_map(|(_, installed)| &installed.ruleset.chains);
    let mut rules = chains.flat_map(|chain| &chain.rules);
    rules.any(|rule| matches!(rule.action, Action::Redirect(_) | Action::Tproxy { .. }))
}

/// Options that these rules could follow from: their owners, ports and addresses. They serve to choose probes for which
/// the rules make a difference. They do not say what to expect.
pub fn suggested(rules: &[(Family, Installed)]) -> Config {
    let (mut inbound, mut outbound) = (Direction::default(), Direction::default());
    for (_, Installed { ruleset, .. }) in rules {
        let rules_at = |hook| reached(ruleset, hook).into_iter().flat_map(|chain| &chain.rules);
        rules_at(Hook::Prerouting).for_each(|rule| inbound.read(ruleset, rule));
        rules_at(Hook::Output).for_each(|rule| outbound.read(ruleset, rule));
    }
    let mut config = Settings::default().config;
    // A simulation of the rules does not say how long conntrack remembers a connection.
    config.general.close_wait_timeout = None;
    let owners = outbound.owners;
    let candidates = [owners.answering, owners.calling_pod, owners.skipped.clone()];
    let proxies = candidates
        .into_iter()
        .find(|owners| !owners.is_empty())
        .unwrap_or_default();
    if !proxies.is_empty() {
        (config.proxy.uids, config.proxy.gids) = ids(rules, &proxies);
        config.proxy.mark = owners.marks.first().copied();
    }
    let excluded: Vec<Match> = owners
        .skipped
        .into_iter()
        .filter(|owner| !proxies.contains(owner))
        .collect();
    (config.outbound.exclude_uids, config.outbound.exclude_gids) = ids(rules, &excluded);
    if !owners.included.is_empty() {
        config.outbound.include_gids = ids(rules, &owners.included).1;
    }
    let proxy = &mut config.proxy;
    proxy.mesh_ports = Ports::default();
    proxy.inbound_port = inbound.to.first().copied().unwrap_or(proxy.inbound_port);
    // Calls of the proxy to the pod itself pass the rules of both directions.
    let to = outbound.to.iter().find(|port| !inbound.to.contains(port));
    proxy.outbound_port = to.copied().unwrap_or(proxy.outbound_port);
    if let Some(mark) = inbound.mark {
        (config.inbound.mode, config.inbound.tproxy_mark) = (InboundMode::Tproxy, mark);
    }
    config.inbound.exclude_ports = inbound.skipped_ports;
    config.inbound.exclude_cidrs = inbound.skipped_sources.into_iter().collect();
    config.outbound.exclude_ports = outbound.skipped_ports;
    config.outbound.exclude_cidrs = outbound.skipped_destinations.into_iter().collect();
    if !inbound.takes_all {
        config.inbound.include_ports = inbound.taken_ports;
    }
    if !outbound.takes_all {
        config.outbound.include_cidrs = outbound.taken.into_iter().collect();
        config.outbound.include_ports = outbound.taken_ports;
    }
    if let Some((port, servers)) = outbound.lookups {
        config.dns.redirect = true;
        config.dns.port = port;
        config.dns.servers = match servers.is_empty() {
            true => DnsServers::All,
            false => DnsServers::These(servers),
        };
    }
    let rejects = |hook, is_rejecting: fn(&Rule) -> bool| {
        let reached = rules
            .iter()
            .flat_map(|(_, installed)| reached(&installed.ruleset, hook));
        match reached.flat_map(|chain| &chain.rules).any(is_rejecting) {
            true => Policy::ProxyOnly,
            false => Policy::Allow,
        }
    };
    config.outbound.policy = rejects(Hook::Output, |rule| matches!(rule.action, Action::Reject(_)));
    // Connections that began before the rules are reset under either policy.
    config.inbound.policy = rejects(Hook::Input, |rule| {
        rule.action == Action::Reject(Rejection::AdminProhibited)
    });
    config
}

/// The trial with the expectations of these rules, without probes that would prove nothing. What the rules give no
/// expectation for cannot be made.
pub fn expected(trial: Trial, scene: &Scene) -> Trial {
    let far: Vec<IpAddr> = trial.ends.iter().map(|ends| ends.far).collect();
    let probes = trial.probes.into_iter().filter(|probe| has_source(probe, scene));
    let probes: Vec<Probe> = probes.filter_map(|probe| judged(probe, scene, &far)).collect();
    let mut ports: Vec<Port> = Vec::new();
    for probe in &probes {
        if let Expected::Captured(port) = probe.expected
            && !ports.contains(&port)
        {
            ports.push(port);
        }
    }
    let transparent = trial.transparent.filter(|port| ports.contains(port));
    Trial {
        probes,
        ports,
        transparent,
        ..trial
    }
}

/// Whether packets of the probe can have its source address: rules name it, or routes lead answers to a client's address
/// to this pod.
fn has_source(probe: &Probe, scene: &Scene) -> bool {
    match probe.source {
        Some(Source { mark: Some(_), .. }) => {
            let mut marks = scene.pod.local_marks.iter();
            marks.any(|local| local.families.contains(probe.family()))
        }
        Some(Source { address, mark: None }) => probe.subject != Subject::Passthrough || names_source(scene, address),
        None => true,
    }
}

/// The probe with the expectation of the rules; `None` if it would call a host past the proxy that is not the neighbour.
fn judged(mut probe: Probe, scene: &Scene, far: &[IpAddr]) -> Option<Probe> {
    let verdict = packet(&probe, scene, far).and_then(|packet| verdict(&packet, scene));
    match probe.expected {
        Expected::Rejected if verdict != Some(Verdict::Reject) => return None,
        // No reset reaches a bound socket.
        Expected::Dropped => return matches!(verdict, Some(Verdict::Reject | Verdict::Drop)).then_some(probe),
        _ => {}
    }
    match verdict {
        Some(Verdict::Accept) => probe.expected = Expected::Untouched,
        Some(Verdict::Redirect(port) | Verdict::Tproxy(port)) => probe.expected = Expected::Captured(port),
        Some(Verdict::Reject) => reject(&mut probe),
        Some(Verdict::Drop) => probe.needs = Needs::Impossible(DROPPED),
        Some(Verdict::Dnat(_)) | None => probe.needs = Needs::Impossible(UNCERTAIN),
    }
    let destination = probe.destination.ip();
    let is_safe = far.contains(&destination) || scene.pod.has(destination) || probe.expected != Expected::Untouched;
    is_safe.then_some(probe)
}

/// Expects the probe to be rejected.
fn reject(probe: &mut Probe) {
    let sent_by_process = matches!(probe.caller, Caller::Process(_));
    probe.expected = Expected::Rejected;
    probe.subject = match (sent_by_process, probe.protocol) {
        _ if probe.subject.is_locked() => probe.subject,
        (true, Transport::Tcp) => Subject::LockedTcp,
        (true, Transport::Udp) => Subject::LockedDns,
        (true, Transport::Icmp) => Subject::LockedIcmp,
        (false, Transport::Tcp) => Subject::LockedInboundTcp,
        (false, Transport::Udp) => Subject::LockedInboundUdp,
        (false, Transport::Icmp) => Subject::LockedInboundIcmp,
    };
    if probe.protocol == Transport::Tcp && sent_by_process {
        probe.needs = Needs::Link;
    }
}

/// Whether a rule matches packets from this address.
fn names_source(scene: &Scene, address: IpAddr) -> bool {
    let chains = scene.rules.iter().flat_map(|(_, installed)| &installed.ruleset.chains);
    let mut matches = chains.flat_map(|chain| &chain.rules).flat_map(|rule| &rule.matches);
    matches.any(|matched| *matched == Match::Source(Addresses::Ip(address)))
}

/// What the rules do with a packet; `None` if that is not certain.
fn verdict(packet: &Packet, scene: &Scene) -> Option<Verdict> {
    let path = simulate(scene.all, scene.pod, packet).ok()?;
    path.certain.then_some(path.verdict)
}

/// The first packet of a probe.
fn packet(probe: &Probe, scene: &Scene, far: &[IpAddr]) -> Option<Packet> {
    let destination = probe.destination.ip();
    let neighbour = far.iter().copied().find(|far| Family::of(*far) == probe.family());
    let mark = probe.mark().map_or(0, Mark::get);
    let (origin, source) = match probe.caller {
        Caller::Process(owner) => {
            let interface = match &probe.bound_to {
                Some(interface) => interface.clone(),
                None => (scene.route)(destination),
            };
            let source = scene.pod.source(destination, mark, &interface);
            let origin = Origin::Process {
                uid: owner.uid,
                gid: owner.gid,
                cgroup: None,
                interface,
            };
            (origin, probe.source.map(|source| source.address).or(source))
        }
        Caller::Behind => {
            let source = probe.source.map(|source| source.address);
            (Origin::Interface(probe.bound_to.clone()?), source)
        }
        Caller::Neighbour => {
            let source = probe.source.map(|source| source.address);
            (Origin::Interface((scene.route)(neighbour?)), source.or(neighbour))
        }
    };
    Some(Packet {
        origin,
        protocol: match (probe.protocol, probe.family()) {
            (Transport::Tcp, _) => IpProtocol::TCP,
            (Transport::Udp, _) => IpProtocol::UDP,
            (Transport::Icmp, Family::V4) => IpProtocol::ICMP,
            (Transport::Icmp, Family::V6) => IpProtocol::ICMPV6,
        },
        source: source?,
        source_port: (probe.protocol != Transport::Icmp).then_some(Port::MAX),
        destination,
        destination_port: Port::new(probe.destination.port()),
        mark,
        tracking: Tracking::New,
    })
}

/// The chains that packets at a hook reach.
fn reached(ruleset: &Ruleset, hook: Hook) -> Vec<&Chain> {
    let is_base = |chain: &&Chain| chain.hook.is_some_and(|base| base.hook == hook);
    let mut reached: Vec<&Chain> = ruleset.chains.iter().filter(is_base).collect();
    let mut next = 0;
    while let Some(chain) = reached.get(next) {
        let targets = chain.rules.iter().filter_map(|rule| rule.action.target());
        for target in targets.filter_map(|target| ruleset.chain(target)).collect::<Vec<_>>() {
            if !reached.iter().any(|chain| chain.name == target.name) {
                reached.push(target);
            }
        }
        next += 1;
    }
    reached
}

/// What the rules of one direction name.
#[derive(Default)]
struct Direction {
    /// The ports that TCP is redirected to, in order.
    to: Vec<Port>,
    /// The mark of TPROXY.
    mark: Option<Mark>,
    /// Whether a rule redirects TCP whatever its destination.
    takes_all: bool,
    taken: Vec<IpNet>,
    taken_ports: Ports,
    skipped_sources: Vec<IpNet>,
    /// At the prerouting hook, those of rerouted interfaces.
    skipped_destinations: Vec<IpNet>,
    skipped_ports: Ports,
    owners: Owners,
    /// The port that name lookups are redirected to, and the servers; none if all servers count.
    lookups: Option<(Port, Vec<IpAddr>)>,
}

/// The owners in rules of one direction, by what the rules do with their traffic.
#[derive(Default)]
struct Owners {
    /// Their answers to name lookups are matched.
    answering: Vec<Match>,
    /// Their connections to the pod itself go to a chain of their own.
    calling_pod: Vec<Match>,
    /// Their traffic is skipped.
    skipped: Vec<Match>,
    /// Their traffic is skipped only with one of these marks.
    marks: Vec<Mark>,
    /// Only their traffic reaches some chain.
    included: Vec<Match>,
}

impl Direction {
    /// Adds what a rule names. A rule with several conditions says nothing about each of them alone.
    fn read(&mut self, ruleset: &Ruleset, rule: &Rule) {
        let is_condition = |matched: &&Match| !matches!(matched, Match::Protocol(_) | Match::Family(_));
        let conditions: Vec<&Match> = rule.matches.iter().filter(is_condition).collect();
        match (conditions.as_slice(), &rule.action) {
            ([Match::SourcePort(..), owner], Action::SetZone(_)) => self.owners.answering.push((*owner).clone()),
            ([Match::OutInterface(_), owner], Action::Jump(_)) => self.owners.calling_pod.push((*owner).clone()),
            ([Match::OutInterface(_), owner, Match::Mark(mark)], Action::Jump(_)) => {
                self.owners.marks.push(*mark);
                self.owners.calling_pod.push((*owner).clone());
            }
            ([owner @ Match::Gid(_)], Action::Jump(_)) => self.owners.included.push((*owner).clone()),
            ([Match::DestinationPort(Protocol::Udp, _), more @ ..], Action::Redirect(to)) => {
                let servers = more.iter().flat_map(|matched| match matched {
                    Match::Destination(servers) => networks(ruleset, servers),
                    _ => Vec::new(),
                });
                let lookups = self.lookups.get_or_insert((*to, Vec::new()));
                lookups.1.extend(servers.map(|net| net.addr()));
            }
            ([Match::DestinationPort(_, PortMatch::Port(DNS_PORT)), ..], Action::Redirect(_)) => {}
            (_, Action::Tproxy { port, mark }) => {
                self.to.push(*port);
                (self.mark, self.takes_all) = (Some(*mark), true);
            }
            (conditions, Action::Redirect(to)) => {
                self.to.push(*to);
                match conditions {
                    [] => self.takes_all = true,
                    [Match::DestinationPort(_, taken)] => {
                        self.taken_ports = self.taken_ports.union(&ports(ruleset, taken));
                    }
                    [Match::Destination(taken)] => self.taken.extend(networks(ruleset, taken)),
                    _ => {}
                }
            }
            ([owner @ (Match::Uid(_) | Match::Gid(_)), Match::Mark(mark)], Action::Return) => {
                self.owners.marks.push(*mark);
                self.owners.skipped.push((*owner).clone());
            }
            ([condition], Action::Return) => self.skip(ruleset, condition),
            _ => {}
        }
    }

    fn skip(&mut self, ruleset: &Ruleset, condition: &Match) {
        match condition {
            // The proxy's own lookups.
            Match::DestinationPort(_, PortMatch::Port(DNS_PORT)) => {}
            Match::DestinationPort(Protocol::Tcp, skipped) => {
                self.skipped_ports = self.skipped_ports.union(&ports(ruleset, skipped));
            }
            Match::Source(skipped) => self.skipped_sources.extend(others(ruleset, skipped)),
            Match::Destination(skipped) => self.skipped_destinations.extend(others(ruleset, skipped)),
            Match::Mark(mark) => {
                self.owners.marks.push(*mark);
                self.owners.skipped.push(condition.clone());
            }
            owner @ (Match::Uid(_) | Match::Gid(_)) => self.owners.skipped.push(owner.clone()),
            _ => {}
        }
    }
}

/// The networks of other hosts.
fn others(ruleset: &Ruleset, addresses: &Addresses) -> Vec<IpNet> {
    let mut networks = networks(ruleset, addresses);
    networks.retain(|net| !net.addr().is_loopback());
    networks
}

/// The users and groups of these owners.
fn ids(rules: &[(Family, Installed)], owners: &[Match]) -> (Uids, Gids) {
    let (mut uids, mut gids) = (Uids::default(), Gids::default());
    let elements = |name: &str| {
        let mut sets = rules.iter().filter_map(|(_, installed)| installed.ruleset.set(name));
        sets.next().map(|set| &set.elements)
    };
    for owner in owners {
        match owner {
            Match::Uid(UidMatch::Uid(uid)) => uids = uids.union(&[*uid].into_iter().collect()),
            Match::Gid(GidMatch::Gid(gid)) => gids = gids.union(&[*gid].into_iter().collect()),
            Match::Uid(UidMatch::Set(set)) | Match::Gid(GidMatch::Set(set)) => match elements(set) {
                Some(Elements::Uids(more)) => uids = uids.union(more),
                Some(Elements::Gids(more)) => gids = gids.union(more),
                _ => {}
            },
            _ => {}
        }
    }
    (uids, gids)
}

fn ports(ruleset: &Ruleset, ports: &PortMatch) -> Ports {
    match ports {
        PortMatch::Port(port) => [*port].into_iter().collect(),
        PortMatch::Set(set) => match ruleset.set(set).map(|set| &set.elements) {
            Some(Elements::Ports(ports)) => ports.clone(),
            _ => Ports::default(),
        },
    }
}

fn networks(ruleset: &Ruleset, addresses: &Addresses) -> Vec<IpNet> {
    match addresses {
        Addresses::Ip(address) => vec![(*address).into()],
        Addresses::Set(_, set) => {
            let set = ruleset.set(set);
            set.and_then(|set| set.elements.networks()).unwrap_or_default()
        }
    }
}
