//! What a ruleset looks like in the language of iptables.

use std::net::{IpAddr, Ipv4Addr};

use super::*;
use crate::facts::Facts;
use crate::options::{Config, Settings};
use crate::plan::Plan;
use crate::ruleset::TABLE;
use crate::types::{
    DnsServers, Family, InboundMode, InterfaceName, IpFamily, NoAccounts, Policy, parse_cidrs, parse_ids, parse_ports,
    parse_ports_for_uids,
};

fn plan(change: impl FnOnce(&mut Config)) -> Plan {
    let mut config = Settings::default().config;
    change(&mut config);
    Plan::new(&config, &Facts::default()).unwrap()
}

/// The lines of the script that have `word` in them.
fn lines_with(word: &str, change: impl FnOnce(&mut Config)) -> Vec<String> {
    let text = script(&plan(change)).unwrap();
    text.lines()
        .filter(|line| line.contains(word))
        .map(str::to_owned)
        .collect()
}

#[test]
fn the_default_plan() {
    let expected = r#"# sidetrack: TCP of this pod goes through its sidecar proxy.
# Load it once, in the network namespace of the pod, with both programs:
#   iptables-restore --noflush < FILE && ip6tables-restore --noflush < FILE
# Rules marked -4 or -6 are of that family alone; the other program skips them.
# Part of the plan too, by hand: ip address add ::6/128 dev lo metric 15006 nodad
*nat
:SIDETRACK_PREROUTING - [0:0]
:SIDETRACK_INBOUND - [0:0]
:SIDETRACK_OUTPUT - [0:0]
:SIDETRACK_OUTBOUND - [0:0]
:SIDETRACK_SELF_CALLS - [0:0]
:SIDETRACK_OPTIONS - [0:0]
-I PREROUTING 1 -j SIDETRACK_PREROUTING
-I OUTPUT 1 -j SIDETRACK_OUTPUT
-A SIDETRACK_PREROUTING -p tcp -m comment --comment "inbound TCP" -j SIDETRACK_INBOUND
-A SIDETRACK_INBOUND -p tcp -m multiport --dports 15008,15020:15021,15090 -m comment --comment "the mesh's own ports" -j RETURN
-A SIDETRACK_INBOUND -p tcp -m comment --comment "inbound, to the proxy" -j REDIRECT --to-ports 15006
-A SIDETRACK_OUTPUT -p tcp -m comment --comment "locally generated TCP" -j SIDETRACK_OUTBOUND
-4 -A SIDETRACK_OUTBOUND -s 127.0.0.6/32 -o lo -m comment --comment "from the proxy to the application" -j RETURN
-6 -A SIDETRACK_OUTBOUND -s ::6/128 -o lo -m comment --comment "from the proxy to the application" -j RETURN
-A SIDETRACK_OUTBOUND -o lo -m owner --uid-owner 1337 -m comment --comment "from the proxy to the pod's own address" -j SIDETRACK_SELF_CALLS
-A SIDETRACK_OUTBOUND -o lo -m owner --gid-owner 1337 -m comment --comment "from the proxy to the pod's own address" -j SIDETRACK_SELF_CALLS
-A SIDETRACK_OUTBOUND -m owner --uid-owner 1337 -m comment --comment "the proxy's own traffic" -j RETURN
-A SIDETRACK_OUTBOUND -m owner --gid-owner 1337 -m comment --comment "the proxy's own traffic" -j RETURN
-4 -A SIDETRACK_OUTBOUND -d 127.0.0.1/32 -m comment --comment loopback -j RETURN
-6 -A SIDETRACK_OUTBOUND -d ::1/128 -m comment --comment loopback -j RETURN
-A SIDETRACK_OUTBOUND -o lo -m comment --comment "traffic within the pod" -j RETURN
-A SIDETRACK_OUTBOUND -p tcp -m comment --comment "outbound, to the proxy" -j REDIRECT --to-ports 15001
-4 -A SIDETRACK_SELF_CALLS -d 127.0.0.1/32 -m comment --comment loopback -j RETURN
-6 -A SIDETRACK_SELF_CALLS -d ::1/128 -m comment --comment loopback -j RETURN
-A SIDETRACK_SELF_CALLS -p tcp -m comment --comment "the pod's own address, handled as inbound" -j SIDETRACK_INBOUND
-A SIDETRACK_OPTIONS -m comment --comment "sidetrack 1 cbf29ce484222325:" -j RETURN
COMMIT
"#;
    assert_eq!(script(&plan(|_| {})).unwrap(), expected);
}

