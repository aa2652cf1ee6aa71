//! DNS messages (RFC 1035): a query that every name server can answer, and the answer.

/// Recursion is desired; one question.
const QUERY: [u8; 10] = [1, 0, 0, 1, 0, 0, 0, 0, 0, 0];

/// A name that does not exist and never will (RFC 6761), type A, class IN.
const QUESTION: &[u8] = b"\x0fsidetrack-probe\x07invalid\0\0\x01\0\x01";

/// The query with this ID.
pub fn query(id: u16) -> Vec<u8> {
    [&id.to_be_bytes()[..], &QUERY, QUESTION].concat()
}

/// The ID of the query of a probe.
pub fn id_of_query(message: &[u8]) -> Option<u16> {
    let (id, _) = message.split_first_chunk()?;
    let id = u16::from_be_bytes(*id);
    (message == query(id)).then_some(id)
}

/// The answer NXDOMAIN: the name does not exist.
pub fn answer(id: u16) -> Vec<u8> {
    let mut answer = query(id);
    answer[2] |= 0x80;
    answer[3] |= 0x83;
    answer
}

/// Whether this is an answer of any server to the query with this ID.
pub fn is_answer(message: &[u8], id: u16) -> bool {
    message.starts_with(&id.to_be_bytes()) && message.get(2).is_some_and(|flags| flags & 0x80 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn query_and_answer_are_distinguished() {
        assert_eq!(id_of_query(&query(7)), Some(7));
        assert!(is_answer(&answer(7), 7) && !is_answer(&answer(7), 8) && !is_answer(&query(7), 7));
        for other in [answer(7), query(7)[..20].to_vec(), vec![0]] {
            assert_eq!(id_of_query(&other), None);
        }
        assert!(!is_answer(b"\0\x07", 7) && !is_answer(b"", 7));
    }

    #[test]
    fn question_has_labels_with_their_lengths() {
        let labels = [&b"\x0f"[..], b"sidetrack-probe", b"\x07", b"invalid", b"\0"].concat();
        assert!(QUESTION.starts_with(&labels));
        assert_eq!(query(7).len(), 12 + labels.len() + 4);
    }
}
