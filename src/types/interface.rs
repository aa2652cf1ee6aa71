//! Network interfaces.

use std::fmt;

use super::Invalid;

/// The name of a network interface: 1 to 15 letters, digits, `.`, `_`, `-`.
///
/// The kernel allows more (`dev_valid_name` in net/core/dev.c), but iptables takes a trailing `+`, and nft a
/// trailing `*`, for a wildcard, and quotes or spaces must not get into the text of a rule.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct InterfaceName(String);

impl InterfaceName {
    /// The loopback interface.
    pub fn loopback() -> Self {
        Self("lo".to_owned())
    }

    /// Reads a name.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let name = text.trim();
        let usable = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if (1..=15).contains(&name.len()) && name.chars().all(usable) && !matches!(name, "." | "..") {
            Ok(Self(name.to_owned()))
        } else {
            Err(Invalid::new(
                text,
                "an interface name: 1 to 15 letters, digits, '.', '_' or '-'",
            ))
        }
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for InterfaceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keywords_of_nft_are_valid_names() {
        for name in [
            "eth0",
            "bridge",
            "meta",
            "set",
            "vxlan.calico",
            "lxc_health",
            "a",
            "fifteen-letters",
        ] {
            assert_eq!(InterfaceName::parse(name).unwrap().as_str(), name);
        }
    }

    #[test]
    fn wildcards_quotes_and_spaces_are_rejected() {
        for name in [
            "",
            "eth+",
            "eth*",
            "a\" accept",
            "a b",
            "eth/0",
            "..",
            "sixteen-letters1",
            "eth0;drop",
            "é",
        ] {
            assert!(InterfaceName::parse(name).is_err(), "{name}");
        }
    }
}
