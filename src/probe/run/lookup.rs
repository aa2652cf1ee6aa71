//! A name lookup as it travels (RFC 1035): a question that every name server can answer.

/// The number of the question. Who asks tells questions apart.
const ID: [u8; 2] = *b"st";

/// Recursion is desired; one question.
const QUERY: [u8; 10] = [1, 0, 0, 1, 0, 0, 0, 0, 0, 0];

/// A name that does not exist and never will (RFC 6761), type A, class IN.
const QUESTION: &[u8] = b"\x0fsidetrack-probe\x07invalid\0\0\x01\0\x01";

/// The query.
pub fn query() -> Vec<u8> {
    [&ID[..], &QUERY, QUESTION].concat()
}

/// Whether this is a query of ours.
pub fn is_query(message: &[u8]) -> bool {
    message == query()
}

/// The answer that there is no such name (NXDOMAIN).
pub fn answer() -> Vec<u8> {
    let mut answer = query();
    answer[2] |= 0x80;
    answer[3] |= 0x83;
    answer
}

/// Whether this is any server's answer to ours.
pub fn is_answer(message: &[u8]) -> bool {
    message.starts_with(&ID) && message.get(2).is_some_and(|flags| flags & 0x80 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_and_its_answer_are_told_apart() {
        assert!(is_query(&query()) && !is_answer(&query()));
        assert!(is_answer(&answer()) && !is_query(&answer()));
        assert!(!is_answer(b"st") && !is_answer(b"xx\x80") && !is_answer(b""));
    }

    #[test]
    fn the_name_is_written_as_labels_with_their_lengths() {
        let labels = [&b"\x0f"[..], b"sidetrack-probe", b"\x07", b"invalid", b"\0"].concat();
        assert!(QUESTION.starts_with(&labels));
        assert_eq!(query().len(), 12 + labels.len() + 4);
    }
}
