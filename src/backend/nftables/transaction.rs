//! The netlink socket of the nftables backend: requests, dumps, transactions, and the errors they end with.

use nix::errno::Errno;
use nix::sys::socket::SockProtocol;
use thiserror::Error;

use super::request::Request;
use super::{Malformed, Message, Object, Step, TooLong, encode, missing, request};
use crate::linux::netlink::{ATTEMPTS, Answer, NetlinkError, Refusal, Socket, attempts};
use crate::linux::release::Release;
use crate::ruleset::TableFamily;
use crate::types::Family;

/// An error of the nftables backend.
#[derive(Debug, Error)]
pub enum NftablesError {
    /// Permission denied.
    #[error("the kernel does not allow access to nf_tables here ({0})")]
    NotPermitted(Refusal),
    /// The kernel lacks a feature.
    #[error(
        "this kernel cannot do {what} ({refusal}). Load or build the module {module}, \
         or use --backend iptables-legacy where iptables has NAT"
    )]
    Unsupported {
        /// The missing feature.
        what: String,
        /// The kernel module that provides it.
        module: String,
        /// The kernel's refusal.
        refusal: Refusal,
    },
    /// A table for each family does not work on this kernel.
    #[error(
        "Linux {0} cannot do NAT in a table for each IP family beside other NAT: it needs 4.18. Use a newer kernel, or \
         --backend iptables-legacy"
    )]
    TooOld(Release),
    /// The kernel refused a step of the transaction. Nothing changed.
    #[error("the kernel refused {object}: {refusal}; nothing was changed")]
    Refused {
        /// The object of the step.
        object: Object,
        /// The kernel's refusal.
        refusal: Refusal,
    },
    /// The acknowledgement of a transaction was lost, and reading back did not show whether the kernel committed it.
    #[error(
        "the acknowledgement of an nf_tables transaction was lost ({0}): either the old or the new rules are in force, \
         never a mix. Run sidetrack again: it reads the rules and completes them"
    )]
    Unanswered(#[source] NetlinkError),
    /// Other processes kept changing the ruleset.
    #[error(
        "other processes changed the nftables ruleset during each of {ATTEMPTS} attempts to read it. \
         Try again when they are done"
    )]
    Busy,
    /// The netlink exchange failed.
    #[error("nf_tables request failed: {0}")]
    Netlink(#[from] NetlinkError),
}

impl NftablesError {
    /// Whether the kernel lacks what the rules need.
    pub fn is_unsupported(&self) -> bool {
        matches!(self, Self::Unsupported { .. } | Self::TooOld(_))
    }

    /// The kernel's error number, if it refused a step of a transaction.
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::Refused { refusal, .. } => Some(refusal.errno),
            _ => None,
        }
    }

    /// Whether the kernel refused a transaction because the ruleset has changed since it was read.
    pub(super) fn is_stale_generation(&self) -> bool {
        matches!(self, Self::Netlink(NetlinkError::Refused(refusal)) if refusal.errno == Errno::ERESTART)
    }

    /// Whether the object of a request does not exist.
    pub(super) fn is_not_found(&self) -> bool {
        matches!(self, Self::Netlink(NetlinkError::Refused(refusal)) if refusal.errno == Errno::ENOENT)
    }

    /// Whether the kernel lacks nothing but ct timeout objects.
    pub fn lacks_timeouts(&self) -> bool {
        matches!(
            self,
            Self::Refused {
                object: Object::Timeouts,
                refusal,
            } if matches!(refusal.errno, Errno::ENOENT | Errno::EOPNOTSUPP)
        )
    }
}

impl From<TooLong> for NftablesError {
    fn from(_: TooLong) -> Self {
        NetlinkError::TooLong("a part of the rules").into()
    }
}

/// nf_tables, in the network namespace that the thread was in when it was opened.
pub struct Nftables {
    socket: Socket,
}

