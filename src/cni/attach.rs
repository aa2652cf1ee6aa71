//! ADD and CHECK: what is to be done about a pod, and doing it in its network namespace.

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
use crate::types::{Backend, DnsServers};

/// What becomes of a pod: a pure function of the request.
///
/// # Errors
/// The NetConf is not usable, there is no verdict, or everything that is wrong with the annotations.
pub fn verdict(netconf: &NetConf, pod: &PodName) -> Result<Verdict, Error> {
    // What is exempt must not depend on whether the NetConf is in order.
    if policy::exempt(&netconf.policy, pod).is_none() {
        netconf.usable()?;
    }
    let pod = Pod::of_runtime(pod, netconf.annotations.as_ref());
    let inputs = Inputs {
        policy: &netconf.policy,
        overrides: &Layer::default(),
        fallbacks: &netconf.redirect,
        read: &|_| None,
    };
    verdict::verdict(&pod, &inputs).map_err(|undecided| match undecided {
        Undecided::NoAnnotations => Error::NoAnnotations {
            asked: netconf.asks_for_annotations,
        },
        Undecided::Invalid(problems) => Error::Options(problems),
        // No runtime tells them.
        Undecided::Arguments { mistakes, .. } => Error::Internal(mistakes.join("; ")),
    })
}

/// Redirects the traffic of a pod, where that is to be done; says whether it was, and why. Doing it again changes
/// nothing.
///
/// # Errors
/// See [`Error`]. Nothing was changed then.
pub fn add(netconf: &NetConf, attachment: &Attachment) -> Result<Outcome, Error> {
    let netns = pod_netns(attachment)?;
    let (reason, settings) = match verdict(netconf, &attachment.pod)? {
        Verdict::Skipped(Skipped { reason, .. }) => {
            tracing::info!("not redirected: {reason}");
            return Ok(Outcome::LetThrough(reason));
        }
        Verdict::Redirected(redirected) => (redirected.reason, redirected.settings),
    };
    tracing::info!("redirected: {reason}");
    writing(&netns, settings.install.backend, &mut |backend, namespace, observed| {
        observed.log_warnings();
        observed.warn_of_ipv6(&settings);
        put_in_place(netconf, &settings.config, backend, namespace, observed).map(drop)
    })?;
    Ok(Outcome::Redirected(reason))
}

/// What is done in a network namespace, with a backend.
pub(super) type Work<'w> = dyn FnMut(RuleBackend, &mut Namespace, &Observed) -> Result<(), Error> + Send + 'w;

/// Does `work` in a network namespace that it changes, while no other sidetrack is at it. It is done again where the
/// backend shall be the one that works, and the first one does not.
///
/// # Errors
/// The namespace cannot be entered, or `work` failed.
pub(super) fn writing(netns: &Netns, backend: Backend, work: &mut Work) -> Result<(), Error> {
    let kernel_error = |error| match error {
        Error::System(error) => Ok(error),
        error => Err(error),
    };
    let chosen = choose(backend, kernel_error, |backend| {
        let programs = match backend {
            RuleBackend::Nftables => Programs::None,
            RuleBackend::IptablesNft | RuleBackend::IptablesLegacy => Programs::Isolated,
        };
        inside(netns, programs, Namespace::claim, &mut |namespace, observed| {
            work(backend, namespace, observed)
        })
    })?;
    if let Some(reason) = &chosen.fallback {
        tracing::warn!(backend = %chosen.backend, reason, "taken instead of nftables");
    }
    Ok(())
}

/// Redirects the traffic of the namespace that was observed.
///
/// # Errors
/// There is no plan for it, or the system cannot or may not.
pub(super) fn put_in_place(
    netconf: &NetConf,
    config: &Config,
    backend: RuleBackend,
    namespace: &mut Namespace,
    observed: &Observed,
) -> Result<Applied, Error> {
    let (config, facts) = seen(config, observed, &netconf.resolvers);
    let plan = Plan::new(&config, &facts)?;
    applied::warn_of_idle_options(&config, &facts, &plan);
    namespace.warn_of_blocked_ports(&config, observed);
    let done = install::apply_with(namespace, &plan, backend, observed)?;
    applied::log(&config, &facts, &plan, backend, &done);
    Ok(done)
}

