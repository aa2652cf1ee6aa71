//! As much of the API of Kubernetes as is needed: a pod is labelled and evicted, an event is written, a node is patched.
//!
//! The server and the account are those of every pod in a cluster
//! (<https://kubernetes.io/docs/tasks/run-application/access-api-from-pod/>). They are read for each client anew, since
//! tokens and certificates change.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use thiserror::Error;
use ureq::http::Request;
use ureq::tls::{PemItem, RootCerts, TlsConfig, TlsProvider, parse_pem};

use super::node::NODES;

/// Where the kubelet mounts the account.
const ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// Where it is instead.
const ACCOUNT_VARIABLE: &str = "SIDETRACK_NODE_SERVICE_ACCOUNT_DIR";
/// How long a call may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The largest answer, in bytes: etcd takes objects of 1.5 MiB.
const LARGEST: u64 = 4 << 20;

/// What the API server did not do.
#[derive(Debug, Error)]
pub enum ApiError {
    /// Nobody says where it is.
    #[error(
        "KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT are not set: this does not run in a pod. Use --repair in-place, and no --startup-taint"
    )]
    NoServer,
    /// The account cannot be read.
    #[error("the service account: {}: {reason}. Does the DaemonSet say automountServiceAccountToken: true?", path.display())]
    Account {
        /// Which file.
        path: PathBuf,
        /// Why not.
        reason: io::Error,
    },
    /// It cannot be reached, or is not the one that the account trusts.
    #[error("the API server, {method} {url}: {reason}")]
    Unreachable {
        /// How it was asked.
        method: &'static str,
        /// What.
        url: String,
        /// What happened.
        reason: String,
    },
    /// It answers that it will not.
    #[error("the API server, {method} {url}: {status}: {message}{}", advice(*status, url))]
    Refused {
        /// How it was asked.
        method: &'static str,
        /// What.
        url: String,
        /// The HTTP status.
        status: u16,
        /// Its own words.
        message: String,
        /// Whether a PodDisruptionBudget is the reason.
        by_budget: bool,
    },
    /// A name that no object can have.
    #[error("{0:?} is not a name in Kubernetes")]
    Name(String),
}

fn advice(status: u16, url: &str) -> &'static str {
    match status {
        401 => ". The token is not taken: has it expired?",
        403 if url.contains(NODES) => {
            ". Compare the RBAC rules and the admission policy with those of cni-conf/kubernetes/taint"
        }
        403 => ". Compare the RBAC rules and the admission policy with those of cni-conf/kubernetes/restart",
        _ => "",
    }
}

impl ApiError {
    /// What kind of failure it is, for metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Refused { by_budget: true, .. } => "disruption-budget",
            _ => "api",
        }
    }

    /// Whether the pod has gone: nothing has its name (404), or a pod with another UID (422, for a patch).
    pub fn has_gone(&self) -> bool {
        matches!(self, Self::Refused { status: 404 | 422, .. })
    }

    /// Whether the object is not as the patch expects: it changed in the same moment (409), or a `test` of the patch does
    /// not hold (422).
    pub fn has_changed(&self) -> bool {
        matches!(self, Self::Refused { status: 409 | 422, .. })
    }
}

/// A client with the rights of the service account.
pub struct Client {
    agent: ureq::Agent,
    server: String,
    token: String,
}

impl Client {
    /// One that speaks to the API server of the cluster that this pod is in.
    ///
    /// # Errors
    /// There is no such server, or no account.
    pub fn of_service_account() -> Result<Self, ApiError> {
        let variable = |name| std::env::var(name).ok().filter(|text| !text.is_empty());
        let (Some(host), Some(port)) = (variable("KUBERNETES_SERVICE_HOST"), variable("KUBERNETES_SERVICE_PORT"))
        else {
            return Err(ApiError::NoServer);
        };
        let host = if host.contains(':') { format!("[{host}]") } else { host };
        let account = variable(ACCOUNT_VARIABLE).map_or_else(|| PathBuf::from(ACCOUNT), PathBuf::from);
        let token = String::from_utf8(read(&account.join("token"))?).unwrap_or_default();
        Ok(Self {
            agent: agent(&read(&account.join("ca.crt"))?),
            server: format!("https://{host}:{port}"),
            token: token.trim().to_owned(),
        })
    }

