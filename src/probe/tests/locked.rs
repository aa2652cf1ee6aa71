use super::*;
use crate::types::Policy;

fn of_lock(change: impl FnOnce(&mut Config, &mut Surroundings)) -> Vec<String> {
    let mut found = list(|config, surroundings| {
        config.outbound.policy = Policy::ProxyOnly;
        change(config, surroundings);
    });
    found.retain(|line| line.starts_with("locked-") || line.starts_with("allowed-"));
    found
}

#[test]
fn lock_is_probed_for_each_protocol() {
    let expected = [
        "locked-udp 1000:1000 192.0.2.254:15002 rejected",
        "locked-quic 1000:1000 192.0.2.254:443 rejected",
        "locked-dns 1000:1000 192.0.2.254:53 rejected",
        "locked-icmp 1000:1000 192.0.2.254:0 rejected",
        "locked-udp 1000:1000%eth0 192.0.2.254:15002 rejected",
        "locked-icmp 1000:1000%eth0 192.0.2.254:0 rejected",
        "locked-tcp 1000:1000%eth0 192.0.2.254:15002 dropped",
        "locked-udp 1000:1000%eth1 192.0.2.254:15002 rejected",
        "locked-icmp 1000:1000%eth1 192.0.2.254:0 rejected",
        "locked-tcp 1000:1000%eth1 192.0.2.254:15002 dropped",
    ];
    assert_eq!(of_lock(|_, _| {}), expected);
    assert_eq!(list(|_, _| {}).len(), 11, "nothing is locked by default");
}

#[test]
fn lock_is_probed_by_neither_proxy_nor_excluded_owners() {
    let found = of_lock(|config, _| {
        config.proxy.uids = uids("1000");
        config.outbound.exclude_uids = uids("0-999");
        config.outbound.exclude_gids = gids("1000");
        config.outbound.exclude_ports_for_uids = parse_ports_for_uids("udp:15002:1001", &NoAccounts).unwrap();
        config.outbound.exclude_cidrs = cidrs("192.0.2.0/24,2001:db8::/32");
    });
    has(&found, "locked-udp 1002:0 198.51.100.254:15002 rejected");
    has(&found, "locked-quic 1001:0 198.51.100.254:443 rejected");
    let none = of_lock(|config, _| config.outbound.exclude_uids = Uids::everything());
    assert_eq!(none, Vec::<String>::new());
    let none = of_lock(|config, _| config.outbound.exclude_cidrs = cidrs("*"));
    assert_eq!(none, Vec::<String>::new());
}

#[test]
fn locked_tcp_is_that_of_no_captured_address_port_or_group() {
    let by_address = of_lock(|config, _| config.outbound.include_cidrs = cidrs("10.0.0.0/8,fd00::/8"));
    has(&by_address, "locked-tcp 1000:1000 192.0.2.254:15002 rejected (link)");
    let unlocked = list(|config, _| config.outbound.include_cidrs = cidrs("10.0.0.0/8,fd00::/8"));
    has(
        &unlocked,
        "not-included-outbound-address 1000:1000 192.0.2.254:15002 (link)",
    );
    let by_port = of_lock(|config, _| {
        config.outbound.include_cidrs = cidrs("");
        config.outbound.include_ports = ports("15002");
    });
    has(&by_port, "locked-tcp 1000:1000 192.0.2.254:1 rejected (link)");
    let by_group = of_lock(|config, _| config.outbound.include_gids = gids("1000"));
    has(&by_group, "locked-tcp 1000:0 192.0.2.254:15002 rejected (link)");
}

/// Queries may be captured or allowed there.
#[test]
fn locked_tcp_is_not_that_of_name_servers() {
    let found = of_lock(|config, surroundings| {
        config.dns.redirect = true;
        config.dns.servers = DnsServers::All;
        config.outbound.include_cidrs = cidrs("10.0.0.0/8,fd00::/8");
        config.outbound.exclude_ports = ports("1-52,15002");
        config.general.reroute_interfaces = vec![eth("eth1")];
        surroundings.forwarding = Family::BOTH.map(|family| (eth("eth1"), family)).to_vec();
    });
    has(&found, "locked-tcp 1000:1000 192.0.2.254:15003 rejected (link)");
    has(
        &found,
        "locked-tcp behind@10.2.255.251%eth1 192.0.2.242:15003 rejected (link)",
    );
}

