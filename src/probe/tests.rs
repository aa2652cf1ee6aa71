mod locked;

use super::*;
use crate::facts::{Facts, Ipv6};
use crate::options::{Config, Dialect, OwnerOrder, Settings};
use crate::types::{
    Cidrs, DnsServers, Families, Gids, Id as _, InboundMode, InterfaceName, LoopbackCidr, NoAccounts, Ports, Timeout,
    Uids, parse_cidrs, parse_ids, parse_ports, parse_ports_for_uids,
};

fn port(number: u16) -> Port {
    Port::new(number).unwrap()
}

fn owner(uid: u32, gid: u32) -> Owner {
    Owner {
        uid: Uid::new(uid).unwrap(),
        gid: Gid::new(gid).unwrap(),
        mark: None,
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
        interfaces: [
            ("eth0", ["10.1.0.5/16", "fd00::5/64"]),
            ("eth1", ["10.2.0.5/16", "fd02::5/64"]),
        ]
        .map(|(name, networks)| {
            let networks = networks.map(|network| network.parse().unwrap()).to_vec();
            (InterfaceName::parse(name).unwrap(), networks)
        })
        .to_vec(),
        forwarding: Vec::new(),
        forwarding_links: Vec::new(),
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
        Caller::Process(owner) => {
            let mark = owner.mark.map(|mark| format!("#{mark}")).unwrap_or_default();
            format!("{}:{}{mark}", owner.uid, owner.gid)
        }
        Caller::Neighbour => "neighbour".to_owned(),
        Caller::Behind => "behind".to_owned(),
    };
    let source = probe
        .source
        .map(|source| format!("@{}", source.address))
        .unwrap_or_default();
    let expected = match probe.expected {
        Expected::Captured(port) => format!(" > {port}"),
        Expected::Untouched => String::new(),
        Expected::Remembered { port, seconds } => format!(" > {port} for {seconds}"),
        Expected::Dropped => " dropped".to_owned(),
        Expected::Rejected => " rejected".to_owned(),
    };
    let bound = probe
        .bound_to
        .as_ref()
        .map(|name| format!("%{name}"))
        .unwrap_or_default();
    let needs = match probe.needs {
        Needs::Route => "",
        Needs::Link => " (link)",
        Needs::Impossible(_) => " (impossible)",
    };
    let name = probe.subject.name();
    format!("{name} {caller}{source}{bound} {}{expected}{needs}", probe.destination)
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
        "half-closed-outbound 1000:1000 192.0.2.254:15002 > 15001 for 432000",
        "exempt 1337:1000 192.0.2.254:15002 (link)",
        "exempt 1000:1337 192.0.2.254:15002 (link)",
        "inbound neighbour 192.0.2.253:15002 > 15006 (link)",
        "half-closed-inbound neighbour 192.0.2.253:15002 > 15006 for 432000 (link)",
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
}

#[test]
fn the_host_outside_stands_in_for_included_and_excluded_addresses() {
    let change = |config: &mut Config| {
        config.outbound.include_cidrs = cidrs("10.0.0.0/8,172.16.0.9,fd09::9,fd10::/64");
        config.outbound.exclude_cidrs = cidrs("10.9.0.0/16,192.168.0.0/16,fd10::/96,fd99::/64");
        config.outbound.exclude_ports = ports("3306");
    };
    let found = list(|config, _| change(config));
    has(&found, "outbound 1000:1000 10.255.255.254:15002 > 15001");
    has(&found, "outbound 1000:1000 172.16.0.9:15002 > 15001 (link)");
    has(&found, "exempt 1337:1000 10.255.255.254:15002 (link)");
    has(&found, "excluded-outbound-port 1000:1000 10.255.255.254:3306 (link)");
    // 192.168.0.0/16 is not included, so that its exclusion has no effect.
    let excluded = found
        .iter()
        .filter(|line| line.starts_with("excluded-outbound-address"));
    assert_eq!(
        excluded.collect::<Vec<_>>(),
        ["excluded-outbound-address 1000:1000 10.9.255.254:15002 (link)"]
    );
    has(
        &found,
        "not-included-outbound-address 1000:1000 192.0.2.254:15002 (link)",
    );
    let mut config = Settings::default().config;
    change(&mut config);
    let trial = trial(&config, &Facts::default(), Families::Both, &pod(), port(15002));
    let stand_ins: Vec<String> = trial.stand_ins.iter().map(ToString::to_string).collect();
    assert_eq!(
        stand_ins,
        [
            "10.255.255.254",
            "172.16.0.9",
            "10.9.255.254",
            "fd09::9",
            "fd10::ffff:ffff:ffff:fffe",
            "fd10::ffff:fffe"
        ]
    );
    // It does not stand in for the pod itself.
    let found = list(|config, _| config.outbound.include_cidrs = cidrs("10.1.0.5,fd00::5"));
    has_no(&found, "outbound");
}

#[test]
fn interfaces_are_proved_by_bound_sockets() {
    let eth = |name| InterfaceName::parse(name).unwrap();
    let change = |config: &mut Config| {
        config.general.exclude_interfaces = vec![eth("eth1"), eth("net7")];
        config.general.bound_interfaces = vec![eth("eth0"), eth("eth1")];
    };
    let found = list(|config, _| change(config));
    has(&found, "excluded-interface 1000:1000%eth1 192.0.2.254:15002");
    has(&found, "bound-interface 1000:1000%eth0 192.0.2.254:15002 > 15001");
    has(
        &found,
        "excluded-inbound-interface behind@192.0.2.252%eth1 192.0.2.253:15002 (link)",
    );
    let named = |name: &str| found.iter().filter(|line| line.starts_with(name)).count();
    assert_eq!((named("excluded-interface"), named("bound-interface")), (1, 1));
    let mut config = Settings::default().config;
    change(&mut config);
    let trial = trial(&config, &Facts::default(), Families::Both, &pod(), port(15002));
    let v6 = trial
        .probes
        .iter()
        .filter(|probe| probe.bound_to.is_some() && probe.caller != Caller::Behind && probe.family() == Family::V6);
    let destinations: Vec<String> = v6.map(|probe| probe.destination.ip().to_string()).collect();
    assert_eq!(destinations, ["fd02::ffff:ffff:ffff:fffe", "fd00::ffff:ffff:ffff:fffe"]);
}

