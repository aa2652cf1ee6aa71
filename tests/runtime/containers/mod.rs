//! The CNI plugin as container runtimes run it: containerd, whose CRI is called as the kubelet calls it, `ctr`, and
//! podman. They are those of Debian, each on a node of its own, with the conflists of `cni-conf` as they are.

mod agent;
mod containerd;
mod ctr;
mod image;
mod installed;
mod locked;
mod networks;
mod node;
mod podman;
mod pods;
mod proxied;

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use crate::common::{Netns, Owner, Transport, call_from};

/// The network for Kubernetes.
const KUBERNETES: &str = "10-kubernetes.conflist";
/// The network for containers that all have a proxy.
const ALL_PROXIED: &str = "87-podman-nerdctl.conflist";
/// The image that containers are made of.
const IMAGE: &str = "localhost/busybox:latest";

/// A file that the runtimes, or what stands in for the kubelet, are run with.
fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/runtime/files")
        .join(name)
}

/// A conflist of `cni-conf`, as it is.
fn conflist(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("cni-conf").join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Where a call of the app in a namespace arrives: the server and its port.
fn landing(netns: &Netns, transport: Transport, to: SocketAddr) -> String {
    let call = netns.run(|| {
        Owner::APP.assume()?;
        call_from(transport, None, to)
    });
    let arrival = call
        .unwrap_or_else(|error| panic!("{transport:?} to {to}: {error}"))
        .arrival;
    let arrival = arrival.unwrap_or_else(|| panic!("{transport:?} to {to}: no answer"));
    format!("{} {}", arrival.server, arrival.port)
}
