//! Messages over Unix sockets of the type `SOCK_SEQPACKET` (unix(7)): one message a connection.
//!
//! A listener queues as many connections, each with its message, as it asks for. A datagram socket queues no more than
//! `net.unix.max_dgram_qlen`, which is 10 in each new network namespace.

use std::io::{self, Read as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, Backlog, MsgFlags, Shutdown, SockFlag, SockType, UnixAddr, bind, connect, listen, send as send_to,
    shutdown, socket,
};

/// As many messages as the kernel lets a listener queue: `net.core.somaxconn`, by default 4096, and 128 before Linux 5.4.
pub const LONGEST_QUEUE: i32 = -1;

fn seqpacket(flags: SockFlag) -> nix::Result<OwnedFd> {
    let flags = flags | SockFlag::SOCK_CLOEXEC;
    socket(AddressFamily::Unix, SockType::SeqPacket, flags, None)
}

/// A socket that never blocks, connected to the listener at `path`.
fn connected(path: &Path) -> nix::Result<OwnedFd> {
    let socket = seqpacket(SockFlag::SOCK_NONBLOCK)?;
    connect(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
    Ok(socket)
}

/// Sends a message to the listener at `path`. Never blocks.
///
/// # Errors
/// Nothing listens there, its queue is full (EAGAIN), or the message is too long.
pub fn send(path: &Path, message: &[u8]) -> nix::Result<()> {
    let socket = connected(path)?;
    send_to(socket.as_raw_fd(), message, MsgFlags::MSG_NOSIGNAL).map(drop)
}

/// Whether a process listens at `path`.
pub fn is_answered(path: &Path) -> bool {
    matches!(connected(path), Ok(_) | Err(Errno::EAGAIN))
}

/// A listener for messages.
#[derive(Debug)]
pub struct Listener {
    socket: UnixListener,
    patience: Duration,
}

impl Listener {
    /// Listens at `path`, where nothing may be. Up to `queue` messages wait, 128 at most, or [`LONGEST_QUEUE`]. A
    /// connection is given up after `patience` without its message: a sender can be stopped between the two.
    ///
    /// # Errors
    /// The system refused.
    pub fn bind(path: &Path, queue: i32, patience: Duration) -> nix::Result<Self> {
        let queue = Backlog::new(queue)?;
        let socket = seqpacket(SockFlag::empty())?;
        bind(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
        listen(&socket, queue)?;
        let socket = UnixListener::from(socket);
        Ok(Self { socket, patience })
    }

    /// Waits for the next message and returns its length: 0 if a connection ends without one. What does not fit is cut.
    ///
    /// # Errors
    /// The listener was closed, and its queue is empty; or the system refused.
    pub fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let (mut connection, _) = self.socket.accept()?;
        connection.set_read_timeout(Some(self.patience))?;
        loop {
            match connection.read(buffer).map_err(|error| (error.kind(), error)) {
                Ok(length) => return Ok(length),
                Err((io::ErrorKind::Interrupted, _)) => {}
                Err((io::ErrorKind::WouldBlock | io::ErrorKind::ConnectionReset, _)) => return Ok(0),
                Err((_, error)) => return Err(error),
            }
        }
    }

    /// Accepts no more messages. Those in the queue can still be received.
    pub fn close(&self) {
        // It fails for a socket without a connection or queue alone.
        let _closed = shutdown(self.socket.as_raw_fd(), Shutdown::Both);
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const PATIENCE: Duration = Duration::from_millis(100);

    #[test]
    fn messages_wait_in_the_queue_also_of_a_closed_listener() {
        let directory = std::env::temp_dir().join(format!("sidetrack-messages-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let path = directory.join("socket");
        assert!(!is_answered(&path));
        assert_eq!(send(&path, b"to nobody"), Err(Errno::ENOENT));

        let listener = Listener::bind(&path, 100, PATIENCE).unwrap();
        for number in 0..100_u8 {
            send(&path, &[number; 3]).unwrap();
        }
        listener.close();
        assert_eq!(send(&path, b"late"), Err(Errno::ECONNREFUSED));
        assert!(!is_answered(&path));
        let mut buffer = [0; 2];
        for number in 0..100 {
            assert_eq!(listener.receive(&mut buffer).unwrap(), 2);
            assert_eq!(buffer, [number; 2]);
        }
        assert_eq!(
            listener.receive(&mut buffer).unwrap_err().kind(),
            io::ErrorKind::InvalidInput
        );
        fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn full_queue_refuses_at_once_and_connection_without_message_is_empty() {
        let path = std::env::temp_dir().join(format!("sidetrack-full-queue-{}", std::process::id()));
        let listener = Listener::bind(&path, 1, PATIENCE).unwrap();
        drop(connected(&path).unwrap());
        let refused = (0..10).find_map(|_| send(&path, b"x").err());
        assert_eq!(refused, Some(Errno::EAGAIN));
        assert!(is_answered(&path));
        let mut buffer = [0; 2];
        assert_eq!(listener.receive(&mut buffer).unwrap(), 0);
        assert_eq!(listener.receive(&mut buffer).unwrap(), 1);
        // A sender that is stopped before its message.
        let stopped = connected(&path).unwrap();
        assert_eq!(listener.receive(&mut buffer).unwrap(), 0);
        drop(stopped);
        fs::remove_file(&path).unwrap();
    }
}
