//! The nftables backend: our table in the language of nf_tables, and over netlink.

mod attributes;
pub(super) mod blocked;
mod contents;
mod decode;
mod elements;
pub mod encode;
mod expression;
mod foreign;
mod foreign_tables;
pub mod installed;
pub mod listing;
pub mod live;
mod message;
mod missing;
mod own_tables;
pub(super) mod published;
mod record;
pub mod request;
pub mod transaction;
mod uapi;

pub use attributes::{Malformed, TooLong};
pub use contents::contents;
pub use decode::decode;
pub use encode::{Object, Step, create, create_in, remove, renew, replace, transaction};
pub use foreign::base_chains;
pub use foreign_tables::ForeignTable;
pub use listing::Listing;
pub use message::Message;
pub use own_tables::{Found, OwnTables};
pub use record::without_record;
pub use transaction::{Nftables, NftablesError};
