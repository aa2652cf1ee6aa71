//! The iptables backends: a ruleset as iptables rules, and as `iptables-restore` text.
//!
//! This module hides the limits of iptables: a program for each family, no sets, 15 ports in a `multiport` match, chain
//! names of 28 characters. [`lower()`] turns a ruleset into [`Tables`], and [`patch()`] writes the text that turns one
//! state into another. Every text comes from there: a dry run is the patch from nothing to the plan, removal the patch
//! from the installed state to nothing, and rollback the reverse patch. Two states are equal if the patch is empty.
//!
//! Source: iptables(8), iptables-restore(8), iptables-extensions(8).

mod contents;
mod error;
pub mod isolation;
pub mod legacy;
mod lower;
mod patch;
mod program;
mod raise;
mod removal;
pub mod restore;
mod saved;
mod script;
mod tables;
#[cfg(test)]
mod tests;
mod variant;

pub use contents::{InFront, contents};
pub use error::{Failure, IptablesError};
pub use lower::{MAX_RULES, TooManyRules, lower};
pub use patch::{patch, same};
pub use raise::{counts, raise};
pub use removal::removal;
pub use restore::Iptables;
pub use script::script;
pub use tables::{Chain, Jump, PREFIX, Spec, Table, TableName, Tables};
pub use variant::Variant;
