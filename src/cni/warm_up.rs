//! Rules in a network namespace made for them, before the first pod: the kernel loads modules when rules ask for them, and
//! what a node cannot do is known before a pod needs it.

use std::io;

use thiserror::Error;

use super::attach::{planning_input, with_lock};
use super::error::Error as PluginError;
use super::netconf::NetConf;
use crate::backend::choice::{RuleBackend, candidates};
use crate::backend::{KernelError, install};
use crate::linux::netns::Netns;
use crate::mesh;
use crate::plan::Plan;
use crate::types::Backend;

/// Why no rules were applied.
#[derive(Debug, Error)]
pub enum WarmUpError {
    /// This process may not make a network namespace, or may not write rules in it. Nothing is wrong with the node.
    #[error("applying rules in a network namespace of its own needs CAP_SYS_ADMIN and CAP_NET_ADMIN: {0}")]
    NoRights(String),
    /// No network namespace can be made.
    #[error("making a network namespace: {0}")]
    Netns(io::Error),
    /// The kernel lacks what nf_tables needs; the plugin will try legacy iptables, with the programs of the node.
    #[error("{0}. Pods get their rules by legacy iptables, if the node has its programs")]
    OnlyLegacy(KernelError),
    /// The plugin would fail, too.
    #[error(transparent)]
    Failed(PluginError),
}

/// Applies the rules of a NetConf once, by nf_tables, in a network namespace that ends with this call. Returns the backend;
/// `None` if the NetConf asks for iptables, whose programs are on the node and not necessarily here.
///
/// # Errors
/// See [`WarmUpError`].
pub fn warm_up(netconf: &NetConf) -> Result<Option<RuleBackend>, WarmUpError> {
    netconf.usable().map_err(WarmUpError::Failed)?;
    let invalid = |problems| WarmUpError::Failed(PluginError::Options(problems));
    let settings = mesh::settings(netconf.redirect.clone()).map_err(invalid)?;
    let wanted = settings.install.backend;
    if candidates(wanted).iter().all(|backend| backend.layout().is_none()) {
        return Ok(None);
    }
    let only_nftables = match wanted {
        Backend::Auto => Backend::Nftables,
        other => other,
    };
    let netns = Netns::make().map_err(|error| match error.kind() {
        io::ErrorKind::PermissionDenied => WarmUpError::NoRights(error.to_string()),
        _ => WarmUpError::Netns(error),
    })?;
    let mut used = None;
    let done = with_lock(&netns, only_nftables, &mut |backend, namespace, _| {
        namespace.set_loopback_up()?;
        let observed = namespace.observe()?;
        let (config, facts) = planning_input(&settings.config, &observed, &netconf.resolvers);
        let plan = Plan::new(&config, &facts)?;
        install::apply_with(namespace, &plan, backend, &observed)?;
        used = Some(backend);
        Ok(())
    });
    match done {
        Ok(()) => Ok(used),
        Err(PluginError::System(error)) if error.advice().is_some() => Err(WarmUpError::NoRights(error.to_string())),
        Err(PluginError::System(error)) if wanted == Backend::Auto && error.unsupported().is_some() => {
            Err(WarmUpError::OnlyLegacy(error))
        }
        Err(error) => Err(WarmUpError::Failed(error)),
    }
}
