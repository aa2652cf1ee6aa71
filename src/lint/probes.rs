//! Probes and hooks of the kubelet: inbound connections that redirection affects.

use super::Report;
use super::code::Code;
use super::ports;
use super::subject::Subject;
use crate::mesh::container::Container;
use crate::types::Port;
use crate::yaml::Node;

/// The fields of a container that hold handlers of the kubelet.
const PLACES: [&[&str]; 5] = [
    &["startupProbe"],
    &["livenessProbe"],
    &["readinessProbe"],
    &["lifecycle", "postStart"],
    &["lifecycle", "preStop"],
];

/// Whether the mesh rewrites probes, so that redirection does not affect them.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rewriting {
    /// The mesh rewrites them, as far as the manifest shows.
    Yes,
    /// Probes are not rewritten.
    No,
    /// The manifest does not show it.
    Unknown,
}

/// Checks every probe and hook of the application's containers.
pub fn check(subject: &Subject<'_>, report: &mut Report) {
    let rewriting = rewriting(subject);
    for container in subject.apps() {
        for path in PLACES {
            let handler = path.iter().try_fold(container.node, |node, key| node.get(key));
            let what = path.last().copied().unwrap_or_default();
            for entry in handler.map(Node::entries).unwrap_or_default() {
                if let Some((node, port)) = target(container, &entry.key, &entry.value) {
                    let probe = Probe {
                        what: format!("{what} of {}", container.description()),
                        action: &entry.key,
                        path: entry.value.get("path").and_then(Node::scalar).unwrap_or_default(),
                        node,
                        port,
                    };
                    check_one(subject, rewriting, &probe, report);
                }
            }
        }
    }
}

struct Probe<'n> {
    what: String,
    action: &'n str,
    path: &'n str,
    node: &'n Node,
    port: Port,
}

/// The port of the pod that a handler connects to; `None` if it connects to none.
fn target<'n>(container: &Container<'n>, action: &str, handler: &'n Node) -> Option<(&'n Node, Port)> {
    let connects = ["httpGet", "tcpSocket", "grpc"].contains(&action);
    let elsewhere = handler
        .get("host")
        .and_then(Node::scalar)
        .is_some_and(|host| !host.is_empty());
    let node = handler.get("port").filter(|_| connects && !elsewhere)?;
    Some((node, container.port(node)?))
}

fn check_one(subject: &Subject<'_>, rewriting: Rewriting, probe: &Probe<'_>, report: &mut Report) {
    let Probe {
        what,
        action,
        port,
        node,
        ..
    } = probe;
    if let Some((_, who)) = ports::owner(subject, *port) {
        // Paths of probes that Istio's injector rewrote.
        let rewritten = ["/app-health/", "/app-lifecycle/"]
            .iter()
            .any(|path| probe.path.starts_with(path));
        if !rewritten {
            report.add(
                Code::ProbeOfMesh,
                node.at,
                format!("{what}: {action} of port {port}: {who}"),
            );
        }
        return;
    }
    if !subject.captures(*port) {
        return;
    }
    match (*action, rewriting) {
        ("tcpSocket", Rewriting::No | Rewriting::Unknown) => {
            let message = format!("{what}: tcpSocket of port {port} is answered by the proxy");
            report.add(Code::TcpProbe, node.at, message);
        }
        ("httpGet" | "grpc", Rewriting::No) => {
            let message = format!("{what}: {action} of port {port} goes through the proxy");
            report.add(Code::HttpProbe, node.at, message);
        }
        _ => {}
    }
}

fn rewriting(subject: &Subject<'_>) -> Rewriting {
    let said = &subject.said;
    let switched_off = said.annotation("kuma.io/virtual-probes") == Some("disabled")
        || said.annotation("kuma.io/application-probe-proxy-port") == Some("0");
    match (subject.mesh, said.annotation("sidecar.istio.io/rewriteAppHTTPProbers")) {
        // Its injector ran, and did not rewrite the probe.
        (Some(mesh), _) if mesh.rewrites_probes && said.is_injected() => Rewriting::No,
        (_, Some("true")) => Rewriting::Yes,
        (_, Some("false")) => Rewriting::No,
        (Some(_), _) if switched_off => Rewriting::No,
        (Some(mesh), _) if mesh.rewrites_probes => Rewriting::Yes,
        (Some(_), _) => Rewriting::Unknown,
        // A manual redirection has no injector.
        (None, _) if subject.redirector().is_some() => Rewriting::No,
        (None, _) => Rewriting::Unknown,
    }
}
