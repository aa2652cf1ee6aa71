//! The only room with effects: netlink, programs, namespaces, capabilities and the file system.
//!
//! [`install`] says in which order things are done and undone, over the [`Kernel`] trait; [`Namespace`] does them for
//! real.

pub mod accounts;
pub mod backtrace;
pub mod check;
#[cfg(test)]
mod fake;
pub mod install;
pub mod interfaces;
pub mod iptables;
pub mod legacy;
pub mod lock;
pub mod netlink;
pub mod netns;
pub mod nftables;
pub mod privilege;
pub mod probe;
pub mod resolvers;
pub mod route;
pub mod running;
pub mod validation;

use std::fmt;

use thiserror::Error;

use self::iptables::{Iptables, IptablesError, Variant};
use self::legacy::LegacyError;
use self::lock::Lock;
use self::nftables::{Nftables, NftablesError};
use self::route::{Loopback, Prerequisite, Route, RouteError};
use crate::facts::{InstalledChain, redirectors};
use crate::ruleset::{Ruleset, TABLE};

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

/// What a look at a network namespace shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observed {
    /// The loopback interface.
    pub loopback: Loopback,
    /// Our rules of policy routing; after them, where there are any, our routes.
    pub policy_routing: Vec<Prerequisite>,
    /// The chains of nf_tables, iptables-nft's among them.
    pub chains: Vec<InstalledChain>,
    /// The chains of legacy iptables; `None` where they cannot be seen.
    pub legacy: Option<Vec<InstalledChain>>,
}

impl Observed {
    /// All chains that were seen.
    pub fn all_chains(&self) -> impl Iterator<Item = &InstalledChain> {
        self.chains.iter().chain(self.legacy.iter().flatten())
    }

    /// The chains that are not ours.
    pub fn others(&self) -> impl Iterator<Item = &InstalledChain> {
        let ours = |chain: &InstalledChain| chain.table == format!("inet {TABLE}") || is_iptables_chain(&chain.chain);
        self.all_chains().filter(move |chain| !ours(chain))
    }

    /// What we have added besides rules, as far as it was seen, in the order in which it is added.
    pub fn prerequisites(&self) -> Vec<Prerequisite> {
        let addresses = self.loopback.our_addresses.iter().copied().map(Prerequisite::Address);
        self.policy_routing.iter().copied().chain(addresses).collect()
    }

    /// Logs what will be in the way of any redirection here.
    pub fn log_warnings(&self) {
        for other in redirectors(self.all_chains()) {
            tracing::warn!(
                tool = other.tool,
                table = other.table,
                chain = other.chain,
                "another tool redirects traffic here too, and the two will fight: remove its rules, or do without \
                 sidetrack"
            );
        }
        self.warn_of_loopback();
    }

    /// Logs it where the loopback interface is down.
    pub fn warn_of_loopback(&self) {
        if !self.loopback.up {
            tracing::warn!(
                "the loopback interface is down: until it is up, redirected connections from here cannot reach the proxy"
            );
        }
    }

    /// Whether rules of ours were seen.
    pub fn holds_rules(&self, backend: RuleBackend) -> bool {
        let (chains, ours): (_, fn(&InstalledChain) -> bool) = match backend {
            RuleBackend::Nftables => (Some(&self.chains), |chain| chain.table == format!("inet {TABLE}")),
            RuleBackend::IptablesNft => (Some(&self.chains), |chain| {
                chain.table.starts_with("ip") && is_iptables_chain(&chain.chain)
            }),
            RuleBackend::IptablesLegacy => (self.legacy.as_ref(), |chain| is_iptables_chain(&chain.chain)),
        };
        chains.into_iter().flatten().any(ours)
    }
}

/// Whether a chain of iptables bears one of our names.
fn is_iptables_chain(name: &str) -> bool {
    name.strip_prefix(&TABLE.to_uppercase())
        .is_some_and(|rest| rest.starts_with('_'))
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
    /// Addresses and policy routing.
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
    /// The rules of legacy iptables may be there or not: without a list of its tables, looking would create them.
    #[error(
        "cannot see which tables legacy iptables has: /proc/net/ip_tables_names or a table cannot be read here. \
         Run as root, where /proc is mounted"
    )]
    LegacyUnseen,
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
    #[error("{cause}. Undoing what had been done before failed too: {undo}. Run `sidetrack cleanup` and apply again")]
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
            | Self::Legacy(_)
            | Self::LegacyUnseen
            | Self::NoBackend { .. } => None,
        }
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
            Self::Route(_) | Self::Legacy(_) | Self::LegacyUnseen => false,
        }
    }
}

/// What installing a plan needs of a network namespace.
pub trait Kernel {
    /// Adds what rules need, marked as ours. Returns whether it was not there yet.
    ///
    /// # Errors
    /// It cannot or may not be added.
    fn add(&mut self, what: Prerequisite) -> Result<bool, KernelError>;

