//! What is asked of nf_tables: requests, as bytes.

use libc::{
    NFT_MSG_GETCHAIN, NFT_MSG_GETGEN, NFT_MSG_GETOBJ, NFT_MSG_GETRULE, NFT_MSG_GETSET, NFT_MSG_GETSETELEM,
    NFT_MSG_GETTABLE,
};
use netlink_packet_core::NLM_F_DUMP;

use super::attributes::{Attributes, TooLong};
use super::encode::{Kind, append};
use super::uapi::*;

/// A request as bytes, unless a name in it is too long.
pub type Question = Result<Vec<u8>, TooLong>;

/// Which generation of the ruleset there is now.
pub fn generation() -> Question {
    request(NFT_MSG_GETGEN, NFPROTO_UNSPEC, 0, |_| {})
}

/// All tables of our family.
pub fn tables() -> Question {
    request(NFT_MSG_GETTABLE, NFPROTO_INET, NLM_F_DUMP, |_| {})
}

/// All tables there are.
pub fn tables_of_all_families() -> Question {
    request(NFT_MSG_GETTABLE, NFPROTO_UNSPEC, NLM_F_DUMP, |_| {})
}

/// All chains of our family.
pub fn chains() -> Question {
    request(NFT_MSG_GETCHAIN, NFPROTO_INET, NLM_F_DUMP, |_| {})
}

/// All chains there are.
pub fn chains_of_all_families() -> Question {
    request(NFT_MSG_GETCHAIN, NFPROTO_UNSPEC, NLM_F_DUMP, |_| {})
}

/// The rules of a table of our family.
pub fn rules(table: &str) -> Question {
    rules_of_family(NFPROTO_INET, table)
}

/// The rules of a table of any family: `NFPROTO_…` of linux/netfilter.h.
pub fn rules_of_family(family: u8, table: &str) -> Question {
    request(NFT_MSG_GETRULE, family, NLM_F_DUMP, |rules| {
        rules.text(NFTA_RULE_TABLE, table);
    })
}

/// The sets of a table of our family.
pub fn sets(table: &str) -> Question {
    request(NFT_MSG_GETSET, NFPROTO_INET, NLM_F_DUMP, |sets| {
        sets.text(NFTA_SET_TABLE, table);
    })
}

/// The elements of a set in a table of our family.
pub fn elements(table: &str, set: &str) -> Question {
    request(NFT_MSG_GETSETELEM, NFPROTO_INET, NLM_F_DUMP, |elements| {
        elements.text(NFTA_SET_ELEM_LIST_TABLE, table);
        elements.text(NFTA_SET_ELEM_LIST_SET, set);
    })
}

/// The objects of a table of our family that have a name.
pub fn objects(table: &str) -> Question {
    request(NFT_MSG_GETOBJ, NFPROTO_INET, NLM_F_DUMP, |objects| {
        objects.text(NFTA_OBJ_TABLE, table);
    })
}

fn request(kind: i32, family: u8, flags: u16, write: impl FnOnce(&mut Attributes)) -> Question {
    let mut attributes = Attributes::default();
    write(&mut attributes);
    let mut bytes = Vec::new();
    append(&mut bytes, Kind::NfTables { kind, family }, flags, 0, &attributes)?;
    Ok(bytes)
}
