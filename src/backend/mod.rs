//! Backends that read and write the rules of a network namespace: [`nftables`] and [`iptables`].
//!
//! [`choice`] selects one; [`install`] defines the order of steps and their rollback over the [`Kernel`] trait;
//! [`Namespace`] implements that trait. [`check`] compares the installed state with a plan.

pub mod applied;
mod arrival;
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
mod published;
mod record;
pub mod running;
pub mod stats;
pub mod xtables;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use self::arrival::Arrival;
pub use self::choice::RuleBackend;
pub use self::error::KernelError;
pub use self::foreign::RemovedForeign;
use self::iptables::{Iptables, Variant, legacy};
use self::nftables::{ForeignTable, Nftables, NftablesError, OwnTables, blocked, published as published_ports};
pub use self::observed::Observed;
use crate::drift::Difference;
use crate::facts::InstalledChain;
use crate::linux::lock::Lock;
use crate::linux::marks::{self, Discards};
use crate::linux::route::{LOOPBACK_INDEX, Loopback, Route, RouteError};
use crate::linux::sysctl::{self, SysctlError};
use crate::linux::tcp;
use crate::linux::{cgroup, interfaces};
use crate::options::Config;
use crate::plan::{LoopbackRoute, Prerequisite};
use crate::ruleset::netfilter::Netfilter;
use crate::ruleset::{Counts, Installed, Layout, Ruleset, TcpState, Timeouts};
use crate::simulate::LocalMark;
use crate::types::{Family, InboundMode, Port};

/// The change made by applying a ruleset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// There were no rules owned by sidetrack before.
    Created,
    /// The new rules replaced earlier ones atomically.
    Replaced,
    /// The same rules were already installed.
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

/// The operations on a network namespace that applying a plan needs.
pub trait Kernel {
    /// Adds a prerequisite, marked as owned by sidetrack. Returns whether it was missing.
    ///
    /// # Errors
    /// Adding failed or is not permitted.
    fn add(&mut self, what: &Prerequisite) -> Result<bool, KernelError>;

    /// Removes a prerequisite. Returns whether it existed.
    ///
    /// # Errors
    /// Removing failed or is not permitted.
    fn remove(&mut self, what: &Prerequisite) -> Result<bool, KernelError>;

    /// The setting that makes the kernel drop marked inbound IPv4 packets, if any.
    fn discards_marked(&mut self) -> Option<Discards>;

    /// The prerequisites owned by sidetrack as they are now, in the order of adding, including routes whose rule is
    /// gone.
    ///
    /// # Errors
    /// It cannot be seen.
    fn prerequisites(&mut self) -> Result<Vec<Prerequisite>, KernelError>;

    /// Replaces our rules in this backend with `ruleset` atomically. What the observation found saves requests, and need
    /// not be right.
    ///
    /// # Errors
    /// Writing failed or is not permitted. Nothing changed, unless [`KernelError::may_have_changed_rules`].
    fn apply_rules(
        &mut self,
        backend: RuleBackend,
        ruleset: &Ruleset,
        observed: &Observed,
    ) -> Result<Change, KernelError>;

    /// Raises the conntrack timeouts of these states to at least these values, for all connections.
    ///
    /// # Errors
    /// The sysctl is missing or cannot be changed.
    fn raise_timeouts(&mut self, timeouts: &Timeouts) -> Result<(), SysctlError>;

    /// The number of open TCP connections to other namespaces or hosts.
    ///
    /// # Errors
    /// They cannot be seen.
    fn open_connections(&mut self) -> io::Result<usize>;

    /// Sets [`running::TCP_LOOSE`]: whether conntrack picks up connections whose beginning it has not seen. Returns the
    /// previous value.
    ///
    /// # Errors
    /// The sysctl is missing, as before conntrack is loaded, or cannot be changed.
    fn replace_loose(&mut self, value: &str) -> Result<String, SysctlError>;

    /// Removes our rules from this backend. Returns whether there were any.
    ///
    /// # Errors
    /// Removing failed or is not permitted.
    fn remove_rules(&mut self, backend: RuleBackend) -> Result<bool, KernelError>;
}

/// Our rules in one backend.
pub trait Rules {
    /// Replaces them with `ruleset` atomically. What the observation found saves requests, and need not be right.
    ///
    /// # Errors
    /// Writing failed or is not permitted. Nothing changed, unless [`KernelError::may_have_changed_rules`].
    fn apply(&mut self, ruleset: &Ruleset, observed: &Observed) -> Result<Change, KernelError>;

    /// Removes them. Returns whether there were any.
    ///
    /// # Errors
    /// Removing failed or is not permitted.
    fn remove(&mut self) -> Result<bool, KernelError>;

    /// Reads the rules that apply to packets of `family`; no chains if there are none.
    ///
    /// # Errors
    /// They could not be read.
    fn installed(&mut self, family: Family) -> Result<Installed, KernelError>;

