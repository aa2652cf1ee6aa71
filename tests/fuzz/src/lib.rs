//! Invariants of every accepted configuration, from any source.

use std::path::Path;

use sidetrack::mesh;
use sidetrack::backend::iptables;
use sidetrack::backend::nftables::listing::Listing;
use sidetrack::backend::nftables::{self, Object};
use sidetrack::facts::{Facts, Ipv6};
use sidetrack::options::sources::Parsed;
use sidetrack::options::{Config, file};
use sidetrack::options::{Layer, sources};
use sidetrack::plan::record::{self, Unusable};
use sidetrack::plan::{Plan, PlanError};
use sidetrack::render;
use sidetrack::ruleset::{Protocol, Record, Tracking};
use sidetrack::ruleset::netfilter::Netfilter;
use sidetrack::simulate::packet_args::{self, PacketArgs};
use sidetrack::simulate::{self, End, Origin, Packet, Pod, Simulation};
use sidetrack::types::{Gid, Id as _, NoAccounts, Policy, Port, Uid};

/// Plans and renders `config` for each kind of namespace.
///
/// # Panics
/// The plan is not sound, or a renderer deviates from the plan or exceeds its size limit.
pub fn plan_and_render(config: &Config) {
    plan_and_render_within(config, false);
}

/// Plans and renders the configuration of a pod, which never exceeds the limits of iptables.
///
/// # Panics
/// As [`plan_and_render`], or there are too many rules.
pub fn plan_and_render_of_pod(config: &Config) {
    plan_and_render_within(config, true);
}

fn plan_and_render_within(config: &Config, of_pod: bool) {
    let used_elsewhere = true;
    for ipv6 in [Ipv6::Usable, Ipv6::OffOnLoopback { used_elsewhere }, Ipv6::Absent] {
        let facts = Facts {
            ipv6,
            resolvers: vec!["10.96.0.10".parse().expect("an address")],
            ..Facts::default()
        };
        match Plan::new(config, &facts) {
            Ok(plan) => {
                render(&plan, of_pod);
                read_record(&plan, &facts);
                hold(config, plan);
            }
            Err(PlanError::Ipv6 { .. }) => {}
            Err(error @ (PlanError::Unsound(_) | PlanError::PolicyOfDialect { .. })) => panic!("{error}: {config:?}"),
        }
    }
}

/// Checks that a policy without holes holds what a process sends that is not the proxy's.
fn hold(config: &Config, plan: Plan) {
    const APPLICATION: u32 = 4_000_000_000;
    let (uid, gid) = (Uid::new(APPLICATION).expect("a user"), Gid::new(APPLICATION).expect("a group"));
    let (proxy, outbound) = (&config.proxy, &config.outbound);
    let has_holes = !outbound.exclude_cidrs.is_empty()
        || outbound.exclude_uids.contains(uid)
        || outbound.exclude_gids.contains(gid)
        || outbound.exclude_ports_for_uids.iter().any(|entry| entry.uids.contains(uid))
        || !config.general.exclude_interfaces.is_empty();
    let is_proxy = proxy.mark.is_none() && (proxy.uids.contains(uid) || proxy.gids.contains(gid));
    if outbound.policy == Policy::Allow || has_holes || is_proxy {
        return;
    }
    let simulation = Simulation::planned("the plan", plan, Pod::default(), None);
    let pod = &simulation.pod;
    let interface = pod.addresses.first().expect("an address").0.clone();
    for destination in ["198.51.100.1", "2001:db8:ffff::1"] {
        let destination = destination.parse().expect("an address");
        let packet = Packet {
            origin: Origin::Process { uid, gid, cgroup: None, interface: interface.clone() },
            protocol: Protocol::Udp.into(),
            source: pod.source(destination, 0, &interface).expect("an address"),
            source_port: Port::new(40_000),
            destination,
            destination_port: Port::new(443),
            mark: 0,
            tracking: Tracking::New,
        };
        let path = simulate::simulate(&simulation.rules, pod, &packet).expect("an end");
        assert!(path.certain && path.end == End::Rejected, "{:?}, {:?}: {config:?}", path.end, path.doubts);
    }
}

/// The maximum size in bytes of a rule or a chain, as text or as a netlink message.
const MAX_RULE_BYTES: usize = 2048;
/// The maximum size in bytes of a set element.
const MAX_ELEMENT_BYTES: usize = 96;

