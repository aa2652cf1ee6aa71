//! What matters of a pod that runs already: who redirects its traffic, which addresses it has, and the connections that
//! it has open.

use std::fs::OpenOptions;
use std::io::{self, ErrorKind, Write as _};
use std::net::IpAddr;
use std::path::Path;

use super::nftables::transaction::{Nftables, NftablesError};
use super::{KernelError, Namespace, Observed, RuleBackend};
use crate::mesh::redirectors::redirectors;

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
const LOOSE: &str = "sys/net/netfilter/nf_conntrack_tcp_loose";

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

/// Makes the kernel leave the TCP connections alone that are open in the network namespace of this thread. Otherwise
/// the next packet of each would be taken for the first one of a new connection, redirected to a proxy that knows
/// nothing of it, and lost. For new connections nothing changes. `proc` are places where a proc file system may be
/// mounted: containers often have one that cannot be written to.
///
/// # Errors
/// None of them has the setting, as before conntrack is loaded ([`ErrorKind::NotFound`]), or it may not be changed.
pub fn leave_open_connections_alone(proc: &[&Path]) -> io::Result<()> {
    let mut result = Err(ErrorKind::NotFound.into());
    for proc in proc {
        let setting = OpenOptions::new().write(true).open(proc.join(LOOSE));
        result = setting.and_then(|mut setting| setting.write_all(b"0"));
        if result.is_ok() {
            break;
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_that_is_nowhere_is_told() {
        let nowhere = Path::new("/no/such/proc");
        let error = leave_open_connections_alone(&[nowhere]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
    }
}