    /// The same, and the values of their counters.
    ///
    /// # Errors
    /// They could not be read.
    fn counts(&mut self, family: Family) -> Result<(Installed, Counts), KernelError>;

    /// Compares them with `ruleset`.
    ///
    /// # Errors
    /// They could not be read.
    fn differences(&mut self, ruleset: &Ruleset) -> Result<Vec<Difference>, KernelError>;
}

/// The network namespace of this thread. Its netlink sockets are opened once, on first use.
#[derive(Default)]
pub struct Namespace {
    /// Dropped first, so that a waiting process need not wait until the kernel has closed the sockets.
    _lock: Option<Lock>,
    route: Option<Route>,
    nftables: Option<Nftables>,
    /// Mount points of proc besides /proc.
    other_proc: Vec<PathBuf>,
}

impl Namespace {
    /// Uses these sockets; missing ones are opened on first use.
    pub fn over(route: Option<Route>, nftables: Option<Nftables>) -> Self {
        Self {
            route,
            nftables,
            ..Self::default()
        }
    }

    /// For changes: waits until no other sidetrack process changes this network namespace, and keeps others waiting.
    pub fn claim() -> Self {
        Self {
            _lock: Lock::wait(),
            ..Self::default()
        }
    }

    /// Adds proc mount points to write sysctls through: the /proc of a container is often read-only.
    pub fn set_other_proc(&mut self, places: &[&Path]) {
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
    /// The backend is not available, or opening a netlink socket failed.
    pub fn rules(&mut self, backend: RuleBackend) -> Result<Box<dyn Rules + '_>, KernelError> {
        Ok(match backend {
            RuleBackend::Nftables => Box::new(OwnTables::new(self.nftables()?, Layout::OneTable)),
            RuleBackend::NftablesPerFamily => Box::new(OwnTables::new(self.nftables()?, Layout::PerFamily)),
            RuleBackend::IptablesNft => Box::new(Iptables::find(Variant::Nft)?),
            RuleBackend::IptablesLegacy => Box::new(Iptables::find(Variant::Legacy)?),
        })
    }

    /// Observes the loopback interface, read-only and without privileges.
    ///
    /// # Errors
    /// The kernel did not answer.
    pub fn loopback(&mut self) -> Result<Loopback, KernelError> {
        Ok(self.route()?.loopback()?)
    }

    /// Sets the loopback interface up, as a runtime does it for a pod.
    ///
    /// # Errors
    /// It is not permitted, or the kernel did not answer.
    pub fn set_loopback_up(&mut self) -> Result<(), KernelError> {
        let refused = |refusal: crate::linux::netlink::Refusal| match refusal.errno {
            nix::errno::Errno::EPERM => RouteError::NotPermitted(refusal),
            _ => RouteError::Refused {
                what: "setting the loopback interface up".to_owned(),
                refusal,
            },
        };
        Ok(self.route()?.set_up(LOOPBACK_INDEX)?.map_err(refused)?)
    }

    /// Observes the whole state that matters to sidetrack, read-only.
    ///
    /// # Errors
    /// The kernel did not answer.
    pub fn observe(&mut self) -> Result<Observed, KernelError> {
        let loopback = self.loopback()?;
        let (chains, foreign_tables) = self.chains()?;
        let (policy_routing, foreign_rules) = self.route()?.policy_routing()?;
        let legacy = legacy::observe()?;
        let mut observed = Observed {
            loopback,
            policy_routing,
            foreign_rules,
            chains,
            foreign_tables,
            legacy: legacy.chains,
            may_have_legacy_tables: legacy.may_have_tables,
        };
        let holds_rules = RuleBackend::ALL
            .into_iter()
            .any(|backend| observed.holds_rules(backend));
        if observed.policy_routing.is_empty() && holds_rules {
            observed.policy_routing = self.route()?.routes()?;
        }
        Ok(observed)
    }

    /// Whether the interface has a route to the loopback address, ours or a foreign one.
    ///
    /// # Errors
    /// The kernel did not answer.
    pub fn has_loopback_route(&mut self, route: &LoopbackRoute) -> Result<bool, KernelError> {
        Ok(self.route()?.has_loopback_route(route)?)
    }

    /// All rules that packets pass, of every program.
    ///
    /// # Errors
    /// They could not be read.
    pub fn netfilter(&mut self) -> Result<Netfilter, KernelError> {
        let mut rules = match self.nftables().and_then(Nftables::netfilter) {
            Ok(rules) => rules,
            Err(error @ NftablesError::Unsupported { .. }) => {
                tracing::debug!(%error, "no rules of nf_tables");
                Netfilter::default()
            }
            Err(error) => return Err(error.into()),
        };
        match legacy::decoded_tables()? {
            Some(tables) => rules.tables.extend(tables),
            None => rules
                .unreadable
                .push("the tables of legacy iptables, which cannot be read".to_owned()),
        }
        rules.name_interfaces(&interfaces::indexes());
        rules.name_cgroups(&|cgroup| cgroup::path(cgroup.id?, cgroup.level));
        Ok(rules)
    }

