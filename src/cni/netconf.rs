//! The NetConf: what a runtime writes to standard input (CNI specification 1.1.0, section 1 and section 3, "Deriving
//! execution configuration from plugin configuration").

use std::net::IpAddr;
use std::path::PathBuf;

use serde_json::{Map, Value};

use super::capability::POD_ANNOTATIONS;
use super::environment::Attachment;
use super::error::Error;
use super::report::SOCKET;
use super::verbatim::member;
use super::version::Version;
use super::{multus, nomad};
use crate::mesh;
use crate::mesh::annotations::Annotations;
use crate::mesh::policy::Policy;
use crate::options::Layer;
use crate::options::problem::{Problem, Source};
use crate::options::table::Scope;
use crate::options::{Logging, Settings, sources, table};
use crate::types::{Choice, Invalid, LogFormat, LogLevel, NoAccounts};

/// The network configuration on standard input.
#[derive(Clone, Debug, PartialEq)]
pub struct NetConf {
    /// `cniVersion`: that of the answer.
    pub version: Version,
    /// `prevResult`, as it was written.
    pub previous: Option<String>,
    /// Which pods are redirected.
    pub policy: Policy,
    /// `redirect`.
    pub redirect: Layer,
    /// `logLevel` and `logFormat`.
    pub logging: Logging,
    /// `logFile`.
    pub log_file: Option<PathBuf>,
    /// `awaitsNetwork`.
    pub awaits_network: bool,
    /// The pod's annotations; `None` where the runtime passed none. Then `args.cni` may have them.
    pub annotations: Option<Annotations>,
    /// Whether `capabilities` requests them.
    pub requests_annotations: bool,
    /// The pod's name servers, if the runtime passes them: by its capability `dns`, or in `prevResult`.
    pub resolvers: Vec<IpAddr>,
    unsupported: Option<(String, Value)>,
    problems: Vec<Problem>,
}

/// The key of a configuration that stands in for a network that is not there yet.
pub const AWAITS_NETWORK: &str = "awaitsNetwork";

/// A key of the NetConf that sidetrack defines.
pub struct Key {
    /// The name of the key.
    pub name: &'static str,
    /// The default as JSON.
    pub default: &'static str,
    /// The description.
    pub help: &'static str,
    read: fn(&mut NetConf, &Value) -> Result<(), Wrong>,
}

/// Why the value of one of our keys is invalid.
#[derive(Debug)]
enum Wrong {
    /// The whole value is invalid.
    Value(Invalid),
    /// Parts of the value are invalid.
    Parts(Vec<Problem>),
}

