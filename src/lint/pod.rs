//! The pod as a whole: why it is not redirected, and its DNS policy.

use std::net::IpAddr;

use super::Report;
use super::code::Code;
use super::subject::Subject;
use crate::mesh::container::is_true;
use crate::mesh::verdict::SkipKind;
use crate::types::DnsServers;
use crate::yaml::Node;

/// Reports a pod that is never redirected, and whether it is one.
pub fn never_redirected(subject: &Subject<'_>, report: &mut Report) -> bool {
    let redirector = subject.redirector();
    let is_exempt = subject.skipped == Some(SkipKind::Exempt) && !subject.requests_redirection();
    if let Some(node) = subject
        .pod
        .spec
        .get("hostNetwork")
        .filter(|node| is_true(node) && !is_exempt)
    {
        let message = match redirector {
            Some(container) => format!(
                "hostNetwork is true: {} redirects the whole node",
                container.description()
            ),
            None => "hostNetwork is true: nothing is redirected".to_owned(),
        };
        report.add(Code::HostNetwork, node.at, message);
        return true;
    }
    if subject.skipped != Some(SkipKind::Exempt) {
        return false;
    }
    if !subject.requests_redirection() {
        return true;
    }
    let metadata = subject.pod.object.get("metadata");
    let place = metadata.and_then(|metadata| metadata.get("namespace"));
    if let (Some(namespace), Some(place)) = (subject.pod.namespace(), place) {
        let message = format!("pods of the namespace {namespace} are not redirected");
        report.add(Code::ExcludedNamespace, place.at, message);
    }
    true
}

/// Reports a DNS policy whose name servers are not captured, or do not know the cluster's names.
pub fn dns_policy(subject: &Subject<'_>, report: &mut Report) {
    let Some(node) = subject
        .pod
        .spec
        .get("dnsPolicy")
        .filter(|_| subject.config.dns.redirect)
    else {
        return;
    };
    let servers = subject
        .pod
        .spec
        .get("dnsConfig")
        .and_then(|config| config.get("nameservers"));
    let servers = servers.map(Node::items).unwrap_or_default().iter();
    let servers = servers.filter_map(|server| server.scalar()?.parse::<IpAddr>().ok());
    let uncaptured = |server: &IpAddr| match &subject.config.dns.servers {
        DnsServers::ResolvConf | DnsServers::All => false,
        DnsServers::These(listed) => !listed.contains(server),
    };
    match node.scalar() {
        Some("Default") => report.add(
            Code::DnsPolicy,
            node.at,
            "dnsPolicy Default asks the name servers of the node",
        ),
        Some("None") => {
            let uncaptured: Vec<String> = servers.filter(uncaptured).map(|server| server.to_string()).collect();
            let message = if uncaptured.is_empty() {
                "dnsPolicy None asks name servers of its own".to_owned()
            } else {
                format!("dnsPolicy None: lookups of {} are not captured", uncaptured.join(", "))
            };
            report.add(Code::DnsPolicy, node.at, message);
        }
        _ => {}
    }
}
