//! Which backend writes the rules: the one place where that is chosen.

use std::fmt;

use caps::{CapSet, Capability};

use super::iptables::{Iptables, Variant};
use super::nftables::{Nftables, NftablesError};
use super::{KernelError, Observed};
use crate::types::Backend;

/// Where rules can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RuleBackend {
    /// Our own table of nf_tables.
    Nftables,
    /// The tables that iptables-nft shares with others.
    IptablesNft,
    /// The tables of legacy iptables.
    IptablesLegacy,
}

impl RuleBackend {
    /// Each of them.
    pub const ALL: [Self; 3] = [Self::Nftables, Self::IptablesNft, Self::IptablesLegacy];
}

impl fmt::Display for RuleBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nftables => "nftables",
            Self::IptablesNft => "iptables-nft",
            Self::IptablesLegacy => "iptables-legacy",
        })
    }
}

/// The backends that an option allows, the preferred one first.
pub fn candidates(wanted: Backend) -> &'static [RuleBackend] {
    match wanted {
        Backend::Auto => &[RuleBackend::Nftables, RuleBackend::IptablesLegacy],
        Backend::Nftables => &[RuleBackend::Nftables],
        Backend::IptablesNft => &[RuleBackend::IptablesNft],
        Backend::IptablesLegacy => &[RuleBackend::IptablesLegacy],
    }
}

/// The backend whose rules count, of those that hold some: the first, where an option does not name one. The others are
/// logged.
pub fn holding(wanted: Backend, observed: &Observed) -> Option<RuleBackend> {
    let holding: Vec<RuleBackend> = RuleBackend::ALL
        .into_iter()
        .filter(|backend| observed.holds_rules(*backend))
        .collect();
    let is_wanted = |backend: &RuleBackend| wanted == Backend::Auto || candidates(wanted).contains(backend);
    let followed = holding.iter().copied().find(is_wanted);
    for left_out in holding.iter().filter(|backend| Some(**backend) != followed) {
        tracing::warn!(backend = %left_out, "there are rules of ours here too, and they are not followed; see --backend");
    }
    followed
}

/// What was done with the backend that was chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chosen<T> {
    /// The backend.
    pub backend: RuleBackend,
    /// What was done.
    pub done: T,
    /// Why it is not the preferred one.
    pub fallback: Option<String>,
}

/// Attempts something with the preferred backend; with the next one only where the kernel lacks what the first needs.
/// `kernel_error` takes the kernel's own error out of one of the attempt's, where it is one.
///
/// # Errors
/// What the attempt failed with; where both failed, both.
pub fn choose<T, E: From<KernelError>>(
    wanted: Backend,
    kernel_error: fn(E) -> Result<KernelError, E>,
    mut attempt: impl FnMut(RuleBackend) -> Result<T, E>,
) -> Result<Chosen<T>, E> {
    let mut unsupported: Option<NftablesError> = None;
    for &backend in candidates(wanted) {
        let error = match attempt(backend) {
            Ok(done) => {
                let fallback = unsupported.map(|error| error.to_string());
                return Ok(Chosen {
                    backend,
                    done,
                    fallback,
                });
            }
            Err(error) => kernel_error(error)?,
        };
        unsupported = Some(match (error, unsupported) {
            (KernelError::Nftables(error @ NftablesError::Unsupported { .. }), None) if wanted == Backend::Auto => {
                error
            }
            (error, None) => return Err(error.into()),
            (error, Some(nftables)) => {
                let legacy = Box::new(error);
                return Err(KernelError::NoBackend { nftables, legacy }.into());
            }
        });
    }
    unreachable!("the last candidate returns")
}

/// Says whether network namespaces could be programmed from here, as far as that can be told without doing so.
///
/// # Errors
/// What is missing, in words.
pub fn ready(wanted: Backend) -> Result<(), String> {
    for capability in [Capability::CAP_SYS_ADMIN, Capability::CAP_NET_ADMIN] {
        if !caps::has_cap(None, CapSet::Effective, capability).unwrap_or(false) {
            return Err(format!("{capability} is missing: the runtime has to run as root"));
        }
    }
    let usable = |backend| -> Result<(), KernelError> {
        match backend {
            RuleBackend::Nftables => Nftables::open()?.answers()?,
            RuleBackend::IptablesNft => drop(Iptables::find(Variant::Nft)?),
            RuleBackend::IptablesLegacy => drop(Iptables::find(Variant::Legacy)?),
        }
        Ok(())
    };
    match choose(wanted, Ok, usable) {
        Ok(_) => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}
