//! Rules of several programs, some of which are unknown.

use std::net::IpAddr;

use super::super::packet::{Origin, Packet, Pod};
use super::super::path::{End, PacketPath, Verdict};
use super::{simulate, simulate_later};
use crate::ruleset::netfilter::{Action, Base, Chain, Field, Lookup, Match, Netfilter, Rule, Statement, Table};
use crate::ruleset::{self, ChainType, Hook, Tracking};
use crate::types::{Gid, Id as _, InterfaceName, IpProtocol, Port, Uid};

fn port(number: u16) -> Port {
    Port::new(number).unwrap()
}

fn eth0() -> InterfaceName {
    InterfaceName::parse("eth0").unwrap()
}

fn pod() -> Pod {
    Pod {
        addresses: vec![(eth0(), "10.1.0.7".parse().unwrap())],
        local_marks: Vec::new(),
        route_localnet: Vec::new(),
    }
}

fn packet() -> Packet {
    let address = |text: &str| text.parse::<IpAddr>().unwrap();
    Packet {
        origin: Origin::Process {
            uid: Uid::new(1000).unwrap(),
            gid: Gid::new(1000).unwrap(),
            cgroup: None,
            interface: eth0(),
        },
        protocol: IpProtocol::TCP,
        source: address("10.1.0.7"),
        source_port: Some(port(40000)),
        destination: address("10.0.0.5"),
        destination_port: Some(port(443)),
        mark: 0,
        tracking: Tracking::New,
    }
}

fn rule(statements: impl IntoIterator<Item = Statement>) -> Rule {
    Rule {
        statements: statements.into_iter().collect(),
        comment: "".into(),
    }
}

fn unknown() -> Statement {
    Statement::Match(Match::Unreadable("limit".to_owned()))
}

fn to_port(number: u16) -> Statement {
    let span = (number.into(), number.into());
    Statement::Match(Match::Lookup(Lookup::one_of(Field::DestinationPort, [span])))
}

fn planned(action: ruleset::Action) -> Statement {
    Statement::Action(Action::Planned(action))
}

fn redirect(to: u16) -> Statement {
    planned(ruleset::Action::Redirect(port(to)))
}

fn table(name: &str, kind: ChainType, hook: Hook, priority: i32, drops: bool, rules: Vec<Rule>) -> Table {
    let base = Some(Base {
        kind,
        hook,
        priority,
        drops,
    });
    let name_of_chain = hook.name().into();
    Table {
        name: name.to_owned(),
        family: None,
        sets: Vec::new(),
        chains: vec![Chain {
            name: name_of_chain,
            base,
            rules,
        }],
    }
}

fn nat(name: &str, rules: Vec<Rule>) -> Table {
    table(name, ChainType::Nat, Hook::Output, -100, false, rules)
}

fn rules(tables: Vec<Table>) -> Netfilter {
    Netfilter {
        tables,
        unreadable: Vec::new(),
    }
}

fn follow(rules: &Netfilter) -> PacketPath<'_> {
    simulate(rules, &pod(), &packet()).unwrap()
}

#[test]
fn unknown_match_is_certain_only_if_both_possibilities_have_the_same_result() {
    let differing = rules(vec![nat(
        "a",
        vec![rule([unknown(), redirect(1)]), rule([redirect(2)])],
    )]);
    let path = follow(&differing);
    assert_eq!((path.certain, path.verdict), (false, Verdict::Redirect(port(2))));
    assert_eq!(path.doubts, ["rule 1 of chain output of table a"]);
    let same = rules(vec![nat(
        "a",
        vec![rule([unknown(), redirect(2)]), rule([redirect(2)])],
    )]);
    let path = follow(&same);
    assert_eq!((path.certain, path.doubts.as_slice()), (true, [].as_slice()));
}

#[test]
fn known_match_decides_although_an_earlier_one_is_unknown() {
    let other_port = rules(vec![nat("a", vec![rule([unknown(), to_port(80), redirect(1)])])]);
    assert!(follow(&other_port).certain);
    let this_port = rules(vec![nat("a", vec![rule([unknown(), to_port(443), redirect(1)])])]);
    assert!(!follow(&this_port).certain);
}

#[test]
fn order_of_chains_with_equal_priority_is_unknown() {
    let one = || nat("a", vec![rule([redirect(1)])]);
    let path_of = |other: Table| {
        let rules = rules(vec![one(), other]);
        let path = follow(&rules);
        (path.certain, path.verdict)
    };
    assert!(!path_of(nat("b", vec![rule([redirect(2)])])).0);
    assert!(path_of(nat("b", vec![rule([redirect(1)])])).0);
    assert!(path_of(nat("b", vec![rule([to_port(80), redirect(2)])])).0);
    let later = table("b", ChainType::Nat, Hook::Output, -99, false, vec![rule([redirect(2)])]);
    assert_eq!(path_of(later), (true, Verdict::Redirect(port(1))));
}

#[test]
fn unreadable_action_is_never_certain() {
    let unreadable = rule([Statement::Action(Action::Unreadable("x".to_owned()))]);
    let rules = rules(vec![nat("a", vec![unreadable, rule([redirect(1)])])]);
    let path = follow(&rules);
    assert!(!path.certain && !path.doubts.is_empty(), "{path:?}");
}

#[test]
fn policy_drops_a_redirected_connection_at_input() {
    let input = table(
        "filter",
        ChainType::Filter,
        Hook::Input,
        0,
        true,
        vec![rule([to_port(443), planned(ruleset::Action::Accept)])],
    );
    let rules = rules(vec![nat("a", vec![rule([redirect(15001)])]), input]);
    let path = follow(&rules);
    assert_eq!(
        (path.end, path.verdict, path.certain),
        (End::Dropped, Verdict::Drop, true)
    );
    assert_eq!(path.redirected_to, Some("127.0.0.1:15001".parse().unwrap()));
}

/// Translation comes before the filter for every packet of a connection, not only for the first one.
#[test]
fn filter_sees_translated_port_of_later_packets() {
    let filter = table(
        "filter",
        ChainType::Filter,
        Hook::Output,
        0,
        false,
        vec![rule([to_port(443), planned(ruleset::Action::Drop)])],
    );
    let rules = rules(vec![nat("a", vec![rule([redirect(15001)])]), filter]);
    assert!(matches!(follow(&rules).end, End::Delivered(_)));
    let later = simulate_later(&rules, &pod(), &packet(), 0).unwrap();
    assert!(matches!(later.end, End::Delivered(_)), "{later:?}");
}

#[test]
fn destination_translated_to_another_host_leaves_the_pod() {
    use crate::ruleset::netfilter::Choice;
    let to = "192.0.2.9".parse().unwrap();
    let dnat = Statement::Action(Action::Dnat(Choice::One(to), Choice::One(port(8080))));
    let rules = rules(vec![nat("a", vec![rule([dnat])])]);
    let path = follow(&rules);
    assert_eq!(path.verdict, Verdict::Dnat("192.0.2.9:8080".parse().unwrap()));
    assert!(matches!(path.end, End::Sent { .. }));
}
