//! Capabilities (capabilities(7)): giving up those that are not needed; why the kernel said no, and what to do about it.
//!
//! The kernel's own answer decides, never this: what counts is the capability in the user namespace that owns the
//! network namespace, which cannot be looked up.

use caps::errors::CapsError;
use caps::{CapSet, Capability, CapsHashSet};
use thiserror::Error;

/// What writing rules takes: CAP_NET_RAW is for legacy iptables.
const OF_THE_NETWORK: [Capability; 2] = [Capability::CAP_NET_ADMIN, Capability::CAP_NET_RAW];

/// Privileges that could not be given up.
#[derive(Debug, Error)]
#[error(
    "giving up privileges that are not needed in the network namespace ({what}): {reason}. Nothing was done there. A \
     security policy may deny it (a seccomp filter, SELinux): let prctl and capset be called"
)]
pub struct PrivilegeError {
    what: &'static str,
    reason: String,
}

/// Gives up, for this thread and the programs that it starts, every other capability and the way to new ones
/// (`no_new_privs`). There is no way back.
///
/// # Errors
/// The kernel did not let it. What the thread was to do is not to be begun.
pub fn keep_those_of_the_network() -> Result<(), PrivilegeError> {
    nix::sys::prctl::set_no_new_privs().map_err(|errno| PrivilegeError {
        what: "no_new_privs",
        reason: errno.to_string(),
    })?;
    drop_others().map_err(|error| PrivilegeError {
        what: "capabilities",
        reason: error.to_string(),
    })
}

fn drop_others() -> Result<(), CapsError> {
    // Effective ones first: they must be permitted.
    for set in [CapSet::Effective, CapSet::Inheritable, CapSet::Permitted] {
        let kept: CapsHashSet = caps::read(None, set)?
            .into_iter()
            .filter(|capability| OF_THE_NETWORK.contains(capability))
            .collect();
        caps::set(None, set, &kept)?;
    }
    Ok(())
}

/// What to do when the kernel has refused for lack of CAP_NET_ADMIN.
pub fn advice() -> String {
    let has = |set| caps::has_cap(None, set, Capability::CAP_NET_ADMIN).unwrap_or(false);
    let root = nix::unistd::geteuid().is_root();
    advise(
        has(CapSet::Effective),
        has(CapSet::Permitted),
        has(CapSet::Bounding),
        root,
    )
    .to_owned()
}

fn advise(effective: bool, permitted: bool, bounding: bool, root: bool) -> &'static str {
    match (effective, permitted, bounding, root) {
        (true, ..) => {
            "CAP_NET_ADMIN is effective, but not in the user namespace that owns this network namespace: \
             run in that user namespace, or on the host as root"
        }
        (_, true, ..) => "CAP_NET_ADMIN is permitted but not effective: raise it before starting sidetrack",
        (_, _, true, false) => {
            "CAP_NET_ADMIN is granted, but as this process is not root it never became effective: container runtimes \
             such as containerd put an added capability of a non-root user into the bounding set alone. Run as user 0 \
             with all capabilities dropped but NET_ADMIN, or give the binary the file capability \
             (setcap cap_net_admin+ep) and allow privilege escalation"
        }
        (_, _, true, true) => {
            "CAP_NET_ADMIN was dropped by this process's parent: let it be inherited, or start sidetrack without that"
        }
        (_, _, false, _) => {
            "CAP_NET_ADMIN is missing: add NET_ADMIN to the container's capabilities \
             (securityContext.capabilities.add), or run as root"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_capability_in_the_bounding_set_alone_is_told_apart_from_none() {
        assert!(advise(false, false, true, false).contains("bounding set alone"));
        assert!(advise(false, false, false, false).contains("add NET_ADMIN"));
        assert!(advise(true, true, true, true).contains("user namespace"));
    }
}
