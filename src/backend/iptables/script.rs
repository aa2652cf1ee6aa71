//! A plan as text for `iptables-restore`, as a dry run prints it.

use super::{Tables, TooManyRules, lower, patch};
use crate::plan::Plan;
use crate::render;
use crate::types::{Families, Family};

/// The plan for people, and for `iptables-restore --noflush` and `ip6tables-restore --noflush` by hand.
///
/// One text serves both families: rules of a single family are marked `-4` or `-6`, which the other program skips
/// (iptables(8), "-4, --ipv4"). Loaded into a namespace without our rules, it has the same result as applying the plan.
///
/// Addresses and routes, which iptables cannot add, are commands in comments.
///
/// # Errors
/// The lists are too long for iptables.
pub fn script(plan: &Plan) -> Result<String, TooManyRules> {
    let tables = lower(&plan.ruleset)?;
    let text = patch(&Tables::default(), &tables).unwrap_or_default();
    // A policy has rules for the family that is not redirected, too.
    let families = match plan.ruleset.families {
        Families::Only(family) if tables.of(family.other()).has_rules() => Families::Both,
        families => families,
    };
    Ok(format!(
        "{}{}{text}",
        header(families),
        render::comments_on_the_rest(plan)
    ))
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