/// The keys that sidetrack defines.
pub const KEYS: &[Key] = &[
    Key {
        name: "select",
        default: r#""injected""#,
        help: "Which pods are redirected: `injected`, pods with a mesh's annotations or labels; `always`, all; `never`, none",
        read: |netconf, value| choice(value).map(|select| netconf.policy.select = select),
    },
    Key {
        name: "excludeNamespaces",
        default: r#"["kube-system", "kube-public"]"#,
        help: "Namespaces whose pods are never redirected, overriding all other settings",
        read: |netconf, value| texts(value).map(|names| netconf.policy.exclude_namespaces = names),
    },
    Key {
        name: "installer",
        default: r#""sidetrack-system/sidetrack-node""#,
        help: "Namespace and name of the DaemonSet that installs this plugin; its pods are never redirected either",
        read: |netconf, value| installer(value).map(|installer| netconf.policy.installer = installer),
    },
    Key {
        name: "onMissingAnnotations",
        default: r#""fail""#,
        help: "If `select` needs annotations and the runtime passes none: `fail`, or `pass`, the pod is not redirected",
        read: |netconf, value| choice(value).map(|choice| netconf.policy.on_missing_annotations = choice),
    },
    Key {
        name: "redirect",
        default: "{}",
        help: "Options, by the names of the flags; the keys are those of the configuration file",
        read: |netconf, value| redirect(value).map(|layer| netconf.redirect = layer),
    },
    Key {
        name: "logLevel",
        default: r#""info""#,
        help: "`error`, `warn`, `info`, `debug` or `trace`",
        read: |netconf, value| choice::<LogLevel>(value).map(|level| netconf.logging.level = level),
    },
    Key {
        name: "logFormat",
        default: r#""text""#,
        help: "`text` or `json`, one line per event",
        read: |netconf, value| choice::<LogFormat>(value).map(|format| netconf.logging.format = format),
    },
    Key {
        name: "logFile",
        default: "none",
        help: "An absolute path; log lines are appended to it in addition to standard error",
        read: |netconf, value| absolute_path(value).map(|path| netconf.log_file = Some(path)),
    },
    Key {
        name: AWAITS_NETWORK,
        default: "false",
        help: "The installer sets it until the node has a network to join: ADD fails meanwhile, and the runtime tries again",
        read: |netconf, value| boolean(value).map(|awaits| netconf.awaits_network = awaits),
    },
    Key {
        name: "logSocket",
        default: r#""/var/run/sidetrack/log.sock""#,
        help: "An absolute path; the socket of the node installer, which receives a report of each run",
        // A run is reported even if the NetConf is invalid: see `Header`.
        read: |_, value| absolute_path(value).map(drop),
    },
];

/// The keys that the specification and its conventions define for every plugin.
pub const STANDARD_KEYS: [&str; 12] = [
    "cniVersion",
    "cniVersions",
    "disableCheck",
    "name",
    "type",
    "args",
    "capabilities",
    "runtimeConfig",
    "prevResult",
    "ipMasq",
    "ipam",
    "dns",
];
/// The prefix of keys that later versions of the specification may define.
pub const RESERVED_PREFIX: &str = "cni.dev/";

impl NetConf {
    /// Parses standard input. Problems with keys that only matter to some pods are kept for [`NetConf::usable`].
    ///
    /// # Errors
    /// The input is not a NetConf of a supported version, or its `prevResult` cannot be passed on.
    pub fn parse(stdin: &[u8]) -> Result<Self, Error> {
        let text = std::str::from_utf8(stdin).map_err(|error| Error::Decoding(error.to_string()))?;
        let object = object(text)?;
        let mut netconf = Self::new(version(&object)?);
        if let Some(previous) = object.get("prevResult").filter(|previous| !previous.is_null()) {
            if !previous.is_object() {
                return Err(Error::Options(vec![problem("prevResult is not an object")]));
            }
            netconf.previous = member(text, "prevResult").map(str::to_owned);
        }
        netconf.problems.extend(name(&object).err().map(problem));
        let in_place_of_consul = object.get("type").is_some_and(|of| of == nomad::PLUGIN);
        for (key, value) in &object {
            match key.as_str() {
                "log_level" if in_place_of_consul => {
                    // An unknown level is ignored: it must not keep a pod from starting.
                    let _read = choice::<LogLevel>(value).map(|level| netconf.logging.level = level);
                }
                key if in_place_of_consul && nomad::KEYS.contains(&key) => {}
                key => netconf.read(key, value),
            }
        }
        netconf.read_runtime_config(&object);
        Ok(netconf)
    }

    /// Checks that all keys are valid.
    ///
    /// # Errors
    /// An unknown key, or all problems with our keys.
    pub fn usable(&self) -> Result<(), Error> {
        if let Some((key, value)) = self.unsupported.clone() {
            return Err(Error::UnsupportedField {
                key,
                value: value.to_string(),
            });
        }
        if self.problems.is_empty() {
            Ok(())
        } else {
            Err(Error::Options(self.problems.clone()))
        }
    }

