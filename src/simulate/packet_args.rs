//! Packets described by command-line arguments, such as `outbound tcp 10.0.0.5:443 --uid 1000`.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::packet::{Origin, Packet, Pod, is_loopback};
use crate::ruleset::{Protocol, Tracking};
use crate::types::{Accounts, CgroupPath, Family, Gid, Id, InterfaceName, Invalid, Number as _, Port, Uid, parse_ids};

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
    /// `tcp` or `udp`.
    pub protocol: String,
    /// An address and a port; without the address, an address of the pod.
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
    protocol: Protocol,
    destination: (Option<IpAddr>, Port),
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
    let protocol = reader.keyword(
        "PROTOCOL",
        &args.protocol,
        &[("tcp", Protocol::Tcp), ("udp", Protocol::Udp)],
    );
    let destination = reader.parse("DESTINATION", Some(&args.destination), destination);
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

fn destination(text: &str) -> Result<(Option<IpAddr>, Port), Invalid> {
    let parsed = match text.strip_prefix(':') {
        Some(port) => Port::parse(port).ok().map(|port| (None, port)),
        None => endpoint(text),
    };
    parsed.ok_or_else(|| {
        Invalid::new(
            text,
            "an address and a port, such as 10.0.0.5:443, [2001:db8::5]:443, or :443 of the pod itself",
        )
    })
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
            .map(|address| (address, port.get()).into())
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
            source_port: source_port.unwrap_or(DEFAULT_SOURCE_PORT),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::NoAccounts;

    fn args(direction: &str, protocol: &str, destination: &str) -> PacketArgs {
        PacketArgs {
            direction: direction.to_owned(),
            protocol: protocol.to_owned(),
            destination: destination.to_owned(),
            ..PacketArgs::default()
        }
    }

    fn pod() -> Pod {
        let eth0 = InterfaceName::parse("eth0").unwrap();
        let addresses = ["10.1.0.7", "2001:db8:1::7"].map(|address| (eth0.clone(), address.parse().unwrap()));
        Pod {
            addresses: addresses.into(),
            local_marks: Vec::new(),
            route_localnet: Vec::new(),
        }
    }

    fn packet(args: &PacketArgs) -> Packet {
        parse(args, &NoAccounts).unwrap().packet(&pod()).unwrap()
    }

    #[test]
    fn default_values_describe_an_ordinary_pod() {
        let packet = packet(&args("outbound", "tcp", "10.0.0.5:443"));
        assert_eq!(
            (packet.source, packet.mark, packet.tracking),
            ("10.1.0.7".parse().unwrap(), 0, Tracking::New)
        );
        let (uid, gid) = (Uid::new(1000).unwrap(), Gid::new(1000).unwrap());
        assert_eq!(
            packet.origin,
            Origin::Process {
                uid,
                gid,
                cgroup: None,
                interface: InterfaceName::parse("eth0").unwrap()
            }
        );
    }

    #[test]
    fn a_group_goes_with_its_user_and_a_user_alone_has_a_group_of_its_number() {
        let owner = |uid: Option<&str>, gid: Option<&str>| {
            let args = PacketArgs {
                uid: uid.map(str::to_owned),
                gid: gid.map(str::to_owned),
                ..args("outbound", "tcp", "10.0.0.5:443")
            };
            match packet(&args).origin {
                Origin::Process { uid, gid, .. } => (uid.get(), gid.get()),
                Origin::Interface(_) => unreachable!(),
            }
        };
        assert_eq!(owner(Some("1337"), None), (1337, 1337));
        assert_eq!(owner(None, Some("1337")), (1000, 1337));
        assert_eq!(owner(Some("0"), Some("1337")), (0, 1337));
    }

    #[test]
    fn a_port_alone_is_the_pods_in_the_family_of_the_source() {
        let inbound = args("inbound", "tcp", ":8080");
        assert_eq!(packet(&inbound).destination, "10.1.0.7".parse::<IpAddr>().unwrap());
        assert_eq!(packet(&inbound).source, IpAddr::from(DEFAULT_CLIENT_V4));
        let from = PacketArgs {
            source: Some("2001:db8::9".to_owned()),
            ..inbound
        };
        assert_eq!(packet(&from).destination, "2001:db8:1::7".parse::<IpAddr>().unwrap());
    }

    #[test]
    fn a_call_of_the_pod_itself_comes_from_the_address_that_is_called() {
        assert_eq!(
            packet(&args("outbound", "udp", "[2001:db8:1::7]:53")).source,
            "2001:db8:1::7".parse::<IpAddr>().unwrap()
        );
        assert_eq!(
            packet(&args("outbound", "tcp", "127.0.0.9:80")).source,
            IpAddr::from(Ipv4Addr::LOCALHOST)
        );
        assert_eq!(
            packet(&args("outbound", "tcp", "[::1]:80")).source,
            IpAddr::from(Ipv6Addr::LOCALHOST)
        );
    }

    #[test]
    fn all_mistakes_are_reported_at_once() {
        let args = PacketArgs {
            source: Some("here".to_owned()),
            uid: Some("1-5".to_owned()),
            gid: Some("-1".to_owned()),
            mark: Some("0xg".to_owned()),
            interface: Some("eth 0".to_owned()),
            connection_state: Some("open".to_owned()),
            ..args("out", "icmp", "10.0.0.5")
        };
        let mistakes = parse(&args, &NoAccounts).unwrap_err();
        let told: Vec<String> = mistakes.iter().map(ToString::to_string).collect();
        let names = [
            "DIRECTION",
            "PROTOCOL",
            "DESTINATION",
            "--source",
            "--uid",
            "--gid",
            "--mark",
            "--interface",
            "--connection-state",
        ];
        assert_eq!(told.len(), names.len(), "{told:#?}");
        for (told, name) in told.iter().zip(names) {
            assert!(told.starts_with(&format!("{name}: ")), "{told}");
        }
    }

    #[test]
    fn contradicting_arguments_are_refused() {
        let inbound = PacketArgs {
            uid: Some("1".to_owned()),
            ..args("inbound", "tcp", ":80")
        };
        let families = PacketArgs {
            source: Some("::1".to_owned()),
            ..args("outbound", "tcp", "10.0.0.5:80")
        };
        for args in [inbound, families] {
            let mistakes = parse(&args, &NoAccounts).unwrap_err();
            assert!(
                matches!(mistakes.as_slice(), [Mistake::Contradiction(_)]),
                "{mistakes:?}"
            );
        }
    }

    #[test]
    fn missing_pod_address_is_an_error() {
        let v4_alone = Pod {
            addresses: pod().addresses[..1].to_vec(),
            local_marks: Vec::new(),
            route_localnet: Vec::new(),
        };
        for args in [
            args("outbound", "tcp", "[2001:db8::5]:443"),
            PacketArgs {
                source: Some("2001:db8::9".to_owned()),
                ..args("inbound", "tcp", ":8080")
            },
        ] {
            let mistake = parse(&args, &NoAccounts).unwrap().packet(&v4_alone).unwrap_err();
            assert!(mistake.to_string().contains("--pod-ip"), "{mistake}");
        }
    }
}
