//! Planned and installed rules in iptables syntax.

use std::collections::BTreeMap;
use std::fmt;

use crate::ruleset::{FILTER_PREFIX, Record};
use crate::types::Family;

/// Name prefix of our chains: [`crate::ruleset::TABLE`] in capitals. Chains with other names, and rules
/// that do not jump to our chains, are foreign.
pub const PREFIX: &str = "SIDETRACK_";

/// A table of iptables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TableName {
    /// `raw`: before connection tracking.
    Raw,
    /// `mangle`: changes packets.
    Mangle,
    /// `nat`: translates addresses.
    Nat,
    /// `filter`: accepts or drops packets.
    Filter,
    /// `security`: labels for mandatory access control.
    Security,
}

impl TableName {
    /// Every table.
    pub const ALL: [Self; 5] = [Self::Raw, Self::Mangle, Self::Nat, Self::Filter, Self::Security];

    /// The name that iptables knows it by.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Mangle => "mangle",
            Self::Nat => "nat",
            Self::Filter => "filter",
            Self::Security => "security",
        }
    }
}

/// Our part of the tables: our chains, and the jumps to them from foreign chains.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tables(BTreeMap<TableName, Table>);

impl Tables {
    /// The table called `name`, if something in it is owned by sidetrack.
    pub fn get(&self, name: TableName) -> Option<&Table> {
        self.0.get(&name)
    }

    /// The table called `name`, to add to.
    pub fn entry(&mut self, name: TableName) -> &mut Table {
        self.0.entry(name).or_default()
    }

    /// Whether no table holds anything owned by sidetrack.
    pub fn is_empty(&self) -> bool {
        self.0.values().all(|table| *table == Table::default())
    }

    /// The tables as the program of one family reads them: without the rules of the other, and without family marks.
    #[must_use]
    pub fn of(&self, family: Family) -> Self {
        self.filter_map(|spec| {
            let concerned = spec.family.is_none_or(|only| only == family);
            concerned.then(|| Spec::new(None, spec.words.clone()))
        })
    }

    /// Whether any chain has rules.
    pub fn has_rules(&self) -> bool {
        let mut chains = self.0.values().flat_map(|table| &table.chains);
        chains.any(|chain| !chain.rules.is_empty())
    }

    /// The same without comments and without the record, for kernels without the comment extension.
    #[must_use]
    pub fn without_comments(&self) -> Self {
        self.without_record().filter_map(|spec| Some(spec.without_comment()))
    }

    /// The table for the record: the first that has rules of the plan, nat if it is one of them.
    pub(super) fn of_record(&self) -> Option<TableName> {
        let mut tables = [TableName::Nat, TableName::Mangle, TableName::Raw].into_iter();
        tables.find(|name| self.0.contains_key(name))
    }

    /// The same without the record.
    #[must_use]
    pub fn without_record(&self) -> Self {
        let mut tables = self.clone();
        for table in tables.0.values_mut() {
            table.chains.retain(|chain| !chain.is_record());
        }
        tables
    }

    /// Input for `iptables-restore --noflush` that sets the counters of all rules to 0; `None` without chains.
    pub fn zeroing(&self) -> Option<String> {
        let mut text = String::new();
        for (name, table) in self.0.iter().filter(|(_, table)| !table.chains.is_empty()) {
            text += &format!("*{}\n", name.as_str());
            for chain in &table.chains {
                text += &format!("-Z {}\n", chain.name);
            }
            text += "COMMIT\n";
        }
        (!text.is_empty()).then_some(text)
    }

    /// Whether our chains have rules, but none with a comment.
    pub fn lacks_comments(&self) -> bool {
        let chains = self.0.values().flat_map(|table| &table.chains);
        let mut rules = chains.flat_map(|chain| &chain.rules).peekable();
        rules.peek().is_some() && rules.all(|spec| spec.comment_at().is_none())
    }

    fn filter_map(&self, change: impl Fn(&Spec) -> Option<Spec>) -> Self {
        let chain = |chain: &Chain| Chain {
            name: chain.name.clone(),
            rules: chain.rules.iter().filter_map(&change).collect(),
        };
        let jump = |jump: &Jump| {
            let spec = change(&jump.spec)?;
            Some(Jump { spec, ..jump.clone() })
        };
        let table = |table: &Table| Table {
            chains: table.chains.iter().map(chain).collect(),
            jumps: table.jumps.iter().filter_map(jump).collect(),
        };
        Self(self.0.iter().map(|(name, ours)| (*name, table(ours))).collect())
    }
}

/// Our part of one table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// Our chains.
    pub chains: Vec<Chain>,
    /// The jumps to them from other chains, in order.
    pub jumps: Vec<Jump>,
}

