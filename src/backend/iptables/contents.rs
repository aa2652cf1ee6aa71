//! Our part of the tables of one family in the syntax of `iptables-save`, for comparing and for people.

use super::tables::{Chain, Jump, Spec, TableName, Tables};
use crate::drift::{Contents, Line, List, Subject, Thing};
use crate::types::Family;

/// A foreign rule before the first rule owned by sidetrack, in a foreign chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InFront {
    /// The table.
    pub table: TableName,
    /// The chain.
    pub chain: String,
    /// The position of the rule, from 1.
    pub position: usize,
    /// The rule.
    pub spec: Spec,
}

/// The contents of the tables, with the foreign rules first.
pub fn contents(tables: &Tables, in_front: &[InFront], family: Family) -> Contents {
    let program = match family {
        Family::V4 => "iptables",
        Family::V6 => "ip6tables",
    };
    let mut contents = Contents::default();
    for name in TableName::ALL {
        let title = format!("{program} {}", name.as_str());
        let subject = |chain: &str| Subject::Chain {
            table: title.clone(),
            chain: chain.to_owned(),
        };
        let Some(table) = tables.get(name) else {
            continue;
        };
        for Chain { name, rules } in &table.chains {
            contents.things.push(Thing {
                what: subject(name),
                text: String::new(),
            });
            contents.lists.push(List {
                of: subject(name),
                lines: rules
                    .iter()
                    .zip(1..)
                    .map(|(spec, position)| line(position, spec, false))
                    .collect(),
            });
        }
        for Jump { from, .. } in &table.jumps {
            let of = subject(from);
            if contents.lists.iter().any(|list| list.of == of) {
                continue;
            }
            let mut lines = Vec::new();
            for rule in in_front.iter().filter(|rule| rule.table == name && rule.chain == *from) {
                lines.push(line(rule.position, &rule.spec, true));
            }
            for (position, spec) in table.jumps_from(from) {
                lines.push(line(position, spec, false));
            }
            contents.lists.push(List { of, lines });
        }
    }
    contents
}

fn line(position: usize, spec: &Spec, foreign: bool) -> Line {
    Line {
        position,
        text: spec.to_string(),
        comment: spec.comment().to_owned(),
        foreign,
    }
}
