//! Values of `istio-iptables`: in the notation of Go, or of iptables.

use crate::mesh::front_end::items;
pub use crate::mesh::go::boolean;
use crate::types::{
    Accounts, Backend, Cidrs, Gids, Id, InboundMode, Invalid, LogLevel, Port, Ports, Ranges, parse_cidrs, parse_ids,
    parse_ports,
};

/// The maximum number of groups for Istio.
const MAX_GROUPS: usize = 64;

/// Reads `LEVEL` or `SCOPE:LEVEL,…`. The scope `default` is sidetrack's; other scopes are components of Istio.
pub fn log_level(text: &str) -> Result<LogLevel, Invalid> {
    let mut own = LogLevel::Info;
    for item in text.split(',') {
        let (scope, level) = item.split_once(':').unwrap_or(("default", item));
        let level = match level {
            "none" | "fatal" | "error" => LogLevel::Error,
            "warn" => LogLevel::Warn,
            "info" => LogLevel::Info,
            "debug" => LogLevel::Debug,
            _ => {
                return Err(Invalid::new(
                    item,
                    "LEVEL or SCOPE:LEVEL, with a level of none, error, warn, info, debug",
                ));
            }
        };
        if matches!(scope, "default" | "all") {
            own = level;
        }
    }
    Ok(own)
}

/// Reads the interception mode.
pub fn mode(text: &str) -> Result<InboundMode, Invalid> {
    match text {
        "REDIRECT" => Ok(InboundMode::Redirect),
        "TPROXY" => Ok(InboundMode::Tproxy),
        _ => Err(Invalid::new(text, "REDIRECT or TPROXY")),
    }
}

/// Reads the iptables backend.
pub fn backend(text: &str) -> Result<Backend, Invalid> {
    match text {
        "" => Ok(Backend::Auto),
        "legacy" => Ok(Backend::IptablesLegacy),
        "nft" => Ok(Backend::IptablesNft),
        _ => Err(Invalid::new(text, "legacy or nft")),
    }
}

/// Reads `*`, which means everything, or a list.
pub fn or_all<T>(
    text: &str,
    everything: fn() -> T,
    list: impl FnOnce(&str) -> Result<T, Vec<Invalid>>,
) -> Result<T, Vec<Invalid>> {
    if text.trim() == "*" {
        Ok(everything())
    } else {
        list(text)
    }
}

/// Reads a port as iptables does: decimal, hexadecimal or octal.
pub fn port(text: &str) -> Result<Port, Invalid> {
    match decimal(text.trim()) {
        Some(decimal) => Port::parse(&decimal).map_err(|invalid| Invalid::new(text, invalid.expected)),
        None => Err(Invalid::new(text, "a port from 1 to 65535")),
    }
}

/// Converts a number in C notation (`0x1f90`, `017`) to decimal; returns other text unchanged, and `None` for an invalid
/// number with such a prefix.
fn decimal(text: &str) -> Option<String> {
    let number = match text.strip_prefix('0') {
        None | Some("") => return Some(text.to_owned()),
        Some(digits) => match digits.strip_prefix(['x', 'X']) {
            Some(digits) => u32::from_str_radix(digits, 16),
            None => u32::from_str_radix(digits, 8),
        },
    };
    number.ok().map(|number| number.to_string())
}

/// Converts a number, or a range in the notation of iptables, `a:b` or `a-b`, to sidetrack's notation.
fn range(item: &str) -> Option<String> {
    let item = item.replace(':', "-");
    let numbers: Option<Vec<String>> = item.split('-').map(|end| decimal(end.trim())).collect();
    numbers.map(|numbers| numbers.join("-"))
}

/// Reads IDs: numbers and ranges as iptables does, and names, which no digit begins.
fn range_of_ids<I: Id>(item: &str, accounts: &dyn Accounts) -> Result<Ranges<I>, Vec<Invalid>> {
    let text = match item.starts_with(|first: char| first.is_ascii_digit()) {
        true => range(item),
        false => Some(item.to_owned()),
    };
    // Errors name the item as it was given.
    let expected = |invalid: Vec<Invalid>| invalid.into_iter().map(|invalid| Invalid::new(item, invalid.expected));
    match text {
        Some(text) => parse_ids(&text, accounts).map_err(|invalid| expected(invalid).collect()),
        None => Err(vec![Invalid::new(item, format!("a {}", I::WHAT))]),
    }
}

/// Reads ports and ranges, `a-b` or, like iptables, `a:b`.
pub fn ports(text: &str) -> Result<Ports, Vec<Invalid>> {
    let items = each(text, |item| {
        let read = range(item).and_then(|range| parse_ports(&range).ok());
        read.ok_or_else(|| vec![Invalid::new(item, "a port from 1 to 65535, or a range a-b")])
    })?;
    Ok(items.iter().flatten().copied().collect())
}

/// Reads addresses and CIDRs.
pub fn cidrs(text: &str) -> Result<Cidrs, Vec<Invalid>> {
    each(text, |item| parse_cidrs(item).map(drop))?;
    parse_cidrs(text)
}

/// Reads IDs and names of single users or groups, in the given order, on which Istio's rules depend.
pub fn ids<I: Id>(text: &str, accounts: &dyn Accounts) -> Result<Vec<I>, Vec<Invalid>> {
    let mut ids = each(text, |item| {
        let range = range_of_ids::<I>(item, accounts)?;
        let expected = || format!("a single {}; list the {}s one by one", I::WHAT, I::NAMED);
        range.only().ok_or_else(|| vec![Invalid::new(item, expected())])
    })?;
    let mut seen = Vec::new();
    ids.retain(|id| {
        let new = !seen.contains(id);
        seen.push(*id);
        new
    });
    Ok(ids)
}

