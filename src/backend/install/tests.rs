//! The order of steps and their rollback, with a fake namespace.

use super::*;
use crate::backend::fake::{Fake, Operation};
use crate::facts::Facts;
use crate::options::Settings;
use crate::plan::{PASSTHROUGH_V6, PolicyRouting};
use crate::types::{Families, Family, IpFamily, Mark, RouteTable};

const ADDRESS: Prerequisite = Prerequisite::Address(PASSTHROUGH_V6);
const APPLY_RULES: Operation = Operation::ApplyRules(RuleBackend::Nftables);

fn plan(options: impl FnOnce(&mut Settings)) -> Plan {
    let mut settings = Settings::default();
    options(&mut settings);
    Plan::new(&settings.config, &Facts::default()).unwrap()
}

fn default_plan() -> Plan {
    plan(|_| ())
}

fn only_ipv4() -> Plan {
    plan(|settings| settings.config.general.ip_family = IpFamily::Ipv4)
}

/// A plan for IPv4 that routes this mark by this table.
fn tproxy(mark: u32, table: u32) -> Plan {
    Plan {
        policy_routing: Some(PolicyRouting {
            mark: Mark::new(mark).unwrap(),
            table: RouteTable::new(table).unwrap(),
            families: Families::Only(Family::V4),
        }),
        ..only_ipv4()
    }
}

fn rule(mark: u32, table: u32) -> Prerequisite {
    Prerequisite::Rule {
        family: Family::V4,
        mark: Mark::new(mark).unwrap(),
        table: RouteTable::new(table).unwrap(),
    }
}

fn route(table: u32) -> Prerequisite {
    Prerequisite::Route {
        family: Family::V4,
        table: RouteTable::new(table).unwrap(),
    }
}

fn apply_to(fake: &mut Fake, plan: &Plan, backend: Backend) -> Result<Chosen<Applied>, KernelError> {
    let observed = fake.observed();
    apply(fake, plan, backend, &observed)
}

#[test]
fn addresses_come_before_rules() {
    let mut fake = Fake::default();
    let applied = apply_to(&mut fake, &default_plan(), Backend::Auto).unwrap();
    assert_eq!(applied.backend, RuleBackend::Nftables);
    assert_eq!(fake.done, [Operation::Add(ADDRESS), APPLY_RULES]);
}

#[test]
fn failed_apply_restores_the_state() {
    let mut fake = Fake::default();
    fake.fail_at(APPLY_RULES);
    let before = fake.state();
    apply_to(&mut fake, &default_plan(), Backend::Auto).unwrap_err();
    assert_eq!(fake.state(), before);
}

#[test]
fn failed_apply_keeps_a_foreign_address() {
    let mut fake = Fake::default();
    fake.foreign.push(ADDRESS);
    fake.fail_at(APPLY_RULES);
    apply_to(&mut fake, &default_plan(), Backend::Auto).unwrap_err();
    assert_eq!(fake.foreign, [ADDRESS]);
}

#[test]
fn failed_rollback_is_part_of_the_error() {
    let mut fake = Fake::default();
    fake.fail_at(APPLY_RULES);
    fake.fail_at(Operation::Remove(ADDRESS));
    let error = apply_to(&mut fake, &default_plan(), Backend::Auto).unwrap_err();
    assert!(matches!(error, KernelError::NotUndone { .. }), "{error}");
}

#[test]
fn rollback_removes_additions_with_lost_acknowledgement() {
    let mut fake = Fake::default();
    fake.lose_acknowledgement_of(Operation::Add(route(133)));
    let before = fake.state();
    apply_to(&mut fake, &tproxy(1337, 133), Backend::Auto).unwrap_err();
    assert_eq!(fake.state(), before);
    assert!(fake.done.contains(&Operation::Remove(route(133))));
}

