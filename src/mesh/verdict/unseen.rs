//! What a manifest says about redirection and a plugin is not told: runtimes hand annotations on, but neither
//! containers nor labels. Each comes with the annotation that would tell it.

use super::super::annotations::table::Meaning;
use super::super::annotations::{OURS, parse};
use super::super::container::{Container, Role, id};
use super::super::go::boolean;
use super::super::pod::Pod;
use super::super::{Mesh, named, settings};
use super::{Given, merged};
use crate::options::{Layer, Settings, table};
use crate::types::{Gid, Id as _, NoAccounts, Uid};
use crate::yaml::{Node, Position};

/// Something that a manifest says and a plugin is not told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unseen {
    /// Where it is said.
    pub at: Position,
    /// What kind of thing says it.
    pub place: Where,
    /// What the manifest says.
    pub what: String,
    /// The annotation that would tell it.
    pub annotation: String,
    /// Its value.
    pub value: String,
}

/// Where a manifest says what a plugin is not told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Where {
    /// The security context of the proxy.
    User,
    /// The environment of the proxy.
    Environment,
}

/// What Istio's injector turns into variables of the proxy: each member of this name is one.
const METADATA: &str = "proxyMetadata.";

/// All that a plugin which redirects with these settings is not told.
pub(super) fn unseen(pod: &Pod<'_>, given: &Given<'_>, settings: &Settings) -> Vec<Unseen> {
    let mut proxies = pod
        .containers()
        .iter()
        .filter(|container| container.role == Role::Proxy);
    // Where there are several, nobody knows which one counts.
    let (Some(proxy), None) = (proxies.next(), proxies.next()) else {
        return Vec::new();
    };
    let mut found: Vec<Unseen> = user(pod, proxy, settings).into_iter().collect();
    environment(pod, proxy, given, settings, &mut found);
    found
}

/// Whom the proxy runs as, where the rules do not exempt that user and no annotation tells another.
fn user(pod: &Pod<'_>, proxy: &Container<'_>, settings: &Settings) -> Option<Unseen> {
    let of_pod = |key| pod.described.as_ref()?.security?.get(key);
    let field = |key| proxy.security(key).or_else(|| of_pod(key));
    let node: &Node = field("runAsUser")?;
    let uid = id::<Uid>(node)?;
    let gid = field("runAsGroup").and_then(id::<Gid>);
    let exempt = &settings.config.proxy;
    let annotations = parse(pod.annotations.as_deref()?).over(Layer::default()).ok()?;
    let is_told = annotations.proxy_uid.is_some() || annotations.proxy_gid.is_some();
    if is_told || exempt.uids.contains(uid) || gid.is_some_and(|gid| exempt.gids.contains(gid)) {
        return None;
    }
    // As root runs much besides a proxy.
    let (option, value) = match gid {
        Some(gid) if uid.get() == 0 => ("proxy-gid", gid.to_string()),
        _ => ("proxy-uid", uid.to_string()),
    };
    Some(Unseen {
        at: node.at,
        place: Where::User,
        what: format!("{} runs as user {uid}", proxy.called()),
        annotation: format!("{OURS}{option}"),
        value,
    })
}

/// Variables of the proxy that Istio's programs obey, and that would make a difference.
fn environment(pod: &Pod<'_>, proxy: &Container<'_>, given: &Given<'_>, settings: &Settings, found: &mut Vec<Unseen>) {
    let Some(mesh) = super::mesh_of(pod) else { return };
    let entries = proxy.node.get("env").map(Node::items).unwrap_or_default();
    for entry in entries {
        let text = |key: &str| entry.get(key).and_then(|node| Some((node.scalar()?, node.at)));
        let (Some((name, _)), Some((value, at))) = (text("name"), text("value")) else {
            continue;
        };
        let Some(meaning) = variable(mesh, name) else { continue };
        for (option, text) in said(meaning, value) {
            if makes_a_difference(pod, given, settings, option, &text) {
                let annotation = format!("{OURS}{option}");
                if found.iter().all(|known| known.annotation != annotation) {
                    found.push(Unseen {
                        at,
                        place: Where::Environment,
                        what: format!("{name} of {} is {value}", proxy.called()),
                        annotation,
                        value: text,
                    });
                }
            }
        }
    }
}

/// What a variable of the proxy means in this mesh.
fn variable(mesh: &Mesh, name: &str) -> Option<&'static Meaning> {
    let mesh = named(mesh.option)?;
    let documents = mesh.annotations.iter().filter_map(|known| match &known.meaning {
        Meaning::Document(members) => Some(*members),
        _ => None,
    });
    let mut members = documents.flatten();
    let found = members.find(|(path, _)| path.strip_prefix(METADATA) == Some(name));
    found.map(|(_, meaning)| meaning)
}

/// The options that a variable with this value stands for.
fn said(meaning: &'static Meaning, value: &str) -> Vec<(&'static str, String)> {
    let texts = match meaning {
        Meaning::Option(option) if !value.is_empty() => return vec![(option, value.to_owned())],
        // What is no boolean to Go says nothing.
        Meaning::Switch { on, off } | Meaning::GoBoolean { on, off } => match boolean(value) {
            Ok(true) => *on,
            Ok(false) => *off,
            Err(_) => return Vec::new(),
        },
        // No variable means one of these.
        Meaning::Option(_)
        | Meaning::IptablesPorts(_)
        | Meaning::Word(_)
        | Meaning::AlsoExcludedInbound
        | Meaning::KumaPortsForUids(_)
        | Meaning::Served { .. }
        | Meaning::Document(_)
        | Meaning::Read(_) => return Vec::new(),
    };
    texts
        .iter()
        .map(|(option, text)| (*option, (*text).to_owned()))
        .collect()
}

/// Whether the pod would be redirected otherwise if this option had this text, unless annotations say otherwise.
fn makes_a_difference(pod: &Pod<'_>, given: &Given<'_>, settings: &Settings, option: &str, text: &str) -> bool {
    let mut layer = Layer::default();
    let read = table::find(option).map(|option| (option.read)(&mut layer, &[text.to_owned()], &NoAccounts));
    let Some(Ok(())) = read else { return false };
    let with = merged(pod, given, layer).and_then(self::settings);
    with.is_ok_and(|with| with.config != settings.config)
}
