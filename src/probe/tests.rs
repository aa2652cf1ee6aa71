use super::*;
use crate::facts::{Facts, Ipv6};
use crate::options::{Config, Dialect, OwnerOrder, Settings};
use crate::types::{
    Cidrs, DnsServers, Families, Gids, Id as _, InboundMode, InterfaceName, LoopbackCidr, NoAccounts, Ports, Uids,
    parse_cidrs, parse_ids, parse_ports, parse_ports_for_uids,
};

fn port(number: u16) -> Port {
    Port::new(number).unwrap()
}

fn owner(uid: u32, gid: u32) -> Owner {
    Owner {
        uid: Uid::new(uid).unwrap(),
        gid: Gid::new(gid).unwrap(),
    }
}

fn ports(text: &str) -> Ports {
    parse_ports(text).unwrap()
}

fn cidrs(text: &str) -> Cidrs {
    parse_cidrs(text).unwrap()
}

fn uids(text: &str) -> Uids {
    parse_ids(text, &NoAccounts).unwrap()
}

fn gids(text: &str) -> Gids {
    parse_ids(text, &NoAccounts).unwrap()
}

/// A pod with addresses, and a process in it that may do everything.
fn pod() -> Surroundings {
    Surroundings {
        routes: ["10.1.0.0/16", "10.1.0.5/32"].map(|net| net.parse().unwrap()).to_vec(),
        addresses: ["10.1.0.5", "fd00::5"].map(|address| address.parse().unwrap()).to_vec(),
        caller: owner(0, 0),
        may_switch: true,
    }
}

/// The probes of IPv4 in few words: what, who from where to where, and the port that it should arrive at.
fn list(change: impl FnOnce(&mut Config, &mut Surroundings)) -> Vec<String> {
    let mut config = Settings::default().config;
    let mut surroundings = pod();
    change(&mut config, &mut surroundings);
    let facts = Facts {
        resolvers: vec!["10.96.0.10".parse().unwrap(), "fd96::10".parse().unwrap()],
        ..Facts::default()
    };
    let trial = trial(&config, &facts, Families::Both, &surroundings, port(15002));
    let (v4, v6): (Vec<_>, Vec<_>) = trial.probes.iter().partition(|probe| probe.family() == Family::V4);
    let subjects = |probes: &[&Probe]| probes.iter().map(|probe| probe.subject).collect::<Vec<_>>();
    assert_eq!(subjects(&v4), subjects(&v6), "the families are alike");
    v4.into_iter().map(words).collect()
}

fn words(probe: &Probe) -> String {
    let caller = match probe.caller {
        Caller::Process(owner) => format!("{}:{}", owner.uid, owner.gid),
        Caller::Neighbour => "neighbour".to_owned(),
    };
    let source = probe
        .source
        .map(|source| format!("@{}", source.address))
        .unwrap_or_default();
    let expected = match probe.expected {
        Expected::Captured(port) => format!(" > {port}"),
        Expected::Untouched => String::new(),
    };
    let needs = match probe.needs {
        Needs::Route => "",
        Needs::Link => " (link)",
        Needs::Impossible(_) => " (impossible)",
    };
    let name = probe.subject.name();
    format!("{name} {caller}{source} {}{expected}{needs}", probe.destination)
}

#[track_caller]
fn has(list: &[String], line: &str) {
    assert!(list.iter().any(|one| one == line), "no {line:?} in {list:#?}");
}

#[track_caller]
fn has_no(list: &[String], name: &str) {
    assert!(!list.iter().any(|one| one.starts_with(name)), "{name:?} in {list:#?}");
}

#[test]
fn the_defaults_are_proved_in_full() {
    let expected = [
        "outbound 1000:1000 192.0.2.254:15002 > 15001",
        "exempt 1337:1000 192.0.2.254:15002 (link)",
        "exempt 1000:1337 192.0.2.254:15002 (link)",
        "inbound neighbour 192.0.2.253:15002 > 15006 (link)",
        "mesh-port neighbour 192.0.2.253:15008 (link)",
        "mesh-port neighbour 192.0.2.253:15020 (link)",
        "mesh-port neighbour 192.0.2.253:15090 (link)",
        "self-call 1337:1337 10.1.0.5:15002 > 15006",
        "passthrough 1337:1337@127.0.0.6 10.1.0.5:15002",
    ];
    assert_eq!(list(|_, _| {}), expected);
}

