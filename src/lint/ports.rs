//! Ports: those of the mesh, and those whose protocol a proxy cannot detect.

use super::Report;
use super::code::Code;
use super::service::Services;
use super::subject::Subject;
use crate::mesh::container::{self, Container};
use crate::mesh::istio::ISTIO;
use crate::types::{Port, parse_ports};
use crate::yaml::Node;

/// Server-first protocols, and others in which a proxy that detects HTTP or TLS waits in vain.
const SERVER_FIRST: [(u16, &str); 8] = [
    (21, "FTP"),
    (25, "SMTP"),
    (53, "DNS"),
    (110, "POP3"),
    (143, "IMAP"),
    (587, "SMTP"),
    (3306, "MySQL"),
    (27017, "MongoDB"),
];

/// The prefixes of port names that declare a protocol; a suffix follows after a `-`.
const PROTOCOLS: [&str; 12] = [
    "grpc", "grpc-web", "http", "http2", "https", "mongo", "mysql", "redis", "tcp", "tls", "udp", "auto",
];

/// The owner of a port that is reserved for the proxy or the mesh.
pub fn owner(subject: &Subject<'_>, port: Port) -> Option<(Code, String)> {
    let config = &subject.config;
    let proxy = [config.proxy.inbound_port, config.proxy.outbound_port];
    if proxy.contains(&port) || config.dns.redirect && port == config.dns.port {
        return Some((Code::ProxyPort, "the proxy listens on it".to_owned()));
    }
    // Without a mesh, the options are Istio's.
    let mesh = subject.mesh.unwrap_or(&ISTIO);
    let purpose = mesh.ports.iter().find(|(number, _)| *number == port.get());
    match purpose {
        Some((_, purpose)) => Some((Code::MeshPort, format!("the mesh uses it for {purpose}"))),
        None if config.proxy.mesh_ports.contains(port) => Some((Code::MeshPort, "it is one of mesh-ports".to_owned())),
        None => None,
    }
}

/// Checks the declared ports of containers.
pub fn check(subject: &Subject<'_>, services: &Services<'_>, report: &mut Report) {
    for container in subject.apps() {
        for port in container.ports().iter().filter(|port| is_tcp(port)) {
            check_one(subject, services, container, port, report);
        }
    }
}

fn check_one(
    subject: &Subject<'_>,
    services: &Services<'_>,
    container: &Container<'_>,
    described: &Node,
    report: &mut Report,
) {
    let Some((node, port)) = number(described, "containerPort") else {
        return;
    };
    if let Some((code, who)) = owner(subject, port) {
        report.add(
            code,
            node.at,
            format!("port {port} of {}: {who}", container.description()),
        );
    } else if subject.captures(port)
        && subject.mesh.is_none_or(|mesh| mesh.detects_protocols)
        && !is_opaque(subject, port)
        && !services.declare_protocol(&subject.pod, container, port)
    {
        server_first(described, node, port, &container.description(), report);
    }
}

/// Checks the ports of a Service: meshes choose the protocol of connections to it by the names of its ports.
pub fn check_service(service: &Node, report: &mut Report) {
    let annotations = service.get("metadata").and_then(|metadata| metadata.get("annotations"));
    let opaque = annotations.and_then(|annotations| annotations.get(OPAQUE)?.scalar());
    let opaque = opaque.unwrap_or_default();
    let ports = service.get("spec").and_then(|spec| spec.get("ports"));
    for described in ports.map(Node::items).unwrap_or_default() {
        match number(described, "port") {
            Some((node, port)) if is_tcp(described) && !is_listed(opaque, port) => {
                server_first(described, node, port, "the Service", report);
            }
            _ => {}
        }
    }
}

fn server_first(described: &Node, node: &Node, port: Port, whose: &str, report: &mut Report) {
    let Some((_, protocol)) = SERVER_FIRST.iter().find(|(number, _)| *number == port.get()) else {
        return;
    };
    if declares_protocol(described) {
        return;
    }
    let named = match described.get("name").and_then(Node::scalar) {
        Some(name) => format!("its name {name} does not say so"),
        None => "it has no name".to_owned(),
    };
    let message = format!("port {port} of {whose} is the {protocol} port, and {named}");
    report.add(Code::ServerFirst, node.at, message);
}

/// Whether a port of a container or a Service declares its protocol.
pub fn declares_protocol(described: &Node) -> bool {
    let declares = |name: &str| {
        let rest = PROTOCOLS.iter().filter_map(|protocol| name.strip_prefix(protocol));
        rest.into_iter().any(|rest| rest.is_empty() || rest.starts_with('-'))
    };
    described.get("appProtocol").and_then(Node::scalar).is_some()
        || described.get("name").and_then(Node::scalar).is_some_and(declares)
}

fn is_tcp(port: &Node) -> bool {
    port.get("protocol").and_then(Node::scalar).unwrap_or("TCP") == "TCP"
}

fn number<'n>(described: &'n Node, key: &str) -> Option<(&'n Node, Port)> {
    let node = described.get(key)?;
    Some((node, container::number(node)?))
}

/// The annotation that lists ports whose protocol Linkerd does not detect.
const OPAQUE: &str = "config.linkerd.io/opaque-ports";
/// The default of that list.
const OPAQUE_BY_DEFAULT: &str = "25,587,3306,4444,5432,6379,9300,11211";

fn is_opaque(subject: &Subject<'_>, port: Port) -> bool {
    let linkerd = subject.mesh.is_some_and(|mesh| mesh.name == "Linkerd");
    let default = if linkerd { OPAQUE_BY_DEFAULT } else { "" };
    is_listed(subject.said.annotation(OPAQUE).unwrap_or(default), port)
}

fn is_listed(ports: &str, port: Port) -> bool {
    parse_ports(ports).is_ok_and(|ports| ports.contains(port))
}
