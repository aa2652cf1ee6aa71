//! The nftables backend: our table in the language of nf_tables, and over netlink.

mod attributes;
mod contents;
mod decode;
mod elements;
pub mod encode;
mod expression;
mod foreign;
pub mod listing;
mod message;
mod missing;
mod others;
pub mod question;
pub mod transaction;
mod uapi;

pub use attributes::{Malformed, TooLong};
pub use contents::contents;
pub use decode::decode;
pub use encode::{Object, Step, create, remove, renew, replace, transaction};
pub use foreign::base_chains;
pub use listing::Listing;
pub use message::Message;
pub use transaction::{Nftables, NftablesError};
