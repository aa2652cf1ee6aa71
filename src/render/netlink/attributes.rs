//! Writes netlink attributes (linux/netlink.h, `struct nlattr`): a length, a kind, a value, and zeros up to the next
//! multiple of four bytes.
//!
//! They are written in place, once. There may be tens of thousands of them.

use netlink_packet_core::{NLA_ALIGNTO, NLA_F_NESTED, NLA_HEADER_SIZE};

/// Attributes, one after another.
#[derive(Clone, Default)]
pub struct Attributes(Vec<u8>);

impl Attributes {
    /// None yet, and room for this many bytes.
    pub fn with_capacity(bytes: usize) -> Self {
        Self(Vec::with_capacity(bytes))
    }

    /// An attribute with these bytes as its value.
    pub fn bytes(&mut self, kind: u16, value: &[u8]) {
        self.header(kind, value.len());
        self.0.extend_from_slice(value);
        self.pad();
    }

    /// A number, in the network's order of bytes as nf_tables wants it.
    pub fn number(&mut self, kind: u16, value: u32) {
        self.bytes(kind, &value.to_be_bytes());
    }

    /// A text, with a zero at its end.
    pub fn text(&mut self, kind: u16, value: &str) {
        self.header(kind, value.len() + 1);
        self.0.extend_from_slice(value.as_bytes());
        self.0.push(0);
        self.pad();
    }

    /// An attribute whose value are attributes.
    pub fn nest(&mut self, kind: u16, write: impl FnOnce(&mut Self)) {
        let start = self.0.len();
        self.header(kind | NLA_F_NESTED, 0);
        write(self);
        let length = length(self.0.len() - start);
        self.0[start..start + length.len()].copy_from_slice(&length);
    }

    /// An attribute whose value are these attributes.
    pub fn list(&mut self, kind: u16, list: &Self) {
        self.bytes(kind | NLA_F_NESTED, list.as_bytes());
    }

    /// All of them in bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    fn header(&mut self, kind: u16, value_length: usize) {
        let length = length(NLA_HEADER_SIZE + value_length);
        self.0.extend_from_slice([length, kind.to_ne_bytes()].as_flattened());
    }

    fn pad(&mut self) {
        while !self.0.len().is_multiple_of(NLA_ALIGNTO) {
            self.0.push(0);
        }
    }
}

/// The length of an attribute. None of ours is as long as 64 KiB: see `elements`.
fn length(bytes: usize) -> [u8; 2] {
    (bytes as u16).to_ne_bytes()
}
