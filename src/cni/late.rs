//! ADD for a running pod: the plugin was not installed when the pod was attached to its network.

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use super::attach::{Writer, compare_here, install_rules, planning_input, read, refuse_host_netns, verdict, with_lock};
use super::error::Error;
use super::netconf::NetConf;
use crate::backend::check;
use crate::backend::running::{Holder, Survivors};
use crate::backend::{KernelError, Namespace, Observed, RuleBackend};
use crate::drift::Difference;
use crate::linux::netns::Netns;
use crate::linux::tcp;
use crate::mesh::pod::PodName;
use crate::mesh::verdict::Verdict;
use crate::options::{Config, Settings};
use crate::plan::Plan;
use crate::plan::record::{self, Recorded};
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
    /// Whether the plugin redirected it when it was attached, as the runtime's cache says.
    pub is_of_plugin: bool,
}

/// A fault of a pod that ADD repairs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// No program redirects its traffic.
    Lacking,
    /// The rules of sidetrack differ from those of ADD.
    Drifted,
}

/// Whose options the rules of a pod are compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Basis {
    /// Those that the plugin has for the pod: the plugin redirected it, or the installer did.
    Plugin,
    /// Those recorded with the rules: another program wrote them, such as an init container.
    Record,
}

impl Basis {
    /// The name in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Plugin => "plugin",
            Self::Record => "record",
        }
    }
}

/// The result of comparing the rules of a pod with the options that count for it.
#[derive(Debug)]
pub enum Compared {
    /// They were compared.
    With(Basis, check::Report),
    /// They were not: the reason.
    Not(String),
}

/// Compares the rules of a pod with the options that count for it; changes nothing. `proc` are directories besides /proc
/// where a proc file system may be mounted.
///
/// # Errors
/// There is no plan for the pod, or its namespace cannot be entered or read.
pub fn drift(netconf: &NetConf, running: &Running, proc: &[&Path]) -> Result<Compared, Error> {
    refuse_host_netns(running.netns, proc)?;
    read(running.netns, &mut |namespace, observed| {
        Ok(match author(running, namespace, observed)? {
            Author::Unknown(reason) => Compared::Not(reason),
            Author::Other(backend, recorded) => {
                let facts = observed.loopback.facts(recorded.resolvers.unwrap_or_default());
                let plan = Plan::new(&recorded.config, &facts)?;
                Compared::With(Basis::Record, namespace.check(&plan, backend.into(), observed)?)
            }
            Author::Plugin => match verdict(netconf, running.pod)? {
                Verdict::Skipped(_) => Compared::Not("the plugin does not redirect it".to_owned()),
                Verdict::Redirected(redirected) => {
                    let Settings { config, install, .. } = redirected.settings;
                    let report = compare_here(netconf, &config, install.backend, namespace, observed)?;
                    Compared::With(Basis::Plugin, report)
                }
            },
        })
    })
}

/// What is known of the author of rules that the plugin did not write.
pub const OTHER_AUTHOR: &str = "a program other than the plugin wrote them";

/// The author of the rules in a pod.
enum Author {
    /// The plugin, or the installer with the plugin's options.
    Plugin,
    /// Another program, with these options in this backend.
    Other(RuleBackend, Box<Recorded>),
    /// Another program, with unknown options: why they are unknown.
    Unknown(String),
}

/// The author of the rules. The runtime's cache counts first: any process with `NET_ADMIN` in the pod can write a record.
fn author(running: &Running, namespace: &mut Namespace, observed: &Observed) -> Result<Author, Error> {
    if running.is_of_plugin {
        return Ok(Author::Plugin);
    }
    let Some((backend, record)) = namespace.record(observed)? else {
        return Ok(Author::Unknown(format!(
            "{OTHER_AUTHOR}, and no options are recorded with them"
        )));
    };
    Ok(match record::read(&record) {
        Ok(recorded) if recorded.is_of_repair => Author::Plugin,
        Ok(recorded) => Author::Other(backend, Box::new(recorded)),
        Err(unusable) => Author::Unknown(format!(
            "{OTHER_AUTHOR}, and the record of their options cannot be used: {unusable}"
        )),
    })
}

/// Does what ADD does if the pod still has this fault. `None` where it has not, where the plugin does not
/// redirect the pod, or where the namespace no longer has an address of the pod. `proc` are directories besides /proc
/// where a proc file system may be mounted.
///
/// # Errors
/// See [`Error`]. The network namespace is unchanged then.
pub fn add(netconf: &NetConf, running: &Running, fault: Fault, proc: &[&Path]) -> Result<Option<Late>, Error> {
    let Running {
        pod, addresses, netns, ..
    } = running;
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
            // An init container may have replaced the rules since the scan, and keeps its own options.
            (Fault::Drifted, Holder::Sidetrack(_))
                if !matches!(author(running, namespace, observed)?, Author::Plugin) =>
            {
                false
            }
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
        // The record must not say more than the runtime's cache does.
        let writer = if running.is_of_plugin {
            Writer::Add
        } else {
            Writer::Repair
        };
        let done = install_rules(netconf, &config, backend, namespace, observed, writer)?;
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
