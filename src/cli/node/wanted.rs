//! From the options of `sidetrack node` to the node that is wanted, and its directories. `--pod` of other commands reads
//! the variables of these options.

use std::path::PathBuf;

use clap::ArgMatches;
use serde_json::Value;

use super::options::{
    BIN_DIR, CACHE_DIR, CONF_DIR, CONF_NAME, NETNS_DIR, NodeOption, OWN_CONFLIST, PLUGIN_CONF, POD_NAME, POD_NAMESPACE,
    PROC_DIR, SOCKET_PATH, STANDALONE,
};
use crate::node::entry::{self, Installer, daemon_set_of};
use crate::node::layout::{self, Choice, Wanted};
use crate::node::repair::{self, locate::Places};
use crate::node::{Directories, Node};

/// Where the options are given.
#[derive(Clone, Copy)]
pub enum Given<'m> {
    /// In the arguments of a command of `sidetrack node`, or in variables.
    Arguments(&'m ArgMatches),
    /// As [`Arguments`](Self::Arguments), for a command that only reads. Where a default directory of a container does not
    /// exist, the one of the node itself is read.
    ReadOnly(&'m ArgMatches),
    /// In variables alone, and as for [`ReadOnly`](Self::ReadOnly).
    Variables,
}

impl Given<'_> {
    /// The text of an option.
    pub fn text(self, option: &NodeOption) -> String {
        let given = match self {
            Self::Arguments(matches) => return option.text(matches),
            Self::ReadOnly(matches) => option.given(matches),
            Self::Variables => option.variable(),
        };
        given.unwrap_or_else(|| option.native_default())
    }

    fn is_given(self, option: &NodeOption) -> bool {
        match self {
            Self::Arguments(matches) | Self::ReadOnly(matches) => option.given(matches).is_some(),
            Self::Variables => option.variable().is_some(),
        }
    }
}

/// The node of a command that only reads. Without `--plugin-conf`, the entry in the installed configuration counts.
pub fn node_to_read(given: Given, problems: &mut Vec<String>) -> Option<Node> {
    let mut node = node(given, problems)?;
    if !given.is_given(&PLUGIN_CONF)
        && let Some(entry) = repair::installed_entry(&node)
    {
        node.wanted.entry = entry;
    }
    Some(node)
}

fn note<T>(result: Result<T, String>, problems: &mut Vec<String>) -> Option<T> {
    result.map_err(|problem| problems.push(problem)).ok()
}

/// The node that is wanted.
pub fn node(given: Given, problems: &mut Vec<String>) -> Option<Node> {
    let choice = note(choice(given), problems);
    let conf = note(plugin_conf(&given.text(&PLUGIN_CONF)), problems);
    let daemon_set = note(daemon_set(given), problems);
    let socket = note(socket(given), problems);
    let (choice, conf, daemon_set, socket) = (choice?, conf?, daemon_set?, socket?);
    let installer = Installer { daemon_set, socket };
    let entry = match choice {
        Choice::Standalone(_) => entry::standalone(conf, &installer),
        Choice::First | Choice::Named(_) | Choice::Copy(_) => entry::entry(conf, &installer),
    };
    let entry = note(entry.map_err(|error| format!("--plugin-conf: {error}")), problems)?;
    Some(Node {
        directories: directories(given),
        wanted: Wanted { choice, entry },
    })
}

/// Where the runtime has plugins and configurations.
pub fn directories(given: Given) -> Directories {
    Directories {
        bin: given.text(&BIN_DIR).into(),
        conf: given.text(&CONF_DIR).into(),
    }
}

/// Where pods are found.
pub fn places(given: Given) -> Places {
    Places {
        cache: given.text(&CACHE_DIR).into(),
        netns: given.text(&NETNS_DIR).into(),
        proc: given.text(&PROC_DIR).into(),
    }
}

fn daemon_set(given: Given) -> Result<(String, String), String> {
    let (namespace, pod) = (given.text(&POD_NAMESPACE), given.text(&POD_NAME));
    if namespace.is_empty() && pod.is_empty() {
        return Ok(Installer::default().daemon_set);
    }
    daemon_set_of(&namespace, &pod).ok_or_else(|| {
        format!(
            "--pod-namespace and --pod-name: {namespace:?} and {pod:?} are not those of a DaemonSet's pod, called \
             NAME-xxxxx. Give both, or neither and \"installer\" in --plugin-conf"
        )
    })
}

fn socket(given: Given) -> Result<PathBuf, String> {
    let path = PathBuf::from(given.text(&SOCKET_PATH));
    if path.is_absolute() {
        Ok(path)
    } else {
        Err(format!("--socket: {path:?} is not an absolute path"))
    }
}

fn choice(given: Given) -> Result<Choice, String> {
    let file_name = |option: &NodeOption, name: String| {
        if name.contains('/') || name.ends_with(layout::ORIGINAL) || !layout::is_relevant(&name) {
            return Err(format!(
                "--{}: {name:?} is not a file name that ends in .conflist, .conf or .json",
                option.name()
            ));
        }
        Ok(name)
    };
    let named = |option: &NodeOption| Some(given.text(option)).filter(|text| !text.is_empty());
    match (named(&CONF_NAME), named(&STANDALONE), named(&OWN_CONFLIST)) {
        (None, None, None) => Ok(Choice::First),
        (Some(named), None, None) => file_name(&CONF_NAME, named).map(Choice::Named),
        (None, Some(alone), None) => file_name(&STANDALONE, alone).map(Choice::Standalone),
        (None, None, Some(own)) if own.ends_with(".conflist") => file_name(&OWN_CONFLIST, own).map(Choice::Copy),
        (None, None, Some(own)) => Err(format!(
            "--own-conflist: {own:?} is not a file name that ends in .conflist"
        )),
        _ => Err("--cni-conf-name, --standalone and --own-conflist: only one of them".to_owned()),
    }
}

/// The configuration of the plugin.
fn plugin_conf(given: &str) -> Result<Value, String> {
    let text = if given.trim_start().starts_with('{') {
        given.to_owned()
    } else {
        std::fs::read_to_string(given).map_err(|error| format!("--plugin-conf: {given}: {error}"))?
    };
    serde_json::from_str(&text).map_err(|error| format!("--plugin-conf: {error}"))
}

#[cfg(test)]
mod tests {
    use super::super::command;
    use super::*;

    fn matches(arguments: &[&str]) -> ArgMatches {
        let matches = command().try_get_matches_from([&["node", "install"], arguments].concat());
        matches.unwrap().subcommand().unwrap().1.clone()
    }

    #[test]
    fn a_configuration_is_joined_or_written_by_name() {
        let choice = |arguments: &[&str]| choice(Given::Arguments(&matches(arguments)));
        assert_eq!(choice(&[]), Ok(Choice::First));
        assert_eq!(choice(&["--cni-conf-name", ""]), Ok(Choice::First));
        let named = Choice::Named("a.conflist".to_owned());
        assert_eq!(choice(&["--cni-conf-name", "a.conflist"]), Ok(named));
        for name in ["a", "a.yaml", "../a.conf", "a.conf.sidetrack"] {
            assert!(choice(&["--standalone", name]).is_err(), "{name}");
        }
        assert!(choice(&["--standalone", "a.conf", "--cni-conf-name", "b.conf"]).is_err());
    }
}
