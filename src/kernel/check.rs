//! Questions that change nothing: whether what is installed is what was planned, whether it could be, and whose
//! network namespace a path leads to.

use std::fs;
use std::io;
use std::net::UdpSocket;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use caps::{CapSet, Capability};

use super::iptables::{Iptables, Variant};
use super::nftables::{Nftables, NftablesError};
use super::route::Prerequisite;
use super::{KernelError, Namespace, Observed, RuleBackend};
use crate::config::types::Backend;
use crate::plan::Plan;
use crate::ruleset::{Family, Installed};

/// How what is installed compares with a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It is the same.
    InSync,
    /// There are no rules of ours.
    Absent,
    /// There are others, or more, or what they need is missing.
    Drifted,
}

impl Namespace {
    /// Compares this network namespace with `plan`, as it would be applied with `backend`.
    ///
    /// # Errors
    /// The system did not answer.
    pub fn check(&mut self, plan: &Plan, backend: Backend, observed: &Observed) -> Result<State, KernelError> {
        let holding: Vec<RuleBackend> = RuleBackend::ALL
            .into_iter()
            .filter(|backend| observed.holds_rules(*backend))
            .collect();
        let [holding] = holding.as_slice() else {
            // On two backends at once, one is left over.
            return Ok(if holding.is_empty() {
                State::Absent
            } else {
                State::Drifted
            });
        };
        let wanted: &[RuleBackend] = match backend {
            Backend::Auto => &[RuleBackend::Nftables, RuleBackend::IptablesLegacy],
            Backend::Nftables => &[RuleBackend::Nftables],
            Backend::IptablesNft => &[RuleBackend::IptablesNft],
            Backend::IptablesLegacy => &[RuleBackend::IptablesLegacy],
        };
        let same = wanted.contains(holding)
            && has_what_rules_need(plan, observed)
            && match holding {
                RuleBackend::Nftables => self.nftables()?.holds(&plan.ruleset)?,
                RuleBackend::IptablesNft => Iptables::find(Variant::Nft)?.holds(&plan.ruleset)?,
                RuleBackend::IptablesLegacy => Iptables::find(Variant::Legacy)?.holds(&plan.ruleset)?,
            };
        Ok(if same { State::InSync } else { State::Drifted })
    }
}

impl Namespace {
    /// Our rules of a backend, as packets of `family` meet them; no chains where there are none.
    ///
    /// # Errors
    /// They could not be read.
    pub fn installed(&mut self, backend: RuleBackend, family: Family) -> Result<Installed, KernelError> {
        Ok(match backend {
            RuleBackend::Nftables => self.nftables()?.installed()?,
            RuleBackend::IptablesNft => Iptables::find(Variant::Nft)?.installed(family)?,
            RuleBackend::IptablesLegacy => Iptables::find(Variant::Legacy)?.installed(family)?,
        })
    }
}

/// Whether the addresses and routes that the rules rely on are there, and none of ours besides.
fn has_what_rules_need(plan: &Plan, observed: &Observed) -> bool {
    let (wanted, ours) = (Prerequisite::of(plan), observed.prerequisites());
    let is_there = |what: &Prerequisite| match what {
        _ if ours.contains(what) => true,
        // Somebody else may have put it there before us. Only an address of this host can be bound to.
        Prerequisite::Address(address) => UdpSocket::bind((*address, 0)).is_ok(),
        Prerequisite::Rule { .. } | Prerequisite::Route { .. } => false,
    };
    wanted.iter().all(is_there) && ours.iter().all(|what| wanted.contains(what))
}

/// Says whether network namespaces could be programmed from here, as far as that can be told without doing so.
///
/// # Errors
/// What is missing, in words.
pub fn ready(backend: Backend) -> Result<(), String> {
    for capability in [Capability::CAP_SYS_ADMIN, Capability::CAP_NET_ADMIN] {
        if !caps::has_cap(None, CapSet::Effective, capability).unwrap_or(false) {
            return Err(format!("{capability} is missing: the runtime has to run as root"));
        }
    }
    let nftables = || Nftables::open().and_then(|mut nftables| nftables.answers());
    let iptables = |variant| Iptables::find(variant).map(drop);
    match backend {
        Backend::Auto => nftables().or_else(|error| match error {
            NftablesError::Unsupported { .. } => {
                iptables(Variant::Legacy).map_err(|legacy| format!("no backend: {error}. {legacy}"))
            }
            error => Err(error.to_string()),
        }),
        Backend::Nftables => nftables().map_err(|error| error.to_string()),
        Backend::IptablesNft => iptables(Variant::Nft).map_err(|error| error.to_string()),
        Backend::IptablesLegacy => iptables(Variant::Legacy).map_err(|error| error.to_string()),
    }
}

/// Whose network namespace a path leads to, where it is not a pod's: this process's own, or that of the host's first
/// process, where that may be seen.
///
/// # Errors
/// The path leads nowhere.
pub fn owner_of_host_netns(netns: &Path) -> io::Result<Option<&'static str>> {
    const HOSTS: [(&str, &str); 2] = [
        ("/proc/thread-self/ns/net", "the one that this plugin runs in"),
        ("/proc/1/ns/net", "the host's"),
    ];
    let identity = |path: &Path| fs::metadata(path).map(|file| (file.dev(), file.ino()));
    let wanted = identity(netns)?;
    let same = |(path, _): &&(&str, &str)| identity(Path::new(path)).is_ok_and(|host| host == wanted);
    Ok(HOSTS.iter().find(same).map(|(_, owner)| *owner))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_network_namespace_is_known() {
        for path in ["/proc/self/ns/net", "/proc/thread-self/ns/net"] {
            assert!(owner_of_host_netns(Path::new(path)).unwrap().is_some(), "{path}");
        }
        assert_eq!(owner_of_host_netns(Path::new("/proc/self/status")).unwrap(), None);
        assert!(owner_of_host_netns(Path::new("/no/such/namespace")).is_err());
    }
}
