//! Connections to the pod.

use super::context::{Context, rule, skip, tcp};
use crate::ruleset::{Action, Chain, Match, Protocol, Rule};
use crate::types::{Families, Ports};

/// The chain for connections to the pod.
pub const CHAIN: &str = "inbound";

/// The rule that jumps to it.
pub fn entry() -> Rule {
    rule([tcp()], Action::Jump(CHAIN.into()), "inbound TCP")
}

/// The chain for connections to the pod, and for connections of the proxy to the pod's own address.
pub fn chain(context: &mut Context) -> Chain {
    let mut rules = mesh_ports(context);
    rules.extend(exclusions(context, context.families));
    let to_proxy = Action::Redirect(context.config.proxy.inbound_port);
    rules.extend(included(context).map(|ports| rule([ports], to_proxy, "inbound, to the proxy")));
    Chain {
        name: CHAIN.into(),
        hook: None,
        rules,
    }
}

/// Skips the mesh's own ports.
pub fn mesh_ports(context: &mut Context) -> Vec<Rule> {
    let ports = &context.config.proxy.mesh_ports;
    skip_ports(context, "mesh_ports", ports, "the mesh's own ports")
}

/// Skips excluded ports and sources.
pub fn exclusions(context: &mut Context, families: Families) -> Vec<Rule> {
    let inbound = &context.config.inbound;
    let mut rules = skip_ports(
        context,
        "exclude_inbound_ports",
        &inbound.exclude_ports,
        "excluded inbound ports",
    );
    let sources = context
        .sets
        .addresses("exclude_inbound", &inbound.exclude_cidrs, families, Match::Source);
    rules.extend(
        sources
            .into_iter()
            .map(|source| skip([source], "excluded inbound sources")),
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

fn skip_ports(context: &mut Context, set: &'static str, ports: &Ports, comment: &'static str) -> Vec<Rule> {
    let ports = context.sets.destination_port(set, Protocol::Tcp, ports);
    ports.map(|ports| skip([ports], comment)).into_iter().collect()
}
