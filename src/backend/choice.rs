//! Chooses the backend that writes the rules. No other place does.

use std::fmt;

use caps::{CapSet, Capability};

use super::iptables::{Iptables, Variant};
use super::nftables::{Nftables, NftablesError};
use super::{KernelError, Observed};
use crate::ruleset::Layout;
use crate::types::Backend;

/// A place for rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RuleBackend {
    /// Our own table of nf_tables.
    Nftables,
    /// Our own tables of nf_tables, one for each IP family.
    NftablesPerFamily,
    /// The tables that iptables-nft shares with other programs.
    IptablesNft,
    /// The tables of legacy iptables.
    IptablesLegacy,
}

impl RuleBackend {
    /// Every backend.
    pub const ALL: [Self; 4] = [
        Self::Nftables,
        Self::NftablesPerFamily,
        Self::IptablesNft,
        Self::IptablesLegacy,
    ];
}

impl RuleBackend {
    /// The layout of its tables, if it has tables of its own.
    pub fn layout(self) -> Option<Layout> {
        match self {
            Self::Nftables => Some(Layout::OneTable),
            Self::NftablesPerFamily => Some(Layout::PerFamily),
            Self::IptablesNft | Self::IptablesLegacy => None,
        }
    }
}

impl fmt::Display for RuleBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nftables => "nftables",
            Self::NftablesPerFamily => "nftables-per-family",
            Self::IptablesNft => "iptables-nft",
            Self::IptablesLegacy => "iptables-legacy",
        })
    }
}

/// The backends that an option allows, the preferred one first.
pub fn candidates(wanted: Backend) -> &'static [RuleBackend] {
    match wanted {
        Backend::Auto => &[
            RuleBackend::Nftables,
            RuleBackend::NftablesPerFamily,
            RuleBackend::IptablesLegacy,
        ],
        Backend::Nftables => &[RuleBackend::Nftables, RuleBackend::NftablesPerFamily],
        Backend::NftablesPerFamily => &[RuleBackend::NftablesPerFamily],
        Backend::IptablesNft => &[RuleBackend::IptablesNft],
        Backend::IptablesLegacy => &[RuleBackend::IptablesLegacy],
    }
}

/// The backend whose rules are used, among those that hold rules: the first, if no option names one. The others are
/// logged.
pub fn holding(wanted: Backend, observed: &Observed) -> Option<RuleBackend> {
    let holding: Vec<RuleBackend> = RuleBackend::ALL
        .into_iter()
        .filter(|backend| observed.holds_rules(*backend))
        .collect();
    let is_wanted = |backend: &RuleBackend| wanted == Backend::Auto || candidates(wanted).contains(backend);
    let followed = holding.iter().copied().find(is_wanted);
    for left_out in holding.iter().filter(|backend| Some(**backend) != followed) {
        tracing::warn!(backend = %left_out, "rules owned by sidetrack in this backend are ignored; see --backend");
    }
    followed
}

/// A result, with the backend that was chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chosen<T> {
    /// The chosen backend.
    pub backend: RuleBackend,
    /// The result.
    pub done: T,
    /// Why the preferred backend was not used, if so.
    pub fallback: Option<String>,
}

impl<T> Chosen<T> {
    /// Logs why another backend than the preferred one is used, if so. Two tables are as good as one.
    pub fn log_fallback(&self) {
        let (backend, reason) = (self.backend, self.fallback.as_deref());
        match (backend, reason) {
            (_, None) => {}
            (RuleBackend::NftablesPerFamily, Some(reason)) => {
                tracing::info!(%backend, reason, "the rules are in a table for each IP family, not in one for both");
            }
            (_, Some(reason)) => tracing::warn!(%backend, reason, "used instead of nftables"),
        }
    }
}

/// Runs an attempt with the preferred backend; with the next one only if the kernel lacks what the one before needs.
/// `kernel_error` extracts the kernel's error from an error of the attempt, if it holds one.
///
/// # Errors
/// The error of the last attempt; if that was with legacy iptables, also that of the one before.
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
        let is_last = candidates(wanted).last() == Some(&backend);
        unsupported = Some(match (error, unsupported) {
            (KernelError::Nftables(error), _) if error.is_unsupported() && !is_last => {
                tracing::debug!(%backend, %error, "the kernel lacks what this backend needs");
                error
            }
            (error, Some(nftables)) if backend == RuleBackend::IptablesLegacy => {
                let legacy = Box::new(error);
                return Err(KernelError::NoBackend { nftables, legacy }.into());
            }
            (error, _) => return Err(error.into()),
        });
    }
    unreachable!("the last candidate returns")
}

/// Checks whether rules could be applied from this process, as far as that can be known without applying any.
///
/// # Errors
/// A description of what is missing.
pub fn ready(wanted: Backend) -> Result<(), String> {
    for capability in [Capability::CAP_SYS_ADMIN, Capability::CAP_NET_ADMIN] {
        if !caps::has_cap(None, CapSet::Effective, capability).unwrap_or(false) {
            return Err(format!("{capability} is missing: the runtime has to run as root"));
        }
    }
    let usable = |backend| -> Result<(), KernelError> {
        match backend {
            RuleBackend::Nftables | RuleBackend::NftablesPerFamily => Nftables::open()?.check_available()?,
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
