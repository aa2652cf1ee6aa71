//! `explain` of our plans agrees with the recorded traffic under the rules of Istio, Linkerd, Kuma and Consul, by the
//! same flags.
//!
//! The cases and verdicts are those that `scripts/oracle` records with real packets. Here nothing is sent:
//! each probe is put to the simulator.

mod case;
mod pod;

use std::net::{IpAddr, SocketAddr};

use sidetrack::ruleset::netfilter::{Chain, Netfilter};
use sidetrack::ruleset::{ChainType, Protocol, Tracking};
use sidetrack::simulate::{End, Origin, Packet, PacketPath, Pod, Verdict, simulate, simulate_later};
use sidetrack::types::{Family, Gid, Id, IpProtocol, Port, Uid};

use self::case::{Recorded, cases};
use self::pod::{LINKS, POD_TCP, POD_UDP, interface, ip, link_to};
use crate::plans::settings;

/// The zone and the mark of a probe's own connection; 0 for none.
fn zone_and_mark(facts: &str) -> (u16, u32) {
    let own = facts
        .split("; ")
        .find(|fact| fact.starts_with("to "))
        .unwrap_or_default();
    let number = |name: &str| {
        own.split(' ')
            .find_map(|word| word.strip_prefix(name))
            .map(|number| number.parse::<u32>())
    };
    let number = |name: &str| number(name).map_or(0, |number| number.expect("a number"));
    (u16::try_from(number("zone=")).expect("a zone"), number("mark="))
}

/// A probe of the oracle, as far as the simulator can express it.
enum Probe {
    /// One packet.
    First(Packet),
    /// A connection like that, continued by packets with this mark.
    Marked(Packet, u32),
    /// A connection like that, then data far outside of its window.
    OutOfWindow(Packet),
    /// A segment of no connection.
    Unasked(Packet),
    /// Nothing can be sent.
    Nothing(&'static str),
    /// Neither TCP nor UDP, or no address of the pod fits.
    NoWords,
}

/// Reads the name of a probe.
fn probe(name: &str, pod: &Pod) -> Probe {
    let (how, to) = name.split_once(" > ").expect("a destination");
    let mut words = how.split(' ');
    let (kind, place) = (words.next().expect("a kind"), words.next().expect("a place"));
    let protocol = match &kind[..kind.len() - 1] {
        "ping" => return Probe::NoWords,
        "udp" => Protocol::Udp,
        _ => Protocol::Tcp,
    };
    let to: SocketAddr = to
        .split(' ')
        .next()
        .and_then(|to| to.parse().ok())
        .expect("an address and a port");
    let family = Family::of(to.ip());
    let (mut owner, mut mark, mut later_mark, mut source, mut source_port, mut device) =
        ((0, 0), 0, None, None, 20000, None);
    while let Some(word) = words.next() {
        match word {
            "later" => {
                let mark = words.next().and_then(|word| word.strip_prefix("mark="));
                later_mark = Some(mark.and_then(|mark| mark.parse().ok()).expect("a mark"));
            }
            "via" => device = words.next(),
            "from" => {
                let (address, port) = words
                    .next()
                    .and_then(|word| word.rsplit_once(':'))
                    .expect("an endpoint");
                source = Some(address.trim_matches(['[', ']']))
                    .filter(|address| !address.is_empty())
                    .map(ip);
                source_port = port.parse().unwrap_or(source_port);
            }
            word => {
                if let Some(number) = word.strip_prefix("mark=") {
                    mark = number.parse().expect("a mark");
                } else if let Some((uid, gid)) = word.split_once(':') {
                    owner = (uid.parse().expect("a user"), gid.parse().expect("a group"));
                }
            }
        }
    }
    let (origin, usual_source) = if place == "pod" {
        let out = interface(link_to(to.ip()).interface);
        let usual = pod.source(to.ip(), mark, &out);
        let (uid, gid) = (Uid::new(owner.0).expect("a user"), Gid::new(owner.1).expect("a group"));
        (
            Origin::Process {
                uid,
                gid,
                cgroup: None,
                interface: out,
            },
            usual,
        )
    } else {
        mark = 0; // Marks stay in the namespace where they are set.
        let link = LINKS
            .iter()
            .find(|link| Some(link.neighbour) == device)
            .unwrap_or(&LINKS[0]);
        let usual = ip(link.peer[usize::from(family == Family::V6)]);
        (Origin::Interface(interface(link.interface)), Some(usual))
    };
    if place == "pod" && source.is_some_and(|source| !pod.has(source) && !is_neighbour(source)) {
        return Probe::Nothing("no such source address");
    }
    let lo = interface("lo");
    let has_family = pod.addresses.iter().any(|(at, own)| *at != lo && family.is_of(*own));
    if !(has_family || place == "pod" && to.ip().is_loopback()) {
        return Probe::NoWords;
    }
    let Some(source) = source.or(usual_source) else {
        return Probe::Nothing("unreachable");
    };
    let packet = Packet {
        origin,
        protocol: protocol.into(),
        source,
        source_port: Port::new(source_port),
        destination: to.ip(),
        destination_port: Port::new(to.port()),
        mark,
        tracking: Tracking::New,
    };
    match (&kind[..kind.len() - 1], later_mark) {
        ("synack", _) => Probe::Unasked(packet),
        ("window", _) => Probe::OutOfWindow(packet),
        (_, Some(mark)) => Probe::Marked(packet, mark),
        (_, None) => Probe::First(packet),
    }
}

fn is_neighbour(address: IpAddr) -> bool {
    LINKS
        .iter()
        .any(|link| link.peer.iter().any(|peer| ip(peer) == address))
}

/// The recorded outcome of a probe.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Seen {
    /// It landed on this port of the pod, by this address, meant for that one.
    Pod(u16, SocketAddr, SocketAddr),
    /// A neighbour took it.
    Neighbour(SocketAddr),
    /// Something else.
    Word(String),
}

