//! Sends thousands of packets and reports where each lands.
//!
//! One thread owns the sockets of all namespaces: a socket stays in the namespace, and keeps the owner, that the thread
//! had when it made it. No clock decides that a packet is lost. Packets of veth and lo wait in one queue of the current
//! processor, first in, first out, so the thread stays on one and sends itself datagrams over an unfiltered lo: once
//! enough of these have come back and nothing else has happened, all that was under way has landed.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sched::{CloneFlags, CpuSet, sched_getcpu, sched_setaffinity, setns};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockProtocol, SockType, SockaddrStorage, bind, connect, listen, setsockopt,
    socket, sockopt,
};
use nix::unistd::{Gid, Pid, Uid, setfsgid, setfsuid};
use sidetrack::ruleset::Tracking;
use sidetrack::simulate::{Origin, Packet};
use sidetrack::types::{Family, Id as _, IpProtocol, Port};

use crate::common::segment::Segment;
use crate::common::socket::original_destination;
use crate::common::{Address, Netns, Pod, output_of};
use crate::program::feed;

/// How long a link of the laboratory may take, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A packet to send.
#[derive(Clone, Debug)]
pub struct Shot {
    pub packet: Packet,
    /// Whether the source is chosen by the sender, or by the kernel.
    pub bound: bool,
    /// The mark of the packets that follow upon a first one of TCP from the pod.
    pub later_mark: u32,
}

/// The fate of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    pub landing: Landing,
    /// Whether packets that followed upon it got to where it landed; of connections that stand.
    pub followed: Option<bool>,
}

/// Where a packet landed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Landing {
    /// On this port of the pod. Of TCP also by which address of the pod, and meant for which.
    Pod(u16, Option<(SocketAddr, SocketAddr)>),
    /// At the neighbour. Of TCP also meant for which address.
    World(Option<SocketAddr>),
    /// With a TCP that refused it: what belongs to no connection lands like this, wherever that is.
    Refused,
    /// Nowhere.
    Nowhere,
}

/// How many datagrams cross the fence with nothing else happening before all is quiet: more than any exchange has hops.
const FENCES: u32 = 40;
/// The port by which the neighbour takes whatever comes, on whichever port.
const ANY: u16 = 7;
/// The ports that packets are sent from. Each is used once.
const SOURCE_PORTS: std::ops::Range<u16> = 20_000..60_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Pod,
    World,
}

/// A socket that takes what lands on a port.
struct Sink {
    place: Place,
    port: u16,
    tcp: TcpListener,
    udp: UdpSocket,
}

/// A pod and a neighbour that has every other address in the world.
pub struct Lab {
    pub pod: Pod,
    home: File,
    world: Vec<Sink>,
    /// Where the neighbour sees the segments of TCP that reach it.
    refusals: Vec<(Family, OwnedFd)>,
    fence: UdpSocket,
    next_port: u16,
}

