//! The input of the kernel and of iptables-restore is read back as the planned rules.

use sidetrack::backend::iptables::{self, lower};
use sidetrack::backend::nftables;
use sidetrack::backend::nftables::listing::Listing;
use sidetrack::ruleset::Layout;

use crate::cases;
use crate::plans::plan;
use crate::random;
use crate::rules::{assert_raised_from, assert_reads_back_as};

fn check(options: &[&str]) {
    let planned = plan(options).ruleset;
    let listing = Listing::of_steps(&nftables::create(&planned));
    assert_reads_back_as(&nftables::decode(&listing), &planned);
    for (family, ruleset) in planned.tables(Layout::PerFamily) {
        let listing = Listing::of_steps(&nftables::create_in(family, &ruleset));
        assert_reads_back_as(&nftables::decode(&listing), &ruleset);
    }
    for family in planned.families.iter() {
        let tables = lower(&planned).expect("not too many rules").of(family);
        let raised = iptables::raise(&tables, family);
        assert_raised_from(&raised, &planned, family);
        // Where nothing is redirected, there is no chain for it.
        let is_empty = planned.chains.is_empty();
        assert_eq!(raised.ruleset.record, planned.record.clone().filter(|_| !is_empty));
    }
}

#[test]
fn each_case_is_read_back() {
    for (_, options) in cases::all_options() {
        check(options);
    }
}

#[test]
fn any_options_are_read_back() {
    random::each(500, check);
}
