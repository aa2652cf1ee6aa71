//! What is known of a pod.

use std::fmt;

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
