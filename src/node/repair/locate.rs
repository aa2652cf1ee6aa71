//! Finding the network namespace of a pod.
//!
//! The cache has the path of the namespace's file on the node: newer versions of libcni write it, and plugins return it
//! (`sandbox` of an interface). Where it has no path, the cached addresses identify the namespace. In any case the
//! namespace must have one of these addresses: file names and process IDs are reused.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use super::processes::{Process, processes};
use super::sandbox::Sandbox;
use crate::cni::late::{self, Seen};
use crate::linux::files::FileError;
use crate::linux::netns::{Identity, Netns, NetnsError, identity};
use crate::mesh::PROXY_PROGRAMS;
use crate::mesh::annotations::PREFIX;
use crate::options::Proxy;
use crate::types::{Gid, Id as _, Uid, Uids};

/// The directories of a node that matter for finding pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Places {
    /// The result cache of libcni.
    pub cache: PathBuf,
    /// The files of network namespaces.
    pub netns: PathBuf,
    /// The proc file system of the node; optional.
    pub proc: PathBuf,
}

/// The result of looking for a pod's network namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Located {
    /// Found, with its observed state.
    At(Arc<Netns>, Seen),
    /// The namespace no longer exists: how that was detected.
    Gone(String),
    /// The search failed: the reason.
    Unknown(String),
}

/// The network namespaces of the node, collected when they are needed.
pub struct Namespaces<'p> {
    places: &'p Places,
    processes: Option<Vec<Process>>,
    /// The namespaces that no pod's file leads to, with their addresses.
    unclaimed: Option<BTreeMap<Identity, (Arc<Netns>, Seen)>>,
    claimed: Vec<Identity>,
}

impl<'p> Namespaces<'p> {
    /// The namespaces of the node.
    ///
    /// # Errors
    /// The directory of their files cannot be read. Without it, every pod would seem to be gone.
    pub fn of(places: &'p Places) -> Result<Self, FileError> {
        fs::read_dir(&places.netns).map_err(FileError::system("reading the directory", &places.netns))?;
        Ok(Self {
            places,
            processes: None,
            unclaimed: None,
            claimed: Vec::new(),
        })
    }

    /// The namespace that a pod's file leads to; `None` where the cache has no such file.
    pub fn by_file(&mut self, sandbox: &Sandbox) -> Option<Located> {
        let gone = || Located::Gone("the file of its network namespace is gone".to_owned());
        let mut located = None;
        for path in sandbox.netns.iter().filter_map(|path| self.places.here(path)) {
            match Netns::open(path) {
                Ok(netns) => {
                    self.claimed.push(netns.identity());
                    return Some(observe(netns, &sandbox.addresses, self.places));
                }
                Err(NetnsError::Open { reason, .. }) if reason.kind() == ErrorKind::NotFound => {
                    located.get_or_insert_with(gone);
                }
                Err(error) => located = Some(Located::Unknown(error.to_string())),
            }
        }
        located
    }

    /// The one unclaimed namespace that has a pod's addresses. To be called after [`by_file`](Self::by_file) for all
    /// pods.
    pub fn by_address(&mut self, sandbox: &Sandbox) -> Located {
        if sandbox.addresses.is_empty() {
            return Located::Unknown("the cache has neither its network namespace nor its addresses".to_owned());
        }
        let mut found = self
            .unclaimed()
            .values()
            .filter(|(_, seen)| holds_any(seen, &sandbox.addresses));
        match (found.next(), found.next()) {
            (Some((netns, seen)), None) => Located::At(Arc::clone(netns), seen.clone()),
            (Some(_), Some(_)) => Located::Unknown("several network namespaces have its addresses".to_owned()),
            (None, _) => Located::Gone("no network namespace has its addresses".to_owned()),
        }
    }

    fn unclaimed(&mut self) -> &BTreeMap<Identity, (Arc<Netns>, Seen)> {
        if self.unclaimed.is_none() {
            let entries = fs::read_dir(&self.places.netns).into_iter().flatten().flatten();
            let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
            paths.extend(self.processes().iter().map(|process| process.netns.clone()));
            let mut unclaimed = BTreeMap::new();
            for path in paths {
                let Ok(netns) = Netns::open(path) else { continue };
                let namespace = netns.identity();
                if self.claimed.contains(&namespace) || unclaimed.contains_key(&namespace) {
                    continue;
                }
                // Skips the host's namespace, and files that are not namespaces.
                if let Ok(seen) = late::observe(&netns, &self.places.proc_mounts()) {
                    unclaimed.insert(namespace, (Arc::new(netns), seen));
                }
            }
            self.unclaimed = Some(unclaimed);
        }
        self.unclaimed.get_or_insert_default()
    }

    fn processes(&mut self) -> &[Process] {
        let proc = &self.places.proc;
        self.processes.get_or_insert_with(|| processes(proc))
    }

