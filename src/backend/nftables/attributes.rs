//! Writes and reads netlink attributes (linux/netlink.h, `struct nlattr`): a length, a kind, a value, and zeros up to
//! the next multiple of four bytes.
//!
//! Attributes are written in place. The tens of thousands of elements of a set are copied from a template: see
//! [`Attributes::copy`].

use std::iter;

use netlink_packet_core::{NLA_ALIGNTO, NLA_F_NESTED, NLA_HEADER_SIZE, NLA_TYPE_MASK};
use thiserror::Error;

/// A message that is not a valid nf_tables message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("not an nf_tables message, or an attribute is truncated")]
pub struct Malformed;

/// An attribute longer than its 16-bit length field allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("an attribute is too long")]
pub struct TooLong;

/// Attributes, one after another.
#[derive(Clone, Default)]
pub struct Attributes {
    bytes: Vec<u8>,
    /// An attribute was longer than its length field allows.
    too_long: bool,
}

impl Attributes {
    /// An empty list with room for this many bytes.
    pub fn with_capacity(bytes: usize) -> Self {
        Self {
            bytes: Vec::with_capacity(bytes),
            too_long: false,
        }
    }

    /// An attribute with these bytes as its value.
    pub fn bytes(&mut self, kind: u16, value: &[u8]) {
        self.header(kind, value.len());
        self.bytes.extend_from_slice(value);
        self.pad();
    }

    /// A 32-bit number in network byte order, as nf_tables expects it.
    pub fn number(&mut self, kind: u16, value: u32) {
        self.bytes(kind, &value.to_be_bytes());
    }

    /// A 16-bit number in network byte order.
    pub fn short(&mut self, kind: u16, value: u16) {
        self.bytes(kind, &value.to_be_bytes());
    }

    /// A zero-terminated string.
    pub fn text(&mut self, kind: u16, value: &str) {
        self.header(kind, value.len() + 1);
        self.bytes.extend_from_slice(value.as_bytes());
        self.bytes.push(0);
        self.pad();
    }

    /// A nested attribute.
    pub fn nest(&mut self, kind: u16, write: impl FnOnce(&mut Self)) {
        let start = self.bytes.len();
        self.header(kind | NLA_F_NESTED, 0);
        write(self);
        let length = self.length(self.bytes.len() - start);
        self.bytes[start..start + length.len()].copy_from_slice(&length);
    }

    /// A nested attribute with these attributes as its value.
    pub fn list(&mut self, kind: u16, list: &Self) {
        self.too_long |= list.too_long;
        self.bytes(kind | NLA_F_NESTED, list.as_bytes());
    }

    /// A copy of these attributes with the innermost value at the end replaced by this one of the same length.
    pub fn copy<const LENGTH: usize>(&mut self, attributes: &Self, value: &[u8; LENGTH]) {
        self.too_long |= attributes.too_long;
        self.bytes.extend_from_slice(&attributes.bytes);
        let start = self.bytes.len() - LENGTH.next_multiple_of(NLA_ALIGNTO);
        self.bytes[start..start + LENGTH].copy_from_slice(value);
    }

    /// User data of an object, as nft writes it: an entry with a type, a length of one byte, and a value.
    pub fn user_data(&mut self, attribute: u16, kind: u8, value: &[u8]) {
        match user_data(kind, value) {
            Ok(bytes) => self.bytes(attribute, &bytes),
            Err(TooLong) => self.too_long = true,
        }
    }

    /// The bytes of all attributes.
    ///
    /// # Errors
    /// An attribute is too long.
    pub fn checked(&self) -> Result<&[u8], TooLong> {
        if self.too_long { Err(TooLong) } else { Ok(&self.bytes) }
    }

    /// The bytes of all attributes, unchecked.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    fn header(&mut self, kind: u16, value_length: usize) {
        let length = self.length(NLA_HEADER_SIZE + value_length);
        self.bytes
            .extend_from_slice([length, kind.to_ne_bytes()].as_flattened());
    }

    /// The length of an attribute.
    fn length(&mut self, bytes: usize) -> [u8; 2] {
        let length = u16::try_from(bytes);
        self.too_long |= length.is_err();
        length.unwrap_or(u16::MAX).to_ne_bytes()
    }

    fn pad(&mut self) {
        while !self.bytes.len().is_multiple_of(NLA_ALIGNTO) {
            self.bytes.push(0);
        }
    }
}

/// An entry of an object's user data, as nft writes it.
///
/// # Errors
/// The value is longer than 255 bytes.
pub fn user_data(kind: u8, value: &[u8]) -> Result<Vec<u8>, TooLong> {
    let length = u8::try_from(value.len()).map_err(|_| TooLong)?;
    Ok([&[kind, length], value].concat())
}

