//! Netlink sockets (netlink(7)): requests, answers, dumps. The caller chooses the protocol.

pub mod multicast;
mod refusal;
mod wire;

use std::ops::RangeInclusive;
use std::thread;
use std::time::{Duration, SystemTime};

use netlink_packet_core::NetlinkBuffer;
use nix::errno::Errno;
use nix::sys::socket::SockProtocol;
use thiserror::Error;

use self::wire::DEFAULT_SEND_BUFFER;

pub use self::refusal::{Explanation, Refusal};
pub use self::wire::{KernelWire, Wire};

/// A failed netlink exchange.
#[derive(Debug, Error)]
pub enum NetlinkError {
    /// The socket could not be opened.
    #[error("opening a netlink socket: {}{}", .0, denied(*.0))]
    Open(#[source] Errno),
    /// A request could not be sent.
    #[error("sending {length} bytes over netlink: {errno}{}", hint(*length, *errno))]
    Send {
        /// Length of the request in bytes.
        length: usize,
        /// The reason.
        #[source]
        errno: Errno,
    },
    /// Receiving an answer failed.
    #[error("reading the kernel's answer: {}{}", .0, denied(*.0))]
    Receive(#[source] Errno),
    /// The kernel refused a request.
    #[error("the kernel refused: {0}")]
    Refused(#[source] Refusal),
    /// A request is longer than its protocol allows.
    #[error("a request is too long for netlink: {0}. Use fewer or shorter elements in the lists of the options")]
    TooLong(&'static str),
    /// A change interrupted a dump; it must be requested again.
    #[error("other processes changed the state during every attempt to read it. Try again when they are done")]
    Interrupted,
    /// An answer could not be parsed.
    #[error("cannot parse an answer of the kernel: {0}")]
    Malformed(String),
}

fn hint(length: usize, errno: Errno) -> &'static str {
    match errno {
        Errno::EMSGSIZE | Errno::ENOBUFS if length > DEFAULT_SEND_BUFFER => {
            "; all rules must fit into one message: raise net.core.wmem_max, or use fewer ports and CIDRs"
        }
        Errno::ENOBUFS => "; the system is short of memory for sockets (net.core.wmem_max, cgroup limits): try again",
        _ => denied(errno),
    }
}

/// The kernel itself permits these calls to every process; it refuses requests in its answers.
fn denied(errno: Errno) -> &'static str {
    match errno {
        Errno::EACCES | Errno::EPERM => {
            "; a security policy denies it (SELinux, AppArmor or a seccomp filter): the node's audit log says which"
        }
        _ => "",
    }
}

impl NetlinkError {
    /// The kernel's error number, if the error has one.
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::Open(errno) | Self::Send { errno, .. } | Self::Receive(errno) => Some(*errno),
            Self::Refused(refusal) => Some(refusal.errno),
            Self::Interrupted | Self::Malformed(_) | Self::TooLong(_) => None,
        }
    }
}

/// One message of an answer, of any netlink protocol.
#[derive(Debug)]
pub enum Answer {
    /// A message of the protocol: its type and its payload.
    Message {
        /// `nlmsg_seq` of the request.
        sequence: u32,
        /// `nlmsg_type`.
        kind: u16,
        /// The payload.
        payload: Vec<u8>,
    },
    /// A change interrupted the dump that the following messages belong to.
    Interrupted {
        /// `nlmsg_seq` of the request.
        sequence: u32,
    },
    /// An acknowledgement, or an error, of the request with this sequence number.
    Status {
        /// `nlmsg_seq` of the request.
        sequence: u32,
        /// Success, or an error number with the kernel's explanation.
        result: Result<(), Refusal>,
    },
}

impl Answer {
    fn sequence(&mut self) -> &mut u32 {
        match self {
            Self::Message { sequence, .. } | Self::Interrupted { sequence } | Self::Status { sequence, .. } => sequence,
        }
    }
}

/// Size of the receive buffer in bytes, enough for any datagram of the kernel: those of a dump have at most 32 KiB.
const BUFFER_LENGTH: usize = 64 * 1024;

/// Attempts at an operation that other processes interfere with.
pub const ATTEMPTS: u32 = 32;

/// Attempts at an operation that other processes may interfere with, numbered from 0, with pauses between them.
pub fn attempts() -> impl Iterator<Item = u32> {
    (0..ATTEMPTS).inspect(|attempt| pause(*attempt))
}