    /// The first of these users that a process in a namespace runs as.
    pub fn runs_as(&mut self, netns: &Netns, uids: &Uids) -> Option<Uid> {
        let namespace = netns.identity();
        let mut inside = self.processes().iter().filter(|process| process.identity == namespace);
        inside.find_map(|process| Uid::new(process.uid?).filter(|uid| uids.contains(*uid)))
    }

    /// A warning about a proxy in a namespace whose user and group the rules do not exempt. Where one proxy is exempt,
    /// the others belong to the application.
    pub fn unknown_proxy(&mut self, netns: &Netns, exempt: &Proxy) -> Option<String> {
        let namespace = netns.identity();
        let proxies = self.processes().iter().filter(|process| {
            let is_proxy = PROXY_PROGRAMS.iter().any(|program| process.is_called(program));
            process.identity == namespace && is_proxy
        });
        let proxies: Vec<&Process> = proxies.collect();
        let is_exempt = |process: &&&Process| {
            let uid = process.uid.and_then(Uid::new);
            let gid = process.gid.and_then(Gid::new);
            uid.is_some_and(|uid| exempt.uids.contains(uid)) || gid.is_some_and(|gid| exempt.gids.contains(gid))
        };
        if proxies.iter().find(is_exempt).is_some() {
            return None;
        }
        let (process, uid) = proxies.iter().find_map(|process| Some((process, process.uid?)))?;
        Some(format!(
            "the proxy {} runs as user {uid}, which the rules do not exempt: its traffic is redirected back to it; set \
             {PREFIX}proxy-uid",
            process.name
        ))
    }
}

/// Observes the namespace of a pod with these addresses.
fn observe(netns: Netns, addresses: &[IpAddr], places: &Places) -> Located {
    let path = || netns.path().display();
    match late::observe(&netns, &places.proc_mounts()) {
        Ok(_) if addresses.is_empty() => Located::Unknown(format!(
            "the cache has none of its addresses, so that {} may belong to another pod by now",
            path()
        )),
        Ok(seen) if holds_any(&seen, addresses) => Located::At(Arc::new(netns), seen),
        Ok(_) => Located::Gone(format!(
            "{} has none of its addresses: it belongs to another pod by now",
            path()
        )),
        Err(error) => Located::Unknown(error.message()),
    }
}

fn holds_any(seen: &Seen, addresses: &[IpAddr]) -> bool {
    addresses.iter().any(|address| seen.addresses.contains(address))
}

impl Places {
    /// The directories where the node's proc file system may be mounted.
    pub fn proc_mounts(&self) -> [&Path; 2] {
        [&self.proc, "/proc".as_ref()]
    }

    /// Whether a file of a pod leads to this network namespace.
    pub fn lead_to(&self, sandbox: &Sandbox, netns: Identity) -> bool {
        let mut files = sandbox.netns.iter().filter_map(|path| self.here(path));
        files.any(|path| identity(&path).is_ok_and(|found| found == netns))
    }

    /// The local path of a file of the node: one in a directory `netns`, or a file of a process.
    fn here(&self, path: &Path) -> Option<PathBuf> {
        let parts: Vec<Component> = path.components().collect();
        let text = |part: &Component| part.as_os_str().to_str().map(str::to_owned);
        let texts: Vec<String> = parts.iter().map(text).collect::<Option<_>>()?;
        match texts.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
            ["/", "proc", process, "ns", "net"] if process.parse::<u32>().is_ok() => {
                Some(self.proc.join(process).join("ns/net"))
            }
            ["/", "run", "netns", name] | ["/", "var", "run", "netns", name] if *name != ".." => {
                Some(self.netns.join(name))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn node_paths_map_to_mounted_directories() {
        let places = Places {
            cache: "/host/cache".into(),
            netns: "/host/netns".into(),
            proc: "/host/proc".into(),
        };
        let here = |path: &str| places.here(Path::new(path));
        assert_eq!(here("/var/run/netns/cni-1"), Some("/host/netns/cni-1".into()));
        assert_eq!(here("/run/netns/cni-1"), Some("/host/netns/cni-1".into()));
        assert_eq!(here("/proc/77/ns/net"), Some("/host/proc/77/ns/net".into()));
        for elsewhere in [
            "/var/run/netns/..",
            "/var/run/netns",
            "/proc/self/ns/net",
            "/etc/passwd",
            "x",
        ] {
            assert_eq!(here(elsewhere), None, "{elsewhere}");
        }
    }

    #[test]
    fn namespace_with_one_address_of_a_pod_matches() {
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        let seen = Seen {
            holder: crate::backend::running::Holder::None,
            addresses: vec![address("10.0.0.2"), address("fd00::2")],
        };
        assert!(holds_any(&seen, &[address("fd00::2"), address("10.9.9.9")]));
        assert!(!holds_any(&seen, &[address("10.0.0.3")]));
        assert!(!holds_any(&seen, &[]));
    }
}
