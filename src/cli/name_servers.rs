//! The name servers of a pod, where options refer to its `/etc/resolv.conf`. The file of this process is another one,
//! unless it runs in the pod.

use std::net::IpAddr;

use super::node::wanted::{Given, node_to_read, places};
use crate::cni::attach::with_name_servers;
use crate::linux::netns;
use crate::linux::resolvers::{self, OfNamespace, ResolversError};
use crate::node::repair::sandbox::Sandbox;
use crate::node::repair::target;
use crate::options::Config;
use crate::types::DnsServers;

/// Sets the name servers of another network namespace, if the options refer to its `/etc/resolv.conf`, which differs
/// from the one of this process: those that the runtime passed to the plugin, else those in the files of the namespace. Call it before entering the namespace, with all privileges.
///
/// # Errors
/// A file cannot be read.
pub fn of_netns(config: &mut Config, netns: &str) -> Result<(), ResolversError> {
    if !needs_resolv_conf(config) {
        return Ok(());
    }
    if let Some(pod) = pod_of(netns)
        && let Ok(netconf) = pod.netconf()
        && (!netconf.resolvers.is_empty() || pod.ran_plugin == Some(true))
    {
        let pod = pod.pod.to_string();
        tracing::info!(
            netns,
            pod,
            "the name servers are those that the runtime passed to the plugin for this pod"
        );
        *config = with_name_servers(config, &netconf.resolvers);
        return Ok(());
    }
    match resolvers::of_namespace(&netns::path(netns))? {
        OfNamespace::Own => {}
        OfNamespace::Known(servers, from) => {
            tracing::info!(netns, from, "the name servers are those of that network namespace");
            config.dns.servers = DnsServers::These(servers);
        }
        OfNamespace::Unknown => {
            tracing::warn!(
                netns,
                "the name servers of that network namespace are unknown: lookups to any server are captured. \
                 Name them with --dns-servers"
            );
            config.dns.servers = DnsServers::All;
        }
    }
    Ok(())
}

/// Sets the name servers of a pod that is not on this machine, if the options refer to its `/etc/resolv.conf`. Where they
/// are not known, lookups to any server count as captured.
pub fn of_distant_pod(config: &mut Config, servers: Option<&[IpAddr]>) {
    if !needs_resolv_conf(config) {
        return;
    }
    config.dns.servers = match servers {
        Some(servers) if !servers.is_empty() => DnsServers::These(servers.to_vec()),
        _ => {
            tracing::warn!(
                "the name servers of that pod are unknown: lookups to any server count as captured. \
                 Name them with --dns-servers"
            );
            DnsServers::All
        }
    };
}

/// Whether the captured lookups depend on `/etc/resolv.conf`.
pub fn needs_resolv_conf(config: &Config) -> bool {
    config.dns.redirect && config.dns.servers == DnsServers::ResolvConf
}

/// The pod that the runtime's cache has for a network namespace.
fn pod_of(netns: &str) -> Option<Sandbox> {
    let netns = netns::identity(&netns::path(netns)).ok()?;
    let node = node_to_read(Given::Variables, &mut Vec::new())?;
    target::owner_of(&node, &places(Given::Variables), netns)
}