#[test]
fn exclusions_are_proved_too() {
    let found = list(|config, _| {
        config.outbound.exclude_ports = ports("3306,15002");
        config.outbound.exclude_uids = uids("1000,7");
        config.outbound.exclude_gids = gids("1000");
        config.inbound.exclude_ports = ports("22");
    });
    has(&found, "outbound 0:0 192.0.2.254:1 > 15001");
    has(&found, "excluded-outbound-port 0:0 192.0.2.254:3306 (link)");
    has(&found, "excluded-user 7:0 192.0.2.254:1 (link)");
    has(&found, "excluded-group 0:1000 192.0.2.254:1 (link)");
    has(&found, "excluded-inbound-port neighbour 192.0.2.253:22 (link)");
    // The proxy may not call an excluded port either.
    has(&found, "self-call 1337:1337 10.1.0.5:1 > 15006");
}

#[test]
fn what_is_not_captured_is_not_proved_to_be() {
    let no_inbound = list(|config, _| config.inbound.include_ports = Ports::default());
    for name in ["inbound", "mesh-port", "self-call", "passthrough"] {
        has_no(&no_inbound, name);
    }
    let no_outbound = list(|config, _| config.outbound.include_cidrs = Cidrs::default());
    for name in ["outbound", "exempt"] {
        has_no(&no_outbound, name);
    }
    has_no(
        &list(|config, _| config.outbound.exclude_ports = Ports::everything()),
        "outbound",
    );
    has_no(
        &list(|config, _| config.outbound.include_gids = gids("1337")),
        "outbound",
    );
}

#[test]
fn inclusions_are_kept_to() {
    let found = list(|config, _| {
        config.outbound.include_ports = ports("443");
        config.outbound.include_cidrs = Cidrs::default();
        config.outbound.include_gids = gids("3000-3010");
        config.inbound.include_ports = ports("8080-8090");
        config.inbound.exclude_ports = ports("8080");
    });
    has(&found, "outbound 1000:3000 192.0.2.254:443 > 15001");
    has(&found, "inbound neighbour 192.0.2.253:8081 > 15006 (link)");
    has(&found, "self-call 1337:1337 10.1.0.5:8081 > 15006");
    // A network so large that one of its addresses is nobody's.
    let found = list(|config, _| config.outbound.include_cidrs = cidrs("10.0.0.0/8,fd00::/64"));
    has(&found, "outbound 1000:1000 10.255.255.254:15002 > 15001");
    has(&found, "exempt 1337:1000 10.255.255.254:15002 (link)");
    // Addresses that are somebody's are not called past the proxy.
    let found = list(|config, _| config.outbound.include_cidrs = cidrs("10.9.9.9,fd09::9"));
    has(&found, "outbound 1000:1000 10.9.9.9:15002 > 15001");
    has(&found, "exempt 1337:1000 10.9.9.9:15002 (impossible)");
}

#[test]
fn ports_excluded_for_some_users_make_the_application_another_user() {
    let found = list(|config, _| {
        config.outbound.exclude_ports_for_uids =
            parse_ports_for_uids("tcp:15002:900-1005;udp:53:0-2000", &NoAccounts).unwrap();
        config.dns.redirect = true;
    });
    has(&found, "outbound 0:1000 192.0.2.254:15002 > 15001");
    has(&found, "lookup 2001:1000 10.96.0.10:53 > 15053");
    has(&found, "lookup 1000:1000 10.96.0.10:53 > 15053");
}

#[test]
fn lookups_go_to_servers_that_are_captured() {
    let with = |servers: DnsServers| {
        list(|config, _| {
            config.dns.redirect = true;
            config.dns.servers = servers;
        })
    };
    let of_file = with(DnsServers::ResolvConf);
    assert_eq!(of_file.iter().filter(|line| line.starts_with("lookup")).count(), 2);
    has(&of_file, "lookup 1000:1000 10.96.0.10:53 > 15053");
    let all = with(DnsServers::All);
    has(&all, "lookup 1000:1000 192.0.2.254:53 > 15053");
    has(&all, "exempt 1337:1000 192.0.2.254:53 (link)");
    // Asked for, and captured by no rule: that is not proved.
    let excluded = list(|config, _| {
        config.dns.redirect = true;
        config.outbound.exclude_ports = ports("53");
    });
    has(&excluded, "lookup 0:0 192.0.2.254:53 > 15053 (impossible)");
    assert_eq!(excluded.iter().filter(|line| line.starts_with("lookup")).count(), 1);
    // Which interface it leaves by cannot be foretold.
    let found = list(|config, _| {
        config.dns.redirect = true;
        config.general.exclude_interfaces = vec![InterfaceName::parse("eth0").unwrap()];
    });
    has(&found, "lookup 1000:1000 10.96.0.10:53 > 15053 (impossible)");
    has(&found, "outbound 1000:1000 192.0.2.254:15002 > 15001 (link)");
}

