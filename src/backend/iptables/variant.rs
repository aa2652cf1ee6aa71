//! The two implementations of iptables.

use std::fmt;

use crate::types::Family;

/// An implementation of iptables. Neither lists the rules of the other, but the kernel applies both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Variant {
    /// Writes its rules to nf_tables.
    Nft,
    /// Writes its rules to the kernel's older ip_tables and ip6_tables.
    Legacy,
}

/// As `--version` prints it.
impl fmt::Display for Variant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nft => "nf_tables",
            Self::Legacy => "legacy",
        })
    }
}

impl Variant {
    /// Name prefixes of the programs, in the order of the search.
    pub fn programs(self, family: Family) -> [String; 2] {
        let plain = plain_name(family);
        let suffix = match self {
            Variant::Nft => "nft",
            Variant::Legacy => "legacy",
        };
        [format!("{plain}-{suffix}"), plain.to_owned()]
    }
}

/// The plain name of a family's programs, without the variant.
pub(super) fn plain_name(family: Family) -> &'static str {
    match family {
        Family::V4 => "iptables",
        Family::V6 => "ip6tables",
    }
}
