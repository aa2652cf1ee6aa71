//! Requests to nf_tables, as bytes.

use libc::{
    NFT_MSG_GETCHAIN, NFT_MSG_GETGEN, NFT_MSG_GETOBJ, NFT_MSG_GETRULE, NFT_MSG_GETSET, NFT_MSG_GETSETELEM,
    NFT_MSG_GETTABLE,
};
use netlink_packet_core::NLM_F_DUMP;

use super::attributes::{Attributes, TooLong};
use super::encode::{Kind, append};
use super::uapi::*;

/// A request as bytes, unless a name in it is too long.
pub type Request = Result<Vec<u8>, TooLong>;

/// The current generation of the ruleset.
pub fn generation() -> Request {
    request(NFT_MSG_GETGEN, NFPROTO_UNSPEC, 0, |_| {})
}

/// All tables of a family: `NFPROTO_…` of linux/netfilter.h.
pub fn tables(family: u8) -> Request {
    request(NFT_MSG_GETTABLE, family, NLM_F_DUMP, |_| {})
}

/// All tables of all families.
pub fn tables_of_all_families() -> Request {
    request(NFT_MSG_GETTABLE, NFPROTO_UNSPEC, NLM_F_DUMP, |_| {})
}

/// All chains of a family.
pub fn chains(family: u8) -> Request {
    request(NFT_MSG_GETCHAIN, family, NLM_F_DUMP, |_| {})
}

/// All chains of all families.
pub fn chains_of_all_families() -> Request {
    request(NFT_MSG_GETCHAIN, NFPROTO_UNSPEC, NLM_F_DUMP, |_| {})
}

/// The rules of a table of any family: `NFPROTO_…` of linux/netfilter.h.
pub fn rules_of_family(family: u8, table: &str) -> Request {
    request(NFT_MSG_GETRULE, family, NLM_F_DUMP, |rules| {
        rules.text(NFTA_RULE_TABLE, table);
    })
}

/// The sets of a table.
pub fn sets(family: u8, table: &str) -> Request {
    request(NFT_MSG_GETSET, family, NLM_F_DUMP, |sets| {
        sets.text(NFTA_SET_TABLE, table);
    })
}

/// The elements of a set.
pub fn elements(family: u8, table: &str, set: &str) -> Request {
    request(NFT_MSG_GETSETELEM, family, NLM_F_DUMP, |elements| {
        elements.text(NFTA_SET_ELEM_LIST_TABLE, table);
        elements.text(NFTA_SET_ELEM_LIST_SET, set);
    })
}

/// The named objects of a table.
pub fn objects(family: u8, table: &str) -> Request {
    request(NFT_MSG_GETOBJ, family, NLM_F_DUMP, |objects| {
        objects.text(NFTA_OBJ_TABLE, table);
    })
}

fn request(kind: i32, family: u8, flags: u16, write: impl FnOnce(&mut Attributes)) -> Request {
    let mut attributes = Attributes::default();
    write(&mut attributes);
    let mut bytes = Vec::new();
    append(&mut bytes, Kind::NfTables { kind, family }, flags, 0, &attributes)?;
    Ok(bytes)
}
