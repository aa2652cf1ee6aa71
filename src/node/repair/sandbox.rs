//! The pods of the network that our plugin is chained to, and the plugin's decision on each: pure.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::SystemTime;

use serde_json::{Value, json};

use super::cache::Cached;
use crate::cni::attach::{mesh_of, verdict};
use crate::cni::capability::POD_ANNOTATIONS;
use crate::cni::environment::Attachment;
use crate::cni::error::Error;
use crate::cni::late::Running;
use crate::cni::netconf::NetConf;
use crate::cni::version::Version;
use crate::linux::netns::Netns;
use crate::mesh;
use crate::mesh::pod::PodName;
use crate::mesh::verdict::Verdict;
use crate::options::Proxy;
use crate::types::{MeshName, Uids};

/// A pod, as the cache describes it.
#[derive(Clone, Debug, PartialEq)]
pub struct Sandbox {
    /// The ID of the pod's sandbox.
    pub container: String,
    /// The pod's interface in the network of our plugin.
    pub ifname: String,
    /// Namespace and name of the pod.
    pub pod: PodName,
    /// The UID of the pod: pods of the same name have different ones.
    pub uid: Option<String>,
    /// The files of the network namespace, as paths on the node.
    pub netns: Vec<PathBuf>,
    /// The addresses in all networks.
    pub addresses: Vec<IpAddr>,
    /// Whether our plugin was in the chain that attached the pod; `None` where the cache does not show it.
    pub ran_plugin: Option<bool>,
    /// When the pod was attached to that network.
    pub attached: Option<SystemTime>,
    /// The entry of our plugin in the chain that attached the pod, if it is known.
    entry: Option<Value>,
    /// Nomad's settings, in place of annotations.
    consul_config: Option<String>,
    /// The NetConf that our plugin would have received in the chain.
    netconf: Value,
}

impl Decision {
    /// The name of the decision in JSON.
    pub fn name(&self) -> &'static str {
        match self {
            Self::NotRedirected(_) => "skipped",
            Self::Redirected { .. } => "redirected",
            Self::Unknown(_) => "unknown",
            Self::Refused(_) => "refused",
        }
    }

    /// The reason as text.
    pub fn reason(&self) -> &str {
        match self {
            Self::NotRedirected(reason) | Self::Redirected { reason, .. } | Self::Refused(reason) => reason,
            Self::Unknown(_) => "the runtime's cache has no annotations of it",
        }
    }
}

/// The plugin's decision on a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Not redirect the traffic: the reason.
    NotRedirected(String),
    /// Redirect the traffic.
    Redirected {
        /// The reason.
        reason: String,
        /// The users and groups that the rules exempt as the proxy's.
        proxy: Box<Proxy>,
    },
    /// The decision needs annotations, and the cache has none. The users that the proxy may run as.
    Unknown(Uids),
    /// Refuse to start the pod: the reason.
    Refused(String),
}

/// The pods of a network, where the chain has this entry for our plugin.
pub fn sandboxes(cached: Vec<Cached>, network: &str, entry: &Value) -> Vec<Sandbox> {
    let mut containers: BTreeMap<String, Vec<Cached>> = BTreeMap::new();
    for attachment in cached {
        containers
            .entry(attachment.container.clone())
            .or_default()
            .push(attachment);
    }
    let attachments = containers.into_values();
    attachments
        .filter_map(|attachments| sandbox(attachments, network, entry))
        .collect()
}

/// A pod with all its attachments; `None` where no attachment is to the network.
fn sandbox(attachments: Vec<Cached>, network: &str, entry: &Value) -> Option<Sandbox> {
    let attachment = attachments.iter().find(|one| one.network == network)?.clone();
    let mut capability_args = attachment.capability_args;
    // A meta-plugin that attaches pods to more networks need not pass everything on.
    let annotations = attachments
        .iter()
        .find_map(|one| one.capability_args.get(POD_ANNOTATIONS));
    if let Some(annotations) = annotations {
        capability_args.insert(POD_ANNOTATIONS.to_owned(), annotations.clone());
    }
    let consul_config = attachments.iter().find_map(|one| one.consul_config.clone());
    let result = attachment.result;
    let passed = json!({
        "cniVersion": Version::NEWEST.as_str(),
        "name": network,
        "runtimeConfig": capability_args,
        "prevResult": if result.is_object() { result } else { json!({}) },
    });
    Some(Sandbox {
        container: attachment.container,
        ifname: attachment.ifname,
        pod: attachment.pod,
        uid: attachment.uid,
        ran_plugin: attachment.ran_plugin,
        attached: attachment.attached,
        entry: attachment.entry,
        netns: attachments.iter().flat_map(|one| one.netns.clone()).collect(),
        addresses: attachments.iter().flat_map(|one| one.addresses.clone()).collect(),
        consul_config,
        netconf: with_passed(entry, &passed),
    })
}

