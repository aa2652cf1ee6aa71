//! The input of the kernel and of iptables-restore is read back as the planned rules.

use sidetrack::backend::iptables::{self, lower};
use sidetrack::backend::nftables;
use sidetrack::backend::nftables::listing::Listing;
use sidetrack::facts::Facts;
use sidetrack::plan::Plan;
use sidetrack::ruleset::{Layout, Ruleset};

use crate::cases;
use crate::plans::{plan, settings};
use crate::random;
use crate::rules::{assert_raised_from, assert_reads_back_as};

fn check(options: &[&str]) {
    check_plan(&plan(options).ruleset);
}

fn check_plan(planned: &Ruleset) {
    let decode = |listing| {
        let mut decoded = nftables::decode(&listing);
        let rules = decoded.ruleset.chains.iter_mut().flat_map(|chain| &mut chain.rules);
        for matched in rules.flat_map(|rule| &mut rule.matches) {
            matched.name_cgroup(&|cgroup| planned.cgroup_path(cgroup));
        }
        decoded
    };
    let listing = Listing::of_steps(&nftables::create(planned));
    assert_reads_back_as(&decode(listing), planned);
    for (family, ruleset) in planned.tables(Layout::PerFamily) {
        let listing = Listing::of_steps(&nftables::create_in(family, &ruleset));
        assert_reads_back_as(&decode(listing), &ruleset);
    }
    for family in planned.families.iter() {
        let tables = lower(planned).expect("not too many rules").of(family);
        let raised = iptables::raise(&tables, family);
        assert_raised_from(&raised, planned, family);
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

/// nftables has a cgroup by its ID, and iptables by its path, with the ID in the comment.
#[test]
fn cgroup_of_the_proxy_is_read_back() {
    let facts = Facts {
        proxy_cgroup: Some(1234),
        ..Facts::default()
    };
    for more in [
        &[][..],
        &["--outbound-policy", "proxy-only", "--proxy-uid", "", "--proxy-gid", ""],
    ] {
        let options = [&["--proxy-cgroup", "system.slice/envoy.service"], more].concat();
        let plan = Plan::new(&settings(&options).config, &facts).expect("a plan");
        check_plan(&plan.ruleset);
    }
}

#[test]
fn any_options_are_read_back() {
    random::each(500, check);
}
