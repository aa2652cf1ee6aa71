//! One difference, as text and as JSON.

use std::fmt;

use serde_json::{Value, json};

use crate::ruleset::Hook;
use crate::types::Family;

/// The kind of a difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Planned, but not installed.
    Missing,
    /// Installed, but not planned.
    Extra,
    /// Installed with other properties than planned.
    Changed,
    /// Installed in another order than planned.
    Moved,
    /// Not owned by sidetrack, and before or in conflict with what is.
    Foreign,
}

/// The object that differs. Tables are named as a person writes them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// The backend that holds our rules.
    Backend,
    /// A table.
    Table {
        /// Name.
        table: String,
    },
    /// A chain, or the hook that calls it.
    Chain {
        /// Table.
        table: String,
        /// Name.
        chain: String,
    },
    /// A rule.
    Rule {
        /// Table of the chain.
        table: String,
        /// Chain of the rule.
        chain: String,
        /// Position in the planned chain, from 1, if planned.
        expected_at: Option<usize>,
        /// Position in the installed chain, from 1, if installed.
        found_at: Option<usize>,
        /// The comment that states the rule's purpose.
        comment: String,
    },
    /// A foreign base chain at a hook that our chains use too.
    BaseChain {
        /// Table.
        table: String,
        /// Name.
        chain: String,
        /// Netfilter hook.
        hook: Hook,
        /// Priority at that hook.
        priority: i32,
    },
    /// A set, or its type.
    Set {
        /// Table.
        table: String,
        /// Name.
        set: String,
    },
    /// Elements of a set.
    Elements {
        /// The table of the set.
        table: String,
        /// The set.
        set: String,
        /// The elements.
        elements: Vec<String>,
    },
    /// A named object, such as the ct timeouts that rules set.
    Object {
        /// Table.
        table: String,
        /// Name.
        name: String,
    },
    /// An address of the loopback interface.
    Address,
    /// A policy routing rule.
    PolicyRule(Family),
    /// A route in the table that such a rule selects.
    Route(Family),
}

/// One object that is not as planned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// How it differs.
    pub kind: Kind,
    /// The object.
    pub subject: Subject,
    /// The planned state, where text can show it.
    pub expected: Option<String>,
    /// The installed state, where text can show it.
    pub found: Option<String>,
}

impl Difference {
    /// A difference from its parts.
    pub fn new(kind: Kind, subject: Subject, expected: Option<String>, found: Option<String>) -> Self {
        Self {
            kind,
            subject,
            expected,
            found,
        }
    }

    /// Whether applying the plan repairs it. Foreign objects are left unchanged; but in a chain shared with foreign
    /// rules, ours are moved to the front again.
    pub fn is_repaired_by_apply(&self) -> bool {
        self.kind != Kind::Foreign || matches!(self.subject, Subject::Rule { .. })
    }

    /// The backend that holds our rules, if it is not the planned one.
    pub fn unplanned_backend(&self) -> Option<&str> {
        match (self.kind, &self.subject) {
            (Kind::Changed, Subject::Backend) => self.found.as_deref(),
            _ => None,
        }
    }

    /// As a JSON object; docs/check.md describes its fields.
    pub fn json(&self) -> Value {
        let mut object = json!({ "kind": self.kind.name(), "object": self.subject.name() });
        let mut set = |key: &str, value: Value| object[key] = value;
        match &self.subject {
            Subject::Backend | Subject::Address => {}
            Subject::Table { table } => set("table", json!(table)),
            Subject::Chain { table, chain } => {
                set("table", json!(table));
                set("chain", json!(chain));
            }
            Subject::Rule {
                table,
                chain,
                expected_at,
                found_at,
                comment,
            } => {
                set("table", json!(table));
                set("chain", json!(chain));
                set("expectedPosition", json!(expected_at));
                set("foundPosition", json!(found_at));
                set("comment", json!(comment));
            }
            Subject::BaseChain {
                table,
                chain,
                hook,
                priority,
            } => {
                set("table", json!(table));
                set("chain", json!(chain));
                set("hook", json!(hook.name()));
                set("priority", json!(priority));
            }
            Subject::Set { table, set: name } => {
                set("table", json!(table));
                set("set", json!(name));
            }
            Subject::Elements {
                table,
                set: name,
                elements,
            } => {
                set("table", json!(table));
                set("set", json!(name));
                set("elements", json!(elements));
            }
            Subject::Object { table, name } => {
                set("table", json!(table));
                set("name", json!(name));
            }
            Subject::PolicyRule(family) | Subject::Route(family) => set("family", json!(self::family(*family))),
        }
        set("expected", json!(self.expected));
        set("found", json!(self.found));
        set("repairedByApply", json!(self.is_repaired_by_apply()));
        set("words", json!(self.to_string()));
        object
    }
}

