//! Connections that last.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::thread;
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};
use sidetrack::types::Family;

use super::service::{Serve, Service, Sockets};
use super::{Caller, Netns, Owner, Pod, To, socket};

/// Echoes its input, on one port, over IPv4 and IPv6. It ends when dropped.
pub struct Echo {
    _service: Service,
}

impl Echo {
    /// Starts one; it listens when this returns.
    pub fn start(netns: &Netns, owner: Owner, port: u16) -> Self {
        Self {
            _service: Service::start(
                netns,
                owner,
                Echoing {
                    port,
                    transparent: false,
                },
            ),
        }
    }

    /// One that accepts connections to any address, as TPROXY delivers them, which takes root.
    pub fn transparent(netns: &Netns, port: u16) -> Self {
        Self {
            _service: Service::start(
                netns,
                Owner::ROOT,
                Echoing {
                    port,
                    transparent: true,
                },
            ),
        }
    }
}

struct Echoing {
    port: u16,
    transparent: bool,
}

impl Serve for Echoing {
    fn bind(&self) -> io::Result<Sockets> {
        let listener = |family| {
            let listener = socket::listener(socket::any(family, self.port))?;
            setsockopt(&listener, sockopt::IpTransparent, &self.transparent)?;
            Ok(listener)
        };
        let tcp = Family::BOTH.into_iter().map(listener).collect::<io::Result<_>>()?;
        Ok(Sockets { tcp, udp: Vec::new() })
    }

    /// Each connection has a thread, which ends with it or when it is idle for too long.
    fn serve_connection(&self, stream: TcpStream, _: SocketAddr) -> io::Result<()> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PAUSE))?;
        thread::spawn(move || io::copy(&mut &stream, &mut &stream));
        Ok(())
    }

    fn serve_datagram(&self, _: &UdpSocket) -> io::Result<()> {
        Ok(())
    }
}

/// How long a conversation may pause: for as long as it takes a busy machine to replace rules.
const PAUSE: Duration = Duration::from_secs(60);

/// A connection to an [`Echo`].
pub struct Conversation {
    pub stream: TcpStream,
}

impl Conversation {
    /// Opens it.
    pub fn begin(pod: &Pod, caller: Caller, to: To, family: Family) -> io::Result<Self> {
        let to = to.address(family).expect("an address of this family");
        caller.run(pod, || Self::begin_from(caller.source(family), to))
    }

    /// Opens it as the calling thread.
    pub fn begin_from(source: Option<SocketAddr>, to: SocketAddr) -> io::Result<Self> {
        let stream = socket::stream(source, to)?;
        stream.set_nodelay(true)?;
        Ok(Self { stream })
    }

    /// Sends messages and reads their echoes, so many times, each message another one.
    pub fn go_on(&mut self, times: usize) -> io::Result<()> {
        for time in 0..times {
            let said: Vec<u8> = (0..1 + time * 61 % 9000).map(|byte| (time + byte) as u8).collect();
            let mut heard = vec![0; said.len()];
            self.stream.write_all(&said)?;
            self.stream.read_exact(&mut heard)?;
            if heard != said {
                return Err(io::Error::other("something else came back"));
            }
        }
        Ok(())
    }
}
