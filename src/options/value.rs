//! How the value of an option is read from texts, and written as one.

use crate::types::{
    Accounts, Backend, Choice, Cidrs, DnsServers, Gids, InboundMode, InterfaceName, Invalid, IpFamily, LogFormat,
    LogLevel, LoopbackCidr, Mark, MeshName, Output, Port, Ports, PortsForUids, RouteTable, Timeout, Uids, parse_cidrs,
    parse_ids, parse_ports, parse_ports_for_uids,
};

/// The value of an option.
pub trait Value: Sized {
    /// Reads the texts given for the option: a flag may be repeated.
    ///
    /// # Errors
    /// Every text, or part of one, that is not valid.
    fn read(texts: &[String], accounts: &dyn Accounts) -> Result<Self, Vec<Invalid>>;

    /// The value as one text, which is read back as the same value.
    fn written(&self) -> String;

    /// How many elements a list has.
    fn length(&self) -> usize {
        1
    }

    /// How many a pod may give: each becomes a rule, or several, on an iptables backend.
    const MAX_FROM_POD: usize = 1;

    /// The names of all values, where they are few.
    fn names() -> Vec<&'static str> {
        Vec::new()
    }
}

/// How many ports, users or groups a pod may list, ranges counting once.
const MAX_NUMBERS: usize = 1024;
/// How many networks a pod may list: as many as the largest clouds publish for one of their services.
const MAX_CIDRS: usize = 4096;
/// How many interfaces and name servers a pod may list.
const MAX_PLACES: usize = 64;
/// How many ports and users a pod may list in all entries of ports for users: on iptables they multiply.
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
    DnsServers [Self::listed, at most MAX_PLACES]: |texts, _| DnsServers::parse(&joined(texts));
    MeshName: |texts, _| one(texts, MeshName::parse), MeshName::ALL;
    InboundMode: |texts, _| one(texts, InboundMode::parse), InboundMode::ALL;
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

    const MAX_FROM_POD: usize = MAX_PLACES;
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

/// Reads an option that has one value: where a flag is repeated, each text must be valid, and the last one counts.
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
