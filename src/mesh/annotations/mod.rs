//! Annotations of the pod that configure redirection, read into a [`Layer`] by a table.

pub mod floor;
pub mod table;

use std::collections::BTreeMap;

use serde_json::Value;

use self::table::{Annotation, Meaning, Said};
use super::{is_true, kuma};
use crate::options::Layer;
use crate::options::problem::{Problem, Source};
use crate::options::table::{self as options, Excess, OPTIONS, Scope};
use crate::types::{Invalid, NoAccounts, Port, Ports, PortsForUids};
use crate::yaml;

/// The prefix of sidetrack's annotations. The rest is the name of an option.
pub const PREFIX: &str = "traffic.sidetrack.dev/";

/// The annotation that selects a pod: `"true"` redirects it, `"false"` does not.
pub const REDIRECT: &str = "traffic.sidetrack.dev/redirect";

/// The maximum size in bytes of the names and values of a pod's annotations: the limit of Kubernetes
/// (`TotalAnnotationSizeLimitB` in k8s.io/apimachinery/pkg/api/validation/objectmeta.go).
pub const MAX_BYTES: usize = 256 * 1024;

/// The annotations of a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Annotations(BTreeMap<String, String>);

impl Annotations {
    /// Reads the annotations that a runtime passes, which may be null for a pod without any.
    ///
    /// # Errors
    /// The value is not an object of strings.
    pub fn of(value: &Value) -> Result<Self, String> {
        let entries = match value {
            Value::Null => return Ok(Self::default()),
            Value::Object(entries) => entries,
            _ => return Err("not an object".to_owned()),
        };
        let entry = |(name, value): (&String, &Value)| match value {
            Value::String(text) => Ok((name.clone(), text.clone())),
            _ => Err(format!("the value of {name} is not a string")),
        };
        entries.iter().map(entry).collect::<Result<_, _>>().map(Self)
    }

    /// All names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// The value of an annotation.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }
}

impl<N: Into<String>, T: Into<String>> FromIterator<(N, T)> for Annotations {
    fn from_iter<I: IntoIterator<Item = (N, T)>>(annotations: I) -> Self {
        let owned = |(name, text): (N, T)| (name.into(), text.into());
        Self(annotations.into_iter().map(owned).collect())
    }
}

/// The parsed annotations of a pod.
#[derive(Debug, Default, PartialEq)]
pub struct Parsed {
    /// Options that override those of the NetConf.
    layer: Layer,
    /// Additional excluded inbound ports.
    exclude_inbound_ports: Vec<Port>,
    /// Excluded ports for users, unless an option that takes precedence sets them.
    exclude_ports_for_uids: Vec<PortsForUids>,
    /// Changed mesh ports: all default ports of the mesh, the default port, and its replacement.
    served: Vec<(&'static [u16], u16, Port)>,
    /// Implied options, which everything else overrides.
    implied: Layer,
    /// The errors.
    problems: Vec<Problem>,
}

impl Parsed {
    /// Merges the annotations with the options of the NetConf.
    ///
    /// # Errors
    /// All errors of the annotations, and options that would make a policy of the NetConf laxer.
    pub fn over(self, netconf: Layer) -> Result<Layer, Vec<Problem>> {
        if !self.problems.is_empty() {
            return Err(self.problems);
        }
        let node = netconf.clone();
        let mut layer = self.layer;
        if !self.exclude_ports_for_uids.is_empty() {
            layer
                .exclude_outbound_ports_for_uids
                .get_or_insert(self.exclude_ports_for_uids);
        }
        layer = layer.over(netconf).over(self.implied);
        if !self.exclude_inbound_ports.is_empty() {
            let more: Ports = self.exclude_inbound_ports.into_iter().collect();
            let ports = layer.exclude_inbound_ports.unwrap_or_default();
            layer.exclude_inbound_ports = Some(ports.union(&more));
        }
        let more: Ports = self.served.iter().map(|(.., now)| *now).collect();
        if let Some((of, ..)) = self.served.first() {
            let replaced = |port: &u16| self.served.iter().any(|(_, instead_of, _)| instead_of == port);
            let kept = || of.iter().filter(|port| !replaced(port)).copied().filter_map(Port::new);
            let ports = layer.mesh_ports.unwrap_or_else(|| kept().collect());
            layer.mesh_ports = Some(ports.union(&more));
        }
        floor::check(&node, &layer)?;
        Ok(layer)
    }

