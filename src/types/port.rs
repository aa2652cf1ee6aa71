//! TCP and UDP ports.

use std::fmt;

use super::ranges::{Number, Range, Ranges};
use super::{Invalid, list};

/// A port number from 1 to 65535.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Port(u16);

impl Port {
    /// The port, or `None` for 0, which is not a valid destination.
    pub const fn new(number: u16) -> Option<Self> {
        if number == 0 { None } else { Some(Self(number)) }
    }

    /// The port's number.
    pub const fn get(self) -> u16 {
        self.0
    }

    /// Reads one port.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        text.trim()
            .parse()
            .ok()
            .and_then(Self::new)
            .ok_or_else(|| Invalid::new(text, "a port from 1 to 65535"))
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Number for Port {
    const MIN: Self = Self(1);
    const MAX: Self = Self(u16::MAX);

    fn next(self) -> Option<Self> {
        self.0.checked_add(1).map(Self)
    }
}

/// A set of ports.
pub type Ports = Ranges<Port>;

/// Reads a comma-separated list of ports and ranges `a-b`, or `*` for all ports.
pub fn parse_ports(text: &str) -> Result<Ports, Vec<Invalid>> {
    list(text, Ports::everything, |item| {
        const EXPECTED: &str = "a port from 1 to 65535, a range a-b, or *";
        let (first, last) = item.split_once('-').unwrap_or((item, item));
        Port::parse(first)
            .ok()
            .zip(Port::parse(last).ok())
            .and_then(|(first, last)| Range::new(first, last))
            .ok_or_else(|| Invalid::new(item, EXPECTED))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_ports_and_ranges_are_read() {
        assert_eq!(
            parse_ports(" 80, 8000-8080 ,443,").unwrap().to_string(),
            "80,443,8000-8080"
        );
        assert!(parse_ports("").unwrap().is_empty());
        assert!(parse_ports("*").unwrap().is_everything());
        assert!(parse_ports("1-65535").unwrap().is_everything());
    }

    #[test]
    fn all_invalid_ports_are_reported() {
        let bad: Vec<String> = parse_ports("0,80,65536,9-8,http,1-2-3,-5")
            .unwrap_err()
            .into_iter()
            .map(|invalid| invalid.value)
            .collect();
        assert_eq!(bad, ["0", "65536", "9-8", "http", "1-2-3", "-5"]);
    }
}
