//! ADD and CHECK: the verdict on a pod, and the rules in its network namespace.

use std::net::IpAddr;
use std::path::Path;

use super::environment::Attachment;
use super::error::Error;
use super::netconf::NetConf;
use super::report::Outcome;
use crate::backend::check::{Report, State};
use crate::backend::choice::{self, choose};
use crate::backend::install::{self, Applied};
use crate::backend::iptables::isolation::isolate_this_thread;
use crate::backend::{Namespace, Observed, RuleBackend, applied};
use crate::drift::Difference;
use crate::facts::Facts;
use crate::linux::netns::{Netns, NetnsError};
use crate::linux::privilege;
use crate::mesh::pod::{Pod, PodName};
use crate::mesh::policy;
use crate::mesh::verdict::{self, Inputs, Skipped, Undecided, Verdict};
use crate::options::{Config, Layer, Settings};
use crate::plan::Plan;
use crate::types::{Backend, DnsServers, MeshName};

/// The verdict on a pod: whether it is redirected, and how. A pure function of the request.
///
/// # Errors
/// The NetConf is not usable, there is no verdict, or the annotations have problems: all of them.
pub fn verdict(netconf: &NetConf, pod: &PodName) -> Result<Verdict, Error> {
    verdict_with(netconf, pod, &Layer::default(), &Layer::default())
}

/// The verdict on a pod with other options: `overrides` precede its annotations, `file` comes after the NetConf.
///
/// # Errors
/// See [`verdict`].
pub fn verdict_with(netconf: &NetConf, pod: &PodName, overrides: &Layer, file: &Layer) -> Result<Verdict, Error> {
    // Exempt pods must start even if the NetConf is not valid.
    if policy::exempt(&netconf.policy, pod).is_none() {
        netconf.usable()?;
    }
    let pod = Pod::of_runtime(pod, netconf.annotations.as_ref());
    let inputs = Inputs {
        policy: &netconf.policy,
        overrides,
        fallbacks: &netconf.redirect.clone().over(file.clone()),
        read: &|_| None,
    };
    verdict::verdict(&pod, &inputs).map_err(|undecided| match undecided {
        Undecided::NoAnnotations => Error::NoAnnotations {
            requested: netconf.requests_annotations,
        },
        Undecided::Invalid(problems) => Error::Options(problems),
        // No runtime passes arguments of containers.
        Undecided::Arguments { mistakes, .. } => Error::Internal(mistakes.join("; ")),
    })
}

/// The mesh of a pod, as far as annotations and options show it.
pub fn mesh_of(netconf: &NetConf, pod: &PodName) -> Option<MeshName> {
    let inputs = Inputs {
        policy: &netconf.policy,
        overrides: &Layer::default(),
        fallbacks: &netconf.redirect,
        read: &|_| None,
    };
    verdict::mesh(&Pod::of_runtime(pod, netconf.annotations.as_ref()), &inputs)
}

/// Redirects the traffic of a pod, if the verdict is to redirect; returns the outcome and its reason. Repeating it changes
/// nothing.
///
/// # Errors
/// See [`Error`]. The network namespace is unchanged then.
pub fn add(netconf: &NetConf, attachment: &Attachment) -> Result<Outcome, Error> {
    let netns = pod_netns(attachment)?;
    let (reason, settings) = match verdict(netconf, &attachment.pod)? {
        Verdict::Skipped(Skipped { reason, .. }) => {
            tracing::info!(reason, "not redirected");
            return Ok(Outcome::NotRedirected(reason));
        }
        Verdict::Redirected(redirected) => (redirected.reason, redirected.settings),
    };
    tracing::info!(reason, "redirected");
    with_lock(&netns, settings.install.backend, &mut |backend, namespace, observed| {
        observed.log_warnings();
        observed.warn_of_ipv6(&settings);
        install_rules(netconf, &settings.config, backend, namespace, observed).map(drop)
    })?;
    Ok(Outcome::Redirected(reason))
}

