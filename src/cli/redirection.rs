//! Plan, apply and cleanup in the network namespace of this thread.

use std::net::IpAddr;

use super::name_servers::needs_resolv_conf;
use super::output;
use crate::backend::install::{self, Removed};
use crate::backend::{Namespace, Observed, RemovedForeign, RuleBackend, applied, choice, iptables};
use crate::facts::Facts;
use crate::linux::cgroup;
use crate::linux::resolvers::{self, ResolversError};
use crate::linux::route::Loopback;
use crate::mesh::Mesh;
use crate::options::{Config, Settings};
use crate::plan::Plan;
use crate::render;
use crate::ruleset::Layout;
use crate::types::Output;

/// Redirects the traffic of this network namespace, or prints how.
///
/// # Errors
/// There is no plan, or the system or the permissions do not allow to install it.
pub fn apply(settings: &Settings) -> anyhow::Result<()> {
    if settings.dry_run.requested {
        return Ok(output::print(&text(settings)?)?);
    }
    let mut namespace = Namespace::claim();
    let observed = namespace.observe()?;
    observed.log_warnings();
    observed.warn_of_ipv6(settings);
    // Who makes a bridge for containers writes rules that translate their addresses, too.
    if observed.may_have_foreign_rules() {
        applied::warn_of_bridges(&settings.config);
    }
    if let Some(path) = &settings.config.processes.cgroup {
        cgroup::id(path)?;
    }
    let facts = facts(&settings.config, Some(&observed.loopback))?;
    let plan = Plan::new(&settings.config, &facts)?;
    applied::warn_of_options_without_effect(&settings.config, &facts, &plan);
    namespace.warn_of_foreign_rules(&settings.config, &observed);
    let chosen = install::apply(&mut namespace, &plan, settings.install.backend, &observed)?;
    let backend = chosen.backend;
    chosen.log_fallback();
    applied::log(&settings.config, &facts, &plan, backend, &chosen.done);
    Ok(())
}

/// The output of a dry run.
///
/// # Errors
/// There is no plan.
pub fn text(settings: &Settings) -> anyhow::Result<String> {
    let facts = observed_facts(&settings.config)?;
    let plan = Plan::new(&settings.config, &facts)?;
    if may_have_foreign_rules() {
        applied::warn_of_bridges(&settings.config);
    }
    applied::warn_of_options_without_effect(&settings.config, &facts, &plan);
    Ok(match settings.dry_run.output {
        Output::Nft => {
            let preferred = choice::candidates(settings.install.backend).first();
            let layout = preferred.and_then(|backend| backend.layout());
            render::nft::script_in(&plan, layout.unwrap_or(Layout::OneTable))
        }
        Output::Iptables => iptables::script(&plan)?,
        Output::Json => render::json::document(&plan),
    })
}

/// Whether this network namespace has foreign rules, or may have some, since they cannot be read.
fn may_have_foreign_rules() -> bool {
    let mut namespace = Namespace::default();
    let observed = namespace.observe();
    // An observation leaves out what it may not read.
    let observed = observed.and_then(|observed| namespace.holder(&observed).map(|_| observed));
    observed.map_or(true, |observed| observed.may_have_foreign_rules())
}

/// The plan for this network namespace, which stays unchanged. Facts that cannot be observed are those of an ordinary
/// pod.
///
/// # Errors
/// There is no plan, or a file that it depends on cannot be read.
pub fn plan(config: &Config) -> anyhow::Result<Plan> {
    Ok(Plan::new(config, &observed_facts(config)?)?)
}

/// The facts that the plan depends on, as far as they can be observed.
///
/// # Errors
/// A file cannot be read.
pub fn observed_facts(config: &Config) -> Result<Facts, ResolversError> {
    observed_facts_with(config, None)
}

/// The same, where the name servers of the pod's `/etc/resolv.conf` may be known.
///
/// # Errors
/// A file cannot be read.
pub fn observed_facts_with(config: &Config, resolvers: Option<&[IpAddr]>) -> Result<Facts, ResolversError> {
    let loopback = Namespace::default().loopback();
    if let Err(error) = &loopback {
        tracing::debug!(%error, "cannot observe this network namespace; planning for an ordinary pod");
    }
    facts_with(config, loopback.as_ref().ok(), resolvers)
}

