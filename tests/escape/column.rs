//! What is put around the application: by hand, or by sidetrack.

use crate::common::Pod;
use crate::program::{apply, feed};

/// A way to lock an application in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Column {
    /// `HTTP_PROXY` and its like: whoever ignores them is free.
    Variable,
    /// `sidetrack apply`: TCP goes to the proxy.
    Redirect,
    /// `iptables -P OUTPUT` with a match of the owner, as many write it.
    OwnerMatch,
    /// The same with ip6tables.
    OwnerMatchOfBoth,
    /// `--outbound-policy proxy-only` by this backend, with more options.
    Locked(&'static str, &'static [&'static str]),
}

/// The rules that people write: loopback, what belongs to known connections, the proxy's user; nothing else.
const OWNER_MATCH: &str = "*filter\n\
    -A OUTPUT -o lo -j ACCEPT\n\
    -A OUTPUT -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT\n\
    -A OUTPUT -m owner --uid-owner 1337 -j ACCEPT\n\
    -A OUTPUT -j DROP\n\
    COMMIT\n";

impl Column {
    /// Brings its rules into force.
    pub fn apply(self, pod: &Pod) {
        match self {
            Self::Variable => {}
            Self::Redirect => drop(apply(&pod.netns, "nftables", &[])),
            Self::OwnerMatch => feed(&pod.netns, "iptables-nft-restore", &[], OWNER_MATCH),
            Self::OwnerMatchOfBoth => {
                feed(&pod.netns, "iptables-nft-restore", &[], OWNER_MATCH);
                // Without ICMPv6 there are no neighbours.
                let discovery = "-A OUTPUT -p ipv6-icmp -j ACCEPT\n-A OUTPUT -j DROP";
                let rules = OWNER_MATCH.replace("-A OUTPUT -j DROP", discovery);
                feed(&pod.netns, "ip6tables-nft-restore", &[], &rules);
            }
            Self::Locked(backend, options) => drop(apply(&pod.netns, backend, &[LOCK, options].concat())),
        }
    }

    /// Whether the proxy is recognised by more than its user.
    pub fn requires_more_than_the_user(self) -> bool {
        matches!(self, Self::Locked(_, options) if options.contains(&"--proxy-mark")) || self.proxy_cgroup().is_some()
    }

    /// The cgroup that the proxy is recognised by.
    pub fn proxy_cgroup(self) -> Option<&'static str> {
        let Self::Locked(_, options) = self else {
            return None;
        };
        let mut rest = options.iter().skip_while(|option| **option != PROXY_CGROUP);
        rest.nth(1).copied()
    }

    /// Whether what arrives is rejected, too.
    pub fn rejects_inbound(self) -> bool {
        matches!(self, Self::Locked(_, options) if options.contains(&"--inbound-policy"))
    }
}

/// The option with the cgroup of the proxy.
pub const PROXY_CGROUP: &str = "--proxy-cgroup";

/// The mark of the proxy's sockets, where it is known by one.
pub const PROXY_MARK: i32 = 77;

/// The options of a lock.
pub const LOCK: &[&str] = &["--outbound-policy", "proxy-only"];
