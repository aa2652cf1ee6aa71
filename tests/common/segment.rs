//! TCP segments that no TCP sends.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::fd::AsRawFd;

use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrStorage, bind, sendto, socket,
};

/// A segment without data.
#[derive(Clone, Copy, Debug)]
pub struct Segment {
    pub from: SocketAddr,
    pub to: SocketAddr,
    pub flags: u8,
    pub sequence: u32,
    pub acknowledgement: u32,
}

impl Segment {
    pub const SYN: u8 = 0x02;
    pub const ACK: u8 = 0x10;

    /// Sends it, from the namespace that the calling thread is in.
    pub fn send(&self) -> io::Result<()> {
        let domain = match self.from {
            SocketAddr::V4(_) => AddressFamily::Inet,
            SocketAddr::V6(_) => AddressFamily::Inet6,
        };
        let socket = socket(domain, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::Tcp)?;
        let without_port = |address: SocketAddr| SockaddrStorage::from(SocketAddr::from((address.ip(), 0)));
        bind(socket.as_raw_fd(), &without_port(self.from))?;
        sendto(
            socket.as_raw_fd(),
            &self.bytes(),
            &without_port(self.to),
            MsgFlags::empty(),
        )?;
        Ok(())
    }

    /// The header (RFC 9293, 3.1).
    fn bytes(&self) -> [u8; 20] {
        const LENGTH_IN_WORDS: u8 = 5;
        const WINDOW: u16 = 1000;
        let mut bytes = [0; 20];
        bytes[0..2].copy_from_slice(&self.from.port().to_be_bytes());
        bytes[2..4].copy_from_slice(&self.to.port().to_be_bytes());
        bytes[4..8].copy_from_slice(&self.sequence.to_be_bytes());
        bytes[8..12].copy_from_slice(&self.acknowledgement.to_be_bytes());
        bytes[12] = LENGTH_IN_WORDS << 4;
        bytes[13] = self.flags;
        bytes[14..16].copy_from_slice(&WINDOW.to_be_bytes());
        let checksum = self.checksum(&bytes);
        bytes[16..18].copy_from_slice(&checksum.to_be_bytes());
        bytes
    }

    /// The checksum over the addresses, the protocol, the length and the header.
    fn checksum(&self, header: &[u8; 20]) -> u16 {
        let mut counted = [0, libc::IPPROTO_TCP as u8, 0, header.len() as u8].to_vec();
        for address in [self.from.ip(), self.to.ip()] {
            match address {
                IpAddr::V4(address) => counted.extend(address.octets()),
                IpAddr::V6(address) => counted.extend(address.octets()),
            }
        }
        counted.extend(header);
        let mut sum: u32 = counted
            .chunks(2)
            .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])))
            .sum();
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !(sum as u16)
    }
}

/// The next sequence numbers of a connection: of what is sent, and of what is received.
pub fn sequence_numbers(stream: &TcpStream) -> io::Result<(u32, u32)> {
    // linux/tcp.h; libc has no names for these.
    const RECEIVED: libc::c_int = 1;
    const SENT: libc::c_int = 2;
    const ON: libc::c_int = 1;
    /// Without the probe that the kernel otherwise sends then.
    const OFF: libc::c_int = -1;
    set(stream, libc::TCP_REPAIR, ON)?;
    let number = |queue| {
        set(stream, libc::TCP_REPAIR_QUEUE, queue)?;
        get(stream, libc::TCP_QUEUE_SEQ)
    };
    let numbers = number(SENT).and_then(|sent| Ok((sent, number(RECEIVED)?)));
    set(stream, libc::TCP_REPAIR, OFF)?;
    numbers
}

#[expect(unsafe_code, reason = "nix does not know these options")]
fn set(stream: &TcpStream, option: libc::c_int, value: libc::c_int) -> io::Result<()> {
    let length = size_of_val(&value) as libc::socklen_t;
    // SAFETY: the value lives through the call, which reads as much of it as its length says.
    let result = unsafe {
        libc::setsockopt(
            stream.as_raw_fd(),
            libc::IPPROTO_TCP,
            option,
            (&raw const value).cast(),
            length,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

#[expect(unsafe_code, reason = "nix does not know these options")]
fn get(stream: &TcpStream, option: libc::c_int) -> io::Result<u32> {
    let mut value: u32 = 0;
    let mut length = size_of_val(&value) as libc::socklen_t;
    // SAFETY: value and length live through the call, which writes no more than the length says.
    let result = unsafe {
        libc::getsockopt(
            stream.as_raw_fd(),
            libc::IPPROTO_TCP,
            option,
            (&raw mut value).cast(),
            &raw mut length,
        )
    };
    if result == 0 {
        Ok(value)
    } else {
        Err(io::Error::last_os_error())
    }
}