#[test]
fn captured_queries_are_not_locked() {
    let captured = of_lock(|config, _| {
        config.dns.redirect = true;
        config.dns.servers = DnsServers::All;
    });
    has_no(&captured, "locked-dns");
    let to_others = of_lock(|config, _| config.dns.redirect = true);
    has(&to_others, "locked-dns 1000:1000 192.0.2.254:53 rejected");
    has_no(&to_others, "allowed-dns");
    let allowed = of_lock(|config, _| config.outbound.allow_dns = true);
    has(&allowed, "allowed-dns 1000:1000 10.96.0.10:53 (link)");
    has(&allowed, "locked-dns 1000:1000 192.0.2.254:53 rejected");
}

#[test]
fn marked_proxys_user_is_locked_without_the_mark() {
    let found = of_lock(|config, _| config.proxy.mark = Mark::new(7));
    has(&found, "locked-udp 1337:1337 192.0.2.254:15002 rejected");
}

#[test]
fn inbound_lock_is_probed_by_a_host_that_is_not_excluded() {
    let found = list(|config, _| {
        config.inbound.policy = Policy::ProxyOnly;
        config.inbound.include_ports = ports("8080");
        config.inbound.exclude_cidrs = cidrs("192.0.2.0/24,2001:db8::/32");
    });
    let of_lock = |line: &&String| line.starts_with("locked-");
    let found: Vec<&String> = found.iter().filter(of_lock).collect();
    let expected = [
        "locked-inbound-tcp neighbour 198.51.100.253:15002 rejected (link)",
        "locked-inbound-udp neighbour 198.51.100.253:15002 rejected (link)",
        "locked-inbound-icmp neighbour 198.51.100.253:0 rejected (link)",
    ];
    assert_eq!(found, expected);
}

#[test]
fn family_that_is_not_redirected_has_locked_probes_alone() {
    let mut config = Settings::default().config;
    config.outbound.policy = Policy::ProxyOnly;
    let subjects = |facts: &Facts| {
        let trial = trial(&config, facts, Families::Only(Family::V4), &pod(), port(15002));
        let v6 = trial.probes.into_iter().filter(|probe| probe.family() == Family::V6);
        v6.map(|probe| probe.subject.name()).collect::<Vec<_>>()
    };
    let all = ["locked-tcp", "locked-udp", "locked-quic", "locked-dns", "locked-icmp"];
    let by_interfaces = ["locked-udp", "locked-icmp", "locked-tcp"].repeat(pod().interfaces.len());
    let all = [&all[..], &by_interfaces].concat();
    assert_eq!(subjects(&Facts::default()), all);
    let off = |used_elsewhere| Facts {
        ipv6: Ipv6::OffOnLoopback { used_elsewhere },
        ..Facts::default()
    };
    assert_eq!(subjects(&off(true)), all);
    assert_eq!(subjects(&off(false)), [""; 0]);
}

#[test]
fn lock_is_probed_by_each_interface_that_is_not_excluded() {
    let found = of_lock(|config, _| config.general.exclude_interfaces = vec![eth("eth0")]);
    has(&found, "locked-udp 1000:1000%eth1 192.0.2.254:15002 rejected");
    assert!(!found.iter().any(|line| line.contains("%eth0")), "{found:#?}");
}

fn eth(name: &str) -> InterfaceName {
    InterfaceName::parse(name).unwrap()
}

