//! The nftables backend: reads and writes our table over netlink, a transaction at a time.

use nix::errno::Errno;
use nix::sys::socket::SockProtocol;
use thiserror::Error;

use super::question::Question;
use super::{Listing, Malformed, Message, Object, Step, TooLong, encode, missing, question};
use crate::backend::{Change, KernelError, Rules};
use crate::drift::{Difference, Subject};
use crate::linux::netlink::{ATTEMPTS, Answer, NetlinkError, Refusal, Socket, attempts};
use crate::ruleset::{Installed, Ruleset, TABLE};
use crate::types::Family;

/// How often what is installed is compared with what is wanted, before it is simply put in place.
const CAREFUL_ATTEMPTS: usize = 8;

/// What nf_tables could not do.
#[derive(Debug, Error)]
pub enum NftablesError {
    /// We may not.
    #[error("the kernel does not allow access to nf_tables here ({0})")]
    NotPermitted(Refusal),
    /// The kernel cannot.
    #[error(
        "this kernel cannot do {what} ({refusal}). Load or build the module {module}, \
         or use --backend iptables-legacy where iptables has NAT"
    )]
    Unsupported {
        /// What is missing.
        what: String,
        /// The module that has it.
        module: String,
        /// How the kernel said so.
        refusal: Refusal,
    },
    /// The kernel refused a part of the transaction. Nothing was changed.
    #[error("the kernel refused {object}: {refusal}; nothing was changed")]
    Refused {
        /// The part.
        object: Object,
        /// Why.
        refusal: Refusal,
    },
    /// The answer to a transaction was lost, and it could not be found out whether the kernel has carried it out.
    #[error(
        "the kernel's answer to a transaction of nf_tables was lost ({0}), so our rules may be the old or the new ones, \
         whole. Run sidetrack again: it looks what is there, and does what is missing"
    )]
    Unanswered(#[source] NetlinkError),
    /// Others kept changing the ruleset.
    #[error(
        "other programs changed the nftables ruleset during each of {ATTEMPTS} attempts to read it. \
         Try again when they are done"
    )]
    Busy,
    /// The conversation itself failed.
    #[error("speaking to nf_tables: {0}")]
    Netlink(#[from] NetlinkError),
}

