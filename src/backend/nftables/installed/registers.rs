//! The registers of nf_tables while a rule is decoded: what expressions have loaded into them.

use std::collections::BTreeMap;

use super::super::uapi::*;
use crate::ruleset::netfilter::{Field, Key};
use crate::types::Family;

/// The contents of a register.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Loaded {
    /// Fields of the packet that follow each other in its header, from the first to the last one.
    Fields(Vec<Part>),
    /// A constant.
    Bytes(Vec<u8>),
    /// The masked mark of the packet or its connection: `(mark & mask) ^ xor`.
    Mark { of_connection: bool, mask: u32, xor: u32 },
    /// The number of the family in an Ethernet header.
    Ethertype,
    /// The ID of the socket's cgroup at this level.
    Cgroup(u32),
    /// Something that is not known: its name.
    Unknown(String),
}

/// Bytes of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// The field.
    pub field: Field,
    /// The first byte of the field that is loaded.
    pub from: usize,
    /// The number of bytes.
    pub length: usize,
    /// The bits of those bytes that a mask leaves.
    pub mask: u128,
    /// Whether the bytes are in host order.
    pub is_host_order: bool,
}

impl Part {
    /// A whole field.
    pub fn whole(field: Field, is_host_order: bool) -> Self {
        let length = field.length();
        Self {
            field,
            from: 0,
            length,
            mask: field.largest(),
            is_host_order,
        }
    }

    /// The number of bits of the field after the loaded bytes.
    pub fn shift(self) -> u32 {
        8 * (self.field.length() - self.from - self.length) as u32
    }

    /// The loaded part, as a masked field.
    pub fn key(self) -> Key {
        Key {
            field: self.field,
            mask: self.mask << self.shift(),
        }
    }

    /// The value of the field, as far as the part covers it, if these bytes are loaded.
    pub fn value(self, bytes: &[u8]) -> Option<u128> {
        Some(self.number(bytes)? << self.shift())
    }

    /// The bytes as a number. The bytes after the first ones count as zeros.
    pub fn number(self, bytes: &[u8]) -> Option<u128> {
        if bytes.len() > self.length {
            return None;
        }
        let mut padded = bytes.to_vec();
        padded.resize(self.length, 0);
        if self.is_host_order && cfg!(target_endian = "little") {
            padded.reverse();
        }
        Some(padded.iter().fold(0, |number, byte| number << 8 | u128::from(*byte)))
    }
}

/// The registers: sixteen of 4 bytes, of which four make up one of 16 bytes.
#[derive(Debug, Default)]
pub struct Registers(BTreeMap<u32, Loaded>);

impl Registers {
    /// Loads a register.
    pub fn load(&mut self, register: u32, loaded: Loaded) {
        self.0.insert(slot(register), loaded);
    }

    /// The contents of a register.
    pub fn get(&self, register: u32) -> Option<&Loaded> {
        self.0.get(&slot(register))
    }

    /// The fields that fill a key of this length, from a register on, each with its offset in the key. Each register of 4
    /// bytes begins a part of the key.
    ///
    /// # Errors
    /// The name of what is unknown, if it has one.
    pub fn key(&self, register: u32, length: usize) -> Result<Vec<(usize, Part)>, Option<String>> {
        let (mut parts, mut offset) = (Vec::new(), 0);
        while offset < length {
            let at = slot(register) + (offset / REGISTER_LENGTH) as u32;
            let loaded: Vec<Part> = match self.0.get(&at) {
                Some(Loaded::Fields(fields)) => fields.clone(),
                Some(Loaded::Mark {
                    of_connection,
                    mask,
                    xor: 0,
                }) => vec![Part {
                    mask: (*mask).into(),
                    ..Part::whole(mark_field(*of_connection), true)
                }],
                Some(Loaded::Unknown(name)) => return Err(Some(name.clone())),
                _ => return Err(None),
            };
            for part in loaded {
                parts.push((offset, part));
                offset += part.length;
            }
            offset = offset.next_multiple_of(REGISTER_LENGTH);
        }
        Ok(parts)
    }

    /// Forgets everything: an expression has loaded something unknown into some register.
    pub fn clear(&mut self) {
        self.0.clear();
    }
}

const REGISTER_LENGTH: usize = 4;

/// The field of a mark.
pub fn mark_field(of_connection: bool) -> Field {
    match of_connection {
        true => Field::ConntrackMark,
        false => Field::Mark,
    }
}

/// The first register of 4 bytes that a register consists of (`nft_parse_register`, net/netfilter/nf_tables_api.c).
fn slot(register: u32) -> u32 {
    const NFT_REG_4: u32 = 4;
    const NFT_REG32_00: u32 = 8;
    match register {
        0 => 0,
        1..=NFT_REG_4 => (register - 1) * 4,
        register => register.saturating_sub(NFT_REG32_00),
    }
}

/// The fields of the network header at these bytes.
pub fn network_fields(family: Family, offset: u32, length: u32) -> Option<Vec<Part>> {
    // RFC 791 and RFC 8200.
    let layout: &[(Field, usize)] = match family {
        Family::V4 => &[
            (Field::Protocol, 9),
            (Field::Source(Family::V4), 12),
            (Field::Destination(Family::V4), 16),
        ],
        Family::V6 => &[
            (Field::Protocol, 6),
            (Field::Source(Family::V6), 8),
            (Field::Destination(Family::V6), 24),
        ],
    };
    fields(layout, offset, length)
}

/// The fields of a TCP or UDP header at these bytes.
pub fn transport_fields(offset: u32, length: u32) -> Option<Vec<Part>> {
    let layout = [
        (Field::SourcePort, 0),
        (Field::DestinationPort, 2),
        (Field::TcpFlags, 13),
    ];
    fields(&layout, offset, length)
}

fn fields(layout: &[(Field, usize)], offset: u32, length: u32) -> Option<Vec<Part>> {
    let (mut at, end) = (offset as usize, (offset as usize).checked_add(length as usize)?);
    let mut parts = Vec::new();
    while at < end {
        let (field, start) = layout
            .iter()
            .find(|(field, start)| (*start..start + field.length()).contains(&at))?;
        let until = end.min(start + field.length());
        let length = until - at;
        parts.push(Part {
            field: *field,
            from: at - start,
            length,
            mask: u128::MAX >> (128 - 8 * length),
            is_host_order: false,
        });
        at = until;
    }
    (!parts.is_empty()).then_some(parts)
}

/// The field that `meta` loads, and whether it is in host order.
pub fn meta_field(key: u32) -> Option<(Field, bool)> {
    Some(match key {
        NFT_META_IIF => (Field::InIndex, true),
        NFT_META_OIF => (Field::OutIndex, true),
        NFT_META_IIFNAME => (Field::InInterface, false),
        NFT_META_OIFNAME => (Field::OutInterface, false),
        NFT_META_SKUID => (Field::Uid, true),
        NFT_META_SKGID => (Field::Gid, true),
        NFT_META_NFPROTO => (Field::Family, false),
        NFT_META_L4PROTO => (Field::Protocol, false),
        _ => return None,
    })
}

/// The field that `ct` loads, and whether it is in host order.
pub fn conntrack_field(key: u32) -> Option<(Field, bool)> {
    Some(match key {
        NFT_CT_STATE => (Field::ConntrackState, true),
        NFT_CT_DIRECTION => (Field::ConntrackDirection, true),
        NFT_CT_STATUS => (Field::ConntrackStatus, true),
        _ => return None,
    })
}
