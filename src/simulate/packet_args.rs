//! Packets described by command-line arguments, such as `outbound tcp 10.0.0.5:443 --uid 1000`.

#[cfg(test)]
mod tests;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::packet::{Origin, Packet, Pod, is_loopback};
use crate::ruleset::Tracking;
use crate::types::{
    Accounts, CgroupPath, Family, Gid, Id, InterfaceName, Invalid, IpProtocol, Number as _, Port, Uid, parse_ids,
};

/// The default user and group of the sender: an application's in most images.
const DEFAULT_OWNER: u32 = 1000;
/// The default source port: one of the kernel's ephemeral range.
const DEFAULT_SOURCE_PORT: Port = match Port::new(40000) {
    Some(port) => port,
    None => unreachable!(),
};
/// The default source of inbound packets, from the documentation ranges (RFC 5737, RFC 3849).
const DEFAULT_CLIENT_V4: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
/// The same for IPv6.
const DEFAULT_CLIENT_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 1);
/// The interface of an undescribed pod.
const DEFAULT_INTERFACE: &str = "eth0";

/// The arguments as given; `None` where one is left out.
#[derive(Clone, Debug, Default)]
pub struct PacketArgs {
    /// `outbound` or `inbound`.
    pub direction: String,
    /// `tcp`, another name, or a number.
    pub protocol: String,
    /// An address, and a port if the protocol has ports; a port alone is one of the pod.
    pub destination: String,
    /// The source address, perhaps with a port.
    pub source: Option<String>,
    /// The user that owns the socket.
    pub uid: Option<String>,
    /// The group that owns the socket.
    pub gid: Option<String>,
    /// The packet's mark.
    pub mark: Option<String>,
    /// The cgroup of the sending process.
    pub cgroup: Option<String>,
    /// The incoming interface, or the one that leads to other hosts.
    pub interface: Option<String>,
    /// The conntrack state.
    pub connection_state: Option<String>,
}

/// An argument that is invalid, or that contradicts another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mistake {
    /// An invalid value.
    Value {
        /// The name of the argument in the help.
        argument: &'static str,
        /// The value, and the valid ones.
        invalid: Invalid,
    },
    /// Arguments that are valid alone but not together: a sentence.
    Contradiction(String),
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Value { argument, invalid } => {
                write!(f, "{argument}: {:?} is not {}", invalid.value, invalid.expected)
            }
            Self::Contradiction(reason) => f.write_str(reason),
        }
    }
}

/// A packet as far as arguments describe it; the pod supplies the rest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    outbound: bool,
    protocol: IpProtocol,
    destination: (Option<IpAddr>, Option<Port>),
    source: (Option<IpAddr>, Option<Port>),
    uid: Uid,
    gid: Gid,
    mark: u32,
    cgroup: Option<CgroupPath>,
    interface: Option<InterfaceName>,
    tracking: Tracking,
}

