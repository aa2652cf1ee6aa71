//! Installed rules are read back as planned, and foreign additions are listed.

use sidetrack::backend::{Namespace, RuleBackend};
use sidetrack::ruleset::{Action, Elements, Installed, Match, Place};
use sidetrack::types::{Family, parse_ports};

use crate::cases;
use crate::common::{Netns, output_of};
use crate::plans::plan;
use crate::program::apply;
use crate::rules::{assert_raised_from, assert_reads_back_as};

fn installed(netns: &Netns, backend: RuleBackend, family: Family) -> Installed {
    netns
        .run(|| Namespace::default().rules(backend)?.installed(family))
        .expect("rules that can be read")
}

pub fn what_is_installed_is_read_back<'c>(backend: RuleBackend, cases: impl Iterator<Item = (&'c str, &'c [&'c str])>) {
    for (_, options) in cases {
        let netns = Netns::new();
        let planned = plan(options).ruleset;
        apply(&netns, &backend.to_string(), options);
        for family in planned.families.iter() {
            let installed = installed(&netns, backend, family);
            match backend {
                RuleBackend::Nftables => assert_reads_back_as(&installed, &planned),
                RuleBackend::NftablesPerFamily => assert_reads_back_as(&installed, &planned.of_family(family)),
                RuleBackend::IptablesNft | RuleBackend::IptablesLegacy => {
                    assert_raised_from(&installed, &planned, family);
                }
            }
        }
    }
}

#[test]
fn nftables_rules_are_read_back() {
    what_is_installed_is_read_back(RuleBackend::Nftables, cases::all_options());
}

#[test]
fn nftables_rules_in_a_table_for_each_family_are_read_back() {
    what_is_installed_is_read_back(RuleBackend::NftablesPerFamily, cases::all_options());
}

/// Fewer cases: other tests cover apply itself.
#[test]
fn iptables_rules_are_read_back() {
    for backend in [RuleBackend::IptablesNft, RuleBackend::IptablesLegacy] {
        what_is_installed_is_read_back(backend, cases::all_options().step_by(6));
    }
}

#[test]
fn reading_an_empty_namespace_finds_no_rules() {
    let netns = Netns::new();
    for (backend, family) in RuleBackend::ALL
        .into_iter()
        .flat_map(|backend| Family::BOTH.map(|family| (backend, family)))
    {
        let installed = installed(&netns, backend, family);
        assert!(
            installed.ruleset.chains.is_empty() && installed.unreadable.is_empty(),
            "{installed:?}"
        );
    }
}

#[test]
fn rules_added_by_nft_are_read_or_listed_as_unreadable() {
    let netns = Netns::new();
    apply(&netns, "nftables", &[]);
    let nft = |script: &str| drop(output_of(netns.command("nft").arg(script)));
    nft("insert rule inet sidetrack output meta skuid 7 return comment \"a guest\"");
    nft("insert rule inet sidetrack output counter comment \"counts\"");
    nft("add rule inet sidetrack inbound tcp dport { 1, 5-9 } drop");
    nft("add chain inet sidetrack forward { type filter hook forward priority 0; }");
    nft("add set inet sidetrack macs { type ether_addr; }");
    nft("add table inet sidetrack { flags dormant; }");
    let Installed { ruleset, unreadable } = installed(&netns, RuleBackend::Nftables, Family::V4);

    let output = ruleset.chain("output").expect("the chain");
    let guest = &output.rules[0];
    assert_eq!((&guest.comment[..], &guest.action), ("a guest", &Action::Return));
    assert!(matches!(guest.matches.as_slice(), [Match::Uid(_)]), "{guest:?}");
    assert!(ruleset.chain("forward").expect("the chain").hook.is_none());

    let places: Vec<&Place> = unreadable.iter().map(|unreadable| &unreadable.place).collect();
    let counter = Place::Rule {
        chain: "output".into(),
        position: 0,
    };
    for place in [
        Place::Table,
        Place::Set("macs".into()),
        Place::Hook("forward".into()),
        counter,
    ] {
        assert!(places.contains(&&place), "{place:?} is not in {unreadable:#?}");
    }
    let said: Vec<String> = unreadable.iter().map(ToString::to_string).collect();
    assert!(
        said.contains(&"rule 1 of chain output: counter (\"counts\")".to_owned()),
        "{said:#?}"
    );
    // The elements of an anonymous set are listed with the set, not with the rule.
    let inbound = ruleset
        .chain("inbound")
        .expect("the chain")
        .rules
        .last()
        .expect("a rule");
    let set = inbound.matches[0]
        .set()
        .and_then(|name| ruleset.set(name))
        .expect("the set");
    assert_eq!(set.elements, Elements::Ports(parse_ports("1,5-9").expect("ports")));
}

#[test]
fn rules_added_by_iptables_are_read_or_listed_as_unreadable() {
    for backend in [RuleBackend::IptablesNft, RuleBackend::IptablesLegacy] {
        let netns = Netns::new();
        apply(&netns, &backend.to_string(), &[]);
        let program = match backend {
            RuleBackend::IptablesLegacy => "iptables-legacy",
            _ => "iptables-nft",
        };
        let iptables = |rule: &str| drop(output_of(netns.command(program).args(rule.split(' '))));
        iptables("-t nat -I SIDETRACK_OUTPUT -m owner --uid-owner 7 -j RETURN");
        iptables("-t nat -I SIDETRACK_OUTPUT -m limit --limit 1/sec -m comment --comment limited -j RETURN");
        iptables("-t nat -I PREROUTING 1 -p tcp -j SIDETRACK_INBOUND");
        let Installed { ruleset, unreadable } = installed(&netns, backend, Family::V4);
        let rule = &ruleset.chain("output").expect("the chain").rules[0];
        assert_eq!((&rule.comment[..], &rule.action), ("", &Action::Return));
        let said: Vec<String> = unreadable.iter().map(ToString::to_string).collect();
        let expected = [
            "rule 1 of chain PREROUTING: -p tcp -j SIDETRACK_INBOUND",
            "rule 1 of chain output: -m limit --limit 1/sec -j RETURN (\"limited\")",
        ];
        assert_eq!(said, expected);
    }
}
