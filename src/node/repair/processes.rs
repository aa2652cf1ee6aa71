//! The processes of the node, with their network namespaces, users and groups (proc_pid_status(5), user_namespaces(7)).
//!
//! Unreadable processes are skipped: without CAP_SYS_PTRACE, those are all processes of other users.

use std::fs;
use std::path::{Path, PathBuf};

use crate::linux::netns::{Identity, identity};

/// A process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// The file of the network namespace.
    pub netns: PathBuf,
    /// The identity of that namespace.
    pub identity: Identity,
    /// The name of the program, of which the kernel keeps [`COMM_LENGTH`] bytes.
    pub name: String,
    /// The effective user, as an ID in the process's user namespace.
    pub uid: Option<u32>,
    /// The effective group, as an ID in the process's user namespace.
    pub gid: Option<u32>,
}

/// `TASK_COMM_LEN` without the zero at the end (include/linux/sched.h).
const COMM_LENGTH: usize = 15;

impl Process {
    /// Whether the process runs this program.
    pub fn is_called(&self, program: &str) -> bool {
        self.name == program.get(..COMM_LENGTH).unwrap_or(program)
    }
}

/// The processes in a proc file system; none where it is not mounted.
pub fn processes(proc: &Path) -> Vec<Process> {
    let entries = fs::read_dir(proc).into_iter().flatten().flatten();
    let numbered = entries.filter(|entry| entry.file_name().to_string_lossy().parse::<u32>().is_ok());
    numbered.filter_map(|entry| process(&entry.path())).collect()
}

fn process(directory: &Path) -> Option<Process> {
    let netns = directory.join("ns/net");
    let read = |name: &str| fs::read_to_string(directory.join(name)).ok();
    let status = read("status").unwrap_or_default();
    let id = |key: &str, map: &str| id(field(&status, key)?, &read(map)?);
    Some(Process {
        identity: identity(&netns).ok()?,
        name: field(&status, "Name:").unwrap_or_default().trim().to_owned(),
        uid: id("Uid:", "uid_map"),
        gid: id("Gid:", "gid_map"),
        netns,
    })
}

fn field<'s>(status: &'s str, key: &str) -> Option<&'s str> {
    status.lines().find_map(|line| line.strip_prefix(key))
}

/// The effective user or group, as an ID in the process's user namespace.
fn id(ids: &str, map: &str) -> Option<u32> {
    let seen: u32 = ids.split_ascii_whitespace().nth(1)?.parse().ok()?;
    // Each line: the first ID inside, the first ID in our user namespace, and the number of IDs.
    map.lines().find_map(|line| {
        let mut numbers = line.split_ascii_whitespace().map(str::parse::<u32>);
        let (inside, outside, length) = (numbers.next()?.ok()?, numbers.next()?.ok()?, numbers.next()?.ok()?);
        let offset = seen.checked_sub(outside).filter(|offset| *offset < length)?;
        inside.checked_add(offset)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_mapped_to_the_user_namespace_of_the_process() {
        let uid = |status: &str, map: &str| id(field(status, "Uid:")?, map);
        let status = "Name:\tenvoy\nUid:\t66873\t66873\t66873\t66873\n";
        assert_eq!(uid(status, "         0          0 4294967295\n"), Some(66873));
        assert_eq!(uid(status, "         0      65536      65536\n"), Some(1337));
        assert_eq!(uid(status, "      0   1000    1\n   1  65537      65535\n"), Some(1337));
        assert_eq!(uid(status, "         0          0       1000\n"), None);
        assert_eq!(uid("", ""), None);
    }

    #[test]
    fn the_kernel_keeps_the_beginning_of_a_program_s_name() {
        let process = |name: &str| Process {
            netns: PathBuf::new(),
            identity: identity(Path::new("/proc/self/ns/net")).unwrap(),
            name: name.to_owned(),
            uid: None,
            gid: None,
        };
        assert!(process("consul-dataplan").is_called("consul-dataplane"));
        assert!(process("envoy").is_called("envoy"));
        assert!(!process("envoy2").is_called("envoy"));
    }

    #[test]
    fn we_are_among_the_processes() {
        let ours = processes(Path::new("/proc"))
            .into_iter()
            .find(|process| process.netns.starts_with(format!("/proc/{}", std::process::id())));
        let ours = ours.expect("this process");
        assert_eq!(ours.identity, identity(Path::new("/proc/self/ns/net")).unwrap());
        assert_eq!(ours.uid, Some(nix::unistd::geteuid().as_raw()));
        assert_eq!(ours.gid, Some(nix::unistd::getegid().as_raw()));
        assert!(!ours.name.is_empty() && ours.is_called(&ours.name));
        assert_eq!(processes(Path::new("/no/such/proc")), []);
    }
}
