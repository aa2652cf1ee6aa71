//! What commands do in the network namespace of this thread: plan, apply, clean up.

use super::output;
use crate::backend::choice::Chosen;
use crate::backend::install::{self, Applied, Removed};
use crate::backend::{Change, Namespace, iptables};
use crate::facts::Facts;
use crate::linux::resolvers::{self, ResolversError};
use crate::linux::route::Loopback;
use crate::options::{Config, Settings};
use crate::plan::Plan;
use crate::render;
use crate::types::{DnsServers, Output};

/// Redirects the traffic of this network namespace, or prints how.
///
/// # Errors
/// There is no such plan, or the system cannot or may not put it in place.
pub fn apply(settings: &Settings) -> anyhow::Result<()> {
    if settings.dry_run.requested {
        return Ok(output::print(&text(settings)?)?);
    }
    let mut namespace = Namespace::claim();
    let observed = namespace.observe()?;
    observed.log_warnings();
    observed.warn_of_ipv6(&settings.config);
    let plan = Plan::new(&settings.config, &facts(&settings.config, Some(&observed.loopback))?)?;
    let applied = install::apply(&mut namespace, &plan, settings.install.backend, &observed)?;
    tell(&plan, &applied);
    Ok(())
}

/// What a dry run prints.
///
/// # Errors
/// There is no such plan.
pub fn text(settings: &Settings) -> anyhow::Result<String> {
    let plan = plan(&settings.config)?;
    Ok(match settings.dry_run.output {
        Output::Nft => render::nft::script(&plan),
        Output::Iptables => iptables::script(&plan),
        Output::Json => render::json::document(&plan),
    })
}

/// The plan for this network namespace. Looks at it and changes nothing; what cannot be seen is as in an ordinary pod.
///
/// # Errors
/// There is no such plan, or a file that it depends on cannot be read.
pub fn plan(config: &Config) -> anyhow::Result<Plan> {
    Ok(Plan::new(config, &seen(config)?)?)
}

/// What the plan depends on, as far as it can be seen.
///
/// # Errors
/// A file cannot be read.
pub fn seen(config: &Config) -> Result<Facts, ResolversError> {
    let loopback = Namespace::default().loopback();
    if let Err(error) = &loopback {
        tracing::debug!(%error, "cannot observe this network namespace; planning for an ordinary pod");
    }
    facts(config, loopback.as_ref().ok())
}

/// What the plan depends on. Name servers are looked up only where they matter.
///
/// # Errors
/// A file cannot be read.
pub fn facts(config: &Config, loopback: Option<&Loopback>) -> Result<Facts, ResolversError> {
    let asks_file = config.dns.redirect && config.dns.servers == DnsServers::ResolvConf;
    let resolvers = if asks_file { resolvers::read()? } else { Vec::new() };
    Ok(match loopback {
        Some(loopback) => loopback.facts(resolvers),
        None => Facts {
            resolvers,
            ..Facts::default()
        },
    })
}

fn tell(plan: &Plan, chosen: &Chosen<Applied>) {
    let applied = &chosen.done;
    let families: Vec<String> = plan.ruleset.families.iter().map(|family| family.to_string()).collect();
    let (families, backend) = (families.join(" and "), chosen.backend);
    if let Some(reason) = &chosen.fallback {
        tracing::warn!(%backend, reason, "taken instead of nftables");
    }
    match applied.change {
        Change::Created => tracing::info!(%backend, families, "traffic is redirected now"),
        Change::Replaced => tracing::info!(%backend, families, "the redirection was replaced by this one"),
        Change::Unchanged => tracing::info!(%backend, families, "traffic was redirected like this already"),
    }
    if applied.change == Change::Unchanged {
        for missing in &applied.added {
            tracing::warn!(%missing, "this was missing and has been put back");
        }
    }
}

/// Removes what is ours from this network namespace.
///
/// # Errors
/// The system cannot or may not.
pub fn cleanup() -> anyhow::Result<()> {
    let mut namespace = Namespace::claim();
    let observed = namespace.observe()?;
    let removed = install::cleanup(&mut namespace, &observed)?;
    if removed == Removed::default() {
        tracing::info!("there was nothing of sidetrack's here");
        return Ok(());
    }
    for backend in removed.rules {
        tracing::info!(%backend, "the rules were removed");
    }
    for address in removed.addresses {
        tracing::info!(%address, "the address was taken from the loopback interface");
    }
    for what in removed.policy_routing {
        tracing::info!(%what, "the policy routing was removed");
    }
    Ok(())
}
