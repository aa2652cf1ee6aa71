//! Where the own rules of Istio, Linkerd, Kuma and Consul were seen to send traffic is where explain says that ours, by the same
//! flags, send it.
//!
//! The cases and verdicts are those of the referee that `scripts/oracle` runs with real packets. Here nothing is sent:
//! each probe is put to the simulator.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use sidetrack::facts::{Facts, Ipv6, UsableAddresses};
use sidetrack::mesh::annotations::Annotations;
use sidetrack::mesh::istio::front_end::table::Setting;
use sidetrack::mesh::{self, consul, istio, kuma, linkerd};
use sidetrack::options::{Layer, Settings};
use sidetrack::plan::Plan;
use sidetrack::ruleset::{Chain, ChainType, Installed, Protocol, Tracking};
use sidetrack::simulate::{Course, End, Origin, Packet, Pod, Verdict, simulate, simulate_later};
use sidetrack::types::{Accounts, AccountsError, Family, Gid, Id, InterfaceName, Port, Uid};

use crate::plans::settings;

#[derive(Deserialize)]
struct Case {
    name: String,
    #[serde(default = "istio_s")]
    program: String,
    #[serde(default)]
    flags: Vec<String>,
    /// What Consul's injector writes, in the place of flags.
    config: Option<serde_json::Value>,
    #[serde(default)]
    apply: Option<Vec<String>>,
    /// Where ours land as in a pod without rules, though the referee's do not.
    #[serde(default)]
    differences: Vec<Difference>,
    #[serde(default)]
    env: BTreeMap<String, String>,
    #[serde(default)]
    resolv_conf: Vec<String>,
    #[serde(default = "both")]
    families: Vec<u8>,
    /// Whether `::6` is put on the loopback interface.
    #[serde(default)]
    ipv6: bool,
}

#[derive(Deserialize)]
struct Difference {
    probes: Vec<String>,
    recorded: String,
}

fn istio_s() -> String {
    "istio-iptables".to_owned()
}

fn both() -> Vec<u8> {
    vec![4, 6]
}

#[derive(Deserialize)]
struct Untouched {
    verdicts: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Recorded {
    changed: BTreeMap<String, String>,
    conntrack: BTreeMap<String, String>,
}

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/oracle")
}

