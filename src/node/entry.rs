//! The plugin's configuration: its entry in a chain, or a network of its own.

use std::path::PathBuf;

use serde_json::{Map, Value, json};
use thiserror::Error;

use super::chain::{INSTALLER, PLUGIN};
use crate::cni::capability::POD_ANNOTATIONS;
use crate::cni::error::Error as CniError;
use crate::cni::netconf::{AWAITS_NETWORK, NetConf};
use crate::cni::report::SOCKET;
use crate::cni::version::Version;
use crate::mesh::policy::Policy;

/// Why a configuration of the plugin is refused.
#[derive(Debug, Error)]
pub enum EntryError {
    /// Not an object.
    #[error("it is not a JSON object")]
    NotAnObject,
    /// A key that the runtime or the installer sets.
    #[error("\"{0}\" is not for the plugin's configuration: the runtime or the installer sets it")]
    Reserved(String),
    /// Capabilities that are not an object of booleans.
    #[error("\"capabilities\" is not an object whose values are true or false")]
    Capabilities,
    /// The plugin would refuse it, and so fail each pod of the node.
    #[error("{}", .0.message())]
    Refused(CniError),
}

/// What the plugin's configuration says about the installer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installer {
    /// Namespace and name of its DaemonSet. The plugin does not redirect its pods.
    pub daemon_set: (String, String),
    /// The socket that receives reports: an absolute path.
    pub socket: PathBuf,
}

impl Default for Installer {
    fn default() -> Self {
        Self {
            daemon_set: Policy::default().installer,
            socket: SOCKET.into(),
        }
    }
}

/// Namespace and name of the DaemonSet that a pod belongs to: Kubernetes names its pods NAME-xxxxx, with five letters
/// and digits. `None` where the pod has another name.
pub fn daemon_set_of(namespace: &str, pod: &str) -> Option<(String, String)> {
    let (name, suffix) = pod.rsplit_once('-')?;
    let is_suffix = suffix.len() == 5 && suffix.chars().all(|c| c.is_ascii_alphanumeric());
    let is_one = is_suffix && !name.is_empty() && !namespace.is_empty();
    is_one.then(|| (namespace.to_owned(), name.to_owned()))
}

/// The plugin's entry in a chain: `conf` and the keys that the installer adds.
///
/// # Errors
/// `conf` is not a valid configuration of the plugin.
pub fn entry(conf: Value, installer: &Installer) -> Result<Value, EntryError> {
    let mut conf = object(conf)?;
    refuse(&conf, &["name", "cniVersion", "cniVersions", AWAITS_NETWORK])?;
    let mut entry = own_fields(installer);
    add(&mut entry, &mut conf)?;
    // The NetConf that a runtime derives from the entry.
    let mut netconf = entry.clone();
    netconf.insert("cniVersion".to_owned(), Version::NEWEST.as_str().into());
    netconf.insert("name".to_owned(), PLUGIN.into());
    check(netconf)?;
    Ok(Value::Object(entry))
}

/// A network with no plugin but sidetrack: for Multus, which attaches it in addition to the pod's network.
///
/// # Errors
/// `conf` is not a valid configuration of the plugin.
pub fn standalone(conf: Value, installer: &Installer) -> Result<Value, EntryError> {
    let mut conf = object(conf)?;
    let mut network = Map::new();
    for (key, default) in [("cniVersion", Version::V1_0_0.as_str()), ("name", PLUGIN)] {
        let value = conf.shift_remove(key).unwrap_or_else(|| default.into());
        network.insert(key.to_owned(), value);
    }
    network.extend(own_fields(installer));
    // Attaching this network to a pod is what selects the pod.
    if !conf.contains_key("select") {
        network.insert("select".to_owned(), "always".into());
    }
    add(&mut network, &mut conf)?;
    check(network.clone())?;
    Ok(Value::Object(network))
}

fn object(conf: Value) -> Result<Map<String, Value>, EntryError> {
    let Value::Object(conf) = conf else {
        return Err(EntryError::NotAnObject);
    };
    refuse(&conf, &["type", "prevResult", "runtimeConfig", "args", "logSocket"])?;
    Ok(conf)
}

fn refuse(conf: &Map<String, Value>, reserved: &[&str]) -> Result<(), EntryError> {
    let is_reserved = |key: &&String| reserved.contains(&key.as_str()) || key.starts_with("cni.dev/");
    match conf.keys().find(is_reserved) {
        Some(key) => Err(EntryError::Reserved(key.clone())),
        None => Ok(()),
    }
}

/// The keys that the installer sets, unless `conf` sets them.
fn own_fields(installer: &Installer) -> Map<String, Value> {
    let (namespace, name) = &installer.daemon_set;
    let mut fields = Map::new();
    fields.insert("type".to_owned(), PLUGIN.into());
    fields.insert(INSTALLER.to_owned(), format!("{namespace}/{name}").into());
    fields.insert("logSocket".to_owned(), installer.socket.to_string_lossy().into());
    let capabilities = json!({ POD_ANNOTATIONS: true, "dns": true });
    fields.insert("capabilities".to_owned(), capabilities);
    fields
}

