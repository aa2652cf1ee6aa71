//! The installed rules by their handles, which the kernel's messages name.

use std::collections::HashMap;

use super::message::{ChainId, Headers};
use crate::ruleset::{Hook, TABLE};
use crate::types::Family;

/// The rules and base chains of a network namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// The base chains.
    pub base_chains: HashMap<ChainId, BaseChain>,
    /// The rules by chain and handle.
    pub rules: HashMap<(ChainId, u64), Rule>,
    /// Whether a rule matches UDP packets.
    pub match_udp: bool,
}

/// The place of a base chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BaseChain {
    /// The hook; `None` for hooks of devices.
    pub hook: Option<Hook>,
    /// Whether it sees only the first packet of a connection, and may translate its addresses.
    pub is_nat: bool,
}

/// A rule for a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Its position in its chain, from 1.
    pub number: usize,
    /// Its text in nft syntax; a part that cannot be decoded is its expression's name in brackets.
    pub text: String,
    /// Its comment, or an empty string.
    pub comment: String,
    /// The port of the transparent socket that it hands packets to, if it does.
    pub tproxy: Option<u16>,
}

impl Rules {
    /// Whether there is a NAT chain at this hook that packets with these headers pass.
    pub fn has_nat(&self, hook: Hook, headers: &Headers) -> bool {
        self.base_chains
            .iter()
            .any(|(id, base)| base.is_nat && base.hook == Some(hook) && id.sees(Family::of(headers.source.ip())))
    }
}

impl ChainId {
    /// Whether packets of this family pass the chain.
    fn sees(&self, family: Family) -> bool {
        let own = match family {
            Family::V4 => "ip ",
            Family::V6 => "ip6 ",
        };
        self.table.starts_with(own) || self.table.starts_with("inet ")
    }
    /// The chain as a person names it: `sidetrack output`, or `ip nat ISTIO_OUTPUT`.
    pub fn title(&self) -> String {
        let own = self.table.strip_prefix("inet ").filter(|table| *table == TABLE);
        format!("{} {}", own.unwrap_or(&self.table), self.chain)
    }
}
