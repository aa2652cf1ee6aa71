//! Messages that nf_tables answers the requests of [`super::request`] with.

use libc::{NFNL_SUBSYS_NFTABLES, NFT_MSG_NEWCHAIN, NFT_MSG_NEWGEN, NFT_MSG_NEWSET, NFT_MSG_NEWTABLE};

use super::attributes::{Malformed, find, number, read, text};
use super::uapi::*;
use crate::ruleset::Hook;

/// The fixed part before the attributes: `struct nfgenmsg` (linux/netfilter/nfnetlink.h).
const HEADER_LENGTH: usize = 4;

/// A message of nf_tables.
#[derive(Clone, Debug)]
pub struct Message {
    /// The family of the table: `NFPROTO_…` (linux/netfilter.h).
    pub family: u8,
    /// `enum nf_tables_msg_types`.
    pub(super) kind: i32,
    pub(super) attributes: Vec<u8>,
}

impl Message {
    /// Reads a message from its type (`nlmsg_type`) and what follows the netlink header.
    ///
    /// # Errors
    /// The message is of another subsystem, or an attribute is truncated.
    pub fn read(kind: u16, payload: &[u8]) -> Result<Self, Malformed> {
        let [subsystem, kind] = kind.to_be_bytes();
        let ([family, ..], attributes) = payload
            .split_first_chunk::<HEADER_LENGTH>()
            .filter(|_| i32::from(subsystem) == NFNL_SUBSYS_NFTABLES)
            .ok_or(Malformed)?;
        read(attributes).try_for_each(|attribute| attribute.map(drop))?;
        Ok(Self {
            family: *family,
            kind: kind.into(),
            attributes: attributes.to_vec(),
        })
    }

    /// The current generation of the ruleset, if the message holds it.
    pub fn generation(&self) -> Option<u32> {
        number(self.of(NFT_MSG_NEWGEN)?.attribute(NFTA_GEN_ID)?).ok()
    }

    /// The table of the object.
    pub fn table(&self) -> Option<String> {
        // This attribute names the table, in messages about a table and about anything in it.
        self.attribute(NFTA_TABLE_NAME).map(text)
    }

    /// The name of the chain, if the message is about one.
    pub fn chain(&self) -> Option<String> {
        self.of(NFT_MSG_NEWCHAIN)?.attribute(NFTA_CHAIN_NAME).map(text)
    }

    /// Whether this is a base chain without effect and without references: it has no rules, and the policy is to
    /// accept.
    pub fn is_empty_base_chain(&self) -> bool {
        let Some(chain) = self.of(NFT_MSG_NEWCHAIN) else {
            return false;
        };
        let number = |kind| chain.attribute(kind).map(number).and_then(Result::ok);
        chain.attribute(NFTA_CHAIN_HOOK).is_some()
            && number(NFTA_CHAIN_USE) == Some(0)
            && number(NFTA_CHAIN_POLICY) == Some(libc::NF_ACCEPT as u32)
    }

    /// Whether this is a chain of IP packets at the hook input, or one of type `nat` at the hook prerouting.
    pub fn is_at_input_or_translates(&self) -> bool {
        let Some(chain) = self.of(NFT_MSG_NEWCHAIN) else {
            return false;
        };
        let family = i32::from(self.family);
        let hook = chain
            .attribute(NFTA_CHAIN_HOOK)
            .and_then(|hook| find(hook, NFTA_HOOK_HOOKNUM))
            .and_then(|hook| number(hook).ok());
        let is_at = |wanted: Hook| hook == Some(wanted.number());
        let is_nat = || chain.attribute(NFTA_CHAIN_TYPE).map(text).as_deref() == Some("nat");
        matches!(family, libc::NFPROTO_INET | libc::NFPROTO_IPV4 | libc::NFPROTO_IPV6)
            && (is_at(Hook::Input) || is_at(Hook::Prerouting) && is_nat())
    }

    /// The number of chains, sets and other objects in a table, if the message is about one.
    pub fn objects(&self) -> Option<usize> {
        let objects = self.of(NFT_MSG_NEWTABLE)?.attribute(NFTA_TABLE_USE)?;
        number(objects).ok().map(|objects| objects as usize)
    }

    /// The name of the set, if the message is about one.
    pub fn set(&self) -> Option<String> {
        self.of(NFT_MSG_NEWSET)?.attribute(NFTA_SET_NAME).map(text)
    }

    fn of(&self, kind: i32) -> Option<&Self> {
        (self.kind == kind).then_some(self)
    }

    fn attribute(&self, kind: u16) -> Option<&[u8]> {
        find(&self.attributes, kind)
    }
}
