//! Properties of a pod that runs already: what redirects its traffic, its addresses, and its open connections.

use std::net::IpAddr;

use super::nftables::transaction::{Nftables, NftablesError};
use super::{Kernel, KernelError, Namespace, Observed, RuleBackend};
use crate::linux::sysctl::SysctlError;
use crate::mesh::redirectors::redirectors;
use crate::ruleset::{Action, ConntrackState, Match, Ruleset};

/// What redirects the traffic of a network namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holder {
    /// Nothing that is known.
    None,
    /// Rules owned by sidetrack, of any content.
    Sidetrack(RuleBackend),
    /// Another tool that redirects traffic.
    Other(&'static str),
}

/// The sysctl, one for each network namespace, by which conntrack picks up connections whose beginning it has not seen
/// (Documentation/networking/nf_conntrack-sysctl.rst).
pub const TCP_LOOSE: &str = "net.netfilter.nf_conntrack_tcp_loose";

impl Namespace {
    /// What redirects traffic in this network namespace. State that may not be read is skipped, except our own rules in
    /// nf_tables.
    ///
    /// # Errors
    /// nf_tables exists and does not answer, or does not permit reading.
    pub fn holder(&mut self, observed: &Observed) -> Result<Holder, KernelError> {
        match self.nftables().and_then(Nftables::check_available) {
            Ok(()) | Err(NftablesError::Unsupported { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        let ours = RuleBackend::ALL
            .into_iter()
            .find(|backend| observed.holds_rules(*backend));
        Ok(match (ours, redirectors(observed.all_chains()).first()) {
            (Some(backend), _) => Holder::Sidetrack(backend),
            (None, Some(other)) => Holder::Other(other.tool),
            (None, None) => Holder::None,
        })
    }

    /// The addresses of this network namespace that other hosts can reach.
    ///
    /// # Errors
    /// The kernel did not answer.
    pub fn addresses(&mut self) -> Result<Vec<IpAddr>, KernelError> {
        Ok(self.route()?.usable_addresses()?)
    }
}

/// The TCP connections that were open before the rules, and how they are kept alive.
///
/// Without [`TCP_LOOSE`] set to 0, conntrack takes the next packet of each for the first of a new connection; it is
/// redirected to a proxy that does not know the connection, and lost. The setting changes nothing for new connections.
#[derive(Debug, Default)]
pub struct OpenConnections {
    /// Their number; `None` if it cannot be read.
    open: Option<usize>,
    /// The previous value of the sysctl, if it was changed.
    before: Option<String>,
    /// Why the sysctl could not be changed.
    failed: Option<SysctlError>,
}

/// The fate of connections that were open before the rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Survivors {
    /// Their number; `None` if it cannot be read.
    pub open: Option<usize>,
    /// Why they may be interrupted, if so.
    pub disturbed: Option<String>,
}

impl OpenConnections {
    /// Makes conntrack ignore them, if there are any. If our rules are installed already, conntrack knows every
    /// connection.
    pub fn leave_alone(kernel: &mut dyn Kernel, observed: &Observed) -> Self {
        let ours = RuleBackend::ALL
            .into_iter()
            .any(|backend| observed.holds_rules(backend));
        let open = if ours { Some(0) } else { kernel.open_connections().ok() };
        let mut connections = Self {
            open,
            ..Self::default()
        };
        connections.try_again(kernel);
        connections
    }

    /// The same after the rules are applied: they may have made the kernel load conntrack, and the sysctl with it.
    pub fn try_again(&mut self, kernel: &mut dyn Kernel) {
        if self.open == Some(0) || self.before.is_some() {
            return;
        }
        match kernel.replace_loose("0") {
            Ok(before) => (self.before, self.failed) = (Some(before), None),
            Err(error) => self.failed = Some(error),
        }
    }

    /// Restores the sysctl.
    ///
    /// # Errors
    /// It cannot be restored.
    pub fn undo(&self, kernel: &mut dyn Kernel) -> Result<(), SysctlError> {
        match &self.before {
            Some(before) => kernel.replace_loose(before).map(drop),
            None => Ok(()),
        }
    }

    /// The fate of the connections under these rules.
    pub fn under(&self, ruleset: &Ruleset) -> Survivors {
        let drops_invalid = ruleset.chains.iter().flat_map(|chain| &chain.rules).any(|rule| {
            rule.action == Action::Drop && rule.matches.contains(&Match::ConntrackState(ConntrackState::Invalid))
        });
        let disturbed = match &self.failed {
            _ if self.open == Some(0) => None,
            Some(error) => Some(error.to_string()),
            None if drops_invalid => Some("--drop-invalid drops their packets".to_owned()),
            None => None,
        };
        Survivors {
            open: self.open,
            disturbed,
        }
    }
}
