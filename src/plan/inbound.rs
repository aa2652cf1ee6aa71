//! Connections to the pod.

use super::context::{Context, leave_alone, rule, tcp};
use crate::ruleset::{Action, Chain, Match, Protocol, Rule};
use crate::types::Ports;

/// The chain that decides about a connection to the pod.
pub const CHAIN: &str = "inbound";

/// The rule that leads there.
pub fn entry() -> Rule {
    rule([tcp()], Action::Jump(CHAIN.into()), "inbound TCP")
}

/// Decides about a connection to the pod. It also judges what the proxy sends to the pod's own address.
pub fn chain(context: &mut Context) -> Chain {
    let mut rules = mesh_ports(context);
    rules.extend(exclusions(context));
    let to_proxy = Action::Redirect(context.config.proxy.inbound_port);
    rules.extend(included(context).map(|ports| rule([ports], to_proxy, "inbound, to the proxy")));
    Chain {
        name: CHAIN.into(),
        hook: None,
        rules,
    }
}

/// Leaves the mesh's own ports alone.
pub fn mesh_ports(context: &mut Context) -> Vec<Rule> {
    let ports = &context.config.proxy.mesh_ports;
    ports_left_alone(context, "mesh_ports", ports, "the mesh's own ports")
}

/// Leaves excluded ports and sources alone.
pub fn exclusions(context: &mut Context) -> Vec<Rule> {
    let inbound = &context.config.inbound;
    let mut rules = ports_left_alone(
        context,
        "exclude_inbound_ports",
        &inbound.exclude_ports,
        "excluded inbound ports",
    );
    let sources = context.sets.addresses(
        "exclude_inbound",
        &inbound.exclude_cidrs,
        context.families,
        Match::Source,
    );
    rules.extend(
        sources
            .into_iter()
            .map(|source| leave_alone([source], "excluded inbound sources")),
    );
    rules
}

/// The match for ports that are captured.
pub fn included(context: &mut Context) -> Option<Match> {
    let ports = &context.config.inbound.include_ports;
    context
        .sets
        .destination_port("include_inbound_ports", Protocol::Tcp, ports)
}

fn ports_left_alone(context: &mut Context, set: &'static str, ports: &Ports, comment: &'static str) -> Vec<Rule> {
    let ports = context.sets.destination_port(set, Protocol::Tcp, ports);
    ports.map(|ports| leave_alone([ports], comment)).into_iter().collect()
}
