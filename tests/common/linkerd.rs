//! A proxy that does what Linkerd's does with connections: it goes on to where each was meant to go, as its own user,
//! bound to no address.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use sidetrack::types::Family;

use super::envoy::Accepted;
use super::service::{Serve, Service, Sockets};
use super::{Address, Owner, Pod, socket};

/// Where inbound connections go.
pub const INBOUND: u16 = 4143;
/// Where outbound connections go.
pub const OUTBOUND: u16 = 4140;

/// So many connections in one direction, and it takes no more: a loop ends here, not where files run out.
const MAX_CONNECTIONS: u64 = 20;

/// A running proxy. It ends when dropped.
pub struct LinkerdProxy {
    accepted: Arc<Counters>,
    _service: Service,
}

#[derive(Default)]
struct Counters {
    inbound: AtomicU64,
    outbound: AtomicU64,
}

impl LinkerdProxy {
    /// The user that it runs as, and the group: that of its image, by which nothing is exempt.
    pub const OWNER: Owner = Owner::new(2102, 0);

    /// Starts one; it listens when this returns. `families` are those that it listens in: both, or as its chart's
    /// `disableIPv6` says, IPv4 alone.
    pub fn start(pod: &Pod, families: &'static [Family]) -> Self {
        let accepted = Arc::new(Counters::default());
        let proxy = Passing {
            families,
            accepted: Arc::clone(&accepted),
        };
        Self {
            accepted,
            _service: Service::start(&pod.netns, Self::OWNER, proxy),
        }
    }

    /// How many connections it has accepted.
    pub fn accepted(&self) -> Accepted {
        Accepted {
            inbound: self.accepted.inbound.load(Ordering::SeqCst),
            outbound: self.accepted.outbound.load(Ordering::SeqCst),
        }
    }
}

/// What it does with connections.
struct Passing {
    families: &'static [Family],
    accepted: Arc<Counters>,
}

impl Serve for Passing {
    fn bind(&self) -> io::Result<Sockets> {
        let on = self.families.iter().flat_map(|family| {
            let outbound = SocketAddr::from((Address::LOOPBACK.of(*family), OUTBOUND));
            [socket::any(*family, INBOUND), outbound]
        });
        Ok(Sockets {
            tcp: on.map(socket::listener).collect::<io::Result<Vec<TcpListener>>>()?,
            udp: Vec::new(),
        })
    }

    fn serve_connection(&self, stream: TcpStream, _: SocketAddr) -> io::Result<()> {
        let is_inbound = stream.local_addr()?.port() == INBOUND;
        let counter = if is_inbound {
            &self.accepted.inbound
        } else {
            &self.accepted.outbound
        };
        let original = socket::original_destination(&stream)?;
        let is_own =
            Address::POD.both().contains(&original.ip()) || Address::POD_SECOND.both().contains(&original.ip());
        let refused = match is_inbound {
            // Its INBOUND_IPS, and the only guard against loops that it has: a target on its own port.
            true => !is_own || original.port() == INBOUND,
            false => original.ip().is_loopback(),
        };
        if counter.fetch_add(1, Ordering::SeqCst) >= MAX_CONNECTIONS || refused {
            return Ok(()); // The connection is closed.
        }
        // What it connects to may come back to it, so that it has to go on accepting. The thread is where this one is, and
        // who this one is. A client that gets no answer says so itself.
        thread::spawn(move || pass_on(stream, original));
        Ok(())
    }

    fn serve_datagram(&self, _: &std::net::UdpSocket) -> io::Result<()> {
        Ok(())
    }
}

/// Hands one request over, and the answer back.
fn pass_on(mut client: TcpStream, to: SocketAddr) -> io::Result<()> {
    let mut server = socket::stream(None, to)?;
    let mut request = [0; 4096];
    let length = client.read(&mut request)?;
    server.write_all(&request[..length])?;
    io::copy(&mut server, &mut client).map(drop)
}