impl Nftables {
    /// Opens a netlink socket. This changes nothing and needs no privilege.
    ///
    /// # Errors
    /// The kernel has no netfilter netlink.
    pub fn open() -> Result<Self, NftablesError> {
        match Socket::open(SockProtocol::NetlinkNetFilter) {
            Ok(socket) => Ok(Self::over(socket)),
            Err(NetlinkError::Open(errno @ (Errno::EPROTONOSUPPORT | Errno::EAFNOSUPPORT))) => {
                Err(NftablesError::Unsupported {
                    what: "netfilter over netlink".to_owned(),
                    module: "nfnetlink".to_owned(),
                    refusal: errno.into(),
                })
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Uses this socket.
    pub fn over(socket: Socket) -> Self {
        Self { socket }
    }

    /// Checks that nf_tables answers, with its cheapest request.
    ///
    /// # Errors
    /// The kernel has no nf_tables, or does not permit using it.
    pub fn check_available(&mut self) -> Result<(), NftablesError> {
        self.generation().map(drop)
    }

    /// The sets of a table, and their elements.
    pub(super) fn sets(&mut self, family: u8, table: &str) -> Result<Vec<Message>, NftablesError> {
        let mut messages = match self.dump(request::sets(family, table)) {
            // The kernel answers so if the table does not exist; then there are no sets either.
            Err(error) if error.is_not_found() => Vec::new(),
            sets => sets?,
        };
        let names: Vec<String> = messages.iter().filter_map(Message::set).collect();
        for name in names {
            messages.extend(match self.dump(request::elements(family, table, &name)) {
                // Another process removed the set after the sets were listed.
                Err(error) if error.is_not_found() => {
                    return Err(NetlinkError::Interrupted.into());
                }
                elements => elements?,
            });
        }
        Ok(messages)
    }

    /// The current generation of the ruleset. Every transaction of any process changes it.
    pub(super) fn generation(&mut self) -> Result<u32, NftablesError> {
        self.socket.send(request::generation()?)?;
        for answer in self.socket.receive()? {
            match answer {
                Answer::Message { kind, payload, .. } => {
                    if let Some(id) = read_message(kind, &payload)?.generation() {
                        return Ok(id);
                    }
                }
                Answer::Status {
                    result: Err(refusal), ..
                } => return Err(refused(refusal, None)),
                Answer::Interrupted { .. } | Answer::Status { result: Ok(()), .. } => {}
            }
        }
        Err(NetlinkError::Malformed("no generation of the ruleset".to_owned()).into())
    }

    pub(super) fn dump(&mut self, request: Request) -> Result<Vec<Message>, NftablesError> {
        match self.socket.dump(&request?) {
            Ok(answers) => answers
                .iter()
                .map(|(kind, payload)| read_message(*kind, payload))
                .collect(),
            Err(NetlinkError::Refused(refusal)) => Err(refused(refusal, None)),
            Err(error) => Err(error.into()),
        }
    }

    /// Sends a transaction and reads its acknowledgement.
    ///
    /// # Errors
    /// The kernel did not commit it; or [`NftablesError::Unanswered`].
    pub(super) fn commit(&mut self, steps: &[Step], generation: Option<u32>) -> Result<(), NftablesError> {
        let bytes = encode::transaction(steps, generation)?;
        tracing::debug!(
            steps = steps.len(),
            bytes = bytes.len(),
            "sending a transaction to nf_tables"
        );
        self.exchange(bytes, steps)
    }

    pub(super) fn exchange(&mut self, bytes: Vec<u8>, steps: &[Step]) -> Result<(), NftablesError> {
        self.socket.send(bytes)?;
        let mut failure = None;
        let mut answered = false;
        loop {
            // All answers are queued when the send returns; the one to the last step comes last.
            let answers = match self.socket.receive() {
                // One error is enough: nothing changed.
                Err(_) if failure.is_some() => break,
                answers => answers.map_err(NftablesError::Unanswered)?,
            };
            if answers.is_empty() {
                break;
            }
            for answer in answers {
                let Answer::Status { sequence, result } = answer else {
                    continue;
                };
                answered = true;
                if let Err(refusal) = result
                    && failure.is_none()
                {
                    let step = (sequence as usize).checked_sub(1).and_then(|index| steps.get(index));
                    failure = Some(refused(refusal, step));
                }
            }
            if failure.is_none() && answered {
                return Ok(()); // Only the last step requests an acknowledgement.
            }
        }
        let no_answer = || NftablesError::Unanswered(NetlinkError::Malformed("no acknowledgement".to_owned()));
        Err(failure.unwrap_or_else(no_answer))
    }
}

/// Repeats `read` until no change to the ruleset interrupts it.
pub(super) fn retry_interrupted<T>(mut read: impl FnMut() -> Result<T, NftablesError>) -> Result<T, NftablesError> {
    for _ in attempts() {
        match read() {
            Err(NftablesError::Netlink(NetlinkError::Interrupted)) => {}
            read => return read,
        }
    }
    Err(NftablesError::Busy)
}

/// The error for a refusal. Without a step, it is about the transaction as a whole.
fn refused(refusal: Refusal, step: Option<&Step>) -> NftablesError {
    let unsupported = |what: String, module: String, refusal| NftablesError::Unsupported { what, module, refusal };
    let (errno, object) = (refusal.errno, step.map(|step| &step.object));
    if matches!(errno, Errno::EPERM | Errno::EACCES) {
        return NftablesError::NotPermitted(refusal);
    }
    match (errno, object) {
        (Errno::EOPNOTSUPP | Errno::EINVAL, None) => {
            return unsupported("nf_tables".to_owned(), "nf_tables".to_owned(), refusal);
        }
        (Errno::EAFNOSUPPORT | Errno::EOPNOTSUPP, Some(Object::Table(family))) => {
            let (packets, setting) = match family {
                TableFamily::Inet => ("both IP families", "INET"),
                TableFamily::Only(Family::V4) => ("IPv4", "IPV4"),
                TableFamily::Only(Family::V6) => ("IPv6", "IPV6"),
            };
            let module = format!("nf_tables (with CONFIG_NF_TABLES_{setting})");
            return unsupported(format!("tables for {packets} in nf_tables"), module, refusal);
        }
        _ => {}
    }
    // The kernel loads the module of a type by itself; here it did not find one.
    if let (Errno::ENOENT | Errno::EOPNOTSUPP, Some(step)) = (errno, step) {
        let offset = refusal.explanation.as_ref().and_then(|explanation| explanation.offset);
        let modules = missing::modules(step, offset);
        if !modules.is_empty() {
            return unsupported(step.object.to_string(), modules.join(" or "), refusal);
        }
    }
    match object {
        Some(object) => NftablesError::Refused {
            object: object.clone(),
            refusal,
        },
        None => NetlinkError::Refused(refusal).into(),
    }
}

fn read_message(kind: u16, payload: &[u8]) -> Result<Message, NftablesError> {
    Message::read(kind, payload).map_err(malformed)
}

pub(super) fn malformed(message: Malformed) -> NftablesError {
    NetlinkError::Malformed(message.to_string()).into()
}
