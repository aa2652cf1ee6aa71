//! ADD for a running pod: the plugin was not installed when the pod was attached to its network.

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use super::attach::{compare, compare_here, install_rules, planning_input, refuse_host_netns, verdict, with_lock};
use super::error::Error;
use super::netconf::NetConf;
use crate::backend::check;
use crate::backend::running::{Holder, Survivors};
use crate::backend::{KernelError, Namespace, Observed};
use crate::drift::Difference;
use crate::linux::netns::Netns;
use crate::linux::tcp;
use crate::mesh::pod::PodName;
use crate::mesh::verdict::Verdict;
use crate::options::{Config, Settings};
use crate::plan::Plan;
use crate::probe::run::{self, listeners::Listeners};
use crate::probe::{PORT, Report, Tally, Verdict as Judged, judge, trial};

/// The time limit of the probes.
const TIMEOUT: Duration = Duration::from_secs(3);

/// The observed state of a pod's network namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The program that redirects the traffic.
    pub holder: Holder,
    /// The addresses of the namespace.
    pub addresses: Vec<IpAddr>,
}

/// Observes a network namespace; changes nothing. `proc` are directories where the host's proc file system may be
/// mounted.
///
/// # Errors
/// The namespace cannot be entered, is the host's, or does not show whether there are rules.
pub fn observe(netns: &Netns, proc: &[&Path]) -> Result<Seen, Error> {
    refuse_host_netns(netns, proc)?;
    let observed = netns.administer(|| {
        let mut namespace = Namespace::default();
        let observed = namespace.observe()?;
        let holder = namespace.holder(&observed)?;
        if holder == Holder::None && observed.legacy.is_none() {
            return Err(KernelError::LegacyUnseen);
        }
        Ok(Seen {
            holder,
            addresses: namespace.addresses()?,
        })
    })?;
    Ok(observed?)
}

/// The result of installing the rules.
#[derive(Debug)]
pub struct Late {
    /// The TCP connections that were open before.
    pub survivors: Survivors,
    /// The result of the probes afterwards.
    pub proof: Proof,
}

/// Whether probes prove that the application's connections go to the proxy.
#[derive(Debug, PartialEq, Eq)]
pub enum Proof {
    /// The probes passed.
    Proved(Tally),
    /// No probe was made: the reason.
    None(String),
    /// A probe failed: what went wrong, and what to do.
    Refuted(String),
}

/// A running pod.
pub struct Running<'p> {
    /// Namespace and name of the pod.
    pub pod: &'p PodName,
    /// The addresses of the namespace.
    pub addresses: &'p [IpAddr],
    /// The network namespace of the pod.
    pub netns: &'p Netns,
}

/// A fault of a pod that ADD repairs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// No program redirects its traffic.
    Lacking,
    /// The rules of sidetrack differ from those of ADD.
    Drifted,
}

/// Compares the rules of a pod with those that ADD would install; changes nothing. `None` where the plugin does not
/// redirect the pod. `proc` are directories besides /proc where a proc file system may be mounted.
///
/// # Errors
/// There is no plan for the pod, or its namespace cannot be entered or read.
pub fn drift(netconf: &NetConf, running: &Running, proc: &[&Path]) -> Result<Option<check::Report>, Error> {
    refuse_host_netns(running.netns, proc)?;
    match verdict(netconf, running.pod)? {
        Verdict::Skipped(_) => Ok(None),
        Verdict::Redirected(redirected) => {
            let Settings { config, install, .. } = redirected.settings;
            compare(netconf, &config, install.backend, running.netns).map(Some)
        }
    }
}

/// Does what ADD does if the pod still has this fault. `None` where it has not, where the plugin does not
/// redirect the pod, or where the namespace no longer has an address of the pod. `proc` are directories besides /proc
/// where a proc file system may be mounted.
///
/// # Errors
/// See [`Error`]. The network namespace is unchanged then.
pub fn add(netconf: &NetConf, running: &Running, fault: Fault, proc: &[&Path]) -> Result<Option<Late>, Error> {
    let Running { pod, addresses, netns } = running;
    refuse_host_netns(netns, proc)?;
    let Settings { config, install, .. } = match verdict(netconf, pod)? {
        Verdict::Skipped(_) => return Ok(None),
        Verdict::Redirected(redirected) => redirected.settings,
    };
    let mut late = None;
    with_lock(netns, install.backend, &mut |backend, namespace, observed| {
        let now = namespace.addresses()?;
        if !addresses.iter().any(|address| now.contains(address)) {
            return Ok(());
        }
        let has_fault = match (fault, namespace.holder(observed)?) {
            (Fault::Lacking, holder) => holder == Holder::None,
            (Fault::Drifted, Holder::Sidetrack(_)) => {
                let report = compare_here(netconf, &config, install.backend, namespace, observed)?;
                report.differences.iter().any(Difference::is_repaired_by_apply)
            }
            (Fault::Drifted, Holder::None | Holder::Other(_)) => false,
        };
        if !has_fault {
            return Ok(());
        }
        namespace.set_other_proc(proc);
        let done = install_rules(netconf, &config, backend, namespace, observed)?;
        late = Some(Late {
            survivors: done.survivors,
            proof: prove(&config, netconf, namespace, observed),
        });
        Ok(())
    })?;
    Ok(late)
}

/// Makes the probes that are possible beside the pod's processes, in the network namespace of this thread.
fn prove(config: &Config, netconf: &NetConf, namespace: &mut Namespace, observed: &Observed) -> Proof {
    let (config, facts) = planning_input(config, observed, &netconf.resolvers);
    let none = |why: &dyn std::fmt::Display| Proof::None(why.to_string());
    let families = match Plan::new(&config, &facts) {
        Ok(plan) => plan.ruleset.families,
        Err(error) => return none(&error),
    };
    let surroundings = match run::surroundings(namespace) {
        Ok(surroundings) => surroundings,
        Err(error) => return none(&error),
    };
    let census = match tcp::census() {
        Ok(census) => census,
        Err(error) => return none(&error),
    };
    let trial = trial(&config, &facts, families, &surroundings, PORT).beside(&census.listening);
    if trial.probes.is_empty() {
        return none(&"the proxy does not listen yet");
    }
    let listeners = Listeners::of_proxy(&trial, None);
    match run::run_with(&trial, Err("no link is made in a pod at work"), &listeners, TIMEOUT) {
        Ok(report) => proof(&report),
        Err(error) => none(&error),
    }
}

fn proof(report: &Report) -> Proof {
    let tally = report.tally();
    let lines = report.outcomes.iter().map(|(probe, outcome)| {
        let line = Report::line(probe, outcome);
        match judge(probe, outcome) {
            Judged::Failed { meaning, advice } => format!("{line}. It means: {meaning}. To do: {advice}"),
            Judged::Passed | Judged::NotMade => line,
        }
    });
    match (tally.passed, tally.failed) {
        (0, 0) => Proof::None(lines.collect::<Vec<_>>().join("; ")),
        (_, 0) => Proof::Proved(tally),
        _ => Proof::Refuted(lines.collect::<Vec<_>>().join("; ")),
    }
}
