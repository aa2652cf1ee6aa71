//! Logs what was applied, once and in full: the log of an init container is all that its reader has.

use std::fmt::Display;

use tracing::Level;

use super::install::{Applied, HalfClosed, NoTimeouts};
use super::running::{Survivors, TCP_LOOSE};
use super::{Change, RuleBackend};
use crate::facts::{Facts, Ipv6};
use crate::linux::interfaces;
use crate::options::{Config, Dialect};
use crate::plan::{self, Bypass, Plan};
use crate::render;
use crate::ruleset::{Layout, TcpState};
use crate::types::{
    CgroupPath, Cidrs, DnsServers, Families, Family, InboundMode, IpFamily, Mark, Number, Policy, Ranges,
};

/// Logs which options have no effect on a plan, in the network namespace of this thread: the user may expect
/// otherwise.
pub fn warn_of_options_without_effect(config: &Config, facts: &Facts, plan: &Plan) {
    for option in plan::without_effect(config, facts, plan) {
        tracing::warn!("{option}");
    }
    let general = &config.general;
    let named = [
        ("--exclude-interfaces", &general.exclude_interfaces),
        ("--reroute-interfaces", &general.reroute_interfaces),
    ];
    for (option, names) in named {
        for name in names.iter().filter(|name| !interfaces::exists(name)) {
            tracing::warn!("{option} {name} has no effect yet: there is no such interface now. See `ip link`");
        }
    }
}

/// Logs the container bridges in the network namespace of this thread that no option names.
pub fn warn_of_bridges(config: &Config) {
    let general = &config.general;
    let named = |name| general.reroute_interfaces.contains(name) || general.exclude_interfaces.contains(name);
    for bridge in interfaces::bridges().iter().filter(|bridge| !named(bridge)) {
        tracing::warn!(
            "connections of the containers behind {bridge} count as inbound: --reroute-interfaces {bridge} treats them as \
             outbound, --exclude-interfaces {bridge} leaves them alone"
        );
    }
}

/// Logs an applied plan and its inputs as one event. The rules follow at level `debug`.
pub fn log(config: &Config, facts: &Facts, plan: &Plan, backend: RuleBackend, applied: &Applied) {
    let Config {
        proxy,
        processes,
        inbound,
        outbound,
        dns,
        general,
        dialect,
    } = config;
    let message = match applied.change {
        Change::Created => "traffic is redirected now",
        Change::Replaced => "the previous redirection is replaced",
        Change::Unchanged => "traffic is already redirected this way",
    };
    let families: Vec<String> = plan.ruleset.families.iter().map(|family| family.to_string()).collect();
    let tproxy = inbound.mode == InboundMode::Tproxy;
    let rules_as = match dialect {
        Dialect::Sidetrack => None,
        Dialect::Istio(_) => Some("istio-iptables"),
        Dialect::Kuma(_) => Some("kumactl"),
    };
    tracing::info!(
        %backend,
        families = families.join(" and "),
        why = why(config, facts, plan.ruleset.families),
        mesh = %proxy.mesh,
        rules_as,
        proxy_uid = %proxy.uids,
        proxy_gid = %proxy.gids,
        proxy_mark = proxy.mark.map(Mark::get),
        proxy_cgroup = processes.cgroup.as_ref().map(CgroupPath::as_str),
        inbound_mode = %inbound.mode,
        proxy_inbound_port = %proxy.inbound_port,
        proxy_outbound_port = %proxy.outbound_port,
        include_inbound_ports = %ranges(&inbound.include_ports).unwrap_or_default(),
        mesh_ports = ranges(&proxy.mesh_ports),
        exclude_inbound_ports = ranges(&inbound.exclude_ports),
        exclude_inbound_cidrs = cidrs(&inbound.exclude_cidrs),
        include_outbound_cidrs = %cidrs(&outbound.include_cidrs).unwrap_or_default(),
        include_outbound_ports = ranges(&outbound.include_ports),
        exclude_outbound_cidrs = cidrs(&outbound.exclude_cidrs),
        exclude_outbound_ports = ranges(&outbound.exclude_ports),
        exclude_outbound_ports_for_uids = list(&outbound.exclude_ports_for_uids),
        exclude_uids = ranges(&outbound.exclude_uids),
        include_gids = (!outbound.include_gids.is_everything()).then(|| ranges(&outbound.include_gids).unwrap_or_default()),
        exclude_gids = ranges(&outbound.exclude_gids),
        dns_port = dns.redirect.then(|| dns.port.get()),
        dns_servers = dns.redirect.then(|| servers(&dns.servers, facts)),
        exclude_interfaces = list(&general.exclude_interfaces),
        bound_interfaces = list(&general.bound_interfaces),
        reroute_interfaces = list(&general.reroute_interfaces),
        drop_invalid = general.drop_invalid.then_some(true),
        inbound_policy = stricter(inbound.policy),
        outbound_policy = stricter(outbound.policy),
        allow_dns = outbound.allow_dns.then_some(true),
        counters = general.counters.then_some(true),
        close_wait_timeout = general.close_wait_timeout.map(|timeout| timeout.to_string()),
        loopback_cidr = %general.loopback_cidr,
        tproxy_mark = tproxy.then(|| inbound.tproxy_mark.get()),
        tproxy_route_table = tproxy.then(|| inbound.tproxy_route_table.get()),
        "{message}"
    );
    for bypass in &plan.bypasses {
        let direction = bypass.direction.name();
        let bypass = shortened(bypass);
        tracing::info!(direction, %bypass, "this bypasses the proxy");
    }
    log_half_closed(&applied.half_closed);
    log_survivors(&applied.survivors, outbound.policy);
    for (route, why) in &applied.skipped {
        let interface = &route.interface;
        tracing::warn!(
            "sockets bound to {interface} cannot reach the proxy over {} yet: {why}. Run `sidetrack apply` again when \
             the interface is ready",
            route.family
        );
    }
    if applied.change == Change::Unchanged {
        for missing in &applied.added {
            tracing::warn!(%missing, "restored what was missing");
        }
    }
    if tracing::enabled!(Level::DEBUG) {
        let layout = backend.layout().unwrap_or(Layout::OneTable);
        tracing::debug!(nft = render::nft::script_in(plan, layout), "the rules");
    }
}

