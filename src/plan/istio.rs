//! What Istio's rules do about the proxy's own traffic and loopback, to the letter: the rules of one of the proxy's
//! users decide about what those of the next one get to see.

use super::context::{Context, DNS_PORT, leave_alone, over_loopback, rule, tcp};
use super::dns;
use crate::options::OwnerOrder;
use crate::ruleset::{Action, Chain, GidMatch, Match, Protocol, Rule, UidMatch};
use crate::types::{Number as _, Port, Ports, Range};

const SELF_CALLS: &str = "self_calls";
const SELF_CALLS_OF_GROUPS: &str = "group_self_calls";

/// The rules for each user, then for each group: self-calls go to the inbound port, loopback traffic of everybody
/// else is left alone, and so is the rest of its own.
pub fn proxy(context: &mut Context, order: &OwnerOrder) -> Vec<Rule> {
    let uids = order
        .uids
        .iter()
        .map(|uid| (Match::Uid(UidMatch::Uid(*uid)), SELF_CALLS));
    let gids = order
        .gids
        .iter()
        .map(|gid| (Match::Gid(GidMatch::Gid(*gid)), SELF_CALLS_OF_GROUPS));
    let mut rules = Vec::new();
    for (owner, self_calls) in uids.chain(gids) {
        rules.push(rule(
            [tcp(), over_loopback(), owner.clone()],
            Action::Jump(self_calls.into()),
            "from the proxy to the pod's own address",
        ));
        rules.push(leave_alone([owner], "the proxy's own traffic"));
        rules.extend(everybody_else_on_loopback(context));
    }
    rules
}

/// Including any loopback range, of either family, lifts the protection of loopback in both.
fn everybody_else_on_loopback(context: &mut Context) -> Option<Rule> {
    if !context.config.outbound.include_cidrs.loopback().is_empty() {
        return None;
    }
    let not_a_lookup = context.dns.is_some().then(|| {
        context
            .sets
            .destination_port("all_ports_but_dns", Protocol::Tcp, &all_but_dns())
    });
    let matches = [over_loopback()].into_iter().chain(not_a_lookup.flatten());
    Some(leave_alone(matches, "traffic within the pod"))
}

fn all_but_dns() -> Ports {
    let before = Port::new(DNS_PORT.get() - 1).and_then(|last| Range::new(Port::MIN, last));
    let after = DNS_PORT.next().and_then(|first| Range::new(first, Port::MAX));
    [before, after].into_iter().flatten().collect()
}

/// The chains for self-calls. They go to the inbound port whatever is captured inbound; where lookups are captured,
/// those of users do not.
pub fn chains(context: &mut Context) -> Vec<Chain> {
    let lookup = context.dns.is_some().then(|| {
        leave_alone(
            [dns::query(Protocol::Tcp)],
            "the proxy's DNS query to a server in the pod",
        )
    });
    let chain = |context: &mut Context, name: &'static str, lookup: Option<Rule>| {
        let mut rules = context.leave_loopback_alone();
        rules.extend(lookup);
        rules.extend(super::inbound::mesh_ports(context));
        let to_proxy = Action::Redirect(context.config.proxy.inbound_port);
        rules.push(rule([tcp()], to_proxy, "the pod's own address, to the proxy"));
        Chain {
            name: name.into(),
            hook: None,
            rules,
        }
    };
    vec![
        chain(context, SELF_CALLS, lookup),
        chain(context, SELF_CALLS_OF_GROUPS, None),
    ]
}