/// Parses the arguments.
///
/// # Errors
/// All mistakes in them.
pub fn parse(args: &PacketArgs, accounts: &dyn Accounts) -> Result<Description, Vec<Mistake>> {
    let mut mistakes = Vec::new();
    let mut reader = Reader(&mut mistakes);
    let outbound = reader.keyword("DIRECTION", &args.direction, &[("outbound", true), ("inbound", false)]);
    let protocol = reader.parse("PROTOCOL", Some(&args.protocol), IpProtocol::parse);
    let has_ports = protocol.is_none_or(IpProtocol::has_ports);
    let destination = reader.parse("DESTINATION", Some(&args.destination), |text| match has_ports {
        true => destination(text),
        false => address_alone(text),
    });
    let source = reader.parse("--source", args.source.as_deref(), source);
    let uid = reader.parse("--uid", args.uid.as_deref(), |text| owner(text, accounts));
    let gid = reader.parse("--gid", args.gid.as_deref(), |text| owner(text, accounts));
    let mark = reader.parse("--mark", args.mark.as_deref(), mark);
    let cgroup = reader.parse("--cgroup", args.cgroup.as_deref(), CgroupPath::parse);
    let interface = reader.parse("--interface", args.interface.as_deref(), InterfaceName::parse);
    let tracking = args.connection_state.as_ref().and_then(|text| {
        let states = [
            ("new", Tracking::New),
            ("established", Tracking::Established),
            ("related", Tracking::Related),
            ("invalid", Tracking::Invalid),
        ];
        reader.keyword("--connection-state", text, &states)
    });
    if outbound == Some(false) && [&args.uid, &args.gid, &args.cgroup].iter().any(|given| given.is_some()) {
        mistakes.push(Mistake::Contradiction(
            "--uid, --gid and --cgroup name the local sender of a packet, which an inbound packet does not have: leave \
             them out"
                .to_owned(),
        ));
    }
    if let (Some((Some(to), _)), Some((Some(from), _))) = (destination, source)
        && Family::of(to) != Family::of(from)
    {
        mistakes.push(Mistake::Contradiction(format!(
            "a packet from {from} cannot go to {to}: name two addresses of one family"
        )));
    }
    if let (Some(protocol), Some((_, Some(_)))) = (protocol, source)
        && !has_ports
    {
        mistakes.push(Mistake::Contradiction(format!(
            "{protocol} has no ports: leave out the port of --source"
        )));
    }
    let of_other_family = match (destination.and_then(|(address, _)| address.map(Family::of)), protocol) {
        (Some(Family::V6), Some(IpProtocol::ICMP)) => Some((IpProtocol::ICMP, Family::V4)),
        (Some(Family::V4), Some(IpProtocol::ICMPV6)) => Some((IpProtocol::ICMPV6, Family::V6)),
        _ => None,
    };
    mistakes.extend(of_other_family.map(|(protocol, family)| {
        Mistake::Contradiction(format!("{protocol} is a protocol of {family}: name an address of it"))
    }));
    match (outbound, protocol, destination) {
        (Some(outbound), Some(protocol), Some(destination)) if mistakes.is_empty() => {
            let uid = uid.or(Uid::new(DEFAULT_OWNER)).unwrap_or(Uid::MIN);
            // The group defaults to the number of the user, as in most images.
            let group_of_user = args.uid.as_ref().and_then(|_| Gid::new(uid.get()));
            Ok(Description {
                outbound,
                protocol,
                destination,
                source: source.unwrap_or_default(),
                uid,
                gid: gid.or(group_of_user).or(Gid::new(DEFAULT_OWNER)).unwrap_or(Gid::MIN),
                mark: mark.unwrap_or(0),
                cgroup,
                interface,
                tracking: tracking.unwrap_or(Tracking::New),
            })
        }
        _ => Err(mistakes),
    }
}

/// Collects mistakes.
struct Reader<'m>(&'m mut Vec<Mistake>);

impl Reader<'_> {
    fn parse<T>(
        &mut self,
        argument: &'static str,
        text: Option<&str>,
        parse: impl Fn(&str) -> Result<T, Invalid>,
    ) -> Option<T> {
        match parse(text?) {
            Ok(value) => Some(value),
            Err(invalid) => {
                self.0.push(Mistake::Value { argument, invalid });
                None
            }
        }
    }

    fn keyword<T: Copy>(&mut self, argument: &'static str, text: &str, known: &[(&str, T)]) -> Option<T> {
        self.parse(argument, Some(text), |text| {
            match known.iter().find(|(name, _)| *name == text) {
                Some((_, value)) => Ok(*value),
                None => {
                    let names: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
                    Err(Invalid::new(text, names.join(" or ")))
                }
            }
        })
    }
}

fn destination(text: &str) -> Result<(Option<IpAddr>, Option<Port>), Invalid> {
    let parsed = match text.strip_prefix(':') {
        Some(port) => Port::parse(port).ok().map(|port| (None, port)),
        None => endpoint(text),
    };
    parsed.map(|(address, port)| (address, Some(port))).ok_or_else(|| {
        Invalid::new(
            text,
            "an address and a port, such as 10.0.0.5:443, [2001:db8::5]:443, or :443 of the pod itself",
        )
    })
}

/// A destination of a protocol without ports.
fn address_alone(text: &str) -> Result<(Option<IpAddr>, Option<Port>), Invalid> {
    match text.trim_matches(['[', ']']).parse() {
        Ok(address) => Ok((Some(as_sent(address)), None)),
        Err(_) => Err(Invalid::new(
            text,
            "an address, such as 10.0.0.5 or 2001:db8::5: this protocol has no ports",
        )),
    }
}

fn endpoint(text: &str) -> Option<(Option<IpAddr>, Port)> {
    let address: SocketAddr = text.parse().ok()?;
    Some((Some(as_sent(address.ip())), Port::new(address.port())?))
}

/// The address in packets. The kernel replaces the unspecified address by loopback (`ip_route_output_key_hash_rcu`
/// and `tcp_v6_connect`, net/ipv4/route.c and net/ipv6/tcp_ipv6.c), and sends IPv4 to IPv4-mapped ones.
fn as_sent(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Ipv6Addr::LOCALHOST.into(),
        address => address,
    }
}

