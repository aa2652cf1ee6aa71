//! One connection, or one name lookup: how it is begun, and what can be told of it from its own end.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::{SockType, SockaddrStorage, bind, connect, setsockopt, sockopt};

use super::link::Link;
use super::listeners::Listeners;
use super::lookup;
use super::owner::made_as;
use super::socket::{open, reset_on_close};
use crate::linux::sock_diag::is_transparent;
use crate::linux::socket_options;
use crate::linux::tcp::Connection;

use crate::probe::{Caller, Expected, Finding, Needs, Original, Outcome, Probe, Trial};
use crate::ruleset::Protocol;
use crate::types::{Family, Port};

/// How often in a row something must look the same until it is taken for certain: sockets are listed before they can be
/// accepted.
const CERTAIN: u32 = 4;

/// How long an answer is waited for before a name server is asked again.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// A probe that is being made.
pub struct Attempt<'t> {
    /// The probe.
    pub probe: &'t Probe,
    /// What became of it, once that is known.
    pub outcome: Option<Outcome>,
    client: Option<Client>,
    /// Where it comes from: unlike any other.
    local: Option<SocketAddr>,
    /// The address in the pod that a lookup arrived at.
    answered_at: Option<SocketAddr>,
    asked: Instant,
    seen: u32,
}

enum Client {
    Tcp(TcpStream),
    Udp(UdpSocket),
}

/// What is known of the whole run.
pub struct Circumstances<'a> {
    /// What is to be proved.
    pub trial: &'a Trial,
    /// The link, or why there is none.
    pub link: Result<&'a Link, &'a str>,
    /// Where it is listened.
    pub listeners: &'a Listeners,
}

impl<'t> Attempt<'t> {
    /// Begins a probe.
    pub fn begin(probe: &'t Probe, circumstances: &Circumstances) -> Self {
        let mut attempt = Self {
            probe,
            outcome: None,
            client: None,
            local: None,
            answered_at: None,
            asked: Instant::now(),
            seen: 0,
        };
        match start(probe, circumstances) {
            Ok((client, local)) => {
                attempt.client = Some(client);
                attempt.local = Some(local);
            }
            Err(outcome) => attempt.outcome = Some(outcome),
        }
        attempt
    }

    /// Whether a connection or a lookup from `client` is this one.
    pub fn is_from(&self, protocol: Protocol, client: SocketAddr) -> bool {
        self.probe.protocol == protocol && self.local == Some(client)
    }

    /// Says what became of it, unless that is known already.
    pub fn found(&mut self, finding: Finding) {
        self.outcome.get_or_insert(Outcome::Found(finding));
    }

    /// A lookup has arrived here in the proxy's place, and was answered.
    pub fn was_answered(&mut self, at: SocketAddr) {
        self.answered_at = Some(at);
    }