/// A policy other than the default.
fn stricter(policy: Policy) -> Option<String> {
    (policy != Policy::Allow).then(|| policy.to_string())
}

fn log_survivors(Survivors { open, disturbed }: &Survivors, policy: Policy) {
    let fate = match policy {
        Policy::Allow => "continue without the proxy until they end",
        Policy::ProxyOnly => "end, except those of the proxy",
    };
    match (open, disturbed) {
        (Some(0), _) => {}
        (open, Some(why)) => {
            let open = open.map_or_else(|| "unknown".to_owned(), |open| open.to_string());
            tracing::warn!(open_connections = open, why, "open connections are interrupted");
        }
        (Some(open), None) => tracing::info!(
            open_connections = open,
            setting = format!("{TCP_LOOSE} = 0"),
            "open connections {fate}"
        ),
        (None, None) => tracing::info!(setting = format!("{TCP_LOOSE} = 0"), "open connections, if any, {fate}"),
    }
}

fn log_half_closed(half_closed: &HalfClosed) {
    let settings = TcpState::ALL.map(TcpState::setting).join(", ");
    match half_closed {
        HalfClosed::AsPlanned => {}
        HalfClosed::BySettings {
            why: why @ NoTimeouts::InKernel,
        } => {
            tracing::warn!(%why, settings, "timeouts of half-closed connections are set by sysctl, not by rules");
        }
        HalfClosed::BySettings {
            why: why @ NoTimeouts::InIptables,
        } => {
            tracing::info!(%why, settings, "timeouts of half-closed connections are set by sysctl, not by rules");
        }
        HalfClosed::NotAsPlanned { why, error } => tracing::warn!(
            %why,
            error,
            "--close-wait-timeout has no effect: half-closed connections may break after a minute of silence"
        ),
    }
}

/// The reason for these families.
fn why(config: &Config, facts: &Facts, families: Families) -> &'static str {
    let wanted = config.general.ip_family;
    let v6 = families.contains(Family::V6);
    if matches!(config.dialect, Dialect::Istio(_)) {
        return match (wanted, v6) {
            (IpFamily::Dual, true) => "dual-stack, and there is an IPv6 address",
            (IpFamily::Dual, false) => "dual-stack, and there is no IPv6 address",
            (_, true) => "the first address is an IPv6 one",
            (_, false) => "the first address is an IPv4 one",
        };
    }
    match (wanted, facts.ipv6) {
        (IpFamily::Auto, Ipv6::Usable) => "auto, and the pod can use IPv6",
        (IpFamily::Auto, Ipv6::OffOnLoopback { .. }) => "auto, and IPv6 may be switched on later",
        (IpFamily::Auto, Ipv6::Absent) => "auto, and the kernel has no IPv6",
        (IpFamily::Ipv4 | IpFamily::Ipv6 | IpFamily::Dual, _) => "as configured",
    }
}

fn servers(servers: &DnsServers, facts: &Facts) -> String {
    match servers {
        DnsServers::ResolvConf => list(&facts.resolvers).unwrap_or_else(|| "none are known".to_owned()),
        DnsServers::All | DnsServers::These(_) => servers.to_string(),
    }
}

/// A set of numbers as text; `None` if empty.
fn ranges<N: Number>(ranges: &Ranges<N>) -> Option<String> {
    if ranges.is_everything() {
        return Some(ranges.to_string());
    }
    list(ranges)
}

/// A set of addresses as text; `None` if empty.
fn cidrs(cidrs: &Cidrs) -> Option<String> {
    if cidrs.is_everything() {
        return Some(cidrs.to_string());
    }
    list(cidrs.iter())
}

/// The most items of a list in a log line.
const MAX_ITEMS: usize = 20;

/// The items of a list as text, the first ones and the number of the others if it is long; `None` if it is empty.
fn list(items: impl IntoIterator<Item = impl Display>) -> Option<String> {
    let mut items = items.into_iter();
    let first: Vec<String> = items.by_ref().take(MAX_ITEMS).map(|item| item.to_string()).collect();
    match (first.join(","), items.count()) {
        (text, 0) => (!text.is_empty()).then_some(text),
        (text, more) => Some(format!("{text} and {more} more")),
    }
}

/// A bypass with the first items of its value.
fn shortened(bypass: &Bypass) -> Bypass {
    Bypass {
        direction: bypass.direction,
        option: bypass.option.clone(),
        value: bypass.value.as_deref().and_then(|value| list(value.split(','))),
        traffic: bypass.traffic.clone(),
    }
}
