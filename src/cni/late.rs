//! ADD for a pod that runs already: the plugin was not there when the pod was attached to its network.

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use super::attach::{put_in_place, refuse_host_netns, seen, verdict, writing};
use super::error::Error;
use super::netconf::NetConf;
use crate::backend::running::{Holder, Survivors};
use crate::backend::{KernelError, Namespace, Observed};
use crate::linux::netns::Netns;
use crate::linux::tcp;
use crate::mesh::pod::PodName;
use crate::mesh::verdict::Verdict;
use crate::options::{Config, Settings};
use crate::plan::Plan;
use crate::probe::run::{self, listeners::Listeners};
use crate::probe::{PORT, Report, Tally, Verdict as Judged, judge, trial};

/// How long probes may take.
const TIMEOUT: Duration = Duration::from_secs(3);

/// What a look at a pod's network namespace shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Who redirects its traffic.
    pub holder: Holder,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
}

/// Looks at a network namespace. Changes nothing. `proc` are places where the host's proc file system may be mounted.
///
/// # Errors
/// It cannot be entered, is the host's, or does not tell whether there are rules.
pub fn look(netns: &Netns, proc: &[&Path]) -> Result<Seen, Error> {
    refuse_host_netns(netns, proc)?;
    let seen = netns.run(|| {
        let mut namespace = Namespace::default();
        let observed = namespace.observe()?;
        let holder = namespace.holder(&observed)?;
        if holder == Holder::Nobody && observed.legacy.is_none() {
            return Err(KernelError::LegacyUnseen);
        }
        Ok(Seen {
            holder,
            addresses: namespace.addresses()?,
        })
    })?;
    Ok(seen?)
}

/// What putting the rules in place came to.
#[derive(Debug)]
pub struct Late {
    /// The TCP connections that were open.
    pub survivors: Survivors,
    /// What probes then showed.
    pub proof: Proof,
}

/// Whether it is proved that the application's connections go to the proxy.
#[derive(Debug, PartialEq, Eq)]
pub enum Proof {
    /// They do.
    Proved(Tally),
    /// Not yet: why.
    None(String),
    /// They do not: what went wrong, and what to do.
    Refuted(String),
}

/// A pod that runs: its names, its addresses, and its network namespace.
pub struct Running<'p> {
    /// Its names.
    pub pod: &'p PodName,
    /// Its addresses.
    pub addresses: &'p [IpAddr],
    /// Its network namespace.
    pub netns: &'p Netns,
}

/// Does what ADD does, where nobody redirects the pod's traffic: `None` where somebody does meanwhile, where the
/// plugin lets the pod through, or where the namespace has none of the pod's addresses any more. `proc` are places
/// besides /proc where a proc file system may be mounted.
///
/// # Errors
/// See [`Error`]. Nothing was changed then.
pub fn add(netconf: &NetConf, running: &Running, proc: &[&Path]) -> Result<Option<Late>, Error> {
    let Running { pod, addresses, netns } = running;
    refuse_host_netns(netns, proc)?;
    let Settings { config, install, .. } = match verdict(netconf, pod)? {
        Verdict::Skipped(_) => return Ok(None),
        Verdict::Redirected(redirected) => redirected.settings,
    };
    let mut late = None;
    writing(netns, install.backend, &mut |backend, namespace, observed| {
        let now = namespace.addresses()?;
        if !addresses.iter().any(|address| now.contains(address)) || namespace.holder(observed)? != Holder::Nobody {
            return Ok(());
        }
        namespace.has_proc_at(proc);
        let done = put_in_place(netconf, &config, backend, namespace, observed)?;
        late = Some(Late {
            survivors: done.survivors,
            proof: prove(&config, netconf, namespace, observed),
        });
        Ok(())
    })?;
    Ok(late)
}

/// Proves what can be proved beside the pod's processes, in the network namespace of this thread.
fn prove(config: &Config, netconf: &NetConf, namespace: &mut Namespace, observed: &Observed) -> Proof {
    let (config, facts) = seen(config, observed, &netconf.resolvers);
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
    match run::make(&trial, Err("no link is made in a pod at work"), &listeners, TIMEOUT) {
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