    /// What to wait for: the end of connecting, or an answer.
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        match &self.client {
            _ if self.outcome.is_some() => None,
            Some(Client::Tcp(stream)) => (!self.is_connected()).then(|| stream.as_fd()),
            Some(Client::Udp(socket)) => Some(socket.as_fd()),
            None => None,
        }
    }

    /// Whether it is connected and it is not known yet with whom.
    pub fn is_open(&self) -> bool {
        self.outcome.is_none() && self.is_connected()
    }

    fn is_connected(&self) -> bool {
        matches!(&self.client, Some(Client::Tcp(stream)) if stream.peer_addr().is_ok())
    }

    /// When to look at it again though nothing happens.
    pub fn next_look(&self) -> Option<Instant> {
        let asks = self.outcome.is_none() && matches!(self.client, Some(Client::Udp(_)));
        asks.then(|| self.asked + ASK_AGAIN)
    }

    /// Looks what has become of it. `connections` are those that the pod has sockets for.
    pub fn look(&mut self, circumstances: &Circumstances, connections: &io::Result<Vec<Connection>>) {
        if self.outcome.is_some() {
            return;
        }
        let outcome = match &self.client {
            Some(Client::Tcp(_)) => self.look_at_connection(circumstances, connections),
            Some(Client::Udp(socket)) => {
                if self.asked.elapsed() >= ASK_AGAIN {
                    self.asked = Instant::now();
                    // Whatever is wrong shows when the answer is read.
                    let _ = socket.send(&lookup::query());
                }
                self.look_for_answer(socket)
            }
            None => None,
        };
        self.outcome = outcome;
    }

    fn look_at_connection(
        &mut self,
        circumstances: &Circumstances,
        connections: &io::Result<Vec<Connection>>,
    ) -> Option<Outcome> {
        let Some(Client::Tcp(stream)) = &self.client else {
            return None;
        };
        if let Ok(Some(error)) | Err(error) = stream.take_error() {
            return Some(Outcome::Found(self.by_error(&error, circumstances)));
        }
        if !self.is_connected() {
            return None;
        }
        let connections = match connections {
            Ok(connections) => connections,
            Err(error) => {
                return Some(Outcome::NotMade(format!(
                    "where it arrived cannot be seen: /proc/thread-self/net/tcp: {error}"
                )));
            }
        };
        let arrived = connections
            .iter()
            .find(|connection| Some(connection.remote) == self.local);
        let closed = is_closed(stream);
        let listeners = circumstances.listeners;
        match arrived {
            Some(at) if at.local == self.probe.destination => self.at_destination(at, circumstances),
            // It will be accepted.
            Some(at) if listeners.holds(at.local) => None,
            Some(at) => Some(Outcome::Found(Finding::Redirected {
                at: at.local,
                original: Original::NotAsked,
            })),
            None if !self.is_certain() => None,
            None if closed => Some(Outcome::Found(self.closed(circumstances))),
            None => Some(Outcome::Found(Finding::AnsweredOutside)),
        }
    }

    /// It has its destination for its address; so it has where it was handed to a transparent socket.
    fn at_destination(&mut self, at: &Connection, circumstances: &Circumstances) -> Option<Outcome> {
        let listeners = circumstances.listeners;
        let listens = |port: &Port| listeners.proxy_listens_on(Protocol::Tcp, self.probe.family(), port.get());
        let to_proxy = circumstances.trial.transparent.filter(listens);
        let transparent = match to_proxy {
            Some(_) if self.probe.caller == Caller::Neighbour => is_transparent(at),
            _ => Some(false),
        };
        match (transparent, listeners.holds(at.local)) {
            (Some(true), _) => Some(Outcome::Found(Finding::HandedOver)),
            (Some(false), false) => Some(Outcome::Found(Finding::Direct)),
            // It will be accepted.
            (Some(false), true) => None,
            (None, _) if !self.is_certain() => None,
            (None, true) => Some(Outcome::Found(Finding::HandedOver)),
            (None, false) => Some(Outcome::NotMade(format!(
                "both the proxy and somebody else could have it, as port {} is in use, and this kernel does not tell \
                 (tcp_diag). Probe before the proxy starts",
                at.local.port()
            ))),
        }
    }

    fn is_certain(&mut self) -> bool {
        self.seen += 1;
        self.seen >= CERTAIN
    }

    fn closed(&self, circumstances: &Circumstances) -> Finding {
        let proxy_listens = match self.probe.expected {
            Expected::Captured(port) => {
                let listeners = circumstances.listeners;
                listeners.proxy_listens_on(Protocol::Tcp, self.probe.family(), port.get())
            }
            Expected::Untouched => false,
        };
        Finding::Closed { proxy_listens }
    }

    fn by_error(&self, error: &io::Error, circumstances: &Circumstances) -> Finding {
        match error.kind() {
            ErrorKind::ConnectionRefused => Finding::Refused,
            ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => self.closed(circumstances),
            ErrorKind::TimedOut => Finding::Lost,
            _ => Finding::Unreachable(error.to_string()),
        }
    }

    fn look_for_answer(&self, socket: &UdpSocket) -> Option<Outcome> {
        let mut message = [0; 512];
        let finding = match socket.recv(&mut message) {
            Ok(0) => Finding::AnsweredOutside,
            Ok(length) if !lookup::is_answer(&message[..length]) => return None,
            Ok(_) => match self.answered_at {
                Some(at) => Finding::Redirected {
                    at,
                    original: Original::NotAsked,
                },
                None if self.is_within_pod() => {
                    return Some(Outcome::NotMade(format!(
                        "{} answered, or the proxy in its place: as both are in the pod, nothing tells them apart. \
                         Probe before the proxy starts",
                        self.probe.destination.ip()
                    )));
                }
                None => Finding::AnsweredInPod,
            },
            Err(error) => match error.kind() {
                ErrorKind::WouldBlock | ErrorKind::Interrupted => return None,
                ErrorKind::ConnectionRefused => Finding::Refused,
                _ => Finding::Unreachable(error.to_string()),
            },
        };
        Some(Outcome::Found(finding))
    }

    /// Whether what is called is this host: then it is called from its own address, or it is a loopback address.
    fn is_within_pod(&self) -> bool {
        let called = self.probe.destination.ip();
        called.is_loopback() || self.local.is_some_and(|local| local.ip() == called)
    }

    /// What became of it, now that the time is up.
    pub fn end(self) -> Outcome {
        let out_of_time = match self.answered_at {
            Some(at) => Finding::Unanswered { at },
            None => Finding::Lost,
        };
        self.outcome.unwrap_or(Outcome::Found(out_of_time))
    }
}