/// Reads attributes: the kind of each, without flags, and its value. Stops after an error.
pub fn read(mut bytes: &[u8]) -> impl Iterator<Item = Result<(u16, &[u8]), Malformed>> {
    iter::from_fn(move || {
        let rest = Some(bytes).filter(|rest| !rest.is_empty())?;
        let first = split_first(rest);
        bytes = first.map_or(&[], |(_, _, after)| after);
        Some(first.map(|(kind, value, _)| (kind, value)))
    })
}

/// The value of the first attribute of this kind, if there is one before a truncated attribute.
pub fn find(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    let mut attributes = read(bytes).flatten();
    attributes.find(|(found, _)| *found == kind).map(|(_, value)| value)
}

/// The kind and the value of the first attribute, and the remaining bytes.
fn split_first(bytes: &[u8]) -> Result<(u16, &[u8], &[u8]), Malformed> {
    let [low, high, kind @ ..] = bytes.first_chunk::<NLA_HEADER_SIZE>().ok_or(Malformed)?;
    let length = usize::from(u16::from_ne_bytes([*low, *high]));
    let value = bytes.get(NLA_HEADER_SIZE..length).ok_or(Malformed)?;
    let after = bytes.get(length.next_multiple_of(NLA_ALIGNTO)..);
    Ok((
        u16::from_ne_bytes(*kind) & NLA_TYPE_MASK,
        value,
        after.unwrap_or_default(),
    ))
}

/// A 32-bit number in network byte order.
///
/// # Errors
/// The value is truncated.
pub fn number(value: &[u8]) -> Result<u32, Malformed> {
    value
        .as_array()
        .map(|bytes| u32::from_be_bytes(*bytes))
        .ok_or(Malformed)
}

/// A string, up to its terminating zero.
pub fn text(value: &[u8]) -> String {
    let end = value.iter().position(|byte| *byte == 0).unwrap_or(value.len());
    String::from_utf8_lossy(&value[..end]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written() -> Attributes {
        let mut attributes = Attributes::default();
        attributes.number(1, 0x0102_0304);
        attributes.text(2, "abcd");
        attributes.nest(3, |inner| inner.bytes(4, &[7]));
        attributes
    }

    #[test]
    fn read_returns_written_attributes() {
        let attributes = written();
        let read: Vec<_> = read(attributes.as_bytes()).collect::<Result<_, _>>().unwrap();
        let [(1, first), (2, second), (3, third)] = read[..] else {
            panic!("{read:?}");
        };
        assert_eq!((number(first), text(second)), (Ok(0x0102_0304), "abcd".to_owned()));
        assert_eq!(super::read(third).collect::<Vec<_>>(), [Ok((4, &[7][..]))]);
    }

    #[test]
    fn too_long_attributes_are_refused() {
        let long = vec![0; 65536];
        let mut inner = Attributes::default();
        inner.bytes(1, &long);
        let mut fits = Attributes::default();
        fits.bytes(1, &long[..65531]);
        assert_eq!(fits.checked().map(<[u8]>::len), Ok(65536));
        let write: [&dyn Fn(&mut Attributes); 6] = [
            &|attributes| attributes.bytes(1, &long[..65532]),
            &|attributes| attributes.text(1, &"a".repeat(65531)),
            &|attributes| attributes.list(1, &fits),
            &|attributes| attributes.list(1, &inner),
            &|attributes| attributes.nest(1, |nested| nested.bytes(1, &long[..65530])),
            &|attributes| attributes.user_data(1, 0, &long[..256]),
        ];
        for write in write {
            let mut attributes = Attributes::default();
            write(&mut attributes);
            assert_eq!(attributes.checked(), Err(TooLong));
        }
    }

    #[test]
    fn truncation_inside_an_attribute_is_an_error() {
        let attributes = written();
        let bytes = attributes.as_bytes();
        // Padding may be missing at the end: the last byte of the text is the 17th.
        let whole = [0, 8, 17, 18, 19, 20, 32];
        for end in 0..=bytes.len() {
            let is_whole = read(&bytes[..end]).all(|attribute| attribute.is_ok());
            assert_eq!(is_whole, whole.contains(&end), "{end}");
        }
    }

    #[test]
    fn length_shorter_than_header_is_an_error() {
        for length in 0..4 {
            let bytes = [[length, 0, 1, 0], [4, 0, 1, 0]].concat();
            assert_eq!(read(&bytes).collect::<Vec<_>>(), [Err(Malformed)]);
        }
    }
}
