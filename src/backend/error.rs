//! Errors of the backends.

use thiserror::Error;

use super::iptables::IptablesError;
use super::iptables::legacy::LegacyError;
use super::nftables::NftablesError;
use crate::linux::privilege;
use crate::linux::route::RouteError;
use crate::linux::sysctl::SysctlError;

/// A failure to read or change a network namespace.
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
    /// Neither nf_tables nor legacy iptables is usable.
    #[error("no backend can write the rules; iptables-legacy: {legacy}; nftables: {nftables}")]
    NoBackend {
        /// Why not nf_tables.
        nftables: NftablesError,
        /// Why not legacy iptables.
        legacy: Box<KernelError>,
    },
    /// The rules of legacy iptables cannot be read: without the list of existing tables, reading would create them.
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
    /// The new rules are in force, but some of the previous state could not be removed.
    #[error(
        "the new rules are in force, but part of the previous state could not be removed: {}. Apply again",
        listed(.0)
    )]
    LeftOver(Vec<KernelError>),
    /// A step failed, and rolling back the earlier steps failed too.
    #[error("{cause}; rolling back the earlier changes failed too: {undo}. Run `sidetrack cleanup` and apply again")]
    NotUndone {
        /// The failed step.
        cause: Box<KernelError>,
        /// The failed rollback.
        undo: Box<KernelError>,
    },
    /// Several steps failed; the others succeeded.
    #[error("{}", listed(.0))]
    Several(Vec<KernelError>),
}

fn listed(errors: &[KernelError]) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

impl KernelError {
    /// Advice for missing privileges.
    pub fn advice(&self) -> Option<String> {
        match self {
            Self::Nftables(NftablesError::NotPermitted(_)) | Self::Route(RouteError::NotPermitted(_)) => {
                Some(privilege::advice())
            }
            Self::Iptables(error) if error.is_permission_denied() => Some(privilege::advice()),
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

    /// The error, if the kernel lacks nf_tables or a part of it.
    pub fn unsupported(&self) -> Option<&NftablesError> {
        match self {
            Self::Nftables(error) if error.is_unsupported() => Some(error),
            _ => None,
        }
    }

    /// Whether the kernel would take the same rules without timeouts.
    pub fn lacks_timeouts(&self) -> bool {
        matches!(self, Self::Nftables(error) if error.lacks_timeouts())
    }

    /// Whether rules may have changed despite the error. Then they may need the prerequisites that were added.
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
