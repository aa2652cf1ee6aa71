//! A running trace: its table, its sockets, and the rules that its messages name.

use std::os::fd::{AsFd, BorrowedFd};

use nix::errno::Errno;
use nix::sys::socket::SockProtocol;
use thiserror::Error;

use super::super::transaction::{Nftables, NftablesError, malformed, retry_interrupted};
use super::super::uapi::{NFPROTO_INET, NFT_TABLE_F_OWNER};
use super::super::{Message, request};
use super::{decode, encode, rules};
use crate::linux::netlink::NetlinkError;
use crate::linux::netlink::multicast::{Multicast, Received};
use crate::trace::{Direction, Filter, Message as Trace, Rules, TABLE_PREFIX};

/// The size of the receive buffer in bytes. A traced packet takes about ten messages of a kilobyte.
const BUFFER_LENGTH: usize = 32 * 1024 * 1024;
/// Datagrams that are read before the caller continues.
const MAX_DATAGRAMS: usize = 4096;

/// A trace that cannot begin or go on.
#[derive(Debug, Error)]
pub enum LiveError {
    /// Reading or writing rules failed.
    #[error("tracing: {0}")]
    Nftables(#[from] NftablesError),
    /// The kernel does not permit receiving its messages.
    #[error(
        "the kernel does not permit receiving the messages about traced packets. Run as root, or with CAP_NET_ADMIN in the user namespace that owns the network namespace"
    )]
    NotPermitted,
    /// Receiving messages failed.
    #[error("receiving the messages about traced packets: {0}")]
    Receive(#[source] NetlinkError),
    /// Another process deleted the table.
    #[error("the table inet {0} of this trace is gone: another trace or `nft` deleted it. Start the trace again")]
    Gone(String),
}

/// The numbers of first packets, as the rules counted them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Marked {
    /// Those that the filter selected.
    pub selected: u64,
    /// Those of them that the kernel reports, up to the rate.
    pub reported: u64,
}

/// A running trace. Dropping it ends the trace and removes its table.
pub struct Session {
    nftables: Nftables,
    events: Multicast,
    table: String,
    filter: Filter,
    /// The kernel deletes the table with the socket.
    is_owned: bool,
    generation: u32,
    rules: Rules,
}

impl Session {
    /// Starts a trace of at most `rate` connections a second in the network namespace of this thread.
    ///
    /// # Errors
    /// It is not permitted, or the kernel lacks something. Nothing is left behind.
    pub fn start(filter: &Filter, rate: u32) -> Result<Self, LiveError> {
        let mut nftables = Nftables::open()?;
        let group = libc::NFNLGRP_NFTRACE.cast_unsigned();
        let events =
            Multicast::join(SockProtocol::NetlinkNetFilter, group, BUFFER_LENGTH).map_err(|error| {
                match error.errno() {
                    Some(Errno::EPERM | Errno::EACCES) => LiveError::NotPermitted,
                    _ => LiveError::Receive(error),
                }
            })?;
        let (generation, rules) = read_rules(&mut nftables)?;
        let wanted = encode::Wanted {
            filter,
            traces_dns: rules.match_udp,
            rate,
        };
        // One table for each process, so that traces can run at the same time.
        let mut table = format!("{TABLE_PREFIX}-{}", std::process::id());
        let mut is_owned = true;
        match nftables.commit(&encode::create(&table, NFT_TABLE_F_OWNER, &wanted), None) {
            // Linux before 5.12 does not know the flag.
            Err(error) if matches!(error.errno(), Some(Errno::EINVAL | Errno::EOPNOTSUPP)) => {
                is_owned = false;
                TABLE_PREFIX.clone_into(&mut table);
                nftables.commit(&encode::replace(&table, 0, &wanted), None)?;
                tracing::warn!(
                    "this kernel does not delete the table of a process that is killed (Linux 5.12 does): after SIGKILL, \
                     remove it with `nft delete table inet {table}`; the next trace replaces it"
                );
            }
            created => created?,
        }
        Ok(Self {
            nftables,
            events,
            table,
            filter: filter.clone(),
            is_owned,
            generation,
            rules,
        })
    }

    /// The name of the trace's own table.
    pub fn table(&self) -> &str {
        &self.table
    }

