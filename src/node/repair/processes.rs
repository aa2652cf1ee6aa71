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
    /// As whom it runs, as its own user namespace calls that user.
    pub uid: Option<u32>,
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
    Some(Process {
        identity: identity(&netns).ok()?,
        uid: read("status")
            .zip(read("uid_map"))
            .and_then(|(status, map)| uid(&status, &map)),
        netns,
    })
}

/// The effective user, in the words of the process's user namespace.
fn uid(status: &str, map: &str) -> Option<u32> {
    let ids = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    let seen: u32 = ids.split_ascii_whitespace().nth(1)?.parse().ok()?;
    // Each line: the first user inside, the same as we call it, and how many there are.
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
        let status = "Name:\tenvoy\nUid:\t66873\t66873\t66873\t66873\n";
        assert_eq!(uid(status, "         0          0 4294967295\n"), Some(66873));
        assert_eq!(uid(status, "         0      65536      65536\n"), Some(1337));
        assert_eq!(uid(status, "      0   1000    1\n   1  65537      65535\n"), Some(1337));
        assert_eq!(uid(status, "         0          0       1000\n"), None);
        assert_eq!(uid("", ""), None);
    }

    #[test]
    fn we_are_among_the_processes() {
        let ours = processes(Path::new("/proc"))
            .into_iter()
            .find(|process| process.netns.starts_with(format!("/proc/{}", std::process::id())));
        let ours = ours.expect("this process");
        assert_eq!(ours.identity, identity(Path::new("/proc/self/ns/net")).unwrap());
        assert_eq!(ours.uid, Some(nix::unistd::geteuid().as_raw()));
        assert_eq!(processes(Path::new("/no/such/proc")), []);
    }
}