#[test]
fn whoever_may_not_act_as_others_does_what_it_can_as_itself() {
    let as_app = list(|_, surroundings| {
        (surroundings.caller, surroundings.may_switch) = (owner(2000, 3000), false);
    });
    has(&as_app, "outbound 2000:3000 192.0.2.254:15002 > 15001");
    has(&as_app, "self-call 1337:1337 10.1.0.5:15002 > 15006");
    let as_proxy = list(|_, surroundings| {
        (surroundings.caller, surroundings.may_switch) = (owner(1337, 3000), false);
    });
    has(&as_proxy, "exempt 1337:3000 192.0.2.254:15002 (link)");
    has(&as_proxy, "self-call 1337:3000 10.1.0.5:15002 > 15006");
    has(&as_proxy, "passthrough 1337:3000@127.0.0.6 10.1.0.5:15002");
}

#[test]
fn a_pod_without_addresses_is_called_by_that_of_passed_on_traffic_or_of_the_link() {
    let found = list(|_, surroundings| surroundings.addresses.clear());
    has(&found, "self-call 1337:1337@127.0.0.1 127.0.0.6:15002 > 15006");
    has(&found, "passthrough 1337:1337@127.0.0.6 127.0.0.6:15002");
    let found = list(|config, surroundings| {
        surroundings.addresses.clear();
        config.general.loopback_cidr = LoopbackCidr::parse("127.0.0.0/8").unwrap();
    });
    has(&found, "self-call 1337:1337 192.0.2.253:15002 > 15006 (link)");
}

#[test]
fn excluded_sources_and_interfaces_say_nothing_about_the_rules_for_others() {
    let found = list(|config, _| config.inbound.exclude_cidrs = cidrs("192.0.2.0/24,2001:db8::/32,10.1.0.5,fd00::5"));
    has(&found, "inbound neighbour 192.0.2.253:15002 > 15006 (impossible)");
    has_no(&found, "self-call");
    has_no(
        &list(|config, _| config.general.exclude_interfaces = vec![InterfaceName::loopback()]),
        "self-call",
    );
}

#[test]
fn with_tproxy_the_proxy_passes_on_with_the_clients_address() {
    let found = list(|config, _| config.inbound.mode = InboundMode::Tproxy);
    has(&found, "passthrough 1337:1337@192.0.2.254 192.0.2.253:15002 (link)");
}

#[test]
fn istios_rules_are_proved_as_they_are() {
    let istio = |config: &mut Config| {
        config.dialect = Dialect::Istio(OwnerOrder {
            uids: vec![Uid::new(1500).unwrap(), Uid::new(1337).unwrap()],
            gids: vec![Gid::new(1337).unwrap()],
        });
        config.proxy.uids = uids("1337,1500");
    };
    let found = list(|config, _| istio(config));
    // The first user's self-calls alone are captured.
    has(&found, "self-call 1500:1337 10.1.0.5:15002 > 15006");
    let found = list(|config, _| {
        istio(config);
        config.inbound.include_ports = Ports::default();
        config.inbound.exclude_cidrs = cidrs("10.1.0.5,fd00::5");
    });
    has(&found, "self-call 1500:1337 10.1.0.5:15002 > 15006");
    has_no(&found, "mesh-port");
    let found = list(|config, _| {
        istio(config);
        config.inbound.mode = InboundMode::Tproxy;
    });
    has(&found, "passthrough 0:1337@192.0.2.254 192.0.2.253:15002 (link)");
    has_no(&found, "mesh-port");
    let found = list(|config, _| {
        istio(config);
        config.inbound.mode = InboundMode::Tproxy;
        config.inbound.include_ports = Ports::default();
    });
    has(&found, "self-call 1500:1337 10.1.0.5:15002 > 15006");
    has_no(&found, "passthrough");
}

#[test]
fn a_family_that_the_pod_cannot_use_is_left_out() {
    let config = Settings::default().config;
    let facts = Facts {
        ipv6: Ipv6::OffOnLoopback { used_elsewhere: false },
        ..Facts::default()
    };
    let trial = trial(&config, &facts, Families::Both, &pod(), port(15002));
    assert!(trial.probes.iter().all(|probe| probe.family() == Family::V4));
    assert!(!trial.probes.is_empty());
}

fn probe(subject: Subject, expected: Expected) -> Probe {
    Probe {
        subject,
        protocol: Protocol::Tcp,
        caller: Caller::Process(owner(1000, 1000)),
        source: None,
        destination: "192.0.2.254:15002".parse().unwrap(),
        expected,
        needs: Needs::Route,
    }
}

fn arrived(at: &str, original: Original) -> Finding {
    Finding::Redirected {
        at: at.parse().unwrap(),
        original,
    }
}

