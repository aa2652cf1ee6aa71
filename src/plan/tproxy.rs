//! TPROXY: connections to the pod reach the proxy unchanged, so that the application sees the client's own address.
//!
//! Inbound packets go to the proxy's transparent socket, and a conntrack mark records that the proxy has intercepted
//! the connection. Packets of the proxy to the application have the client's address and a packet mark; the
//! application's replies and later packets of intercepted connections get that mark too. Policy routing delivers all of
//! them locally.

use super::context::{Context, from_passthrough, over_loopback, rule, skip, tcp};
use super::{inbound, loopback_in};
use crate::options::Dialect;
use crate::ruleset::{Action, Chain, ConntrackState, Match, Rule};
use crate::types::Mark;

const CHAIN: &str = "tproxy_inbound";
const DIVERT: &str = "tproxy_divert";
const HAND_OVER: &str = "tproxy_hand_over";
const SELF_CALLS: &str = "tproxy_self_calls";

/// The mark of connections of the proxy to the pod's own address, where TPROXY intercepts them.
const SELF_CALL_MARK: Mark = mark(1338);
/// The conntrack mark of connections that the proxy has intercepted.
const INTERCEPTED_MARK: Mark = mark(15006);
/// The same, where the option gives packets that mark.
const ALTERNATIVE_INTERCEPTED_MARK: Mark = mark(15007);

const fn mark(number: u32) -> Mark {
    match Mark::new(number) {
        Some(mark) => mark,
        None => unreachable!(),
    }
}

/// The rules for inbound packets.
pub fn prerouting_rules(context: &Context) -> Vec<Rule> {
    let mark = context.config.inbound.tproxy_mark;
    let mut rules = match context.config.dialect {
        Dialect::Sidetrack | Dialect::Kuma(_) => super::outbound::not_inbound(context),
        // With Istio's rules the inbound socket receives packets of rerouted interfaces, translated to the outbound
        // port.
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

/// The rules for locally generated packets.
pub fn output_rules(context: &mut Context) -> Vec<Rule> {
    let mark = context.config.inbound.tproxy_mark;
    let mut rules = vec![skip(
        [tcp(), over_loopback(), Match::Mark(mark)],
        "from the proxy to the application, with the client's address",
    )];
    if marks_self_calls(context) {
        rules.extend(context.proxy_senders().into_iter().map(|sender| {
            rule(
                [tcp(), over_loopback()].into_iter().chain(sender),
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

/// With our own rules self-calls are translated (REDIRECT), so that no rule needs to mark them.
fn marks_self_calls(context: &Context) -> bool {
    match context.config.dialect {
        Dialect::Sidetrack | Dialect::Kuma(_) => false,
        Dialect::Istio(_) => true,
    }
}

/// The chains that those rules jump to.
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
        let mut rules = context.skip_loopback();
        let mark = Action::SetMark(SELF_CALL_MARK);
        rules.push(rule([], mark, "the pod's own address, handled as inbound"));
        chains.push(chain(SELF_CALLS, rules));
    }
    chains
}

fn arriving(context: &mut Context) -> Vec<Rule> {
    let mark = context.config.inbound.tproxy_mark;
    let mut rules = vec![skip(
        [Match::Mark(mark)],
        "from the proxy to the application, with the client's address",
    )];
    rules.extend(context.families.iter().map(|family| {
        skip(
            [loopback_in(), from_passthrough(family)],
            "from the proxy to the application",
        )
    }));
    match context.config.dialect {
        Dialect::Sidetrack | Dialect::Kuma(_) => {
            rules.push(skip([loopback_in()], "traffic within the pod"));
            rules.extend(inbound::mesh_ports(context));
        }
        // Istio's rules do not spare the mesh's ports here.
        Dialect::Istio(_) => rules.push(skip(
            [loopback_in(), Match::MarkIsNot(SELF_CALL_MARK)],
            "traffic within the pod",
        )),
    }
    rules.extend(inbound::exclusions(context, context.families));
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
                rules.push(divert(&[Match::ConntrackMark(intercepted_mark(mark))]));
                rules.push(skip([established], "connection that the proxy has not accepted"));
            }
            // Istio's rules also divert established connections that the proxy has not intercepted.
            Dialect::Istio(_) => rules.push(divert(&[])),
        }
        rules.push(rule([ports], Action::Jump(HAND_OVER.into()), "inbound, to the proxy"));
    }
    rules
}

/// The conntrack mark of intercepted connections. It differs from the mark of packets.
pub fn intercepted_mark(mark: Mark) -> Mark {
    if mark == INTERCEPTED_MARK {
        ALTERNATIVE_INTERCEPTED_MARK
    } else {
        INTERCEPTED_MARK
    }
}

fn divert(context: &Context) -> Vec<Rule> {
    let mark = context.config.inbound.tproxy_mark;
    vec![
        rule([], Action::SetMark(mark), "routed to this host"),
        rule([], Action::Accept, "delivered to the connection's socket"),
    ]
}

fn hand_over(context: &mut Context) -> Vec<Rule> {
    let mut rules = context.skip_loopback();
    let mark = context.config.inbound.tproxy_mark;
    if context.config.dialect == Dialect::Sidetrack {
        rules.push(rule(
            [],
            Action::SetMark(intercepted_mark(mark)),
            "new connection to the proxy",
        ));
        rules.push(rule([], Action::SaveMark, "the mark is saved for later packets"));
    }
    let to_proxy = Action::Tproxy {
        port: context.config.proxy.inbound_port,
        mark,
    };
    rules.push(rule([tcp()], to_proxy, "inbound, to the proxy's transparent socket"));
    // On nftables the TPROXY rule does not match while the proxy does not listen.
    rules.push(rule(
        [],
        Action::Drop,
        "the proxy does not listen: must not be bypassed",
    ));
    rules
}