fn add(entry: &mut Map<String, Value>, conf: &mut Map<String, Value>) -> Result<(), EntryError> {
    match (conf.shift_remove("capabilities"), entry.get_mut("capabilities")) {
        (None, _) => {}
        (Some(Value::Object(more)), Some(Value::Object(capabilities))) if more.values().all(Value::is_boolean) => {
            capabilities.extend(more);
        }
        _ => return Err(EntryError::Capabilities),
    }
    entry.append(conf);
    Ok(())
}

/// Checks that the plugin accepts the configuration.
fn check(netconf: Map<String, Value>) -> Result<(), EntryError> {
    let text = Value::Object(netconf).to_string();
    let netconf = NetConf::parse(text.as_bytes()).map_err(EntryError::Refused)?;
    netconf.usable().map_err(EntryError::Refused)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::chain::Chain;

    fn entry(conf: Value) -> Result<Value, EntryError> {
        super::entry(conf, &Installer::default())
    }

    fn standalone(conf: Value) -> Result<Value, EntryError> {
        super::standalone(conf, &Installer::default())
    }

    #[test]
    fn entry_declares_capabilities_and_keeps_given_keys() {
        let conf = json!({"select": "never", "redirect": {"proxyUid": 7}, "capabilities": {"mac": true, "dns": false}});
        assert_eq!(
            entry(conf).unwrap(),
            json!({
                "type": "sidetrack",
                "installer": "sidetrack-system/sidetrack-node",
                "logSocket": "/var/run/sidetrack/log.sock",
                "capabilities": {"io.kubernetes.cri.pod-annotations": true, "dns": false, "mac": true},
                "select": "never",
                "redirect": {"proxyUid": 7},
            })
        );
        let other = json!({"installer": "mesh/agent"});
        assert_eq!(entry(other).unwrap()["installer"], "mesh/agent");
    }

    #[test]
    fn configuration_invalid_for_plugin_is_refused() {
        let refused = |conf: Value| entry(conf).unwrap_err().to_string();
        assert!(refused(json!([])).contains("not a JSON object"));
        assert!(refused(json!({"capabilities": 3})).contains("capabilities"));
        assert!(refused(json!({"selekt": "always"})).contains("selekt"));
        assert!(refused(json!({"installer": 3})).contains("installer"));
        let redirect = refused(json!({"redirect": {"proxyInboundPort": 0, "nonsense": 1}}));
        assert!(
            redirect.contains("proxy-inbound-port") && redirect.contains("nonsense"),
            "{redirect}"
        );
        for reserved in [
            "type",
            "name",
            "cniVersion",
            "prevResult",
            "runtimeConfig",
            "args",
            "logSocket",
            "cni.dev/x",
        ] {
            assert!(
                refused(json!({ reserved: "x" })).contains("the installer sets it"),
                "{reserved}"
            );
        }
        assert!(standalone(json!({"cniVersion": "9.0.0"})).is_err());
    }

    #[test]
    fn standalone_network_selects_every_attached_pod() {
        let network = standalone(json!({"name": "mesh"})).unwrap();
        assert_eq!(network["name"], "mesh");
        assert_eq!(network["cniVersion"], "1.0.0");
        assert_eq!(network["select"], "always");
        let text = network.to_string();
        assert!(Chain::single(&text).unwrap().is_managed());
        let never = standalone(json!({"select": "never"})).unwrap();
        assert_eq!(never["select"], "never");
    }

    #[test]
    fn daemon_set_is_derived_from_pod_name() {
        let of = |namespace, pod| daemon_set_of(namespace, pod).map(|(namespace, name)| format!("{namespace}/{name}"));
        assert_eq!(of("mesh", "agent-x7k2p").as_deref(), Some("mesh/agent"));
        assert_eq!(of("mesh", "a-b-x7k2p").as_deref(), Some("mesh/a-b"));
        for other in ["agent", "agent-1", "agent-x7k2pq", "agent-x7.2p", "-x7k2p", ""] {
            assert_eq!(of("mesh", other), None, "{other}");
        }
        assert_eq!(of("", "agent-x7k2p"), None);
        let installer = Installer {
            daemon_set: daemon_set_of("mesh", "agent-x7k2p").unwrap(),
            socket: "/run/log.sock".into(),
        };
        let entry = |conf| super::entry(conf, &installer).unwrap();
        assert_eq!(entry(json!({}))["installer"], "mesh/agent");
        assert_eq!(entry(json!({}))["logSocket"], "/run/log.sock");
        assert_eq!(entry(json!({"installer": "a/b"}))["installer"], "a/b");
    }
}