/// Work in a network namespace, with a backend.
pub(super) type Work<'w> = dyn FnMut(RuleBackend, &mut Namespace, &Observed) -> Result<(), Error> + Send + 'w;

/// Runs `work` in a network namespace that it changes, under the lock of sidetrack. With an automatic choice of the
/// backend, `work` runs again with the next backend where the first one does not work.
///
/// # Errors
/// The namespace cannot be entered, or `work` failed.
pub(super) fn with_lock(netns: &Netns, backend: Backend, work: &mut Work) -> Result<(), Error> {
    let kernel_error = |error| match error {
        Error::System(error) => Ok(error),
        error => Err(error),
    };
    let chosen = choose(backend, kernel_error, |backend| {
        let programs = match backend {
            RuleBackend::Nftables | RuleBackend::NftablesPerFamily => Programs::None,
            RuleBackend::IptablesNft | RuleBackend::IptablesLegacy => Programs::Isolated,
        };
        inside(netns, programs, Namespace::claim, &mut |namespace, observed| {
            work(backend, namespace, observed)
        })
    })?;
    chosen.log_fallback();
    Ok(())
}

/// Redirects the traffic of the namespace that was observed.
///
/// # Errors
/// There is no plan for it, or the kernel refused a request.
pub(super) fn install_rules(
    netconf: &NetConf,
    config: &Config,
    backend: RuleBackend,
    namespace: &mut Namespace,
    observed: &Observed,
) -> Result<Applied, Error> {
    let (settled, facts) = planning_input(config, observed, &netconf.resolvers);
    if settled.dns.servers != config.dns.servers && netconf.resolvers.is_empty() {
        tracing::info!("the runtime does not pass the pod's name servers: DNS queries to any server are captured");
    }
    let config = settled;
    let plan = Plan::new(&config, &facts)?;
    applied::warn_of_options_without_effect(&config, &facts, &plan);
    namespace.warn_of_foreign_rules(&config, observed);
    let done = install::apply_with(namespace, &plan, backend, observed)?;
    applied::log(&config, &facts, &plan, backend, &done);
    Ok(done)
}

/// Whether the backend runs programs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Programs {
    /// The backend runs no program.
    None,
    /// The programs run isolated from the host. That takes longer the more file systems are mounted, so it is done only
    /// where it is needed.
    Isolated,
}

/// Checks that the rules of ADD are in place.
///
/// # Errors
/// The rules differ, or an error of [`add`].
pub fn check(netconf: &NetConf, attachment: &Attachment) -> Result<(), Error> {
    let netns = pod_netns(attachment)?;
    let Settings { config, install, .. } = match verdict(netconf, &attachment.pod)? {
        Verdict::Skipped(_) => return Ok(()),
        Verdict::Redirected(redirected) => redirected.settings,
    };
    let Report { state, differences, .. } = compare(netconf, &config, install.backend, &netns)?;
    // Foreign rules are not the work of ADD, and repeating ADD would not change them.
    let (repairable, foreign): (Vec<Difference>, Vec<Difference>) =
        differences.into_iter().partition(Difference::is_repaired_by_apply);
    for difference in foreign {
        tracing::warn!("{difference}");
    }
    if !matches!(state, State::Absent | State::Foreign) && repairable.is_empty() {
        return Ok(());
    }
    Err(Error::Check {
        state,
        netns: attachment.netns.display().to_string(),
        differences: repairable,
    })
}

/// Compares a network namespace with the rules that ADD would install; changes nothing.
///
/// # Errors
/// There is no plan, or the namespace cannot be entered or read.
pub(super) fn compare(netconf: &NetConf, config: &Config, backend: Backend, netns: &Netns) -> Result<Report, Error> {
    let mut report = None;
    inside(netns, Programs::None, Namespace::default, &mut |namespace, observed| {
        report = Some(compare_here(netconf, config, backend, namespace, observed)?);
        Ok(())
    })?;
    report.ok_or_else(|| Error::Internal("the rules were not compared".to_owned()))
}

