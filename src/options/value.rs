//! Parsing and formatting the values of options.

use crate::types::{
    Accounts, Backend, CgroupPath, Choice, Cidrs, DnsServers, Gids, InboundMode, InterfaceName, Invalid, IpFamily,
    LogFormat, LogLevel, LoopbackCidr, Mark, MeshName, Output, Policy, Port, Ports, PortsForUids, RouteTable, Timeout,
    Uids, parse_cidrs, parse_ids, parse_ports, parse_ports_for_uids,
};

/// The value of an option.
pub trait Value: Sized {
    /// Reads the texts given for the option: a flag may be repeated.
    ///
    /// # Errors
    /// Every text, or part of one, that is not valid.
    fn read(texts: &[String], accounts: &dyn Accounts) -> Result<Self, Vec<Invalid>>;

    /// Formats the value as one text that can be read back.
    fn written(&self) -> String;

    /// The number of elements of a list.
    fn length(&self) -> usize {
        1
    }

    /// The maximum length for a pod: an element becomes one or more rules with an iptables backend.
    const MAX_FROM_POD: usize = 1;

    /// The names of all values, if the type is a choice.
    fn names() -> Vec<&'static str> {
        Vec::new()
    }
}

/// The maximum number of ports, users or groups for a pod; a range counts as one.
const MAX_NUMBERS: usize = 1024;
/// The maximum number of networks for a pod: as many as the largest clouds publish for one service.
const MAX_CIDRS: usize = 4096;
/// The maximum number of interfaces or name servers for a pod.
const MAX_NAMES: usize = 64;
/// The maximum number of ports and users for a pod in all entries of ports for users: with iptables they multiply.
const MAX_PORTS_FOR_UIDS: usize = 256;

macro_rules! value {
    ($($type:ty $([$length:expr, at most $max:expr])?: $read:expr $(, $names:expr)?;)*) => {
        $(impl Value for $type {
            $(
                const MAX_FROM_POD: usize = $max;

                fn length(&self) -> usize {
                    let length: fn(&Self) -> usize = $length;
                    length(self)
                }
            )?

            fn read(texts: &[String], accounts: &dyn Accounts) -> Result<Self, Vec<Invalid>> {
                let read: fn(&[String], &dyn Accounts) -> Result<Self, Vec<Invalid>> = $read;
                read(texts, accounts)
            }

            fn written(&self) -> String {
                self.to_string()
            }

            $(fn names() -> Vec<&'static str> {
                $names.iter().map(|(_, name)| *name).collect()
            })?
        })*
    };
}

value! {
    bool: |texts, _| one(texts, boolean);
    Port: |texts, _| one(texts, Port::parse);
    Ports [Self::len, at most MAX_NUMBERS]: |texts, _| parse_ports(&joined(texts));
    Uids [Self::len, at most MAX_NUMBERS]: |texts, accounts| parse_ids(&joined(texts), accounts);
    Gids [Self::len, at most MAX_NUMBERS]: |texts, accounts| parse_ids(&joined(texts), accounts);
    Cidrs [|cidrs| cidrs.v4().len() + cidrs.v6().len(), at most MAX_CIDRS]: |texts, _| parse_cidrs(&joined(texts));
    LoopbackCidr: |texts, _| one(texts, LoopbackCidr::parse);
    Mark: |texts, _| one(texts, Mark::parse);
    RouteTable: |texts, _| one(texts, RouteTable::parse);
    DnsServers [Self::listed, at most MAX_NAMES]: |texts, _| DnsServers::parse(&joined(texts));
    MeshName: |texts, _| one(texts, MeshName::parse), MeshName::ALL;
    InboundMode: |texts, _| one(texts, InboundMode::parse), InboundMode::ALL;
    Policy: |texts, _| one(texts, Policy::parse), Policy::ALL;
    IpFamily: |texts, _| one(texts, IpFamily::parse), IpFamily::ALL;
    Backend: |texts, _| one(texts, Backend::parse), Backend::ALL;
    Output: |texts, _| one(texts, Output::parse), Output::ALL;
    LogLevel: |texts, _| one(texts, LogLevel::parse), LogLevel::ALL;
    LogFormat: |texts, _| one(texts, LogFormat::parse), LogFormat::ALL;
}