impl Seen {
    fn word(word: &str) -> Self {
        Self::Word(word.to_owned())
    }

    /// Reads a verdict. The source depends on the routes; a reply to UDP, on the reply.
    fn read(verdict: &str) -> Self {
        let address = |text: &str| text.parse::<SocketAddr>().expect("an endpoint");
        let mut words = verdict.split(' ');
        match words.next().expect("a word") {
            "near" | "far" => Self::Neighbour(address(words.next().expect("an endpoint"))),
            word => match word.strip_prefix("pod:") {
                Some(port) => {
                    let after = |name: &str| verdict.split(' ').find_map(|word| word.strip_prefix(name)).map(address);
                    let local = after("local=").expect("an endpoint");
                    Self::Pod(
                        port.parse().expect("a port"),
                        local,
                        after("original=").unwrap_or(local),
                    )
                }
                None => Self::word(verdict),
            },
        }
    }
}

/// Where a first packet lands if the simulator is right; `untouched` is what was seen without rules.
fn landing(packet: &Packet, path: &PacketPath, untouched: &Seen) -> Vec<Seen> {
    let original = packet.to();
    let listened: &[u16] = match packet.protocol {
        IpProtocol::TCP => &POD_TCP,
        _ => &POD_UDP,
    };
    let local = match &path.end {
        End::Dropped | End::Rejected => return vec![Seen::word("timeout")],
        // Only the neighbours know whether there is such a host.
        End::Sent { .. } | End::PassedThrough(_) => {
            assert_eq!(path.verdict, Verdict::Accept, "nothing is redirected to another host");
            return vec![match untouched {
                // It is ::6, which there is now.
                Seen::Word(word) if word == "no such source address" => Seen::Neighbour(original),
                untouched => untouched.clone(),
            }];
        }
        End::Delivered(local) => *local,
    };
    let port = match path.verdict {
        Verdict::Tproxy(port) => port.get(),
        Verdict::Redirect(_) | Verdict::Accept => local.port(),
        Verdict::Dnat(_) | Verdict::Drop | Verdict::Reject => unreachable!("no plan has such rules"),
    };
    if !listened.contains(&port) {
        return vec![Seen::word("refused")];
    }
    let mut landing = vec![match packet.protocol {
        IpProtocol::TCP => Seen::Pod(port, local, original),
        _ => Seen::Pod(port, local, local),
    }];
    let own = |address| pod_has(address);
    let is_transparent = matches!(port, 15006 | 16006);
    if packet.protocol == IpProtocol::TCP && (!own(packet.source) || !own(local.ip()) && !is_transparent) {
        landing.push(Seen::word("timeout")); // The answer does not find its way back.
    }
    landing
}

/// Whether an address is the pod's, whatever the case adds to it.
fn pod_has(address: IpAddr) -> bool {
    address.is_loopback()
        || ["::6", "::7"].iter().any(|own| ip(own) == address)
        || LINKS.iter().any(|link| link.pod.iter().any(|own| ip(own) == address))
}

