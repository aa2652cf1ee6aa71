//! One connection, name lookup or packet: its start, and its result as far as its own end shows it.

pub mod tracked;

use std::io::{self, ErrorKind};
use std::net::{Shutdown, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;

use self::tracked::{CLOSED_AT_ONCE, half_closed};
use super::echo::Echo;
use super::forwarded::{Neighbours, Trace, Watched};
use super::invalid::InvalidPacket;
use super::link::Link;
use super::listeners::Listeners;
use super::lookup;
use super::start::{NotStarted, Started, start};
use crate::linux::sock_diag::is_transparent;
use crate::linux::tcp::Connection;
use crate::probe::{Caller, Expected, Finding, Original, Outcome, Probe, Subject, Transport, Trial};
use crate::ruleset::Protocol;
use crate::types::Port;

/// The number of equal observations in a row that decide: the kernel lists a connection before it can be accepted.
const DECISIVE_OBSERVATIONS: u32 = 4;

/// The time that a listener may take to accept an open connection: the kernel repeats a SYN/ACK after a second.
const ACCEPT_TIMEOUT: Duration = Duration::from_secs(2);

/// The time until a query without an answer is repeated.
const QUERY_INTERVAL: Duration = Duration::from_secs(1);

/// The time until a packet is repeated that the kernel did not reject. It sends some fifty errors at once, and makes up for
/// them within that time (`icmp_msgs_burst`, Documentation/networking/ip-sysctl.rst).
const REJECTION_INTERVAL: Duration = Duration::from_millis(100);

/// A running probe.
pub struct Attempt<'t> {
    /// The probe.
    pub probe: &'t Probe,
    /// The ID of its DNS query.
    id: u16,
    /// Its outcome, once known.
    pub outcome: Option<Outcome>,
    /// A note why the probe proves nothing here, so that it has no place in the report.
    pub left_out: Option<String>,
    client: Option<Client>,
    /// The client's address, which no other probe has.
    local: Option<SocketAddr>,
    /// The address in the pod at which a lookup arrived.
    answered_at: Option<SocketAddr>,
    /// The finding of the arrival of a connection that the client has half-closed.
    arrived: Option<Finding>,
    /// Whether its sender got the error of a rejection. What arrives nevertheless shows soon.
    is_rejected: bool,
    /// Keeps the client's port from another host whose address the client has.
    reserved: Option<OwnedFd>,
    last_query: Instant,
    observations: u32,
    /// Since when the connection is open, if no known socket has accepted it.
    open_since: Option<Instant>,
    /// Whether answers to its packets come back by the link.
    is_answered: bool,
    /// The neighbours that show whether the pod forwards its packet, if it must not.
    watched: Option<Watched>,
}

/// The client's end of a probe.
pub enum Client {
    /// A TCP socket, connected or connecting.
    Tcp(TcpStream),
    /// A UDP socket that has sent its query.
    Udp(UdpSocket),
    /// A socket that has sent an echo request.
    Echo(Echo),
    /// The sockets that sent an invalid packet.
    Packet(InvalidPacket),
}

/// The context of all probes of a run.
pub struct Circumstances<'a> {
    /// The probes.
    pub trial: &'a Trial,
    /// The link, or why there is none.
    pub link: Result<&'a Link, &'a str>,
    /// The listening sockets.
    pub listeners: &'a Listeners,
}

impl<'t> Attempt<'t> {
    /// Starts a probe. The ID is that of its DNS query, if it sends one, and of no other's.
    pub fn start(probe: &'t Probe, id: u16, circumstances: &Circumstances<'t>) -> Self {
        let mut attempt = Self {
            probe,
            id,
            outcome: None,
            left_out: None,
            client: None,
            local: None,
            answered_at: None,
            arrived: None,
            is_rejected: false,
            reserved: None,
            last_query: Instant::now(),
            observations: 0,
            open_since: None,
            is_answered: circumstances
                .trial
                .entry_of(probe)
                .is_none_or(|entry| entry.is_answered),
            watched: Watched::of(probe, circumstances.trial),
        };
        match start(probe, id, circumstances) {
            Ok(Started {
                client,
                local,
                is_rejected,
                reserved,
            }) => {
                attempt.client = Some(client);
                attempt.reserved = reserved;
                attempt.local = local;
                if is_rejected {
                    attempt.record(Finding::Rejected);
                }
            }
            Err(NotStarted::Ended(outcome)) => attempt.outcome = Some(outcome),
            Err(NotStarted::LeftOut(note)) => attempt.leave_out(note),
        }
        attempt
    }