impl Value for Option<Timeout> {
    fn read(texts: &[String], _: &dyn Accounts) -> Result<Self, Vec<Invalid>> {
        one(texts, Timeout::parse)
    }

    fn written(&self) -> String {
        self.map_or_else(|| "0".to_owned(), |timeout| timeout.to_string())
    }
}

/// The empty text is no mark.
impl Value for Option<Mark> {
    fn read(texts: &[String], _: &dyn Accounts) -> Result<Self, Vec<Invalid>> {
        one(texts, |text| match text.trim() {
            "" => Ok(None),
            text => Mark::parse(text).map(Some),
        })
    }

    fn written(&self) -> String {
        self.map_or_else(String::new, |mark| mark.to_string())
    }
}

/// The empty text is no cgroup.
impl Value for Option<CgroupPath> {
    fn read(texts: &[String], _: &dyn Accounts) -> Result<Self, Vec<Invalid>> {
        one(texts, |text| match text.trim() {
            "" => Ok(None),
            text => CgroupPath::parse(text).map(Some),
        })
    }

    fn written(&self) -> String {
        self.as_ref().map_or_else(String::new, ToString::to_string)
    }
}

impl Value for Vec<InterfaceName> {
    fn read(texts: &[String], _: &dyn Accounts) -> Result<Self, Vec<Invalid>> {
        let texts = joined(texts);
        let (mut names, mut errors) = (Vec::new(), Vec::new());
        for text in texts.split(',').map(str::trim).filter(|text| !text.is_empty()) {
            match InterfaceName::parse(text) {
                Ok(name) if names.contains(&name) => {}
                Ok(name) => names.push(name),
                Err(error) => errors.push(error),
            }
        }
        if errors.is_empty() { Ok(names) } else { Err(errors) }
    }

    fn written(&self) -> String {
        self.iter().map(InterfaceName::as_str).collect::<Vec<_>>().join(",")
    }

    fn length(&self) -> usize {
        self.len()
    }

    const MAX_FROM_POD: usize = MAX_NAMES;
}

impl Value for Vec<PortsForUids> {
    fn read(texts: &[String], accounts: &dyn Accounts) -> Result<Self, Vec<Invalid>> {
        parse_ports_for_uids(&texts.join(";"), accounts)
    }

    fn written(&self) -> String {
        self.iter().map(ToString::to_string).collect::<Vec<_>>().join(";")
    }

    fn length(&self) -> usize {
        self.iter().map(|entry| entry.ports.len() + entry.uids.len()).sum()
    }

    const MAX_FROM_POD: usize = MAX_PORTS_FOR_UIDS;
}

fn joined(texts: &[String]) -> String {
    texts.join(",")
}

fn boolean(text: &str) -> Result<bool, Invalid> {
    match text.trim() {
        "true" | "1" | "yes" => Ok(true),
        "false" | "0" | "no" => Ok(false),
        _ => Err(Invalid::new(text, "true or false")),
    }
}

/// Reads an option with a single value: of a repeated flag, each text must be valid, and the last one applies.
fn one<T>(texts: &[String], parse: impl Fn(&str) -> Result<T, Invalid>) -> Result<T, Vec<Invalid>> {
    let (mut last, mut errors) = (None, Vec::new());
    for text in texts {
        match parse(text) {
            Ok(value) => last = Some(value),
            Err(error) => errors.push(error),
        }
    }
    match last {
        Some(value) if errors.is_empty() => Ok(value),
        None if errors.is_empty() => Err(vec![Invalid::new("", "a value")]),
        _ => Err(errors),
    }
}
