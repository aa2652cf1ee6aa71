//! The pod as a whole: what keeps it from being redirected, and whom it asks for names.

use std::net::IpAddr;

use super::Report;
use super::code::Code;
use super::subject::Subject;
use crate::mesh::container::is_true;
use crate::mesh::verdict::Because;
use crate::types::DnsServers;
use crate::yaml::Node;

/// Whether nothing of the pod is ever redirected.
pub fn never_redirected(subject: &Subject<'_>, report: &mut Report) -> bool {
    let redirector = subject.redirector();
    let is_exempt = subject.left == Some(Because::Exempt) && !subject.asks();
    if let Some(node) = subject
        .pod
        .spec
        .get("hostNetwork")
        .filter(|node| is_true(node) && !is_exempt)
    {
        let message = match redirector {
            Some(container) => format!("hostNetwork is true: {} redirects the whole node", container.called()),
            None => "hostNetwork is true: nothing is redirected".to_owned(),
        };
        report.add(Code::HostNetwork, node.at, message);
        return true;
    }
    if subject.left != Some(Because::Exempt) {
        return false;
    }
    if !subject.asks() {
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

/// Whether lookups go where they are captured, and answered.
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
    let passed_by = |server: &IpAddr| match &subject.config.dns.servers {
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
            let passed_by: Vec<String> = servers.filter(passed_by).map(|server| server.to_string()).collect();
            let message = if passed_by.is_empty() {
                "dnsPolicy None asks name servers of its own".to_owned()
            } else {
                format!("dnsPolicy None: lookups of {} are not captured", passed_by.join(", "))
            };
            report.add(Code::DnsPolicy, node.at, message);
        }
        _ => {}
    }
}