fn family(family: Family) -> &'static str {
    match family {
        Family::V4 => "ipv4",
        Family::V6 => "ipv6",
    }
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Extra => "extra",
            Self::Changed => "changed",
            Self::Moved => "moved",
            Self::Foreign => "foreign",
        }
    }
}

impl Subject {
    fn name(&self) -> &'static str {
        match self {
            Self::Backend => "backend",
            Self::Table { .. } => "table",
            Self::Chain { .. } => "chain",
            Self::Rule { .. } => "rule",
            Self::BaseChain { .. } => "base-chain",
            Self::Set { .. } => "set",
            Self::Elements { .. } => "elements",
            Self::Object { .. } => "object",
            Self::Address => "address",
            Self::PolicyRule(_) => "policy-rule",
            Self::Route(_) => "route",
        }
    }
}

/// A short description; empty where the object's own text is enough.
impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        /// The most set elements that are listed.
        const MAX_LISTED_ELEMENTS: usize = 8;
        match self {
            Self::Backend | Self::Address | Self::PolicyRule(_) | Self::Route(_) => Ok(()),
            Self::Table { table } => write!(f, "table {table}"),
            Self::Chain { table, chain } => write!(f, "chain {chain} in {table}"),
            Self::Rule {
                table,
                chain,
                expected_at,
                found_at,
                ..
            } => {
                let at = expected_at.or(*found_at).unwrap_or_default();
                write!(f, "rule {at} of chain {chain} in {table}")?;
                match (expected_at, found_at) {
                    (Some(expected), Some(found)) if expected != found => write!(f, ", now rule {found}"),
                    _ => Ok(()),
                }
            }
            Self::BaseChain {
                table,
                chain,
                hook,
                priority,
            } => write!(
                f,
                "chain {chain} in {table}, at hook {} with priority {priority},",
                hook.name()
            ),
            Self::Set { table, set } => write!(f, "set {set} in {table}"),
            Self::Object { table, name } => write!(f, "object {name} in {table}"),
            Self::Elements { table, set, elements } => {
                let listed = elements
                    .iter()
                    .take(MAX_LISTED_ELEMENTS)
                    .map(String::as_str)
                    .collect::<Vec<_>>();
                write!(f, "{}", listed.join(", "))?;
                if let Some(more) = elements.len().checked_sub(MAX_LISTED_ELEMENTS).filter(|more| *more > 0) {
                    write!(f, " and {more} more")?;
                }
                write!(f, " of set {set} in {table}")
            }
        }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, subject, .. } = self;
        write!(f, "{}: {subject}", kind.name())?;
        let or_nothing = |text: &Option<String>| text.clone().unwrap_or_else(|| "nothing".to_owned());
        let (expected, found) = (or_nothing(&self.expected), or_nothing(&self.found));
        let text = if self.expected.is_some() { &expected } else { &found };
        match (kind, subject) {
            (Kind::Changed, Subject::Backend) => write!(f, "the rules are in {found}, expected in {expected}"),
            (_, Subject::Backend) => write!(f, "sidetrack has rules in {text} too"),
            (Kind::Changed, Subject::Address | Subject::PolicyRule(_) | Subject::Route(_)) => {
                write!(f, "expected {expected}, found {found}")
            }
            (_, Subject::Address | Subject::PolicyRule(_) | Subject::Route(_)) => f.write_str(text),
            (Kind::Changed, _) => write!(f, ": expected {expected}, found {found}"),
            (Kind::Foreign, Subject::Chain { .. }) => write!(f, " belongs to {text}, which also redirects traffic"),
            (Kind::Foreign, _) => write!(f, " comes before sidetrack's rules: {text}"),
            (Kind::Missing | Kind::Extra | Kind::Moved, _) if self.expected.is_none() && self.found.is_none() => Ok(()),
            (Kind::Missing | Kind::Extra | Kind::Moved, _) => write!(f, ": {text}"),
        }
    }
}
