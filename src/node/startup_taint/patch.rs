//! The JSON patch (RFC 6902) that removes one taint from a node: a pure function of the node that the API server returned.
//!
//! `spec.taints` is an atomic list without a merge key (`NodeSpec` of `k8s.io/api/core/v1`): a merge patch, strategic or
//! not, replaces the whole list, and with it the taints that others have added meanwhile. So each taint is removed by its
//! index, after a `test` that this index still has the taint that was seen. The server applies the patch as a whole, or
//! answers 422.

use serde_json::{Value, json};

use super::TaintKey;

/// The patch that removes every taint with this key, or `None` where the node has none.
pub fn removal(node: &Value, key: &TaintKey) -> Option<Value> {
    let taints = node.pointer("/spec/taints").and_then(Value::as_array)?;
    let with_key = taints
        .iter()
        .enumerate()
        .filter(|(_, taint)| taint["key"] == key.as_str());
    // From the end, so that a removal moves none of those that are still to be removed.
    let operations: Vec<Value> = with_key
        .rev()
        .flat_map(|(index, taint)| {
            let path = format!("/spec/taints/{index}");
            [
                json!({ "op": "test", "path": path, "value": taint }),
                json!({ "op": "remove", "path": path }),
            ]
        })
        .collect();
    (!operations.is_empty()).then_some(Value::Array(operations))
}

#[cfg(test)]
mod tests {
    use super::super::KEY;
    use super::*;

    fn patch(taints: &Value) -> Option<Value> {
        removal(&json!({ "spec": { "taints": taints } }), &TaintKey::parse(KEY).unwrap())
    }

    #[test]
    fn only_taints_with_the_key_are_removed_and_each_is_tested_first() {
        let other = json!({ "key": "node.kubernetes.io/not-ready", "effect": "NoSchedule" });
        let similar = json!({ "key": format!("{KEY}-yet"), "effect": "NoSchedule" });
        let schedule = json!({ "key": KEY, "value": "true", "effect": "NoSchedule" });
        let execute = json!({ "key": KEY, "effect": "NoExecute", "timeAdded": "2026-01-01T00:00:00Z" });
        assert_eq!(
            patch(&json!([other, schedule, similar, execute])),
            Some(json!([
                { "op": "test", "path": "/spec/taints/3", "value": execute },
                { "op": "remove", "path": "/spec/taints/3" },
                { "op": "test", "path": "/spec/taints/1", "value": schedule },
                { "op": "remove", "path": "/spec/taints/1" },
            ]))
        );
        assert_eq!(patch(&json!([other, similar])), None);
    }

    #[test]
    fn a_node_without_taints_needs_no_patch() {
        let key = TaintKey::parse(KEY).unwrap();
        for node in [
            Value::Null,
            json!({}),
            json!({ "spec": {} }),
            json!({ "spec": { "taints": null } }),
        ] {
            assert_eq!(removal(&node, &key), None, "{node}");
        }
    }
}
