//! What is to be done about a pod that lacks its rules: a pure function of what the API server says of it.

use serde_json::Value;

/// The label of pods that lack their rules.
pub const LABEL: &str = "traffic.sidetrack.dev/bypasses-proxy";

/// Why nothing is done about a pod with another UID.
pub const ANOTHER: &str = "it has gone, or another pod has its name by now";

/// What shall be done where it can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// Pods are labelled, for others to see.
    Label,
    /// Pods are labelled, and evicted if a controller creates them again.
    Delete,
}

/// What is to be done about a pod, once it is labelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Nothing but the label: why that, or what to do then.
    Label(&'static str),
    /// Evict it. Unlike a deletion, that is refused where a PodDisruptionBudget does not allow it.
    Evict,
    /// Nothing: why.
    Nothing(&'static str),
}

/// Decides about the pod that the runtime knows by this UID.
pub fn decide(pod: &Value, uid: &str, wish: Wish) -> Decision {
    let text = |pointer: &str| pod.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    if text("/metadata/uid") != uid {
        return Decision::Nothing(ANOTHER);
    }
    if pod
        .pointer("/metadata/deletionTimestamp")
        .is_some_and(|time| !time.is_null())
    {
        return Decision::Nothing("it is being deleted");
    }
    if matches!(text("/status/phase"), "Succeeded" | "Failed") {
        return Decision::Nothing("it has ended");
    }
    if pod.pointer("/spec/hostNetwork") == Some(&Value::Bool(true)) {
        return Decision::Nothing("it is in the node's network");
    }
    match wish {
        Wish::Label => Decision::Label("Delete it, so that it starts again with the CNI plugin."),
        Wish::Delete if text("/spec/restartPolicy") == "Never" => {
            Decision::Label("It is not evicted: its restart policy is Never, so nobody may run its work again.")
        }
        Wish::Delete if !is_made_anew(pod) => Decision::Label(
            "It is not evicted: it has no controller that would create it again. Delete and create it yourself.",
        ),
        Wish::Delete => Decision::Evict,
    }
}

/// Whether a controller would create it again. A node does not: it is where a static pod's file is.
fn is_made_anew(pod: &Value) -> bool {
    let owners = pod.pointer("/metadata/ownerReferences").and_then(Value::as_array);
    let controls = |owner: &Value| owner["controller"] == true && owner["kind"] != "Node";
    owners.is_some_and(|owners| owners.iter().any(controls))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod() -> Value {
        json!({
            "metadata": {
                "name": "web-0", "uid": "7d3",
                "ownerReferences": [{ "kind": "ReplicaSet", "name": "web", "controller": true }],
            },
            "spec": { "restartPolicy": "Always" },
            "status": { "phase": "Running" },
        })
    }

    fn with(pointer: &str, key: &str, value: Value) -> Value {
        let mut pod = pod();
        pod.pointer_mut(pointer).unwrap()[key] = value;
        pod
    }

    #[test]
    fn a_pod_that_is_made_anew_is_evicted_and_others_are_labelled() {
        let delete = |pod: &Value| decide(pod, "7d3", Wish::Delete);
        assert_eq!(delete(&pod()), Decision::Evict);
        let owner = |value: Value| with("/metadata", "ownerReferences", value);
        for lonely in [
            with("/spec", "restartPolicy", "Never".into()),
            owner(Value::Null),
            owner(json!([{ "kind": "ReplicaSet" }])),
            owner(json!([{ "kind": "Node", "controller": true }])),
        ] {
            assert!(matches!(delete(&lonely), Decision::Label(_)), "{lonely}");
        }
        assert!(matches!(decide(&pod(), "7d3", Wish::Label), Decision::Label(_)));
    }

    #[test]
    fn nothing_is_done_about_a_pod_that_is_another_one_or_on_its_way_out() {
        for wish in [Wish::Label, Wish::Delete] {
            let is_left_alone = |pod: &Value, uid: &str| matches!(decide(pod, uid, wish), Decision::Nothing(_));
            assert!(is_left_alone(&pod(), "other"));
            assert!(is_left_alone(
                &with("/metadata", "deletionTimestamp", "2026".into()),
                "7d3"
            ));
            assert!(is_left_alone(&with("/status", "phase", "Succeeded".into()), "7d3"));
            assert!(is_left_alone(&with("/spec", "hostNetwork", true.into()), "7d3"));
            assert!(is_left_alone(&Value::Null, "7d3"));
        }
    }
}
