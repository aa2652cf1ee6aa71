//! The only room with effects: netlink, programs, namespaces, capabilities and the file system.
//!
//! [`install`] says in which order things are done and undone, over the [`Kernel`] trait; [`Namespace`] does them for
//! real.

pub mod accounts;
#[cfg(test)]
mod fake;
pub mod install;
pub mod iptables;
pub mod legacy;
pub mod netlink;
pub mod netns;
pub mod nftables;
pub mod observe;
pub mod privilege;
pub mod route;

use std::fmt;
use std::net::Ipv6Addr;

use thiserror::Error;

use self::iptables::{Iptables, IptablesError, Variant};
use self::nftables::{Nftables, NftablesError};
use self::route::{Route, RouteError};
use crate::ruleset::Ruleset;

/// What applying a ruleset did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// There was nothing of ours, and now there is.
    Created,
    /// Other rules of ours were there; the new ones took their place at one instant.
    Replaced,
    /// The same rules were there already. Nothing was changed.
    Unchanged,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Created => "created",
            Self::Replaced => "replaced",
            Self::Unchanged => "unchanged",
        })
    }
}

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

/// What the system could not do.
#[derive(Debug, Error)]
pub enum KernelError {
    /// The nftables backend.
    #[error(transparent)]
    Nftables(#[from] NftablesError),
    /// The iptables backend.
    #[error(transparent)]
    Iptables(#[from] IptablesError),
    /// Addresses.
    #[error(transparent)]
    Route(#[from] RouteError),
    /// Neither the kernel's nf_tables nor legacy iptables will do.
    #[error("no backend can write the rules. nftables: {nftables}. iptables-legacy: {legacy}")]
    NoBackend {
        /// Why not nf_tables.
        nftables: NftablesError,
        /// Why not legacy iptables.
        legacy: Box<KernelError>,
    },
    /// Something failed, and what had been done before could not be undone.
    #[error("{cause}. Undoing what had been done before failed too: {undo}. Run `sidetrack cleanup` and apply again")]
    NotUndone {
        /// What failed first.
        cause: Box<KernelError>,
        /// What failed then.
        undo: Box<KernelError>,
    },
    /// Several things failed; the others were done.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Several(Vec<KernelError>),
}

impl KernelError {
    /// What to do where privileges are missing.
    pub fn advice(&self) -> Option<String> {
        match self {
            Self::Nftables(NftablesError::NotPermitted(_)) | Self::Route(RouteError::NotPermitted(_)) => {
                Some(privilege::advice())
            }
            Self::NotUndone { cause, .. } => cause.advice(),
            Self::Several(errors) => errors.iter().find_map(Self::advice),
            Self::Nftables(_) | Self::Iptables(_) | Self::Route(_) | Self::NoBackend { .. } => None,
        }
    }
}

/// What installing a plan needs of a network namespace.
pub trait Kernel {
    /// Puts an address on the loopback interface, marked as ours. Returns whether it was not there yet.
    ///
    /// # Errors
    /// It cannot or may not be put there.
    fn add_address(&mut self, address: Ipv6Addr) -> Result<bool, KernelError>;

    /// Takes an address from the loopback interface. Returns whether it was there.
    ///
    /// # Errors
    /// It cannot or may not be taken away.
    fn remove_address(&mut self, address: Ipv6Addr) -> Result<bool, KernelError>;

    /// Makes our rules of this backend exactly `ruleset`, at one instant. `installed`: rules of ours were seen there.
    ///
    /// # Errors
    /// They cannot or may not be written; nothing was changed then.
    fn apply_rules(&mut self, backend: RuleBackend, ruleset: &Ruleset, installed: bool) -> Result<Change, KernelError>;

    /// Removes our rules of this backend. Returns whether there were any.
    ///
    /// # Errors
    /// They cannot or may not be removed.
    fn remove_rules(&mut self, backend: RuleBackend) -> Result<bool, KernelError>;
}

/// The network namespace of this thread.
pub struct Namespace;

impl Kernel for Namespace {
    fn add_address(&mut self, address: Ipv6Addr) -> Result<bool, KernelError> {
        Ok(Route::open()?.add_address(address)?)
    }

    fn remove_address(&mut self, address: Ipv6Addr) -> Result<bool, KernelError> {
        Ok(Route::open()?.remove_address(address)?)
    }

    fn apply_rules(&mut self, backend: RuleBackend, ruleset: &Ruleset, installed: bool) -> Result<Change, KernelError> {
        Ok(match backend {
            RuleBackend::Nftables => Nftables::open()?.apply(ruleset, installed)?,
            RuleBackend::IptablesNft => Iptables::find(Variant::Nft)?.apply(ruleset)?,
            RuleBackend::IptablesLegacy => Iptables::find(Variant::Legacy)?.apply(ruleset)?,
        })
    }

    fn remove_rules(&mut self, backend: RuleBackend) -> Result<bool, KernelError> {
        Ok(match backend {
            RuleBackend::Nftables => Nftables::open()?.remove()?,
            RuleBackend::IptablesNft => Iptables::find(Variant::Nft)?.remove()?,
            RuleBackend::IptablesLegacy => Iptables::find(Variant::Legacy)?.remove()?,
        })
    }
}