#[test]
fn only_what_arrives_where_it_should_has_passed() {
    let captured = probe(Subject::Outbound, Expected::Captured(port(15001)));
    let untouched = probe(Subject::Exempt, Expected::Untouched);
    let known = |text: &str| Original::Known(text.parse().unwrap());
    let findings = [
        (arrived("127.0.0.1:15001", known("192.0.2.254:15002")), true, false),
        (arrived("127.0.0.1:15001", Original::NotAsked), true, false),
        (arrived("127.0.0.1:15001", known("192.0.2.254:1")), false, false),
        (
            arrived("127.0.0.1:15001", Original::Unknown("ENOENT".to_owned())),
            false,
            false,
        ),
        (arrived("127.0.0.1:15006", known("192.0.2.254:15002")), false, false),
        (Finding::HandedOver, true, false),
        (Finding::AnsweredInPod, true, false),
        (Finding::Closed { proxy_listens: true }, true, false),
        (Finding::Closed { proxy_listens: false }, false, false),
        (Finding::Direct, false, true),
        (Finding::AnsweredOutside, false, false),
        (
            Finding::Unanswered {
                at: "127.0.0.1:15053".parse().unwrap(),
            },
            false,
            false,
        ),
        (Finding::Refused, false, false),
        (Finding::Lost, false, false),
        (Finding::Unreachable(String::new()), false, false),
        (Finding::NoSource(String::new()), false, false),
    ];
    for (finding, passes_captured, passes_untouched) in findings {
        let outcome = Outcome::Found(finding);
        let passes = |probe| judge(probe, &outcome) == Verdict::Passed;
        assert_eq!(passes(&captured), passes_captured, "{outcome:?}");
        assert_eq!(passes(&untouched), passes_untouched, "{outcome:?}");
    }
    for probe in [&captured, &untouched] {
        assert_eq!(judge(probe, &Outcome::NotMade(String::new())), Verdict::NotMade);
    }
}

#[test]
fn a_failure_says_what_it_means_for_the_pod() {
    let says = |subject, expected, finding| match judge(&probe(subject, expected), &Outcome::Found(finding)) {
        Verdict::Failed { meaning, advice } => format!("{meaning} / {advice}"),
        verdict => panic!("{verdict:?}"),
    };
    let captured = Expected::Captured(port(15001));
    let bypass = says(Subject::Inbound, captured, Finding::Direct);
    assert!(
        bypass.contains("to the application bypass the proxy") && bypass.contains("sidetrack apply"),
        "{bypass}"
    );
    let taken = says(
        Subject::Outbound,
        captured,
        arrived("127.0.0.1:9999", Original::NotAsked),
    );
    assert!(taken.contains("another redirection comes first"), "{taken}");
    let dropped = says(Subject::Outbound, captured, Finding::Lost);
    assert!(dropped.contains("firewall"), "{dropped}");
    let comes_back = says(
        Subject::Exempt,
        Expected::Untouched,
        arrived("127.0.0.1:15001", Original::NotAsked),
    );
    assert!(comes_back.contains("loop back to it"), "{comes_back}");
}

#[test]
fn a_report_counts_and_says_why() {
    let report = Report {
        outcomes: vec![
            (
                probe(Subject::Outbound, Expected::Captured(port(15001))),
                Outcome::Found(Finding::Direct),
            ),
            (
                probe(Subject::Exempt, Expected::Untouched),
                Outcome::Found(Finding::Direct),
            ),
            (
                probe(Subject::Exempt, Expected::Untouched),
                Outcome::NotMade("a reason".to_owned()),
            ),
        ],
        proxy_listens: vec!["127.0.0.1:15001".parse().unwrap()],
        notes: vec!["a note".to_owned()],
    };
    let text = report.text(Some("Expected by a source."));
    for line in [
        "Expected by a source.\n",
        "failed    IPv4 TCP outbound: user 1000, group 1000 to 192.0.2.254:15002: left the pod, past the proxy\n",
        "          expected: arrives at the proxy's port 15001\n",
        "not made  IPv4 TCP exempt: user 1000, group 1000 to 192.0.2.254:15002: a reason\n",
        "A proxy listens at: 127.0.0.1:15001\n",
        "Note: a note\n",
        "1 passed, 1 failed, 1 not made\n",
    ] {
        assert!(text.contains(line), "no {line:?} in {text}");
    }
    let source = [
        ("source", "rules".into()),
        ("recordedOptions", ().into()),
        ("ignoredRecord", "a reason".into()),
    ];
    let json: serde_json::Value = serde_json::from_str(&report.json(source)).unwrap();
    assert_eq!(
        (&json["source"], &json["ignoredRecord"]),
        (&"rules".into(), &"a reason".into())
    );
    assert_eq!(json["result"], "failed");
    assert_eq!(json["probes"][0]["expected"], serde_json::json!({ "port": 15001 }));
    assert_eq!(json["probes"][1]["expected"], "untouched");
    assert_eq!(json["probes"][1]["meaning"], serde_json::Value::Null);
    assert_eq!(json["probes"][2]["reason"], "a reason");
}
