//! Rules that were read back from where they are in force, in the same terms as planned ones.

use std::fmt;

use super::{Name, Ruleset};
use crate::types::Families;

/// What is installed under our names.
///
/// Somebody may have changed it, so not all of it need be rules that a plan could have: what cannot be said in our
/// terms is left out of the ruleset and named instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installed {
    /// What could be read. It need not be sound: chains and sets that rules name may be missing.
    pub ruleset: Ruleset,
    /// What could not be read, in the order in which it was found.
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

/// Something that is installed and that our terms have no words for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable {
    /// Where it is.
    pub place: Place,
    /// What it looks like, in the words of the system that holds it.
    pub text: String,
    /// The comment that it bears, or nothing.
    pub comment: String,
}

/// Where something is installed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// The table as a whole.
    Table,
    /// Where a base chain is called from. The ruleset has the chain with its rules, and without a hook.
    Hook(Name),
    /// A set.
    Set(Name),
    /// A rule.
    Rule {
        /// The chain that it is in.
        chain: Name,
        /// How many rules come before it in the chain, those that cannot be read among them.
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
