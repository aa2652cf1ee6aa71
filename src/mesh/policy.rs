//! The part of a NetConf that selects the pods to redirect.

use super::pod::PodName;
use crate::types::Choice;

/// The selection of pods by the NetConf.
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
    /// Whether pods fail to start if the runtime passes no annotations.
    pub fn needs_annotations(&self) -> bool {
        self.select == Select::Injected && self.on_missing_annotations == OnMissing::Fail
    }
}

/// Which pods are redirected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Select {
    /// Pods that a mesh's injector annotated.
    Injected,
    /// All pods.
    Always,
    /// No pods.
    Never,
}

impl Choice for Select {
    const ALL: &'static [(Self, &'static str)] = &[
        (Self::Injected, "injected"),
        (Self::Always, "always"),
        (Self::Never, "never"),
    ];
}

/// The treatment of pods whose annotations the runtime does not pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnMissing {
    /// They do not start: a pod of the mesh would bypass its proxy.
    Fail,
    /// They are not redirected.
    Pass,
}

impl Choice for OnMissing {
    const ALL: &'static [(Self, &'static str)] = &[(Self::Fail, "fail"), (Self::Pass, "pass")];
}

/// Why a pod is skipped by its names alone, before any other check: system pods must start even if the rest of the
/// configuration is invalid.
pub fn exempt(policy: &Policy, pod: &PodName) -> Option<String> {
    if is_installer(policy, pod) {
        return Some("it is the installer of this plugin".to_owned());
    }
    let namespace = pod.namespace.as_ref()?;
    let listed = policy.exclude_namespaces.contains(namespace);
    listed.then(|| format!("excludeNamespaces lists its namespace {namespace}"))
}

/// Whether this is a pod of the installer's DaemonSet: its namespace, its name, and the five characters that
/// Kubernetes appends. A pod of that name in another namespace is not exempt.
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
    fn system_pods_and_the_installer_are_exempt_by_name() {
        let is_exempt = |namespace: &str, name: &str| {
            let pod = PodName {
                namespace: Some(namespace.to_owned()),
                name: Some(name.to_owned()),
            };
            exempt(&Policy::default(), &pod).is_some()
        };
        assert!(is_exempt("kube-system", "coredns-0"));
        assert!(is_exempt("sidetrack-system", "sidetrack-node-x7k2p"));
        assert!(!is_exempt("shop", "sidetrack-node-x7k2p"));
        assert!(!is_exempt("sidetrack-system", "sidetrack-node-x7k2p-evil"));
        assert!(!is_exempt("sidetrack-system", "sidetrack-node"));
    }
}