/// What comes from elsewhere than from behind the interface is dropped, and so proves nothing.
#[test]
fn forwarded_packets_are_probed_from_behind_the_interface() {
    let rerouted = |config: &mut Config, surroundings: &mut Surroundings| {
        config.outbound.policy = Policy::ProxyOnly;
        config.general.reroute_interfaces = vec![eth("eth1")];
        config.outbound.include_cidrs = cidrs("10.0.0.0/8,fd00::/8");
        surroundings.addresses.push("10.2.255.253".parse().unwrap());
        surroundings
            .addresses
            .push("fd02::ffff:ffff:ffff:fffd".parse().unwrap());
        surroundings.forwarding = Family::BOTH.map(|family| (eth("eth1"), family)).to_vec();
    };
    let mut found = list(rerouted);
    found.retain(|line| line.contains("behind"));
    let expected = [
        "rerouted-interface behind@10.2.255.254%eth1 10.255.255.255:15002 > 15001 (link)",
        "locked-udp behind@10.2.255.252%eth1 192.0.2.244:15002 rejected (link)",
        "locked-icmp behind@10.2.255.251%eth1 192.0.2.243:0 rejected (link)",
        "locked-tcp behind@10.2.255.250%eth1 192.0.2.242:15002 rejected (link)",
    ];
    assert_eq!(found, expected);
    let unforwarded = list(|config, surroundings| {
        rerouted(config, surroundings);
        surroundings.forwarding.clear();
    });
    assert!(
        !unforwarded
            .iter()
            .any(|line| line.starts_with("locked-") && line.contains("behind"))
    );
}

#[test]
fn forwarded_packets_are_probed_to_behind_the_interface() {
    let rerouted = |config: &mut Config, surroundings: &mut Surroundings| {
        config.inbound.policy = Policy::ProxyOnly;
        config.inbound.include_ports = ports("15002");
        config.general.reroute_interfaces = vec![eth("eth1")];
        surroundings.forwarding_links = Family::BOTH.to_vec();
    };
    let mut found = list(rerouted);
    found.retain(|line| line.contains("%eth1") && line.starts_with("locked-"));
    let expected = [
        "locked-inbound-tcp neighbour@192.0.2.220%eth1 10.2.255.250:1 rejected (link)",
        "locked-inbound-udp neighbour@192.0.2.219%eth1 10.2.255.249:15002 rejected (link)",
        "locked-inbound-icmp neighbour@192.0.2.218%eth1 10.2.255.248:0 rejected (link)",
    ];
    assert_eq!(found, expected);
    for prevent in [
        |_: &mut Config, surroundings: &mut Surroundings| surroundings.forwarding_links.clear(),
        |config: &mut Config, _: &mut Surroundings| config.inbound.exclude_cidrs = cidrs("*"),
    ] {
        let found = list(|config, surroundings| {
            rerouted(config, surroundings);
            prevent(config, surroundings);
        });
        assert!(!found.iter().any(|line| line.contains("%eth1 10.2.255.")), "{found:#?}");
    }
}

/// Connections of other sockets bound to these interfaces do not get to the proxy.
#[test]
fn bound_tcp_is_probed_unless_it_is_captured_or_the_proxy_is_a_cgroup() {
    let bound = |change: fn(&mut Config)| {
        let mut found = of_lock(|config, _| change(config));
        found.retain(|line| line.starts_with("locked-tcp") && line.contains('%'));
        found
    };
    let by_other = bound(|config| config.general.bound_interfaces = vec![eth("eth0")]);
    assert_eq!(by_other, ["locked-tcp 1000:1000%eth1 192.0.2.254:15002 dropped"]);
    let uncaptured = bound(|config| {
        config.general.bound_interfaces = vec![eth("eth0"), eth("eth1")];
        config.outbound.include_cidrs = cidrs("");
        config.outbound.include_ports = ports("15002");
    });
    let expected = ["eth0", "eth1"].map(|name| format!("locked-tcp 1000:1000%{name} 192.0.2.254:1 dropped"));
    assert_eq!(uncaptured, expected);
    let of_cgroup = bound(|config| {
        config.processes.cgroup = Some(crate::types::CgroupPath::parse("system.slice/envoy.service").unwrap());
    });
    assert_eq!(of_cgroup, [""; 0]);
}