/// Opens the socket, as whom and where the probe says, and connects it or asks. Otherwise it has come to this.
fn start(probe: &Probe, circumstances: &Circumstances) -> Result<(Client, SocketAddr), Outcome> {
    let link = link_for(probe, circumstances)?;
    if let Some((at, error)) = circumstances.listeners.failure(probe) {
        return Err(Outcome::NotMade(format!(
            "the place of the proxy, or of whom it calls, cannot be taken: listening on {at}: {error}"
        )));
    }
    let kind = match probe.protocol {
        Protocol::Tcp => SockType::Stream,
        Protocol::Udp => SockType::Datagram,
    };
    let opened = match (probe.caller, link) {
        (Caller::Neighbour, Some(link)) => {
            let opened = link.far.run(|| open(probe.destination, kind));
            opened.map_err(|error| Outcome::NotMade(error.to_string()))?
        }
        (Caller::Neighbour, None) => return Err(Outcome::NotMade("there is no link".to_owned())),
        (Caller::Process(owner), _) => made_as(owner, || open(probe.destination, kind)).map_err(|errno| {
            Outcome::NotMade(match errno {
                Errno::EPERM => {
                    format!("acting as {owner} takes CAP_SETUID and CAP_SETGID: run as root, or as that user")
                }
                errno => format!("acting as {owner}: {errno}; maybe the user namespace has no such IDs"),
            })
        })?,
    };
    let socket = opened.map_err(|errno| Outcome::NotMade(format!("opening a socket: {errno}")))?;
    prepare(&socket, probe).map_err(|errno| {
        Outcome::NotMade(match errno {
            Errno::EPERM => {
                "a client's own address as the source takes CAP_NET_ADMIN: run as root on the node, with --netns"
                    .to_owned()
            }
            errno => format!("setting a socket up: {errno}"),
        })
    })?;
    // Bound before it connects, its port is no other's, so that it is known by it.
    let any: IpAddr = match probe.family() {
        Family::V4 => Ipv4Addr::UNSPECIFIED.into(),
        Family::V6 => Ipv6Addr::UNSPECIFIED.into(),
    };
    let address = probe.source.map_or(any, |source| source.address);
    bind(socket.as_raw_fd(), &SockaddrStorage::from(SocketAddr::new(address, 0)))
        .map_err(|errno| Outcome::Found(Finding::NoSource(format!("{address}: {errno}"))))?;
    let connected = match connect(socket.as_raw_fd(), &SockaddrStorage::from(probe.destination)) {
        Ok(()) | Err(Errno::EINPROGRESS) => begin(socket, probe.protocol),
        Err(errno) => Err(errno),
    };
    connected.map_err(|errno| match errno {
        Errno::ECONNREFUSED => Outcome::Found(Finding::Refused),
        Errno::ENETUNREACH | Errno::EHOSTUNREACH | Errno::EADDRNOTAVAIL
            if link.is_none() && !probe.subject.calls_pod() =>
        {
            let destination = probe.destination.ip();
            let why = circumstances.link.err().unwrap_or_default();
            Outcome::NotMade(
                format!("the pod has no route to {destination} ({errno}). {why}")
                    .trim_end()
                    .to_owned(),
            )
        }
        errno => Outcome::Found(Finding::Unreachable(errno.to_string())),
    })
}

/// The link, where it can be used.
fn link_for<'a>(probe: &Probe, circumstances: &Circumstances<'a>) -> Result<Option<&'a Link>, Outcome> {
    let usable = circumstances.link.and_then(|link| match link.unusable(probe.family()) {
        Some(reason) => Err(reason),
        None => Ok(link),
    });
    match (probe.needs, usable) {
        (Needs::Impossible(reason), _) => Err(Outcome::NotMade(reason.to_owned())),
        (Needs::Link, Err(reason)) => Err(Outcome::NotMade(reason.to_owned())),
        (Needs::Route, Err(_)) => Ok(None),
        (Needs::Route | Needs::Link, Ok(link)) => Ok(Some(link)),
    }
}

/// What all sockets of probes have in common: their packets do not get past the next host, so that nobody is bothered
/// where a rule is missing.
fn prepare(socket: &OwnedFd, probe: &Probe) -> Result<(), Errno> {
    const HOPS: libc::c_int = 1;
    match probe.family() {
        Family::V4 => setsockopt(socket, sockopt::Ipv4Ttl, &HOPS)?,
        Family::V6 => setsockopt(socket, sockopt::Ipv6Ttl, &HOPS)?,
    }
    match probe.protocol {
        Protocol::Tcp => reset_on_close(socket)?,
        Protocol::Udp => socket_options::empty_datagrams_from_other_hosts(socket)?,
    }
    if let Some(mark) = probe.source.and_then(|source| source.mark) {
        setsockopt(socket, sockopt::Mark, &mark.get())?;
        setsockopt(socket, sockopt::IpTransparent, &true)?;
    }
    Ok(())
}

fn begin(socket: OwnedFd, protocol: Protocol) -> Result<(Client, SocketAddr), Errno> {
    let errno = |error: io::Error| error.raw_os_error().map_or(Errno::EIO, Errno::from_raw);
    match protocol {
        Protocol::Tcp => {
            let stream = TcpStream::from(socket);
            let local = stream.local_addr().map_err(errno)?;
            Ok((Client::Tcp(stream), local))
        }
        Protocol::Udp => {
            let socket = UdpSocket::from(socket);
            let local = socket.local_addr().map_err(errno)?;
            socket.send(&lookup::query()).map_err(errno)?;
            Ok((Client::Udp(socket), local))
        }
    }
}

fn is_closed(stream: &TcpStream) -> bool {
    match stream.peek(&mut [0]) {
        Ok(length) => length == 0,
        Err(error) => error.kind() != ErrorKind::WouldBlock,
    }
}
