//! The name servers that processes query (resolv.conf(5)), from this file system or for another network namespace.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read as _};
use std::net::IpAddr;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use thiserror::Error;

use super::netns::{Identity, identity};

const FILE: &str = "/etc/resolv.conf";

/// Size limit in bytes: more than any resolv.conf has. Another process controls the size of its file.
const MAX_LENGTH: u64 = 64 * 1024;

/// The file exists, but cannot be read.
#[derive(Debug, Error)]
#[error(
    "reading {}, whose name servers' lookups are to be captured: {reason}. \
     Name the servers with --dns-servers, or pass --dns-servers all", path.display()
)]
pub struct ResolversError {
    path: PathBuf,
    reason: io::Error,
}

/// The name servers of another network namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OfNamespace {
    /// It is the namespace of this process, so this process's own file counts.
    Own,
    /// The servers, each once and at least one, and the file or files that list them.
    Known(Vec<IpAddr>, String),
    /// No readable file lists any.
    Unknown,
}

/// The name servers that processes in this network namespace query: those of `/etc/resolv.conf`; none if the file does not
/// exist. A process that entered this namespace alone, as by `nsenter --net`, sees the node's file: then those of the
/// other processes in it count.
///
/// # Errors
/// It cannot be read.
pub fn read() -> Result<Vec<IpAddr>, ResolversError> {
    if let Some(netns) = netns_without_file()
        && let OfNamespace::Known(servers, from) = of_processes(&processes_of_pod(netns))
    {
        tracing::info!(
            from,
            "this process has the node's /etc/resolv.conf: the name servers are those of the processes of the pod"
        );
        return Ok(servers);
    }
    Ok(read_file(Path::new(FILE))?.unwrap_or_default())
}

/// The network namespace of this process, if this process has the file of the first process, which is in another one.
fn netns_without_file() -> Option<Identity> {
    let netns = |process: &str| identity(&Path::new("/proc").join(process).join("ns/net")).ok();
    let own = netns("self")?;
    (netns("1")? != own && file_of(Path::new("/proc/1/root"))? == file_of(Path::new("/"))?).then_some(own)
}

/// The identity of `/etc/resolv.conf` below a root directory.
fn file_of(root: &Path) -> Option<Identity> {
    let metadata = open_beneath(root).and_then(|file| file.metadata()).ok()?;
    Some((metadata.dev(), metadata.ino()))
}

/// The name servers that processes in a network namespace query: those of the file that ip-netns(8) mounts for them,
/// else those of the files of the processes in it, except of processes that merely entered it.
///
/// # Errors
/// A file of ip-netns(8) cannot be read.
pub fn of_namespace(netns: &Path) -> Result<OfNamespace, ResolversError> {
    let own = identity(Path::new("/proc/self/ns/net"));
    let (Ok(wanted), Ok(own)) = (identity(netns), own) else {
        // Entering the namespace will report the error.
        return Ok(OfNamespace::Own);
    };
    if wanted == own {
        return Ok(OfNamespace::Own);
    }
    for name in names(wanted) {
        let path = Path::new("/etc/netns").join(name).join("resolv.conf");
        if let Some(servers) = read_file(&path)?.filter(|servers| !servers.is_empty()) {
            return Ok(OfNamespace::Known(servers, path.display().to_string()));
        }
    }
    Ok(match of_processes(&processes_of_pod(wanted)) {
        OfNamespace::Unknown => of_processes(&processes(wanted)),
        known => known,
    })
}

/// The processes in a network namespace that have another file than this process.
fn processes_of_pod(wanted: Identity) -> Vec<PathBuf> {
    let own = file_of(Path::new("/"));
    let mut processes = processes(wanted);
    processes.retain(|process| file_of(&process.join("root")) != own);
    processes
}

/// The name servers in the files of processes.
fn of_processes(processes: &[PathBuf]) -> OfNamespace {
    let (mut servers, mut files) = (Vec::new(), Vec::new());
    for process in processes {
        let path = process.join("root/etc/resolv.conf");
        match read_beneath(&process.join("root")) {
            Ok(text) => {
                let found = name_servers(&text, &path);
                if found.iter().any(|server| !servers.contains(server)) {
                    files.push(path.display().to_string());
                    servers.extend(found);
                }
            }
            Err(error) => {
                tracing::debug!(path = %path.display(), %error, "cannot read the name servers of this process")
            }
        }
    }
    if servers.is_empty() {
        OfNamespace::Unknown
    } else {
        OfNamespace::Known(once(servers), files.join(", "))
    }
}

/// The names of a network namespace in `ip netns`.
fn names(wanted: Identity) -> Vec<std::ffi::OsString> {
    let entries = fs::read_dir("/run/netns").into_iter().flatten().flatten();
    let is_wanted = |entry: &fs::DirEntry| identity(&entry.path()).is_ok_and(|found| found == wanted);
    let mut names: Vec<_> = entries.filter(is_wanted).map(|entry| entry.file_name()).collect();
    names.sort();
    names
}

