//! cgroups (v2) for the processes of a proxy.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

/// A cgroup with one below it, `proxy`, which threads of this process may enter by themselves. Both are removed when
/// dropped; no process may be left in them.
pub struct Cgroup {
    mount: PathBuf,
    /// Its path below the root.
    pub path: String,
}

impl Cgroup {
    pub fn new() -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        // Below that of this process, whose resources its threads share wherever they are.
        let own = fs::read_to_string("/proc/self/cgroup").expect("the cgroups of this process");
        let own = own
            .lines()
            .find_map(|line| line.strip_prefix("0::"))
            .expect("cgroup v2");
        let name = format!("sidetrack-test-{}-{number}", process::id());
        let cgroup = Self {
            mount: hierarchy(),
            path: format!("{}/{name}", own.trim_matches('/')).trim_matches('/').to_owned(),
        };
        cgroup.make();
        cgroup
    }

    /// The cgroup of the proxy below the root.
    pub fn proxy(&self) -> String {
        format!("{}/proxy", self.path)
    }

    pub fn make(&self) {
        for directory in [self.directory(), self.proxy_directory()] {
            fs::create_dir(&directory).expect("a cgroup: run as root");
            fs::write(directory.join("cgroup.type"), "threaded").expect("a cgroup for threads");
        }
    }

    pub fn remove(&self) {
        for directory in [self.proxy_directory(), self.directory()] {
            // What has ended leaves its cgroup some moments later.
            while let Err(error) = fs::remove_dir(&directory) {
                assert_eq!(error.raw_os_error(), Some(libc::EBUSY), "{error}");
                thread::yield_now();
            }
        }
    }

    /// Moves the calling thread into the proxy's cgroup.
    pub fn enter(&self) -> io::Result<()> {
        enter(&self.proxy())
    }

    /// Moves a process into the proxy's cgroup. Sockets that it has already stay those of its former one.
    pub fn add(&self, pid: u32) {
        fs::write(self.proxy_directory().join("cgroup.procs"), pid.to_string()).expect("a process in the cgroup");
    }

    fn directory(&self) -> PathBuf {
        self.mount.join(&self.path)
    }

    fn proxy_directory(&self) -> PathBuf {
        self.mount.join(self.proxy())
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        if self.directory().exists() {
            self.remove();
        }
    }
}

/// Moves the calling thread into a cgroup that was made for threads of this process.
pub fn enter(path: &str) -> io::Result<()> {
    fs::write(hierarchy().join(path).join("cgroup.threads"), "0")
}

/// Where cgroup v2 is mounted. Where it is not, it is mounted now, in a mount namespace of this thread and of those that
/// it starts.
fn hierarchy() -> PathBuf {
    let mounts = fs::read_to_string("/proc/thread-self/mounts").expect("the mounts");
    let mut mounts = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    if let Some(mount) = mounts.find(|fields| fields.get(2) == Some(&"cgroup2")) {
        return PathBuf::from(mount[1]);
    }
    let nothing = None::<&str>;
    unshare(CloneFlags::CLONE_NEWNS).expect("a mount namespace: run as root");
    mount(nothing, "/", nothing, MsFlags::MS_REC | MsFlags::MS_PRIVATE, nothing).expect("private mounts");
    let directory = Path::new("/sys/fs/cgroup");
    mount(Some("none"), directory, Some("cgroup2"), MsFlags::empty(), nothing).expect("cgroup v2");
    directory.to_owned()
}