    /// Removes it. Returns whether it was there.
    ///
    /// # Errors
    /// It cannot or may not be removed.
    fn remove(&mut self, what: Prerequisite) -> Result<bool, KernelError>;

    /// All that is ours besides rules, as it is now, in the order in which it is added: also routes whose rule is gone.
    ///
    /// # Errors
    /// It cannot be seen.
    fn prerequisites(&mut self) -> Result<Vec<Prerequisite>, KernelError>;

    /// Makes our rules of this backend exactly `ruleset`, at one instant. `installed`: rules of ours were seen there.
    ///
    /// # Errors
    /// They cannot or may not be written. Nothing was changed then, unless [`KernelError::may_have_changed_rules`].
    fn apply_rules(&mut self, backend: RuleBackend, ruleset: &Ruleset, installed: bool) -> Result<Change, KernelError>;

    /// Removes our rules of this backend. Returns whether there were any.
    ///
    /// # Errors
    /// They cannot or may not be removed.
    fn remove_rules(&mut self, backend: RuleBackend) -> Result<bool, KernelError>;
}

/// The network namespace of this thread. Its conversations with the kernel are opened once, when they are needed.
#[derive(Default)]
pub struct Namespace {
    /// Dropped first: nobody need wait until the kernel has closed the rest.
    _lock: Option<Lock>,
    route: Option<Route>,
    nftables: Option<Nftables>,
}

impl Namespace {
    /// For whoever is going to change it: waits until no other sidetrack is at it, and keeps others waiting.
    pub fn claim() -> Self {
        Self {
            _lock: Lock::wait(),
            ..Self::default()
        }
    }

    /// Over these sockets; those that are missing are opened when they are needed.
    pub fn over(route: Option<Route>, nftables: Option<Nftables>) -> Self {
        Self {
            _lock: None,
            route,
            nftables,
        }
    }

    fn route(&mut self) -> Result<&mut Route, RouteError> {
        match &mut self.route {
            Some(route) => Ok(route),
            none => Ok(none.insert(Route::open()?)),
        }
    }

    fn nftables(&mut self) -> Result<&mut Nftables, NftablesError> {
        match &mut self.nftables {
            Some(nftables) => Ok(nftables),
            none => Ok(none.insert(Nftables::open()?)),
        }
    }

    /// Looks at the loopback interface. Changes nothing, and needs no privilege.
    ///
    /// # Errors
    /// The kernel did not answer.
    pub fn loopback(&mut self) -> Result<Loopback, KernelError> {
        Ok(self.route()?.loopback()?)
    }

    /// Looks at all that matters to us. Changes nothing.
    ///
    /// # Errors
    /// The kernel did not answer.
    pub fn observe(&mut self) -> Result<Observed, KernelError> {
        Ok(Observed {
            loopback: self.loopback()?,
            policy_routing: self.route()?.policy_routing()?,
            chains: self.chains()?,
            legacy: legacy::chains()?,
        })
    }

    fn chains(&mut self) -> Result<Vec<InstalledChain>, KernelError> {
        match self.nftables().and_then(Nftables::chains) {
            Ok(chains) => Ok(chains),
            // Whoever is about to write will say so better.
            Err(error @ (NftablesError::Unsupported { .. } | NftablesError::NotPermitted(_))) => {
                tracing::debug!(%error, "cannot see the chains of nf_tables");
                Ok(Vec::new())
            }
            Err(error) => Err(error.into()),
        }
    }
}

impl Kernel for Namespace {
    fn add(&mut self, what: Prerequisite) -> Result<bool, KernelError> {
        Ok(self.route()?.add(what)?)
    }

    fn remove(&mut self, what: Prerequisite) -> Result<bool, KernelError> {
        Ok(self.route()?.remove(what)?)
    }

    fn prerequisites(&mut self) -> Result<Vec<Prerequisite>, KernelError> {
        Ok(self.route()?.ours()?)
    }

    fn apply_rules(&mut self, backend: RuleBackend, ruleset: &Ruleset, installed: bool) -> Result<Change, KernelError> {
        Ok(match backend {
            RuleBackend::Nftables => self.nftables()?.apply(ruleset, installed)?,
            RuleBackend::IptablesNft => Iptables::find(Variant::Nft)?.apply(ruleset)?,
            RuleBackend::IptablesLegacy => Iptables::find(Variant::Legacy)?.apply(ruleset)?,
        })
    }

    fn remove_rules(&mut self, backend: RuleBackend) -> Result<bool, KernelError> {
        Ok(match backend {
            RuleBackend::Nftables => self.nftables()?.remove()?,
            RuleBackend::IptablesNft => Iptables::find(Variant::Nft)?.remove()?,
            RuleBackend::IptablesLegacy => Iptables::find(Variant::Legacy)?.remove()?,
        })
    }
}