impl Table {
    /// Our chain called `name`.
    pub fn chain(&self, name: &str) -> Option<&Chain> {
        self.chains.iter().find(|chain| chain.name == name)
    }

    /// The jumps to our chains from the chain called `from`.
    pub fn jumps_from(&self, from: &str) -> impl Iterator<Item = (usize, &Spec)> {
        self.jumps
            .iter()
            .filter(move |jump| jump.from == from)
            .map(|jump| (jump.position, &jump.spec))
    }
}

impl Table {
    /// Whether rules of this table use TPROXY.
    pub fn intercepts(&self) -> bool {
        let mut rules = self.chains.iter().flat_map(|chain| &chain.rules);
        rules.any(|spec| spec.words.windows(2).any(|words| words == ["-j", "TPROXY"]))
    }

    /// Whether base chains of type filter are in this table, with rules of a policy.
    pub fn has_policy(&self) -> bool {
        let prefix = chain_name(FILTER_PREFIX);
        self.chains.iter().any(|chain| chain.name.starts_with(&prefix))
    }
}

/// A chain owned by sidetrack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// Its name.
    pub name: String,
    /// Its rules.
    pub rules: Vec<Spec>,
}

impl Chain {
    /// Whether the chain holds a record: its name is that of a record, and it has no effect on packets.
    fn is_record(&self) -> bool {
        let has_no_effect = |spec: &Spec| spec.without_comment().words == ["-j", "RETURN"];
        self.name == chain_name(Record::CHAIN) && self.rules.iter().all(has_no_effect)
    }
}

/// The name in iptables of a chain of a plan.
pub(super) fn chain_name(name: &str) -> String {
    format!("{PREFIX}{}", name.to_uppercase())
}

/// A rule in a foreign chain that jumps to a chain owned by sidetrack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Jump {
    /// Chain of the rule.
    pub from: String,
    /// Position in that chain, from 1.
    pub position: usize,
    /// The rule.
    pub spec: Spec,
}

/// A rule-specification: the words after `-A CHAIN`, as `iptables-save` prints them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    /// The family of the rule, if not both.
    family: Option<Family>,
    words: Vec<String>,
}

impl Spec {
    /// The rule of these words.
    pub fn new(family: Option<Family>, words: Vec<String>) -> Self {
        Self { family, words }
    }

    /// Its words.
    pub fn words(&self) -> &[String] {
        &self.words
    }

    /// Whether the rule jumps to one of our chains.
    pub fn is_jump_to_own_chain(&self) -> bool {
        self.target_chain().is_some_and(|chain| chain.starts_with(PREFIX))
    }

    /// The chain that the rule jumps to, or a target without options.
    pub fn target_chain(&self) -> Option<&str> {
        // A jump to a chain has no options, so it comes last.
        match self.words.as_slice() {
            [.., how, target] if is_jump(how) => Some(target),
            _ => None,
        }
    }

    /// The option that makes the program of the other family skip the rule.
    pub fn mark(&self) -> &'static str {
        match self.family {
            None => "",
            Some(Family::V4) => "-4 ",
            Some(Family::V6) => "-6 ",
        }
    }

    /// The comment, or an empty string.
    pub(super) fn comment(&self) -> &str {
        self.comment_at().map_or("", |at| &self.words[at + COMMENT_WORDS - 1])
    }

    pub(super) fn without_comment(&self) -> Self {
        let words = match self.comment_at() {
            Some(at) => [&self.words[..at], &self.words[at + COMMENT_WORDS..]].concat(),
            None => self.words.clone(),
        };
        Self::new(self.family, words)
    }

    fn comment_at(&self) -> Option<usize> {
        let is_comment = |words: &[String]| matches!(words, [m, name, ..] if m == "-m" && name == "comment");
        self.words.windows(COMMENT_WORDS).position(is_comment)
    }
}

/// Number of words of a comment match: `-m comment --comment TEXT`.
const COMMENT_WORDS: usize = 4;

fn is_jump(word: &str) -> bool {
    matches!(word, "-j" | "--jump" | "-g" | "--goto")
}

/// The words as `iptables-restore` reads them.
impl fmt::Display for Spec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, word) in self.words.iter().enumerate() {
            if i > 0 {
                f.write_str(" ")?;
            }
            if word.is_empty() || word.contains([' ', '\t', '"', '\'', '\\']) {
                write!(f, "\"{}\"", word.replace('\\', "\\\\").replace('"', "\\\""))?;
            } else {
                f.write_str(word)?;
            }
        }
        Ok(())
    }
}