    /// Whether `client` is the TCP client of this probe.
    pub fn is_from(&self, client: SocketAddr) -> bool {
        self.probe.protocol == Transport::Tcp && self.local == Some(client)
    }

    /// Whether the DNS query with this ID is that of this probe.
    pub fn is_query(&self, id: u16) -> bool {
        self.probe.protocol == Transport::Udp && self.id == id
    }

    /// Records the finding, unless there is an outcome already. A connection that arrived where it is expected, and that
    /// conntrack must remember, is half-closed now.
    pub fn record(&mut self, finding: Finding) {
        if (self.probe.expected, &finding) == (Expected::Rejected, &Finding::Rejected) {
            self.is_rejected = true;
            return;
        }
        let Expected::Remembered { port, .. } = self.probe.expected else {
            self.outcome.get_or_insert(Outcome::Found(finding));
            return;
        };
        let is_at_proxy = match &finding {
            Finding::Redirected { at, .. } => at.port() == port.get(),
            Finding::HandedOver => true,
            _ => false,
        };
        match (&self.client, finding) {
            (Some(Client::Tcp(stream)), finding) if is_at_proxy => {
                if self.arrived.is_none() {
                    // An error shows in the state of the entry.
                    let _ = stream.shutdown(Shutdown::Write);
                    self.arrived = Some(finding);
                }
            }
            (_, Finding::Closed { proxy_listens: true }) => self.leave_out(half_closed(CLOSED_AT_ONCE)),
            (_, finding) => {
                self.outcome.get_or_insert(Outcome::Found(finding));
            }
        }
    }

    fn leave_out(&mut self, note: String) {
        self.left_out = Some(note);
        self.outcome = Some(Outcome::NotMade(String::new()));
    }

    /// Records that a listener in place of the proxy answered the lookup.
    pub fn record_answer(&mut self, at: SocketAddr) {
        self.answered_at = Some(at);
    }

