//! In which order a plan is put in place and taken away, and what is undone where something fails.

use std::net::Ipv6Addr;

use super::iptables::IptablesError;
use super::nftables::NftablesError;
use super::{Change, Kernel, KernelError, Observed, RuleBackend};
use crate::config::types::Backend;
use crate::plan::Plan;
use crate::ruleset::Ruleset;

/// What applying a plan did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// Where the rules are.
    pub backend: RuleBackend,
    /// What was done about them.
    pub change: Change,
    /// Why the backend is not the one that is taken first.
    pub fallback: Option<String>,
}

/// What cleaning up removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// Where there were rules of ours.
    pub rules: Vec<RuleBackend>,
    /// The addresses that we had put on the loopback interface.
    pub addresses: Vec<Ipv6Addr>,
}

/// Puts a plan in place: first what redirected packets will need, then the rules, at one instant; last, what earlier
/// plans have left and this one does not want. On failure everything is as it was.
///
/// # Errors
/// The system cannot or may not.
pub fn apply(
    kernel: &mut dyn Kernel,
    plan: &Plan,
    backend: Backend,
    observed: &Observed,
) -> Result<Applied, KernelError> {
    let mut added = Vec::new();
    let result =
        add_addresses(kernel, plan, &mut added).and_then(|()| apply_rules(kernel, &plan.ruleset, backend, observed));
    let applied = match result {
        Ok(applied) => applied,
        Err(cause) => return Err(undo(kernel, &added, cause)),
    };
    for other in RuleBackend::ALL {
        if other != applied.backend && observed.holds_rules(other) {
            kernel.remove_rules(other)?;
        }
    }
    for address in &observed.loopback.our_addresses {
        if !plan.loopback_addresses.contains(address) {
            kernel.remove_address(*address)?;
        }
    }
    Ok(applied)
}

/// Takes away all that is ours, on every backend: the rules first, then what they needed.
///
/// # Errors
/// Everything that could not be removed; the rest was.
pub fn cleanup(kernel: &mut dyn Kernel, observed: &Observed) -> Result<Removed, KernelError> {
    let (mut removed, mut errors) = (Removed::default(), Vec::new());
    for backend in RuleBackend::ALL {
        let seen = observed.holds_rules(backend);
        let possible = match backend {
            // Asking costs nothing, and the kernel knows who may not.
            RuleBackend::Nftables => true,
            RuleBackend::IptablesNft => seen,
            RuleBackend::IptablesLegacy => seen || observed.legacy.is_none(),
        };
        if !possible {
            continue;
        }
        match kernel.remove_rules(backend) {
            Ok(true) => removed.rules.push(backend),
            Ok(false) | Err(KernelError::Nftables(NftablesError::Unsupported { .. })) => {}
            Err(KernelError::Iptables(IptablesError::NotFound { .. })) if !seen => {}
            Err(error) => errors.push(error),
        }
    }
    for address in &observed.loopback.our_addresses {
        match kernel.remove_address(*address) {
            Ok(true) => removed.addresses.push(*address),
            Ok(false) => {}
            Err(error) => errors.push(error),
        }
    }
    match errors.len() {
        0 => Ok(removed),
        1 => Err(errors.swap_remove(0)),
        _ => Err(KernelError::Several(errors)),
    }
}

fn add_addresses(kernel: &mut dyn Kernel, plan: &Plan, added: &mut Vec<Ipv6Addr>) -> Result<(), KernelError> {
    for address in &plan.loopback_addresses {
        if kernel.add_address(*address)? {
            added.push(*address);
        }
    }
    Ok(())
}

fn apply_rules(
    kernel: &mut dyn Kernel,
    ruleset: &Ruleset,
    backend: Backend,
    observed: &Observed,
) -> Result<Applied, KernelError> {
    let wanted = match backend {
        Backend::Auto | Backend::Nftables => RuleBackend::Nftables,
        Backend::IptablesNft => RuleBackend::IptablesNft,
        Backend::IptablesLegacy => RuleBackend::IptablesLegacy,
    };
    let mut apply = |backend| kernel.apply_rules(backend, ruleset, observed.holds_rules(backend));
    let unsupported = match apply(wanted) {
        Ok(change) => {
            return Ok(Applied {
                backend: wanted,
                change,
                fallback: None,
            });
        }
        Err(KernelError::Nftables(error @ NftablesError::Unsupported { .. })) if backend == Backend::Auto => error,
        Err(error) => return Err(error),
    };
    match apply(RuleBackend::IptablesLegacy) {
        Ok(change) => Ok(Applied {
            backend: RuleBackend::IptablesLegacy,
            change,
            fallback: Some(unsupported.to_string()),
        }),
        Err(legacy) => Err(KernelError::NoBackend {
            nftables: unsupported,
            legacy: Box::new(legacy),
        }),
    }
}

fn undo(kernel: &mut dyn Kernel, added: &[Ipv6Addr], cause: KernelError) -> KernelError {
    for address in added {
        if let Err(undo) = kernel.remove_address(*address) {
            return KernelError::NotUndone {
                cause: Box::new(cause),
                undo: Box::new(undo),
            };
        }
    }
    cause
}

#[cfg(test)]
mod tests {
    use super::super::fake::{Fake, Operation};
    use super::*;
    use crate::config::Settings;
    use crate::facts::Facts;

    fn plan(options: impl FnOnce(&mut Settings)) -> Plan {
        let mut settings = Settings::default();
        options(&mut settings);
        Plan::new(&settings.config, &Facts::default()).unwrap()
    }

    fn default_plan() -> Plan {
        plan(|_| ())
    }

