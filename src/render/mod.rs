//! Pure renderers of a plan.

pub mod graph;
pub mod json;
pub mod netfilter;
pub mod nft;

use crate::plan::{
    Bypass, LOOPBACK_ADDRESS_METRIC, LOOPBACK_ROUTE_METRIC, LoopbackRoute, POLICY_ROUTING_PROTOCOL,
    POLICY_RULE_PRIORITY, Plan, PolicyRouting,
};
use crate::types::Family;

/// The parts of the plan besides rules, as the commands that a person would type (ip-rule(8), ip-route(8),
/// ip-address(8)), in order.
fn other_commands(plan: &Plan) -> Vec<String> {
    let mut commands = Vec::new();
    if let Some(PolicyRouting { mark, table, families }) = &plan.policy_routing {
        for family in families.iter() {
            let (option, anywhere) = match family {
                Family::V4 => ("-4", "0.0.0.0/0"),
                Family::V6 => ("-6", "::/0"),
            };
            commands.push(format!(
                "ip {option} rule add fwmark {mark} lookup {table} \
                 priority {POLICY_RULE_PRIORITY} protocol {POLICY_ROUTING_PROTOCOL}"
            ));
            commands.push(format!(
                "ip {option} route add local {anywhere} dev lo table {table} proto {POLICY_ROUTING_PROTOCOL}"
            ));
        }
    }
    for address in &plan.loopback_addresses {
        commands.push(format!(
            "ip address add {address}/128 dev lo metric {LOOPBACK_ADDRESS_METRIC} nodad"
        ));
    }
    for route @ LoopbackRoute { family, interface } in &plan.loopback_routes {
        let option = match family {
            Family::V4 => "-4",
            Family::V6 => "-6",
        };
        commands.push(format!(
            "ip {option} route append local {} dev {interface} table local proto {POLICY_ROUTING_PROTOCOL} \
             metric {LOOPBACK_ROUTE_METRIC}",
            route.address()
        ));
    }
    commands
}

/// The same as comments, for the beginning of a script, and what bypasses the proxy despite a policy.
pub fn comments_on_the_rest(plan: &Plan) -> String {
    let command = |command| format!("# Part of the plan too, by hand: {command}\n");
    let bypass = |bypass: &Bypass| format!("# Bypasses the proxy, {}: {bypass}\n", bypass.direction.name());
    let commands = other_commands(plan).into_iter().map(command);
    commands.chain(plan.bypasses.iter().map(bypass)).collect()
}
