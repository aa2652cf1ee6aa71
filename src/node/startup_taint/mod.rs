//! The startup taint: new nodes are registered with it, so that no pod is scheduled to a node before the plugin is there.
//! The installer removes it from its own node once it is ready.
//!
//! [`patch`] decides, and is pure; [`worker`] asks the API server, only in builds with the feature `kubernetes`.

pub mod patch;
#[cfg(feature = "kubernetes")]
pub mod worker;

use thiserror::Error;

use crate::types::Invalid;

/// The key in the component `cni-conf/kubernetes/taint`, whose admission policy allows no other.
pub const KEY: &str = "traffic.sidetrack.dev/not-ready";

/// Whether this build can remove taints.
pub const IS_BUILT_IN: bool = cfg!(feature = "kubernetes");

/// A taint, and the node that it is removed from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartupTaint {
    /// The key of the taint. Each taint with this key is removed, with any value and effect.
    pub key: TaintKey,
    /// The name of the installer's node.
    pub node: String,
}

/// The key of a taint, as the API server accepts it: a qualified name, such as `traffic.sidetrack.dev/not-ready`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaintKey(String);

/// The longest prefix of a qualified name, in bytes (`validation.DNS1123SubdomainMaxLength` of apimachinery).
const MAX_PREFIX: usize = 253;
/// The longest name after the prefix, in bytes (`qualifiedNameMaxLength` of apimachinery).
const MAX_NAME: usize = 63;

impl TaintKey {
    /// Reads a key.
    ///
    /// # Errors
    /// The text is not a qualified name.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let (prefix, name) = match text.split_once('/') {
            Some((prefix, name)) => (Some(prefix), name),
            None => (None, text),
        };
        if is_name(name) && prefix.is_none_or(is_domain) {
            Ok(Self(text.to_owned()))
        } else {
            Err(Invalid::new(
                text,
                "the key of a taint, such as traffic.sidetrack.dev/not-ready",
            ))
        }
    }

    /// The key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn begins_and_ends_alphanumeric(text: &str) -> bool {
    let is_alphanumeric = |c: char| c.is_ascii_alphanumeric();
    text.starts_with(is_alphanumeric) && text.ends_with(is_alphanumeric)
}

fn is_name(name: &str) -> bool {
    let is_usable = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    name.len() <= MAX_NAME && name.chars().all(is_usable) && begins_and_ends_alphanumeric(name)
}

fn is_domain(prefix: &str) -> bool {
    let is_label = |label: &str| {
        let is_usable = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        label.chars().all(is_usable) && begins_and_ends_alphanumeric(label)
    };
    prefix.len() <= MAX_PREFIX && prefix.split('.').all(is_label)
}

/// Why the command line cannot have a startup taint.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum StartupTaintError {
    /// The key is no key.
    #[error("--startup-taint: {:?} is not {}", .0.value, .0.expected)]
    Key(Invalid),
    /// The node is not named.
    #[error(
        "--startup-taint needs the name of this node, and --node-name is empty. Set SIDETRACK_NODE_NODE_NAME by the downward \
         API (spec.nodeName), as cni-conf/kubernetes/taint does"
    )]
    NoNode,
    /// Installing once does not wait for an API server.
    #[error("--startup-taint and --once: the taint is removed by an installer that stays. Leave one of them out")]
    Once,
    /// The build has no client.
    #[error(
        "--startup-taint needs a build with the feature kubernetes. Build it by scripts/build --features kubernetes, or the \
         image by scripts/image sidetrack.tar --features kubernetes"
    )]
    NotBuiltIn,
}

impl StartupTaint {
    /// Reads the options; an empty key is no taint.
    ///
    /// # Errors
    /// They do not fit each other, or this build.
    pub fn from_options(key: &str, node: &str, once: bool) -> Result<Option<Self>, StartupTaintError> {
        if key.is_empty() {
            return Ok(None);
        }
        let key = TaintKey::parse(key).map_err(StartupTaintError::Key)?;
        match (IS_BUILT_IN, once, node) {
            (false, ..) => Err(StartupTaintError::NotBuiltIn),
            (true, true, _) => Err(StartupTaintError::Once),
            (true, false, "") => Err(StartupTaintError::NoNode),
            (true, false, node) => Ok(Some(Self {
                key,
                node: node.to_owned(),
            })),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_qualified_names() {
        for key in [KEY, "a", "A_b.c-1", "startup-taint.cluster-autoscaler.kubernetes.io/x"] {
            assert_eq!(TaintKey::parse(key).unwrap().as_str(), key);
        }
        let long = format!("a/{}", "x".repeat(MAX_NAME + 1));
        for key in [
            "",
            "/",
            "a/",
            "/a",
            "a/b/c",
            "a b",
            "-a",
            "a-",
            "A.io/a",
            "a..b/c",
            "a:NoSchedule",
            "a=b",
            &long,
        ] {
            assert!(TaintKey::parse(key).is_err(), "{key}");
        }
    }

    #[test]
    fn a_taint_needs_a_node_and_an_installer_that_stays() {
        let read = |key, node, once| StartupTaint::from_options(key, node, once);
        assert_eq!(read("", "", true), Ok(None));
        assert!(matches!(read("a b", "n", false), Err(StartupTaintError::Key(_))));
        if IS_BUILT_IN {
            assert_eq!(read(KEY, "", false), Err(StartupTaintError::NoNode));
            assert_eq!(read(KEY, "n", true), Err(StartupTaintError::Once));
            assert_eq!(read(KEY, "n", false).unwrap().unwrap().node, "n");
        } else {
            assert_eq!(read(KEY, "n", false), Err(StartupTaintError::NotBuiltIn));
        }
    }
}
