//! Parts of a JSON text as they were written: spaces, escapes, order of keys, and numbers of any size.

use serde_json::{Deserializer, Value};

/// The characters between two members or elements.
const BETWEEN: [char; 5] = [',', ' ', '\t', '\r', '\n'];

/// The text of a member of an object. `None` where there is no such member, or the text is not an object. Of several
/// members with that name, the last one counts.
pub fn member<'t>(object: &'t str, name: &str) -> Option<&'t str> {
    let mut rest = object.trim_start().strip_prefix('{')?;
    let mut found = None;
    loop {
        let (key, after) = value(rest.trim_start_matches(BETWEEN))?;
        let (text, after) = value(after.trim_start().strip_prefix(':')?.trim_start())?;
        if serde_json::from_str::<String>(key).is_ok_and(|key| key == name) {
            found = Some(text);
        }
        rest = after.trim_start();
        if rest.starts_with('}') {
            return found;
        }
    }
}

/// The texts of the elements of a list. `None` where the text is no list.
pub fn elements(list: &str) -> Option<Vec<&str>> {
    let mut rest = list.trim_start().strip_prefix('[')?;
    let mut elements = Vec::new();
    loop {
        rest = rest.trim_start_matches(BETWEEN);
        if rest.starts_with(']') {
            return Some(elements);
        }
        let (element, after) = value(rest)?;
        elements.push(element);
        rest = after;
    }
}

/// The value that a text begins with, and what follows it.
fn value(text: &str) -> Option<(&str, &str)> {
    let mut values = Deserializer::from_str(text).into_iter::<Value>();
    values.next()?.ok()?;
    text.split_at_checked(values.byte_offset())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_is_found_as_it_was_written() {
        let previous = "{ \"z\" : 1.0, \"a\":[1e2,\n 12345678901234567890123, \"\\u00e9\"], \"a\": null }";
        let object = format!(" {{\"x\":1 ,\"prevResult\" :\t{previous}\n, \"y\": true}}");
        assert_eq!(member(&object, "prevResult"), Some(previous));
        assert_eq!(member(&object, "x"), Some("1"));
        assert_eq!(member(&object, "y"), Some("true"));
        assert_eq!(member(&object, "z"), None);
        assert_eq!(member(r#"{"a":1,"a":2}"#, "a"), Some("2"));
        assert_eq!(member(r#"{"\u0061":3}"#, "a"), Some("3"));
        for text in ["", "{}", "[1]", "{\"a\"", "{\"a\":", "{\"a\":1", "{1:2}"] {
            assert_eq!(member(text, "a"), None, "{text}");
        }
    }

    #[test]
    fn elements_are_found_as_they_were_written() {
        let list = " [ {\"a\" : 1.50} ,\"\\u00e9\",\n[2,3] ,12345678901234567890123 ] ";
        let elements = elements(list).unwrap();
        assert_eq!(
            elements,
            ["{\"a\" : 1.50}", "\"\\u00e9\"", "[2,3]", "12345678901234567890123"]
        );
        assert_eq!(super::elements("[]"), Some(vec![]));
        for text in ["", "{}", "[", "[1", "[1,"] {
            assert_eq!(super::elements(text), None, "{text}");
        }
    }
}