#[test]
fn a_multiport_match_holds_fifteen_ports_and_a_range_counts_twice() {
    let lines = lines_with("excluded inbound ports", |config| {
        config.inbound.exclude_ports = parse_ports("1,3,5,7,9,11,13,15,17,19,21,23,25,27-28,30,32-33").unwrap();
    });
    let ports: Vec<&str> = lines.iter().map(|line| line.split(' ').nth(7).unwrap()).collect();
    assert_eq!(ports, ["1,3,5,7,9,11,13,15,17,19,21,23,25,27:28", "30,32:33"]);
}

#[test]
fn one_port_needs_no_list() {
    let lines = lines_with("excluded outbound ports", |config| {
        config.outbound.exclude_ports = parse_ports("22").unwrap();
    });
    let expected =
        "-A SIDETRACK_OUTBOUND -p tcp -m tcp --dport 22 -m comment --comment \"excluded outbound ports\" -j RETURN";
    assert_eq!(lines, [expected]);
}

#[test]
fn every_element_of_a_set_of_owners_or_addresses_is_a_rule() {
    let uids = lines_with("excluded users", |config| {
        config.outbound.exclude_uids = parse_ids("0,1000-2000", &NoAccounts).unwrap();
    });
    assert!(uids[0].contains("-m owner --uid-owner 0 ") && uids[1].contains("-m owner --uid-owner 1000-2000 "));
    let addresses = lines_with("excluded outbound destinations", |config| {
        config.outbound.exclude_cidrs = parse_cidrs("10.0.0.0/8,192.0.2.1,2001:db8::/32,::ffff:1.2.3.4").unwrap();
    });
    let starts: Vec<&str> = addresses.iter().map(|line| line.split(" -m").next().unwrap()).collect();
    let expected = [
        "-4 -A SIDETRACK_OUTBOUND -d 1.2.3.4/32",
        "-4 -A SIDETRACK_OUTBOUND -d 10.0.0.0/8",
        "-4 -A SIDETRACK_OUTBOUND -d 192.0.2.1/32",
        "-6 -A SIDETRACK_OUTBOUND -d 2001:db8::/32",
    ];
    assert_eq!(starts, expected);
}

/// Lookups of some groups alone, to some servers: seen to fill 4 GB with 4,000 of each, as all combinations.
#[test]
fn a_rule_with_two_lists_has_a_chain_for_the_longer_one() {
    let groups: Vec<String> = (1..).step_by(2).take(4000).map(|gid: u32| gid.to_string()).collect();
    let servers = |count: u32| {
        (1..)
            .step_by(2)
            .take(count as usize)
            .map(|bits| IpAddr::from(Ipv4Addr::from_bits(bits)))
    };
    let tables = |count| {
        let plan = plan(|config| {
            config.dns.redirect = true;
            config.dns.servers = DnsServers::These(servers(count).collect());
            config.outbound.include_gids = parse_ids(&groups.join(","), &NoAccounts).unwrap();
        });
        lower(&plan.ruleset).unwrap()
    };
    let few = tables(2);
    let raw = few.get(TableName::Raw).unwrap();
    let lines = |chain: &str| -> Vec<String> {
        let rules = raw.chain(chain).unwrap().rules.iter();
        rules.map(|spec| spec.without_comment().to_string()).collect()
    };
    let jumps = lines("SIDETRACK_RAW_OUTPUT");
    let last = &jumps[jumps.len() - 2..];
    assert_eq!(
        last,
        [
            "-d 0.0.0.1/32 -p udp -m udp --dport 53 -j SIDETRACK_LIST_1",
            "-d 0.0.0.3/32 -p udp -m udp --dport 53 -j SIDETRACK_LIST_1"
        ]
    );
    let list = lines("SIDETRACK_LIST_1");
    assert_eq!((list.len(), &*list[0]), (4000, "-m owner --gid-owner 1 -j CT --zone 2"));
    let rules = |tables: &Tables| -> usize {
        let tables = TableName::ALL.into_iter().filter_map(|name| tables.get(name));
        tables
            .flat_map(|table| &table.chains)
            .map(|chain| chain.rules.len())
            .sum()
    };
    let more = 4 * (4000 - 2); // Each server twice in table raw, TCP and UDP in nat.
    assert!(rules(&tables(4000)) <= rules(&few) + more, "{}", rules(&tables(4000)));
}

