//! The environment variables of a runtime (CNI specification 1.1.0, section 2, "Parameters").

use std::ffi::OsString;
use std::path::PathBuf;

use super::error::Error;
use crate::mesh::pod::PodName;

/// Looks up a variable.
pub type Variables<'v> = &'v dyn Fn(&str) -> Option<OsString>;

/// The requested operation: `CNI_COMMAND`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// Redirect the pod's traffic.
    Add,
    /// Release the resources of ADD: none outside the pod.
    Del,
    /// Check that the rules are in place.
    Check,
    /// Release the resources of removed pods: none.
    Gc,
    /// Report whether ADD would work.
    Status,
    /// Report the supported versions of the specification.
    Version,
}

impl Verb {
    /// All verbs with their names.
    pub const ALL: [(Self, &'static str); 6] = [
        (Self::Add, "ADD"),
        (Self::Del, "DEL"),
        (Self::Check, "CHECK"),
        (Self::Gc, "GC"),
        (Self::Status, "STATUS"),
        (Self::Version, "VERSION"),
    ];

    /// The name of the verb.
    pub fn name(self) -> &'static str {
        let named = Self::ALL.iter().find(|(verb, _)| *verb == self);
        named.map_or("", |(_, name)| name)
    }

    /// Reads `CNI_COMMAND`.
    ///
    /// # Errors
    /// The value is not a verb.
    pub fn of(variables: Variables) -> Result<Self, Error> {
        let text = text(variables, "CNI_COMMAND").map_err(|wrong| Error::Environment(vec![wrong]))?;
        let known = Self::ALL.iter().find(|(_, name)| *name == text);
        known.map(|(verb, _)| *verb).ok_or_else(|| {
            let names = Self::ALL.map(|(_, name)| name).join(", ");
            Error::Environment(vec![format!("CNI_COMMAND: {text:?} is not one of {names}")])
        })
    }
}

/// One container's attachment to one network, for ADD and CHECK.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// `CNI_CONTAINERID`.
    pub container_id: String,
    /// `CNI_NETNS`.
    pub netns: PathBuf,
    /// `CNI_IFNAME`. Nothing depends on it: the rules apply to all interfaces.
    pub ifname: String,
    /// The pod, from `CNI_ARGS`.
    pub pod: PodName,
    /// Nomad's settings from `CNI_ARGS`: [`CONSUL_CONFIG`].
    pub consul_config: Option<String>,
}

/// The argument of Nomad for Consul's plugin, as JSON: it replaces the annotation in Kubernetes.
pub const CONSUL_CONFIG: &str = "CONSUL_IPTABLES_CONFIG";

impl Attachment {
    /// Reads the variables that ADD and CHECK require, and `CNI_ARGS`.
    ///
    /// # Errors
    /// Every variable that is missing or not valid.
    pub fn of(variables: Variables) -> Result<Self, Error> {
        let container_id = valid(variables, "CNI_CONTAINERID", CONTAINER_ID, is_container_id);
        let ifname = valid(variables, "CNI_IFNAME", IFNAME, is_ifname);
        let netns = variables("CNI_NETNS")
            .filter(|path| !path.is_empty())
            .ok_or_else(|| "CNI_NETNS is missing".to_owned());
        let arguments = arguments(variables);
        match (container_id, netns, ifname, arguments) {
            (Ok(container_id), Ok(netns), Ok(ifname), Ok(arguments)) => Ok(Self {
                container_id,
                netns: netns.into(),
                ifname,
                pod: named(&arguments),
                consul_config: arguments
                    .into_iter()
                    .rev()
                    .find(|(key, value)| key == CONSUL_CONFIG && !value.is_empty())
                    .map(|(_, value)| value),
            }),
            (container_id, netns, ifname, arguments) => Err(Error::Environment(
                [container_id.err(), netns.err(), ifname.err(), arguments.err()]
                    .into_iter()
                    .flatten()
                    .collect(),
            )),
        }
    }
}

/// The pod that `CNI_ARGS` names.
///
/// # Errors
/// It is not made of pairs.
pub fn pod_name(variables: Variables) -> Result<PodName, String> {
    arguments(variables).map(|arguments| named(&arguments))
}

fn named(arguments: &[(String, String)]) -> PodName {
    let mut pod = PodName::default();
    arguments.iter().for_each(|(key, value)| pod.learn(key, value));
    pod
}

