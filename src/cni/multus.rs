//! Pods whose networks Multus attaches.

use serde_json::Value;

use crate::mesh::annotations::{Annotations, PREFIX};

/// What `args.cni` says like annotations, where it is meant for us: there is one of ours among its keys. Multus hands no
/// annotations on, but puts the object `cni-args` of a pod's network there. That of a chain is given to each plugin of it,
/// so what is no text, number or boolean is for others.
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

    /// As in Multus' own tests of `cni-args`: they come in `args.cni`, with those that the configuration has.
    #[test]
    fn arguments_of_a_network_count_as_annotations_where_there_are_none() {
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
        // Somebody else's arguments do not say that the pod has no annotations.
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