    /// The socket to wait for: until it is connected, or has an answer.
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        match &self.client {
            _ if self.outcome.is_some() => None,
            Some(Client::Tcp(stream)) => (!self.is_connected()).then(|| stream.as_fd()),
            Some(Client::Udp(socket)) => Some(socket.as_fd()),
            Some(Client::Echo(echo)) => Some(echo.as_fd()),
            Some(Client::Packet(_)) | None => None,
        }
    }

    /// Whether only repeated observations show its result.
    pub fn needs_polling(&self) -> bool {
        let leaves_by_interface = self.probe.subject == Subject::ExcludedInterface && self.client.is_some();
        let is_packet = matches!(self.client, Some(Client::Packet(_)));
        let is_observed =
            self.is_connected() || is_packet || leaves_by_interface || self.is_rejected || !self.is_answered;
        self.outcome.is_none() && (is_observed || self.watched.is_some())
    }

    /// Whether neighbours of the pod show its result.
    pub fn needs_neighbours(&self) -> bool {
        self.outcome.is_none() && self.watched.is_some()
    }

    fn is_connected(&self) -> bool {
        matches!(&self.client, Some(Client::Tcp(stream)) if stream.peer_addr().is_ok())
    }

    /// The time of the next observation if no event comes before.
    pub fn next_observation(&self) -> Option<Instant> {
        let asks = self.outcome.is_none() && matches!(self.client, Some(Client::Udp(_) | Client::Echo(_)));
        asks.then(|| self.last_query + self.query_interval())
    }

    /// Updates the outcome. `connections` are those of the pod's sockets.
    pub fn observe(
        &mut self,
        circumstances: &Circumstances,
        connections: &io::Result<Vec<Connection>>,
        neighbours: &Neighbours,
    ) {
        if self.outcome.is_some() {
            return;
        }
        match self.watched.and_then(|watched| watched.trace(neighbours)) {
            Some(Trace::Forwarded) => {
                self.outcome = Some(Outcome::Found(Finding::Direct));
                return;
            }
            // A refused packet is not forwarded a moment later.
            Some(Trace::Answered) => self.is_rejected = true,
            None => {}
        }
        if self.is_rejected {
            if self.is_decided() {
                self.outcome = Some(Outcome::Found(Finding::Rejected));
            }
            return;
        }
        self.ask_again(circumstances);
        self.outcome = match &mut self.client {
            Some(Client::Tcp(_)) if self.probe.subject == Subject::ExcludedInterface => self.observe_departure(),
            Some(Client::Tcp(_)) if self.arrived.is_some() => {
                self.observe_half_closed();
                return;
            }
            Some(Client::Tcp(_)) => match self.observe_connection(circumstances, connections) {
                Some(Outcome::Found(finding)) => {
                    self.record(finding);
                    return;
                }
                outcome => outcome,
            },
            Some(Client::Udp(_) | Client::Echo(_)) => {
                let answer = match &self.client {
                    Some(Client::Udp(socket)) => self.observe_answer(socket),
                    Some(Client::Echo(echo)) => self.observe_echo(echo),
                    _ => None,
                };
                match answer {
                    Some(Outcome::Found(finding)) => {
                        self.record(finding);
                        return;
                    }
                    outcome => outcome,
                }
            }
            Some(Client::Packet(packet)) => packet.observe(),
            None => None,
        };
    }

    fn query_interval(&self) -> Duration {
        match self.probe.expected {
            Expected::Rejected => REJECTION_INTERVAL,
            _ => QUERY_INTERVAL,
        }
    }

    /// Repeats a query or request that has no answer yet.
    fn ask_again(&mut self, circumstances: &Circumstances) {
        if self.last_query.elapsed() < self.query_interval() {
            return;
        }
        self.last_query = Instant::now();
        // An error shows when the answer is read.
        match &self.client {
            Some(Client::Udp(socket)) if self.probe.expected == Expected::Rejected => {
                drop(socket.send(&lookup::query(self.id)));
            }
            // From another port: conntrack may remember a recent query from this one, which went elsewhere.
            Some(Client::Udp(_)) => {
                if let Ok(started) = start(self.probe, self.id, circumstances) {
                    (self.client, self.local, self.reserved) = (Some(started.client), started.local, started.reserved);
                }
            }
            Some(Client::Echo(echo)) => drop(echo.send()),
            Some(Client::Tcp(_) | Client::Packet(_)) | None => {}
        }
    }

    fn observe_connection(
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
        if !self.is_connected() && self.is_answered {
            return None;
        }
        let connections = match connections {
            Ok(connections) => connections,
            Err(error) => {
                return Some(Outcome::NotMade(format!(
                    "the socket that accepted it cannot be found: /proc/thread-self/net/tcp: {error}"
                )));
            }
        };
        let from = |client: Option<SocketAddr>| {
            let mut connections = connections.iter();
            connections.find(|connection| Some(connection.remote) == client)
        };
        let arrived = from(self.local).or_else(|| from(self.translated()));
        let closed = is_closed(stream);
        let listeners = circumstances.listeners;
        match arrived {
            Some(at) if at.local == self.probe.destination => self.at_destination(at, circumstances),
            // The listener accepts it soon.
            Some(at) if listeners.holds(at.local) && self.is_answered => None,
            Some(at) => Some(Outcome::Found(Finding::Redirected {
                at: at.local,
                original: Original::NotAsked,
            })),
            None if !self.is_answered || !self.is_decided() => None,
            None if closed => Some(Outcome::Found(self.closed(circumstances))),
            None => {
                let since = *self.open_since.get_or_insert_with(Instant::now);
                (since.elapsed() >= ACCEPT_TIMEOUT).then_some(Outcome::Found(Finding::AnsweredOutside))
            }
        }
    }

    /// The result of a connection that a socket with the destination's address accepted: the destination, or a transparent
    /// socket of the proxy.
    fn at_destination(&mut self, at: &Connection, circumstances: &Circumstances) -> Option<Outcome> {
        let listeners = circumstances.listeners;
        let listens = |port: &Port| listeners.proxy_listens_on(Protocol::Tcp, self.probe.family(), port.get());
        let to_proxy = circumstances.trial.transparent.filter(listens);
        let transparent = match to_proxy {
            Some(_) if matches!(self.probe.caller, Caller::Neighbour | Caller::Behind) => is_transparent(at),
            _ => Some(false),
        };
        match (transparent, listeners.holds(at.local)) {
            (Some(true), _) => Some(Outcome::Found(Finding::HandedOver)),
            (Some(false), false) => Some(Outcome::Found(Finding::Direct)),
            // The listener accepts it soon.
            (Some(false), true) => None,
            (None, _) if !self.is_decided() => None,
            (None, true) => Some(Outcome::Found(Finding::HandedOver)),
            (None, false) => Some(Outcome::NotMade(format!(
                "the proxy or another program accepted it, as port {} is in use, and this kernel does not show which \
                 (tcp_diag). Probe before the proxy starts",
                at.local.port()
            ))),
        }
    }

    fn is_decided(&mut self) -> bool {
        self.observations += 1;
        self.observations >= DECISIVE_OBSERVATIONS
    }

    fn closed(&self, circumstances: &Circumstances) -> Finding {
        let listens = |port: Port| {
            let listeners = circumstances.listeners;
            listeners.proxy_listens_on(Protocol::Tcp, self.probe.family(), port.get())
        };
        let proxy_listens = self.probe.expected.proxy_port().is_some_and(listens);
        Finding::Closed { proxy_listens }
    }

    fn by_error(&self, error: &io::Error, circumstances: &Circumstances) -> Finding {
        match error.kind() {
            ErrorKind::ConnectionRefused if self.probe.expected == Expected::Rejected => Finding::Rejected,
            ErrorKind::ConnectionRefused => Finding::Refused,
            ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => self.closed(circumstances),
            ErrorKind::TimedOut => Finding::Lost,
            _ => Finding::Unreachable(error.to_string()),
        }
    }

    fn observe_answer(&self, socket: &UdpSocket) -> Option<Outcome> {
        let mut message = [0; 512];
        let finding = match socket.recv(&mut message) {
            Ok(0) => Finding::AnsweredOutside,
            Ok(length) if !lookup::is_answer(&message[..length], self.id) => return None,
            Ok(_) => match self.answered_at {
                Some(at) => Finding::Redirected {
                    at,
                    original: Original::NotAsked,
                },
                None if self.is_within_pod() => {
                    return Some(Outcome::NotMade(format!(
                        "{} answered, or the proxy in its place: both are in the pod, and cannot be distinguished. \
                         Probe before the proxy starts",
                        self.probe.destination.ip()
                    )));
                }
                None => Finding::AnsweredInPod,
            },
            Err(error) => match error.kind() {
                ErrorKind::WouldBlock | ErrorKind::Interrupted => return None,
                ErrorKind::ConnectionRefused => Finding::Refused,
                _ if self.is_rejection(&error) => Finding::Rejected,
                _ => Finding::Unreachable(error.to_string()),
            },
        };
        Some(Outcome::Found(finding))
    }

    fn observe_echo(&self, echo: &Echo) -> Option<Outcome> {
        let finding = match echo.is_answered().map_err(io::Error::from) {
            Ok(false) => return None,
            Ok(true) if self.probe.subject.calls_pod() => Finding::Answered,
            Ok(true) => Finding::AnsweredOutside,
            Err(error) if self.is_rejection(&error) => Finding::Rejected,
            Err(error) => Finding::Unreachable(error.to_string()),
        };
        Some(Outcome::Found(finding))
    }

    /// Whether the pod reported to a host outside that communication is prohibited (icmp(7); `icmp_err_convert`,
    /// net/ipv4/icmp.c; `icmpv6_err_convert`, net/ipv6/icmp.c). A process of the pod gets EPERM when it sends; to it, such
    /// a report comes from a router.
    fn is_rejection(&self, error: &io::Error) -> bool {
        let prohibited = match self.probe.destination {
            SocketAddr::V4(_) => Errno::EHOSTUNREACH,
            SocketAddr::V6(_) => Errno::EACCES,
        };
        self.probe.caller == Caller::Neighbour && error.raw_os_error() == Some(prohibited as i32)
    }

    /// Whether the destination is this host: a loopback address, or the source address of the probe.
    fn is_within_pod(&self) -> bool {
        let destination = self.probe.destination.ip();
        destination.is_loopback() || self.local.is_some_and(|local| local.ip() == destination)
    }

    /// The outcome, at the end of the run.
    pub fn end(self) -> Outcome {
        let at_timeout = match self.answered_at {
            Some(at) => Finding::Unanswered { at },
            None if self.is_rejected => Finding::Rejected,
            None if self.open_since.is_some() && self.arrived.is_none() => Finding::AnsweredOutside,
            None => Finding::Lost,
        };
        self.outcome.unwrap_or(Outcome::Found(at_timeout))
    }
}

fn is_closed(stream: &TcpStream) -> bool {
    match stream.peek(&mut [0]) {
        Ok(length) => length == 0,
        Err(error) => error.kind() != ErrorKind::WouldBlock,
    }
}
