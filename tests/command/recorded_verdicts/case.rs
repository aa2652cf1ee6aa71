//! The oracle's cases, their recorded verdicts, and our plans for them.

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use sidetrack::facts::{Facts, Ipv6, UsableAddresses};
use sidetrack::mesh::annotations::Annotations;
use sidetrack::mesh::istio::front_end::table::Setting;
use sidetrack::mesh::{self, consul, istio, kuma, linkerd};
use sidetrack::options::{Layer, Settings};
use sidetrack::plan::Plan;
use sidetrack::simulate::{LocalMark, Pod};
use sidetrack::types::{Accounts, AccountsError};

use super::pod::{LINKS, interface, ip};

#[derive(Deserialize)]
pub struct Case {
    pub name: String,
    #[serde(default = "istio_s")]
    program: String,
    #[serde(default)]
    flags: Vec<String>,
    /// The configuration of Consul's injector, in place of flags.
    pub config: Option<serde_json::Value>,
    #[serde(default)]
    pub apply: Option<Vec<String>>,
    /// Probes that land as in a pod without rules, though not under the mesh's own rules.
    #[serde(default)]
    differences: Vec<Difference>,
    #[serde(default)]
    env: BTreeMap<String, String>,
    #[serde(default)]
    resolv_conf: Vec<String>,
    #[serde(default = "both")]
    families: Vec<u8>,
    /// Whether `::6` is put on the loopback interface.
    #[serde(default)]
    ipv6: bool,
}

#[derive(Deserialize)]
struct Difference {
    probes: Vec<String>,
    recorded: String,
}

fn istio_s() -> String {
    "istio-iptables".to_owned()
}

fn both() -> Vec<u8> {
    vec![4, 6]
}

#[derive(Deserialize)]
struct Untouched {
    verdicts: BTreeMap<String, String>,
}

#[derive(Deserialize)]
pub struct Recorded {
    pub changed: BTreeMap<String, String>,
    pub conntrack: BTreeMap<String, String>,
}

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/oracle")
}