#[test]
fn rollback_keeps_foreign_state_after_lost_acknowledgement() {
    let mut fake = Fake::default();
    fake.foreign.push(route(133));
    let before = fake.state();
    fake.lose_acknowledgement_of(Operation::Add(rule(1337, 133)));
    apply_to(&mut fake, &tproxy(1337, 133), Backend::Auto).unwrap_err();
    assert_eq!(fake.state(), before);
}

#[test]
fn rules_that_may_be_in_force_keep_what_they_need() {
    let mut fake = Fake::default();
    fake.lose_acknowledgement_of(APPLY_RULES);
    let error = apply_to(&mut fake, &tproxy(1337, 133), Backend::Auto).unwrap_err();
    assert!(error.may_have_changed_rules(), "{error}");
    let (_, ours, rules) = fake.state();
    assert_eq!(ours, [rule(1337, 133), route(133)]);
    assert_eq!(rules.len(), 1);
    apply_to(&mut fake, &only_ipv4(), Backend::Auto).unwrap();
    assert_eq!(fake.state().1, [], "the next run finds and removes it");
}

#[test]
fn stale_state_that_cannot_be_removed_is_reported() {
    let mut fake = Fake::default();
    apply_to(&mut fake, &tproxy(1337, 133), Backend::IptablesNft).unwrap();
    fake.fail_at(Operation::RemoveRules(RuleBackend::IptablesNft));
    fake.fail_at(Operation::Remove(route(133)));
    let error = apply_to(&mut fake, &only_ipv4(), Backend::Nftables).unwrap_err();
    assert!(
        matches!(&error, KernelError::LeftOver(errors) if errors.len() == 2),
        "{error}"
    );
    assert!(error.to_string().contains("the new rules are in force"), "{error}");
    assert!(fake.done.contains(&APPLY_RULES));
    let (_, ours, _) = fake.state();
    assert_eq!(
        ours,
        [rule(1337, 133), route(133)],
        "by the rule the next run finds the route"
    );
}

#[test]
fn auto_falls_back_to_legacy_only_where_nf_tables_cannot() {
    let mut fake = Fake::default();
    fake.nftables_supported = false;
    fake.per_family_supported = false;
    let applied = apply_to(&mut fake, &default_plan(), Backend::Auto).unwrap();
    assert_eq!(applied.backend, RuleBackend::IptablesLegacy);
    assert!(applied.fallback.unwrap().contains("nft_chain_nat"));

    let error = apply_to(&mut fake, &default_plan(), Backend::Nftables).unwrap_err();
    assert!(matches!(
        error,
        KernelError::Nftables(NftablesError::Unsupported { .. })
    ));

    let mut fake = Fake::default();
    fake.fail_at(APPLY_RULES);
    apply_to(&mut fake, &default_plan(), Backend::Auto).unwrap_err();
    assert!(!fake.done.contains(&Operation::ApplyRules(RuleBackend::IptablesLegacy)));
}

#[test]
fn a_table_for_each_family_comes_before_legacy_iptables() {
    for wanted in [Backend::Auto, Backend::Nftables] {
        let mut fake = Fake::default();
        fake.nftables_supported = false;
        let applied = apply_to(&mut fake, &default_plan(), wanted).unwrap();
        assert_eq!(applied.backend, RuleBackend::NftablesPerFamily);
        assert!(applied.fallback.unwrap().contains("nft_chain_nat"));
        assert_eq!(
            fake.done.last(),
            Some(&Operation::ApplyRules(RuleBackend::NftablesPerFamily))
        );
    }
}

#[test]
fn another_backend_takes_over_before_the_old_rules_go() {
    let mut fake = Fake::default();
    apply_to(&mut fake, &default_plan(), Backend::IptablesNft).unwrap();
    fake.done.clear();
    apply_to(&mut fake, &default_plan(), Backend::Nftables).unwrap();
    assert_eq!(
        fake.done,
        [APPLY_RULES, Operation::RemoveRules(RuleBackend::IptablesNft)]
    );
}

