//! Decodes the matches and targets of iptables (linux/netfilter/x_tables.h), as legacy iptables lists them and as
//! iptables-nft hands them to nf_tables.
//!
//! A match or target of a kind or revision that is not known here is kept as unreadable.

mod matches;
mod targets;

pub use matches::{Decoded, decode as matches};
pub use targets::{decode as target, redirect};

use crate::ruleset::netfilter::{Choice, Span};
use crate::types::{Family, Port};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An extension: a match or a target, as the kernel has it.
#[derive(Clone, Copy, Debug)]
pub struct Extension<'b> {
    /// Its name.
    pub name: &'b str,
    /// The revision of its data.
    pub revision: u32,
    /// Its data.
    pub data: &'b [u8],
    /// The family of the table.
    pub family: Family,
}

impl Extension<'_> {
    fn byte(&self, at: usize) -> Option<u8> {
        self.data.get(at).copied()
    }

    fn short(&self, at: usize) -> Option<u16> {
        Some(u16::from_ne_bytes(*self.data.get(at..)?.first_chunk()?))
    }

    fn network_short(&self, at: usize) -> Option<u16> {
        self.short(at).map(u16::from_be)
    }

    fn number(&self, at: usize) -> Option<u32> {
        Some(u32::from_ne_bytes(*self.data.get(at..)?.first_chunk()?))
    }

    /// An address in `union nf_inet_addr`, which has 16 bytes.
    fn address(&self, at: usize) -> Option<IpAddr> {
        let bytes = self.data.get(at..)?;
        Some(match self.family {
            Family::V4 => Ipv4Addr::from(*bytes.first_chunk::<4>()?).into(),
            Family::V6 => Ipv6Addr::from(*bytes.first_chunk::<16>()?).into(),
        })
    }
}

fn number_of(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u32::from(address).into(),
        IpAddr::V6(address) => address.into(),
    }
}

/// A range of numbers.
fn span(first: impl Into<u128>, last: impl Into<u128>) -> Span {
    (first.into(), last.into())
}

/// The port that a translation to a range of ports chooses.
pub fn chosen_port(range: Option<(u16, u16)>) -> Choice<Port> {
    match range {
        None => Choice::Keep,
        Some((first, last)) if first == last => Port::new(first).map_or(Choice::Keep, Choice::One),
        Some(_) => Choice::Any,
    }
}

/// The address that a translation to a range of addresses chooses.
pub fn chosen_address(range: Option<(IpAddr, IpAddr)>) -> Choice<IpAddr> {
    match range {
        None => Choice::Keep,
        Some((first, last)) if first == last => Choice::One(first),
        Some(_) => Choice::Any,
    }
}