#[test]
fn connections_from_behind_rerouted_interfaces_are_outbound() {
    let eth = |name| InterfaceName::parse(name).unwrap();
    let found = list(|config, _| {
        config.general.reroute_interfaces = vec![eth("eth1"), eth("net7")];
        config.general.exclude_interfaces = vec![eth("eth1"), eth("eth0")];
    });
    has(
        &found,
        "rerouted-interface behind@192.0.2.252%eth1 198.51.100.254:15002 > 15001 (link)",
    );
    has(
        &found,
        "excluded-inbound-interface behind@192.0.2.251%eth0 192.0.2.253:15002 (link)",
    );
    // Only some destinations are captured, or none.
    let captured = |text: &str| {
        list(|config, _| {
            config.general.reroute_interfaces = vec![eth("eth1")];
            config.outbound.include_cidrs = cidrs(text);
        })
    };
    has(
        &captured("10.0.0.0/8,fd10::/64"),
        "rerouted-interface behind@192.0.2.252%eth1 10.255.255.255:15002 > 15001 (link)",
    );
    has_no(&captured(""), "rerouted-interface");
    // An interface without an address of the family has no traffic of it.
    let found = list(|config, surroundings| {
        config.general.reroute_interfaces = vec![eth("eth1")];
        surroundings
            .interfaces
            .iter_mut()
            .for_each(|(_, networks)| networks.clear());
    });
    has_no(&found, "rerouted-interface");
}

#[test]
fn interfaces_that_the_pod_does_not_have_are_named() {
    let mut config = Settings::default().config;
    let names = ["net7", "eth0", "lo"].map(|name| InterfaceName::parse(name).unwrap());
    config.general.exclude_interfaces = names.to_vec();
    let trial = trial(&config, &Facts::default(), Families::Both, &pod(), port(15002));
    assert!(
        trial.notes.len() == 1 && trial.notes[0].contains("net7"),
        "{:?}",
        trial.notes
    );
}

#[test]
fn half_closed_connections_and_invalid_packets_are_proved_if_options_ask_for_it() {
    let found = list(|config, _| {
        config.general.close_wait_timeout = Timeout::new(3600);
        config.general.drop_invalid = true;
    });
    has(
        &found,
        "half-closed-outbound 1000:1000 192.0.2.254:15002 > 15001 for 3600",
    );
    has(&found, "invalid-packet neighbour 192.0.2.253:15002 dropped (link)");
    // The kernel's own timeout would pass, too.
    for timeout in [None, Timeout::new(61)] {
        has_no(
            &list(|config, _| config.general.close_wait_timeout = timeout),
            "half-closed",
        );
    }
    has_no(&list(|_, _| {}), "invalid-packet");
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
    has(&found, "excluded-port-for-user 900:1000 192.0.2.254:15002 (link)");
    has(&found, "excluded-port-for-user 0:1000 10.96.0.10:53 (link)");
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
    // The interface by which they would leave may be an excluded one.
    let found = list(|config, _| {
        config.dns.redirect = true;
        config.general.exclude_interfaces = vec![InterfaceName::parse("eth0").unwrap()];
    });
    has(&found, "lookup 1000:1000 10.96.0.10:53 > 15053 (link)");
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
    has(&found, "inbound neighbour 198.51.100.253:15002 > 15006 (link)");
    has(
        &found,
        "excluded-inbound-address neighbour@192.0.2.254 198.51.100.253:15002 (link)",
    );
    has_no(&found, "self-call");
    let all = "0.0.0.0/0,::/0";
    let found = list(|config, _| config.inbound.exclude_cidrs = cidrs(all));
    has(&found, "excluded-inbound-address neighbour 192.0.2.253:15002 (link)");
    has(&found, "mesh-port neighbour 192.0.2.253:15020 (link)");
    for name in ["inbound", "half-closed-inbound"] {
        has_no(&found, name);
    }
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

#[test]
fn marked_proxy_is_exempt_and_its_owners_without_the_mark_are_not() {
    let marked = |config: &mut Config| config.proxy.mark = Mark::new(77);
    let found = list(|config, _| marked(config));
    has(&found, "exempt 1337:1000#77 192.0.2.254:15002 (link)");
    has(&found, "exempt 1000:1337#77 192.0.2.254:15002 (link)");
    has(&found, "impostor 1337:1337 192.0.2.254:15002 > 15001");
    has(&found, "self-call 1337:1337#77 10.1.0.5:15002 > 15006");
    let excluded = list(|config, _| {
        marked(config);
        config.outbound.exclude_uids = uids("1337");
    });
    has_no(&excluded, "impostor 1337");
    let alone = list(|config, _| {
        marked(config);
        (config.proxy.uids, config.proxy.gids) = (uids(""), gids(""));
    });
    has(&alone, "exempt 1000:1000#77 192.0.2.254:15002 (link)");
    has_no(&alone, "impostor");
    has_no(&list(|_, _| {}), "impostor");
}
