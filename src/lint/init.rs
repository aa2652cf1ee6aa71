//! The init container that redirects, and the other init containers.

use super::Report;
use super::code::Code;
use super::subject::Subject;
use crate::mesh::container::{Container, Role, id, is_true};
use crate::types::{Gid, Id as _, Uid};
use crate::yaml::Node;

/// Checks that init containers that redirect have the rights to do so, and which ones run before the proxy.
pub fn check(subject: &Subject<'_>, report: &mut Report) {
    let redirectors = || {
        subject
            .containers
            .iter()
            .filter(|container| container.role == Role::Redirector)
    };
    for container in redirectors() {
        capabilities(container, report);
        // Linkerd's image has file capabilities, and its charts run it as nobody.
        let has_file_capabilities =
            !container.is_sidetrack() && container.mesh().is_some_and(|mesh| mesh.name == "Linkerd");
        if !has_file_capabilities {
            root(subject, container, report);
        }
    }
    if let (Some(first), Some(second)) = (redirectors().next(), redirectors().nth(1)) {
        let message = format!(
            "{} redirects, and so does {}",
            second.description(),
            first.description()
        );
        report.add(Code::TwoRedirectors, second.node.at, message);
    }
    between(subject, report);
}

fn capabilities(container: &Container<'_>, report: &mut Report) {
    if container.privileged().is_some() {
        return;
    }
    let dropped = container.capability("drop", "NET_RAW").is_some();
    // No runtime grants NET_ADMIN by default; most grant NET_RAW, which only iptables programs need.
    let needed = [("NET_ADMIN", true), ("NET_RAW", dropped && !container.is_sidetrack())];
    for (name, _) in needed.iter().filter(|(_, needed)| *needed) {
        if container.capability("add", name).is_none() {
            let at = container
                .security("capabilities")
                .or(container.node.get("securityContext"));
            let message = format!("{} lacks {name}", container.description());
            report.add(Code::Capability, at.unwrap_or(container.node).at, message);
        }
    }
}

fn root(subject: &Subject<'_>, container: &Container<'_>, report: &mut Report) {
    let of_pod = |key: &str| subject.pod.spec.get("securityContext")?.get(key);
    let field = |key: &str| container.security(key).or_else(|| of_pod(key));
    let not_root = |node: &&Node| id::<Uid>(node).is_some_and(|uid| uid.get() != 0);
    if let Some(node) = field("runAsUser").filter(not_root) {
        let message = format!(
            "{} runs as user {}",
            container.description(),
            node.scalar().unwrap_or_default()
        );
        report.add(Code::NotRoot, node.at, message);
    } else if let Some(node) = field("runAsNonRoot").filter(|node| is_true(node)) {
        let message = format!("{} must not run as root (runAsNonRoot)", container.description());
        report.add(Code::NotRoot, node.at, message);
    }
}

/// Reports init containers that start after the redirection and before the proxy, unless the rules exempt their user. A
/// plugin redirects before any of them; if its pod has no proxy yet, the injector may add a native sidecar before them.
fn between(subject: &Subject<'_>, report: &mut Report) {
    let proxy = &subject.config.proxy;
    let has = |role| subject.containers.iter().any(|container| container.role == role);
    let by_plugin = subject.by_plugin && has(Role::Proxy);
    let started = subject.containers.iter();
    let after = started
        .skip_while(|container| !by_plugin && container.role != Role::Redirector)
        .take_while(|container| container.role != Role::Proxy);
    for container in after.filter(|container| container.role == Role::Init) {
        let of_pod = |key| subject.pod.spec.get("securityContext")?.get(key);
        let field = |key| container.security(key).or_else(|| of_pod(key));
        let uid = field("runAsUser").and_then(id::<Uid>);
        let gid = field("runAsGroup").and_then(id::<Gid>);
        let outbound = &subject.config.outbound;
        // With a mark, user and group alone are not exempt.
        let by_owner = proxy.mark.is_none();
        let passes = uid.is_some_and(|uid| by_owner && proxy.uids.contains(uid) || outbound.exclude_uids.contains(uid))
            || gid.is_some_and(|gid| by_owner && proxy.gids.contains(gid) || outbound.exclude_gids.contains(gid));
        if !passes {
            let message = format!("{} starts before the proxy", container.description());
            report.add(Code::InitAfter, container.node.at, message);
        }
    }
}
