//! The rules of a table for one IP family.

use sidetrack::ruleset::{ChainType, Layout, Match, Ruleset, TableFamily};
use sidetrack::types::Family;

use crate::cases;
use crate::plans::plan;

#[test]
fn a_table_of_one_family_has_nothing_of_the_other() {
    for (name, options) in cases::all_options() {
        let both = plan(options).ruleset;
        for family in Family::BOTH {
            let one = both.of_family(family);
            let rules = one.chains.iter().flat_map(|chain| &chain.rules);
            for matched in rules.flat_map(|rule| &rule.matches) {
                assert!(!matches!(matched, Match::Family(_)), "{name}: {matched:?}");
                assert!(
                    matched.family().is_none_or(|only| only == family),
                    "{name}: {matched:?}"
                );
                assert!(
                    matched.set().is_none_or(|set| one.set(set).is_some()),
                    "{name}: {matched:?}"
                );
            }
            for target in one
                .chains
                .iter()
                .flat_map(|chain| &chain.rules)
                .filter_map(|rule| rule.action.target())
            {
                assert!(one.chain(target).is_some(), "{name}: {target}");
            }
        }
    }
}

#[test]
fn there_is_a_table_for_each_redirected_family() {
    let families = |ruleset: &Ruleset| -> Vec<TableFamily> {
        let tables = ruleset.tables(Layout::PerFamily);
        tables.into_iter().map(|(family, _)| family).collect()
    };
    let [_, v4, v6] = TableFamily::ALL;
    assert_eq!(families(&plan(&["--ip-family", "dual"]).ruleset), [v4, v6]);
    assert_eq!(families(&plan(&["--ip-family", "ipv4"]).ruleset), [v4]);
    assert_eq!(families(&plan(&["--ip-family", "ipv6"]).ruleset), [v6]);
}

#[test]
fn a_policy_has_tables_for_both_families() {
    let locked = plan(&["--ip-family", "ipv4", "--outbound-policy", "proxy-only"]).ruleset;
    let tables = locked.tables(Layout::PerFamily);
    let hooks = |ruleset: &Ruleset| -> Vec<ChainType> {
        let hooks = ruleset.chains.iter().filter_map(|chain| chain.hook);
        hooks.map(|hook| hook.kind).collect()
    };
    let [(_, v4), (family, v6)] = &tables[..] else {
        panic!("{tables:?}");
    };
    assert!(hooks(v4).contains(&ChainType::Nat));
    assert_eq!(*family, TableFamily::Only(Family::V6));
    assert!(!hooks(v6).is_empty());
    assert!(hooks(v6).iter().all(|kind| *kind == ChainType::Filter));
    assert!(v6.timeouts.is_none());
}
