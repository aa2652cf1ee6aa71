//! Name lookups: servers that reply with their client's address, and a forwarder like a proxy's.

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicU16, Ordering};

use sidetrack::types::Family;

use super::service::{Serve, Service, Sockets};
use super::{Address, Netns, Owner, Transport, socket};

/// The forwarder's sockets. On every address it would answer from another one than was asked.
pub const FORWARDER: [SocketAddr; 2] = [
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 15053),
    SocketAddr::new(IpAddr::V6(Ipv6Addr::LOCALHOST), 15053),
];

/// The port of name servers.
pub const DNS_PORT: u16 = 53;

/// The result of a lookup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reply {
    /// Who asked.
    pub local: SocketAddr,
    /// The name server that answered in the end.
    pub server: SocketAddr,
    /// Who asked it.
    pub client: SocketAddr,
    /// The client of the forwarder, if the lookup passed it.
    pub forwarded_for: Option<SocketAddr>,
}

impl Reply {
    fn parse(local: SocketAddr, text: &str) -> Option<Self> {
        let mut words = text.split(' ');
        let mut address = || words.next().and_then(|word| word.parse().ok());
        Some(Self {
            local,
            server: address()?,
            client: address()?,
            forwarded_for: address(),
        })
    }
}

/// Looks a name up, as the calling thread.
///
/// # Errors
/// No answer came, or the answer to another question.
pub fn look_up(transport: Transport, source: Option<SocketAddr>, server: IpAddr, name: &str) -> io::Result<Reply> {
    let query = Message::question(name);
    let server = SocketAddr::from((server, DNS_PORT));
    let (local, answer) = match transport {
        Transport::Udp => {
            let sender = socket::sender(source, server)?;
            sender.send(&query.bytes())?;
            (sender.local_addr()?, receive_from(&sender)?.1)
        }
        Transport::Tcp => {
            let mut stream = socket::stream(source, server)?;
            write(&mut stream, &query)?;
            (stream.local_addr()?, read(&mut stream)?)
        }
    };
    reply(local, &query, &answer)
}

/// The next message that a socket gets, and who sent it.
pub fn receive_from(socket: &UdpSocket) -> io::Result<(SocketAddr, Message)> {
    let mut bytes = [0; 512];
    let (length, from) = socket.recv_from(&mut bytes)?;
    Ok((from, Message::parse(&bytes[..length])?))
}

/// The reply in an answer to this question, and no other.
pub fn reply(local: SocketAddr, question: &Message, answer: &Message) -> io::Result<Reply> {
    let matches = (answer.id, &answer.name) == (question.id, &question.name);
    let text = answer.text.as_deref().filter(|_| matches);
    text.and_then(|text| Reply::parse(local, text))
        .ok_or_else(|| io::Error::other(format!("{question:?} was answered with {answer:?}")))
}

/// A message with one question, of type TXT, and at most one answer (RFC 1035).
#[derive(Clone, Debug)]
pub struct Message {
    pub id: u16,
    pub name: String,
    pub text: Option<String>,
}

impl Message {
    const HEADER: usize = 12;
    /// Type TXT, class IN.
    const TXT: [u8; 4] = [0, 16, 0, 1];
    /// Where the name of the question is, as the name of an answer.
    const SAME_NAME: [u8; 2] = [0xc0, Self::HEADER as u8];

