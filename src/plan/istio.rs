//! Istio's rules for the proxy's own traffic and loopback, exactly reproduced: the rules of one user of the proxy
//! decide which packets reach the rules of the next one.

use super::context::{Context, DNS_PORT, over_loopback, rule, skip, tcp};
use super::dns;
use crate::options::OwnerOrder;
use crate::ruleset::{Action, Chain, GidMatch, Match, Protocol, Rule, UidMatch};
use crate::types::{Number as _, Port, Ports, Range};

const SELF_CALLS: &str = "self_calls";
const SELF_CALLS_OF_GROUPS: &str = "group_self_calls";

/// The rules for each user, then for each group: they redirect self-calls to the inbound port, and skip its other
/// traffic and all other loopback traffic.
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
        rules.push(skip([owner], "the proxy's own traffic"));
        rules.extend(other_loopback_traffic(context));
    }
    rules
}

/// Including any loopback range, of either family, lifts the protection of loopback in both.
fn other_loopback_traffic(context: &mut Context) -> Option<Rule> {
    if !context.config.outbound.include_cidrs.loopback().is_empty() {
        return None;
    }
    let not_a_lookup = context.dns.is_some().then(|| {
        context
            .sets
            .destination_port("all_ports_but_dns", Protocol::Tcp, &all_but_dns())
    });
    let matches = [over_loopback()].into_iter().chain(not_a_lookup.flatten());
    Some(skip(matches, "traffic within the pod"))
}

fn all_but_dns() -> Ports {
    let before = Port::new(DNS_PORT.get() - 1).and_then(|last| Range::new(Port::MIN, last));
    let after = DNS_PORT.next().and_then(|first| Range::new(first, Port::MAX));
    [before, after].into_iter().flatten().collect()
}

/// The chains for self-calls. They go to the inbound port regardless of inbound options; where lookups are captured,
/// those of users do not.
pub fn chains(context: &mut Context) -> Vec<Chain> {
    let lookup = context.dns.is_some().then(|| {
        skip(
            [dns::query(Protocol::Tcp)],
            "the proxy's DNS query to a server in the pod",
        )
    });
    let chain = |context: &mut Context, name: &'static str, lookup: Option<Rule>| {
        let mut rules = context.skip_loopback();
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
