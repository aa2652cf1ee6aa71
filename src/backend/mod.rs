//! The rules of a network namespace, in whichever language the kernel takes them: [`nftables`] or [`iptables`].
//!
//! [`choice`] says which, [`install`] in which order things are done and undone, over the [`Kernel`] trait;
//! [`Namespace`] does them for real. [`check`] compares what is installed with a plan.

pub mod applied;
pub mod check;
pub mod choice;
mod error;
#[cfg(test)]
mod fake;
mod foreign;
pub mod install;
pub mod iptables;
pub mod nftables;
mod observed;
pub mod running;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

pub use self::choice::RuleBackend;
pub use self::error::KernelError;
pub use self::foreign::RemovedForeign;
use self::iptables::{Iptables, Variant, legacy};
use self::nftables::blocked::Arrival;
use self::nftables::{Closed, Nftables, NftablesError};
pub use self::observed::Observed;
use crate::drift::Difference;
use crate::facts::InstalledChain;
use crate::linux::lock::Lock;
use crate::linux::marks::{self, Discards};
use crate::linux::route::{Loopback, Route, RouteError};
use crate::linux::sysctl::{self, SysctlError};
use crate::linux::tcp;
use crate::options::Config;
use crate::plan::Prerequisite;
use crate::ruleset::{Installed, Ruleset, TcpState, Timeouts};
use crate::types::{Family, InboundMode};

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

    /// Why marked IPv4 packets that arrive would be dropped here, if so.
    fn discards_marked(&mut self) -> Option<Discards>;

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

    /// Has the kernel wait at least so long in these states, whatever the connection.
    ///
    /// # Errors
    /// There is no such setting, or it may not be changed.
    fn raise_timeouts(&mut self, timeouts: &Timeouts) -> Result<(), SysctlError>;

    /// How many TCP connections are open that do not stay within the namespace.
    ///
    /// # Errors
    /// They cannot be seen.
    fn open_connections(&mut self) -> io::Result<usize>;

    /// Sets whether the kernel takes a packet for the first one of its connection although it is not: [`running::LOOSE`].
    /// Returns how it was set.
    ///
    /// # Errors
    /// There is no such setting, as before conntrack is loaded, or it may not be changed.
    fn replace_loose(&mut self, value: &str) -> Result<String, SysctlError>;

    /// Removes our rules of this backend. Returns whether there were any.
    ///
    /// # Errors
    /// They cannot or may not be removed.
    fn remove_rules(&mut self, backend: RuleBackend) -> Result<bool, KernelError>;
}

/// Our rules as one backend has them.
pub trait Rules {
    /// Makes them exactly `ruleset`, at one instant. `installed`: rules of ours were seen there.
    ///
    /// # Errors
    /// They cannot or may not be written. Nothing was changed then, unless [`KernelError::may_have_changed_rules`].
    fn apply(&mut self, ruleset: &Ruleset, installed: bool) -> Result<Change, KernelError>;

    /// Removes them. Returns whether there were any.
    ///
    /// # Errors
    /// They cannot or may not be removed.
    fn remove(&mut self) -> Result<bool, KernelError>;

    /// Reads them, as packets of `family` meet them; no chains where there are none.
    ///
    /// # Errors
    /// They could not be read.
    fn installed(&mut self, family: Family) -> Result<Installed, KernelError>;

    /// Compares them with `ruleset`.
    ///
    /// # Errors
    /// They could not be read.
    fn differences(&mut self, ruleset: &Ruleset) -> Result<Vec<Difference>, KernelError>;
}

/// The network namespace of this thread. Its conversations with the kernel are opened once, when they are needed.
#[derive(Default)]
pub struct Namespace {
    /// Dropped first: nobody need wait until the kernel has closed the rest.
    _lock: Option<Lock>,
    route: Option<Route>,
    nftables: Option<Nftables>,
    iptables: Option<Iptables>,
    /// Where else than at /proc a proc file system is mounted.
    other_proc: Vec<PathBuf>,
}

impl Namespace {
    /// Over these sockets; those that are missing are opened when they are needed.
    pub fn over(route: Option<Route>, nftables: Option<Nftables>) -> Self {
        Self {
            route,
            nftables,
            ..Self::default()
        }
    }