#[test]
fn unneeded_address_is_removed_after_the_rules() {
    let mut fake = Fake::default();
    apply_to(&mut fake, &default_plan(), Backend::Auto).unwrap();
    fake.done.clear();
    apply_to(&mut fake, &only_ipv4(), Backend::Auto).unwrap();
    assert_eq!(fake.done, [APPLY_RULES, Operation::Remove(ADDRESS)]);
}

#[test]
fn cleanup_removes_only_own_state_on_every_backend() {
    let mut fake = Fake::default();
    let untouched = fake.state();
    for backend in [
        Backend::IptablesLegacy,
        Backend::IptablesNft,
        Backend::NftablesPerFamily,
        Backend::Nftables,
    ] {
        let observed = Fake::default().observed(); // As if the others had not been seen.
        apply(&mut fake, &default_plan(), backend, &observed).unwrap();
    }
    let observed = fake.observed();
    let removed = cleanup(&mut fake, &observed).unwrap();
    assert_eq!(removed.rules, RuleBackend::ALL);
    assert_eq!(removed.addresses, [PASSTHROUGH_V6]);
    assert_eq!(fake.state(), untouched);
    let observed = fake.observed();
    assert_eq!(cleanup(&mut fake, &observed).unwrap(), Removed::default());
}

#[test]
fn cleanup_goes_on_after_a_failure_and_reports_it() {
    let mut fake = Fake::default();
    apply_to(&mut fake, &tproxy(1337, 133), Backend::Nftables).unwrap();
    fake.fail_at(Operation::Remove(route(133)));
    let observed = fake.observed();
    cleanup(&mut fake, &observed).unwrap_err();
    assert!(fake.done.contains(&Operation::Remove(rule(1337, 133))));
}

#[test]
fn rules_that_cleanup_cannot_remove_keep_what_they_need() {
    let mut fake = Fake::default();
    let nothing_seen = fake.observed();
    apply_to(&mut fake, &default_plan(), Backend::IptablesNft).unwrap();
    apply(&mut fake, &default_plan(), Backend::Nftables, &nothing_seen).unwrap();
    fake.fail_at(Operation::RemoveRules(RuleBackend::Nftables));
    let observed = fake.observed();
    cleanup(&mut fake, &observed).unwrap_err();
    let (_, ours, rules) = fake.state();
    assert_eq!(ours, [ADDRESS]);
    assert_eq!(rules.len(), 1, "those of the other backend went");
}

#[test]
fn routing_comes_before_rules_and_a_rule_before_its_route() {
    let mut fake = Fake::default();
    apply_to(&mut fake, &tproxy(1337, 133), Backend::Auto).unwrap();
    let expected = [Operation::Add(rule(1337, 133)), Operation::Add(route(133)), APPLY_RULES];
    assert_eq!(fake.done, expected);
}

#[test]
fn every_family_has_its_rule_and_its_route() {
    let mut plan = tproxy(1337, 133);
    plan.loopback_addresses.push(PASSTHROUGH_V6);
    plan.policy_routing.as_mut().unwrap().families = Families::Both;
    let wanted: Vec<String> = Prerequisite::of(&plan).iter().map(ToString::to_string).collect();
    let expected = [
        "the IPv4 rule `fwmark 1337 lookup 133`",
        "the IPv4 route `local default dev lo table 133`",
        "the IPv6 rule `fwmark 1337 lookup 133`",
        "the IPv6 route `local default dev lo table 133`",
        "the address ::6 on the loopback interface",
    ];
    assert_eq!(wanted, expected);
}

#[test]
fn any_failure_restores_routing() {
    for failing in [Operation::Add(route(133)), APPLY_RULES] {
        let mut fake = Fake::default();
        fake.fail_at(failing.clone());
        let before = fake.state();
        apply_to(&mut fake, &tproxy(1337, 133), Backend::Auto).unwrap_err();
        assert_eq!(fake.state(), before, "{failing:?}");
    }
}

