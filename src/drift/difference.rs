//! One difference, in words and as JSON.

use std::fmt;

use serde_json::{Value, json};

use crate::ruleset::Hook;
use crate::types::Family;

/// What kind of difference it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Planned, and not there.
    Missing,
    /// There, and not planned.
    Extra,
    /// There, and not as planned.
    Changed,
    /// There, in another order than planned.
    Moved,
    /// Somebody else's, where it is before ours or against it.
    Foreign,
}

/// What differs. Tables are told by name, as a person would write it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// The backend that holds our rules.
    Backend,
    /// A table as a whole.
    Table {
        /// Its name.
        table: String,
    },
    /// A chain, or where the kernel calls it.
    Chain {
        /// Its table.
        table: String,
        /// Its name.
        chain: String,
    },
    /// A rule.
    Rule {
        /// The table of its chain.
        table: String,
        /// Its chain.
        chain: String,
        /// Its number in the planned chain, from 1, if it is planned.
        expected_at: Option<usize>,
        /// Its number in the installed chain, from 1, if it is installed.
        found_at: Option<usize>,
        /// What it is for.
        comment: String,
    },
    /// A chain of somebody else's, at a hook that ours are at too.
    BaseChain {
        /// Its table.
        table: String,
        /// Its name.
        chain: String,
        /// The hook.
        hook: Hook,
        /// Its priority there.
        priority: i32,
    },
    /// A set, or what it can hold.
    Set {
        /// Its table.
        table: String,
        /// Its name.
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
    /// An object with a name, such as the timeouts that rules set.
    Object {
        /// Its table.
        table: String,
        /// Its name.
        name: String,
    },
    /// An address of the loopback interface.
    Address,
    /// A rule of policy routing.
    PolicyRule(Family),
    /// A route of the table that such a rule leads to.
    Route(Family),
}

/// One thing that is not as planned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The kind of difference.
    pub kind: Kind,
    /// What it is about.
    pub subject: Subject,
    /// What was planned, where words tell it.
    pub expected: Option<String>,
    /// What is there, where words tell it.
    pub found: Option<String>,
}

impl Difference {
    /// The difference.
    pub fn new(kind: Kind, subject: Subject, expected: Option<String>, found: Option<String>) -> Self {
        Self {
            kind,
            subject,
            expected,
            found,
        }
    }

    /// Whether applying the plan puts it right. What is somebody else's is left as it is; but where rules of ours share
    /// a chain with it, ours come first again.
    pub fn is_repaired_by_apply(&self) -> bool {
        self.kind != Kind::Foreign || matches!(self.subject, Subject::Rule { .. })
    }

    /// The backend that holds our rules, where it is another one than planned.
    pub fn elsewhere(&self) -> Option<&str> {
        match (self.kind, &self.subject) {
            (Kind::Changed, Subject::Backend) => self.found.as_deref(),
            _ => None,
        }
    }

    /// As an object; docs/check.md describes its fields.
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
                set("hook", json!(self::hook(*hook)));
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

fn hook(hook: Hook) -> &'static str {
    match hook {
        Hook::Prerouting => "prerouting",
        Hook::Output => "output",
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

/// What it is about, in a few words; nothing where the thing itself says enough.
impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        /// How many elements of a set are told.
        const ELEMENTS: usize = 8;
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
                self::hook(*hook)
            ),
            Self::Set { table, set } => write!(f, "set {set} in {table}"),
            Self::Object { table, name } => write!(f, "object {name} in {table}"),
            Self::Elements { table, set, elements } => {
                let told = elements.iter().take(ELEMENTS).map(String::as_str).collect::<Vec<_>>();
                write!(f, "{}", told.join(", "))?;
                if let Some(more) = elements.len().checked_sub(ELEMENTS).filter(|more| *more > 0) {
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
            (Kind::Changed, Subject::Backend) => write!(f, "the rules are in {found}, and would be in {expected}"),
            (_, Subject::Backend) => write!(f, "rules of ours in {text} too"),
            (Kind::Changed, Subject::Address | Subject::PolicyRule(_) | Subject::Route(_)) => {
                write!(f, "expected {expected}, found {found}")
            }
            (_, Subject::Address | Subject::PolicyRule(_) | Subject::Route(_)) => f.write_str(text),
            (Kind::Changed, _) => write!(f, ": expected {expected}, found {found}"),
            (Kind::Foreign, Subject::Chain { .. }) => write!(f, " is of {text}, which redirects traffic too"),
            (Kind::Foreign, _) => write!(f, " comes before ours: {text}"),
            (Kind::Missing | Kind::Extra | Kind::Moved, _) if self.expected.is_none() && self.found.is_none() => Ok(()),
            (Kind::Missing | Kind::Extra | Kind::Moved, _) => write!(f, ": {text}"),
        }
    }
}
