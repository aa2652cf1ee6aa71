//! The pods of the network that our plugin is chained to, and what that plugin would say to each: pure decisions.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use serde_json::{Value, json};

use super::cache::Cached;
use crate::cni::attach::verdict;
use crate::cni::capability::POD_ANNOTATIONS;
use crate::cni::environment::Attachment;
use crate::cni::error::Error;
use crate::cni::netconf::NetConf;
use crate::cni::version::Version;
use crate::mesh;
use crate::mesh::pod::PodName;
use crate::mesh::verdict::Verdict;
use crate::options::Proxy;
use crate::types::Uids;

/// A pod, as far as the cache tells.
#[derive(Clone, Debug, PartialEq)]
pub struct Sandbox {
    /// The ID of its sandbox.
    pub container: String,
    /// Its interface in the network of our plugin.
    pub ifname: String,
    /// Its names.
    pub pod: PodName,
    /// Its UID: pods of the same name have different ones.
    pub uid: Option<String>,
    /// The files of its network namespace, on the node.
    pub netns: Vec<PathBuf>,
    /// Its addresses, of all networks.
    pub addresses: Vec<IpAddr>,
    /// Whether our plugin was in the chain that it was attached by; `None` where the cache does not say.
    pub ran_plugin: Option<bool>,
    /// What Nomad wants, in place of annotations.
    consul_config: Option<String>,
    /// What our plugin would have got, had it been there.
    netconf: Value,
}

/// What our plugin would do with a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Let it through: why.
    Through(String),
    /// Redirect its traffic.
    Redirected {
        /// Why.
        reason: String,
        /// Whom its rules take for the proxy.
        proxy: Box<Proxy>,
    },
    /// It needs annotations to tell, and there are none. The users that the proxy would run as.
    Unknown(Uids),
    /// Refuse to start it: why.
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

/// A pod with all its attachments; `None` where none of them is to the network.
fn sandbox(attachments: Vec<Cached>, network: &str, entry: &Value) -> Option<Sandbox> {
    let ours = attachments.iter().find(|one| one.network == network)?.clone();
    let mut told = ours.told;
    // Whoever attaches pods to more networks need not hand everything on.
    let annotations = attachments.iter().find_map(|one| one.told.get(POD_ANNOTATIONS));
    if let Some(annotations) = annotations {
        told.insert(POD_ANNOTATIONS.to_owned(), annotations.clone());
    }
    let consul_config = attachments.iter().find_map(|one| one.consul_config.clone());
    let mut netconf = entry.clone();
    netconf["cniVersion"] = Version::NEWEST.as_str().into();
    netconf["name"] = network.into();
    netconf["runtimeConfig"] = Value::Object(told);
    netconf["prevResult"] = if ours.result.is_object() {
        ours.result
    } else {
        json!({})
    };
    Some(Sandbox {
        container: ours.container,
        ifname: ours.ifname,
        pod: ours.pod,
        uid: ours.uid,
        ran_plugin: ours.ran_plugin,
        netns: attachments.iter().flat_map(|one| one.netns.clone()).collect(),
        addresses: attachments.iter().flat_map(|one| one.addresses.clone()).collect(),
        consul_config,
        netconf,
    })
}

impl Sandbox {
    /// What our plugin would have been told.
    ///
    /// # Errors
    /// It would have refused that.
    pub fn netconf(&self) -> Result<NetConf, Error> {
        let mut netconf = NetConf::parse(self.netconf.to_string().as_bytes())?;
        netconf.learn(&self.attachment());
        Ok(netconf)
    }

    /// The attachment that our plugin would have seen.
    fn attachment(&self) -> Attachment {
        Attachment {
            container_id: self.container.clone(),
            netns: PathBuf::new(),
            ifname: self.ifname.clone(),
            pod: self.pod.clone(),
            consul_config: self.consul_config.clone(),
        }
    }

