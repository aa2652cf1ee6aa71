//! What the plugin is told: our entry of a chain, or a network of its own.

use std::path::PathBuf;

use serde_json::{Map, Value, json};
use thiserror::Error;

use super::chain::{INSTALLER, PLUGIN};
use crate::cni::capability::POD_ANNOTATIONS;
use crate::cni::error::Error as CniError;
use crate::cni::netconf::NetConf;
use crate::cni::report::SOCKET;
use crate::cni::version::Version;
use crate::mesh::policy::Policy;

/// A configuration for the plugin that cannot be one.
#[derive(Debug, Error)]
pub enum EntryError {
    /// Not an object.
    #[error("it is not a JSON object")]
    NotAnObject,
    /// A key that is not for the one who configures the plugin.
    #[error("\"{0}\" is not for the plugin's configuration: the runtime or the installer sets it")]
    Reserved(String),
    /// Capabilities that are no object.
    #[error("\"capabilities\" is not an object whose values are true or false")]
    Capabilities,
    /// The plugin would refuse it, for each pod of the node.
    #[error("{}", .0.message())]
    Refused(CniError),
}

/// What the plugin has to know of the installer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installer {
    /// Namespace and name of its DaemonSet, whose pods the plugin lets through.
    pub daemon_set: (String, String),
    /// Where it listens for reports: an absolute path.
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

/// Namespace and name of the DaemonSet that a pod belongs to: Kubernetes calls its pods NAME-xxxxx, with five letters and
/// digits. `None` where the pod is called otherwise.
pub fn daemon_set_of(namespace: &str, pod: &str) -> Option<(String, String)> {
    let (name, suffix) = pod.rsplit_once('-')?;
    let is_suffix = suffix.len() == 5 && suffix.chars().all(|c| c.is_ascii_alphanumeric());
    let is_one = is_suffix && !name.is_empty() && !namespace.is_empty();
    is_one.then(|| (namespace.to_owned(), name.to_owned()))
}

/// Our entry of a chain: what the plugin is to be told, and what the installer adds to it.
///
/// # Errors
/// `conf` cannot be told to the plugin.
pub fn entry(conf: Value, installer: &Installer) -> Result<Value, EntryError> {
    let mut conf = object(conf)?;
    refuse(&conf, &["name", "cniVersion", "cniVersions"])?;
    let mut entry = own_fields(installer);
    add(&mut entry, &mut conf)?;
    // As a runtime makes a NetConf of it.
    let mut netconf = entry.clone();
    netconf.insert("cniVersion".to_owned(), Version::NEWEST.as_str().into());
    netconf.insert("name".to_owned(), PLUGIN.into());
    accepted(netconf)?;
    Ok(Value::Object(entry))
}

/// A network of our own, with nothing but our plugin: for Multus, which runs it beside the pod's network.
///
/// # Errors
/// `conf` cannot be told to the plugin.
pub fn standalone(conf: Value, installer: &Installer) -> Result<Value, EntryError> {
    let mut conf = object(conf)?;
    let mut network = Map::new();
    for (key, default) in [("cniVersion", Version::V1_0_0.as_str()), ("name", PLUGIN)] {
        let value = conf.shift_remove(key).unwrap_or_else(|| default.into());
        network.insert(key.to_owned(), value);
    }
    network.extend(own_fields(installer));
    // The pod is chosen by whoever attaches this network to it.
    if !conf.contains_key("select") {
        network.insert("select".to_owned(), "always".into());
    }
    add(&mut network, &mut conf)?;
    accepted(network.clone())?;
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

/// What the installer says, unless `conf` says otherwise.
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

/// Says that the plugin takes it.
fn accepted(netconf: Map<String, Value>) -> Result<(), EntryError> {
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
    fn the_entry_declares_capabilities_and_keeps_what_it_is_told() {
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
    fn what_the_plugin_would_refuse_is_refused() {
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
    fn a_network_of_its_own_is_for_every_pod_that_is_attached() {
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
    fn the_installer_is_known_by_its_own_pod() {
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