fn read<T: for<'d> Deserialize<'d>>(path: &Path) -> T {
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
struct Names;

impl Accounts for Names {
    fn uid(&self, name: &str) -> Result<Option<u32>, AccountsError> {
        Ok((name == "envoy").then_some(1500))
    }

    fn gid(&self, name: &str) -> Result<Option<u32>, AccountsError> {
        Ok(match name {
            "java" => Some(2201),
            "ftp" => Some(2202),
            _ => None,
        })
    }

    fn has_uid(&self, _: u32) -> Result<bool, AccountsError> {
        Ok(false)
    }
}

impl Case {
    /// The text of a setting's flag, as the oracle's cases write flags.
    fn flag(&self, setting: &Setting) -> Option<String> {
        let mut given = None;
        let mut words = self.flags.iter().peekable();
        while let Some(word) = words.next() {
            let is_short = setting.short.is_some_and(|short| *word == format!("-{short}"));
            let is_value = |next: &&String| !(next.starts_with("--") || next.len() == 2 && next.starts_with('-'));
            let value = words.next_if(is_value);
            if is_short || *word == format!("--{}", setting.name) {
                given = Some(value.cloned().unwrap_or_else(|| "true".to_owned()));
            }
        }
        given
    }

    /// The plugin's options from Consul's annotations.
    pub fn settings_of_plugin(&self, config: &serde_json::Value) -> Settings {
        let dual_stack = &self.env["CONSUL_DUAL_STACK"];
        let annotations = consul::nomad(&config.to_string());
        let annotations = annotations
            .names()
            .map(|name| (name, annotations.get(name).expect("a value")));
        let dual_stack = ("consul.hashicorp.com/dual-stack", dual_stack.as_str());
        let annotations: Annotations = annotations.chain([dual_stack]).collect();
        let layer = mesh::annotations::parse(&annotations).over(Layer::default());
        let mesh = mesh::injected_by(&annotations).map(|mesh| mesh.option);
        let layer = layer.expect("valid annotations");
        mesh::settings(Layer { mesh, ..layer }).expect("no contradictions")
    }

    fn settings(&self) -> Settings {
        if let Some(config) = &self.config {
            return self.settings_of_plugin(config);
        }
        let variable = |name: &str| self.env.get(name).cloned();
        if self.program == istio_s() {
            let parsed = istio::front_end::read(|setting| self.flag(setting), variable, &Names);
            return parsed.request.expect("valid flags").settings;
        }
        let words = ["sidetrack", &self.program].into_iter();
        let words = words.chain(self.flags.iter().map(String::as_str));
        let matches = sidetrack::cli::command().get_matches_from(words);
        let (_, matches) = matches.subcommand().expect("a program");
        let texts = |name: &str| Some(matches.get_many::<String>(name)?.cloned().collect::<Vec<_>>());
        if self.program == "linkerd-proxy-init" {
            let parsed = linkerd::front_end::read(|setting| texts(setting.name).unwrap_or_default());
            return parsed.request.expect("valid flags").settings;
        }
        // In the cases it is /dev/null.
        let file = texts("config").map(|_| ("/dev/null".to_owned(), String::new()));
        let parsed = kuma::front_end::read(|setting| texts(setting.name), file.as_slice(), variable, &Names);
        parsed.settings.expect("valid flags")
    }

    pub fn plan(&self) -> Plan {
        let resolvers = self
            .resolv_conf
            .iter()
            .filter_map(|line| line.strip_prefix("nameserver "));
        let facts = Facts {
            ipv6: Ipv6::Usable,
            addresses: UsableAddresses {
                v4: self.families.contains(&4),
                v6: self.families.contains(&6),
                v6_link_local: self.ipv6 || self.families.contains(&6),
            },
            resolvers: resolvers.map(|address| ip(address.trim())).collect(),
            proxy_cgroup: None,
        };
        Plan::new(&self.settings().config, &facts).expect("a plan")
    }

    pub fn pod(&self, plan: &Plan) -> Pod {
        let mut pod = Pod {
            addresses: Vec::new(),
            local_marks: plan.policy_routing.map(LocalMark::from).into_iter().collect(),
            route_localnet: Vec::new(),
        };
        for link in &LINKS {
            let own = link.pod.iter().map(|address| ip(address));
            let own = own.filter(|address| self.families.contains(if address.is_ipv4() { &4 } else { &6 }));
            pod.addresses
                .extend(own.map(|address| (interface(link.interface), address)));
        }
        // The kernel has the newest first.
        let added = plan.loopback_addresses.iter();
        pod.addresses
            .extend(added.map(|address| (interface("lo"), IpAddr::from(*address))));
        if self.families.contains(&6) {
            pod.addresses.push((interface("lo"), ip("::7")));
        }
        pod
    }

    /// The verdicts in a pod without rules.
    pub fn untouched(&self) -> BTreeMap<String, String> {
        let families: String = self.families.iter().map(u8::to_string).collect();
        read::<Untouched>(&directory().join(format!("verdicts/untouched-{families}.json"))).verdicts
    }

    /// The verdicts under the mesh's rules: where probes landed, and the zones and marks of connection tracking.
    pub fn recorded(&self) -> Recorded {
        let of_mesh = match self.program.as_str() {
            "linkerd-proxy-init" => "linkerd/verdicts",
            "kuma-init" => "kuma/verdicts",
            "consul" => "consul/verdicts",
            _ => "verdicts",
        };
        let mut recorded: Recorded = read(&directory().join(of_mesh).join(format!("{}.json", self.name)));
        let untouched = self.untouched();
        for (name, seen) in &mut recorded.changed {
            if self.differences.iter().any(|difference| difference.is_of(name, seen)) {
                seen.clone_from(&untouched[name]);
            }
        }
        let changed = std::mem::replace(&mut recorded.changed, untouched);
        recorded.changed.extend(changed);
        recorded
    }
}

impl Difference {
    fn is_of(&self, probe: &str, seen: &str) -> bool {
        self.probes.iter().any(|pattern| matches(pattern, probe)) && matches(&self.recorded, seen)
    }
}

/// Whether a text is like a pattern, whose `*` stands for any text.
fn matches(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((before, after)) => text
            .strip_prefix(before)
            .is_some_and(|rest| (0..=rest.len()).any(|at| rest.is_char_boundary(at) && matches(after, &rest[at..]))),
    }
}

pub fn cases() -> Vec<Case> {
    let directories = ["cases", "linkerd/cases", "kuma/cases", "consul/cases"].into_iter();
    let entries = directories.flat_map(|name| fs::read_dir(directory().join(name)).expect(name));
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    paths.iter().map(|path| read(path)).collect()
}