    /// What our plugin would do.
    pub fn wanted(&self) -> Wanted {
        let netconf = match self.netconf() {
            Ok(netconf) => netconf,
            Err(error) => return Wanted::Refused(error.message()),
        };
        match verdict(&netconf, &self.pod) {
            Ok(Verdict::Skipped(skipped)) => Wanted::Through(skipped.reason),
            Ok(Verdict::Redirected(redirected)) => Wanted::Redirected {
                reason: redirected.reason,
                proxy: Box::new(redirected.settings.config.proxy),
            },
            Err(Error::NoAnnotations { .. }) => match mesh::proxy_users(&netconf.redirect) {
                Ok(users) => Wanted::Unknown(users),
                Err(problems) => Wanted::Refused(Error::Options(problems).message()),
            },
            Err(error) => Wanted::Refused(error.message()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::repair::cache;
    use crate::types::{Id as _, Uid};

    fn cached(network: &str, ifname: &str, annotations: Option<Value>) -> Cached {
        let mut told = json!({ "dns": { "Servers": ["10.96.0.10"] } });
        if let Some(annotations) = annotations {
            told[POD_ANNOTATIONS] = annotations;
        }
        let written = json!({
            "containerId": "0f1e", "networkName": network, "ifName": ifname,
            "netns": "/var/run/netns/cni-1",
            "cniArgs": [["K8S_POD_NAMESPACE", "shop"], ["K8S_POD_NAME", "web-0"]],
            "capabilityArgs": told,
            "result": { "ips": [{ "address": "10.88.0.2/16" }] },
        });
        cache::parse(&written.to_string()).unwrap()
    }

    fn injected() -> Option<Value> {
        Some(json!({ "sidecar.istio.io/status": "{}" }))
    }

    fn wanted(attachments: Vec<Cached>, entry: Value) -> Wanted {
        let sandboxes = sandboxes(attachments, "pods", &entry);
        assert_eq!(sandboxes.len(), 1);
        sandboxes[0].wanted()
    }

    #[test]
    fn the_plugins_own_code_decides() {
        let entry = json!({ "type": "sidetrack" });
        let pod = |annotations| vec![cached("pods", "eth0", annotations)];
        assert!(matches!(
            wanted(pod(injected()), entry.clone()),
            Wanted::Redirected { .. }
        ));
        assert!(matches!(
            wanted(pod(Some(json!({}))), entry.clone()),
            Wanted::Through(_)
        ));
        let excluded = json!({ "type": "sidetrack", "excludeNamespaces": ["shop"] });
        assert!(matches!(wanted(pod(injected()), excluded), Wanted::Through(_)));
        let pass = json!({ "type": "sidetrack", "onMissingAnnotations": "pass" });
        assert!(matches!(wanted(pod(None), pass), Wanted::Through(_)));
        let always = json!({ "type": "sidetrack", "select": "always" });
        assert!(matches!(wanted(pod(None), always), Wanted::Redirected { .. }));
        let mistake = Some(json!({ "traffic.sidetrack.dev/redirect": "maybe" }));
        assert!(matches!(wanted(pod(mistake), entry), Wanted::Refused(_)));
    }

    /// Nomad hands over what it wants in `CNI_ARGS`, which libcni keeps.
    #[test]
    fn an_allocation_of_nomad_is_known_by_what_it_was_attached_with() {
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
        match wanted(written(nomad), entry.clone()) {
            Wanted::Redirected { proxy, .. } => {
                assert_eq!(
                    (proxy.uids.to_string(), proxy.inbound_port.get()),
                    ("101".to_owned(), 9999)
                );
            }
            other => panic!("{other:?}"),
        }
        let without = json!([["IgnoreUnknown", "true"], ["NOMAD_JOB_ID", "web"]]);
        assert!(matches!(wanted(written(without), entry), Wanted::Through(_)));
    }

    #[test]
    fn without_annotations_it_is_not_known_and_whom_to_look_for_is() {
        let entry = json!({ "type": "sidetrack", "redirect": { "proxyUid": 101 } });
        match wanted(vec![cached("pods", "eth0", None)], entry) {
            Wanted::Unknown(uids) => assert!(uids.contains(Uid::new(101).unwrap())),
            other => panic!("{other:?}"),
        }
        // It may be of any mesh, unless one is given.
        for (redirect, linkerd_s) in [(json!({}), true), (json!({ "mesh": "kuma" }), false)] {
            let entry = json!({ "type": "sidetrack", "redirect": redirect });
            match wanted(vec![cached("pods", "eth0", None)], entry) {
                Wanted::Unknown(uids) => assert_eq!(uids.contains(Uid::new(2102).unwrap()), linkerd_s),
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn a_pod_of_several_networks_is_one_pod() {
        let both = vec![cached("pods", "eth0", None), cached("storage", "net1", injected())];
        let found = sandboxes(both.clone(), "pods", &json!({ "type": "sidetrack" }));
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].ifname, "eth0");
        assert!(matches!(found[0].wanted(), Wanted::Redirected { .. }));
        assert_eq!(
            found[0].netconf().unwrap().resolvers,
            ["10.96.0.10".parse::<IpAddr>().unwrap()]
        );
        assert_eq!(sandboxes(both, "other", &json!({})), []);
    }
}