    fn only_ipv4() -> Plan {
        plan(|settings| settings.config.ip_family = crate::config::types::IpFamily::Ipv4)
    }

    fn apply_to(fake: &mut Fake, plan: &Plan, backend: Backend) -> Result<Applied, KernelError> {
        let observed = fake.observed();
        apply(fake, plan, backend, &observed)
    }

    #[test]
    fn addresses_come_before_rules() {
        let mut fake = Fake::default();
        let applied = apply_to(&mut fake, &default_plan(), Backend::Auto).unwrap();
        assert_eq!(applied.backend, RuleBackend::Nftables);
        assert_eq!(
            fake.done,
            [
                Operation::AddAddress(crate::plan::PASSTHROUGH_V6),
                Operation::ApplyRules(RuleBackend::Nftables)
            ]
        );
    }

    #[test]
    fn a_failed_apply_leaves_everything_as_it_was() {
        let mut fake = Fake::default();
        fake.fail_at(Operation::ApplyRules(RuleBackend::Nftables));
        let before = fake.state();
        apply_to(&mut fake, &default_plan(), Backend::Auto).unwrap_err();
        assert_eq!(fake.state(), before);
    }

    #[test]
    fn an_address_that_was_there_before_is_not_taken_away_by_a_failure() {
        let mut fake = Fake::default();
        fake.foreign_addresses.push(crate::plan::PASSTHROUGH_V6);
        fake.fail_at(Operation::ApplyRules(RuleBackend::Nftables));
        apply_to(&mut fake, &default_plan(), Backend::Auto).unwrap_err();
        assert_eq!(fake.foreign_addresses, [crate::plan::PASSTHROUGH_V6]);
    }

    #[test]
    fn a_failure_to_undo_is_part_of_the_error() {
        let mut fake = Fake::default();
        fake.fail_at(Operation::ApplyRules(RuleBackend::Nftables));
        fake.fail_at(Operation::RemoveAddress(crate::plan::PASSTHROUGH_V6));
        let error = apply_to(&mut fake, &default_plan(), Backend::Auto).unwrap_err();
        assert!(matches!(error, KernelError::NotUndone { .. }), "{error}");
    }

    #[test]
    fn auto_falls_back_to_legacy_only_where_nf_tables_cannot() {
        let mut fake = Fake::default();
        fake.nftables_supported = false;
        let applied = apply_to(&mut fake, &default_plan(), Backend::Auto).unwrap();
        assert_eq!(applied.backend, RuleBackend::IptablesLegacy);
        assert!(applied.fallback.unwrap().contains("nft_chain_nat"));

        let error = apply_to(&mut fake, &default_plan(), Backend::Nftables).unwrap_err();
        assert!(matches!(
            error,
            KernelError::Nftables(NftablesError::Unsupported { .. })
        ));

        let mut fake = Fake::default();
        fake.fail_at(Operation::ApplyRules(RuleBackend::Nftables));
        apply_to(&mut fake, &default_plan(), Backend::Auto).unwrap_err();
        assert!(!fake.done.contains(&Operation::ApplyRules(RuleBackend::IptablesLegacy)));
    }

    #[test]
    fn another_backend_takes_over_before_the_old_rules_go() {
        let mut fake = Fake::default();
        apply_to(&mut fake, &default_plan(), Backend::IptablesNft).unwrap();
        fake.done.clear();
        apply_to(&mut fake, &default_plan(), Backend::Nftables).unwrap();
        assert_eq!(
            fake.done,
            [
                Operation::ApplyRules(RuleBackend::Nftables),
                Operation::RemoveRules(RuleBackend::IptablesNft)
            ]
        );
    }

    #[test]
    fn an_address_that_the_new_plan_does_not_want_goes_after_the_rules() {
        let mut fake = Fake::default();
        apply_to(&mut fake, &default_plan(), Backend::Auto).unwrap();
        fake.done.clear();
        apply_to(&mut fake, &only_ipv4(), Backend::Auto).unwrap();
        assert_eq!(
            fake.done,
            [
                Operation::ApplyRules(RuleBackend::Nftables),
                Operation::RemoveAddress(crate::plan::PASSTHROUGH_V6)
            ]
        );
    }

    #[test]
    fn cleanup_removes_what_is_ours_on_every_backend_and_nothing_else() {
        let mut fake = Fake::default();
        let untouched = fake.state();
        for backend in [Backend::IptablesLegacy, Backend::IptablesNft, Backend::Nftables] {
            let observed = Fake::default().observed(); // As if the others had not been seen.
            apply(&mut fake, &default_plan(), backend, &observed).unwrap();
        }
        let observed = fake.observed();
        let removed = cleanup(&mut fake, &observed).unwrap();
        assert_eq!(removed.rules, RuleBackend::ALL);
        assert_eq!(removed.addresses, [crate::plan::PASSTHROUGH_V6]);
        assert_eq!(fake.state(), untouched);
        let observed = fake.observed();
        assert_eq!(cleanup(&mut fake, &observed).unwrap(), Removed::default());
    }

    #[test]
    fn cleanup_goes_on_after_a_failure_and_reports_it() {
        let mut fake = Fake::default();
        apply_to(&mut fake, &default_plan(), Backend::Nftables).unwrap();
        fake.fail_at(Operation::RemoveRules(RuleBackend::Nftables));
        let observed = fake.observed();
        cleanup(&mut fake, &observed).unwrap_err();
        assert!(
            fake.done
                .contains(&Operation::RemoveAddress(crate::plan::PASSTHROUGH_V6))
        );
    }
}