impl Lab {
    /// Builds one. The thread stays on one processor from here on.
    pub fn new() -> Self {
        let mut here = CpuSet::new();
        here.set(sched_getcpu().expect("a processor")).expect("a processor");
        sched_setaffinity(Pid::from_raw(0), &here).expect("to stay on one processor");
        let pod = Pod::new();
        for netns in [&pod.netns, &pod.peer] {
            netns.run(|| {
                for interface in ["all", "default", "eth0", "eth1", "lo"] {
                    let path = format!("/proc/sys/net/ipv4/conf/{interface}/rp_filter");
                    fs::write(&path, "0").unwrap_or_else(|error| panic!("{path}: {error}"));
                }
            });
        }
        // Whatever arrives there is for the neighbour.
        for (family, interface) in ["-4", "-6"]
            .into_iter()
            .flat_map(|family| [(family, "eth0"), (family, "eth1")])
        {
            let rule = [
                family, "rule", "add", "priority", "10", "iif", interface, "lookup", "100",
            ];
            output_of(pod.peer.command("ip").args(rule));
        }
        pod.peer
            .ip("route add local 0.0.0.0/0 dev lo table 100\nroute add local ::/0 dev lo table 100\n");
        pod.netns.ip(POD_ROUTES);
        let one_socket = format!(
            "table inet lab {{ chain prerouting {{
                type filter hook prerouting priority -150;
                tcp flags & (syn | ack) == syn tproxy to :{ANY}
                meta l4proto udp tproxy to :{ANY}
            }}
            }}"
        );
        feed(&pod.peer, "nft", &["-f", "-"], &one_socket);
        let fence = Netns::new().run(|| {
            let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
            socket
                .connect(socket.local_addr().expect("its address"))
                .expect("to reach itself");
            socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
            socket
        });
        let mut lab = Self {
            pod,
            home: File::open("/proc/thread-self/ns/net").expect("the namespace of this thread"),
            world: Vec::new(),
            refusals: Vec::new(),
            fence,
            next_port: SOURCE_PORTS.start,
        };
        lab.world = lab.sinks(Place::World, &[ANY]);
        lab.refusals = Family::BOTH
            .map(|family| (family, lab.run(Place::World, || sniffer(family))))
            .into();
        lab.wait_for_links();
        lab
    }

    /// Carriers come up, and neighbours get known, in their own time.
    fn wait_for_links(&self) {
        for (place, address) in [
            (Place::Pod, Address::PEER),
            (Place::Pod, Address::PEER_SECOND),
            (Place::World, Address::POD),
            (Place::World, Address::POD_SECOND),
        ] {
            for address in Family::BOTH.map(|family| address.of(family)) {
                let timeout = Duration::from_millis(100);
                let answers = || match TcpStream::connect_timeout(&(address, 1).into(), timeout) {
                    Ok(_) => true,
                    Err(error) => error.kind() == ErrorKind::ConnectionRefused,
                };
                let begun = Instant::now();
                while !self.run(place, answers) {
                    assert!(begun.elapsed() < PATIENCE, "{address} does not answer");
                    thread::sleep(Duration::from_millis(1));
                }
            }
        }
        Arrivals::default().collect(&self.world);
    }

    /// Does something on this thread, in a namespace.
    fn run<T>(&self, place: Place, work: impl FnOnce() -> T) -> T {
        let netns = match place {
            Place::Pod => &self.pod.netns,
            Place::World => &self.pod.peer,
        };
        netns.enter().expect("to enter");
        let result = work();
        setns(&self.home, CloneFlags::CLONE_NEWNET).expect("to go back");
        result
    }

    /// Opens sockets for every address, on these ports.
    fn sinks(&self, place: Place, ports: &[u16]) -> Vec<Sink> {
        let open = |kind, family, port| {
            let any: IpAddr = match family {
                Family::V4 => Ipv4Addr::UNSPECIFIED.into(),
                Family::V6 => Ipv6Addr::UNSPECIFIED.into(),
            };
            let address = SocketAddr::new(any, port);
            let opened = self.run(place, || {
                let socket = new(kind, family, true)?;
                setsockopt(&socket, sockopt::ReuseAddr, &true)?;
                bind(socket.as_raw_fd(), &SockaddrStorage::from(address))?;
                Ok(socket)
            });
            opened.unwrap_or_else(|error: io::Error| panic!("{place:?} {address}: {error}"))
        };
        let sink = |port, family| {
            let tcp = open(SockType::Stream, family, port);
            listen(&tcp, Backlog::MAXCONN).expect("a listener");
            Sink {
                place,
                port,
                tcp: tcp.into(),
                udp: open(SockType::Datagram, family, port).into(),
            }
        };
        let both = |port: &u16| Family::BOTH.map(|family| sink(*port, family));
        ports.iter().flat_map(both).collect()
    }

    /// Sends packets to ports that `listening` names, and returns the fate of each. The source ports are of the
    /// laboratory's choice.
    pub fn send(&mut self, listening: &[u16], shots: &[Shot]) -> Vec<Outcome> {
        let sinks = self.sinks(Place::Pod, listening);
        let mut arrivals = Arrivals::default();
        let mut clients = Vec::new();
        for (index, shot) in shots.iter().enumerate() {
            let port = self.source_port(listening);
            arrivals.sent.insert(port, index);
            let client = match shot.packet.tracking {
                Tracking::Invalid => {
                    arrivals.unasked.insert(index);
                    self.send_unasked(&shot.packet, port).map(|()| None)
                }
                _ => self.start(shot, port).map(Some),
            };
            clients.push(client.unwrap_or_else(|error| panic!("{shot:?}: {error}")));
        }
        self.settle(shots.len(), || {
            arrivals.collect(&sinks);
            arrivals.collect(&self.world);
            arrivals.collect_refusals(&self.refusals);
            arrivals.landings.len()
        });
        for (index, stream) in arrivals.streams.iter_mut() {
            if let (Origin::Process { .. }, Some(client)) = (&shots[*index].packet.origin, &clients[*index]) {
                setsockopt(client, sockopt::Mark, &shots[*index].later_mark).expect("a mark");
                nix::unistd::write(client, b"!").expect("to write");
            }
            stream.set_nonblocking(true).expect("not to wait");
        }
        let mut followed = HashMap::new();
        self.settle(arrivals.streams.len(), || {
            for (index, stream) in &mut arrivals.streams {
                if !followed.contains_key(index) && ready(stream.read(&mut [0])).is_some_and(|length| length > 0) {
                    followed.insert(*index, true);
                }
            }
            followed.len()
        });
        for (index, _) in &arrivals.streams {
            if matches!(shots[*index].packet.origin, Origin::Process { .. }) {
                followed.entry(*index).or_insert(false);
            }
        }
        let outcome = |index| Outcome {
            landing: arrivals.landings.get(&index).copied().unwrap_or(Landing::Nowhere),
            followed: followed.get(&index).copied(),
        };
        (0..shots.len()).map(outcome).collect()
    }

    /// Counts until there are as many as there can be, or until nothing is under way any more.
    fn settle(&self, all: usize, mut count: impl FnMut() -> usize) {
        let (mut before, mut quiet) = (0, 0);
        while quiet < FENCES && before < all {
            let now = count();
            if now > before {
                quiet = 0;
            } else {
                self.fence.send(b"fence").expect("to send");
                self.fence.recv(&mut [0; 8]).expect("network progress within a minute");
                quiet += 1;
            }
            before = now;
        }
    }

    /// Sends the answer to a connection that was never opened.
    fn send_unasked(&self, packet: &Packet, port: u16) -> io::Result<()> {
        let segment = Segment {
            from: (packet.source, port).into(),
            to: packet.to(),
            flags: Segment::SYN | Segment::ACK,
            sequence: 1,
            acknowledgement: 1,
        };
        self.run(Place::World, || segment.send())
    }

    fn source_port(&mut self, listening: &[u16]) -> u16 {
        loop {
            let port = self.next_port;
            self.next_port += 1;
            assert!(SOURCE_PORTS.contains(&port), "too many packets for one laboratory");
            if !listening.contains(&port) {
                return port;
            }
        }
    }

    /// How many packets can still be sent.
    pub fn left(&self) -> usize {
        usize::from(SOURCE_PORTS.end - self.next_port)
    }

    /// Sends a packet: a datagram, or the first one of a connection. The socket keeps it going.
    fn start(&self, Shot { packet, bound, .. }: &Shot, port: u16) -> io::Result<OwnedFd> {
        let (place, owner) = match packet.origin {
            Origin::Process { uid, gid, .. } => (Place::Pod, (uid.get(), gid.get())),
            Origin::Interface(_) => (Place::World, (0, 0)),
        };
        let kind = match packet.protocol {
            IpProtocol::TCP => SockType::Stream,
            _ => SockType::Datagram,
        };
        let family = packet.family();
        let (any, to) = match family {
            Family::V4 => (IpAddr::from(Ipv4Addr::UNSPECIFIED), packet.destination),
            Family::V6 => (IpAddr::from(Ipv6Addr::UNSPECIFIED), packet.destination),
        };
        let source = SocketAddr::new(if *bound { packet.source } else { any }, port);
        let to = SocketAddr::new(to, packet.to().port());
        self.run(place, || {
            let socket = owned_by(owner, || new(kind, family, place == Place::World))?;
            if packet.mark != 0 && place == Place::Pod {
                setsockopt(&socket, sockopt::Mark, &packet.mark)?;
            }
            if kind == SockType::Stream {
                // So that closing it leaves nothing behind.
                let reset = libc::linger {
                    l_onoff: 1,
                    l_linger: 0,
                };
                setsockopt(&socket, sockopt::Linger, &reset)?;
            }
            bind(socket.as_raw_fd(), &SockaddrStorage::from(source))?;
            match connect(socket.as_raw_fd(), &SockaddrStorage::from(to)) {
                // A rule may drop or refuse the packet at once.
                Ok(()) | Err(Errno::EINPROGRESS | Errno::EPERM | Errno::ECONNREFUSED) => {}
                Err(errno) => return Err(errno.into()),
            }
            if kind == SockType::Datagram {
                match nix::unistd::write(&socket, b"?") {
                    Ok(_) | Err(Errno::EPERM) => {}
                    Err(errno) => return Err(errno.into()),
                }
            }
            Ok(socket)
        })
    }
}