    /// The rules that messages name, as they were read last.
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// Reads the rules again if they have changed. Rules that were deleted meanwhile stay known.
    ///
    /// # Errors
    /// Reading failed.
    pub fn refresh(&mut self) -> Result<(), LiveError> {
        if self.nftables.generation()? == self.generation {
            return Ok(());
        }
        let (generation, mut rules) = read_rules(&mut self.nftables)?;
        // Messages about a deleted rule may still be queued. Handles of a table are not reused.
        for (id, rule) in std::mem::take(&mut self.rules).rules {
            if rules.rules.len() < MAX_KNOWN_RULES {
                rules.rules.entry(id).or_insert(rule);
            }
        }
        (self.generation, self.rules) = (generation, rules);
        Ok(())
    }

    /// Reads queued messages and gives each to `take`. Returns what ended the reading.
    ///
    /// # Errors
    /// Receiving failed.
    pub fn receive(&mut self, mut take: impl FnMut(&Trace, &Rules)) -> Result<Ended, LiveError> {
        for _ in 0..MAX_DATAGRAMS {
            let messages = match self.events.receive().map_err(LiveError::Receive)? {
                Received::Messages(messages) => messages,
                Received::Nothing => return Ok(Ended::Empty),
                Received::Discarded => return Ok(Ended::Discarded),
            };
            for (kind, payload) in messages {
                let message = Message::read(kind, &payload).and_then(|message| decode::decode(&message));
                match message {
                    Ok(Some(trace)) => take(&trace, &self.rules),
                    Ok(None) => {}
                    Err(error) => tracing::debug!(%error, "a message about a traced packet"),
                }
            }
        }
        Ok(Ended::More)
    }

    /// Reads the counters of first packets.
    ///
    /// # Errors
    /// Reading failed, or the table is gone.
    pub fn marked(&mut self) -> Result<Marked, LiveError> {
        let Self { nftables, table, .. } = self;
        let messages = retry_interrupted(|| nftables.dump(request::rules_of_family(NFPROTO_INET, table)))?;
        let mut marked = Marked::default();
        let mut is_there = false;
        for direction in Direction::BOTH {
            let counters = rules::counters(&messages, direction.name()).map_err(malformed)?;
            if let [selected, reported] = counters[..] {
                is_there = true;
                marked.selected += selected;
                marked.reported += reported;
            }
        }
        if is_there {
            Ok(marked)
        } else {
            Err(LiveError::Gone(self.table.clone()))
        }
    }

    /// Marks no further packets; messages about marked ones still arrive.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn stop(&mut self) -> Result<(), LiveError> {
        Ok(self.nftables.commit(&encode::stop(&self.table, &self.filter), None)?)
    }
}

/// Rules that stay known: a program that replaces its rules all the time must not fill the memory.
const MAX_KNOWN_RULES: usize = 100_000;

/// What ended the reading of messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// No message is queued.
    Empty,
    /// Others may be queued.
    More,
    /// The kernel discarded messages after the queued ones.
    Discarded,
}

impl AsFd for Session {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.events.as_fd()
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if self.is_owned {
            return; // The kernel deletes the table when the socket is closed.
        }
        if let Err(error) = self.nftables.commit(&[encode::remove(&self.table)], None) {
            tracing::warn!(
                %error,
                "the table of the trace is still there: remove it with `nft delete table inet {}`",
                self.table
            );
        }
    }
}

/// The generation of the ruleset, and the rules of all tables but those of traces.
fn read_rules(nftables: &mut Nftables) -> Result<(u32, Rules), NftablesError> {
    retry_interrupted(|| {
        let generation = nftables.generation()?;
        let mut messages = nftables.all_chains()?;
        messages.retain(|chain| chain.table().is_some_and(|table| !table.starts_with(TABLE_PREFIX)));
        for (family, table) in rules::tables(&messages) {
            messages.extend(nftables.dump(request::rules_of_family(family, &table))?);
        }
        let rules = rules::rules(messages).map_err(malformed)?;
        if nftables.generation()? != generation {
            return Err(NetlinkError::Interrupted.into());
        }
        Ok((generation, rules))
    })
}
