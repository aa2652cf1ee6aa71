//! Values of flags as programs written in Go read them: by `strconv`, and by the flag library pflag on top of it.

use crate::types::Invalid;

/// Reads a boolean like `strconv.ParseBool`.
pub fn boolean(text: &str) -> Result<bool, Invalid> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(Invalid::new(text, "true or false")),
    }
}

/// Reads an integer like `strconv.ParseInt` with base 0, and so like pflag's type `int`: a sign, `0x`, `0o`, `0b`, a
/// leading 0 for octal, and `_` between digits.
pub fn integer(text: &str) -> Result<i64, Invalid> {
    parse_integer(text).ok_or_else(|| Invalid::new(text, "an integer"))
}

/// Reads an integer like `strconv.Atoi`: a sign and decimal digits.
pub fn decimal(text: &str) -> Result<i64, Invalid> {
    let (negative, digits) = sign(text);
    let valid = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    let number = valid.then(|| in_base(negative, digits, 10)).flatten();
    number.ok_or_else(|| Invalid::new(text, "a decimal number"))
}

/// Reads a list like pflag's `stringSlice`: one CSV record, whose items are not trimmed. An empty string is an empty list.
pub fn list(text: &str) -> Result<Vec<String>, Invalid> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    record(text).ok_or_else(|| Invalid::new(text, "a comma-separated list, in which a quote begins and ends an item"))
}

fn sign(text: &str) -> (bool, &str) {
    match text.strip_prefix(['+', '-']) {
        Some(rest) => (text.starts_with('-'), rest),
        None => (false, text),
    }
}

fn in_base(negative: bool, digits: &str, base: u32) -> Option<i64> {
    // The sign is restored, so that `i64::MIN` does not overflow; a second sign is not a digit.
    let plain = !digits.starts_with(['+', '-']);
    let signed = format!("{}{digits}", if negative { "-" } else { "" });
    plain.then(|| i64::from_str_radix(&signed, base).ok()).flatten()
}

fn parse_integer(text: &str) -> Option<i64> {
    let (negative, number) = sign(text);
    let lower = number.to_ascii_lowercase();
    let (base, digits) = match (lower.get(..2), lower.strip_prefix('0')) {
        (Some("0x"), _) => (16, &lower[2..]),
        (Some("0o"), _) => (8, &lower[2..]),
        (Some("0b"), _) => (2, &lower[2..]),
        (_, Some("")) => return Some(0),
        (_, Some(rest)) => (8, rest),
        (_, None) => (10, lower.as_str()),
    };
    // A prefix counts as a digit before `_`.
    let after_prefix = base != 10;
    let misplaced = digits.ends_with('_') || digits.contains("__") || (digits.starts_with('_') && !after_prefix);
    let digits = digits.replace('_', "");
    if misplaced || digits.is_empty() {
        return None;
    }
    in_base(negative, &digits, base)
}

/// Reads one record like `encoding/csv`.
fn record(text: &str) -> Option<Vec<String>> {
    // Empty lines before the record are skipped; lines after it are not read.
    let mut rest = text.trim_start_matches("\r\n").trim_start_matches('\n');
    if rest.is_empty() {
        return None;
    }
    let mut items = Vec::new();
    loop {
        let (item, after) = match rest.strip_prefix('"') {
            Some(quoted) => quoted_item(quoted)?,
            None => {
                let end = rest.find([',', '\n']).unwrap_or(rest.len());
                let item = &rest[..end];
                if item.contains('"') {
                    return None;
                }
                (item.to_owned(), &rest[end..])
            }
        };
        match after.strip_prefix(',') {
            Some(more) => {
                items.push(item);
                rest = more;
            }
            None => {
                let item = if after.is_empty() {
                    item
                } else {
                    item.trim_end_matches('\r').to_owned()
                };
                items.push(item);
                return Some(items);
            }
        }
    }
}

/// Splits after a quoted item: the item, and the rest.
fn quoted_item(mut rest: &str) -> Option<(String, &str)> {
    let mut item = String::new();
    loop {
        let (part, after) = rest.split_once('"')?;
        item.push_str(part);
        match after.strip_prefix('"') {
            Some(more) => {
                item.push('"');
                rest = more;
            }
            None if after.is_empty() || after.starts_with([',', '\n']) || after.starts_with("\r\n") => {
                return Some((item, after.strip_prefix('\r').unwrap_or(after)));
            }
            None => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_read_in_every_base() {
        for (text, number) in [
            ("0", 0),
            ("2000", 2000),
            ("+5", 5),
            ("-1", -1),
            ("0x7d0", 2000),
            ("0X7D0", 2000),
            ("0x_7d0", 2000),
            ("1_000", 1000),
            ("0o17", 15),
            ("017", 15),
            ("0_17", 15),
            ("-0b11", -3),
            ("-9223372036854775808", i64::MIN),
        ] {
            assert_eq!(integer(text), Ok(number), "{text}");
        }
        for text in [
            "",
            "+",
            "-",
            "--1",
            "+-1",
            "08",
            "0x",
            "0x_",
            "1__0",
            "_1",
            "1_",
            "0b2",
            "ten",
            " 1",
            "1 ",
            "1.5",
            "9223372036854775808",
            "ä",
        ] {
            assert!(integer(text).is_err(), "{text}");
        }
    }

    #[test]
    fn decimal_numbers_have_no_other_base() {
        for (text, number) in [("80", 80), ("080", 80), ("+80", 80), ("-80", -80)] {
            assert_eq!(decimal(text), Ok(number), "{text}");
        }
        for text in ["", "0x50", "8_0", " 80", "80 ", "+", "99999999999999999999"] {
            assert!(decimal(text).is_err(), "{text}");
        }
    }

    #[test]
    fn lists_are_a_record_of_csv() {
        for (text, items) in [
            ("", &[][..]),
            ("80", &["80"]),
            ("80, 443", &["80", " 443"]),
            ("80,", &["80", ""]),
            (",", &["", ""]),
            ("\"a,b\",c", &["a,b", "c"]),
            ("\"say \"\"x\"\"\"", &["say \"x\""]),
            ("a\nb", &["a"]),
            ("\na,b\r\nc", &["a", "b"]),
        ] {
            assert_eq!(list(text).unwrap(), items, "{text:?}");
        }
        for text in ["a\"b", "\"a", "\"a\"b", "\n"] {
            assert!(list(text).is_err(), "{text:?}");
        }
    }
}