/// Waits before an attempt. Pauses grow, and differ between processes, so that each of many processes finds a gap.
pub fn pause(attempt: u32) {
    if attempt > 0 {
        thread::sleep(Duration::from_micros(chance(attempt * 1000).into()));
    }
}

/// A pseudo-random number below `limit`, from the clock's last digits, which differ enough between processes.
pub fn chance(limit: u32) -> u32 {
    let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since_epoch.map_or(0, |time| time.subsec_nanos() % limit)
}

/// A netlink socket. It stays in the network namespace in which it was opened.
///
/// Each request has unique sequence numbers. Answers to an earlier request, whose exchange failed before its end, are
/// skipped.
pub struct Socket {
    wire: Box<dyn Wire>,
    /// The sequence numbers of the last request.
    asked: RangeInclusive<u32>,
    /// An exchange failed before its end, and the kernel may still send answers.
    broken: bool,
}

impl Socket {
    /// Opens a socket for one protocol, in the network namespace of this thread.
    ///
    /// # Errors
    /// The kernel does not support the protocol, or denies it.
    pub fn open(protocol: SockProtocol) -> Result<Self, NetlinkError> {
        KernelWire::open(protocol)
            .map(|wire| Self::over(Box::new(wire)))
            .map_err(NetlinkError::Open)
    }

    /// Uses another transport.
    pub fn over(wire: Box<dyn Wire>) -> Self {
        Self {
            wire,
            asked: 0..=0,
            broken: false,
        }
    }

    /// Sends a request of one message, or of several whose sequence numbers count up from 0 or 1. The socket replaces
    /// these by unique ones, and restores them in the answers. The kernel has completed the request when this returns.
    ///
    /// # Errors
    /// The request is too large for the socket's buffer; the kernel did not receive it.
    pub fn send(&mut self, mut request: Vec<u8>) -> Result<(), NetlinkError> {
        self.drain();
        let length = request.len();
        // Zero is the sequence number of the kernel's own messages.
        let base = self.asked.end().checked_add(1).unwrap_or(1);
        self.asked = number(&mut request, base)?;
        let sent = retry(|| self.wire.send(&request));
        sent.map_err(|errno| NetlinkError::Send { length, errno })
    }

    /// Reads the remaining answers of a failed exchange. Until then, the kernel starts no other dump on this socket.
    fn drain(&mut self) {
        /// More than a dump of everything on a node takes.
        const MAX_DATAGRAMS: u32 = 100_000;
        let mut buffer = [0; BUFFER_LENGTH];
        let mut left = if self.broken { MAX_DATAGRAMS } else { 0 };
        // A dump continues after the kernel reported that its answers did not fit.
        while left > 0 && retry(|| self.wire.receive(&mut buffer)) != Err(Errno::EAGAIN) {
            left -= 1;
        }
        self.broken = false;
    }

    /// Reads the queued answers to the last request, if any. It never blocks: the kernel answers while the request is
    /// being sent.
    ///
    /// # Errors
    /// The answers do not fit into the socket's buffer (ENOBUFS), or cannot be parsed.
    pub fn receive(&mut self) -> Result<Vec<Answer>, NetlinkError> {
        loop {
            let mut answers = match self.try_receive() {
                Ok(answers) => answers,
                Err(error) => {
                    self.broken = true;
                    return Err(error);
                }
            };
            let waits = !answers.is_empty();
            answers.retain_mut(|answer| self.asked.contains(answer.sequence()));
            for answer in &mut answers {
                *answer.sequence() -= self.asked.start();
            }
            if !(waits && answers.is_empty()) {
                return Ok(answers);
            }
        }
    }

    fn try_receive(&mut self) -> Result<Vec<Answer>, NetlinkError> {
        let mut buffer = [0; BUFFER_LENGTH];
        match retry(|| self.wire.receive(&mut buffer)) {
            Ok(BUFFER_LENGTH) => Err(NetlinkError::Malformed("longer than the kernel makes them".to_owned())),
            Ok(length) => answers(&buffer[..length]),
            Err(Errno::EAGAIN) => Ok(Vec::new()),
            Err(errno) => Err(NetlinkError::Receive(errno)),
        }
    }

