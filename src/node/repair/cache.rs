//! The result cache of libcni: the attachments of pods to networks.
//!
//! Each attachment is a JSON file (`cachedInfo` in libcni's api.go), written after ADD has succeeded for the whole
//! chain, and removed by DEL. containerd and CRI-O keep it in `/var/lib/cni/results`.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read as _};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde_json::{Map, Value};

use super::base64;
use crate::cni::environment::CONSUL_CONFIG;
use crate::linux::files::FileError;
use crate::mesh::pod::PodName;
use crate::node::chain::Chain;

/// The largest file that is read, in bytes: annotations alone may take 256 KiB.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// An attachment of a container to a network.
#[derive(Clone, Debug, PartialEq)]
pub struct Cached {
    /// The container ID: that of the pod's sandbox.
    pub container: String,
    /// The name of the network.
    pub network: String,
    /// The interface.
    pub ifname: String,
    /// The files of the network namespace, as paths on the node: from the runtime, and from the plugins' results.
    pub netns: Vec<PathBuf>,
    /// The pod's names.
    pub pod: PodName,
    /// `K8S_POD_UID`: pods of the same name have different ones.
    pub uid: Option<String>,
    /// Nomad's settings, in place of annotations: [`CONSUL_CONFIG`].
    pub consul_config: Option<String>,
    /// `capabilityArgs`: the `runtimeConfig` that a plugin with all capabilities would have received.
    pub capability_args: Map<String, Value>,
    /// The entry of our plugin in the chain, if it is known.
    pub entry: Option<Value>,
    /// The result of the chain.
    pub result: Value,
    /// The addresses in the result.
    pub addresses: Vec<IpAddr>,
    /// Whether our plugin was in the chain; `None` where the file does not show it.
    pub ran_plugin: Option<bool>,
    /// When the file was written, so when the pod was attached.
    pub attached: Option<SystemTime>,
}

/// Reads the whole cache: a node has a few hundred pods, but libcni leaves the files of pods that a crash has ended.
/// Files that are not attachments are skipped and counted.
///
/// # Errors
/// The directory cannot be read, or does not exist.
pub fn read(directory: &Path) -> Result<(Vec<Cached>, usize), FileError> {
    let failed = |reason| FileError::system("reading the cache", directory)(reason);
    let (mut cached, mut unusable) = (Vec::new(), 0);
    for entry in fs::read_dir(directory).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        match text(&path).map(|(text, written)| (parse(&text), written)) {
            Ok((Ok(attachment), attached)) => cached.push(Cached { attached, ..attachment }),
            // The pod was removed meanwhile.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Ok((Err(reason), _)) => {
                tracing::debug!(path = %path.display(), reason, "cache file is not an attachment of a pod");
                unusable += 1;
            }
            Err(error) => {
                tracing::debug!(path = %path.display(), %error, "cannot read the cache file");
                unusable += 1;
            }
        }
    }
    // Directory entries have no order.
    cached.sort_by(|one, other| (&one.container, &one.ifname).cmp(&(&other.container, &other.ifname)));
    Ok((cached, unusable))
}

/// The number of attachments whose chain had our plugin; 0 where the directory does not exist.
///
/// # Errors
/// The directory cannot be read.
pub fn attached_with_plugin(directory: &Path) -> Result<usize, FileError> {
    if !directory.exists() {
        tracing::info!(directory = %directory.display(), "the runtime's cache does not exist (--cni-cache-dir)");
        return Ok(0);
    }
    let (cached, _) = read(directory)?;
    Ok(cached.iter().filter(|one| one.ran_plugin == Some(true)).count())
}

/// The text of a regular file, and when it was written. Links are not followed: libcni writes none.
fn text(path: &Path) -> io::Result<(String, Option<SystemTime>)> {
    let refused = |reason| Err(io::Error::new(ErrorKind::InvalidData, reason));
    let metadata = fs::symlink_metadata(path)?;
    if !metadata.is_file() {
        return refused("it is not a file");
    }
    let mut text = String::new();
    File::open(path)?.take(MAX_FILE_BYTES + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_FILE_BYTES {
        return refused("it is too large");
    }
    Ok((text, metadata.modified().ok()))
}

/// Parses one cache file.
///
/// # Errors
/// Why the text is not an attachment.
pub fn parse(text: &str) -> Result<Cached, &'static str> {
    let value: Value = serde_json::from_str(text).map_err(|_| "it is not JSON, or half written")?;
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
    // containerd attaches the loopback interface as a network; its addresses are the same in each pod.
    let address = |ip: &Value| {
        let text = ip["address"].as_str()?;
        let address: IpAddr = text.split('/').next()?.parse().ok()?;
        (!address.is_loopback()).then_some(address)
    };
    let (ran_plugin, entry) = member("config").map(|config| plugin(&config)).unwrap_or_default();
    Ok(Cached {
        container: member("containerId").ok_or("it has no containerId")?,
        network: member("networkName").ok_or("it has no networkName")?,
        ifname: member("ifName").ok_or("it has no ifName")?,
        netns,
        pod,
        uid,
        consul_config,
        capability_args: value["capabilityArgs"].as_object().cloned().unwrap_or_default(),
        addresses: list("ips").iter().filter_map(address).collect(),
        ran_plugin,
        entry,
        result,
        attached: None,
    })
}

