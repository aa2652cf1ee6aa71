//! Requests about the node that the installer runs on. All take the right to `patch` nodes and no other, so that the
//! admission policy of `cni-conf/kubernetes/taint`, which reads do not pass, binds each of them to this node.

use serde_json::{Value, json};

use super::client::{ApiError, Client, check_name};

impl Client {
    /// The node with this name: the answer to a patch that changes nothing, which the server does not store.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub fn read_node(&self, name: &str) -> Result<Value, ApiError> {
        self.call("PATCH", &path(name)?, "application/merge-patch+json", &json!({}))
    }

    /// Applies a JSON patch (RFC 6902) to the node with this name.
    ///
    /// # Errors
    /// See [`ApiError`]; [`ApiError::has_changed`] where a `test` of the patch did not hold.
    pub fn patch_node(&self, name: &str, patch: &Value) -> Result<(), ApiError> {
        self.call("PATCH", &path(name)?, "application/json-patch+json", patch)
            .map(drop)
    }
}

fn path(name: &str) -> Result<String, ApiError> {
    check_name(name)?;
    Ok(format!("{NODES}{name}"))
}

/// Where nodes are.
pub(super) const NODES: &str = "/api/v1/nodes/";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_node_leads_to_no_other_path() {
        assert_eq!(
            path("ip-10-0-0-1.ec2.internal").unwrap(),
            "/api/v1/nodes/ip-10-0-0-1.ec2.internal"
        );
        for name in ["", "../x", "a/status", "a?dryRun=All", "a b", "%2e"] {
            assert!(path(name).is_err(), "{name}");
        }
    }
}
