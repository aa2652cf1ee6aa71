//! What is ours in the tables of one family, in the words of `iptables-save`, for comparing and for people.

use super::tables::{Chain, Spec, TableName, Tables};
use crate::drift;
use crate::ruleset::Family;

/// A rule of somebody else's before the first of ours, in a chain that is not ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InFront {
    /// The table.
    pub table: TableName,
    /// The chain.
    pub chain: String,
    /// The number of the rule in it, from 1.
    pub position: usize,
    /// The rule.
    pub spec: Spec,
}

/// The contents of the tables, with the rules of others before ours.
pub fn contents(tables: &Tables, in_front: &[InFront], family: Family) -> Vec<drift::Table> {
    let program = match family {
        Family::V4 => "iptables",
        Family::V6 => "ip6tables",
    };
    let names = TableName::ALL.into_iter();
    names
        .filter_map(|name| {
            let table = tables.get(name)?;
            let mut chains: Vec<drift::Chain> = table.chains.iter().map(ours).collect();
            for jump in &table.jumps {
                if !chains.iter().any(|chain| chain.name == jump.from) {
                    let before = in_front
                        .iter()
                        .filter(|rule| rule.table == name && rule.chain == jump.from);
                    let before = before.map(|InFront { position, spec, .. }| rule(*position, spec, true));
                    let jumps = table.jumps_from(&jump.from);
                    let jumps = jumps.map(|(position, spec)| rule(position, spec, false));
                    chains.push(drift::Chain {
                        name: jump.from.clone(),
                        ours: false,
                        hook: None,
                        rules: before.chain(jumps).collect(),
                    });
                }
            }
            Some(drift::Table {
                name: format!("{program} {}", name.as_str()),
                flaw: None,
                chains,
                sets: Vec::new(),
            })
        })
        .collect()
}

fn ours(chain: &Chain) -> drift::Chain {
    drift::Chain {
        name: chain.name.clone(),
        ours: true,
        hook: None,
        rules: chain
            .rules
            .iter()
            .zip(1..)
            .map(|(spec, position)| rule(position, spec, false))
            .collect(),
    }
}

fn rule(position: usize, spec: &Spec, foreign: bool) -> drift::Rule {
    drift::Rule {
        position,
        text: spec.to_string(),
        comment: spec.comment().to_owned(),
        foreign,
    }
}
