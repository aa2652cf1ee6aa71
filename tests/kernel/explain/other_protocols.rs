//! Packets of ICMP, ICMPv6 and raw protocols, with and without a lock: the simulator and the kernel agree where each
//! lands, on every backend.

use std::collections::BTreeSet;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, SockaddrStorage, recv, sendto};
use nix::unistd::{Gid, Uid, setfsgid, setfsuid};
use sidetrack::ruleset::Tracking;
use sidetrack::ruleset::netfilter::Netfilter;
use sidetrack::simulate::{End, Origin, Packet, simulate};
use sidetrack::types::{Family, Id as _, InterfaceName, IpProtocol};

use super::against_kernel::pod;
use crate::common::{Address, Netns, Pod};
use crate::plans::plan;
use crate::program::{BACKENDS, apply};

/// GRE, and a number for experiments (RFC 3692).
const RAW: [IpProtocol; 2] = [IpProtocol::new(47), IpProtocol::new(253)];
/// An application, the proxy, and a user that some options exclude.
const USERS: [u32; 3] = [1000, 1337, 7];

const LOCK: [&str; 2] = ["--outbound-policy", "proxy-only"];

/// A packet that a user of the pod, or the neighbour, sends to an address.
#[derive(Clone, Debug)]
struct Sent {
    protocol: IpProtocol,
    by: Option<u32>,
    to: IpAddr,
}

/// The fate of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fate {
    Left,
    ArrivedInPod,
    Rejected,
}

impl Sent {
    /// Every packet that is sent through the same rules.
    fn all() -> Vec<Self> {
        let mut all = Vec::new();
        for family in Family::BOTH {
            let icmp = match family {
                Family::V4 => IpProtocol::ICMP,
                Family::V6 => IpProtocol::ICMPV6,
            };
            for protocol in [icmp].into_iter().chain(RAW) {
                let sent = |by, to: Address| Self {
                    protocol,
                    by,
                    to: to.of(family),
                };
                for uid in USERS {
                    all.push(sent(Some(uid), Address::PEER));
                    all.push(sent(Some(uid), Address::POD));
                }
                // Without ports, connection tracking would take it for an answer to the others.
                all.push(sent(None, Address::POD_SECOND));
            }
        }
        all
    }

    fn packet(&self) -> Packet {
        let family = Family::of(self.to);
        let interface = |name| InterfaceName::parse(name).expect("a name");
        let id = |uid: u32| (sidetrack::types::Uid::new(uid), sidetrack::types::Gid::new(1000));
        let (origin, source) = match self.by.map(id) {
            Some((uid, gid)) => (
                Origin::Process {
                    uid: uid.expect("a user"),
                    gid: gid.expect("a group"),
                    cgroup: None,
                    interface: interface("eth0"),
                },
                Address::POD,
            ),
            None => (Origin::Interface(interface("eth1")), Address::PEER_SECOND),
        };
        Packet {
            origin,
            protocol: self.protocol,
            source: source.of(family),
            source_port: None,
            destination: self.to,
            destination_port: None,
            mark: 0,
            tracking: Tracking::New,
        }
    }

    /// Sends it with this number, in the network namespace of this thread.
    fn send(&self, number: u8) -> io::Result<()> {
        let socket = owned_by(self.by.unwrap_or(0), || raw(Family::of(self.to), self.protocol))?;
        let to = SockaddrStorage::from(SocketAddr::new(self.to, 0));
        sendto(
            socket.as_raw_fd(),
            &message(self.protocol, number),
            &to,
            MsgFlags::empty(),
        )?;
        Ok(())
    }
}

/// An echo request, or a message that no protocol knows.
fn message(protocol: IpProtocol, number: u8) -> Vec<u8> {
    let kind = match protocol {
        IpProtocol::ICMPV6 => 128,
        _ => 8,
    };
    let mut message = vec![kind, 0, 0, 0, 0, number, 0, 1];
    let sum: u32 = message
        .chunks(2)
        .map(|word| u32::from(word[0]) << 8 | u32::from(word[1]))
        .sum();
    message[2..4].copy_from_slice(&(!(sum as u16)).to_be_bytes());
    message
}

/// The number of a message that a raw socket received; IPv4 ones come with the header of IP.
fn number(family: Family, protocol: IpProtocol, packet: &[u8]) -> Option<u8> {
    let begin = match family {
        Family::V4 => usize::from(packet.first()? & 0x0f) * 4,
        Family::V6 => 0,
    };
    let found = packet.get(begin..)?.first_chunk::<8>()?;
    (found[0] == message(protocol, 0)[0]).then_some(found[5])
}

