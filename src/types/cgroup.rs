//! Control groups (cgroup v2).

use std::fmt;

use super::Invalid;

/// The path of a cgroup below the root of the hierarchy, without a slash at its begin: `system.slice/envoy.service`. As
/// /proc/PID/cgroup shows it after `0::/` in the cgroup namespace of the host. Never the root, which all processes are in.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CgroupPath(String);

/// The maximum length in bytes, as long as iptables allows for less (`XT_CGROUP_PATH_LEN` in
/// linux/netfilter/xt_cgroup.h) and the record of options holds it.
const MAX_LENGTH: usize = 400;
/// The maximum length of a part: that of a comment of the record of options, less the name of the option.
const MAX_PART_LENGTH: usize = 100;

impl CgroupPath {
    /// Reads a path. A slash at its begin or end does not count.
    ///
    /// # Errors
    /// The text is not a path below the root, or has characters that rules as text could not have.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let path = text.trim().trim_matches('/');
        let usable = |c: char| c.is_ascii_graphic() && !matches!(c, '"' | '\'' | ',' | ';' | '*');
        let is_part = |part: &str| (1..=MAX_PART_LENGTH).contains(&part.len()) && !matches!(part, "." | "..");
        if path.len() <= MAX_LENGTH && path.chars().all(usable) && path.split('/').all(is_part) {
            Ok(Self(path.to_owned()))
        } else {
            Err(Invalid::new(
                text,
                "the path of a cgroup below the root of cgroup v2, such as system.slice/envoy.service",
            ))
        }
    }

    /// The path.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The number of its parts: the level of the cgroup below the root.
    pub fn level(&self) -> u32 {
        self.0.split('/').count() as u32
    }

    /// Whether this is the other cgroup, or one that the other is in.
    pub fn contains(&self, other: &Self) -> bool {
        let rest = other.0.strip_prefix(&self.0);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

impl fmt::Display for CgroupPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> CgroupPath {
        CgroupPath::parse(text).unwrap()
    }

    #[test]
    fn paths_are_read_with_and_without_slashes_around() {
        assert_eq!(
            path("/system.slice/envoy.service/").as_str(),
            "system.slice/envoy.service"
        );
        assert_eq!(path(r"a\x2db.slice").level(), 1);
        assert_eq!(path("a/b/c").level(), 3);
        for bad in ["", "/", "a//b", "a/..", "a/.", "a b", "a,b", "a\"b", "*", "a\nb"] {
            assert!(CgroupPath::parse(bad).is_err(), "{bad:?}");
        }
        assert!(CgroupPath::parse(&"a".repeat(101)).is_err());
    }

    #[test]
    fn cgroup_contains_itself_and_those_below() {
        assert!(path("a").contains(&path("a")));
        assert!(path("a").contains(&path("a/b")));
        assert!(!path("a").contains(&path("ab")));
        assert!(!path("a/b").contains(&path("a")));
    }
}
