//! Whether rules that were read are those that were planned.

use sidetrack::backend::iptables::{Spec, TableName, Tables, lower, patch};
use sidetrack::ruleset::{BaseHook, Installed, Ruleset};
use sidetrack::types::{Families, Family};

/// The ruleset with chains and sets in the order of their names.
fn sorted(ruleset: &Ruleset) -> Ruleset {
    let mut ruleset = ruleset.clone();
    ruleset.chains.sort_by(|one, other| one.name.cmp(&other.name));
    ruleset.sets.sort_by(|one, other| one.name.cmp(&other.name));
    ruleset
}

#[track_caller]
pub fn assert_reads_back_as(installed: &Installed, planned: &Ruleset) {
    assert_eq!(installed.unreadable, []);
    assert_eq!(sorted(&installed.ruleset), sorted(planned));
}

/// Iptables has no sets and a program for each family, so the same rules are those that are written the same.
#[track_caller]
pub fn assert_raised_from(installed: &Installed, planned: &Ruleset, family: Family) {
    assert_eq!(installed.unreadable, []);
    assert_eq!(installed.ruleset.families, Families::Only(family));
    let written = reached(lower(&installed.ruleset).expect("not too many rules").of(family));
    let lowered = reached(lower(planned).expect("not too many rules").of(family));
    assert_eq!(patch(&written, &lowered), None, "{:#?}", installed.ruleset);
    for chain in &installed.ruleset.chains {
        let hook = match planned.chain(&chain.name) {
            Some(planned) => planned.hook,
            None => {
                assert!(
                    chain.name.starts_with("list_"),
                    "{} is the name of no planned chain",
                    chain.name
                );
                None
            }
        };
        let place = |base: BaseHook| (base.kind, base.hook);
        assert_eq!(chain.hook.map(place), hook.map(place));
    }
}

/// Without chains that only rules of the other family lead to.
fn reached(mut tables: Tables) -> Tables {
    for name in TableName::ALL {
        if tables.get(name).is_none() {
            continue;
        }
        let table = tables.entry(name);
        let rules = table.chains.iter().flat_map(|chain| &chain.rules);
        let rules = rules.chain(table.jumps.iter().map(|jump| &jump.spec));
        let targets: Vec<String> = rules.filter_map(Spec::target_chain).map(str::to_owned).collect();
        table.chains.retain(|chain| targets.contains(&chain.name));
    }
    tables
}
