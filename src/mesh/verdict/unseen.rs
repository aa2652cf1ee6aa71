//! Settings of a manifest that a plugin does not receive: runtimes pass annotations, but neither containers nor labels.
//! Each comes with the equivalent annotation.

use super::super::annotations::table::Meaning;
use super::super::annotations::{PREFIX, parse};
use super::super::container::{Container, Role, id};
use super::super::go::boolean;
use super::super::pod::Pod;
use super::super::{Mesh, named, settings};
use super::{Inputs, merged};
use crate::options::{Layer, Settings, table};
use crate::types::{Gid, Id as _, NoAccounts, Uid};
use crate::yaml::{Node, Position};

/// A setting of a manifest that a plugin does not receive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unseen {
    /// Its position in the manifest.
    pub at: Position,
    /// The part of the manifest that has it.
    pub place: UnseenPlace,
    /// The setting, for messages.
    pub what: String,
    /// The equivalent annotation.
    pub annotation: String,
    /// The value of that annotation.
    pub value: String,
}

/// The part of a manifest that has a setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnseenPlace {
    /// The security context of the proxy.
    User,
    /// The environment of the proxy.
    Environment,
}

/// Members of Istio's proxy configuration that its injector turns into environment variables of the proxy.
const METADATA: &str = "proxyMetadata.";

/// All settings that a plugin with these settings does not receive.
pub(super) fn unseen(pod: &Pod<'_>, inputs: &Inputs<'_>, settings: &Settings) -> Vec<Unseen> {
    let mut proxies = pod
        .containers()
        .iter()
        .filter(|container| container.role == Role::Proxy);
    // With several proxies it is unknown which one applies.
    let (Some(proxy), None) = (proxies.next(), proxies.next()) else {
        return Vec::new();
    };
    let mut found: Vec<Unseen> = user(pod, proxy, settings).into_iter().collect();
    environment(pod, proxy, inputs, settings, &mut found);
    found
}

/// The proxy's user, if the rules do not exempt it and no annotation sets it.
fn user(pod: &Pod<'_>, proxy: &Container<'_>, settings: &Settings) -> Option<Unseen> {
    let of_pod = |key| pod.described.as_ref()?.security?.get(key);
    let field = |key| proxy.security(key).or_else(|| of_pod(key));
    let node: &Node = field("runAsUser")?;
    let uid = id::<Uid>(node)?;
    let gid = field("runAsGroup").and_then(id::<Gid>);
    let exempt = &settings.config.proxy;
    let annotations = parse(pod.annotations.as_deref()?).over(Layer::default()).ok()?;
    let has_known_arguments = annotations.proxy_uid.is_some() || annotations.proxy_gid.is_some();
    if has_known_arguments || exempt.uids.contains(uid) || gid.is_some_and(|gid| exempt.gids.contains(gid)) {
        return None;
    }
    // Exempting root would exempt many other processes.
    let (option, value) = match gid {
        Some(gid) if uid.get() == 0 => ("proxy-gid", gid.to_string()),
        _ => ("proxy-uid", uid.to_string()),
    };
    Some(Unseen {
        at: node.at,
        place: UnseenPlace::User,
        what: format!("{} runs as user {uid}", proxy.description()),
        annotation: format!("{PREFIX}{option}"),
        value,
    })
}

/// Environment variables of the proxy that Istio's programs read, and that would change the redirection.
fn environment(
    pod: &Pod<'_>,
    proxy: &Container<'_>,
    inputs: &Inputs<'_>,
    settings: &Settings,
    found: &mut Vec<Unseen>,
) {
    let Some(mesh) = super::mesh_of(pod) else { return };
    let entries = proxy.node.get("env").map(Node::items).unwrap_or_default();
    for entry in entries {
        let text = |key: &str| entry.get(key).and_then(|node| Some((node.scalar()?, node.at)));
        let (Some((name, _)), Some((value, at))) = (text("name"), text("value")) else {
            continue;
        };
        let Some(meaning) = variable(mesh, name) else { continue };
        for (option, text) in said(meaning, value) {
            if makes_a_difference(pod, inputs, settings, option, &text) {
                let annotation = format!("{PREFIX}{option}");
                if found.iter().all(|known| known.annotation != annotation) {
                    found.push(Unseen {
                        at,
                        place: UnseenPlace::Environment,
                        what: format!("{name} of {} is {value}", proxy.description()),
                        annotation,
                        value: text,
                    });
                }
            }
        }
    }
}

/// The meaning of a variable of the proxy in this mesh.
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

/// The options that a variable with this value sets.
fn said(meaning: &'static Meaning, value: &str) -> Vec<(&'static str, String)> {
    let texts = match meaning {
        Meaning::Option(option) if !value.is_empty() => return vec![(option, value.to_owned())],
        // A value that Go does not read as a boolean is ignored.
        Meaning::Switch { on, off } | Meaning::GoBoolean { on, off } => match boolean(value) {
            Ok(true) => *on,
            Ok(false) => *off,
            Err(_) => return Vec::new(),
        },
        // No variable has one of these meanings.
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

/// Whether this value of an option would change the redirection. Annotations override it.
fn makes_a_difference(pod: &Pod<'_>, inputs: &Inputs<'_>, settings: &Settings, option: &str, text: &str) -> bool {
    let mut layer = Layer::default();
    let read = table::find(option).map(|option| (option.read)(&mut layer, &[text.to_owned()], &NoAccounts));
    let Some(Ok(())) = read else { return false };
    let with = merged(pod, inputs, layer).and_then(self::settings);
    with.is_ok_and(|with| with.config != settings.config)
}