fn render(plan: &Plan, of_pod: bool) {
    let json: serde_json::Value = serde_json::from_str(&render::json::document(plan)).expect("JSON");
    assert_eq!(json["version"], render::json::VERSION);
    assert!(render::nft::script(plan).contains("table inet sidetrack"));
    match iptables::script(plan) {
        Ok(text) => {
            let rules = text.lines().filter(|line| line.contains("-A ")).count();
            assert!(rules <= iptables::MAX_RULES, "{rules} rules");
            assert!(text.len() <= MAX_RULE_BYTES * (rules + 64), "{} bytes for {rules} rules", text.len());
        }
        Err(error) => assert!(!of_pod, "{error}"),
    }

    let steps = nftables::create(&plan.ruleset);
    let listing = Listing::of_steps(&steps);
    let chains = || plan.ruleset.installed_chains();
    let names: Vec<&str> = chains().map(|chain| &*chain.name).collect();
    assert!(listing.chain_names().all(|name| names.contains(&name)));
    let elements = plan.ruleset.sets.iter().map(|set| set.elements.single_addresses().unwrap_or(2 * set.elements.len()));
    let bytes: usize = nftables::transaction(&steps, None).expect("no part is too long").len();
    let max = MAX_RULE_BYTES * (steps.len() + 2) + MAX_ELEMENT_BYTES * elements.sum::<usize>();
    assert!((1..=max).contains(&bytes), "{bytes} bytes of messages, at most {max}");
    let rules: usize = chains().map(|chain| chain.rules.len()).sum();
    let created = steps.iter().filter(|step| matches!(step.object, Object::Rule { .. }));
    assert_eq!(created.count(), rules);
}

/// Checks that the record of a plan leads to the same rules, unless it names lists that are too long. Name servers of
/// `/etc/resolv.conf` are options in a record, and may stand elsewhere in its record.
fn read_record(plan: &Plan, facts: &Facts) {
    let record = plan.ruleset.record.as_ref().expect("a record");
    assert!(record.comments().count() <= record::MAX_COMMENTS);
    assert!(record.comments().all(|comment| comment.len() <= record::MAX_COMMENT_LENGTH));
    match record::read(record) {
        Ok(recorded) => {
            let again = Plan::new(&recorded.config, facts).expect("the plan of a record");
            assert_eq!(without_record(&again), without_record(plan));
        }
        Err(Unusable::Incomplete(omitted)) => assert!(!omitted.is_empty()),
        Err(error) => panic!("{error}: {record:?}"),
    }
}

fn without_record(plan: &Plan) -> Plan {
    let mut plan = plan.clone();
    plan.ruleset.record = None;
    plan
}

/// Reads a record of any origin. What is read is written again as a record that says the same.
///
/// # Panics
/// It says something else.
pub fn read_record_of_any_origin(record: &Record) {
    match record::read(record) {
        Ok(recorded) => {
            let facts = Facts {
                resolvers: recorded.resolvers.clone().unwrap_or_default(),
                ..Facts::default()
            };
            plan_and_render(&recorded.config);
            match record::read(&record::record(&recorded.config, &facts)) {
                Ok(again) => assert_eq!(again.config, recorded.config),
                Err(Unusable::Incomplete(_)) => {}
                Err(error) => panic!("{error}: {record:?}"),
            }
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// Plans and renders the options of a source, if they are valid.
pub fn plan_and_render_parsed(parsed: Parsed) {
    if parsed.problems.is_empty() {
        write_and_read_back(&parsed.layer);
        if let Ok(settings) = mesh::settings(parsed.layer) {
            plan_and_render(&settings.config);
        }
    } else {
        for problem in &parsed.problems {
            assert!(!problem.to_string().is_empty());
        }
    }
}

/// Checks that a configuration file is read back as it was written.
fn write_and_read_back(layer: &Layer) {
    let read = sources::from_file(Path::new("config.yaml"), &file::text(layer), &NoAccounts);
    assert_eq!(read.problems, []);
    let persistent = Layer {
        dry_run: None,
        output: None,
        ..layer.clone()
    };
    assert_eq!(read.layer, persistent);
}

/// Splits bytes into texts at zero bytes, for arguments and variables.
pub fn texts(data: &[u8]) -> impl Iterator<Item = String> {
    data.split(|byte| *byte == 0)
        .map(|text| String::from_utf8_lossy(text).into_owned())
}

/// Follows packets through rules of any program.
///
/// # Panics
/// A result without doubts counts as uncertain.
pub fn follow(rules: &Netfilter) {
    let pod = Simulation::without_rules(Pod::default(), None).pod;
    for (direction, destination) in [("outbound", "10.0.0.5:443"), ("inbound", ":80"), ("outbound", "[2001:db8::5]:53")] {
        let args = PacketArgs {
            direction: direction.to_owned(),
            protocol: "tcp".to_owned(),
            destination: destination.to_owned(),
            ..PacketArgs::default()
        };
        let described = packet_args::parse(&args, &NoAccounts).expect("arguments");
        let packet = described.packet(&pod).expect("a packet");
        for tracking in [Tracking::New, Tracking::Established] {
            let packet = Packet { tracking, ..packet.clone() };
            if let Ok(path) = simulate::simulate(rules, &pod, &packet) {
                assert_eq!(path.certain, path.doubts.is_empty(), "{:?}", path.doubts);
                for entry in &path.trace {
                    entry.step.rule().map(render::netfilter::rule);
                }
            }
        }
    }
}
