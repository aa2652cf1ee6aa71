//! Values of `proxy-init`.

use crate::mesh::front_end::each;
use crate::mesh::go;
use crate::types::{
    Backend, Cidrs, Id, Invalid, IpFamily, LogFormat, LogLevel, Port, Ports, Range, Ranges, Timeout, parse_cidrs,
};

/// The values of `--iptables-mode` and `--firewall-bin-path`, and their backends. `nft` and `plain` select an iptables
/// program, which sidetrack's nftables backend does not need.
pub const MODES: [(&str, &str, Backend); 3] = [
    ("legacy", "iptables-legacy", Backend::IptablesLegacy),
    ("nft", "iptables-nft", Backend::Auto),
    ("plain", "iptables", Backend::Auto),
];

/// A port of the proxy.
pub fn port(text: &str, number: i64) -> Result<Port, Invalid> {
    let port = u16::try_from(number).ok().and_then(Port::new);
    port.ok_or_else(|| Invalid::new(text, "a port from 1 to 65535"))
}

/// The user or group of the proxy; none if the number is not above 0.
pub fn owner<I: Id>(text: &str, number: i64) -> Result<Ranges<I>, Invalid> {
    if number <= 0 {
        return Ok(Ranges::default());
    }
    let id = u32::try_from(number).ok().and_then(I::new);
    let expected = || format!("a {} from 1 to 4294967294", I::WHAT);
    Ok([id.ok_or_else(|| Invalid::new(text, expected()))?]
        .into_iter()
        .collect())
}

/// The IP families to redirect.
#[expect(clippy::unnecessary_wraps, reason = "a meaning of values like the others")]
pub fn families(_: &str, both: bool) -> Result<IpFamily, Invalid> {
    Ok(if both { IpFamily::Auto } else { IpFamily::Ipv4 })
}

/// A conntrack timeout in seconds.
pub fn timeout(text: &str, seconds: i64) -> Result<Option<Timeout>, Invalid> {
    if seconds == 0 {
        return Ok(None);
    }
    let timeout = u32::try_from(seconds).ok().and_then(Timeout::new);
    let expected = || format!("seconds from 0 to {}", Timeout::MAX.seconds());
    timeout.map(Some).ok_or_else(|| Invalid::new(text, expected()))
}

/// The log format.
#[expect(clippy::unnecessary_wraps, reason = "a meaning of values like the others")]
pub fn log_format(text: &str, _: String) -> Result<LogFormat, Invalid> {
    Ok(if text == "json" {
        LogFormat::Json
    } else {
        LogFormat::Text
    })
}

/// A log level of logrus.
pub fn log_level(text: &str, _: String) -> Result<LogLevel, Invalid> {
    match text.to_lowercase().as_str() {
        "panic" | "fatal" | "error" => Ok(LogLevel::Error),
        "warn" | "warning" => Ok(LogLevel::Warn),
        "info" => Ok(LogLevel::Info),
        "debug" => Ok(LogLevel::Debug),
        "trace" => Ok(LogLevel::Trace),
        _ => Err(Invalid::new(text, "panic, fatal, error, warn, info, debug or trace")),
    }
}

/// The inbound ports to redirect; all if the list is empty.
pub fn ports_to_redirect(texts: &[String]) -> Result<Ports, Vec<Invalid>> {
    let items = texts.iter().flat_map(|text| text.split(','));
    let ports = each(items, |item| port(item, go::decimal(item)?))?;
    Ok(if ports.is_empty() {
        Ports::everything()
    } else {
        ports.into_iter().collect()
    })
}

/// Excluded ports and ranges. Invalid items go to `ignored_items`, unless all are invalid.
pub fn ignored_ports(texts: &[String], ignored_items: &mut Vec<Invalid>) -> Result<Ports, Vec<Invalid>> {
    let items = items(texts)?;
    let (ranges, bad): (Vec<_>, Vec<_>) = items.iter().map(|item| range(item)).partition(Result::is_ok);
    let bad: Vec<Invalid> = bad.into_iter().filter_map(Result::err).collect();
    if ranges.is_empty() && !bad.is_empty() {
        return Err(bad);
    }
    ignored_items.extend(bad);
    Ok(ranges.into_iter().flatten().flatten().collect())
}

/// A port or a range; `None` for port 0, which is not a valid destination.
fn range(item: &str) -> Result<Option<Range<Port>>, Invalid> {
    let number = |text: &str| {
        let number = go::decimal(text).ok()?;
        u16::try_from(number).ok()
    };
    let (first, last) = item.split_once('-').unwrap_or((item, item));
    let bounds = number(first).zip(number(last)).filter(|(first, last)| first <= last);
    let (first, last) = bounds.ok_or_else(|| Invalid::new(item, "a port from 0 to 65535 or a range a-b of them"))?;
    Ok(Port::new(first.max(1))
        .zip(Port::new(last))
        .and_then(|(first, last)| Range::new(first, last)))
}

/// Excluded sources.
pub fn subnets(texts: &[String]) -> Result<Cidrs, Vec<Invalid>> {
    let items = items(texts)?;
    each(items.iter().map(|item| item.trim()), |item| {
        // An address without a length, `*` and a nested list are invalid here.
        let is_one = item.contains('/') && !item.contains(',') && parse_cidrs(item).is_ok();
        let expected = "a CIDR, such as 10.0.0.0/8 or 2001:db8::/32";
        is_one.then_some(()).ok_or_else(|| Invalid::new(item, expected))
    })?;
    parse_cidrs(&items.join(","))
}

fn items(texts: &[String]) -> Result<Vec<String>, Vec<Invalid>> {
    Ok(each(texts.iter().map(String::as_str), go::list)?.concat())
}
