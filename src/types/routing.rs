//! Marks and routing tables of policy routing.

use std::fmt;

use super::Invalid;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident, $expected:literal, |$number:ident| $valid:expr) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub struct $name(u32);

        impl $name {
            /// The value, or `None` if it is out of range.
            pub const fn new($number: u32) -> Option<Self> {
                if $valid { Some(Self($number)) } else { None }
            }

            /// The number.
            pub const fn get(self) -> u32 {
                self.0
            }

            /// Reads a number, decimal or hexadecimal (`0x…`).
            ///
            /// # Errors
            /// The text is not a number, or out of range.
            pub fn parse(text: &str) -> Result<Self, Invalid> {
                let digits = text.trim();
                let number = match digits.strip_prefix("0x") {
                    Some(digits) => u32::from_str_radix(digits, 16),
                    None => digits.parse(),
                };
                number.ok().and_then(Self::new).ok_or_else(|| Invalid::new(text, $expected))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number! {
    /// A packet mark: 1 to 4294967295. 0 means no mark.
    Mark, "a mark from 1 to 4294967295", |number| number != 0
}
number! {
    /// A routing table other than the kernel's 253 to 255 (default, main, local) and 0, which means any
    /// (linux/rtnetlink.h).
    RouteTable, "a routing table from 1 to 4294967295 other than 253, 254 and 255",
    |number| number != 0 && !matches!(number, 253..=255)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimal_and_hexadecimal_numbers_are_read() {
        assert_eq!(Mark::parse("0x539").unwrap(), Mark::parse("1337").unwrap());
        for bad in ["", "0", "-1", "4294967296", "0x", "main"] {
            assert!(Mark::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn routing_tables_of_the_kernel_are_rejected() {
        assert_eq!(RouteTable::parse("133").unwrap().get(), 133);
        for bad in ["0", "253", "254", "255", "local"] {
            assert!(RouteTable::parse(bad).is_err(), "{bad}");
        }
    }
}
