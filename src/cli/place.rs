//! Where `check`, `probe`, `explain` and `trace` work: here, in a network namespace, or in a pod of this node, whose options are
//! known too.

use std::path::Path;
use std::sync::Arc;

use clap::{Arg, ArgMatches};

use super::failure::Failure;
use super::node::wanted::{Given, node_to_read, places};
use super::settings::{Around, around_pod, settings};
use super::{args, front_end, name_servers};
use crate::cni::attach::{verdict_with, with_name_servers};
use crate::cni::error::Error;
use crate::cni::netconf::NetConf;
use crate::linux::netns::{self, Netns, NetnsError};
use crate::mesh::verdict::Verdict;
use crate::node::repair::target::{self, Name, Target};
use crate::options::table::Group;
use crate::options::{Config, Settings};

/// The name of the option.
pub const POD: &str = "pod";

/// `--pod`.
pub fn pod() -> Arg {
    Arg::new(POD)
        .long(POD)
        .value_name("NAMESPACE/NAME")
        .help("Work in this pod of the node, with the options that the plugin\nhas for it, or that its init container recorded; flags win")
        .help_heading(Group::Run.heading())
}

/// Where a command works.
pub enum Place {
    /// In the network namespace of this process.
    Here,
    /// In the one with this path or name.
    Netns(String),
    /// In that of a pod.
    Pod(Arc<Netns>),
}

impl Place {
    /// Runs `work` there, which reads rules. In another network namespace, it keeps only the capabilities that this needs.
    ///
    /// # Errors
    /// The network namespace cannot be entered. `work` has not begun then.
    pub fn administer<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, NetnsError> {
        match self {
            Self::Here => Ok(work()),
            Self::Netns(name) => netns::administer(netns::path(name), work),
            Self::Pod(netns) => netns.administer(work),
        }
    }

    /// The same for probes.
    ///
    /// # Errors
    /// As [`Place::administer`].
    pub fn probe<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, NetnsError> {
        match self {
            Self::Here => Ok(work()),
            Self::Netns(name) => Netns::open(netns::path(name))?.probe(work),
            Self::Pod(netns) => netns.probe(work),
        }
    }

    /// The value of `--netns` for commands that are to work there; `None` for here.
    pub fn netns(&self) -> Option<String> {
        match self {
            Self::Here => None,
            Self::Netns(name) => Some(name.clone()),
            Self::Pod(netns) => Some(netns.path().display().to_string()),
        }
    }
}

/// A request with its options: everything that needs no access to the node.
pub enum Request {
    /// Options, and the network namespace if it is not the current one.
    Options(Box<Settings>, Option<String>),
    /// A pod of this node, and the options around those that the plugin has for it.
    Pod(Name, Box<Around>),
}

/// Reads the request of a command line. Of sidetrack's own arguments, only those in `allowed` may come before the name of a
/// front end.
///
/// # Errors
/// All mistakes in it.
pub fn request(matches: &ArgMatches, allowed: &[&str]) -> Result<Request, Failure> {
    if let Some(asked) = front_end::asked(matches, allowed) {
        return asked.map(|(settings, netns)| Request::Options(Box::new(settings), netns));
    }
    let netns = args::text_or_variable(matches, "netns");
    let Some(text) = matches.get_one::<String>(POD) else {
        return settings(matches).map(|settings| Request::Options(Box::new(settings), netns));
    };
    let around = around_pod(matches)?;
    match (name_of(text)?, netns) {
        (_, Some(_)) => Err(Failure::Input(vec![both_given()])),
        (pod, None) => Ok(Request::Pod(pod, Box::new(around))),
    }
}

fn name_of(text: &str) -> Result<Name, Failure> {
    let mistake = || {
        Failure::Input(vec![format!(
            "--pod: {text:?} is not NAMESPACE/NAME, such as shop/web-0"
        )])
    };
    Name::parse(text).ok_or_else(mistake)
}

/// The place that `--netns` or `--pod` names, for a command that needs no options of the redirection.
///
/// # Errors
/// Both are given, or the pod is not found.
pub fn named(matches: &ArgMatches) -> anyhow::Result<Place> {
    let netns = args::text_or_variable(matches, "netns");
    match (matches.get_one::<String>(POD), netns) {
        (None, None) => Ok(Place::Here),
        (None, Some(netns)) => Ok(Place::Netns(netns)),
        (Some(_), Some(_)) => Err(Failure::Input(vec![both_given()]).into()),
        (Some(text), None) => Ok(PodOnNode::find(name_of(text)?)?.place()),
    }
}