fn source(text: &str) -> Result<(Option<IpAddr>, Option<Port>), Invalid> {
    let alone = || {
        text.trim_matches(['[', ']'])
            .parse()
            .ok()
            .map(|address| (Some(as_sent(address)), None))
    };
    let with_port = || endpoint(text).map(|(address, port)| (address, Some(port)));
    with_port()
        .or_else(alone)
        .ok_or_else(|| Invalid::new(text, "an address, or an address and a port"))
}

fn owner<I: Id>(text: &str, accounts: &dyn Accounts) -> Result<I, Invalid> {
    let ids = parse_ids::<I>(text, accounts).map_err(|mut invalid| invalid.remove(0))?;
    ids.only().ok_or_else(|| Invalid::new(text, format!("one {}", I::WHAT)))
}

fn mark(text: &str) -> Result<u32, Invalid> {
    let number = match text.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16),
        None => text.parse(),
    };
    number.map_err(|_| Invalid::new(text, "a mark from 0 to 4294967295"))
}

impl Description {
    /// The interface, if the arguments name one.
    pub fn interface(&self) -> Option<&InterfaceName> {
        self.interface.as_ref()
    }

    /// The same packet on this interface, unless the arguments name one.
    #[must_use]
    pub fn with_default_interface(mut self, interface: Option<InterfaceName>) -> Self {
        self.interface = self.interface.or(interface);
        self
    }

    /// The address family, if the arguments name an address.
    pub fn family(&self) -> Option<Family> {
        self.destination.0.or(self.source.0).map(Family::of)
    }

    /// The destination of an outbound packet, if the arguments name its address.
    pub fn destination(&self) -> Option<SocketAddr> {
        let (address, port) = self.destination;
        address
            .filter(|_| self.outbound)
            .map(|address| (address, port.map_or(0, Port::get)).into())
    }

    /// The packet, in this pod.
    ///
    /// # Errors
    /// The pod has no suitable address.
    pub fn packet(&self, pod: &Pod) -> Result<Packet, Mistake> {
        let first = pod
            .addresses
            .iter()
            .map(|(name, _)| name)
            .find(|name| !is_loopback(name));
        let interface = self.interface.clone().or_else(|| first.cloned());
        let interface = match interface {
            Some(interface) => interface,
            None => InterfaceName::parse(DEFAULT_INTERFACE).unwrap_or_else(|_| InterfaceName::loopback()),
        };
        let (address, destination_port) = self.destination;
        let destination = match (address, self.source.0) {
            (Some(address), _) => address,
            (None, Some(source)) => own_address(pod, &interface, &[Family::of(source)])?,
            (None, None) => own_address(pod, &interface, &Family::BOTH)?,
        };
        let client = || match destination {
            IpAddr::V4(_) => Some(DEFAULT_CLIENT_V4.into()),
            IpAddr::V6(_) => Some(DEFAULT_CLIENT_V6.into()),
        };
        let (source, source_port) = self.source;
        let default_source = || {
            if self.outbound {
                pod.source(destination, self.mark, &interface)
            } else {
                client()
            }
        };
        let source = source.or_else(default_source).ok_or_else(|| {
            Mistake::Contradiction(format!(
                "the pod has no source address for {destination}; name one with --source, or the pod's addresses with --pod-ip"
            ))
        })?;
        Ok(Packet {
            origin: if self.outbound {
                Origin::Process {
                    uid: self.uid,
                    gid: self.gid,
                    cgroup: self.cgroup.clone(),
                    interface,
                }
            } else {
                Origin::Interface(interface)
            },
            protocol: self.protocol,
            source,
            source_port: self
                .protocol
                .has_ports()
                .then_some(source_port.unwrap_or(DEFAULT_SOURCE_PORT)),
            destination,
            destination_port,
            mark: self.mark,
            tracking: self.tracking,
        })
    }
}

fn own_address(pod: &Pod, interface: &InterfaceName, families: &[Family]) -> Result<IpAddr, Mistake> {
    let address = families.iter().find_map(|family| pod.own_address(interface, *family));
    address.ok_or_else(|| {
        let families: Vec<String> = families.iter().map(ToString::to_string).collect();
        let families = families.join(" or ");
        Mistake::Contradiction(format!(
            "the pod has no {families} address on {interface}; name its addresses with --pod-ip"
        ))
    })
}