#[test]
fn lists_that_become_too_many_rules_are_refused() {
    let ports: Vec<String> = (1..=65535).step_by(2).map(|port| port.to_string()).collect();
    let uids: Vec<String> = (1..200_000).step_by(2).map(|uid| uid.to_string()).collect();
    let plan = plan(|config| {
        let entry = format!("{}:{}", ports.join(","), uids.join(","));
        config.outbound.exclude_ports_for_uids = parse_ports_for_uids(&entry, &NoAccounts).unwrap();
    });
    let error = lower(&plan.ruleset).unwrap_err().to_string();
    assert!(
        error.contains("more than 65536 rules") && error.contains("nftables"),
        "{error}"
    );
}

/// `RETURN` in a chain of its own would not leave the chain that leads there.
#[test]
fn a_rule_with_two_lists_that_returns_becomes_every_combination() {
    let ports: Vec<String> = (1..=31).step_by(2).map(|port| port.to_string()).collect();
    let entries = format!("tcp:{}:1,3,5-6", ports.join(","));
    let lines = lines_with("ports excluded for these users", |config| {
        config.outbound.exclude_ports_for_uids = parse_ports_for_uids(&entries, &NoAccounts).unwrap();
    });
    assert_eq!(lines.len(), 3 * 2);
    let first = "-A SIDETRACK_OUTBOUND -p tcp -m owner --uid-owner 1 -m multiport --dports 1,3,5,7,";
    assert!(lines[0].starts_with(first), "{}", lines[0]);
    let last = "-A SIDETRACK_OUTBOUND -p tcp -m owner --uid-owner 5-6 -m multiport --dports 31 ";
    assert!(lines[5].starts_with(last), "{}", lines[5]);
}

#[test]
fn a_network_of_all_addresses_is_no_condition() {
    let lines = lines_with("excluded inbound sources", |config| {
        config.inbound.exclude_cidrs = parse_cidrs("0.0.0.0/0").unwrap();
    });
    let expected = "-4 -A SIDETRACK_INBOUND -m comment --comment \"excluded inbound sources\" -j RETURN";
    assert_eq!(lines, [expected]);
}

#[test]
fn every_rule_of_a_single_family_is_marked() {
    for (family, mark) in [(IpFamily::Ipv4, "-4 "), (IpFamily::Ipv6, "-6 ")] {
        let text = script(&plan(|config| config.general.ip_family = family)).unwrap();
        let unmarked = text
            .lines()
            .find(|line| line.starts_with('-') && !line.starts_with(mark));
        assert_eq!(unmarked, None);
        assert!(text.contains(&format!("{mark}-I OUTPUT 1 -j SIDETRACK_OUTPUT")));
        assert!(
            !text.contains("is not redirected"),
            "the rule for the other family has gone with it"
        );
    }
}

#[test]
fn each_family_gets_its_own_rules_without_marks() {
    let tables = lower(&plan(|_| {}).ruleset).unwrap();
    for (family, own, other) in [
        (Family::V4, "127.0.0.1/32", "::1/128"),
        (Family::V6, "::1/128", "127.0.0.1/32"),
    ] {
        let text = patch(&Tables::default(), &tables.of(family)).unwrap();
        assert!(text.contains(own) && !text.contains(other) && !text.contains("\n-4") && !text.contains("\n-6"));
    }
}

#[test]
fn names_begin_with_our_prefix_and_fit() {
    assert_eq!(PREFIX, format!("{}_", TABLE.to_uppercase()));
    let plan = plan(|config| {
        config.outbound.exclude_ports_for_uids = parse_ports_for_uids("22:1;23:2", &NoAccounts).unwrap();
    });
    let tables = lower(&plan.ruleset).unwrap();
    for chain in &tables.get(TableName::Nat).unwrap().chains {
        assert!(
            chain.name.starts_with(PREFIX) && chain.name.len() <= 28,
            "{}",
            chain.name
        );
    }
}

#[test]
fn without_comment_keeps_the_rest() {
    let tables = lower(&plan(|_| {}).ruleset).unwrap().without_comments();
    let text = patch(&Tables::default(), &tables).unwrap();
    assert!(!text.contains("comment") && !text.contains("SIDETRACK_OPTIONS"));
    assert!(text.contains("-A SIDETRACK_OUTBOUND -o lo -m owner --uid-owner 1337 -j SIDETRACK_SELF_CALLS\n"));
}