/// The mistake of two places.
pub fn both_given() -> String {
    "--pod and --netns: each selects a network namespace; give only one".to_owned()
}

impl Request {
    /// The settings, with name servers of the place, and the place.
    ///
    /// # Errors
    /// The pod is not found or not redirected, or a file with name servers cannot be read.
    pub fn open(self) -> anyhow::Result<(Settings, Place)> {
        match self {
            Self::Options(settings, None) => Ok((*settings, Place::Here)),
            Self::Options(mut settings, Some(netns)) => {
                name_servers::of_netns(&mut settings.config, &netns)?;
                Ok((*settings, Place::Netns(netns)))
            }
            Self::Pod(name, around) => {
                let pod = PodOnNode::find(name)?;
                Ok((pod.settings(&around)?, pod.place()))
            }
        }
    }
}

/// A pod of this node, as the runtime's cache describes it.
pub struct PodOnNode {
    name: Name,
    netconf: NetConf,
    target: Target,
}

impl PodOnNode {
    /// Finds the pod, by the variables of `sidetrack node`.
    ///
    /// # Errors
    /// The pod is not found.
    pub fn find(name: Name) -> anyhow::Result<Self> {
        let mut problems = Vec::new();
        let Some(node) = node_to_read(Given::Variables, &mut problems) else {
            return Err(Failure::Input(problems).into());
        };
        let target = target::find(&node, &places(Given::Variables), &name)?;
        let netconf = target.sandbox.netconf().map_err(|error| failure(&name, &error))?;
        Ok(Self { name, netconf, target })
    }

    /// The verdict of the plugin on the pod, with the options around those that it has for it, and with the pod's name
    /// servers.
    ///
    /// # Errors
    /// The options or the annotations are invalid, or there are no annotations.
    pub fn verdict(&self, around: &Around) -> Result<Verdict, Failure> {
        let verdict = verdict_with(&self.netconf, &self.target.sandbox.pod, &around.before, &around.after);
        let mut verdict = verdict.map_err(|error| failure(&self.name, &error))?;
        if let Verdict::Redirected(redirected) = &mut verdict {
            self.settle_name_servers(&mut redirected.settings.config);
        }
        Ok(verdict)
    }

    /// The settings of the plugin for the pod, with the options around those that it has for it.
    ///
    /// # Errors
    /// Those of [`verdict`](Self::verdict), or the plugin does not redirect the pod.
    pub fn settings(&self, around: &Around) -> Result<Settings, Failure> {
        match self.verdict(around)? {
            Verdict::Redirected(redirected) => Ok(redirected.settings),
            Verdict::Skipped(skipped) => Err(Failure::Input(vec![format!(
                "the plugin does not redirect pod {}: {}. To work with other options, pass them and --netns {} in place \
                 of --pod",
                self.name,
                skipped.reason,
                self.place().netns().unwrap_or_default()
            )])),
        }
    }

    /// Whether the plugin redirected the pod when it was attached.
    pub fn is_redirected_by_plugin(&self) -> bool {
        self.target.sandbox.is_redirected_by_plugin()
    }

    /// Sets the name servers that the runtime passed to the plugin, if the options refer to `/etc/resolv.conf`.
    pub fn settle_name_servers(&self, config: &mut Config) {
        *config = with_name_servers(config, &self.netconf.resolvers);
    }

    /// The network namespace of the pod.
    pub fn place(&self) -> Place {
        Place::Pod(Arc::clone(&self.target.netns))
    }
}

fn failure(name: &Name, error: &Error) -> Failure {
    let details = error
        .details()
        .map(|details| format!(". {details}"))
        .unwrap_or_default();
    Failure::Input(vec![format!("pod {name}: {}{details}", error.message())])
}

/// The pod of this node that a value of `explain --pod` names; `None` if it names a manifest. An existing file wins, and a
/// name with the extension of a manifest is one, so that a mistyped path is reported as that.
pub fn named_on_node(value: &str) -> Option<Name> {
    let path = Path::new(value);
    let extension = path.extension().and_then(|extension| extension.to_str());
    let is_manifest = matches!(extension, Some("yaml" | "yml" | "json")) || path.exists();
    Name::parse(value).filter(|_| !is_manifest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_and_names_of_manifests_are_no_pods() {
        assert!(named_on_node("shop/web-0").is_some() && named_on_node("shop/web.example").is_some());
        for value in ["-", "web.yaml", "deploy/web.yaml", "src/lib.rs", "/shop/web", "./web"] {
            assert!(named_on_node(value).is_none(), "{value}");
        }
    }
}
