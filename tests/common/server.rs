//! Servers that reply with what they observe of each client.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::str::FromStr;

use nix::sys::socket::{setsockopt, sockopt};
use sidetrack::types::Family;

use super::service::{Serve, Service, Sockets};
use super::{Netns, Owner, http, socket};

/// What a server saw of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// The server's name.
    pub server: String,
    /// The port that it got there by.
    pub port: u16,
    /// Where the client wanted to go, as far as the kernel remembers (`SO_ORIGINAL_DST`); unknown for UDP.
    pub original: Option<SocketAddr>,
    /// The address that the client came from.
    pub client: SocketAddr,
}

/// What servers send.
impl fmt::Display for Arrival {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let original = self
            .original
            .map_or_else(|| "-".to_owned(), |address| address.to_string());
        write!(f, "{} {} {original} {}", self.server, self.port, self.client)
    }
}

impl FromStr for Arrival {
    type Err = io::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parse = || {
            let mut words = text.split(' ');
            Some(Self {
                server: words.next()?.to_owned(),
                port: words.next()?.parse().ok()?,
                original: words.next()?.parse().ok(),
                client: words.next()?.parse().ok()?,
            })
        };
        parse().ok_or_else(|| io::Error::other(format!("no server of the laboratory said {text:?}")))
    }
}

/// A server on TCP and UDP ports, IPv4 and IPv6. It ends when dropped.
pub struct Server {
    _service: Service,
}

impl Server {
    /// Starts one; it listens when this returns. One thread serves all ports, a client at a time.
    pub fn start(netns: &Netns, name: &'static str, owner: Owner, ports: &[u16]) -> Self {
        Self {
            _service: Service::start(netns, owner, Telling::new(name, ports)),
        }
    }

    /// Starts one as root, which also gets connections that TPROXY hands over; whose they were does not matter.
    pub fn start_transparent(netns: &Netns, name: &'static str, ports: &[u16]) -> Self {
        let service = Telling {
            transparent: true,
            ..Telling::new(name, ports)
        };
        Self {
            _service: Service::start(netns, Owner::ROOT, service),
        }
    }
}

/// Replies to each client with the server's observation.
struct Telling {
    name: &'static str,
    ports: Vec<u16>,
    transparent: bool,
}

impl Telling {
    fn new(name: &'static str, ports: &[u16]) -> Self {
        Self {
            name,
            ports: ports.to_vec(),
            transparent: false,
        }
    }
}

impl Serve for Telling {
    fn bind(&self) -> io::Result<Sockets> {
        let mut sockets = Sockets::default();
        for (family, port) in Family::BOTH
            .into_iter()
            .flat_map(|family| self.ports.iter().map(move |port| (family, *port)))
        {
            let listener = socket::listener(socket::any(family, port))?;
            if self.transparent {
                setsockopt(&listener, sockopt::IpTransparent, &true)?;
            }
            sockets.tcp.push(listener);
            sockets.udp.push(socket::receiver(socket::any(family, port))?);
        }
        Ok(sockets)
    }

    fn serve_connection(&self, stream: TcpStream, client: SocketAddr) -> io::Result<()> {
        let arrival = Arrival {
            server: self.name.to_owned(),
            port: stream.local_addr()?.port(),
            original: Some(socket::original_destination(&stream)?),
            client,
        };
        http::answer(stream, &arrival.to_string())
    }

    fn serve_datagram(&self, receiver: &UdpSocket) -> io::Result<()> {
        let (_, client) = receiver.recv_from(&mut [0; 16])?;
        let arrival = Arrival {
            server: self.name.to_owned(),
            port: receiver.local_addr()?.port(),
            original: None,
            client,
        };
        receiver.send_to(arrival.to_string().as_bytes(), client).map(drop)
    }
}