/// Whether programs may be run.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Programs {
    /// There is no need to.
    None,
    /// Apart from the host. That takes longer the more file systems are mounted, so it is done only where there is no
    /// other way.
    Isolated,
}

/// Looks whether what ADD did is still there.
///
/// # Errors
/// It is not, or what ADD says.
pub fn check(netconf: &NetConf, attachment: &Attachment) -> Result<(), Error> {
    let netns = pod_netns(attachment)?;
    let Settings { config, install, .. } = match verdict(netconf, &attachment.pod)? {
        Verdict::Skipped(_) => return Ok(()),
        Verdict::Redirected(redirected) => redirected.settings,
    };
    inside(
        &netns,
        Programs::None,
        Namespace::default,
        &mut |namespace, observed| {
            let plan = plan(&config, observed, &netconf.resolvers)?;
            let Report { state, differences, .. } = namespace.check(&plan, install.backend, observed)?;
            // What is somebody else's is not what ADD did, nor would doing it again help.
            let (ours, foreign): (Vec<Difference>, Vec<Difference>) =
                differences.into_iter().partition(Difference::is_repaired_by_apply);
            for difference in foreign {
                tracing::warn!("{difference}");
            }
            if state != State::Absent && ours.is_empty() {
                return Ok(());
            }
            Err(Error::Check {
                state,
                netns: attachment.netns.display().to_string(),
                differences: ours,
            })
        },
    )
}

/// Opens a pod's network namespace, once for everything that is done in it.
fn pod_netns(attachment: &Attachment) -> Result<Netns, Error> {
    let netns = Netns::open(attachment.netns.clone())?;
    refuse_host_netns(&netns, &["/proc".as_ref()])?;
    Ok(netns)
}

/// Rules in the host's network namespace would redirect the traffic of the whole node. `proc` are places where the
/// host's proc file system may be mounted.
pub(super) fn refuse_host_netns(netns: &Netns, proc: &[&Path]) -> Result<(), Error> {
    match netns.host_owner(proc) {
        None => Ok(()),
        Some(owner) => Err(Error::Environment(vec![format!(
            "CNI_NETNS: the network namespace {} is {owner}, not a pod's",
            netns.path().display()
        )])),
    }
}

/// Does `work` in a network namespace, after a look at it, with the privileges that this takes.
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
            privilege::keep_those_of_the_network().map_err(NetnsError::from)?;
            let mut namespace = open();
            let observed = namespace.observe()?;
            work(&mut namespace, &observed)
        })
    })?
}

/// The plan for the namespace that was observed. The host's `/etc/resolv.conf` is not the pod's, so where the runtime
/// does not tell the pod's name servers, lookups of any server are captured.
fn plan(config: &Config, observed: &Observed, resolvers: &[IpAddr]) -> Result<Plan, Error> {
    let (config, facts) = seen(config, observed, resolvers);
    Ok(Plan::new(&config, &facts)?)
}

/// The configuration and the facts that the plan is made of.
pub(super) fn seen(config: &Config, observed: &Observed, resolvers: &[IpAddr]) -> (Config, Facts) {
    let mut config = config.clone();
    if config.dns.redirect && config.dns.servers == DnsServers::ResolvConf && resolvers.is_empty() {
        tracing::info!("the runtime does not tell the pod's name servers: lookups of any server are captured");
        config.dns.servers = DnsServers::All;
    }
    let facts = observed.loopback.facts(resolvers.to_vec());
    (config, facts)
}

/// Says whether ADD would work here.
///
/// # Errors
/// What speaks against it.
pub fn status(netconf: &NetConf) -> Result<(), Error> {
    netconf.usable()?;
    if !netconf.asks_for_annotations && netconf.policy.needs_annotations() {
        let how = super::error::how_to_get_annotations(false);
        return Err(Error::NotAvailable(format!("no pod could start: {how}")));
    }
    let backend = netconf.redirect.backend.unwrap_or(Settings::default().install.backend);
    choice::ready(backend).map_err(Error::NotAvailable)
}
