//! The users and capabilities of containers, by which the rules recognise the proxy.

use super::Report;
use super::code::Code;
use super::subject::Subject;
use crate::mesh::container::{Container, Role, id, is_true};
use crate::mesh::verdict::{Unseen, UnseenPlace};
use crate::types::{Gid, Id, Number, Ranges, Uid};
use crate::yaml::Node;

/// Reports applications that the rules exempt like the proxy or that may change the rules, and a proxy that the rules do
/// not exempt.
pub fn check(subject: &Subject<'_>, report: &mut Report) {
    let proxy = &subject.config.proxy;
    // With a mark, user and group alone are not exempt.
    if proxy.mark.is_none() {
        same_owner(subject, report, Code::ProxyUser, "runAsUser", &proxy.uids);
        same_owner(subject, report, Code::ProxyGroup, "runAsGroup", &proxy.gids);
    }
    for container in &subject.containers {
        match container.role {
            Role::Proxy => unknown_proxy(subject, container, report),
            Role::App => match administers(container) {
                Some((node, what)) => {
                    let message = format!("{} {what}", container.description());
                    report.add(Code::MayChangeRules, node.at, message);
                }
                None if proxy.mark.is_some() => may_take_mark(subject, container, report),
                None => {}
            },
            Role::Redirector | Role::Validator | Role::Init => {}
        }
    }
}

/// The effective field of a container's security context: its own, or else the pod's.
fn field<'n>(subject: &Subject<'n>, container: &Container<'n>, key: &str) -> Option<&'n Node> {
    let of_pod = || subject.pod.spec.get("securityContext")?.get(key);
    container.security(key).or_else(of_pod)
}

fn same_owner<I: Id>(subject: &Subject<'_>, report: &mut Report, code: Code, key: &str, proxy: &Ranges<I>) {
    for container in subject.apps() {
        let Some(node) = field(subject, container, key) else {
            continue;
        };
        if let Some(id) = id::<I>(node).filter(|id| proxy.contains(*id)) {
            let message = format!("{} runs as {} {id}, like the proxy", container.description(), I::NAMED);
            report.add(code, node.at, message);
        }
    }
}

fn unknown_proxy(subject: &Subject<'_>, container: &Container<'_>, report: &mut Report) {
    let (uids, gids) = (&subject.config.proxy.uids, &subject.config.proxy.gids);
    if uids.is_empty() && gids.is_empty() {
        return;
    }
    let gid = field(subject, container, "runAsGroup").map(id::<Gid>);
    let Some((node, uid)) = field(subject, container, "runAsUser").and_then(|node| Some((node, id::<Uid>(node)?)))
    else {
        return;
    };
    let known_by_group = gid.is_some_and(|gid| gid.is_none_or(|gid| gids.contains(gid)));
    if !uids.contains(uid) && !known_by_group {
        let is_it = |unseen: &&Unseen| unseen.place == UnseenPlace::User;
        let advice = subject.unseen.iter().find(is_it);
        let advice = advice.map(|Unseen { annotation, value, .. }| format!("; set {annotation}: \"{value}\""));
        let message = format!(
            "{} runs as user {uid}; the rules exempt user {}{}{}",
            container.description(),
            list(uids),
            match gids.is_empty() {
                true => String::new(),
                false => format!(" and group {}", list(gids)),
            },
            advice.unwrap_or_default()
        );
        report.add(Code::ProxyUnknown, node.at, message);
    }
}

fn list<N: Number>(ids: &Ranges<N>) -> String {
    ids.to_string()
}

/// What gives a container NET_ADMIN, if it has it.
fn administers<'n>(container: &Container<'n>) -> Option<(&'n Node, &'static str)> {
    match (container.privileged(), container.capability("add", "NET_ADMIN")) {
        (Some(node), _) => Some((node, "is privileged")),
        (None, Some(node)) => Some((node, "has NET_ADMIN")),
        (None, None) => None,
    }
}

/// Reports a container that may have NET_RAW.
fn may_take_mark(subject: &Subject<'_>, container: &Container<'_>, report: &mut Report) {
    let not_root = |key: &str, is_not_root: fn(&Node) -> bool| field(subject, container, key).is_some_and(is_not_root);
    let is_not_root = not_root("runAsUser", |node| id::<Uid>(node).is_some_and(|uid| uid != Uid::MIN))
        || not_root("runAsNonRoot", is_true);
    let is_dropped = container.capability("drop", "NET_RAW").is_some();
    let added = container.capability("add", "NET_RAW");
    let at = match (added, is_dropped || is_not_root) {
        (Some(added), _) => added.at,
        (None, true) => return,
        (None, false) => container.node.at,
    };
    let verb = if added.is_some() { "has" } else { "may have" };
    report.add(
        Code::MayTakeMark,
        at,
        format!("{} {verb} NET_RAW", container.description()),
    );
}