/// The facts that the plan depends on. Name servers are read only if the options need them.
///
/// # Errors
/// A file cannot be read.
pub fn facts(config: &Config, loopback: Option<&Loopback>) -> Result<Facts, ResolversError> {
    facts_with(config, loopback, None)
}

/// The same, where the name servers of the pod's `/etc/resolv.conf` may be known.
///
/// # Errors
/// A file cannot be read.
pub fn facts_with(
    config: &Config,
    loopback: Option<&Loopback>,
    resolvers: Option<&[IpAddr]>,
) -> Result<Facts, ResolversError> {
    let resolvers = match resolvers {
        Some(known) => known.to_vec(),
        None if needs_resolv_conf(config) => resolvers::read()?,
        None => Vec::new(),
    };
    let facts = match loopback {
        Some(loopback) => loopback.facts(resolvers),
        None => Facts {
            resolvers,
            ..Facts::default()
        },
    };
    Ok(Facts {
        proxy_cgroup: proxy_cgroup(config),
        ..facts
    })
}

/// The ID of the proxy's cgroup. Rules with a cgroup that is gone match nothing, and only apply needs one.
fn proxy_cgroup(config: &Config) -> Option<u64> {
    let observed = cgroup::id(config.processes.cgroup.as_ref()?);
    if let Err(error) = &observed {
        tracing::warn!("{error}");
    }
    observed.ok()
}

/// Removes everything owned by sidetrack from this network namespace.
///
/// # Errors
/// The system or the permissions do not allow it.
pub fn cleanup() -> anyhow::Result<()> {
    let mut namespace = Namespace::claim();
    let observed = namespace.observe()?;
    observed.warn_of_foreign_rules();
    let removed = install::cleanup(&mut namespace, &observed)?;
    if removed == Removed::default() {
        tracing::info!("nothing of sidetrack to remove");
    }
    log_removed(&mut namespace, &observed, removed);
    Ok(())
}

fn log_removed(namespace: &mut Namespace, observed: &Observed, removed: Removed) {
    for backend in removed.rules {
        tracing::info!(%backend, "the rules were removed");
        match backend {
            RuleBackend::Nftables | RuleBackend::NftablesPerFamily => {}
            RuleBackend::IptablesNft => namespace.remove_empty_tables(&observed.own_iptables_nft_tables()),
            RuleBackend::IptablesLegacy => {
                tracing::info!(%backend, "its tables stay: the kernel removes them only with the network namespace");
            }
        }
    }
    for address in removed.addresses {
        tracing::info!(%address, "the address was removed from the loopback interface");
    }
    for what in removed.policy_routing {
        tracing::info!(%what, "the policy routing was removed");
    }
    for route in removed.loopback_routes {
        tracing::info!(%route, "removed the route of a bound interface");
    }
    for (what, by) in removed.kept {
        tracing::warn!(
            by,
            "{what} is kept, since foreign rules need it: once they are gone, run `sidetrack cleanup` again"
        );
    }
}

/// Removes the rules of other meshes' own programs from this network namespace, and nothing else.
///
/// # Errors
/// The system or the permissions do not allow it.
pub fn cleanup_foreign(meshes: &[&Mesh]) -> anyhow::Result<()> {
    let mut namespace = Namespace::claim();
    let observed = namespace.observe()?;
    for mesh in meshes {
        let removed = namespace.remove_rules_of(mesh, &observed)?;
        let mesh = mesh.name;
        if removed == RemovedForeign::default() {
            tracing::info!(mesh, "nothing of this mesh to remove");
        }
        for (variant, family) in removed.iptables {
            tracing::info!(mesh, iptables = %variant, %family, "the mesh's rules were removed");
        }
        for table in removed.tables {
            tracing::info!(mesh, table, "the mesh's table was removed");
        }
        for what in removed.policy_routing {
            tracing::info!(mesh, %what, "the mesh's policy routing was removed");
        }
    }
    let observed = namespace.observe()?;
    observed.warn_of_foreign_rules();
    // An earlier run of cleanup may have kept prerequisites that these rules needed.
    let redirects = RuleBackend::ALL
        .into_iter()
        .any(|backend| observed.holds_rules(backend));
    if !redirects {
        let removed = install::cleanup(&mut namespace, &observed)?;
        log_removed(&mut namespace, &observed, removed);
    }
    Ok(())
}
