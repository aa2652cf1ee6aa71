//! Calls: the caller of a connection, its destination and its outcome.

use std::io;
use std::net::SocketAddr;

use sidetrack::types::Family;

use super::{Address, Arrival, Netns, Owner, Pod, http, socket};

/// The caller.
#[derive(Clone, Copy, Debug)]
pub enum Caller {
    /// The application in the pod.
    App,
    /// Root in the pod.
    Root,
    /// The proxy, as it runs unless options say otherwise.
    Proxy,
    /// A process of this user and this group in the pod.
    Process(u32, u32),
    /// A process in the pod with such sockets.
    Sender(Owner),
    /// The proxy as it passes an inbound connection on.
    Passthrough(Owner),
    /// The neighbour, from eth0.
    Peer,
    /// The neighbour, from eth1.
    PeerSecond,
    /// A host of another network.
    Far,
}

impl Caller {
    fn owner(self) -> Owner {
        match self {
            Self::App => Owner::APP,
            Self::Proxy => Owner::PROXY,
            Self::Process(uid, gid) => Owner::new(uid, gid),
            Self::Sender(owner) | Self::Passthrough(owner) => owner,
            Self::Root | Self::Peer | Self::PeerSecond | Self::Far => Owner::ROOT,
        }
    }

    /// Does `work` where the caller is, as the caller.
    pub fn run<T: Send>(self, pod: &Pod, work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
        self.netns(pod).run(|| {
            self.owner().assume()?;
            work()
        })
    }

    fn netns(self, pod: &Pod) -> &Netns {
        match self {
            Self::App | Self::Root | Self::Proxy | Self::Process(..) | Self::Sender(_) | Self::Passthrough(_) => {
                &pod.netns
            }
            Self::Peer | Self::PeerSecond | Self::Far => &pod.peer,
        }
    }

    /// The address that the socket is bound to; the kernel chooses for the others.
    pub fn source(self, family: Family) -> Option<SocketAddr> {
        let address = match self {
            Self::App | Self::Root | Self::Proxy | Self::Process(..) | Self::Sender(_) => return None,
            Self::Passthrough(_) => Address::PASSTHROUGH,
            Self::Peer => Address::PEER,
            Self::PeerSecond => Address::PEER_SECOND,
            Self::Far => Address::FAR,
        };
        Some((address.of(family), 0).into())
    }
}

/// The called host and port.
#[derive(Clone, Copy, Debug)]
pub enum To {
    /// The pod, by its address.
    Pod(u16),
    /// The pod, by the address of its second interface.
    PodSecond(u16),
    /// The caller's own host, by loopback.
    Loopback(u16),
    /// The caller's own host, by 127.0.0.2: IPv6 has no second loopback address.
    Loopback2(u16),
    /// The neighbour, over eth0.
    Peer(u16),
    /// The neighbour, over eth1.
    PeerSecond(u16),
    /// A host of another network.
    Far(u16),
}

impl To {
    /// The address and port in a family, unless it has none.
    pub fn address(self, family: Family) -> Option<SocketAddr> {
        let address = match self {
            Self::Pod(_) => Address::POD.of(family),
            Self::PodSecond(_) => Address::POD_SECOND.of(family),
            Self::Loopback(_) => Address::LOOPBACK.of(family),
            Self::Loopback2(_) if family == Family::V6 => return None,
            Self::Loopback2(_) => [127, 0, 0, 2].into(),
            Self::Peer(_) => Address::PEER.of(family),
            Self::PeerSecond(_) => Address::PEER_SECOND.of(family),
            Self::Far(_) => Address::FAR.of(family),
        };
        Some((address, self.port()).into())
    }

    /// The port.
    pub fn port(self) -> u16 {
        match self {
            Self::Pod(port)
            | Self::PodSecond(port)
            | Self::Loopback(port)
            | Self::Loopback2(port)
            | Self::Peer(port)
            | Self::PeerSecond(port)
            | Self::Far(port) => port,
        }
    }

    /// Whether this is the pod, for a caller in the pod.
    pub fn is_pod(self) -> bool {
        match self {
            Self::Pod(_) | Self::PodSecond(_) | Self::Loopback(_) | Self::Loopback2(_) => true,
            Self::Peer(_) | Self::PeerSecond(_) | Self::Far(_) => false,
        }
    }
}

/// How a call is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    Tcp,
    Udp,
}

/// The outcome of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// The caller's own address and port.
    pub local: SocketAddr,
    /// The server's observation, unless the connection ended without an answer.
    pub arrival: Option<Arrival>,
}

/// Makes a call, and returns once it was answered.
///
/// # Errors
/// The connection was refused, lost, or could not be tried.
pub fn call(pod: &Pod, transport: Transport, caller: Caller, to: To, family: Family) -> io::Result<Call> {
    let to = to
        .address(family)
        .ok_or_else(|| io::Error::other(format!("{to:?} has no {family} address")))?;
    caller.run(pod, || call_from(transport, caller.source(family), to))
}

/// Makes a call as the calling thread.
///
/// # Errors
/// The connection was refused, lost, or could not be tried.
pub fn call_from(transport: Transport, source: Option<SocketAddr>, to: SocketAddr) -> io::Result<Call> {
    let (local, answer) = match transport {
        Transport::Tcp => {
            let stream = socket::stream(source, to)?;
            (stream.local_addr()?, http::get(stream, "/")?)
        }
        Transport::Udp => ask(&socket::sender(source, to)?)?,
    };
    let arrival = (!answer.is_empty()).then(|| answer.parse()).transpose()?;
    Ok(Call { local, arrival })
}

fn ask(sender: &std::net::UdpSocket) -> io::Result<(SocketAddr, String)> {
    sender.send(b"?")?;
    let mut answer = [0; 256];
    let length = sender.recv(&mut answer)?;
    Ok((
        sender.local_addr()?,
        String::from_utf8_lossy(&answer[..length]).into_owned(),
    ))
}
