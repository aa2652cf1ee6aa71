//! Refusals of the kernel: the error number, and its extended explanation (`NETLINK_EXT_ACK`, netlink(7)).

use std::fmt;

use netlink_packet_core::{NLA_TYPE_MASK, NlasIterator};
use nix::errno::Errno;

/// A refusal of the kernel. Older kernels, and many requests, have no more than a number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The error number.
    pub errno: Errno,
    /// The kernel's explanation, if it gives one.
    pub explanation: Option<Box<Explanation>>,
}

/// `enum nlmsgerr_attrs` (linux/netlink.h).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Explanation {
    /// The reason as text.
    pub message: Option<String>,
    /// Offset of the refused attribute, in bytes from the beginning of the request.
    pub offset: Option<u32>,
    /// The values that the kernel accepts there.
    pub policy: Option<Policy>,
    /// The type of an attribute that is missing.
    pub missing: Option<u32>,
}

/// The values that the kernel accepts (`enum netlink_policy_type_attr`, linux/netlink.h): bounds of a number, or of a
/// length.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// The smallest and the largest number.
    pub value: [Option<i128>; 2],
    /// The smallest and the largest length in bytes.
    pub length: [Option<u32>; 2],
}

impl From<Errno> for Refusal {
    fn from(errno: Errno) -> Self {
        Self {
            errno,
            explanation: None,
        }
    }
}

impl std::error::Error for Refusal {}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.errno)?;
        let Some(explanation) = &self.explanation else {
            return Ok(());
        };
        let Explanation {
            message,
            offset,
            policy,
            missing,
        } = &**explanation;
        if let Some(message) = message {
            // Quoted, since the kernel's text goes to terminals and logs.
            write!(f, ", {:?}", message)?;
        }
        if let Some(offset) = offset {
            write!(f, ", at byte {offset} of the request")?;
        }
        if let Some(missing) = missing {
            write!(f, ", without the attribute {missing}")?;
        }
        if let Some(policy) = policy {
            bounds(f, "number", &policy.value)?;
            bounds(f, "length", &policy.length)?;
        }
        Ok(())
    }
}

fn bounds<N: fmt::Display>(f: &mut fmt::Formatter<'_>, what: &str, [least, most]: &[Option<N>; 2]) -> fmt::Result {
    if let Some(least) = least {
        write!(f, ", {what} at least {least}")?;
    }
    if let Some(most) = most {
        write!(f, ", {what} at most {most}")?;
    }
    Ok(())
}

/// Flags of an acknowledgement: it does not contain the request; attributes follow (linux/netlink.h).
const NLM_F_CAPPED: u16 = 0x100;
const NLM_F_ACK_TLVS: u16 = 0x200;

/// The length of `struct nlmsghdr`.
const HEADER_LENGTH: usize = 16;

/// The explanation after the number in the payload of an error, or of the end of a dump (`done`).
pub fn explanation(flags: u16, done: bool, payload: &[u8]) -> Option<Box<Explanation>> {
    const NUMBER: usize = 4;
    if flags & NLM_F_ACK_TLVS == 0 {
        return None;
    }
    let repeated = match payload.get(NUMBER..)?.first_chunk() {
        _ if done => 0,
        Some(_) if flags & NLM_F_CAPPED != 0 => HEADER_LENGTH,
        Some(length) => (u32::from_ne_bytes(*length) as usize).checked_next_multiple_of(4)?,
        None => return None,
    };
    let mut explanation = Explanation::default();
    for (kind, value) in attributes(payload.get(NUMBER.checked_add(repeated)?..)?) {
        let number = || value.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes));
        match kind {
            1 => explanation.message = Some(text(&value)),
            2 => explanation.offset = number(),
            4 => explanation.policy = Some(policy(&value)),
            5 => explanation.missing = number(),
            _ => {}
        }
    }
    (explanation != Explanation::default()).then(|| Box::new(explanation))
}

fn policy(bytes: &[u8]) -> Policy {
    let mut policy = Policy::default();
    for (kind, value) in attributes(bytes) {
        let long = || value.first_chunk().copied();
        let short = || value.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes));
        match kind {
            2 => policy.value[0] = long().map(|bytes| i64::from_ne_bytes(bytes).into()),
            3 => policy.value[1] = long().map(|bytes| i64::from_ne_bytes(bytes).into()),
            4 => policy.value[0] = long().map(|bytes| u64::from_ne_bytes(bytes).into()),
            5 => policy.value[1] = long().map(|bytes| u64::from_ne_bytes(bytes).into()),
            6 => policy.length[0] = short(),
            7 => policy.length[1] = short(),
            _ => {}
        }
    }
    policy
}

/// Attributes up to the first truncated one.
fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, Vec<u8>)> {
    let attributes = NlasIterator::new(bytes).map_while(Result::ok);
    attributes.map(|attribute| (attribute.kind() & NLA_TYPE_MASK, attribute.value().to_vec()))
}

fn text(value: &[u8]) -> String {
    let end = value.iter().position(|byte| *byte == 0).unwrap_or(value.len());
    String::from_utf8_lossy(&value[..end]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut bytes = (4 + value.len() as u16).to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn said() -> Vec<u8> {
        let policy = [
            attribute(1, &3_u32.to_ne_bytes()),
            attribute(4, &1_u64.to_ne_bytes()),
            attribute(5, &9_u64.to_ne_bytes()),
            attribute(7, &16_u32.to_ne_bytes()),
        ];
        let attributes = [
            attribute(1, b"Invalid \x1b[0m\0"),
            attribute(2, &44_u32.to_ne_bytes()),
            attribute(4 | 0x8000, &policy.concat()),
            attribute(5, &7_u32.to_ne_bytes()),
        ];
        attributes.concat()
    }

    const SAID: &str = "EINVAL: Invalid argument, \"Invalid \\u{1b}[0m\", at byte 44 of the request, without the attribute \
                        7, number at least 1, number at most 9, length at most 16";

    #[test]
    fn explanation_is_read_with_or_without_the_request() {
        let mut request = 22_u32.to_ne_bytes().to_vec();
        request.resize(24, 0);
        for (flags, done, repeated) in [
            (NLM_F_ACK_TLVS, false, &request[..]),
            (NLM_F_ACK_TLVS | NLM_F_CAPPED, false, &request[..16]),
            (NLM_F_ACK_TLVS, true, &[][..]),
        ] {
            let payload = [&(-22_i32).to_ne_bytes()[..], repeated, &said()].concat();
            let explanation = explanation(flags, done, &payload);
            let refusal = Refusal {
                errno: Errno::EINVAL,
                explanation,
            };
            assert_eq!(refusal.to_string(), SAID, "{flags:x}");
        }
    }

    #[test]
    fn missing_or_truncated_explanation_is_ignored() {
        let payload = [&(-22_i32).to_ne_bytes()[..], &[0xff; 16], &said()].concat();
        assert_eq!(explanation(0, false, &payload), None);
        assert_eq!(explanation(NLM_F_ACK_TLVS, false, &payload), None);
        for end in 0..payload.len() {
            explanation(NLM_F_ACK_TLVS | NLM_F_CAPPED, false, &payload[..end]);
            explanation(NLM_F_ACK_TLVS, true, &payload[..end]);
        }
    }
}