/// Some of the world is reached by the second interface: see [`interface_to`].
const POD_ROUTES: &str = "
    route add 198.18.0.0/15 via 10.99.1.1
    route add 2001:db8:f::/48 via fd99:1::1
";

/// The interface by which the pod reaches an address that is not its own.
pub fn interface_to(address: IpAddr) -> &'static str {
    let second = ["198.18.0.0/15", "10.99.1.0/24", "2001:db8:f::/48", "fd99:1::/64"];
    let behind = |network: &str| network.parse::<ipnet::IpNet>().expect("a network").contains(&address);
    if second.into_iter().any(behind) { "eth1" } else { "eth0" }
}

/// A socket that does not block; a transparent one may have addresses that are not this host's.
fn new(kind: SockType, family: Family, transparent: bool) -> io::Result<OwnedFd> {
    let domain = match family {
        Family::V4 => AddressFamily::Inet,
        Family::V6 => AddressFamily::Inet6,
    };
    let socket = socket(domain, kind, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, None)?;
    if family == Family::V6 {
        setsockopt(&socket, sockopt::Ipv6V6Only, &true)?;
    }
    setsockopt(&socket, sockopt::IpTransparent, &transparent)?;
    Ok(socket)
}

fn sniffer(family: Family) -> OwnedFd {
    let domain = match family {
        Family::V4 => AddressFamily::Inet,
        Family::V6 => AddressFamily::Inet6,
    };
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    socket(domain, SockType::Raw, flags, SockProtocol::Tcp).expect("a raw socket")
}