/// The processes in a network namespace, as directories of proc(5), in ascending order of their PIDs.
fn processes(wanted: Identity) -> Vec<PathBuf> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbers = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let mut numbers: Vec<u32> = numbers.collect();
    numbers.sort_unstable();
    let directories = numbers
        .into_iter()
        .map(|number| Path::new("/proc").join(number.to_string()));
    directories
        .filter(|process| identity(&process.join("ns/net")).is_ok_and(|found| found == wanted))
        .collect()
}

/// The name servers of a file; `None` if it does not exist.
fn read_file(path: &Path) -> Result<Option<Vec<IpAddr>>, ResolversError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(name_servers(&String::from_utf8_lossy(&bytes), path))),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            tracing::debug!(path = %path.display(), "no name servers: there is no such file");
            Ok(None)
        }
        Err(reason) => Err(ResolversError {
            path: path.to_owned(),
            reason,
        }),
    }
}

/// The text of `/etc/resolv.conf` below another root directory. Only a regular file is opened, since the owner of that
/// file system controls its contents.
fn read_beneath(root: &Path) -> io::Result<String> {
    let found = open_beneath(root)?;
    if !found.metadata()?.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    let mut bytes = Vec::new();
    let file = File::open(format!("/proc/self/fd/{}", found.as_raw_fd()))?;
    file.take(MAX_LENGTH).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The path `/etc/resolv.conf` below another root directory, not opened for reading. Links cannot leave that root
/// (`RESOLVE_IN_ROOT`, since Linux 5.6).
fn open_beneath(root: &Path) -> io::Result<File> {
    let root = File::open(root)?;
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT);
    Ok(File::from(openat2(&root, FILE, how)?))
}

/// The addresses in the lines that begin with `nameserver`, each once, without the interface of link-local ones.
/// Invalid addresses are logged: resolvers ignore such lines too.
fn name_servers(text: &str, path: &Path) -> Vec<IpAddr> {
    let mut servers = Vec::new();
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        if words.next() != Some("nameserver") {
            continue;
        }
        let word = words.next().unwrap_or_default();
        let address = word.split('%').next().unwrap_or_default().parse::<IpAddr>();
        match address {
            Ok(address) => servers.push(address.to_canonical()),
            Err(_) => tracing::warn!(
                path = %path.display(),
                "the name server {word:?} is not an IP address and is ignored: the line may hold nothing but the address"
            ),
        }
    }
    once(servers)
}

fn once(addresses: Vec<IpAddr>) -> Vec<IpAddr> {
    let mut once = Vec::new();
    for address in addresses {
        if !once.contains(&address) {
            once.push(address);
        }
    }
    once
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_servers_are_found_among_other_lines() {
        let text = "# nameserver 9.9.9.9\nsearch a.b\nnameserver 10.96.0.10\n nameserver\t::1 # no comment\n\
                    nameserver fe80::1%eth0\nnameserver ::ffff:10.96.0.10\nnameserver bad\nnameservers 1.1.1.1\n\
                    nameserver 10.0.0.1;\nnameserver\n";
        let servers: Vec<String> = name_servers(text, Path::new(FILE))
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(servers, ["10.96.0.10", "::1", "fe80::1"]);
    }

    #[test]
    fn own_namespace_uses_own_file() {
        for path in ["/proc/self/ns/net", "/proc/thread-self/ns/net", "/no/such/namespace"] {
            assert_eq!(of_namespace(Path::new(path)).unwrap(), OfNamespace::Own, "{path}");
        }
    }

    #[test]
    fn only_regular_files_are_opened() {
        let root = std::env::temp_dir().join(format!("sidetrack-resolvers-{}", std::process::id()));
        fs::create_dir_all(root.join("etc")).unwrap();
        let file = root.join("etc/resolv.conf");
        nix::unistd::mkfifo(&file, nix::sys::stat::Mode::S_IRUSR).unwrap();
        let of_fifo = read_beneath(&root);
        fs::remove_file(&file).unwrap();
        // An absolute link, as systemd-resolved creates it, resolves below that root.
        std::os::unix::fs::symlink("/etc/passwd", &file).unwrap();
        let of_link = read_beneath(&root);
        fs::write(root.join("etc/passwd"), "nameserver 10.0.0.1\n").unwrap();
        let of_link_to_file = read_beneath(&root);
        fs::remove_dir_all(&root).unwrap();
        assert!(of_fifo.unwrap_err().to_string().contains("no regular file"));
        assert_eq!(of_link.unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(of_link_to_file.unwrap(), "nameserver 10.0.0.1\n");
    }
}
