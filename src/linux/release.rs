//! The release of the running kernel (uname(2)).

use std::fmt;

use nix::sys::utsname::uname;

/// A release of Linux: version and patch level.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Release(pub u32, pub u32);

impl Release {
    /// That of the running kernel, if it has a name that Linux would give itself.
    pub fn of_this_kernel() -> Option<Self> {
        Self::parse(uname().ok()?.release().to_str()?)
    }

    /// Reads a name like `4.18.0-553.el8_10.x86_64`.
    fn parse(name: &str) -> Option<Self> {
        let mut numbers = name.split(|character: char| !character.is_ascii_digit());
        let mut next = || numbers.next()?.parse().ok();
        Some(Self(next()?, next()?))
    }
}

impl fmt::Display for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_compared_by_number() {
        let old = Release::parse("4.9.337-tegra").unwrap();
        let distribution = Release::parse("4.18.0-553.el8_10.x86_64").unwrap();
        let new = Release::parse("6.1").unwrap();
        assert!(old < distribution && distribution < new);
        assert_eq!(distribution.to_string(), "4.18");
        assert_eq!(Release::parse("next-20260101"), None);
        assert!(Release::of_this_kernel().unwrap() > old);
    }
}