/// Does `work` on files that belong to this user and group.
fn owned_by<T>((uid, gid): (u32, u32), work: impl FnOnce() -> T) -> T {
    setfsgid(Gid::from_raw(gid));
    setfsuid(Uid::from_raw(uid));
    let result = work();
    setfsuid(Uid::from_raw(0));
    setfsgid(Gid::from_raw(0));
    result
}

/// What has landed so far. Packets are known by the ports that they come from.
#[derive(Default)]
struct Arrivals {
    sent: HashMap<u16, usize>,
    landings: HashMap<usize, Landing>,
    /// The connections.
    streams: Vec<(usize, TcpStream)>,
    /// Packets that belong to no connection.
    unasked: HashSet<usize>,
}

impl Arrivals {
    fn landed(&mut self, port: u16, landing: Landing) -> Option<usize> {
        let index = *self.sent.get(&port)?;
        let before = self.landings.insert(index, landing);
        assert!(
            before.is_none_or(|before| before == landing),
            "one packet: {before:?} and {landing:?}"
        );
        Some(index)
    }

    fn collect(&mut self, sinks: &[Sink]) {
        for sink in sinks {
            while let Some((stream, from)) = ready(sink.tcp.accept()) {
                let local = stream.local_addr().expect("an address");
                let landing = match sink.place {
                    Place::Pod => {
                        let original = original_destination(&stream).expect("an address");
                        Landing::Pod(sink.port, Some((local, original)))
                    }
                    Place::World => Landing::World(Some(local)),
                };
                let index = self.landed(from.port(), landing);
                self.streams.extend(index.map(|index| (index, stream)));
            }
            while let Some((_, from)) = ready(sink.udp.recv_from(&mut [0; 8])) {
                self.landed(
                    from.port(),
                    match sink.place {
                        Place::Pod => Landing::Pod(sink.port, None),
                        Place::World => Landing::World(None),
                    },
                );
            }
        }
    }

    /// Reads the TCP segments that reach the neighbour; IPv4 ones come with the header of IP.
    fn collect_refusals(&mut self, sniffers: &[(Family, OwnedFd)]) {
        const RST: u8 = 0x04;
        for (family, sniffer) in sniffers {
            let mut segment = [0; 128];
            while let Some(length) = ready(nix::unistd::read(sniffer, &mut segment).map_err(io::Error::from)) {
                let begin = match family {
                    Family::V4 => usize::from(segment[0] & 0x0f) * 4,
                    Family::V6 => 0,
                };
                if let Some([_, _, high, low, .., flags]) = segment[..length].get(begin..begin + 14)
                    && flags & RST != 0
                {
                    let port = u16::from_be_bytes([*high, *low]);
                    let is_unasked = |index: &usize| self.unasked.contains(index);
                    if self.sent.get(&port).is_some_and(is_unasked) {
                        self.landed(port, Landing::Refused);
                    }
                }
            }
        }
    }
}

fn ready<T>(result: io::Result<T>) -> Option<T> {
    match result {
        Ok(taken) => Some(taken),
        Err(error) if error.kind() == ErrorKind::WouldBlock => None,
        Err(error) => panic!("{error}"),
    }
}

/// A port that can be sent to: not one of those that packets are sent from.
pub fn is_usable(port: Port) -> bool {
    port.get() != ANY && !SOURCE_PORTS.contains(&port.get())
}