    /// Sends a dump request, possibly after other messages, and reads all answers until the dump ends.
    ///
    /// # Errors
    /// As for sending and receiving; or the kernel refused; or its state changed meanwhile.
    pub fn dump(&mut self, request: &[u8]) -> Result<Vec<(u16, Vec<u8>)>, NetlinkError> {
        self.send(request.to_vec())?;
        let mut messages = Vec::new();
        let mut interrupted = false;
        loop {
            let answers = self.receive()?;
            if answers.is_empty() {
                self.broken = true;
                return Err(NetlinkError::Malformed("a dump without an end".to_owned()));
            }
            for answer in answers {
                match answer {
                    Answer::Message { kind, payload, .. } => messages.push((kind, payload)),
                    // The kernel continues the dump, and starts no other one on this socket meanwhile.
                    Answer::Interrupted { .. } => interrupted = true,
                    Answer::Status { result: Ok(()), .. } if interrupted => return Err(NetlinkError::Interrupted),
                    Answer::Status { result: Ok(()), .. } => return Ok(messages),
                    Answer::Status {
                        result: Err(refusal), ..
                    } => {
                        self.broken = true; // Other messages of the request may have answers too.
                        return Err(match refusal.errno {
                            Errno::EINTR | Errno::EAGAIN => NetlinkError::Interrupted,
                            _ => NetlinkError::Refused(refusal),
                        });
                    }
                }
            }
        }
    }
}

fn retry<T>(mut call: impl FnMut() -> nix::Result<T>) -> nix::Result<T> {
    loop {
        match call() {
            Err(Errno::EINTR) => {}
            result => return result,
        }
    }
}

/// Offsets of the length and the sequence number in a message (`struct nlmsghdr`).
const LENGTH_AT: usize = 0;
const SEQUENCE_AT: usize = 8;

/// Renumbers the messages of a request from `base` on. Returns the range of their sequence numbers.
fn number(request: &mut [u8], base: u32) -> Result<RangeInclusive<u32>, NetlinkError> {
    let malformed = || NetlinkError::Malformed("an invalid request of sidetrack".to_owned());
    let (mut at, mut last) = (0, base);
    while at < request.len() {
        let field = |field: usize| at + field..at + field + 4;
        let read = |range: std::ops::Range<usize>| {
            let bytes = request.get(range).and_then(|bytes| bytes.first_chunk());
            bytes.map(|bytes| u32::from_ne_bytes(*bytes)).ok_or_else(malformed)
        };
        let length = read(field(LENGTH_AT))? as usize;
        let sequence = base.checked_add(read(field(SEQUENCE_AT))?).ok_or_else(malformed)?;
        if length < SEQUENCE_AT + 4 {
            return Err(malformed());
        }
        request[field(SEQUENCE_AT)].copy_from_slice(&sequence.to_ne_bytes());
        last = last.max(sequence);
        at += length.next_multiple_of(4);
    }
    Ok(base..=last)
}

/// Splits a datagram into messages. The kernel flags dumps that a change interrupted.
///
/// # Errors
/// A message is truncated, or an error has no number.
pub fn answers(mut datagram: &[u8]) -> Result<Vec<Answer>, NetlinkError> {
    let malformed = |error: netlink_packet_core::DecodeError| NetlinkError::Malformed(error.to_string());
    let mut answers = Vec::new();
    while !datagram.is_empty() {
        let buffer = NetlinkBuffer::new_checked(datagram).map_err(malformed)?;
        let (sequence, kind) = (buffer.sequence_number(), buffer.message_type());
        if i32::from(buffer.flags()) & libc::NLM_F_DUMP_INTR != 0 {
            answers.push(Answer::Interrupted { sequence });
        }
        let payload = buffer.payload();
        answers.push(match i32::from(kind) {
            libc::NLMSG_ERROR | libc::NLMSG_DONE => {
                let is_done = i32::from(kind) == libc::NLMSG_DONE;
                let explain = |errno| Refusal {
                    errno,
                    explanation: refusal::explanation(buffer.flags(), is_done, payload),
                };
                let result = status(payload)?.map_err(explain);
                Answer::Status { sequence, result }
            }
            _ => Answer::Message {
                sequence,
                kind,
                payload: payload.to_vec(),
            },
        });
        let length = (buffer.length() as usize).next_multiple_of(4).min(datagram.len());
        datagram = &datagram[length..];
    }
    Ok(answers)
}

