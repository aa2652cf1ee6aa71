//! The two implementations of iptables.

use std::fmt;

use crate::types::Family;

/// An implementation of iptables. Rules of one are not seen by the other, though the kernel follows both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Variant {
    /// Writes its rules to nf_tables.
    Nft,
    /// Writes its rules to the kernel's older ip_tables and ip6_tables.
    Legacy,
}

/// As `--version` says it.
impl fmt::Display for Variant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nft => "nf_tables",
            Self::Legacy => "legacy",
        })
    }
}

impl Variant {
    /// What the names of programs begin with, in the order that they are looked for.
    pub fn programs(self, family: Family) -> [String; 2] {
        let plain = plain_name(family);
        let suffix = match self {
            Variant::Nft => "nft",
            Variant::Legacy => "legacy",
        };
        [format!("{plain}-{suffix}"), plain.to_owned()]
    }
}

/// What the programs of a family are called, whichever variant they are of.
pub(super) fn plain_name(family: Family) -> &'static str {
    match family {
        Family::V4 => "iptables",
        Family::V6 => "ip6tables",
    }
}
