//! Scalars as Kubernetes' tools read them: sigs.k8s.io/yaml converts YAML 1.1 to JSON, by the `resolve` of its copy of go-yaml
//! 2 (goyaml.v2/resolve.go). People write `yes`, `0644` and `1_000` and mean it.

use serde_json::{Number, Value};

use super::{Content, Node, is_null};

impl Node {
    /// The value that Kubernetes reads from this scalar; null for a collection.
    pub fn in_kubernetes(&self) -> Value {
        match &self.content {
            Content::Scalar { text, plain: true } => resolve(text),
            Content::Scalar { text, plain: false } => Value::String(text.clone()),
            Content::Sequence(_) | Content::Mapping(_) => Value::Null,
        }
    }

    /// The integer that Kubernetes reads.
    pub fn integer(&self) -> Option<i64> {
        self.in_kubernetes().as_i64()
    }

    /// The boolean that Kubernetes reads.
    pub fn boolean(&self) -> Option<bool> {
        self.in_kubernetes().as_bool()
    }
}

fn resolve(text: &str) -> Value {
    match text {
        _ if is_null(text) => Value::Null,
        "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => Value::Bool(true),
        "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => Value::Bool(false),
        _ => number(text).map_or_else(|| Value::String(text.to_owned()), Value::Number),
    }
}

/// A number in any notation. `.inf` and the like, which JSON cannot express, are not read: Kubernetes' tools reject them.
fn number(text: &str) -> Option<Number> {
    let first = text.chars().next()?;
    if !(first.is_ascii_digit() || matches!(first, '+' | '-' | '.')) {
        return None;
    }
    let plain = text.replace('_', "");
    integer(&plain).map(Number::from).or_else(|| {
        let float = is_float(&plain).then(|| plain.parse::<f64>().ok()).flatten()?;
        let whole = float.fract() == 0.0 && float.abs() < EXACT;
        #[expect(clippy::cast_possible_truncation, reason = "a whole number below 2^53")]
        if whole {
            Some((float as i64).into())
        } else {
            Number::from_f64(float)
        }
    })
}

/// Whole numbers below this are exact as floats (2^53).
const EXACT: f64 = 9_007_199_254_740_992.0;

/// Reads an integer like Go's `strconv.ParseInt` with base 0.
fn integer(plain: &str) -> Option<i64> {
    let (negative, digits) = match plain.strip_prefix(['+', '-']) {
        Some(digits) => (plain.starts_with('-'), digits),
        None => (false, plain),
    };
    let lower = digits.to_ascii_lowercase();
    let (base, digits) = match lower.as_bytes() {
        [b'0', b'x', ..] => (16, &lower[2..]),
        [b'0', b'o', ..] => (8, &lower[2..]),
        [b'0', b'b', ..] => (2, &lower[2..]),
        [b'0', _, ..] => (8, &lower[1..]),
        _ => (10, lower.as_str()),
    };
    // A second sign is not a digit.
    let sign = if negative { "-" } else { "" };
    let plain = digits.starts_with(|first: char| first.is_ascii_alphanumeric());
    plain
        .then(|| i64::from_str_radix(&format!("{sign}{digits}"), base).ok())
        .flatten()
}

/// `[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?`
fn is_float(plain: &str) -> bool {
    let unsigned = plain.strip_prefix(['+', '-']).unwrap_or(plain);
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (unsigned, None),
    };
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let is_mantissa = digits(whole) && digits(fraction) && !(whole.is_empty() && fraction.is_empty());
    let is_exponent = |exponent: &str| {
        let exponent = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
        !exponent.is_empty() && digits(exponent)
    };
    is_mantissa && exponent.is_none_or(is_exponent)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::yaml::document;

    /// The results of `YAMLToJSON` of sigs.k8s.io/yaml 1.6.0.
    const REFERENCE: &[(&str, &str)] = &[
        ("y", "true"),
        ("Y", "true"),
        ("yes", "true"),
        ("YES", "true"),
        ("yEs", r#""yEs""#),
        ("on", "true"),
        ("On", "true"),
        ("oN", r#""oN""#),
        ("off", "false"),
        ("no", "false"),
        ("n", "false"),
        ("N", "false"),
        ("true", "true"),
        ("True", "true"),
        ("tRUE", r#""tRUE""#),
        ("~", "null"),
        ("null", "null"),
        ("NULL", "null"),
        ("", "null"),
        ("1337", "1337"),
        ("1_337", "1337"),
        ("0x539", "1337"),
        ("0X539", "1337"),
        ("0o2471", "1337"),
        ("02471", "1337"),
        ("0b10", "2"),
        ("-0b10", "-2"),
        ("+5", "5"),
        ("-5", "-5"),
        ("1337.0", "1337"),
        ("1337.5", "1337.5"),
        ("1.337e3", "1337"),
        ("1e3", "1000"),
        (".5", "0.5"),
        ("5.", "5"),
        ("1_337.5", "1337.5"),
        ("08", "8"),
        ("09.5", "9.5"),
        ("0_8", "8"),
        ("_1", r#""_1""#),
        ("1_", "1"),
        ("0x", r#""0x""#),
        ("0x_539", "1337"),
        ("1__3", "13"),
        ("2001-01-01", r#""2001-01-01""#),
        ("1:30", r#""1:30""#),
        ("12e03", "12000"),
        ("9223372036854775807", "9223372036854775807"),
        ("1e400", r#""1e400""#),
        ("0x1p4", r#""0x1p4""#),
        ("+0x10", "16"),
        ("-0x10", "-16"),
        ("=", r#""=""#),
        ("'yes'", r#""yes""#),
        (r#""1337""#, r#""1337""#),
        ("!!str yes", r#""yes""#),
        (r#"!!int "5""#, "5"),
        (r#"!!bool "yes""#, "true"),
        ("!!float 5", "5"),
        ("1.2.3", r#""1.2.3""#),
        ("15m", r#""15m""#),
        ("0777", "511"),
        ("00", "0"),
        ("-0", "0"),
        ("1E3", "1000"),
        ("Infinity", r#""Infinity""#),
        ("NaN", r#""NaN""#),
        ("0.1", "0.1"),
    ];

    #[test]
    fn scalars_are_read_as_kubernetes_reads_them() {
        for (text, json) in REFERENCE {
            let node = document(text).unwrap();
            let expected: Value = serde_json::from_str(json).unwrap();
            assert_eq!(node.in_kubernetes(), expected, "{text}");
        }
        for text in [".inf", "-.Inf", ".nan"] {
            assert_eq!(document(text).unwrap().integer(), None, "{text}");
        }
    }
}