/// An entry of a chain, with these keys of another NetConf that the runtime passes, not the chain.
fn with_passed(entry: &Value, passed: &Value) -> Value {
    let mut netconf = entry.clone();
    for key in ["cniVersion", "name", "runtimeConfig", "prevResult"] {
        netconf[key] = passed[key].clone();
    }
    netconf
}

impl Sandbox {
    /// The NetConf that our plugin would have received.
    ///
    /// # Errors
    /// The plugin would have refused the NetConf.
    pub fn netconf(&self) -> Result<NetConf, Error> {
        self.parsed(&self.netconf)
    }

    fn parsed(&self, netconf: &Value) -> Result<NetConf, Error> {
        let mut netconf = NetConf::parse(netconf.to_string().as_bytes())?;
        netconf.learn(&self.attachment());
        Ok(netconf)
    }

    /// Whether the plugin redirected the pod when it was attached, by the chain in the runtime's cache. A later entry may
    /// decide otherwise.
    pub fn is_redirected_by_plugin(&self) -> bool {
        let skipped = |entry: &Value| {
            let netconf = self.parsed(&with_passed(entry, &self.netconf));
            let verdict = netconf.and_then(|netconf| verdict(&netconf, &self.pod));
            matches!(verdict, Ok(Verdict::Skipped(_)))
        };
        self.ran_plugin == Some(true) && !self.entry.as_ref().is_some_and(skipped)
    }

    /// The attachment that our plugin would have received.
    fn attachment(&self) -> Attachment {
        Attachment {
            container_id: self.container.clone(),
            netns: PathBuf::new(),
            ifname: self.ifname.clone(),
            pod: self.pod.clone(),
            consul_config: self.consul_config.clone(),
        }
    }

    /// The pod, running in its network namespace.
    pub fn running<'p>(&'p self, netns: &'p Netns) -> Running<'p> {
        Running {
            pod: &self.pod,
            addresses: &self.addresses,
            netns,
            is_of_plugin: self.is_redirected_by_plugin(),
        }
    }

    /// The mesh of the pod, as far as annotations and options show it.
    pub fn mesh(&self) -> Option<MeshName> {
        mesh_of(&self.netconf().ok()?, &self.pod)
    }

    /// What the runtime keeps for the plugin: the NetConf that it would have received.
    pub fn request(&self) -> &Value {
        &self.netconf
    }

