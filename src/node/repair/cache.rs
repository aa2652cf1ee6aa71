//! What runtimes remember of the pods that they attached to a network: the result cache of libcni.
//!
//! It is a file of JSON for each attachment (`cachedInfo` in libcni's api.go), written once ADD has succeeded for the whole
//! chain, and removed by DEL. containerd and CRI-O keep it in `/var/lib/cni/results`.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read as _};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::cni::environment::CONSUL_CONFIG;
use crate::linux::files::FileError;
use crate::mesh::pod::PodName;

/// The largest file that is read, in bytes: annotations alone may take 256 KiB.
const LARGEST: u64 = 1 << 20;
/// As many files are read; a node has a few hundred pods at most.
const MOST: usize = 4096;

/// An attachment of a container to a network.
#[derive(Clone, Debug, PartialEq)]
pub struct Cached {
    /// The container's ID: that of the pod's sandbox.
    pub container: String,
    /// The name of the network.
    pub network: String,
    /// The interface.
    pub ifname: String,
    /// The files of its network namespace, on the node: what the runtime said, and what plugins answered.
    pub netns: Vec<PathBuf>,
    /// The pod's names.
    pub pod: PodName,
    /// `K8S_POD_UID`: pods of the same name have different ones.
    pub uid: Option<String>,
    /// What Nomad wants, in place of annotations: [`CONSUL_CONFIG`].
    pub consul_config: Option<String>,
    /// What the runtime told of it: the `runtimeConfig` that a plugin with all capabilities would have got.
    pub told: Map<String, Value>,
    /// The result of the chain.
    pub result: Value,
    /// The addresses in it.
    pub addresses: Vec<IpAddr>,
}

/// Reads what is cached. What is not an attachment is passed over, and counted.
///
/// # Errors
/// The directory cannot be read, or is not there.
pub fn read(directory: &Path) -> Result<(Vec<Cached>, usize), FileError> {
    let failed = |reason| FileError::system("reading the cache", directory)(reason);
    let (mut cached, mut unusable) = (Vec::new(), 0);
    for entry in fs::read_dir(directory).map_err(failed)?.take(MOST) {
        let path = entry.map_err(failed)?.path();
        match text(&path).map(|text| parse(&text)) {
            Ok(Ok(attachment)) => cached.push(attachment),
            // The pod has gone.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Ok(Err(reason)) => {
                tracing::debug!(path = %path.display(), reason, "not an attachment of a pod");
                unusable += 1;
            }
            Err(error) => {
                tracing::debug!(path = %path.display(), %error, "cannot be read");
                unusable += 1;
            }
        }
    }
    // Directories are in no order.
    cached.sort_by(|one, other| (&one.container, &one.ifname).cmp(&(&other.container, &other.ifname)));
    Ok((cached, unusable))
}

/// The text of a file. Only files are opened, and no links: nothing else is libcni's.
fn text(path: &Path) -> io::Result<String> {
    let refused = |reason| Err(io::Error::new(ErrorKind::InvalidData, reason));
    if !fs::symlink_metadata(path)?.is_file() {
        return refused("it is not a file");
    }
    let mut text = String::new();
    File::open(path)?.take(LARGEST + 1).read_to_string(&mut text)?;
    if text.len() as u64 > LARGEST {
        return refused("it is too large");
    }
    Ok(text)
}

