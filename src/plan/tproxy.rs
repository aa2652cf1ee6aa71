//! Connections to the pod that reach the proxy unchanged, so that the app sees the client's own address.
//!
//! What arrives is handed to the proxy's transparent socket, and its connection is marked as taken. What the proxy sends
//! on bears the client's address and a mark; the app's answers to it get that mark too, and so do packets of connections
//! that were taken. Policy routing brings all of them to this host.

use super::context::{Context, from_passthrough, leave_alone, over_loopback, rule, tcp};
use super::{inbound, loopback_in};
use crate::options::Dialect;
use crate::ruleset::{Action, Chain, ConntrackState, Match, Rule};
use crate::types::Mark;

const CHAIN: &str = "tproxy_inbound";
const DIVERT: &str = "tproxy_divert";
const HAND_OVER: &str = "tproxy_hand_over";
const SELF_CALLS: &str = "tproxy_self_calls";

/// What the proxy sends to the pod's own address, where it is to be intercepted rather than translated.
const SELF_CALL_MARK: Mark = mark(1338);
/// Connections that the proxy has taken.
const TAKEN: Mark = mark(15006);
/// The same where packets have that mark already.
const TAKEN_TOO: Mark = mark(15007);

const fn mark(number: u32) -> Mark {
    match Mark::new(number) {
        Some(mark) => mark,
        None => unreachable!(),
    }
}

/// The rules for what arrives.
pub fn on_arrival(context: &Context) -> Vec<Rule> {
    let mark = context.config.inbound.tproxy_mark;
    let mut rules = match context.config.dialect {
        Dialect::Sidetrack | Dialect::Kuma(_) => super::outbound::not_inbound(context),
        // With Istio's rules the inbound port gets what has been translated to the outbound one.
        Dialect::Istio(_) => Vec::new(),
    };
    if !context.config.inbound.include_ports.is_empty() {
        rules.push(rule([tcp()], Action::Jump(CHAIN.into()), "inbound TCP"));
    }
    rules.push(rule(
        [tcp(), Match::Mark(mark)],
        Action::SaveMark,
        "from the proxy to the application: the mark is saved for replies",
    ));
    rules
}

/// The rules for what local processes send.
pub fn on_departure(context: &mut Context) -> Vec<Rule> {
    let mark = context.config.inbound.tproxy_mark;
    let mut rules = vec![leave_alone(
        [tcp(), over_loopback(), Match::Mark(mark)],
        "from the proxy to the application, with the client's address",
    )];
    if marks_self_calls(context) {
        rules.extend(context.proxy_owners().into_iter().map(|owner| {
            rule(
                [tcp(), over_loopback(), owner],
                Action::Jump(SELF_CALLS.into()),
                "from the proxy to the pod's own address",
            )
        }));
    }
    rules.push(rule(
        [tcp(), Match::ConntrackMark(mark)],
        Action::RestoreMark,
        "reply to the proxy: the mark is restored",
    ));
    rules
}

/// In our dialect self-calls are translated, whoever the proxy runs as, so that nothing needs to mark them.
fn marks_self_calls(context: &Context) -> bool {
    match context.config.dialect {
        Dialect::Sidetrack | Dialect::Kuma(_) => false,
        Dialect::Istio(_) => true,
    }
}

/// The chains that those rules lead to.
pub fn chains(context: &mut Context) -> Vec<Chain> {
    let mut chains = Vec::new();
    let chain = |name: &'static str, rules| Chain {
        name: name.into(),
        hook: None,
        rules,
    };
    if !context.config.inbound.include_ports.is_empty() {
        chains.push(chain(CHAIN, arriving(context)));
        chains.push(chain(DIVERT, divert(context)));
        chains.push(chain(HAND_OVER, hand_over(context)));
    }
    if marks_self_calls(context) {
        let mut rules = context.leave_loopback_alone();
        let mark = Action::SetMark(SELF_CALL_MARK);
        rules.push(rule([], mark, "the pod's own address, handled as inbound"));
        chains.push(chain(SELF_CALLS, rules));
    }
    chains
}

fn arriving(context: &mut Context) -> Vec<Rule> {
    let mark = context.config.inbound.tproxy_mark;
    let mut rules = vec![leave_alone(
        [Match::Mark(mark)],
        "from the proxy to the application, with the client's address",
    )];
    rules.extend(context.families.iter().map(|family| {
        leave_alone(
            [loopback_in(), from_passthrough(family)],
            "from the proxy to the application",
        )
    }));
    match context.config.dialect {
        Dialect::Sidetrack | Dialect::Kuma(_) => {
            rules.push(leave_alone([loopback_in()], "traffic within the pod"));
            rules.extend(inbound::mesh_ports(context));
        }
        // Istio's rules do not spare the mesh's ports here.
        Dialect::Istio(_) => rules.push(leave_alone(
            [loopback_in(), Match::MarkIsNot(SELF_CALL_MARK)],
            "traffic within the pod",
        )),
    }
    rules.extend(inbound::exclusions(context));
    let established = Match::ConntrackState(ConntrackState::Established);
    if let Some(ports) = inbound::included(context) {
        let divert = |matches: &[Match]| {
            let matches = [ports.clone(), established.clone()].into_iter().chain(matches.to_vec());
            rule(
                matches,
                Action::Jump(DIVERT.into()),
                "connection that the proxy has accepted",
            )
        };
        match context.config.dialect {
            Dialect::Sidetrack | Dialect::Kuma(_) => {
                rules.push(divert(&[Match::ConntrackMark(taken(mark))]));
                rules.push(leave_alone([established], "connection that the proxy has not accepted"));
            }
            // Istio's rules take answers that only pass through for the proxy's.
            Dialect::Istio(_) => rules.push(divert(&[])),
        }
        rules.push(rule([ports], Action::Jump(HAND_OVER.into()), "inbound, to the proxy"));
    }
    rules
}

/// The mark of connections that the proxy has taken: another one than that of packets and of what the proxy sends on.
fn taken(mark: Mark) -> Mark {
    if mark == TAKEN { TAKEN_TOO } else { TAKEN }
}

fn divert(context: &Context) -> Vec<Rule> {
    let mark = context.config.inbound.tproxy_mark;
    vec![
        rule([], Action::SetMark(mark), "routed to this host"),
        rule([], Action::Accept, "delivered to the connection's socket"),
    ]
}

fn hand_over(context: &mut Context) -> Vec<Rule> {
    let mut rules = context.leave_loopback_alone();
    let mark = context.config.inbound.tproxy_mark;
    if context.config.dialect == Dialect::Sidetrack {
        rules.push(rule([], Action::SetMark(taken(mark)), "new connection to the proxy"));
        rules.push(rule([], Action::SaveMark, "the mark is saved for later packets"));
    }
    let to_proxy = Action::Tproxy {
        port: context.config.proxy.inbound_port,
        mark,
    };
    rules.push(rule([tcp()], to_proxy, "inbound, to the proxy's transparent socket"));
    // On nftables the rule before does not apply while the proxy does not listen.
    rules.push(rule(
        [],
        Action::Drop,
        "the proxy does not listen: must not be bypassed",
    ));
    rules
}