    /// The plugin's decision on the pod.
    pub fn decision(&self) -> Decision {
        let netconf = match self.netconf() {
            Ok(netconf) => netconf,
            Err(error) => return Decision::Refused(error.message()),
        };
        match verdict(&netconf, &self.pod) {
            Ok(Verdict::Skipped(skipped)) => Decision::NotRedirected(skipped.reason),
            Ok(Verdict::Redirected(redirected)) => Decision::Redirected {
                reason: redirected.reason,
                proxy: Box::new(redirected.settings.config.proxy),
            },
            Err(Error::NoAnnotations { .. }) => match mesh::proxy_users(&netconf.redirect) {
                Ok(users) => Decision::Unknown(users),
                Err(problems) => Decision::Refused(Error::Options(problems).message()),
            },
            Err(error) => Decision::Refused(error.message()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::repair::cache;
    use crate::types::{Id as _, Uid};

    fn cached(network: &str, ifname: &str, annotations: Option<Value>) -> Cached {
        let mut capability_args = json!({ "dns": { "Servers": ["10.96.0.10"] } });
        if let Some(annotations) = annotations {
            capability_args[POD_ANNOTATIONS] = annotations;
        }
        let written = json!({
            "containerId": "0f1e", "networkName": network, "ifName": ifname,
            "netns": "/var/run/netns/cni-1",
            "cniArgs": [["K8S_POD_NAMESPACE", "shop"], ["K8S_POD_NAME", "web-0"]],
            "capabilityArgs": capability_args,
            "result": { "ips": [{ "address": "10.88.0.2/16" }] },
        });
        cache::parse(&written.to_string()).unwrap()
    }

    fn injected() -> Option<Value> {
        Some(json!({ "sidecar.istio.io/status": "{}" }))
    }

    fn decision(attachments: Vec<Cached>, entry: Value) -> Decision {
        let sandboxes = sandboxes(attachments, "pods", &entry);
        assert_eq!(sandboxes.len(), 1);
        sandboxes[0].decision()
    }

    #[test]
    fn decision_is_made_by_plugin_code() {
        let entry = json!({ "type": "sidetrack" });
        let pod = |annotations| vec![cached("pods", "eth0", annotations)];
        assert!(matches!(
            decision(pod(injected()), entry.clone()),
            Decision::Redirected { .. }
        ));
        assert!(matches!(
            decision(pod(Some(json!({}))), entry.clone()),
            Decision::NotRedirected(_)
        ));
        let excluded = json!({ "type": "sidetrack", "excludeNamespaces": ["shop"] });
        assert!(matches!(
            decision(pod(injected()), excluded),
            Decision::NotRedirected(_)
        ));
        let pass = json!({ "type": "sidetrack", "onMissingAnnotations": "pass" });
        assert!(matches!(decision(pod(None), pass), Decision::NotRedirected(_)));
        let always = json!({ "type": "sidetrack", "select": "always" });
        assert!(matches!(decision(pod(None), always), Decision::Redirected { .. }));
        let mistake = Some(json!({ "traffic.sidetrack.dev/redirect": "maybe" }));
        assert!(matches!(decision(pod(mistake), entry), Decision::Refused(_)));
    }

    /// Nomad passes its settings in `CNI_ARGS`, which libcni caches.
    #[test]
    fn nomad_allocation_is_recognized_by_cni_args() {
        let written = |arguments: Value| {
            let cached = json!({
                "containerId": "0f1e", "networkName": "pods", "ifName": "eth0", "cniArgs": arguments,
                "capabilityArgs": { "portMappings": [] }, "result": { "ips": [{ "address": "172.26.64.2/20" }] },
            });
            vec![cache::parse(&cached.to_string()).unwrap()]
        };
        let entry = json!({ "type": "sidetrack", "onMissingAnnotations": "pass" });
        let config = r#"{"ProxyUserID":"101","ProxyInboundPort":9999,"ProxyOutboundPort":15001}"#;
        let nomad = json!([
            ["IgnoreUnknown", "true"],
            ["NOMAD_JOB_ID", "web"],
            ["CONSUL_IPTABLES_CONFIG", config]
        ]);
        match decision(written(nomad), entry.clone()) {
            Decision::Redirected { proxy, .. } => {
                assert_eq!(
                    (proxy.uids.to_string(), proxy.inbound_port.get()),
                    ("101".to_owned(), 9999)
                );
            }
            other => panic!("{other:?}"),
        }
        let without = json!([["IgnoreUnknown", "true"], ["NOMAD_JOB_ID", "web"]]);
        assert!(matches!(decision(written(without), entry), Decision::NotRedirected(_)));
    }

    #[test]
    fn missing_annotations_yield_unknown_with_proxy_users() {
        let entry = json!({ "type": "sidetrack", "redirect": { "proxyUid": 101 } });
        match decision(vec![cached("pods", "eth0", None)], entry) {
            Decision::Unknown(uids) => assert!(uids.contains(Uid::new(101).unwrap())),
            other => panic!("{other:?}"),
        }
        // The pod may belong to any mesh, unless the configuration names one.
        for (redirect, has_linkerd) in [(json!({}), true), (json!({ "mesh": "kuma" }), false)] {
            let entry = json!({ "type": "sidetrack", "redirect": redirect });
            match decision(vec![cached("pods", "eth0", None)], entry) {
                Decision::Unknown(uids) => assert_eq!(uids.contains(Uid::new(2102).unwrap()), has_linkerd),
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn pod_in_several_networks_is_one_sandbox() {
        let both = vec![cached("pods", "eth0", None), cached("storage", "net1", injected())];
        let found = sandboxes(both.clone(), "pods", &json!({ "type": "sidetrack" }));
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].ifname, "eth0");
        assert!(matches!(found[0].decision(), Decision::Redirected { .. }));
        assert_eq!(
            found[0].netconf().unwrap().resolvers,
            ["10.96.0.10".parse::<IpAddr>().unwrap()]
        );
        assert_eq!(sandboxes(both, "other", &json!({})), []);
    }
}
