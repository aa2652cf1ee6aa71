//! Servers that tell each client what they saw of it.

use std::fmt;
use std::io::{self, PipeWriter, pipe};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::AsFd;
use std::str::FromStr;
use std::thread::{self, JoinHandle};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use sidetrack::ruleset::Family;

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
    stop: Option<PipeWriter>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Starts one; it listens when this returns. One thread serves all ports, a client at a time.
    pub fn start(netns: &Netns, name: &'static str, owner: Owner, ports: &[u16]) -> Self {
        let bind = |family| move |port: &u16| Ok((socket::listener(family, *port)?, socket::receiver(family, *port)?));
        let sockets: io::Result<Vec<_>> = netns.run(|| {
            owner.assume()?;
            Family::BOTH
                .into_iter()
                .flat_map(|family| ports.iter().map(bind(family)))
                .collect()
        });
        let (tcp, udp): (Vec<_>, Vec<_>) = sockets
            .unwrap_or_else(|error| panic!("{name} listens on {ports:?}: {error}"))
            .into_iter()
            .unzip();
        let (stopped, stop) = pipe().expect("a pipe");
        let serve = move || {
            let fds = tcp
                .iter()
                .map(AsFd::as_fd)
                .chain(udp.iter().map(AsFd::as_fd))
                .chain([stopped.as_fd()]);
            let mut waiting: Vec<_> = fds.map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
            loop {
                poll(&mut waiting, PollTimeout::NONE).expect("poll");
                let mut ready = waiting.iter().map(|fd| fd.any() == Some(true));
                for (listener, _) in tcp.iter().zip(&mut ready).filter(|(_, ready)| *ready) {
                    // A client that gave up is its own affair.
                    let _ = serve_connection(name, listener);
                }
                for (receiver, _) in udp.iter().zip(&mut ready).filter(|(_, ready)| *ready) {
                    let _ = serve_datagram(name, receiver);
                }
                if ready.next() == Some(true) {
                    return;
                }
            }
        };
        Self {
            stop: Some(stop),
            thread: Some(thread::spawn(serve)),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // If the thread panicked, it has already said why.
            let _ = thread.join();
        }
    }
}

fn serve_connection(name: &str, listener: &TcpListener) -> io::Result<()> {
    let (stream, client) = listener.accept()?;
    socket::patient(&stream)?;
    let arrival = Arrival {
        server: name.to_owned(),
        port: listener.local_addr()?.port(),
        original: Some(socket::original_destination(&stream)?),
        client,
    };
    http::answer(stream, &arrival.to_string())
}

fn serve_datagram(name: &str, receiver: &UdpSocket) -> io::Result<()> {
    let (_, client) = receiver.recv_from(&mut [0; 16])?;
    let arrival = Arrival {
        server: name.to_owned(),
        port: receiver.local_addr()?.port(),
        original: None,
        client,
    };
    receiver.send_to(arrival.to_string().as_bytes(), client).map(drop)
}