    /// A question that no other has the number of, for a while.
    pub fn question(name: &str) -> Self {
        static NEXT: AtomicU16 = AtomicU16::new(0);
        Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            name: name.to_owned(),
            text: None,
        }
    }

    fn answered(self, text: String) -> Self {
        Self {
            text: Some(text),
            ..self
        }
    }

    /// The message as it travels.
    pub fn bytes(&self) -> Vec<u8> {
        let is_answer = u8::from(self.text.is_some());
        let mut bytes = self.id.to_be_bytes().to_vec();
        bytes.extend([is_answer << 7, 0, 0, 1, 0, is_answer, 0, 0, 0, 0]);
        for label in self.name.split('.') {
            bytes.push(label.len() as u8);
            bytes.extend(label.bytes());
        }
        bytes.push(0);
        bytes.extend(Self::TXT);
        if let Some(text) = &self.text {
            bytes.extend(Self::SAME_NAME);
            bytes.extend(Self::TXT);
            // A lifetime of 0 seconds, and a single string.
            bytes.extend([0, 0, 0, 0, 0, text.len() as u8 + 1, text.len() as u8]);
            bytes.extend(text.bytes());
        }
        bytes
    }

    fn parse(bytes: &[u8]) -> io::Result<Self> {
        let parse = || {
            let (header, mut rest) = bytes.split_at_checked(Self::HEADER)?;
            let mut labels = Vec::new();
            loop {
                let (length, more) = rest.split_first()?;
                let (label, more) = more.split_at_checked(usize::from(*length))?;
                rest = more;
                if label.is_empty() {
                    break;
                }
                labels.push(std::str::from_utf8(label).ok()?);
            }
            // The type and class of the question; then of the answer, its name before them, its lifetime and lengths
            // after them.
            let answer = rest.strip_prefix(&Self::TXT)?;
            let text = answer
                .get(2 + 4 + 4 + 2 + 1..)
                .map(|text| String::from_utf8_lossy(text).into_owned());
            Some(Self {
                id: u16::from_be_bytes([header[0], header[1]]),
                name: labels.join("."),
                text,
            })
        };
        parse().ok_or_else(|| io::Error::other(format!("not a message of the laboratory: {bytes:?}")))
    }
}

fn write(stream: &mut TcpStream, message: &Message) -> io::Result<()> {
    let bytes = message.bytes();
    stream.write_all(&[&(bytes.len() as u16).to_be_bytes(), bytes.as_slice()].concat())
}

fn read(stream: &mut TcpStream) -> io::Result<Message> {
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut bytes = vec![0; u16::from_be_bytes(length).into()];
    stream.read_exact(&mut bytes)?;
    Message::parse(&bytes)
}

/// A service that answers lookups. It ends when dropped.
pub struct Resolver {
    _service: Service,
}

impl Resolver {
    /// A name server on these addresses: it answers every question with its own address and the client's.
    pub fn name_server(netns: &Netns, owner: Owner, addresses: &[IpAddr]) -> Self {
        let on = addresses.iter().map(|address| (*address, DNS_PORT).into()).collect();
        Self {
            _service: Service::start(netns, owner, Resolving { on, upstream: None }),
        }
    }

    /// A forwarder on these sockets: it asks the upstream server, from a new port each time, and adds to the answer
    /// who asked.
    pub fn forwarder(netns: &Netns, owner: Owner, on: &[SocketAddr], upstream: Address) -> Self {
        let resolving = Resolving {
            on: on.to_vec(),
            upstream: Some(upstream),
        };
        Self {
            _service: Service::start(netns, owner, resolving),
        }
    }
}

struct Resolving {
    on: Vec<SocketAddr>,
    upstream: Option<Address>,
}

impl Resolving {
    fn answer(
        &self,
        query: Message,
        transport: Transport,
        local: SocketAddr,
        client: SocketAddr,
    ) -> io::Result<Message> {
        let Some(upstream) = self.upstream else {
            return Ok(query.answered(format!("{local} {client}")));
        };
        let family = if local.is_ipv4() { Family::V4 } else { Family::V6 };
        let reply = look_up(transport, None, upstream.of(family), &query.name)?;
        Ok(query.answered(format!("{} {} {client}", reply.server, reply.client)))
    }
}

impl Serve for Resolving {
    fn bind(&self) -> io::Result<Sockets> {
        let mut sockets = Sockets::default();
        for on in &self.on {
            sockets.tcp.push(socket::listener(*on)?);
            sockets.udp.push(socket::receiver(*on)?);
        }
        Ok(sockets)
    }

    fn serve_connection(&self, mut stream: TcpStream, client: SocketAddr) -> io::Result<()> {
        let query = read(&mut stream)?;
        let answer = self.answer(query, Transport::Tcp, stream.local_addr()?, client)?;
        write(&mut stream, &answer)
    }

    fn serve_datagram(&self, receiver: &UdpSocket) -> io::Result<()> {
        let (client, query) = receive_from(receiver)?;
        let answer = self.answer(query, Transport::Udp, receiver.local_addr()?, client)?;
        receiver.send_to(&answer.bytes(), client).map(drop)
    }
}
