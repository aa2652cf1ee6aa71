//! Capabilities (capabilities(7)): giving up unneeded ones, and advice after the kernel denied permission.
//!
//! Only the kernel's answer to a request decides, never this module: what counts is the capability in the user
//! namespace that owns the network namespace, which cannot be looked up.

use caps::errors::CapsError;
use caps::{CapSet, Capability, CapsHashSet};
use thiserror::Error;

/// The capabilities for reading and writing rules: CAP_NET_RAW is for legacy iptables.
const NETWORK_CAPABILITIES: &[Capability] = &[Capability::CAP_NET_ADMIN, Capability::CAP_NET_RAW];

/// Those for tracing: the others are for reading the descriptors of any process in /proc.
const TRACING_CAPABILITIES: &[Capability] = &[
    Capability::CAP_NET_ADMIN,
    Capability::CAP_SYS_PTRACE,
    Capability::CAP_DAC_READ_SEARCH,
];

/// Those for probes, which connect and listen as other users, on any port, and make a network namespace for a host outside.
const PROBE_CAPABILITIES: &[Capability] = &[
    Capability::CAP_NET_ADMIN,
    Capability::CAP_NET_RAW,
    Capability::CAP_NET_BIND_SERVICE,
    Capability::CAP_SETUID,
    Capability::CAP_SETGID,
    Capability::CAP_SYS_ADMIN,
];

/// A failure to give up privileges.
#[derive(Debug, Error)]
#[error(
    "giving up privileges that are not needed in the network namespace ({what}): {reason}. Nothing was done there. A \
     security policy may deny it (a seccomp filter, SELinux): let prctl and capset be called"
)]
pub struct PrivilegeError {
    what: &'static str,
    reason: String,
}

/// Gives up, for this thread and the programs it starts, all capabilities but those for reading and writing rules, and the
/// ability to gain new ones (`no_new_privs`). This cannot be reverted.
///
/// # Errors
/// The kernel refused. The thread must not start its work then.
pub fn keep_network_capabilities() -> Result<(), PrivilegeError> {
    keep(NETWORK_CAPABILITIES)
}

/// The same, but keeps the capabilities that probes need.
///
/// # Errors
/// As [`keep_network_capabilities`].
pub fn keep_probe_capabilities() -> Result<(), PrivilegeError> {
    keep(PROBE_CAPABILITIES)
}

/// The same for a thread that traces: it keeps what reading the owners of sockets needs.
///
/// # Errors
/// As [`keep_network_capabilities`].
pub fn keep_tracing_capabilities() -> Result<(), PrivilegeError> {
    keep(TRACING_CAPABILITIES)
}

fn keep(needed: &[Capability]) -> Result<(), PrivilegeError> {
    nix::sys::prctl::set_no_new_privs().map_err(|errno| PrivilegeError {
        what: "no_new_privs",
        reason: errno.to_string(),
    })?;
    drop_others(needed).map_err(|error| PrivilegeError {
        what: "capabilities",
        reason: error.to_string(),
    })
}

fn drop_others(needed: &[Capability]) -> Result<(), CapsError> {
    // Effective capabilities first: they must be a subset of the permitted ones.
    for set in [CapSet::Effective, CapSet::Inheritable, CapSet::Permitted] {
        let remaining: CapsHashSet = caps::read(None, set)?
            .into_iter()
            .filter(|capability| needed.contains(capability))
            .collect();
        caps::set(None, set, &remaining)?;
    }
    Ok(())
}

/// Advice after the kernel refused for lack of CAP_NET_ADMIN.
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
    fn advice_depends_on_the_capability_sets() {
        assert!(advise(false, false, true, false).contains("bounding set alone"));
        assert!(advise(false, false, false, false).contains("add NET_ADMIN"));
        assert!(advise(true, true, true, true).contains("user namespace"));
    }
}