impl NftablesError {
    /// The kernel's error number, where it has refused a part of a transaction.
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::Refused { refusal, .. } => Some(refusal.errno),
            _ => None,
        }
    }

    /// Whether a transaction was refused because the ruleset has changed since it was read.
    pub(super) fn is_of_another_generation(&self) -> bool {
        matches!(self, Self::Netlink(NetlinkError::Refused(refusal)) if refusal.errno == Errno::ERESTART)
    }

    /// Whether what was asked about is not there.
    fn is_about_nothing(&self) -> bool {
        matches!(self, Self::Netlink(NetlinkError::Refused(refusal)) if refusal.errno == Errno::ENOENT)
    }

    /// Whether the kernel has all but the objects that hold timeouts.
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
    /// Opens the conversation. This changes nothing, and needs no privilege.
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

    /// The conversation over this socket.
    pub fn over(socket: Socket) -> Self {
        Self { socket }
    }

    /// Makes our table hold exactly `ruleset`, in one transaction; sends none where it does already.
    ///
    /// `installed` says whether our table was seen before. It saves a conversation and need not be right.
    ///
    /// # Errors
    /// The kernel cannot or may not; then nothing was changed. The one exception is [`NftablesError::Unanswered`].
    pub fn apply(&mut self, ruleset: &Ruleset, installed: bool) -> Result<Change, NftablesError> {
        let mut unanswered = None;
        match self.try_apply(ruleset, installed, &mut unanswered) {
            Err(error) => Err(unanswered.map_or(error, |(_, lost)| NftablesError::Unanswered(lost))),
            done => done,
        }
    }

    /// The same. A transaction whose answer was lost is left in `unanswered`, with what it has done if it has done
    /// anything: the next look at the table tells.
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
                // Any other step that finds its object there would be a mistake.
                Err(NftablesError::Refused {
                    object: Object::Table,
                    refusal,
                }) if refusal.errno == Errno::EEXIST => tracing::debug!("our table appeared meanwhile"),
                Err(NftablesError::Unanswered(lost)) => *unanswered = Some((Change::Created, lost)),
                Err(error) => return Err(error),
            }
        }
        let planned = Listing::of_steps(&steps);
        for attempt in attempts().take(CAREFUL_ATTEMPTS) {
            let (generation, present) = match self.read() {
                Err(NftablesError::Netlink(NetlinkError::Interrupted)) => continue,
                read => read?,
            };
            if present == planned {
                return Ok(unanswered.take().map_or(Change::Unchanged, |(change, _)| change));
            }
            *unanswered = None; // It was not carried out.
            match self.commit(&encode::replace(ruleset, &planned, &present), Some(generation)) {
                Ok(()) => return Ok(Change::Replaced),
                Err(error) if error.is_of_another_generation() => {
                    tracing::debug!(attempt, "another program changed the ruleset; reading it again");
                }
                Err(NftablesError::Unanswered(lost)) => *unanswered = Some((Change::Replaced, lost)),
                Err(error) => return Err(error),
            }
        }
        tracing::debug!("other programs keep changing the ruleset; putting ours in place without having looked");
        self.renew(ruleset)?;
        Ok(Change::Replaced)
    }

    /// Puts `ruleset` in the place of whatever our table holds, in one transaction, which nobody can disturb.
    ///
    /// # Errors
    /// The kernel cannot or may not; then nothing was changed. The one exception is [`NftablesError::Unanswered`].
    pub fn renew(&mut self, ruleset: &Ruleset) -> Result<(), NftablesError> {
        self.commit(&encode::renew(ruleset), None)
    }

    /// How what our table holds differs from `ruleset`.
    ///
    /// # Errors
    /// It could not be read.
    pub fn differences(&mut self, ruleset: &Ruleset) -> Result<Vec<Difference>, NftablesError> {
        let planned = Listing::of_steps(&encode::create(ruleset));
        let present = self.listing()?;
        if present == planned {
            return Ok(Vec::new());
        }
        // Rules without timeouts are all that there can be on a kernel that has none.
        let without = ruleset.without_timeouts();
        if present == Listing::of_steps(&encode::create(&without)) && self.lacks_timeouts(ruleset)? {
            return Ok(Vec::new());
        }
        let table = format!("inet {TABLE}");
        let contents = |listing| super::contents(&table, listing);
        let (planned, present) = (contents(&planned), contents(&present));
        Ok(planned.compare_unequal(&present, Subject::Table { table }))
    }

    /// What our table holds, as rules; nothing where there is no table of ours.
    ///
    /// # Errors
    /// It could not be read.
    pub fn installed(&mut self) -> Result<Installed, NftablesError> {
        Ok(super::decode(&self.listing()?))
    }

    /// Whether the kernel has no objects for the timeouts of these rules. Changes nothing.
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

    fn listing(&mut self) -> Result<Listing, NftablesError> {
        let (_, present) = undisturbed(|| self.read())?;
        Ok(present)
    }

    /// Asks the kernel the least that nf_tables can be asked.
    ///
    /// # Errors
    /// There is no nf_tables, or we may not use it.
    pub fn answers(&mut self) -> Result<(), NftablesError> {
        self.generation().map(drop)
    }

    /// Removes our table. Returns whether there was one.
    ///
    /// # Errors
    /// The kernel cannot or may not; or [`NftablesError::Unanswered`].
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

    /// What our table holds, and of which generation of the ruleset that is. It takes several questions; where the
    /// ruleset changes between them, the answers do not belong together, and the reading was interrupted.
    fn read(&mut self) -> Result<(u32, Listing), NftablesError> {
        let generation = self.generation()?;
        let tables = self.dump(question::tables())?;
        let chains = self.dump(question::chains())?;
        let mut messages: Vec<Message> = tables.into_iter().chain(chains).collect();
        messages.retain(|message| message.table().is_some_and(|table| table == TABLE));
        messages.extend(self.dump(question::rules(TABLE))?);
        // Of all tables, where the kernel does not take the table's name for a condition.
        let mut objects = self.dump(question::objects(TABLE))?;
        objects.retain(|message| message.table().is_some_and(|table| table == TABLE));
        messages.extend(objects);
        let sets = match self.dump(question::sets(TABLE)) {
            // The kernel says so where there is no such table; then there are no sets either.
            Err(error) if error.is_about_nothing() => Vec::new(),
            sets => sets?,
        };
        let names: Vec<String> = sets.iter().filter_map(Message::set).collect();
        messages.extend(sets);
        for name in names {
            messages.extend(match self.dump(question::elements(TABLE, &name)) {
                // Somebody has removed the set since the sets were listed.
                Err(error) if error.is_about_nothing() => {
                    return Err(NetlinkError::Interrupted.into());
                }
                elements => elements?,
            });
        }
        let listing = Listing::of(&messages).map_err(malformed)?;
        if self.generation()? != generation {
            return Err(NetlinkError::Interrupted.into());
        }
        Ok((generation, listing))
    }

    /// The number of the current generation of the ruleset. It changes with every transaction of anybody.
    pub(super) fn generation(&mut self) -> Result<u32, NftablesError> {
        self.socket.send(question::generation()?)?;
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

    pub(super) fn dump(&mut self, question: Question) -> Result<Vec<Message>, NftablesError> {
        match self.socket.dump(&question?) {
            Ok(answers) => answers
                .iter()
                .map(|(kind, payload)| read_message(*kind, payload))
                .collect(),
            Err(NetlinkError::Refused(refusal)) => Err(refused(refusal, None)),
            Err(error) => Err(error.into()),
        }
    }

    /// Sends a transaction and reads its answer.
    ///
    /// # Errors
    /// The kernel has not carried it out; or [`NftablesError::Unanswered`].
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
            // All answers are there when the send returns; the one to the last step comes last.
            let answers = match self.socket.receive() {
                // One error is enough: nothing was changed.
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
                return Ok(()); // Only the last step asks for an answer.
            }
        }
        let no_answer = || NftablesError::Unanswered(NetlinkError::Malformed("there is none".to_owned()));
        Err(failure.unwrap_or_else(no_answer))
    }
}

/// What `read` gives once nobody disturbs it.
pub(super) fn undisturbed<T>(mut read: impl FnMut() -> Result<T, NftablesError>) -> Result<T, NftablesError> {
    for _ in attempts() {
        match read() {
            Err(NftablesError::Netlink(NetlinkError::Interrupted)) => {}
            read => return read,
        }
    }
    Err(NftablesError::Busy)
}

/// Puts a refusal into words. An error of no step in particular is about the transaction as a whole.
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
    // The kernel asks for the module of a type by itself; that it is still missing shows here.
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

    fn differences(&mut self, ruleset: &Ruleset) -> Result<Vec<Difference>, KernelError> {
        Ok(Self::differences(self, ruleset)?)
    }
}