    /// Labels the pod that has this UID, and returns it. By way of its status: who may write that cannot change what it
    /// runs. No right to read is needed, since the answer is the pod.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub fn label(&self, namespace: &str, name: &str, uid: &str, label: &str) -> Result<Value, ApiError> {
        let patch = json!({ "metadata": { "uid": uid, "labels": { label: "true" } } });
        let path = path(namespace, Some(name), "/status")?;
        self.call("PATCH", &path, "application/merge-patch+json", &patch)
    }

    /// Evicts the pod that has this UID.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub fn evict(&self, namespace: &str, name: &str, uid: &str) -> Result<(), ApiError> {
        let eviction = json!({
            "apiVersion": "policy/v1",
            "kind": "Eviction",
            "metadata": { "namespace": namespace, "name": name },
            "deleteOptions": { "preconditions": { "uid": uid } },
        });
        let path = path(namespace, Some(name), "/eviction")?;
        self.call("POST", &path, "application/json", &eviction).map(drop)
    }

    /// Writes an event.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub fn record(&self, namespace: &str, event: &Value) -> Result<(), ApiError> {
        self.call("POST", &path(namespace, None, "")?, "application/json", event)
            .map(drop)
    }

    pub(super) fn call(&self, method: &'static str, path: &str, kind: &str, body: &Value) -> Result<Value, ApiError> {
        let url = format!("{}{path}", self.server);
        let unreachable = |reason: &dyn std::fmt::Display| ApiError::Unreachable {
            method,
            url: url.clone(),
            reason: reason.to_string(),
        };
        let request = Request::builder()
            .method(method)
            .uri(&url)
            .header("Authorization", format!("Bearer {}", self.token))
            .header("Accept", "application/json")
            .header("Content-Type", kind);
        let request = request.body(body.to_string()).map_err(|error| unreachable(&error))?;
        let mut answer = self.agent.run(request).map_err(|error| unreachable(&error))?;
        let status = answer.status().as_u16();
        let text = answer.body_mut().with_config().limit(LARGEST).read_to_string();
        let value: Value = serde_json::from_str(&text.map_err(|error| unreachable(&error))?).unwrap_or_default();
        if (200..300).contains(&status) {
            return Ok(value);
        }
        let mut message = value["message"].as_str().unwrap_or("no reason is given").to_owned();
        let mut causes = value["details"]["causes"].as_array().into_iter().flatten();
        let budget = causes.find(|cause| cause["reason"] == "DisruptionBudget");
        if let Some(cause) = budget.and_then(|cause| cause["message"].as_str()) {
            message = format!("{} {cause}", message.trim());
        }
        Err(ApiError::Refused {
            method,
            url,
            status,
            message,
            by_budget: budget.is_some(),
        })
    }
}

/// A path below the objects of a namespace: those of a pod, or the events. Names are checked, as they come from files.
fn path(namespace: &str, pod: Option<&str>, rest: &str) -> Result<String, ApiError> {
    check_name(namespace)?;
    pod.map_or(Ok(()), check_name)?;
    let object = pod.map_or_else(|| "events".to_owned(), |name| format!("pods/{name}"));
    Ok(format!("/api/v1/namespaces/{namespace}/{object}{rest}"))
}

/// Refuses what would lead to another path than that of an object with this name.
pub(super) fn check_name(name: &str) -> Result<(), ApiError> {
    let is_usable = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '.');
    if name.starts_with(|c: char| c.is_ascii_alphanumeric()) && name.chars().all(is_usable) {
        Ok(())
    } else {
        Err(ApiError::Name(name.to_owned()))
    }
}

fn read(path: &Path) -> Result<Vec<u8>, ApiError> {
    fs::read(path).map_err(|reason| ApiError::Account {
        path: path.to_owned(),
        reason,
    })
}

/// Speaks to whoever these certificates vouch for, and to nobody else: not by way of a proxy, nor where it is sent on.
fn agent(authorities: &[u8]) -> ureq::Agent {
    let certificates = parse_pem(authorities).filter_map(|item| match item {
        Ok(PemItem::Certificate(certificate)) => Some(certificate),
        _ => None,
    });
    let certificates: Vec<_> = certificates.collect();
    let tls = TlsConfig::builder()
        .provider(TlsProvider::Rustls)
        .root_certs(RootCerts::Specific(Arc::new(certificates)))
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .build();
    let config = ureq::Agent::config_builder()
        .timeout_global(Some(TIMEOUT))
        .http_status_as_error(false)
        .https_only(true)
        .max_redirects(0)
        .proxy(None)
        .tls_config(tls)
        .build();
    config.new_agent()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_from_the_cache_lead_to_no_other_path() {
        assert_eq!(
            path("shop", Some("web-0"), "/eviction").unwrap(),
            "/api/v1/namespaces/shop/pods/web-0/eviction"
        );
        assert_eq!(path("shop", None, "").unwrap(), "/api/v1/namespaces/shop/events");
        for name in ["", "../x", "a/b", "a b", "a?b", "A", "a%2f"] {
            assert!(path("shop", Some(name), "").is_err(), "{name}");
            assert!(path(name, None, "").is_err(), "{name}");
        }
    }
}
