//! Rules read back from the kernel, in the same terms as planned ones.

use std::fmt;

use super::{Name, Ruleset};
use crate::types::Families;

/// The installed rules owned by sidetrack.
///
/// Another process may have changed them, so some may be rules that no plan has: what cannot be expressed in our
/// terms is left out of the ruleset and listed separately.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installed {
    /// The readable part. It need not be sound: chains and sets that rules name may be missing.
    pub ruleset: Ruleset,
    /// The unreadable parts, in the order in which they were found.
    pub unreadable: Vec<Unreadable>,
}

impl Installed {
    /// No rules at all.
    pub fn nothing() -> Self {
        Self::from(Ruleset {
            families: Families::Both,
            timeouts: None,
            sets: Vec::new(),
            chains: Vec::new(),
            record: None,
        })
    }
}

/// A planned ruleset, as if it were installed.
impl From<Ruleset> for Installed {
    fn from(ruleset: Ruleset) -> Self {
        Self {
            ruleset,
            unreadable: Vec::new(),
        }
    }
}

/// An installed object that our terms cannot express.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable {
    /// The place of the object.
    pub place: Place,
    /// Its text in the syntax of the backend.
    pub text: String,
    /// Its comment, or an empty string.
    pub comment: String,
}

/// The place of an installed object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// The table as a whole.
    Table,
    /// The hook of a base chain. The ruleset has the chain with its rules, but without a hook.
    Hook(Name),
    /// A set.
    Set(Name),
    /// A rule.
    Rule {
        /// Chain of the rule.
        chain: Name,
        /// Number of rules before it in the chain, unreadable ones included.
        position: usize,
    },
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Table => f.write_str("the table")?,
            Place::Hook(chain) => write!(f, "the hook of chain {chain}")?,
            Place::Set(set) => write!(f, "set {set}")?,
            Place::Rule { chain, position } => write!(f, "rule {} of chain {chain}", position + 1)?,
        }
        write!(f, ": {}", self.text)?;
        if self.comment.is_empty() {
            return Ok(());
        }
        write!(f, " (\"{}\")", self.comment)
    }
}
