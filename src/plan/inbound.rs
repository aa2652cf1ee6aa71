//! Connections to the pod.

use crate::config::Config;
use crate::ruleset::{Action, Chain, Families, Match, Rule};

use super::sets::Sets;
use super::{rule, tcp};

/// The chain that decides about a connection to the pod.
pub const CHAIN: &str = "inbound";

/// The rule that leads there.
pub fn entry() -> Rule {
    rule([tcp()], Action::Jump(CHAIN.into()), "TCP that arrives")
}

/// Decides about a connection to the pod. It also judges what the proxy sends to the pod's own address.
pub fn chain(config: &Config, families: Families, sets: &mut Sets) -> Chain {
    let inbound = &config.inbound;
    let leave_alone = |matched: Match, comment| rule([matched], Action::Return, comment);
    let mut rules = Vec::new();
    rules.extend(
        sets.destination_port("mesh_ports", &config.proxy.mesh_ports)
            .map(|ports| leave_alone(ports, "ports that the mesh serves itself")),
    );
    rules.extend(
        sets.destination_port("exclude_inbound_ports", &inbound.exclude_ports)
            .map(|ports| leave_alone(ports, "excluded inbound ports")),
    );
    rules.extend(
        sets.addresses("exclude_inbound", &inbound.exclude_cidrs, families, Match::Source)
            .into_iter()
            .map(|source| leave_alone(source, "excluded inbound sources")),
    );
    rules.extend(
        sets.destination_port("include_inbound_ports", &inbound.include_ports)
            .map(|ports| {
                rule(
                    [ports],
                    Action::Redirect(config.proxy.inbound_port),
                    "inbound, to the proxy",
                )
            }),
    );
    Chain {
        name: CHAIN.into(),
        hook: None,
        rules,
    }
}