    /// For whoever is going to change it: waits until no other sidetrack is at it, and keeps others waiting.
    pub fn claim() -> Self {
        Self {
            _lock: Lock::wait(),
            ..Self::default()
        }
    }

    /// Settings are looked for in these proc file systems, too: that of a container often cannot be written to.
    pub fn has_proc_at(&mut self, places: &[&Path]) {
        self.other_proc = places.iter().map(|place| (*place).to_owned()).collect();
    }

    pub(crate) fn route(&mut self) -> Result<&mut Route, RouteError> {
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

    /// Our rules in this backend.
    ///
    /// # Errors
    /// There is no such backend here, or no netlink socket could be had.
    pub fn rules(&mut self, backend: RuleBackend) -> Result<&mut dyn Rules, KernelError> {
        Ok(match backend {
            RuleBackend::Nftables => self.nftables()?,
            RuleBackend::IptablesNft => self.iptables.insert(Iptables::find(Variant::Nft)?),
            RuleBackend::IptablesLegacy => self.iptables.insert(Iptables::find(Variant::Legacy)?),
        })
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
        let loopback = self.loopback()?;
        let (chains, closed) = self.chains()?;
        let (policy_routing, foreign_rules) = self.route()?.policy_routing()?;
        Ok(Observed {
            loopback,
            policy_routing,
            foreign_rules,
            chains,
            closed,
            legacy: legacy::chains()?,
        })
    }

    fn chains(&mut self) -> Result<(Vec<InstalledChain>, Vec<Closed>), KernelError> {
        match self.nftables().and_then(Nftables::chains) {
            Ok(chains) => Ok(chains),
            // Whoever is about to write will say so better.
            Err(error @ (NftablesError::Unsupported { .. } | NftablesError::NotPermitted(_))) => {
                tracing::debug!(%error, "cannot see the chains of nf_tables");
                Ok((Vec::new(), Vec::new()))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Logs which chains of nf_tables drop what is redirected to the proxy.
    pub fn warn_of_blocked_ports(&mut self, config: &Config, observed: &Observed) {
        let (proxy, inbound) = (&config.proxy, &config.inbound);
        let from_outside = !inbound.include_ports.is_empty() && inbound.mode == InboundMode::Redirect;
        let arrivals = [
            (from_outside, proxy.inbound_port, false, "inbound"),
            (config.captures_outbound(), proxy.outbound_port, true, "outbound"),
        ];
        for (_, port, over_loopback, direction) in arrivals.into_iter().filter(|(is_meant, ..)| *is_meant) {
            let arrival = Arrival { port, over_loopback };
            let blocking = match self
                .nftables()
                .and_then(|nftables| nftables.blocking(&observed.closed, arrival))
            {
                Ok(blocking) => blocking,
                Err(error) => {
                    tracing::debug!(%error, "cannot see whether a firewall drops what is redirected");
                    return;
                }
            };
            for InstalledChain { table, chain } in blocking {
                tracing::warn!(
                    table,
                    chain,
                    "this chain drops what is redirected {direction}: it arrives at port {port}, which no rule of it \
                     accepts. Accept TCP to that port there"
                );
            }
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

    fn discards_marked(&mut self) -> Option<Discards> {
        marks::discards()
    }

    fn prerequisites(&mut self) -> Result<Vec<Prerequisite>, KernelError> {
        Ok(self.route()?.ours()?)
    }

    fn apply_rules(&mut self, backend: RuleBackend, ruleset: &Ruleset, installed: bool) -> Result<Change, KernelError> {
        self.rules(backend)?.apply(ruleset, installed)
    }

    fn raise_timeouts(&mut self, timeouts: &Timeouts) -> Result<(), SysctlError> {
        for state in TcpState::ALL {
            sysctl::raise(&state.setting(), timeouts.of(state).seconds())?;
        }
        Ok(())
    }

    fn open_connections(&mut self) -> io::Result<usize> {
        tcp::open_connections()
    }

    fn replace_loose(&mut self, value: &str) -> Result<String, SysctlError> {
        sysctl::replace(&self.other_proc, running::LOOSE, value)
    }

    fn remove_rules(&mut self, backend: RuleBackend) -> Result<bool, KernelError> {
        self.rules(backend)?.remove()
    }
}
