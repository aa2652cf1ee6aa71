//! Which pods are redirected: a pure function of the NetConf, the pod's names and its annotations.

use super::annotations::{Annotations, REDIRECT};
use super::pod::PodName;
use super::{MESHES, OptOut, kuma};
use crate::options::problem::{Problem, Source};
use crate::types::{Choice, Invalid};

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

/// What happens to a pod, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It is redirected.
    Redirect(String),
    /// It is let through.
    Skip(String),
}

/// Why there is no decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Undecided {
    /// The annotations are needed and were not handed over.
    NoAnnotations,
    /// An annotation that decides has a value that says nothing.
    Annotation(Problem),
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

/// Decides about a pod that is not exempt.
///
/// # Errors
/// The annotations are needed and not known, or one of them says neither yes nor no.
pub fn decide(policy: &Policy, annotations: Option<&Annotations>) -> Result<Decision, Undecided> {
    let skip = |reason: &str| Ok(Decision::Skip(reason.to_owned()));
    let always = match policy.select {
        Select::Never => return skip("select is never"),
        Select::Always => true,
        Select::Injected => false,
    };
    let Some(annotations) = annotations else {
        return match policy.on_missing_annotations {
            _ if always => Ok(Decision::Redirect("select is always".to_owned())),
            OnMissing::Pass => skip("its annotations are not known, and onMissingAnnotations is pass"),
            OnMissing::Fail => Err(Undecided::NoAnnotations),
        };
    };
    match annotations.get(REDIRECT) {
        Some("true") => return Ok(Decision::Redirect(format!("{REDIRECT} is true"))),
        Some("false") => return Ok(Decision::Skip(format!("{REDIRECT} is false"))),
        Some(other) => {
            return Err(Undecided::Annotation(Problem::Value {
                source: Source::Annotation,
                option: REDIRECT.to_owned(),
                invalid: Invalid::new(other, "true or false"),
            }));
        }
        None => {}
    }
    for OptOut {
        annotation,
        says,
        reason,
    } in MESHES.iter().flat_map(|mesh| mesh.opt_outs)
    {
        if annotations.get(annotation).is_some_and(says) {
            return Ok(Decision::Skip(format!("{reason} ({annotation})")));
        }
    }
    if let Some(reason) = kuma::redirects_by_init_container(annotations) {
        return Ok(Decision::Skip(reason));
    }
    match super::injected(annotations) {
        _ if always => Ok(Decision::Redirect("select is always".to_owned())),
        Some(mesh) => {
            let names: Vec<&str> = mesh.mark.iter().map(|(name, _)| *name).collect();
            Ok(Decision::Redirect(format!(
                "{} injected a sidecar ({})",
                mesh.name,
                names.join(", ")
            )))
        }
        None => skip("it bears no mark of an injected sidecar"),
    }
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
    use serde_json::{Value, json};

    fn pod(namespace: &str, name: &str) -> PodName {
        PodName {
            namespace: Some(namespace.to_owned()),
            name: Some(name.to_owned()),
        }
    }

    fn policy(select: Select) -> Policy {
        Policy {
            select,
            ..Policy::default()
        }
    }

    /// Whether a pod with these annotations is redirected, and why.
    fn decided(select: Select, annotations: &[(&str, &str)]) -> (bool, String) {
        let object: Value = annotations.iter().map(|(name, value)| (*name, *value)).collect();
        let annotations = Annotations::of(&object).unwrap();
        match decide(&policy(select), Some(&annotations)).unwrap() {
            Decision::Redirect(reason) => (true, reason),
            Decision::Skip(reason) => (false, reason),
        }
    }

    const STATUS: (&str, &str) = (
        "sidecar.istio.io/status",
        r#"{"initContainers":["istio-validation"],"containers":["istio-proxy"]}"#,
    );
    const LINKERD: (&str, &str) = ("linkerd.io/proxy-version", "edge-26.7.1");
    const KUMA: (&str, &str) = ("kuma.io/sidecar-injected", "true");
    const KUMA_CNI: (&str, &str) = ("k8s.v1.cni.cncf.io/networks", "kuma-cni");
    const KUMA_CONFIG: (&str, &str) = ("traffic.kuma.io/transparent-proxy-config", "cniMode: true\nwait: 5");
    const CONSUL: [(&str, &str); 2] = [
        ("consul.hashicorp.com/connect-inject-status", "injected"),
        ("consul.hashicorp.com/transparent-proxy-status", "enabled"),
    ];

    #[test]
    fn injected_pods_of_each_mesh_are_redirected() {
        type Case<'c> = (&'c [(&'c str, &'c str)], bool, &'c str);
        let cases: [Case; 14] = [
            (&[STATUS], true, "Istio"),
            (&[("sidecar.istio.io/status", "not JSON")], true, "Istio"),
            (&[LINKERD], true, "Linkerd"),
            (&[KUMA, KUMA_CNI], true, "Kuma"),
            (
                &[KUMA, ("k8s.v1.cni.cncf.io/networks", "a, shop/kuma-cni@eth1")],
                true,
                "Kuma",
            ),
            (&[KUMA, KUMA_CONFIG], true, "Kuma"),
            (
                &[KUMA, KUMA_CNI, ("kuma.io/transparent-proxying", "disabled")],
                true,
                "Kuma",
            ),
            (&[KUMA], false, "kuma-init"),
            (
                &[KUMA, ("k8s.v1.cni.cncf.io/networks", "kuma-cni-2")],
                false,
                "kuma-init",
            ),
            (&[KUMA, (KUMA_CONFIG.0, "cniMode: false")], false, "kuma-init"),
            (&CONSUL, true, "Consul"),
            (&CONSUL[..1], false, "no mark"),
            (&[("kuma.io/sidecar-injected", "false")], false, "no mark"),
            (&[("sidecar.istio.io/status", "")], false, "no mark"),
        ];
        for (annotations, redirected, reason) in cases {
            let decided = decided(Select::Injected, annotations);
            assert_eq!(decided.0, redirected, "{annotations:?}: {}", decided.1);
            assert!(decided.1.contains(reason), "{annotations:?}: {}", decided.1);
        }
    }

    #[test]
    fn whoever_opts_out_is_let_through_even_where_all_are_redirected() {
        let cases = [
            ("sidecar.istio.io/inject", "false"),
            ("sidecar.istio.io/interceptionMode", "NONE"),
            ("inject.istio.io/templates", "gateway"),
            ("sidecar.istio.io/status", r#"{"initContainers":["a","istio-init"]}"#),
            ("linkerd.io/inject", "disabled"),
            ("consul.hashicorp.com/transparent-proxy", "false"),
            (REDIRECT, "false"),
        ];
        for (name, value) in cases {
            for select in [Select::Injected, Select::Always] {
                let mut annotations = vec![STATUS, LINKERD, KUMA, KUMA_CNI];
                annotations.retain(|(other, _)| *other != name);
                annotations.push((name, value));
                let (redirected, reason) = decided(select, &annotations);
                assert!(!redirected && reason.contains(name), "{name}: {reason}");
            }
        }
        assert!(
            decided(
                Select::Injected,
                &[STATUS, ("inject.istio.io/templates", "sidecar, mine")]
            )
            .0
        );
        assert!(decided(Select::Injected, &[STATUS, ("sidecar.istio.io/inject", "true")]).0);
    }

    #[test]
    fn our_own_annotation_counts_before_those_of_meshes() {
        assert!(REDIRECT.starts_with(crate::mesh::annotations::OURS));
        assert!(
            decided(
                Select::Injected,
                &[(REDIRECT, "true"), ("sidecar.istio.io/inject", "false")]
            )
            .0
        );
        assert!(!decided(Select::Never, &[(REDIRECT, "true")]).0);
        let annotations = Annotations::of(&json!({ REDIRECT: "yes" })).unwrap();
        let undecided = decide(&policy(Select::Always), Some(&annotations)).unwrap_err();
        assert!(matches!(undecided, Undecided::Annotation(_)), "{undecided:?}");
    }

    #[test]
    fn what_keeps_the_cluster_going_is_let_through_by_its_names() {
        let through = |namespace, name| exempt(&policy(Select::Always), &pod(namespace, name)).is_some();
        assert!(through("kube-system", "coredns-0"));
        assert!(through("sidetrack-system", "sidetrack-node-x7k2p"));
        assert!(!through("shop", "sidetrack-node-x7k2p"));
        assert!(!through("sidetrack-system", "sidetrack-node-x7k2p-evil"));
        assert!(!through("sidetrack-system", "sidetrack-node"));
    }

    #[test]
    fn without_annotations_it_is_the_policy_that_decides() {
        let decide = |policy: &Policy| decide(policy, None);
        assert_eq!(decide(&policy(Select::Injected)), Err(Undecided::NoAnnotations));
        assert!(matches!(decide(&policy(Select::Always)), Ok(Decision::Redirect(_))));
        assert!(matches!(decide(&policy(Select::Never)), Ok(Decision::Skip(_))));
        let pass = Policy {
            on_missing_annotations: OnMissing::Pass,
            ..Policy::default()
        };
        assert!(matches!(decide(&pass), Ok(Decision::Skip(_))));
    }
}
