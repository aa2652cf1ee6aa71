//! The nftables backend: reads and writes our table over netlink, each change in one transaction.

use nix::errno::Errno;
use nix::sys::socket::SockProtocol;
use thiserror::Error;

use super::request::Request;
use super::uapi::NFPROTO_INET;
use super::{Listing, Malformed, Message, Object, Step, TooLong, encode, missing, request};
use crate::backend::{Change, KernelError, Rules};
use crate::drift::{Difference, Subject};
use crate::linux::netlink::{ATTEMPTS, Answer, NetlinkError, Refusal, Socket, attempts};
use crate::ruleset::{Counts, Installed, Ruleset, TABLE};
use crate::stats::Stats;
use crate::types::Family;

/// Attempts to update the table by comparison, before it is replaced without reading it.
const MAX_COMPARE_ATTEMPTS: usize = 8;

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
    fn is_not_found(&self) -> bool {
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

/// Our table, in the network namespace that the thread was in when it was opened.
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

    /// Makes our table hold exactly `ruleset` in one transaction; sends none if it does already.
    ///
    /// `installed`: the observation found our table. It saves a request and need not be right.
    ///
    /// # Errors
    /// Writing failed or is not permitted. Nothing changed, except with [`NftablesError::Unanswered`].
    pub fn apply(&mut self, ruleset: &Ruleset, installed: bool) -> Result<Change, NftablesError> {
        let mut unanswered = None;
        match self.try_apply(ruleset, installed, &mut unanswered) {
            Err(error) => Err(unanswered.map_or(error, |(_, lost)| NftablesError::Unanswered(lost))),
            done => done,
        }
    }

    /// The same. A transaction whose acknowledgement was lost is stored in `unanswered`, with the change it makes if it
    /// was committed: the next read of the table shows that.
    fn try_apply(
        &mut self,
        ruleset: &Ruleset,
        installed: bool,
        unanswered: &mut Option<(Change, NetlinkError)>,
    ) -> Result<Change, NftablesError> {
        let steps = encode::create(ruleset);
        if !installed {
            match self.commit(&steps, None) {
                Ok(()) => return Ok(Change::Created),
                // For any other step, an existing object would be a bug.
                Err(NftablesError::Refused {
                    object: Object::Table,
                    refusal,
                }) if refusal.errno == Errno::EEXIST => tracing::debug!("another process created our table meanwhile"),
                Err(NftablesError::Unanswered(lost)) => *unanswered = Some((Change::Created, lost)),
                Err(error) => return Err(error),
            }
        }
        let planned = Listing::of_steps(&steps);
        for attempt in attempts().take(MAX_COMPARE_ATTEMPTS) {
            let (generation, present, counts) = match self.read() {
                Err(NftablesError::Netlink(NetlinkError::Interrupted)) => continue,
                read => read?,
            };
            if present == planned {
                return Ok(unanswered.take().map_or(Change::Unchanged, |(change, _)| change));
            }
            *unanswered = None; // It was not committed.
            // Connections that rules count from now on, until the transaction replaces them, are lost to the counters.
            let counts = counts.is_empty().then(Counts::default).unwrap_or_else(|| {
                let (installed, counts) = counted(&present, counts);
                Stats::new(&installed.ruleset, &counts).carried_over(ruleset)
            });
            match self.commit(&encode::replace(ruleset, &planned, &present, &counts), Some(generation)) {
                Ok(()) => return Ok(Change::Replaced),
                Err(error) if error.is_stale_generation() => {
                    tracing::debug!(attempt, "another process changed the ruleset; reading it again");
                }
                Err(NftablesError::Unanswered(lost)) => *unanswered = Some((Change::Replaced, lost)),
                Err(error) => return Err(error),
            }
        }
        tracing::debug!("other processes keep changing the ruleset; replacing our table without reading it");
        if ruleset.has_counters() {
            tracing::warn!("counters begin at 0: the rules were replaced without reading them");
        }
        self.renew(ruleset)?;
        Ok(Change::Replaced)
    }

    /// Replaces our table with `ruleset` without reading it, in one transaction that no other process can interrupt.
    ///
    /// # Errors
    /// Writing failed or is not permitted. Nothing changed, except with [`NftablesError::Unanswered`].
    pub fn renew(&mut self, ruleset: &Ruleset) -> Result<(), NftablesError> {
        self.commit(&encode::renew(ruleset), None)
    }

    /// The differences of our table from `ruleset`.
    ///
    /// # Errors
    /// Reading failed.
    pub fn differences(&mut self, ruleset: &Ruleset) -> Result<Vec<Difference>, NftablesError> {
        // Other options may have led to the same rules.
        let ruleset = &ruleset.without_record();
        let planned = Listing::of_steps(&encode::create(ruleset));
        let present = super::without_record(self.listing()?);
        if present == planned {
            return Ok(Vec::new());
        }
        // A kernel without ct timeout objects can only hold rules without timeouts.
        let without = ruleset.without_timeouts();
        if present == Listing::of_steps(&encode::create(&without)) && self.lacks_timeouts(ruleset)? {
            return Ok(Vec::new());
        }
        let table = format!("inet {TABLE}");
        let contents = |listing| super::contents(&table, listing);
        let (planned, present) = (contents(&planned), contents(&present));
        Ok(planned.compare_unequal(&present, Subject::Table { table }))
    }

    /// The rules of our table; none if it does not exist.
    ///
    /// # Errors
    /// Reading failed.
    pub fn installed(&mut self) -> Result<Installed, NftablesError> {
        Ok(super::decode(&self.listing()?))
    }

    /// Whether the kernel lacks ct timeout objects for these rules. Changes nothing.
    fn lacks_timeouts(&mut self, ruleset: &Ruleset) -> Result<bool, NftablesError> {
        let Some(timeouts) = &ruleset.timeouts else {
            return Ok(false);
        };
        let steps = encode::only_timeouts(timeouts);
        match self.exchange(encode::rehearsal(&steps, None)?, &steps) {
            Ok(()) => Ok(false),
            Err(error) if error.lacks_timeouts() => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// The rules of our table, and the values of their counters.
    ///
    /// # Errors
    /// Reading failed.
    pub fn counts(&mut self) -> Result<(Installed, Counts), NftablesError> {
        let (_, present, counts) = retry_interrupted(|| self.read())?;
        Ok(counted(&present, counts))
    }

    fn listing(&mut self) -> Result<Listing, NftablesError> {
        let (_, present, _) = retry_interrupted(|| self.read())?;
        Ok(present)
    }

    /// Checks that nf_tables answers, with its cheapest request.
    ///
    /// # Errors
    /// The kernel has no nf_tables, or does not permit using it.
    pub fn check_available(&mut self) -> Result<(), NftablesError> {
        self.generation().map(drop)
    }

    /// Removes our table. Returns whether there was one.
    ///
    /// # Errors
    /// Removing failed or is not permitted; or [`NftablesError::Unanswered`].
    pub fn remove(&mut self) -> Result<bool, NftablesError> {
        let mut unanswered = None;
        for _ in attempts() {
            match self.commit(&encode::remove(), None) {
                Ok(()) => return Ok(true),
                Err(error) if error.errno() == Some(Errno::ENOENT) => return Ok(unanswered.is_some()),
                Err(NftablesError::Unanswered(lost)) => unanswered = Some(lost),
                Err(error) => return Err(unanswered.map_or(error, NftablesError::Unanswered)),
            }
        }
        Err(unanswered.map_or(NftablesError::Busy, NftablesError::Unanswered))
    }

    /// The generation of the ruleset, the contents of our table, and the values of its counters. Reading takes several
    /// requests; if the ruleset changes between them, the answers are inconsistent, and the read counts as interrupted.
    fn read(&mut self) -> Result<(u32, Listing, Counts), NftablesError> {
        let generation = self.generation()?;
        let tables = self.dump(request::tables())?;
        let chains = self.dump(request::chains())?;
        let mut messages: Vec<Message> = tables.into_iter().chain(chains).collect();
        messages.retain(|message| message.table().is_some_and(|table| table == TABLE));
        messages.extend(self.dump(request::rules(TABLE))?);
        // Old kernels ignore the table's name in this request and list the objects of all tables.
        let mut objects = self.dump(request::objects(TABLE))?;
        objects.retain(|message| message.table().is_some_and(|table| table == TABLE));
        messages.extend(objects);
        messages.extend(self.sets(NFPROTO_INET, TABLE)?);
        let mut listing = Listing::of(&messages).map_err(malformed)?;
        if self.generation()? != generation {
            return Err(NetlinkError::Interrupted.into());
        }
        let counts = listing.take_counts();
        Ok((generation, listing, counts))
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

    fn exchange(&mut self, bytes: Vec<u8>, steps: &[Step]) -> Result<(), NftablesError> {
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

/// The rules of a listing, and the values of the counters of those that can be read.
fn counted(listing: &Listing, counts: Counts) -> (Installed, Counts) {
    let installed = super::decode(listing);
    let counts = counts.of_readable(&installed);
    (installed, counts)
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
        (Errno::EAFNOSUPPORT | Errno::EOPNOTSUPP, Some(Object::Table)) => {
            let module = "nf_tables (with CONFIG_NF_TABLES_INET)".to_owned();
            return unsupported("tables for both IP families in nf_tables".to_owned(), module, refusal);
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

impl Rules for Nftables {
    fn apply(&mut self, ruleset: &Ruleset, installed: bool) -> Result<Change, KernelError> {
        Ok(Self::apply(self, ruleset, installed)?)
    }

    fn remove(&mut self) -> Result<bool, KernelError> {
        Ok(Self::remove(self)?)
    }

    fn installed(&mut self, _: Family) -> Result<Installed, KernelError> {
        Ok(Self::installed(self)?)
    }

    fn counts(&mut self, _: Family) -> Result<(Installed, Counts), KernelError> {
        Ok(Self::counts(self)?)
    }

    fn differences(&mut self, ruleset: &Ruleset) -> Result<Vec<Difference>, KernelError> {
        Ok(Self::differences(self, ruleset)?)
    }
}