/// Reads one file.
///
/// # Errors
/// What it lacks.
pub fn parse(text: &str) -> Result<Cached, &'static str> {
    let value: Value = serde_json::from_str(text).map_err(|_| "it is no JSON, or half written")?;
    let member = |name: &str| value[name].as_str().filter(|text| !text.is_empty()).map(str::to_owned);
    let (mut pod, mut uid, mut consul_config) = (PodName::default(), None, None);
    for pair in value["cniArgs"].as_array().into_iter().flatten() {
        if let (Some(key), Some(value)) = (pair[0].as_str(), pair[1].as_str()) {
            pod.learn(key, value);
            match key {
                "K8S_POD_UID" if !value.is_empty() => uid = Some(value.to_owned()),
                CONSUL_CONFIG if !value.is_empty() => consul_config = Some(value.to_owned()),
                _ => {}
            }
        }
    }
    let result = value["result"].clone();
    let list = |name: &str| result[name].as_array().cloned().unwrap_or_default();
    let sandboxes = list("interfaces").into_iter();
    let sandboxes = sandboxes.filter_map(|interface| interface["sandbox"].as_str().map(str::to_owned));
    let mut netns: Vec<PathBuf> = Vec::new();
    for path in member("netns").into_iter().chain(sandboxes).map(PathBuf::from) {
        if path.is_absolute() && !netns.contains(&path) {
            netns.push(path);
        }
    }
    // The loopback interface is a network to containerd, and every pod's is the same.
    let address = |ip: &Value| {
        let text = ip["address"].as_str()?;
        let address: IpAddr = text.split('/').next()?.parse().ok()?;
        (!address.is_loopback()).then_some(address)
    };
    Ok(Cached {
        container: member("containerId").ok_or("it has no containerId")?,
        network: member("networkName").ok_or("it has no networkName")?,
        ifname: member("ifName").ok_or("it has no ifName")?,
        netns,
        pod,
        uid,
        consul_config,
        told: value["capabilityArgs"].as_object().cloned().unwrap_or_default(),
        addresses: list("ips").iter().filter_map(address).collect(),
        result,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// As libcni 1.1 writes it, in containerd 1.6.
    fn written() -> Value {
        json!({
            "kind": "cniCacheV1",
            "containerId": "0f1e",
            "config": "e30=",
            "ifName": "eth0",
            "networkName": "pods",
            "cniArgs": [
                ["IgnoreUnknown", "1"], ["K8S_POD_NAMESPACE", "shop"], ["K8S_POD_NAME", "web-0"],
                ["K8S_POD_INFRA_CONTAINER_ID", "0f1e"], ["K8S_POD_UID", "7d3"],
            ],
            "capabilityArgs": { "io.kubernetes.cri.pod-annotations": { "a": "b" }, "dns": {} },
            "result": {
                "cniVersion": "1.0.0",
                "interfaces": [{ "name": "br0" }, { "name": "eth0", "sandbox": "/var/run/netns/cni-1" }],
                "ips": [{ "address": "10.88.0.2/16", "interface": 1 }, { "address": "fd88::2/64" }, { "address": "127.0.0.1/8" }],
            },
        })
    }

    #[test]
    fn an_attachment_is_read() {
        let cached = parse(&written().to_string()).unwrap();
        assert_eq!((cached.container.as_str(), cached.network.as_str()), ("0f1e", "pods"));
        assert_eq!(cached.pod.to_string(), "shop/web-0");
        assert_eq!(cached.uid.as_deref(), Some("7d3"));
        assert_eq!(cached.netns, [PathBuf::from("/var/run/netns/cni-1")]);
        assert_eq!(cached.addresses.len(), 2);
        assert_eq!(cached.told["io.kubernetes.cri.pod-annotations"]["a"], "b");
    }

    #[test]
    fn the_namespace_that_newer_runtimes_name_comes_first_and_none_twice() {
        let mut newer = written();
        newer["netns"] = "/var/run/netns/cni-0".into();
        let netns = |value: &Value| parse(&value.to_string()).unwrap().netns;
        assert_eq!(
            netns(&newer),
            ["/var/run/netns/cni-0", "/var/run/netns/cni-1"].map(PathBuf::from)
        );
        newer["netns"] = "/var/run/netns/cni-1".into();
        assert_eq!(netns(&newer), ["/var/run/netns/cni-1"].map(PathBuf::from));
        newer["netns"] = "relative".into();
        assert_eq!(netns(&newer).len(), 1);
    }

    #[test]
    fn what_is_no_attachment_is_told_and_nothing_panics() {
        for name in ["containerId", "networkName", "ifName"] {
            let mut value = written();
            value[name] = Value::Null;
            assert!(parse(&value.to_string()).unwrap_err().contains(name));
        }
        for text in ["", "[]", "{\"containerId\": ", "null", "{\"cniArgs\": [[], 3, [1]]}"] {
            assert!(parse(text).is_err(), "{text}");
        }
        let odd = json!({
            "containerId": "c", "networkName": "n", "ifName": "i", "cniArgs": [[], 3, ["K8S_POD_NAME"], [1, 2]],
            "capabilityArgs": 3, "result": { "ips": [3, { "address": "x" }, {}], "interfaces": 3 },
        });
        let cached = parse(&odd.to_string()).unwrap();
        assert_eq!(
            (cached.pod, cached.addresses, cached.netns),
            (PodName::default(), vec![], vec![])
        );
    }

    #[test]
    fn only_files_of_a_sane_size_are_read() {
        let directory = std::env::temp_dir().join(format!("sidetrack-cache-{}", std::process::id()));
        assert!(read(&directory).is_err());
        fs::create_dir_all(directory.join("a-directory")).unwrap();
        fs::write(directory.join("good"), written().to_string()).unwrap();
        fs::write(directory.join("large"), " ".repeat(LARGEST as usize + 1)).unwrap();
        std::os::unix::fs::symlink(directory.join("good"), directory.join("link")).unwrap();
        let (cached, unusable) = read(&directory).unwrap();
        assert_eq!((cached.len(), unusable), (1, 3));
        fs::remove_dir_all(&directory).unwrap();
    }
}