/// Compares the network namespace of this thread with the rules that ADD would install; changes nothing.
///
/// # Errors
/// There is no plan, or the namespace cannot be read.
pub(super) fn compare_here(
    netconf: &NetConf,
    config: &Config,
    backend: Backend,
    namespace: &mut Namespace,
    observed: &Observed,
) -> Result<Report, Error> {
    let plan = plan(config, observed, &netconf.resolvers)?;
    Ok(namespace.check(&plan, backend, observed)?)
}

/// Opens a pod's network namespace: once, so that all work is done in the same one.
fn pod_netns(attachment: &Attachment) -> Result<Netns, Error> {
    let netns = Netns::open(attachment.netns.clone())?;
    refuse_host_netns(&netns, &["/proc".as_ref()])?;
    Ok(netns)
}

/// Refuses the host's network namespace: rules there would redirect the traffic of the whole node. `proc` are
/// directories where the host's proc file system may be mounted.
pub(super) fn refuse_host_netns(netns: &Netns, proc: &[&Path]) -> Result<(), Error> {
    match netns.host_owner(proc) {
        None => Ok(()),
        Some(owner) => Err(Error::Environment(vec![format!(
            "CNI_NETNS: the network namespace {} is {owner}, not a pod's",
            netns.path().display()
        )])),
    }
}

/// Observes a network namespace and runs `work` in it, with no more privileges than that takes.
fn inside(
    netns: &Netns,
    programs: Programs,
    open: fn() -> Namespace,
    work: &mut (dyn FnMut(&mut Namespace, &Observed) -> Result<(), Error> + Send),
) -> Result<(), Error> {
    let span = tracing::Span::current();
    netns.run(|| {
        span.in_scope(|| {
            if programs == Programs::Isolated {
                isolate_this_thread().map_err(Error::Isolation)?;
            }
            privilege::keep_network_capabilities().map_err(NetnsError::from)?;
            let mut namespace = open();
            let observed = namespace.observe()?;
            work(&mut namespace, &observed)
        })
    })?
}

/// The plan for the observed namespace.
fn plan(config: &Config, observed: &Observed, resolvers: &[IpAddr]) -> Result<Plan, Error> {
    let (config, facts) = planning_input(config, observed, resolvers);
    Ok(Plan::new(&config, &facts)?)
}

/// The configuration and the facts that the plan is computed from.
pub(super) fn planning_input(config: &Config, observed: &Observed, resolvers: &[IpAddr]) -> (Config, Facts) {
    let facts = observed.loopback.facts(resolvers.to_vec());
    (with_name_servers(config, resolvers), facts)
}

/// The configuration with the name servers that the runtime passed, if it refers to `/etc/resolv.conf`: the host's file
/// is not the pod's. Where the runtime passed none, DNS queries to any server are captured.
pub fn with_name_servers(config: &Config, resolvers: &[IpAddr]) -> Config {
    let mut config = config.clone();
    if config.dns.redirect && config.dns.servers == DnsServers::ResolvConf {
        config.dns.servers = match resolvers {
            [] => DnsServers::All,
            servers => DnsServers::These(servers.to_vec()),
        };
    }
    config
}

/// Says whether ADD would work here.
///
/// # Errors
/// The reason not to.
pub fn status(netconf: &NetConf) -> Result<(), Error> {
    netconf.usable()?;
    if !netconf.requests_annotations && netconf.policy.needs_annotations() {
        let how = super::error::how_to_get_annotations(false);
        return Err(Error::NotAvailable(format!("no pod could start: {how}")));
    }
    let backend = netconf.redirect.backend.unwrap_or(Settings::default().install.backend);
    choice::ready(backend).map_err(Error::NotAvailable)
}