    /// Uses Nomad's settings of the attachment as annotations, where the runtime passed none.
    pub fn learn(&mut self, attachment: &Attachment) {
        if let (None, Some(config)) = (&self.annotations, &attachment.consul_config) {
            self.annotations = Some(mesh::consul::nomad(config));
        }
    }

    fn read(&mut self, key: &str, value: &Value) {
        match KEYS.iter().find(|known| known.name == key) {
            Some(_) if value.is_null() => {}
            Some(known) => match (known.read)(self, value) {
                Ok(()) => {}
                Err(Wrong::Parts(parts)) => self.problems.extend(parts),
                Err(Wrong::Value(invalid)) => self.problems.push(Problem::Value {
                    source: Source::NetConf,
                    option: key.to_owned(),
                    invalid,
                }),
            },
            None if STANDARD_KEYS.contains(&key) || key.starts_with(RESERVED_PREFIX) => {}
            None => self.unsupported = Some((key.to_owned(), value.clone())),
        }
    }

    fn read_runtime_config(&mut self, object: &Map<String, Value>) {
        let config = object.get("runtimeConfig");
        match config
            .and_then(|config| config.get(POD_ANNOTATIONS))
            .map(Annotations::of)
        {
            None => {}
            Some(Ok(annotations)) => self.annotations = Some(annotations),
            Some(Err(reason)) => self
                .problems
                .push(problem(format!("runtimeConfig: {POD_ANNOTATIONS}: {reason}"))),
        }
        if self.annotations.is_none() {
            self.annotations = object
                .get("args")
                .and_then(|args| multus::annotations(args.get("cni")?));
        }
        let requested = object
            .get("capabilities")
            .and_then(|capabilities| capabilities.get(POD_ANNOTATIONS));
        self.requests_annotations = requested == Some(&Value::Bool(true));
        let of_runtime = config.and_then(servers_of_runtime);
        let of_previous = object
            .get("prevResult")
            .and_then(|previous| previous.pointer("/dns/nameservers"));
        let lists = [of_runtime, of_previous].into_iter().flatten().map(addresses);
        self.resolvers = lists.into_iter().find(|list| !list.is_empty()).unwrap_or_default();
    }

    fn new(version: Version) -> Self {
        Self {
            version,
            previous: None,
            policy: Policy::default(),
            redirect: Layer::default(),
            logging: Settings::default().logging,
            log_file: None,
            awaits_network: false,
            annotations: None,
            requests_annotations: false,
            resolvers: Vec::new(),
            unsupported: None,
            problems: Vec::new(),
        }
    }
}

/// `servers` of the capability `dns`. containerd writes it with a capital letter, which Go does not distinguish.
fn servers_of_runtime(config: &Value) -> Option<&Value> {
    let dns = config.get("dns")?.as_object()?;
    let (_, servers) = dns.iter().find(|(key, _)| key.eq_ignore_ascii_case("servers"))?;
    Some(servers)
}

fn problem(reason: impl Into<String>) -> Problem {
    Problem::Source {
        source: Source::NetConf,
        reason: reason.into(),
    }
}

/// The part of standard input that is needed to answer even an invalid NetConf.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// `cniVersion`: answers to VERSION repeat it, supported or not.
    pub version: Option<String>,
    /// `logSocket`.
    pub socket: PathBuf,
}

impl Header {
    /// Parses standard input, as far as possible.
    pub fn parse(stdin: &[u8]) -> Self {
        let object: Value = serde_json::from_slice(stdin).unwrap_or_default();
        Self {
            version: object["cniVersion"].as_str().map(str::to_owned),
            socket: absolute_path(&object["logSocket"]).unwrap_or_else(|_| SOCKET.into()),
        }
    }
}

fn object(text: &str) -> Result<Map<String, Value>, Error> {
    match serde_json::from_str(text) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err(Error::Decoding("it is not a JSON object".to_owned())),
        Err(error) => Err(Error::Decoding(error.to_string())),
    }
}

