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
        self.attribute(kind, |attributes| attributes.0.extend_from_slice(value));
    }

    /// A number, in the network's order of bytes as nf_tables wants it.
    pub fn number(&mut self, kind: u16, value: u32) {
        self.bytes(kind, &value.to_be_bytes());
    }

    /// A text, with a zero at its end.
    pub fn text(&mut self, kind: u16, value: &str) {
        self.attribute(kind, |attributes| {
            attributes.0.extend_from_slice(value.as_bytes());
            attributes.0.push(0);
        });
    }

    /// An attribute whose value are attributes.
    pub fn nest(&mut self, kind: u16, write: impl FnOnce(&mut Self)) {
        self.attribute(kind | NLA_F_NESTED, write);
    }

    /// An attribute whose value are these attributes.
    pub fn list(&mut self, kind: u16, list: &Self) {
        self.bytes(kind | NLA_F_NESTED, list.as_bytes());
    }

    /// All of them in bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    fn attribute(&mut self, kind: u16, write_value: impl FnOnce(&mut Self)) {
        let start = self.0.len();
        self.0.extend_from_slice(&[0; NLA_HEADER_SIZE]);
        write_value(self);
        // No list of ours is as long as 64 KiB: see `elements`.
        let length = (self.0.len() - start) as u16;
        self.0[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        self.0[start + 2..start + NLA_HEADER_SIZE].copy_from_slice(&kind.to_ne_bytes());
        self.0.resize(self.0.len().next_multiple_of(NLA_ALIGNTO), 0);
    }
}
