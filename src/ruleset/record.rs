//! The record of a redirection: comments that are installed with the rules.

use super::{Action, Chain, Name, Rule, Ruleset};

/// The comments of a chain that no packet passes. Their text says which options the rules were planned from.
///
/// Rules keep comments on every kernel that sidetrack supports. Tables and chains do only since Linux 5.10.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record(Chain);

impl Record {
    /// The name of the chain.
    pub const CHAIN: &str = "options";

    /// A record of these comments.
    pub fn new(comments: impl IntoIterator<Item = String>) -> Self {
        let rule = |comment: String| Rule {
            matches: Vec::new(),
            action: Action::Return,
            has_counter: false,
            comment: comment.into(),
        };
        Self(Chain {
            name: Name::from(Self::CHAIN),
            hook: None,
            rules: comments.into_iter().map(rule).collect(),
        })
    }

    /// The chain that holds the comments.
    pub fn chain(&self) -> &Chain {
        &self.0
    }

    /// The comments, in order.
    pub fn comments(&self) -> impl Iterator<Item = &str> {
        self.0.rules.iter().map(|rule| rule.comment.as_ref())
    }

    /// Whether a chain is a record: its name is that of a record, and it has no effect on packets.
    fn is_in(chain: &Chain) -> bool {
        let has_no_effect = |rule: &Rule| rule.matches.is_empty() && rule.action == Action::Return;
        chain.name == Self::CHAIN && chain.hook.is_none() && chain.rules.iter().all(has_no_effect)
    }
}

impl Ruleset {
    /// The chains as backends install them: those of the rules, then the record's.
    pub fn installed_chains(&self) -> impl Iterator<Item = &Chain> {
        self.chains.iter().chain(self.record.iter().map(Record::chain))
    }

    /// The same rules without the record.
    #[must_use]
    pub fn without_record(&self) -> Self {
        Self {
            record: None,
            ..self.clone()
        }
    }

    /// The same rules, with the record taken from the chains that were read.
    #[must_use]
    pub fn with_record_of_chains(mut self) -> Self {
        if let Some(at) = self.chains.iter().position(Record::is_in) {
            self.record = Some(Record(self.chains.remove(at)));
        }
        self
    }
}
