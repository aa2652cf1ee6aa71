//! The language of iptables: what a ruleset is in its terms, and `iptables-restore` text.
//!
//! The limits of iptables end here: a program for each family, no sets, 15 ports a `multiport` match, chain names of
//! 28 characters. [`lower()`] turns a ruleset into [`Tables`], and [`patch`] writes the text that turns one state
//! into another. Every text comes from there: a dry run is the way from nothing to the plan, removal the way from
//! what is installed to nothing, and undoing the way back. Two states are the same where no text is needed.
//!
//! Source: iptables(8), iptables-restore(8), iptables-extensions(8).

mod contents;
mod lower;
mod patch;
mod raise;
mod tables;
#[cfg(test)]
mod tests;

pub use contents::{InFront, contents};
pub use lower::lower;
pub use patch::{patch, same};
pub use raise::raise;
pub use tables::{Chain, Jump, PREFIX, Spec, Table, TableName, Tables};

use crate::plan::Plan;
use crate::ruleset::{Families, Family};

/// The plan for people, and for `iptables-restore --noflush` and `ip6tables-restore --noflush` by hand.
///
/// One text serves both families: rules of one alone are marked `-4` or `-6`, which the other program skips
/// (iptables(8), "-4, --ipv4"). Loaded in a namespace that has nothing of ours, it gives what applying gives.
///
/// What iptables cannot do, addresses and routes, stands there as commands in comments.
pub fn script(plan: &Plan) -> String {
    let text = patch(&Tables::default(), &lower(&plan.ruleset)).unwrap_or_default();
    format!(
        "{}{}{text}",
        header(plan.ruleset.families),
        super::comments_on_the_rest(plan)
    )
}

fn header(families: Families) -> String {
    let loading = match families {
        Families::Both => "with both programs:
#   iptables-restore --noflush < FILE && ip6tables-restore --noflush < FILE
# Rules marked -4 or -6 are of that family alone; the other program skips them."
            .to_owned(),
        Families::Only(family) => {
            let (own, other) = (program(family), program(family.other()));
            format!(
                "with this program alone:
#   {own} --noflush < FILE
# The rules are for {family} alone: {other} would add empty chains and no rule."
            )
        }
    };
    format!(
        "# sidetrack: TCP of this pod goes through its sidecar proxy.
# Load it once, in the network namespace of the pod, {loading}
"
    )
}

fn program(family: Family) -> &'static str {
    match family {
        Family::V4 => "iptables-restore",
        Family::V6 => "ip6tables-restore",
    }
}
