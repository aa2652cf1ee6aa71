//! The process that has a socket, found by the socket's inode (proc_pid_fd(5)).

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use super::netns;

/// Processes that had sockets lately are searched first.
const MAX_RECENT: usize = 8;
/// The part of the time that searching all processes may take: one in this number.
const TIME_SHARE: u32 = 2;

/// Finds the processes of sockets. It reads the descriptors of all processes in /proc, which takes milliseconds on a
/// busy node: it does so less often than it is asked to, and then finds nothing.
#[derive(Debug, Default)]
pub struct Processes {
    recent: VecDeque<u32>,
    next_search: Option<Instant>,
}

impl Processes {
    /// The process that has the socket with this inode: its PID and its name. Descriptors of other users' processes can
    /// be read with CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH alone.
    pub fn with_socket(&mut self, inode: u32) -> Option<(u32, String)> {
        let link = OsString::from(format!("socket:[{inode}]"));
        let pid = self.recent.iter().copied().find(|pid| has_descriptor(*pid, &link));
        let pid = pid.or_else(|| self.search(&link))?;
        self.recent.retain(|known| *known != pid);
        self.recent.push_front(pid);
        self.recent.truncate(MAX_RECENT);
        let name = fs::read(format!("/proc/{pid}/comm")).ok()?;
        Some((pid, String::from_utf8_lossy(&name).trim_end().to_owned()))
    }

    fn search(&mut self, link: &OsString) -> Option<u32> {
        let start = Instant::now();
        if self.next_search.is_some_and(|next| start < next) {
            return None;
        }
        let found = candidates().into_iter().find(|pid| has_descriptor(*pid, link));
        let end = Instant::now();
        let pause: Duration = end.saturating_duration_since(start) * (TIME_SHARE - 1);
        self.next_search = end.checked_add(pause);
        found
    }
}

/// All processes: those in the network namespace of this thread first, and of these the youngest first.
fn candidates() -> Vec<u32> {
    let here = netns::identity(Path::new("/proc/thread-self/ns/net")).ok();
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let mut pids: Vec<(bool, u32)> = entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .map(|pid: u32| {
            let netns = netns::identity(&Path::new("/proc").join(pid.to_string()).join("ns/net"));
            (netns.ok() == here, pid)
        })
        .collect();
    pids.sort_unstable_by(|one, other| other.cmp(one));
    pids.into_iter().map(|(_, pid)| pid).collect()
}

fn has_descriptor(pid: u32, link: &OsString) -> bool {
    let directory = format!("/proc/{pid}/fd");
    let descriptors = fs::read_dir(Path::new(&directory)).into_iter().flatten().flatten();
    descriptors
        .filter_map(|descriptor| fs::read_link(descriptor.path()).ok())
        .any(|target| target.as_os_str() == link)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    #[test]
    fn the_process_of_a_socket_is_found() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let socket = std::os::fd::AsRawFd::as_raw_fd(&listener);
        let inode = fs::metadata(format!("/proc/self/fd/{socket}")).unwrap().ino();
        let inode = u32::try_from(inode).unwrap();
        let mut processes = Processes::default();
        let (pid, name) = processes.with_socket(inode).unwrap();
        assert_eq!(pid, std::process::id());
        assert!(!name.is_empty());
        // The process is known now, so the next search needs no pause.
        assert!(processes.with_socket(inode).is_some());
        drop(listener);
        assert_eq!(Processes::default().with_socket(inode), None);
    }
}
