//! What matters of a pod that runs already: who redirects its traffic, which addresses it has, and the connections that
//! it has open.

use std::net::IpAddr;

use super::nftables::transaction::{Nftables, NftablesError};
use super::{Kernel, KernelError, Namespace, Observed, RuleBackend};
use crate::linux::sysctl::SysctlError;
use crate::mesh::redirectors::redirectors;
use crate::ruleset::{Action, ConntrackState, Match, Ruleset};

/// Who redirects the traffic of a network namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holder {
    /// Nobody that is known.
    Nobody,
    /// Rules of ours, whatever they say.
    Ours(RuleBackend),
    /// Another tool that does what we do.
    Other(&'static str),
}

/// A setting of the kernel for each network namespace: whether it takes a connection of which it has not seen the
/// beginning for a new one (Documentation/networking/nf_conntrack-sysctl.rst).
pub const LOOSE: &str = "net.netfilter.nf_conntrack_tcp_loose";

impl Namespace {
    /// Who redirects traffic here. What may not be seen is passed over, but for our own rules in nf_tables.
    ///
    /// # Errors
    /// nf_tables is there and does not answer, or may not be asked.
    pub fn holder(&mut self, observed: &Observed) -> Result<Holder, KernelError> {
        match self.nftables().and_then(Nftables::answers) {
            Ok(()) | Err(NftablesError::Unsupported { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        let ours = RuleBackend::ALL
            .into_iter()
            .find(|backend| observed.holds_rules(*backend));
        Ok(match (ours, redirectors(observed.all_chains()).first()) {
            (Some(backend), _) => Holder::Ours(backend),
            (None, Some(other)) => Holder::Other(other.tool),
            (None, None) => Holder::Nobody,
        })
    }

    /// The addresses of this network namespace that other hosts could reach.
    ///
    /// # Errors
    /// The kernel did not answer.
    pub fn addresses(&mut self) -> Result<Vec<IpAddr>, KernelError> {
        Ok(self.route()?.usable_addresses()?)
    }
}

/// The TCP connections that were open before there were rules, and what was done for them.
///
/// The next packet of each would be taken for the first one of a new connection, redirected to a proxy that knows nothing
/// of it, and lost; unless [`LOOSE`] is 0. For new connections that changes nothing.
#[derive(Debug, Default)]
pub struct OpenConnections {
    /// How many there are; `None` where that cannot be seen.
    open: Option<usize>,
    /// What the setting was, where it was changed.
    before: Option<String>,
    /// Why it was not.
    failed: Option<SysctlError>,
}

/// What has become of connections that were open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Survivors {
    /// How many there were; `None` where that cannot be seen.
    pub open: Option<usize>,
    /// Why they may not go on as they were, if so.
    pub disturbed: Option<String>,
}

impl OpenConnections {
    /// Makes the kernel leave them alone, where there are any. Where there are rules of ours, the kernel knows every
    /// connection by now.
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

    /// The same once there are rules: they may be what makes the kernel load conntrack, and the setting with it.
    pub fn try_again(&mut self, kernel: &mut dyn Kernel) {
        if self.open == Some(0) || self.before.is_some() {
            return;
        }
        match kernel.replace_loose("0") {
            Ok(before) => (self.before, self.failed) = (Some(before), None),
            Err(error) => self.failed = Some(error),
        }
    }

    /// Puts the setting back.
    ///
    /// # Errors
    /// It cannot be put back.
    pub fn undo(&self, kernel: &mut dyn Kernel) -> Result<(), SysctlError> {
        match &self.before {
            Some(before) => kernel.replace_loose(before).map(drop),
            None => Ok(()),
        }
    }

    /// What has become of them under these rules.
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
