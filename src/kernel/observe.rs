//! Looking at a network namespace, and changing nothing.

use super::KernelError;
use super::legacy;
use super::nftables::{Nftables, NftablesError};
use super::route::{Loopback, Route};
use crate::facts::InstalledChain;

/// What a look at a network namespace shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observed {
    /// The loopback interface.
    pub loopback: Loopback,
    /// The chains of nf_tables (iptables-nft's among them) and of legacy iptables.
    pub chains: Vec<InstalledChain>,
}

/// Looks at the loopback interface of this thread's network namespace.
///
/// # Errors
/// The kernel did not answer.
pub fn loopback() -> Result<Loopback, KernelError> {
    Ok(Route::open()?.loopback()?)
}

/// Looks at this thread's network namespace.
///
/// # Errors
/// The kernel did not answer.
pub fn observe() -> Result<Observed, KernelError> {
    Ok(Observed {
        loopback: loopback()?,
        chains: chains()?,
    })
}

fn chains() -> Result<Vec<InstalledChain>, KernelError> {
    let mut chains = match Nftables::open().and_then(|mut nftables| nftables.chains()) {
        Ok(chains) => chains,
        // Whoever is about to write will say so better.
        Err(error @ (NftablesError::Unsupported { .. } | NftablesError::NotPermitted(_))) => {
            tracing::debug!(%error, "cannot see the chains of nf_tables");
            Vec::new()
        }
        Err(error) => return Err(error.into()),
    };
    chains.extend(legacy::chains());
    Ok(chains)
}