/// The outcomes that the simulator allows for a probe; none for one that it cannot express.
fn expected(rules: &Netfilter, pod: &Pod, probe: &Probe, untouched: &str) -> Vec<String> {
    let path = |packet: &Packet| {
        let path = simulate(rules, pod, packet).expect("an end");
        assert!(path.certain, "{packet:?}");
        path
    };
    let first = |packet: &Packet| landing(packet, &path(packet), &Seen::read(untouched));
    let as_text = |seen: Vec<Seen>| seen.iter().map(|seen| format!("{seen:?}")).collect();
    match probe {
        Probe::NoWords => Vec::new(),
        Probe::Nothing(word) => as_text(vec![Seen::word(word)]),
        Probe::First(packet) if is_diverted(rules, pod, packet) => as_text(vec![Seen::word("timeout")]),
        Probe::First(packet) => as_text(first(packet)),
        Probe::Marked(packet, mark) => {
            let later = simulate_later(rules, pod, packet, *mark).expect("an end");
            match later.end {
                End::Delivered(_) => as_text(first(packet)),
                _ => as_text(vec![Seen::word("timeout")]),
            }
        }
        Probe::Unasked(packet) => {
            let unasked = Packet {
                tracking: Tracking::Invalid,
                ..packet.clone()
            };
            as_text(vec![Seen::word(match path(&unasked).end {
                End::Dropped => "silence",
                _ => "reset",
            })])
        }
        Probe::OutOfWindow(packet) => {
            let invalid = Packet {
                tracking: Tracking::Invalid,
                ..packet.clone()
            };
            let reaction = match (path(&invalid).end, path(packet).verdict) {
                (End::Dropped, _) => "silence, survives",
                // It is not translated, so that it reaches a host without that connection.
                (_, Verdict::Redirect(_)) => "reset, breaks",
                _ => "ack, survives",
            };
            let landings = first(packet).into_iter();
            landings.map(|landing| format!("{landing:?}, {reaction}")).collect()
        }
    }
}

/// Whether a connection passes through the pod, but not the answers to it.
fn is_diverted(rules: &Netfilter, pod: &Pod, packet: &Packet) -> bool {
    let answer = Packet {
        origin: Origin::Interface(interface(link_to(packet.destination).interface)),
        source: packet.destination,
        source_port: packet.destination_port,
        destination: packet.source,
        destination_port: packet.source_port,
        tracking: Tracking::Established,
        ..packet.clone()
    };
    let passes = |rules: &Netfilter, packet: &Packet| {
        matches!(simulate(rules, pod, packet).expect("an end").end, End::PassedThrough(_))
    };
    // Nothing has translated the connection.
    let mut untranslating = rules.clone();
    let translates = |chain: &Chain| chain.base.is_some_and(|base| base.kind == ChainType::Nat);
    for table in &mut untranslating.tables {
        table.chains.retain(|chain| !translates(chain));
    }
    passes(rules, packet) && !passes(&untranslating, &answer)
}

#[test]
fn explain_agrees_with_recorded_verdicts() {
    let (mut compared, mut differing) = (0, Vec::new());
    for case in cases() {
        let plan = case.plan();
        let pod = case.pod(&plan);
        let rules = Netfilter::from(plan.ruleset);
        let untouched = case.untouched();
        let Recorded { changed, conntrack } = case.recorded();
        for (name, seen) in changed {
            let probe = probe(&name, &pod);
            let expected = expected(&rules, &pod, &probe, &untouched[&name]);
            if expected.is_empty() {
                continue;
            }
            compared += 1;
            let (landed, reaction) = seen.split_once(", ").unwrap_or((&seen, ""));
            let separator = if reaction.is_empty() { "" } else { ", " };
            let seen = format!("{:?}{separator}{reaction}", Seen::read(landed));
            if !expected.contains(&seen) {
                differing.push(format!("{}: {name}: seen {seen}, explained as {expected:?}", case.name));
            }
            // Connection tracking forgets a refused connection.
            if let Probe::First(packet) = probe
                && landed != "refused"
            {
                let path = simulate(&rules, &pod, &packet).expect("an end");
                let expected = (path.zone.map_or(0, |zone| zone.0), path.connection_mark);
                let tracked = conntrack.get(&name).map_or((0, 0), |facts| zone_and_mark(facts));
                if tracked != expected {
                    differing.push(format!(
                        "{}: {name}: zone and mark {tracked:?}, explained as {expected:?}",
                        case.name
                    ));
                }
            }
        }
    }
    assert!(
        differing.is_empty(),
        "{} of {compared} differ:\n{}",
        differing.len(),
        differing.join("\n")
    );
}

#[test]
fn plugin_reads_consuls_configuration_as_the_options_of_each_case() {
    let mut compared = 0;
    for case in cases() {
        let (Some(config), Some(apply)) = (&case.config, &case.apply) else {
            continue;
        };
        let options: Vec<&str> = apply.iter().map(String::as_str).collect();
        let (ours, plugin_s) = (settings(&options), case.settings_of_plugin(config));
        assert_eq!(ours.config, plugin_s.config, "{}", case.name);
        compared += 1;
    }
    assert!(compared > 0);
}