    /// Reads an annotation, or a part of one; `name` is for messages.
    fn read(&mut self, annotations: &Annotations, name: &str, meaning: &'static Meaning, texts: &[String]) {
        let text = texts.join(",");
        match meaning {
            Meaning::Option(option) => self.option(name, option, texts),
            Meaning::IptablesPorts(option) => self.option(name, option, &[iptables_ports(&text)]),
            Meaning::GoBoolean { on, off } => self.said(name, if is_true(text.trim()) { on } else { off }),
            Meaning::Switch { on, off } => match text.trim().to_ascii_lowercase().as_str() {
                "true" | "t" | "1" | "yes" | "y" | "on" | "enabled" => self.said(name, on),
                "false" | "f" | "0" | "no" | "n" | "off" | "disabled" => self.said(name, off),
                _ => self.invalid(name, Invalid::new(text, "true or false")),
            },
            Meaning::Word(words) => match words.iter().find(|(word, _)| *word == text.trim()) {
                Some((_, said)) => self.said(name, said),
                None => {
                    let words: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
                    self.invalid(name, Invalid::new(text, format!("one of {}", words.join(", "))));
                }
            },
            Meaning::AlsoExcludedInbound => match Port::parse(&text) {
                _ if text.trim() == "0" => {}
                Ok(port) => self.exclude_inbound_ports.push(port),
                Err(invalid) => self.invalid(name, invalid),
            },
            Meaning::Document(members) => self.document(annotations, name, members, &text),
            Meaning::Read(reader) => match (reader.read)(&text, annotations) {
                Ok(said) => {
                    for (option, text) in said {
                        self.option(name, option, &[text]);
                    }
                }
                Err(invalid) => self.invalid(name, invalid),
            },
            Meaning::KumaPortsForUids(protocol) => self.kuma_ports_for_uids(name, protocol, texts),
            Meaning::Served { instead_of, of } => match Port::parse(&text) {
                _ if text.trim() == "0" => {}
                Ok(port) => self.served.push((of, *instead_of, port)),
                Err(invalid) => self.invalid(name, invalid),
            },
        }
    }

    fn said(&mut self, name: &str, said: &Said) {
        for (option, text) in said {
            self.option(name, option, &[(*text).to_owned()]);
        }
    }

    /// Reads the texts of an option, unless a previous annotation sets it.
    fn option(&mut self, name: &str, option: &str, texts: &[String]) {
        let mut layer = Layer::default();
        let read = read_option(&mut layer, option, texts);
        if let Some(excess) = OPTIONS.iter().find_map(|option| (option.excess)(&layer)) {
            return self.too_long(name, excess);
        }
        match read {
            Ok(()) => self.layer = std::mem::take(&mut self.layer).over(layer),
            Err(invalid) => invalid.into_iter().for_each(|invalid| self.invalid(name, invalid)),
        }
    }

    /// Reads entries like Kuma, except empty ones, which would exclude all traffic of every user.
    fn kuma_ports_for_uids(&mut self, name: &str, protocol: &str, texts: &[String]) {
        let entries = texts.iter().flat_map(|text| text.split(';'));
        for entry in entries.map(str::trim).filter(|entry| !entry.is_empty()) {
            let entry = match protocol {
                "" => entry.to_owned(),
                protocol => format!("{protocol}:{entry}"),
            };
            match kuma::front_end::ports_for_uids(&entry) {
                Ok(entry) => self.exclude_ports_for_uids.push(entry),
                Err(invalid) => self.invalid(name, invalid),
            }
        }
        let layer = Layer {
            exclude_outbound_ports_for_uids: Some(std::mem::take(&mut self.exclude_ports_for_uids)),
            ..Layer::default()
        };
        if let Some(excess) = OPTIONS.iter().find_map(|option| (option.excess)(&layer)) {
            self.too_long(name, excess);
        }
        self.exclude_ports_for_uids = layer.exclude_outbound_ports_for_uids.unwrap_or_default();
    }

    /// Reads the members of a document that configure redirection; the others are for the proxy.
    fn document(&mut self, annotations: &Annotations, name: &str, members: &'static [(&str, Meaning)], text: &str) {
        let document = match yaml::document(text) {
            Ok(document) => document.to_json(),
            Err(error) => return self.problem(format!("{name}: {error}")),
        };
        for (path, meaning) in members {
            let member = path.split('.').try_fold(&document, |value, key| value.get(key));
            match member.map(texts) {
                None | Some(Ok(None)) => {}
                Some(Ok(Some(texts))) => self.read(annotations, &format!("{name}: {path}"), meaning, &texts),
                Some(Err(invalid)) => self.invalid(&format!("{name}: {path}"), invalid),
            }
        }
    }

    fn too_long(&mut self, name: &str, Excess { length, max }: Excess) {
        self.problem(format!(
            "{name} has {length} elements, and the limit for a pod is {max}: list fewer or wider ones, or set the option \
             for all pods in the NetConf"
        ));
    }

