//! The processes of the node: in which network namespaces they are, and as whom they run (proc_pid_status(5),
//! user_namespaces(7)).
//!
//! Processes that may not be looked at are passed over: without CAP_SYS_PTRACE those are all that run as another user.

use std::fs;
use std::path::{Path, PathBuf};

use crate::linux::netns::{Identity, identity};

/// A process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// The file of its network namespace.
    pub netns: PathBuf,
    /// Which namespace that is.
    pub identity: Identity,
    /// The name of its program, of which the kernel keeps [`COMM`] bytes.
    pub name: String,
    /// As whom it runs, as its own user namespace calls that user.
    pub uid: Option<u32>,
    /// The group that it runs as, as its own user namespace calls that.
    pub gid: Option<u32>,
}

/// `TASK_COMM_LEN` without the zero at the end (include/linux/sched.h).
const COMM: usize = 15;

impl Process {
    /// Whether it is an instance of this program.
    pub fn is_called(&self, program: &str) -> bool {
        self.name == program.get(..COMM).unwrap_or(program)
    }
}

/// The processes that a proc file system shows. Nothing is there that is not mounted.
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

/// The effective user or group, in the words of the process's user namespace.
fn id(ids: &str, map: &str) -> Option<u32> {
    let seen: u32 = ids.split_ascii_whitespace().nth(1)?.parse().ok()?;
    // Each line: the first one inside, the same as we call it, and how many there are.
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
    fn users_have_the_numbers_of_their_own_user_namespace() {
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