fn version(object: &Map<String, Value>) -> Result<Version, Error> {
    let text = match object.get("cniVersion") {
        Some(Value::String(text)) => text,
        Some(other) => return Err(Error::Decoding(format!("cniVersion: {other} is not a version"))),
        None => {
            let reason = "cniVersion is missing, which means 0.1.0";
            return Err(Error::Version(reason.to_owned()));
        }
    };
    Version::parse(text).ok_or_else(|| Error::Version(format!("{text:?} is not supported")))
}

/// The name of the network: "must start with an alphanumeric character, optionally followed by … underscore, dot or
/// hyphen" (section 1). Nothing depends on it.
fn name(object: &Map<String, Value>) -> Result<(), String> {
    let usable = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    match object.get("name") {
        Some(Value::String(name))
            if name.starts_with(|c: char| c.is_ascii_alphanumeric()) && name.chars().all(usable) =>
        {
            Ok(())
        }
        Some(other) => Err(format!("name: {other} is not the name of a network")),
        None => Err("name is missing".to_owned()),
    }
}

fn wrong(value: &Value, expected: impl Into<String>) -> Wrong {
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    Wrong::Value(Invalid::new(text, expected))
}

fn choice<C: Choice>(value: &Value) -> Result<C, Wrong> {
    C::parse(value.as_str().unwrap_or_default()).map_err(|invalid| wrong(value, invalid.expected))
}

fn texts(value: &Value) -> Result<Vec<String>, Wrong> {
    let text = |item: &Value| item.as_str().map(str::to_owned);
    let texts = value.as_array().and_then(|items| items.iter().map(text).collect());
    texts.ok_or_else(|| wrong(value, "a list of texts"))
}

fn installer(value: &Value) -> Result<(String, String), Wrong> {
    match value.as_str().and_then(|text| text.split_once('/')) {
        Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() => {
            Ok((namespace.to_owned(), name.to_owned()))
        }
        _ => Err(wrong(value, "NAMESPACE/NAME of a DaemonSet")),
    }
}

fn boolean(value: &Value) -> Result<bool, Wrong> {
    value.as_bool().ok_or_else(|| wrong(value, "true or false"))
}

fn absolute_path(value: &Value) -> Result<PathBuf, Wrong> {
    let path = value.as_str().map(PathBuf::from).filter(|path| path.is_absolute());
    path.ok_or_else(|| wrong(value, "an absolute path"))
}

/// Parses `redirect`. Names of users and groups are refused: the plugin cannot resolve the names of a container.
fn redirect(value: &Value) -> Result<Layer, Wrong> {
    let parsed = sources::from_value(Source::NetConf, value.clone(), &NoAccounts);
    let mut problems = parsed.problems;
    for key in value.as_object().into_iter().flat_map(Map::keys) {
        let reason = match table::find(key).map(|option| option.scope) {
            Some(Scope::Here) => {
                format!("redirect: {key}: a pod's cgroups are made after its rules; recognise the proxy by proxy-mark")
            }
            Some(scope) if !scope.is_of_plugin() => {
                format!("redirect: {key} is an option of the command line; the plugin does not have it")
            }
            _ => continue,
        };
        problems.push(problem(reason));
    }
    // A contradiction here affects every pod.
    if let Err(contradictions) = mesh::settings(parsed.layer.clone()) {
        let reasons = contradictions
            .iter()
            .map(|contradiction| format!("redirect: {contradiction}"));
        problems.extend(reasons.map(problem));
    }
    if problems.is_empty() {
        Ok(parsed.layer)
    } else {
        Err(Wrong::Parts(problems))
    }
}

/// The addresses in a list of strings. Other strings are skipped: resolvers cannot use them either.
fn addresses(value: &Value) -> Vec<IpAddr> {
    let texts = value.as_array().into_iter().flatten().filter_map(Value::as_str);
    texts.filter_map(|text| text.parse().ok()).collect()
}

#[cfg(test)]
mod tests;