#[test]
fn rollback_removes_only_what_was_added() {
    let mut fake = Fake::default();
    fake.foreign.push(route(133));
    fake.fail_at(APPLY_RULES);
    apply_to(&mut fake, &tproxy(1337, 133), Backend::Auto).unwrap_err();
    assert_eq!(
        fake.done,
        [Operation::Add(rule(1337, 133)), Operation::Remove(rule(1337, 133))]
    );
}

#[test]
fn applying_again_changes_nothing() {
    let mut fake = Fake::default();
    apply_to(&mut fake, &tproxy(1337, 133), Backend::Auto).unwrap();
    let before = fake.state();
    let applied = apply_to(&mut fake, &tproxy(1337, 133), Backend::Auto).unwrap();
    assert_eq!((applied.done.change, applied.done.added), (Change::Unchanged, vec![]));
    assert_eq!(fake.state(), before);
}

#[test]
fn lost_route_is_restored_and_reported() {
    let mut fake = Fake::default();
    apply_to(&mut fake, &tproxy(1337, 133), Backend::Auto).unwrap();
    let before = fake.state();
    fake.remove(&route(133)).unwrap();
    let applied = apply_to(&mut fake, &tproxy(1337, 133), Backend::Auto).unwrap();
    assert_eq!(
        (applied.done.change, applied.done.added),
        (Change::Unchanged, vec![route(133)])
    );
    assert_eq!(fake.state(), before);
}

#[test]
fn stale_routing_is_removed_after_the_new_rules() {
    let mut fake = Fake::default();
    apply_to(&mut fake, &tproxy(1337, 133), Backend::Auto).unwrap();
    fake.done.clear();
    apply_to(&mut fake, &tproxy(7, 133), Backend::Auto).unwrap();
    let expected = [
        Operation::Add(rule(7, 133)),
        APPLY_RULES,
        Operation::Remove(rule(1337, 133)),
    ];
    assert_eq!(fake.done, expected, "the route is still wanted");
    fake.done.clear();
    apply_to(&mut fake, &only_ipv4(), Backend::Auto).unwrap();
    let expected = [
        APPLY_RULES,
        Operation::Remove(route(133)),
        Operation::Remove(rule(7, 133)),
    ];
    assert_eq!(fake.done, expected);
}

#[test]
fn cleanup_removes_routing_after_the_rules_also_a_route_without_its_rule() {
    let mut fake = Fake::default();
    fake.foreign.extend([rule(9, 9), route(9)]);
    let untouched = fake.state();
    apply_to(&mut fake, &tproxy(1337, 133), Backend::Auto).unwrap();
    fake.add(&route(7)).unwrap();
    fake.remove(&rule(1337, 133)).unwrap();
    let observed = fake.observed();
    assert_eq!(
        observed.policy_routing.len(),
        2,
        "the observation has the routes if there are rules"
    );
    let removed = cleanup(&mut fake, &observed).unwrap();
    assert_eq!(removed.policy_routing, [route(7), route(133)]);
    assert_eq!(fake.state(), untouched);
}

#[test]
fn uncountable_open_connections_do_not_count_as_none() {
    let mut fake = Fake::default();
    fake.open = None;
    let applied = apply_to(&mut fake, &default_plan(), Backend::Nftables).unwrap();
    assert_eq!(fake.loose, "0");
    let survivors = applied.done.survivors;
    assert_eq!((survivors.open, survivors.disturbed), (None, None));
}

#[test]
fn failed_apply_restores_tcp_loose() {
    let mut fake = Fake::default();
    fake.open = Some(3);
    fake.fail_at(APPLY_RULES);
    apply_to(&mut fake, &default_plan(), Backend::Nftables).unwrap_err();
    assert_eq!(fake.loose, "1");
}

#[test]
fn rules_that_may_be_in_force_keep_the_setting_for_open_connections() {
    let mut fake = Fake::default();
    fake.open = Some(3);
    fake.lose_acknowledgement_of(APPLY_RULES);
    apply_to(&mut fake, &default_plan(), Backend::Nftables).unwrap_err();
    assert_eq!(fake.loose, "0");
}
