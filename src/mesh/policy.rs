//! What a NetConf says about which pods are redirected.

use super::pod::PodName;
use crate::types::Choice;

/// What the NetConf says about which pods are redirected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// `select`.
    pub select: Select,
    /// `excludeNamespaces`.
    pub exclude_namespaces: Vec<String>,
    /// `installer`: namespace and name of a DaemonSet.
    pub installer: (String, String),
    /// `onMissingAnnotations`.
    pub on_missing_annotations: OnMissing,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            select: Select::Injected,
            exclude_namespaces: ["kube-system", "kube-public"].map(str::to_owned).to_vec(),
            installer: ("sidetrack-system".to_owned(), "sidetrack-node".to_owned()),
            on_missing_annotations: OnMissing::Fail,
        }
    }
}

impl Policy {
    /// Whether pods do not start without annotations.
    pub fn needs_annotations(&self) -> bool {
        self.select == Select::Injected && self.on_missing_annotations == OnMissing::Fail
    }
}

/// Which pods are redirected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Select {
    /// Those that bear the mark that a mesh's injector leaves.
    Injected,
    /// All.
    Always,
    /// None.
    Never,
}

impl Choice for Select {
    const ALL: &'static [(Self, &'static str)] = &[
        (Self::Injected, "injected"),
        (Self::Always, "always"),
        (Self::Never, "never"),
    ];
}

/// What happens to pods whose annotations are not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnMissing {
    /// They do not start: a pod of the mesh would go without its proxy.
    Fail,
    /// They are let through.
    Pass,
}

impl Choice for OnMissing {
    const ALL: &'static [(Self, &'static str)] = &[(Self::Fail, "fail"), (Self::Pass, "pass")];
}

/// Why a pod is let through by its names alone, before anything else is looked at: what keeps the cluster going must
/// not depend on whether anything else is in order.
pub fn exempt(policy: &Policy, pod: &PodName) -> Option<String> {
    if is_installer(policy, pod) {
        return Some("it is the installer of this plugin".to_owned());
    }
    let namespace = pod.namespace.as_ref()?;
    let listed = policy.exclude_namespaces.contains(namespace);
    listed.then(|| format!("excludeNamespaces lists its namespace {namespace}"))
}

/// Whether this is a pod of the installer's DaemonSet: its namespace, its name, and the five characters that
/// Kubernetes adds. Nobody else's pod gets through by being called like that elsewhere.
fn is_installer(policy: &Policy, pod: &PodName) -> bool {
    let (namespace, name) = &policy.installer;
    let suffix = pod
        .name
        .as_ref()
        .and_then(|pod| pod.strip_prefix(name)?.strip_prefix('-'));
    pod.namespace.as_ref() == Some(namespace)
        && suffix.is_some_and(|suffix| suffix.len() == 5 && suffix.chars().all(|c| c.is_ascii_alphanumeric()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_keeps_the_cluster_going_is_let_through_by_its_names() {
        let through = |namespace: &str, name: &str| {
            let pod = PodName {
                namespace: Some(namespace.to_owned()),
                name: Some(name.to_owned()),
            };
            exempt(&Policy::default(), &pod).is_some()
        };
        assert!(through("kube-system", "coredns-0"));
        assert!(through("sidetrack-system", "sidetrack-node-x7k2p"));
        assert!(!through("shop", "sidetrack-node-x7k2p"));
        assert!(!through("sidetrack-system", "sidetrack-node-x7k2p-evil"));
        assert!(!through("sidetrack-system", "sidetrack-node"));
    }
}
