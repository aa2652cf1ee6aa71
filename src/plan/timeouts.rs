//! Conntrack timeouts of half-closed connections.
//!
//! By default the kernel removes the entry of a half-closed connection after 60 seconds without packets, and with it
//! the translation: later packets of the other side are lost. Connections that are not captured are affected, too:
//! their next packet counts as the first one of a new connection, possibly in the other direction, and is captured.

use super::context::{Context, rule, tcp};
use super::{base_chain, guard};
use crate::ruleset::{Action, ChainType, Hook, Rule, Ruleset, Timeouts};
use crate::types::Timeout;

/// A segment that is not acknowledged is sent again after two minutes at the latest (`TCP_RTO_MAX`, net/tcp.h). The
/// kernel remembers the last segments of a connection for less; of other segments it allows as much as this
/// (`nf_conntrack_tcp_timeout_unacknowledged`).
const LAST_ACK: Timeout = match Timeout::new(300) {
    Some(timeout) => timeout,
    None => unreachable!(),
};

/// Sets the timeouts of new connections, if the ruleset captures any. NAT chains do it: they see each connection once,
/// with its first packet, and later the kernel does not accept a timeout.
pub fn set(ruleset: &mut Ruleset, context: &Context) {
    let captures = |rule: &Rule| match rule.action {
        Action::Redirect(_) | Action::Tproxy { .. } => true,
        Action::Return
        | Action::Jump(_)
        | Action::Accept
        | Action::Drop
        | Action::Reject(_)
        | Action::SetMark(_)
        | Action::SaveMark
        | Action::RestoreMark
        | Action::SetZone(_)
        | Action::SetTimeouts => false,
    };
    let Some(close_wait) = context.config.general.close_wait_timeout else {
        return;
    };
    if !ruleset.chains.iter().flat_map(|chain| &chain.rules).any(captures) {
        return;
    }
    ruleset.timeouts = Some(Timeouts {
        close_wait,
        last_ack: LAST_ACK,
    });
    let set = || rule([tcp()], Action::SetTimeouts, "timeouts of half-closed connections");
    for (name, hook) in [("prerouting", Hook::Prerouting), ("output", Hook::Output)] {
        match ruleset.chains.iter_mut().find(|chain| chain.name == name) {
            Some(chain) => chain.rules.insert(guard(context).iter().len(), set()),
            None => {
                let made = base_chain(context, name, ChainType::Nat, hook, vec![set()]);
                let before = ruleset.chains.iter().position(|chain| chain.name == "output");
                let at = before.unwrap_or(ruleset.chains.len());
                ruleset.chains.splice(at..at, made);
            }
        }
    }
}