#[test]
fn patch_between_equal_states_is_empty() {
    let tables = lower(&plan(|_| {}).ruleset).unwrap();
    assert_eq!(patch(&tables, &tables.clone()), None);
    assert_eq!(patch(&Tables::default(), &Tables::default()), None);
}

#[test]
fn patch_contains_only_differences() {
    let before = lower(&plan(|_| {}).ruleset).unwrap().of(Family::V4);
    let after = lower(
        &plan(|config| {
            config.inbound.include_ports = parse_ports("").unwrap();
        })
        .ruleset,
    )
    .unwrap();
    let text = patch(&before, &after.of(Family::V4)).unwrap();
    let expected = "\
*nat
:SIDETRACK_OUTBOUND - [0:0]
:SIDETRACK_OPTIONS - [0:0]
:SIDETRACK_PREROUTING - [0:0]
:SIDETRACK_INBOUND - [0:0]
:SIDETRACK_SELF_CALLS - [0:0]
-D PREROUTING -j SIDETRACK_PREROUTING
-A SIDETRACK_OUTBOUND ";
    assert!(text.starts_with(expected), "{text}");
    let end = "-X SIDETRACK_PREROUTING\n-X SIDETRACK_INBOUND\n-X SIDETRACK_SELF_CALLS\nCOMMIT\n";
    assert!(text.ends_with(end), "{text}");
    assert!(!text.contains("OUTPUT"), "{text}");
}

#[test]
fn words_are_quoted_where_the_program_would_split_them() {
    let words = ["-m", "comment", "--comment", r#"a "b" \c"#, ""].map(str::to_owned);
    let spec = Spec::new(None, words.to_vec());
    assert_eq!(spec.to_string(), r#"-m comment --comment "a \"b\" \\c" """#);
}

/// The tables that a change commits, in order.
fn commits(from: &Tables, to: &Tables) -> Vec<String> {
    let text = patch(from, to).unwrap();
    let names = text.lines().filter_map(|line| line.strip_prefix('*'));
    names.map(str::to_owned).collect()
}

/// Between two commits one of the tables has to capture inbound connections.
#[test]
fn the_table_that_gives_up_capturing_inbound_connections_comes_last() {
    let tables = |mode| {
        let plan = plan(|config| {
            config.inbound.mode = mode;
            config.general.drop_invalid = true;
        });
        lower(&plan.ruleset).unwrap().of(Family::V4)
    };
    let (redirect, tproxy) = (tables(InboundMode::Redirect), tables(InboundMode::Tproxy));
    assert_eq!(commits(&redirect, &tproxy), ["mangle", "nat"]);
    assert_eq!(commits(&tproxy, &redirect), ["nat", "mangle"]);
}

/// Between two commits, what is not redirected must be rejected.
#[test]
fn the_rules_of_a_policy_come_first_and_go_last() {
    let tables = |policy, excluded: &str, rerouted: &[&str]| {
        let plan = plan(|config| {
            config.outbound.policy = policy;
            config.outbound.exclude_ports = parse_ports(excluded).unwrap();
            let names = rerouted.iter().map(|name| InterfaceName::parse(name).unwrap());
            config.general.reroute_interfaces = names.collect();
        });
        lower(&plan.ruleset).unwrap().of(Family::V6)
    };
    let nothing = Tables::default();
    let open = tables(Policy::Allow, "", &[]);
    let locked = tables(Policy::ProxyOnly, "", &[]);
    let with_hole = tables(Policy::ProxyOnly, "22", &[]);
    let forwarding = tables(Policy::ProxyOnly, "", &["tap0"]);
    assert_eq!(commits(&nothing, &locked), ["filter", "mangle", "nat"]);
    assert_eq!(commits(&nothing, &forwarding), ["filter", "raw", "mangle", "nat"]);
    assert_eq!(commits(&open, &locked), ["filter", "mangle", "nat"]);
    assert_eq!(commits(&locked, &with_hole), ["filter", "mangle", "nat"]);
    assert_eq!(commits(&locked, &open), ["nat", "mangle", "filter"]);
    assert_eq!(commits(&locked, &nothing), ["nat", "mangle", "filter"]);
    assert_eq!(commits(&forwarding, &locked), ["filter", "nat", "raw"]);
    assert_eq!(commits(&forwarding, &nothing), ["nat", "raw", "mangle", "filter"]);
}