#[expect(unsafe_code, reason = "nix does not know every protocol")]
fn raw(family: Family, protocol: IpProtocol) -> io::Result<OwnedFd> {
    let domain = match family {
        Family::V4 => libc::AF_INET,
        Family::V6 => libc::AF_INET6,
    };
    let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: the call takes no pointer.
    let descriptor = Errno::result(unsafe { libc::socket(domain, kind, protocol.get().into()) })?;
    // SAFETY: the descriptor is new, with no other owner.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// Does `work` as this user, with all capabilities: the owner of a socket is the one for files.
fn owned_by<T>(uid: u32, work: impl FnOnce() -> T) -> T {
    setfsgid(Gid::from_raw(1000));
    setfsuid(Uid::from_raw(uid));
    let result = work();
    setfsuid(Uid::from_raw(0));
    setfsgid(Gid::from_raw(0));
    result
}

/// What raw sockets of a namespace receive.
struct Receiver(Vec<(Family, IpProtocol, OwnedFd)>);

impl Receiver {
    fn new(netns: &Netns) -> Self {
        netns.run(|| {
            let protocols = [IpProtocol::ICMP, IpProtocol::ICMPV6].into_iter().chain(RAW);
            let sockets = protocols.flat_map(|protocol| Family::BOTH.map(|family| (family, protocol)));
            let open = |(family, protocol)| (family, protocol, raw(family, protocol).expect("a raw socket"));
            Self(sockets.map(open).collect())
        })
    }

    fn numbers(&self) -> BTreeSet<u8> {
        let mut numbers = BTreeSet::new();
        for (family, protocol, socket) in &self.0 {
            let mut buffer = [0; 128];
            while let Ok(length) = recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
                numbers.extend(number(*family, *protocol, &buffer[..length]));
            }
        }
        numbers
    }
}

/// Sends all packets, and returns the fate of each.
fn fates(lab: &Pod, sent: &[Sent]) -> Vec<Option<Fate>> {
    let (inside, outside) = (Receiver::new(&lab.netns), Receiver::new(&lab.peer));
    let send = |netns: &Netns, of_pod: bool| {
        netns.run(|| {
            let numbered = (0..).zip(sent).filter(|(_, one)| one.by.is_some() == of_pod);
            let results = numbered.map(|(number, one)| (number, one.send(number)));
            results.collect::<Vec<(u8, io::Result<()>)>>()
        })
    };
    let mut results = send(&lab.netns, true);
    results.extend(send(&lab.peer, false));
    // What was sent before this connection has arrived when it is refused.
    lab.peer.run(|| {
        for to in Address::POD_SECOND.both() {
            let refused = TcpStream::connect((to, 15020)).map_err(|error| error.kind());
            assert_eq!(refused.err(), Some(ErrorKind::ConnectionRefused), "{to}");
        }
    });
    let is_rejected = |number: &u8| {
        let mut results = results.iter().filter(|(other, _)| other == number);
        results.any(|(_, result)| matches!(result, Err(error) if error.raw_os_error() == Some(libc::EPERM)))
    };
    // The first packet to a neighbour waits until it is known.
    let (mut left, mut arrived) = (BTreeSet::new(), BTreeSet::new());
    let deadline = Instant::now() + Duration::from_secs(60);
    let of_pod = |number: &u8| sent[usize::from(*number)].by.is_some();
    loop {
        left.extend(outside.numbers());
        arrived.extend(inside.numbers());
        let numbers = 0..u8::try_from(sent.len()).expect("few packets");
        let is_missing =
            |number: &u8| of_pod(number) && !is_rejected(number) && !left.contains(number) && !arrived.contains(number);
        if !numbers.into_iter().any(|number| is_missing(&number)) || Instant::now() > deadline {
            break;
        }
        thread::sleep(Duration::from_millis(5));
    }
    let fate = |number: u8| match (left.contains(&number), arrived.contains(&number)) {
        (true, false) => Some(Fate::Left),
        (false, true) => Some(Fate::ArrivedInPod),
        (true, true) => None,
        // The neighbour gets no error on a raw socket that is not connected.
        (false, false) if is_rejected(&number) || !of_pod(&number) => Some(Fate::Rejected),
        (false, false) => None,
    };
    (0..).take(sent.len()).map(fate).collect()
}

#[test]
fn other_protocols_go_where_they_are_explained_to_go() {
    let with_lock = |more: &[&'static str]| [&LOCK[..], more].concat();
    let cases = [
        vec![],
        with_lock(&[]),
        with_lock(&[
            "--ip-family",
            "ipv4",
            "--exclude-uids",
            "7",
            "--inbound-policy",
            "proxy-only",
        ]),
        with_lock(&["--exclude-outbound-cidrs", "10.99.0.0/24,fd99::/64"]),
        with_lock(&["--exclude-interfaces", "eth0"]),
    ];
    let (lab, sent) = (Pod::new(), Sent::all());
    let mut seen = BTreeSet::new();
    for options in cases {
        let plan = plan(&options);
        let pod = pod(&plan);
        let rules = Netfilter::from(plan.ruleset);
        let explained = sent.iter().map(|one| {
            let path = simulate(&rules, &pod, &one.packet()).expect("an end");
            assert!(path.certain, "{options:?}: {one:?}: {:?}", path.doubts);
            Some(match path.end {
                End::Sent { .. } => Fate::Left,
                End::Delivered(_) => Fate::ArrivedInPod,
                End::Rejected => Fate::Rejected,
                other => panic!("{options:?}: {one:?}: {other:?}"),
            })
        });
        let explained: Vec<Option<Fate>> = explained.collect();
        seen.extend(explained.iter().flatten().copied());
        for backend in BACKENDS {
            apply(&lab.netns, backend, &options);
            let fates = fates(&lab, &sent);
            for ((one, fate), explained) in sent.iter().zip(fates).zip(&explained) {
                assert_eq!(fate, *explained, "{backend} {options:?}: {one:?}");
            }
        }
    }
    assert_eq!(seen.len(), 3, "the packets are of little use: {seen:?}");
}
