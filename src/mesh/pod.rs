//! What is known of a pod.

use std::fmt;
use std::net::IpAddr;

use serde_json::{Map, Value};

use super::annotations::Annotations;

/// A pod's names, as far as the runtime tells them. Podman gives no namespace, `ctr` nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodName {
    /// `K8S_POD_NAMESPACE`.
    pub namespace: Option<String>,
    /// `K8S_POD_NAME`.
    pub name: Option<String>,
}

impl PodName {
    /// Takes what one pair of `CNI_ARGS` says. Keys that mean nothing here are for others.
    pub fn learn(&mut self, key: &str, value: &str) {
        let value = Some(value.to_owned()).filter(|value| !value.is_empty());
        match key {
            "K8S_POD_NAMESPACE" => self.namespace = value,
            "K8S_POD_NAME" => self.name = value,
            _ => {}
        }
    }
}

impl fmt::Display for PodName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let part = |part: &Option<String>| part.clone().unwrap_or_else(|| "-".to_owned());
        write!(f, "{}/{}", part(&self.namespace), part(&self.name))
    }
}

/// What a manifest says of a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ManifestPod {
    /// Its annotations.
    pub annotations: Annotations,
    /// Its addresses, where it has been given some.
    pub addresses: Vec<IpAddr>,
}

impl ManifestPod {
    /// The pod of a manifest, or the pods' template in it; `more` annotations count before its own.
    ///
    /// # Errors
    /// An annotation is not a text.
    pub fn of(manifest: &Value, more: Map<String, Value>) -> Result<Self, String> {
        let template = manifest.pointer("/spec/template");
        let metadata = template.unwrap_or(manifest).pointer("/metadata/annotations");
        let mut annotations = match metadata {
            Some(Value::Object(annotations)) => annotations.clone(),
            _ => Map::new(),
        };
        annotations.extend(more);
        let addresses = manifest
            .pointer("/status/podIPs")
            .and_then(Value::as_array)
            .into_iter()
            .flatten();
        let address = |entry: &Value| entry.get("ip")?.as_str()?.parse().ok();
        Ok(Self {
            addresses: addresses.filter_map(address).collect(),
            annotations: Annotations::of(&Value::Object(annotations))?,
        })
    }
}