    fn invalid(&mut self, name: &str, invalid: Invalid) {
        self.problems.push(Problem::Value {
            source: Source::Annotation,
            option: name.to_owned(),
            invalid,
        });
    }

    fn problem(&mut self, reason: String) {
        self.problems.push(Problem::Source {
            source: Source::Annotation,
            reason,
        });
    }
}

/// Reads sidetrack's annotations, then those of the table in its order. Unrelated annotations are ignored, but an unknown
/// option with sidetrack's prefix is an error.
pub fn parse(annotations: &Annotations) -> Parsed {
    let mut parsed = Parsed::default();
    let length = |(name, text): (&String, &String)| name.len() + text.len();
    let bytes: usize = annotations.0.iter().map(length).sum();
    if bytes > MAX_BYTES
        && let Some((longest, _)) = annotations.0.iter().max_by_key(|annotation| length(*annotation))
    {
        parsed.problem(format!(
            "{bytes} bytes exceed the limit of {MAX_BYTES} bytes for a pod: shorten them, {longest} first"
        ));
        return parsed;
    }
    for (name, text) in &annotations.0 {
        let Some(option) = name.strip_prefix(PREFIX).filter(|_| name != REDIRECT) else {
            continue;
        };
        match OPTIONS
            .iter()
            .find(|known| known.name == option)
            .map(|known| known.scope)
        {
            Some(Scope::Pod) => parsed.option(name, option, std::slice::from_ref(text)),
            Some(Scope::Here) => parsed.problem(format!(
                "{name}: a pod's cgroups are made after its rules: remove the annotation, and recognise the proxy by \
                 {PREFIX}proxy-mark"
            )),
            Some(Scope::Host) => parsed.problem(format!(
                "{name}: {option} is an option of the node, not of a pod: remove the annotation, and set {option} in the \
                 NetConf if the default does not fit"
            )),
            Some(Scope::DryRun | Scope::Logging) | None => {
                parsed.problem(format!("{name}: {option} is not an option of pods"));
            }
        }
    }
    if let Some(defaults) = kuma::defaults(annotations) {
        parsed.implied = defaults.layer;
        parsed.exclude_inbound_ports.extend(defaults.probe_proxy_port);
    }
    for Annotation { name, meaning, implies } in table::all() {
        let has_effect = kuma::has_effect(name, annotations);
        let Some(text) = annotations.get(name).filter(|_| has_effect) else {
            continue;
        };
        parsed.read(annotations, name, meaning, &[text.to_owned()]);
        for (option, text) in *implies {
            let mut layer = Layer::default();
            match read_option(&mut layer, option, &[(*text).to_owned()]) {
                Ok(()) => parsed.implied = std::mem::take(&mut parsed.implied).over(layer),
                Err(invalid) => invalid.into_iter().for_each(|invalid| parsed.invalid(name, invalid)),
            }
        }
    }
    parsed
}

/// Reads an option like its flag. Names of users and groups are rejected: the pod's accounts are unknown here, and the
/// host's are not the pod's.
fn read_option(layer: &mut Layer, option: &str, texts: &[String]) -> Result<(), Vec<Invalid>> {
    match options::find(option) {
        Some(option) => (option.read)(layer, texts, &NoAccounts),
        None => Err(vec![Invalid::new(option, "an option")]),
    }
}

/// Converts a list of ports from the notation of iptables: a range is `a:b`, and a missing bound is the smallest or
/// largest port.
fn iptables_ports(list: &str) -> String {
    let item = |item: &str| match item.trim().split_once(':') {
        Some((first, last)) => {
            let first = if matches!(first, "" | "0") { "1" } else { first };
            let last = if last.is_empty() { "65535" } else { last };
            format!("{first}-{last}")
        }
        None => item.to_owned(),
    };
    list.split(',').map(item).collect::<Vec<_>>().join(",")
}

/// Converts the member of a document to texts. Zero values of encoders are ignored: null, "", 0, an empty list.
fn texts(value: &Value) -> Result<Option<Vec<String>>, Invalid> {
    let scalar = |value: &Value| match value {
        Value::String(text) => Ok(text.clone()),
        Value::Number(_) | Value::Bool(_) => Ok(value.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => Err(Invalid::new(
            value.to_string(),
            "a string, a number, true, false, or a list of these",
        )),
    };
    match value {
        Value::Null => Ok(None),
        Value::String(text) if text.is_empty() => Ok(None),
        Value::Number(number) if number.as_u64() == Some(0) => Ok(None),
        Value::Array(items) if items.is_empty() => Ok(None),
        Value::Array(items) => items.iter().map(scalar).collect::<Result<_, _>>().map(Some),
        value => scalar(value).map(|text| Some(vec![text])),
    }
}

#[cfg(test)]
mod tests;
