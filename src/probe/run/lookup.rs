//! DNS messages (RFC 1035): a query that every name server can answer, and the answer.

/// The ID of the query.
const ID: [u8; 2] = *b"st";

/// Recursion is desired; one question.
const QUERY: [u8; 10] = [1, 0, 0, 1, 0, 0, 0, 0, 0, 0];

/// A name that does not exist and never will (RFC 6761), type A, class IN.
const QUESTION: &[u8] = b"\x0fsidetrack-probe\x07invalid\0\0\x01\0\x01";

/// The query.
pub fn query() -> Vec<u8> {
    [&ID[..], &QUERY, QUESTION].concat()
}

/// Whether this is the query of a probe.
pub fn is_query(message: &[u8]) -> bool {
    message == query()
}

/// The answer NXDOMAIN: the name does not exist.
pub fn answer() -> Vec<u8> {
    let mut answer = query();
    answer[2] |= 0x80;
    answer[3] |= 0x83;
    answer
}

/// Whether this is an answer of any server to the query of a probe.
pub fn is_answer(message: &[u8]) -> bool {
    message.starts_with(&ID) && message.get(2).is_some_and(|flags| flags & 0x80 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn query_and_answer_are_distinguished() {
        assert!(is_query(&query()) && !is_answer(&query()));
        assert!(is_answer(&answer()) && !is_query(&answer()));
        assert!(!is_answer(b"st") && !is_answer(b"xx\x80") && !is_answer(b""));
    }

    #[test]
    fn question_has_labels_with_their_lengths() {
        let labels = [&b"\x0f"[..], b"sidetrack-probe", b"\x07", b"invalid", b"\0"].concat();
        assert!(QUESTION.starts_with(&labels));
        assert_eq!(query().len(), 12 + labels.len() + 4);
    }
}
