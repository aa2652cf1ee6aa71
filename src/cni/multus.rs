//! Pods whose networks Multus attaches.

use serde_json::Value;

use crate::mesh::annotations::{Annotations, PREFIX};

/// `args.cni` as annotations, if one of its keys is a sidetrack annotation. Multus passes no annotations on, but puts
/// the object `cni-args` of a pod's network there. In a chain, every plugin gets it, so values that are not strings,
/// numbers or booleans belong to other plugins.
pub(super) fn annotations(arguments: &Value) -> Option<Annotations> {
    let arguments = arguments.as_object()?;
    let text = |(name, value): (&String, &Value)| match value {
        Value::String(text) => Some((name.clone(), text.clone())),
        Value::Number(_) | Value::Bool(_) => Some((name.clone(), value.to_string())),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    };
    let is_ours = arguments.keys().any(|name| name.starts_with(PREFIX));
    is_ours.then(|| arguments.iter().filter_map(text).collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::cni::capability::POD_ANNOTATIONS;
    use crate::cni::netconf::NetConf;

    use super::*;

    fn parse(members: &Value) -> NetConf {
        let mut netconf = json!({ "cniVersion": "1.0.0", "name": "istio-cni", "type": "sidetrack" });
        let members = members.as_object().unwrap().clone();
        netconf.as_object_mut().unwrap().extend(members);
        let netconf = NetConf::parse(netconf.to_string().as_bytes()).unwrap();
        netconf.usable().unwrap();
        netconf
    }

    /// As in Multus' own tests of `cni-args`: they are merged into the `args.cni` of the configuration.
    #[test]
    fn multus_arguments_replace_missing_annotations() {
        let annotations = |members: Value| parse(&members).annotations;
        let of_multus = json!({ "cni": {
            "sidecar.istio.io/status": "{}", "traffic.sidetrack.dev/proxy-uid": 2000,
            "traffic.sidetrack.dev/redirect-dns": true, "labels": [{ "key": "a" }],
        } });
        let read = annotations(json!({ "args": of_multus })).unwrap();
        assert_eq!(read.get("traffic.sidetrack.dev/proxy-uid"), Some("2000"));
        assert_eq!(read.get("traffic.sidetrack.dev/redirect-dns"), Some("true"));
        assert_eq!(read.get("labels"), None);
        let runtime = json!({ POD_ANNOTATIONS: { "a": "b" } });
        let both = annotations(json!({ "args": of_multus, "runtimeConfig": runtime })).unwrap();
        assert_eq!((both.get("a"), both.get("sidecar.istio.io/status")), (Some("b"), None));
        // Arguments for other plugins do not mean that the pod has no annotations.
        for args in [
            json!({}),
            json!({ "cni": { "guid": "02:00" } }),
            json!({ "cni": [1] }),
            json!("x"),
        ] {
            assert_eq!(annotations(json!({ "args": args })), None, "{args}");
        }
    }
}
