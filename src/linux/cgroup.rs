//! The cgroup v2 hierarchy (cgroups(7), Documentation/admin-guide/cgroup-v2.rst).

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirEntryExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::types::CgroupPath;

/// The link to the initial cgroup namespace (`PROC_CGROUP_INIT_INO`, linux/proc_ns.h).
const INITIAL_NAMESPACE: &str = "cgroup:[4026531835]";

/// Why a cgroup cannot be matched.
#[derive(Debug, Error)]
pub enum CgroupError {
    /// It does not exist.
    #[error(
        "--proxy-cgroup: there is no cgroup {path} in {}. Start the proxy, or create its cgroup, before the rules; name it \
         as /proc/PID/cgroup of the proxy does after 0::/",
        mount.display()
    )]
    Absent {
        /// The path.
        path: CgroupPath,
        /// Where the hierarchy is mounted.
        mount: PathBuf,
    },
    /// No cgroup v2 hierarchy is mounted.
    #[error(
        "--proxy-cgroup: no cgroup v2 hierarchy is mounted here. Mount it (mount -t cgroup2 none /sys/fs/cgroup/unified), \
         or recognise the proxy by --proxy-mark"
    )]
    NoHierarchy,
    /// This is not the host's cgroup namespace. Before Linux 6.12 and its backports, the kernel takes the level of a cgroup
    /// in a rule for that below the host's root.
    #[error(
        "--proxy-cgroup: this is a container's cgroup namespace, whose paths are not those of the host. Run sidetrack on the \
         host with --netns, or recognise the proxy by --proxy-mark"
    )]
    Namespace,
    /// A file cannot be read.
    #[error("--proxy-cgroup: {} cannot be read ({source}). Run as root on the host", file.display())]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// The I/O error.
        source: io::Error,
    },
}

/// The ID by which rules of nftables have a cgroup: the number of its directory.
///
/// # Errors
/// It does not exist here, or this place does not show it.
pub fn id(path: &CgroupPath) -> Result<u64, CgroupError> {
    let mount = hierarchy()?;
    let directory = mount.join(path.as_str());
    let device = fs::metadata(&mount).map_err(unreadable(&mount))?.dev();
    match fs::symlink_metadata(&directory) {
        Ok(found) if found.is_dir() && found.dev() == device => Ok(found.ino()),
        Err(error) if error.kind() == ErrorKind::PermissionDenied => Err(unreadable(&directory)(error)),
        Ok(_) | Err(_) => Err(CgroupError::Absent {
            path: path.clone(),
            mount,
        }),
    }
}

/// The path of the cgroup with this ID at this level below the root, if it is there and this place shows it.
pub fn path(id: u64, level: u32) -> Option<CgroupPath> {
    let mount = match hierarchy() {
        Ok(mount) => mount,
        Err(error) => {
            tracing::debug!(%error, "no cgroup has a name");
            return None;
        }
    };
    let found = find(&mount, id, level)?;
    CgroupPath::parse(found.strip_prefix(&mount).ok()?.to_str()?).ok()
}

fn find(directory: &Path, id: u64, level: u32) -> Option<PathBuf> {
    // A cgroup that is gone meanwhile is not the one.
    let mut below = fs::read_dir(directory)
        .ok()?
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    match level {
        0 => None,
        1 => below.find(|entry| entry.ino() == id).map(|entry| entry.path()),
        _ => below.find_map(|entry| find(&entry.path(), id, level - 1)),
    }
}

fn unreadable(file: &Path) -> impl FnOnce(io::Error) -> CgroupError + use<> {
    let file = file.to_owned();
    move |source| CgroupError::Unreadable { file, source }
}

/// Where the whole hierarchy is mounted.
fn hierarchy() -> Result<PathBuf, CgroupError> {
    let namespace = Path::new("/proc/self/ns/cgroup");
    match fs::read_link(namespace) {
        Ok(link) if link == Path::new(INITIAL_NAMESPACE) => {}
        Ok(_) => return Err(CgroupError::Namespace),
        // A kernel without cgroup namespaces.
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(unreadable(namespace)(error)),
    }
    let mounts = Path::new("/proc/self/mountinfo");
    let text = fs::read_to_string(mounts).map_err(unreadable(mounts))?;
    text.lines().find_map(mount_point).ok_or(CgroupError::NoHierarchy)
}

/// The mount point of a line of mountinfo, if the whole cgroup v2 hierarchy is mounted there (proc_pid_mountinfo(5)).
fn mount_point(line: &str) -> Option<PathBuf> {
    let (mount, file_system) = line.split_once(" - ")?;
    let mut fields = mount.split(' ').skip(3);
    let (root, point) = (fields.next()?, fields.next()?);
    let is_whole = root == "/" && file_system.starts_with("cgroup2 ");
    is_whole.then(|| point.replace("\\040", " ").into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_point_is_that_of_the_whole_hierarchy() {
        let line = |root, kind| {
            format!("43 28 0:27 {root} /sys/fs/cgroup/uni\\040fied rw,relatime shared:9 - {kind} cgroup2 rw")
        };
        assert_eq!(
            mount_point(&line("/", "cgroup2")),
            Some("/sys/fs/cgroup/uni fied".into())
        );
        assert_eq!(mount_point(&line("/", "cgroup")), None);
        assert_eq!(mount_point(&line("/..", "cgroup2")), None);
    }
}