/// The first field of an error or done message: 0, or an error number below zero.
fn status(payload: &[u8]) -> Result<Result<(), Errno>, NetlinkError> {
    let Some(code) = payload.first_chunk() else {
        return Err(NetlinkError::Malformed("an error without a number".to_owned()));
    };
    Ok(match i32::from_ne_bytes(*code) {
        0 => Ok(()),
        code => Err(Errno::from_raw(code.saturating_neg())),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u16, flags: u16, sequence: u32, payload: &[u8]) -> Vec<u8> {
        let mut bytes = (16 + payload.len() as u32).to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(flags.to_ne_bytes());
        bytes.extend(sequence.to_ne_bytes());
        bytes.extend(0_u32.to_ne_bytes());
        bytes.extend(payload);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    #[test]
    fn a_datagram_holds_many_messages() {
        let error = (-libc::EPERM).to_ne_bytes();
        let datagram = [
            message(7, 0, 1, b"abcde"),
            message(2, 0, 3, &error),
            message(3, 0, 4, &[0; 4]),
        ]
        .concat();
        let answers = answers(&datagram).unwrap();
        assert!(matches!(&answers[0], Answer::Message { kind: 7, payload, .. } if payload == b"abcde"));
        assert!(matches!(
            &answers[1],
            Answer::Status { sequence: 3, result: Err(refusal) } if *refusal == Errno::EPERM.into()
        ));
        assert!(matches!(
            answers[2],
            Answer::Status {
                sequence: 4,
                result: Ok(())
            }
        ));
    }

    #[test]
    fn interrupted_dump_is_reported() {
        let datagram = message(7, libc::NLM_F_DUMP_INTR as u16, 1, b"");
        assert!(matches!(
            answers(&datagram).unwrap()[0],
            Answer::Interrupted { sequence: 1 }
        ));
    }

    #[test]
    fn truncated_datagrams_are_refused() {
        let datagram = message(2, 0, 1, &[1, 2]);
        assert!(matches!(answers(&datagram), Err(NetlinkError::Malformed(_))));
        assert!(matches!(answers(&datagram[..10]), Err(NetlinkError::Malformed(_))));
    }

    #[test]
    fn smallest_error_number_is_valid() {
        let datagram = message(2, 0, 3, &i32::MIN.to_ne_bytes());
        let answers = answers(&datagram).unwrap();
        assert!(matches!(
            &answers[0],
            Answer::Status { result: Err(refusal), .. } if refusal.errno == Errno::UnknownErrno
        ));
    }

    /// A transport that answers each request first with a late answer to another one.
    #[derive(Default)]
    struct Late {
        waiting: Vec<Vec<u8>>,
        sent: u32,
    }

    impl Wire for Late {
        fn send(&mut self, datagram: &[u8]) -> nix::Result<()> {
            let sequence = u32::from_ne_bytes(datagram[8..12].try_into().unwrap());
            self.sent += 1;
            let (mine, other) = (self.sent.to_ne_bytes(), [0xff; 4]);
            self.waiting = vec![
                message(3, 0, sequence, &[0; 4]),
                message(7, 0, sequence, &mine),
                message(3, 0, sequence.wrapping_sub(1), &[0; 4]),
                message(7, 0, sequence + 1, &other),
            ];
            Ok(())
        }

        fn receive(&mut self, buffer: &mut [u8]) -> nix::Result<usize> {
            let datagram = self.waiting.pop().ok_or(Errno::EAGAIN)?;
            buffer[..datagram.len()].copy_from_slice(&datagram);
            Ok(datagram.len())
        }
    }

    #[test]
    fn answer_to_another_request_is_skipped() {
        let mut socket = Socket::over(Box::<Late>::default());
        for number in 1..=3_u32 {
            let messages = socket.dump(&message(18, 0, 0, b"")).unwrap();
            assert_eq!(messages, [(7, number.to_ne_bytes().to_vec())]);
        }
    }

    #[test]
    fn each_request_has_unique_sequence_numbers() {
        let mut batch = [
            message(16, 0, 0, b"a"),
            message(18, 0, 1, b"abcde"),
            message(17, 0, 2, b""),
        ]
        .concat();
        assert_eq!(number(&mut batch, 5).unwrap(), 5..=7);
        assert_eq!([batch[8], batch[28], batch[52]], [5, 6, 7]);
        assert!(number(&mut batch, u32::MAX).is_err());
        assert!(number(&mut [0; 16], 1).is_err());
        assert!(number(&mut [0xff; 8], 1).is_err());
    }
}