/// Reads the pairs `KEY=VALUE` of `CNI_ARGS`, in any order. A value ends at a semicolon, and there is no
/// way to quote one. Keys that mean nothing here are for others.
///
/// # Errors
/// Something in it is no such pair.
fn arguments(variables: Variables) -> Result<Vec<(String, String)>, String> {
    let Some(arguments) = variables("CNI_ARGS").filter(|arguments| !arguments.is_empty()) else {
        return Ok(Vec::new());
    };
    let arguments = arguments
        .into_string()
        .map_err(|bytes| format!("CNI_ARGS: {bytes:?} is not UTF-8"))?;
    let pairs = arguments.split(';').filter(|pair| !pair.is_empty());
    let read = |pair: &str| match pair.split_once('=') {
        Some((key, value)) => Ok((key.to_owned(), value.to_owned())),
        None => Err(format!("CNI_ARGS: {pair:?} is not KEY=VALUE")),
    };
    pairs.map(read).collect()
}

const CONTAINER_ID: &str = "a letter or digit, then letters, digits, '_', '.' or '-'";
const IFNAME: &str = "an interface name: 1 to 15 characters other than '/', ':' and spaces, and neither '.' nor '..'";

fn is_container_id(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'))
}

fn is_ifname(text: &str) -> bool {
    (1..=15).contains(&text.len())
        && !matches!(text, "." | "..")
        && !text.contains(|c: char| matches!(c, '/' | ':') || c.is_whitespace() || c.is_control())
}

fn valid(variables: Variables, name: &str, expected: &str, is_valid: fn(&str) -> bool) -> Result<String, String> {
    let text = text(variables, name)?;
    if is_valid(&text) {
        Ok(text)
    } else {
        Err(format!("{name}: {text:?} is not {expected}"))
    }
}

fn text(variables: Variables, name: &str) -> Result<String, String> {
    match variables(name).map(OsString::into_string) {
        None => Err(format!("{name} is missing")),
        Some(Ok(text)) if text.is_empty() => Err(format!("{name} is missing")),
        Some(Ok(text)) => Ok(text),
        Some(Err(bytes)) => Err(format!("{name}: {bytes:?} is not UTF-8")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attachment(variables: &[(&str, &str)]) -> Result<Attachment, Error> {
        let find = |name: &str| {
            let found = variables.iter().find(|(variable, _)| *variable == name);
            found.map(|(_, value)| OsString::from(value))
        };
        Attachment::of(&find)
    }

    #[test]
    fn what_containerd_passes_is_read_in_any_order() {
        let args =
            "K8S_POD_UID=1;K8S_POD_NAME=web-0;IgnoreUnknown=1;K8S_POD_INFRA_CONTAINER_ID=c;K8S_POD_NAMESPACE=shop";
        let read = attachment(&[
            ("CNI_CONTAINERID", "0f1e"),
            ("CNI_NETNS", "/run/netns/a"),
            ("CNI_IFNAME", "eth0"),
            ("CNI_ARGS", args),
        ]);
        let read = read.unwrap();
        assert_eq!(read.pod.to_string(), "shop/web-0");
        assert_eq!(read.netns, PathBuf::from("/run/netns/a"));
    }

    #[test]
    fn what_nomad_passes_is_read_as_it_is_in_any_order() {
        let json = r#"{"ProxyUserID":"101","ProxyInboundPort":9999,"NetNS":"/a=b"}"#;
        let nomad = "IgnoreUnknown=true;NOMAD_JOB_ID=web";
        for args in [
            format!("{nomad};CONSUL_IPTABLES_CONFIG={json}"),
            format!("CONSUL_IPTABLES_CONFIG={json};{nomad}"),
        ] {
            let read = attachment(&[
                ("CNI_CONTAINERID", "0f1e"),
                ("CNI_NETNS", "/run/netns/a"),
                ("CNI_IFNAME", "eth0"),
                ("CNI_ARGS", &args),
            ]);
            assert_eq!(read.unwrap().consul_config.as_deref(), Some(json));
        }
    }

    #[test]
    fn every_invalid_variable_is_named() {
        let message = attachment(&[("CNI_CONTAINERID", "-a"), ("CNI_IFNAME", "a b"), ("CNI_ARGS", "x")])
            .unwrap_err()
            .message();
        for name in ["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_ARGS"] {
            assert!(message.contains(name), "{message}");
        }
    }

    #[test]
    fn names_are_what_the_specification_allows() {
        for good in ["eth0", "a.b@c", "fifteen-letters", "é"] {
            assert!(is_ifname(good), "{good}");
        }
        for bad in ["", ".", "..", "sixteen-letters1", "a/b", "a:b", "a b", "a\tb", "a\nb"] {
            assert!(!is_ifname(bad), "{bad:?}");
        }
        for good in ["a", "0", "a_b.c-d", "cri-o1"] {
            assert!(is_container_id(good), "{good}");
        }
        for bad in ["", "_a", ".", "-a", "a/b", "a b", "é"] {
            assert!(!is_container_id(bad), "{bad}");
        }
    }
}
