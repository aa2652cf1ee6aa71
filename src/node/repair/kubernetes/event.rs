//! Events of Kubernetes (core/v1 Event), as `kubectl describe pod` shows them.

use std::time::SystemTime;

use serde_json::{Value, json};

use crate::types::timestamp;

/// A warning about a pod.
pub fn warning(pod: &Value, reason: &str, message: &str, now: SystemTime) -> Value {
    let metadata = &pod["metadata"];
    let time = timestamp(now);
    json!({
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": { "generateName": "sidetrack-", "namespace": metadata["namespace"] },
        "involvedObject": {
            "apiVersion": "v1",
            "kind": "Pod",
            "namespace": metadata["namespace"],
            "name": metadata["name"],
            "uid": metadata["uid"],
        },
        "type": "Warning",
        "reason": reason,
        "message": message,
        "source": { "component": "sidetrack-node", "host": pod["spec"]["nodeName"] },
        "firstTimestamp": time,
        "lastTimestamp": time,
        "count": 1,
    })
}
