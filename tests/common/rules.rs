//! Whether rules that were read are those that were planned.

use sidetrack::backend::iptables::{lower, patch};
use sidetrack::ruleset::{Installed, Ruleset};
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
    let written = lower(&installed.ruleset).of(family);
    assert_eq!(
        patch(&written, &lower(planned).of(family)),
        None,
        "{:#?}",
        installed.ruleset
    );
    for chain in &installed.ruleset.chains {
        let planned = planned.chain(&chain.name).expect("the name of a planned chain");
        assert_eq!(
            chain.hook.map(|base| (base.kind, base.hook)),
            planned.hook.map(|base| (base.kind, base.hook))
        );
    }
}