/// Whether our plugin is in a configuration, and its entry: the conflist at the time of ADD, or the single plugin of a
/// `.conf`.
fn plugin(config: &str) -> (Option<bool>, Option<Value>) {
    let Some(text) = base64::decode(config).and_then(|bytes| String::from_utf8(bytes).ok()) else {
        return (None, None);
    };
    let read = |chain: &Chain| (chain.runs_plugin(), chain.entry().cloned());
    // The text does not say its form: a single plugin with a name could be a list without plugins.
    match Chain::list(&text).map(|list| read(&list)) {
        Ok(list @ (Some(_), _)) => list,
        _ => Chain::single(&text).map(|single| read(&single)).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A file as libcni 1.1 in containerd 1.6 writes it.
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
    fn attachment_is_parsed() {
        let cached = parse(&written().to_string()).unwrap();
        assert_eq!((cached.container.as_str(), cached.network.as_str()), ("0f1e", "pods"));
        assert_eq!(cached.pod.to_string(), "shop/web-0");
        assert_eq!(cached.uid.as_deref(), Some("7d3"));
        assert_eq!(cached.netns, [PathBuf::from("/var/run/netns/cni-1")]);
        assert_eq!(cached.addresses.len(), 2);
        assert_eq!(cached.capability_args["io.kubernetes.cri.pod-annotations"]["a"], "b");
    }

    #[test]
    fn netns_of_newer_runtimes_comes_first_without_duplicates() {
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
    fn invalid_cache_file_is_reported_without_panic() {
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
    fn cache_with_thousands_of_files_is_read() {
        let directory = std::env::temp_dir().join(format!("sidetrack-large-cache-{}", std::process::id()));
        fs::create_dir(&directory).unwrap();
        for number in 0..4200 {
            let mut one = written();
            one["containerId"] = format!("{number}").into();
            fs::write(directory.join(number.to_string()), one.to_string()).unwrap();
        }
        let (cached, unusable) = read(&directory).unwrap();
        fs::remove_dir_all(&directory).unwrap();
        assert_eq!((cached.len(), unusable), (4200, 0));
    }

    #[test]
    fn large_files_links_and_directories_are_skipped() {
        let directory = std::env::temp_dir().join(format!("sidetrack-cache-{}", std::process::id()));
        assert!(read(&directory).is_err());
        fs::create_dir_all(directory.join("a-directory")).unwrap();
        fs::write(directory.join("good"), written().to_string()).unwrap();
        fs::write(directory.join("large"), " ".repeat(MAX_FILE_BYTES as usize + 1)).unwrap();
        std::os::unix::fs::symlink(directory.join("good"), directory.join("link")).unwrap();
        let (cached, unusable) = read(&directory).unwrap();
        assert_eq!((cached.len(), unusable), (1, 3));
        fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn plugin_in_chain_is_read_from_cached_configuration() {
        let ran = |config: &str| {
            let mut value = written();
            value["config"] = config.into();
            parse(&value.to_string()).unwrap().ran_plugin
        };
        // {"name":"a","plugins":[{"type":"x"}]}, the same with our plugin, a single plugin, and a list with a folder.
        assert_eq!(ran("eyJuYW1lIjoiYSIsInBsdWdpbnMiOlt7InR5cGUiOiJ4In1dfQ=="), Some(false));
        let ours = "eyJuYW1lIjoiYSIsInBsdWdpbnMiOlt7InR5cGUiOiJ4In0seyJ0eXBlIjoic2lkZXRyYWNrIn1dfQ==";
        assert_eq!(ran(ours), Some(true));
        assert_eq!(ran("eyJuYW1lIjoiYSIsInR5cGUiOiJ4In0="), Some(false));
        assert_eq!(ran("eyJuYW1lIjoiYSJ9"), None);
        assert_eq!(ran("e30="), None);
        assert_eq!(ran("not base64"), None);
    }
}