    /// The marks by which policy routing delivers packets to this namespace, whatever their destination.
    ///
    /// # Errors
    /// The kernel did not answer.
    pub fn local_marks(&mut self) -> Result<Vec<LocalMark>, KernelError> {
        Ok(self.route()?.local_marks()?)
    }

    fn chains(&mut self) -> Result<(Vec<InstalledChain>, Vec<ForeignTable>), KernelError> {
        match self.nftables().and_then(Nftables::chains) {
            Ok(chains) => Ok(chains),
            // A later write reports this error with more context.
            Err(error @ (NftablesError::Unsupported { .. } | NftablesError::NotPermitted(_))) => {
                tracing::debug!(%error, "cannot read the chains of nf_tables");
                Ok((Vec::new(), Vec::new()))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Logs the foreign chains that keep redirected connections from the proxy, or from their server.
    pub fn warn_of_foreign_rules(&mut self, config: &Config, observed: &Observed) {
        if let Err(error) = self.find_foreign_rules(config, observed) {
            tracing::debug!(%error, "cannot check what a firewall does with redirected connections");
        }
    }

    fn find_foreign_rules(&mut self, config: &Config, observed: &Observed) -> Result<(), KernelError> {
        let (proxy, inbound) = (&config.proxy, &config.inbound);
        let to_port = !inbound.include_ports.is_empty() && inbound.mode == InboundMode::Redirect;
        let arrivals = [
            (to_port, proxy.inbound_port, false, "inbound"),
            (config.captures_outbound(), proxy.outbound_port, true, "outbound"),
        ];
        let tables = match observed.foreign_tables.as_slice() {
            [] => Vec::new(),
            tables => self.nftables()?.contents(tables)?,
        };
        for (_, port, over_loopback, direction) in arrivals.into_iter().filter(|(is_meant, ..)| *is_meant) {
            let arrival = Arrival { port, over_loopback };
            let blocking = tables.iter().flat_map(|(table, listing)| {
                let chains = blocked::blocking(listing, arrival).into_iter();
                chains.map(|chain| InstalledChain::new(table.clone(), &chain))
            });
            for InstalledChain { table, chain } in blocking.chain(in_legacy(observed, || legacy::blocking(arrival))?) {
                tracing::warn!(
                    table,
                    chain,
                    "this chain drops redirected {direction} connections: they arrive at port {port}, which none of \
                     its rules accepts. Accept TCP to that port there"
                );
            }
        }
        let captured = |port| {
            let left_alone = [&inbound.exclude_ports, &proxy.mesh_ports];
            inbound.include_ports.contains(port) && !left_alone.iter().any(|ports| ports.contains(port))
        };
        let published = tables.iter().flat_map(|(table, listing)| {
            let chains = published_ports::publishing(listing).into_iter();
            chains.map(|(chain, ports)| (InstalledChain::new(table.clone(), &chain), ports))
        });
        for (InstalledChain { table, chain }, mut ports) in published.chain(in_legacy(observed, legacy::publishing)?) {
            ports.retain(|ports| ports.clone().any(|port| Port::new(port).is_some_and(captured)));
            if !ports.is_empty() {
                tracing::warn!(
                    table,
                    chain,
                    ports = published::text(&ports),
                    "this chain translates the destination of inbound connections to these ports, as docker does for \
                     published ports, but the proxy gets them first. Exclude the ports with --exclude-inbound-ports"
                );
            }
        }
        Ok(())
    }
}

/// What `find` finds in the tables of legacy iptables; nothing is read if the observation shows that there are none.
fn in_legacy<T>(
    observed: &Observed,
    find: impl FnOnce() -> Result<Vec<T>, legacy::LegacyError>,
) -> Result<Vec<T>, legacy::LegacyError> {
    if observed.may_have_legacy_tables {
        find()
    } else {
        Ok(Vec::new())
    }
}

impl Kernel for Namespace {
    fn add(&mut self, what: &Prerequisite) -> Result<bool, KernelError> {
        Ok(self.route()?.add(what)?)
    }

    fn remove(&mut self, what: &Prerequisite) -> Result<bool, KernelError> {
        Ok(self.route()?.remove(what)?)
    }

    fn discards_marked(&mut self) -> Option<Discards> {
        marks::discards()
    }

    fn prerequisites(&mut self) -> Result<Vec<Prerequisite>, KernelError> {
        Ok(self.route()?.own_prerequisites()?)
    }

    fn apply_rules(
        &mut self,
        backend: RuleBackend,
        ruleset: &Ruleset,
        observed: &Observed,
    ) -> Result<Change, KernelError> {
        self.rules(backend)?.apply(ruleset, observed)
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
        sysctl::replace(&self.other_proc, running::TCP_LOOSE, value)
    }

    fn remove_rules(&mut self, backend: RuleBackend) -> Result<bool, KernelError> {
        self.rules(backend)?.remove()
    }
}