fn read<T: for<'d> Deserialize<'d>>(path: &Path) -> T {
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// A link of the referee's pod: its interface, the pod's addresses, the neighbour's interface and addresses.
struct Link {
    interface: &'static str,
    pod: [&'static str; 2],
    neighbour: &'static str,
    peer: [&'static str; 2],
    networks: [&'static str; 2],
    hosts: &'static [&'static str],
}

const LINKS: [Link; 4] = [
    Link {
        interface: "eth0",
        pod: ["172.16.0.10", "fd00:a::10"],
        neighbour: "near-eth0",
        peer: ["172.16.0.1", "fd00:a::1"],
        networks: ["172.16.0.0/24", "fd00:a::/64"],
        hosts: &[], // And everything that is nowhere else.
    },
    Link {
        interface: "eth1",
        pod: ["10.11.0.10", "2001:db8:11::10"],
        neighbour: "far-eth1",
        peer: ["10.11.0.1", "2001:db8:11::1"],
        networks: ["10.11.0.0/24", "2001:db8:11::/64"],
        hosts: &["9.9.21.5", "10.21.0.5", "2001:db8:21::5", "fd00:21::5"],
    },
    Link {
        interface: "eth2",
        pod: ["192.168.12.10", "fd00:c::10"],
        neighbour: "far-eth2",
        peer: ["192.168.12.1", "fd00:c::1"],
        networks: ["192.168.12.0/24", "fd00:c::/64"],
        hosts: &["192.168.22.5", "fd00:22::5"],
    },
    Link {
        interface: "not-istio-nic",
        pod: ["172.16.13.10", "fd00:d::10"],
        neighbour: "far-nic",
        peer: ["172.16.13.1", "fd00:d::1"],
        networks: ["172.16.13.0/24", "fd00:d::/64"],
        hosts: &[
            "9.9.13.13",
            "9.9.213.13",
            "10.13.0.13",
            "10.213.0.13",
            "192.0.2.13",
            "2001:db8:13::13",
            "2001:db8:ff13::13",
            "fd00:13::13",
        ],
    },
];

const POD_TCP: [u16; 19] = [
    53, 4000, 5000, 6000, 7000, 8080, 9090, 15001, 15006, 15008, 15020, 15021, 15053, 15090, 16001, 16006, 16008,
    31000, 32000,
];
const POD_UDP: [u16; 3] = [53, 8080, 15053];

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn interface(name: &str) -> InterfaceName {
    InterfaceName::parse(name).expect("an interface")
}

/// The link that leads to an address.
fn link_to(address: IpAddr) -> &'static Link {
    let behind = |link: &&Link| {
        let network = |net: &&str| net.parse::<ipnet::IpNet>().expect("a network").contains(&address);
        link.networks.iter().any(network) || link.hosts.iter().any(|host| ip(host) == address)
    };
    LINKS.iter().find(behind).unwrap_or(&LINKS[0])
}

struct Names;

impl Accounts for Names {
    fn uid(&self, name: &str) -> Result<Option<u32>, AccountsError> {
        Ok((name == "envoy").then_some(1500))
    }

    fn gid(&self, name: &str) -> Result<Option<u32>, AccountsError> {
        Ok(match name {
            "java" => Some(2201),
            "ftp" => Some(2202),
            _ => None,
        })
    }

    fn has_uid(&self, _: u32) -> Result<bool, AccountsError> {
        Ok(false)
    }
}

impl Case {
    /// The text of a setting's flag, as the referee's cases write flags.
    fn flag(&self, setting: &Setting) -> Option<String> {
        let mut given = None;
        let mut words = self.flags.iter().peekable();
        while let Some(word) = words.next() {
            let is_short = setting.short.is_some_and(|short| *word == format!("-{short}"));
            let is_value = |next: &&String| !(next.starts_with("--") || next.len() == 2 && next.starts_with('-'));
            let value = words.next_if(is_value);
            if is_short || *word == format!("--{}", setting.name) {
                given = Some(value.cloned().unwrap_or_else(|| "true".to_owned()));
            }
        }
        given
    }

    /// What the plugin makes of Consul's annotations.
    fn settings_of_plugin(&self, config: &serde_json::Value) -> Settings {
        let dual_stack = &self.env["CONSUL_DUAL_STACK"];
        let annotations = consul::nomad(&config.to_string());
        let annotations = annotations
            .names()
            .map(|name| (name, annotations.get(name).expect("a value")));
        let dual_stack = ("consul.hashicorp.com/dual-stack", dual_stack.as_str());
        let annotations: Annotations = annotations.chain([dual_stack]).collect();
        let layer = mesh::annotations::parse(&annotations).over(Layer::default());
        let mesh = mesh::injected(&annotations).map(|mesh| mesh.option);
        let layer = layer.expect("valid annotations");
        mesh::settings(Layer { mesh, ..layer }).expect("no contradictions")
    }

    fn settings(&self) -> Settings {
        if let Some(config) = &self.config {
            return self.settings_of_plugin(config);
        }
        let variable = |name: &str| self.env.get(name).cloned();
        if self.program == istio_s() {
            let parsed = istio::front_end::read(|setting| self.flag(setting), variable, &Names);
            return parsed.request.expect("valid flags").settings;
        }
        let words = ["sidetrack", &self.program].into_iter();
        let words = words.chain(self.flags.iter().map(String::as_str));
        let matches = sidetrack::cli::command().get_matches_from(words);
        let (_, matches) = matches.subcommand().expect("a program");
        let texts = |name: &str| Some(matches.get_many::<String>(name)?.cloned().collect::<Vec<_>>());
        if self.program == "linkerd-proxy-init" {
            let parsed = linkerd::front_end::read(|setting| texts(setting.name).unwrap_or_default());
            return parsed.request.expect("valid flags").settings;
        }
        // In the cases it is /dev/null.
        let file = texts("config").map(|_| ("/dev/null".to_owned(), String::new()));
        let parsed = kuma::front_end::read(|setting| texts(setting.name), file.as_slice(), variable, &Names);
        parsed.settings.expect("valid flags")
    }

    fn plan(&self) -> Plan {
        let resolvers = self
            .resolv_conf
            .iter()
            .filter_map(|line| line.strip_prefix("nameserver "));
        let facts = Facts {
            ipv6: Ipv6::Usable,
            addresses: UsableAddresses {
                v4: self.families.contains(&4),
                v6: self.families.contains(&6),
                v6_link_local: self.ipv6 || self.families.contains(&6),
            },
            resolvers: resolvers.map(|address| ip(address.trim())).collect(),
        };
        Plan::new(&self.settings().config, &facts).expect("a plan")
    }

    fn pod(&self, plan: &Plan) -> Pod {
        let mut pod = Pod {
            addresses: Vec::new(),
            routing: plan.policy_routing,
        };
        for link in &LINKS {
            let own = link.pod.iter().map(|address| ip(address));
            let own = own.filter(|address| self.families.contains(if address.is_ipv4() { &4 } else { &6 }));
            pod.addresses
                .extend(own.map(|address| (interface(link.interface), address)));
        }
        // The kernel has the newest first.
        let added = plan.loopback_addresses.iter();
        pod.addresses
            .extend(added.map(|address| (interface("lo"), IpAddr::from(*address))));
        if self.families.contains(&6) {
            pod.addresses.push((interface("lo"), ip("::7")));
        }
        pod
    }

    /// What was seen in a pod without rules.
    fn untouched(&self) -> BTreeMap<String, String> {
        let families: String = self.families.iter().map(u8::to_string).collect();
        read::<Untouched>(&directory().join(format!("verdicts/untouched-{families}.json"))).verdicts
    }

    /// What was seen under the mesh's rules: where probes landed, and the zones and marks that connection tracking had.
    fn recorded(&self) -> Recorded {
        let of_mesh = match self.program.as_str() {
            "linkerd-proxy-init" => "linkerd/verdicts",
            "kuma-init" => "kuma/verdicts",
            "consul" => "consul/verdicts",
            _ => "verdicts",
        };
        let mut recorded: Recorded = read(&directory().join(of_mesh).join(format!("{}.json", self.name)));
        let untouched = self.untouched();
        for (name, seen) in &mut recorded.changed {
            if self.differences.iter().any(|difference| difference.is_of(name, seen)) {
                seen.clone_from(&untouched[name]);
            }
        }
        let changed = std::mem::replace(&mut recorded.changed, untouched);
        recorded.changed.extend(changed);
        recorded
    }
}

impl Difference {
    fn is_of(&self, probe: &str, seen: &str) -> bool {
        self.probes.iter().any(|pattern| matches(pattern, probe)) && matches(&self.recorded, seen)
    }
}

/// Whether a text is like a pattern, whose `*` stands for any text.
fn matches(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((before, after)) => text
            .strip_prefix(before)
            .is_some_and(|rest| (0..=rest.len()).any(|at| rest.is_char_boundary(at) && matches(after, &rest[at..]))),
    }
}

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

/// What the referee does in a probe, as far as the simulator has words for it.
enum Probe {
    /// It sends this and sees where it lands.
    First(Packet),
    /// It opens a connection like that, and goes on with packets that have this mark.
    Marked(Packet, u32),
    /// It opens a connection like that, and then sends data that lie far out of its window.
    OutOfWindow(Packet),
    /// It sends a segment that belongs to no connection.
    Unasked(Packet),
    /// It cannot send anything.
    Nothing(&'static str),
    /// It sends what is neither TCP nor UDP, or what the pod has no address for.
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
        protocol,
        source,
        source_port: Port::new(source_port).expect("a port"),
        destination: to.ip(),
        destination_port: Port::new(to.port()).expect("a port"),
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

/// What became of a probe.
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

    /// Reads a verdict. Who the source was is up to the routes; whether UDP was answered, to the answer.
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
fn landing(packet: &Packet, course: &Course, untouched: &Seen) -> Vec<Seen> {
    let original = SocketAddr::from((packet.destination, packet.destination_port.get()));
    let listened: &[u16] = match packet.protocol {
        Protocol::Tcp => &POD_TCP,
        Protocol::Udp => &POD_UDP,
    };
    let local = match &course.end {
        End::Dropped => return vec![Seen::word("timeout")],
        // Only the neighbours know whether there is such a host.
        End::Sent { .. } | End::PassedThrough(_) => {
            assert_eq!(course.verdict, Verdict::Accept, "nothing is redirected to another host");
            return vec![match untouched {
                // It is ::6, which there is now.
                Seen::Word(word) if word == "no such source address" => Seen::Neighbour(original),
                untouched => untouched.clone(),
            }];
        }
        End::Delivered(local) => *local,
    };
    let port = match course.verdict {
        Verdict::Tproxy(port) => port.get(),
        Verdict::Redirect(_) | Verdict::Accept | Verdict::Drop => local.port(),
    };
    if !listened.contains(&port) {
        return vec![Seen::word("refused")];
    }
    let mut landing = vec![match packet.protocol {
        Protocol::Tcp => Seen::Pod(port, local, original),
        Protocol::Udp => Seen::Pod(port, local, local),
    }];
    let own = |address| pod_has(address);
    let is_transparent = matches!(port, 15006 | 16006);
    if packet.protocol == Protocol::Tcp && (!own(packet.source) || !own(local.ip()) && !is_transparent) {
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

fn cases() -> Vec<Case> {
    let directories = ["cases", "linkerd/cases", "kuma/cases", "consul/cases"].into_iter();
    let entries = directories.flat_map(|name| fs::read_dir(directory().join(name)).expect(name));
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    paths.iter().map(|path| read(path)).collect()
}

/// What the simulator expects of a probe: any of these; nothing of one that it has no words for.
fn expected(rules: &Installed, pod: &Pod, probe: &Probe, untouched: &str) -> Vec<String> {
    let course = |packet: &Packet| {
        let course = simulate(rules, pod, packet).expect("an end");
        assert!(course.certain, "{packet:?}");
        course
    };
    let first = |packet: &Packet| landing(packet, &course(packet), &Seen::read(untouched));
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
            as_text(vec![Seen::word(match course(&unasked).end {
                End::Dropped => "silence",
                _ => "reset",
            })])
        }
        Probe::OutOfWindow(packet) => {
            let invalid = Packet {
                tracking: Tracking::Invalid,
                ..packet.clone()
            };
            let reaction = match (course(&invalid).end, course(packet).verdict) {
                (End::Dropped, _) => "silence, survives",
                // It is not translated, so that it reaches somebody who knows nothing of the connection.
                (_, Verdict::Redirect(_)) => "reset, breaks",
                _ => "ack, survives",
            };
            let landings = first(packet).into_iter();
            landings.map(|landing| format!("{landing:?}, {reaction}")).collect()
        }
    }
}

/// Whether a connection passes through the pod, but not the answers to it.
fn is_diverted(rules: &Installed, pod: &Pod, packet: &Packet) -> bool {
    let answer = Packet {
        origin: Origin::Interface(interface(link_to(packet.destination).interface)),
        source: packet.destination,
        source_port: packet.destination_port,
        destination: packet.source,
        destination_port: packet.source_port,
        tracking: Tracking::Established,
        ..packet.clone()
    };
    let passes = |rules: &Installed, packet: &Packet| {
        matches!(simulate(rules, pod, packet).expect("an end").end, End::PassedThrough(_))
    };
    // Nothing has translated the connection.
    let mut untranslating = rules.clone();
    let translates = |chain: &Chain| chain.hook.is_some_and(|base| base.kind == ChainType::Nat);
    untranslating.ruleset.chains.retain(|chain| !translates(chain));
    passes(rules, packet) && !passes(&untranslating, &answer)
}

#[test]
fn every_case_of_the_referee_is_explained_as_it_was_seen() {
    let (mut compared, mut differing) = (0, Vec::new());
    for case in cases() {
        let plan = case.plan();
        let pod = case.pod(&plan);
        let rules = Installed::from(plan.ruleset);
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
            // A refusal has connection tracking forget.
            if let Probe::First(packet) = probe
                && landed != "refused"
            {
                let course = simulate(&rules, &pod, &packet).expect("an end");
                let expected = (course.zone.map_or(0, |zone| zone.0), course.connection_mark);
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
fn the_plugin_makes_of_consuls_configuration_what_the_options_of_each_case_say() {
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
