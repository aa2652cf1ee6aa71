//! What can go wrong in a network namespace.

use thiserror::Error;

use super::iptables::IptablesError;
use super::iptables::legacy::LegacyError;
use super::nftables::NftablesError;
use crate::linux::privilege;
use crate::linux::route::RouteError;
use crate::linux::sysctl::SysctlError;

/// What the system could not do.
#[derive(Debug, Error)]
pub enum KernelError {
    /// The nftables backend.
    #[error(transparent)]
    Nftables(#[from] NftablesError),
    /// The iptables backend.
    #[error(transparent)]
    Iptables(#[from] IptablesError),
    /// Addresses and policy routing.
    #[error(transparent)]
    Route(#[from] RouteError),
    /// Neither the kernel's nf_tables nor legacy iptables will do.
    #[error("no backend can write the rules; iptables-legacy: {legacy}; nftables: {nftables}")]
    NoBackend {
        /// Why not nf_tables.
        nftables: NftablesError,
        /// Why not legacy iptables.
        legacy: Box<KernelError>,
    },
    /// The rules of legacy iptables may be there or not: without a list of its tables, looking would create them.
    #[error(
        "cannot see which tables legacy iptables has: /proc/net/ip_tables_names or a table cannot be read here. \
         Run as root, where /proc is mounted"
    )]
    LegacyUnseen,
    /// A setting of the kernel.
    #[error(transparent)]
    Setting(#[from] SysctlError),
    /// The tables of legacy iptables.
    #[error(transparent)]
    Legacy(#[from] LegacyError),
    /// The new rules are in force, and not all that had to go went.
    #[error(
        "the new rules are in force, but what was there before could not all be removed: {}. Apply again",
        listed(.0)
    )]
    LeftOver(Vec<KernelError>),
    /// Something failed, and what had been done before could not be undone.
    #[error("{cause}; undoing what had been done before failed too: {undo}. Run `sidetrack cleanup` and apply again")]
    NotUndone {
        /// What failed first.
        cause: Box<KernelError>,
        /// What failed then.
        undo: Box<KernelError>,
    },
    /// Several things failed; the others were done.
    #[error("{}", listed(.0))]
    Several(Vec<KernelError>),
}

fn listed(errors: &[KernelError]) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

impl KernelError {
    /// What to do where privileges are missing.
    pub fn advice(&self) -> Option<String> {
        match self {
            Self::Nftables(NftablesError::NotPermitted(_)) | Self::Route(RouteError::NotPermitted(_)) => {
                Some(privilege::advice())
            }
            Self::Iptables(error) if error.is_refusal() => Some(privilege::advice()),
            Self::NotUndone { cause, .. } => cause.advice(),
            Self::Several(errors) | Self::LeftOver(errors) => errors.iter().find_map(Self::advice),
            Self::Nftables(_)
            | Self::Iptables(_)
            | Self::Route(_)
            | Self::Setting(_)
            | Self::Legacy(_)
            | Self::LegacyUnseen
            | Self::NoBackend { .. } => None,
        }
    }

    /// Why the kernel has no nf_tables that will do, where that is what failed.
    pub fn unsupported(&self) -> Option<&NftablesError> {
        match self {
            Self::Nftables(error @ NftablesError::Unsupported { .. }) => Some(error),
            _ => None,
        }
    }

    /// Whether the kernel would take the same rules without timeouts.
    pub fn lacks_timeouts(&self) -> bool {
        matches!(self, Self::Nftables(error) if error.lacks_timeouts())
    }

    /// Whether rules may have been changed all the same. Then they may need what was added for them.
    pub fn may_have_changed_rules(&self) -> bool {
        match self {
            Self::Nftables(error) => matches!(error, NftablesError::Unanswered(_)),
            Self::Iptables(error) => matches!(error, IptablesError::NotUndone { .. }),
            Self::NoBackend { legacy, .. } => legacy.may_have_changed_rules(),
            Self::NotUndone { cause, .. } => cause.may_have_changed_rules(),
            Self::LeftOver(_) => true,
            Self::Several(errors) => errors.iter().any(Self::may_have_changed_rules),
            Self::Route(_) | Self::Setting(_) | Self::Legacy(_) | Self::LegacyUnseen => false,
        }
    }
}