/// Reads groups: GIDs, names, and ranges, `a-b` or, like iptables, `a:b`.
pub fn groups(text: &str, accounts: &dyn Accounts) -> Result<Gids, Vec<Invalid>> {
    let items: Vec<Gids> = each(text, |item| range_of_ids(item, accounts))?;
    Ok(items.iter().flatten().copied().collect())
}

/// Reads the groups to redirect, at most [`MAX_GROUPS`].
pub fn included_groups(text: &str, accounts: &dyn Accounts) -> Result<Gids, Vec<Invalid>> {
    match items(text).count() {
        0..=MAX_GROUPS => groups(text, accounts),
        count => Err(vec![Invalid::new(
            text,
            format!("a list of at most {MAX_GROUPS} groups (it has {count})"),
        )]),
    }
}

/// Reads each item of a list, without blank ones.
fn each<T>(text: &str, read: impl Fn(&str) -> Result<T, Vec<Invalid>>) -> Result<Vec<T>, Vec<Invalid>> {
    const MUST_STAND_ALONE: &str = "an item of this list: * must stand alone, and only selects what to redirect";
    let (mut values, mut errors) = (Vec::new(), Vec::new());
    for item in items(text) {
        match item {
            "*" => errors.push(Invalid::new(item, MUST_STAND_ALONE)),
            item => match read(item) {
                Ok(value) => values.push(value),
                Err(invalid) => errors.extend(invalid),
            },
        }
    }
    if errors.is_empty() { Ok(values) } else { Err(errors) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{AccountsError, Gid, NoAccounts, Uid};

    struct Known;

    impl Accounts for Known {
        fn uid(&self, name: &str) -> Result<Option<u32>, AccountsError> {
            Ok((name == "envoy").then_some(1500))
        }

        fn gid(&self, name: &str) -> Result<Option<u32>, AccountsError> {
            Ok((name == "java").then_some(2201))
        }

        fn has_uid(&self, _: u32) -> Result<bool, AccountsError> {
            Ok(false)
        }
    }

    fn values(errors: Vec<Invalid>) -> Vec<String> {
        errors.into_iter().map(|invalid| invalid.value).collect()
    }

    #[test]
    fn booleans_match_go() {
        for (text, expected) in [("t", true), ("TRUE", true), ("1", true), ("False", false), ("0", false)] {
            assert_eq!(boolean(text), Ok(expected));
        }
        for text in ["", "yes", "tRUE", "on", " true"] {
            assert!(boolean(text).is_err(), "{text}");
        }
    }

    #[test]
    fn log_level_is_that_of_the_default_scope() {
        for (text, level) in [
            ("debug", LogLevel::Debug),
            ("default:warn", LogLevel::Warn),
            ("xds:debug", LogLevel::Info),
            ("xds:error,all:debug", LogLevel::Debug),
            ("none", LogLevel::Error),
        ] {
            assert_eq!(log_level(text), Ok(level), "{text}");
        }
        for text in ["", "default:", "loud", "a:b:info"] {
            assert!(log_level(text).is_err(), "{text}");
        }
    }

    #[test]
    fn port_ranges_use_either_separator() {
        assert_eq!(
            ports(" 80, 8000:8080,9000-9001,,").unwrap().to_string(),
            "80,8000-8080,9000-9001"
        );
        assert!(ports("").unwrap().is_empty());
        assert_eq!(
            values(ports("0,http,80:,*,1:2:3").unwrap_err()),
            ["0", "http", "80:", "*", "1:2:3"]
        );
    }

    #[test]
    fn numbers_match_iptables() {
        assert_eq!(ports("0x50,010,0x1F90:0x1f92").unwrap().to_string(), "8,80,8080-8082");
        assert_eq!(port("0x3a99").unwrap().get(), 15001);
        for text in ["0", "0x", "08", "0x10000", "-1", "http"] {
            assert_eq!(port(text).unwrap_err().value, text);
        }
        assert_eq!(
            groups("200:210,java,0xc8-0xc9,300-301", &Known).unwrap().to_string(),
            "200-210,300-301,2201"
        );
        assert_eq!(
            values(groups("210:200,1:2:3,200:,no:body", &Known).unwrap_err()),
            ["210:200", "1:2:3", "200:", "no:body"]
        );
    }

    #[test]
    fn asterisks_must_stand_alone() {
        assert!(or_all("*", Ports::everything, ports).unwrap().is_everything());
        assert_eq!(values(or_all("*,80", Ports::everything, ports).unwrap_err()), ["*"]);
        assert_eq!(values(cidrs("10.0.0.0/8,*,x").unwrap_err()), ["*", "x"]);
        assert_eq!(cidrs("10.1.2.3/8,::1").unwrap().to_string(), "10.0.0.0/8,::1/128");
    }

    #[test]
    fn users_keep_their_order() {
        let uids = ids::<Uid>("4,envoy,3,4", &Known).unwrap();
        assert_eq!(
            uids.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["4", "1500", "3"]
        );
        assert_eq!(
            values(ids::<Gid>("1-2,*,nobody-here", &Known).unwrap_err()),
            ["1-2", "*", "nobody-here"]
        );
    }

    #[test]
    fn at_most_64_groups_are_included() {
        let list = |count: u32| (1..=count).map(|gid| gid.to_string()).collect::<Vec<_>>().join(",");
        assert_eq!(included_groups("java,202", &Known).unwrap().to_string(), "202,2201");
        assert!(included_groups(&list(64), &NoAccounts).is_ok());
        let error = included_groups(&list(65), &NoAccounts).unwrap_err();
        assert!(error[0].expected.contains("at most 64"), "{error:?}");
        assert!(groups(&list(65), &NoAccounts).is_ok());
    }
}
