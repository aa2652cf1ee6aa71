//! The service meshes: one file each, in one table. Every module that depends on the behaviour of a mesh reads this table.

pub mod annotations;
pub mod consul;
pub mod container;
pub mod front_end;
pub mod go;
pub mod invocation;
pub mod istio;
pub mod kuma;
pub mod linkerd;
pub mod manifest;
pub mod peers;
pub mod pod;
pub mod policy;
pub mod redirectors;
pub mod verdict;

use self::annotations::Annotations;
use self::annotations::table::{Annotation, Said};
use crate::options::problem::Problem;
use crate::options::{Layer, Settings, table};
use crate::types::{InboundMode, IpFamily, MeshName, NoAccounts, Ports, Uids};

/// The behaviour of a mesh that redirection depends on.
#[derive(Debug)]
pub struct Mesh {
    /// The name of the mesh in messages.
    pub name: &'static str,
    /// The value of the option `mesh`.
    pub option: MeshName,
    /// How the proxy connects to the application.
    pub delivery: Delivery,
    /// Whether the proxy answers DNS over TCP. If not, DNS over TCP is not redirected.
    pub dns_over_tcp: bool,
    /// Whether the mesh's DNS is a name server on loopback that never queries itself. Then queries to that server are
    /// captured from every process, despite exclusions.
    pub dns_on_loopback: bool,
    /// The domain suffix of its annotations and labels.
    pub domain: &'static str,
    /// The default options of its injector that differ from sidetrack's defaults.
    pub options: &'static Said,
    /// Whether its injector rewrites every probe of a captured port. The other meshes handle HTTP probes only: Consul
    /// rewrites them, and Linkerd's proxy forwards them.
    pub rewrites_probes: bool,
    /// Whether the proxy detects a connection's protocol from the client's first bytes.
    pub detects_protocols: bool,
    /// The annotations that its injector sets on a pod with a sidecar: all of them, with this value if one is given.
    pub mark: &'static [(&'static str, Option<&'static str>)],
    /// The annotation or label that requests or refuses injection.
    pub injection: Injection,
    /// The annotations that exclude a pod from redirection, before all others.
    pub opt_outs: &'static [OptOut],
    /// The annotations that configure redirection.
    pub annotations: &'static [Annotation],
    /// The names of the proxy container.
    pub proxies: &'static [&'static str],
    /// The images of its proxy, without registry and version.
    pub proxy_images: &'static [&'static str],
    /// The names of its init containers that redirect.
    pub init_containers: &'static [&'static str],
    /// The names of its init containers that validate a plugin's redirection.
    pub validators: &'static [&'static str],
    /// The prefixes of its chains, each with the tool that creates them.
    pub chains: &'static [(&'static str, &'static str)],
    /// The prefixes of its nf_tables tables, each with the tool that creates them.
    pub tables: &'static [(&'static str, &'static str)],
    /// Its rules in built-in chains that do not jump to its chains: each rule contains all of these words. A word that
    /// ends with `/` is a prefix.
    pub traces: &'static [&'static [&'static str]],
    /// The default mark and routing table of its policy routing.
    pub policy_routing: Option<(u32, u32)>,
    /// The ports that its proxy and agent listen on in a pod, each with its purpose.
    pub ports: &'static [(u16, &'static str)],
}

/// The meshes. Where several match, the first one applies.
pub static MESHES: [Mesh; 4] = [istio::ISTIO, linkerd::LINKERD, kuma::KUMA, consul::CONSUL];

/// How a proxy connects to the application. This decides how the proxy's connections to the pod's own address are treated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// From 127.0.0.6 or ::6, as Envoy does for Istio and Kuma: a connection from any other address is new, and is
    /// redirected like inbound traffic.
    FromPassthrough,
    /// To the client's destination, from any source address, as Linkerd's proxy does: a connection to the pod's own
    /// address is a delivery, and would loop if it were redirected.
    ToOriginalDestination,
    /// To 127.0.0.1, as Envoy does for Consul. Its other connections to the pod's own address are not redirected.
    ToLoopback,
}

/// The mesh that an option names; `None` for `none`.
pub fn named(name: MeshName) -> Option<&'static Mesh> {
    MESHES.iter().find(|mesh| mesh.option == name)
}

/// The mesh whose injector annotated a pod with a sidecar.
pub fn injected_by(annotations: &Annotations) -> Option<&'static Mesh> {
    MESHES
        .iter()
        .find(|mesh| mesh.has_injected(|name| annotations.get(name)))
}

/// How the proxy of this mesh connects to the application; without a mesh, as Istio's does.
pub fn delivery(name: MeshName) -> Delivery {
    named(name).map_or(Delivery::FromPassthrough, |mesh| mesh.delivery)
}

/// Whether the proxy of this mesh answers DNS over TCP; without a mesh, as Istio's does.
pub fn answers_dns_over_tcp(name: MeshName) -> bool {
    named(name).is_none_or(|mesh| mesh.dns_over_tcp)
}

/// The mesh whose default excludes IPv6, since its proxy does not listen on IPv6 unless configured to; `None` if an option
/// sets the families.
pub fn mesh_without_ipv6(settings: &Settings) -> Option<&'static Mesh> {
    let is_excluded = settings.config.general.ip_family == IpFamily::Ipv4 && !settings.has_explicit_family;
    named(settings.config.proxy.mesh).filter(|_| is_excluded)
}

/// The settings of `layer`, completed with the defaults of its mesh, then with the general defaults.
///
/// # Errors
/// Every contradiction between values.
pub fn settings(layer: Layer) -> Result<Settings, Vec<Problem>> {
    let name = layer.mesh.unwrap_or(MeshName::Istio);
    let has_explicit_family = layer.ip_family.is_some();
    let settings = Settings {
        has_explicit_family,
        ..Settings::from_layer(layer.over(defaults(name)))?
    };
    let tproxy = settings.config.inbound.mode == InboundMode::Tproxy;
    if tproxy && delivery(name) != Delivery::FromPassthrough {
        let reason = format!("the proxy of {name} does not support TPROXY; omit one of them");
        return Err(vec![Problem::between(&["mesh", "inbound-mode"], reason)]);
    }
    Ok(settings)
}

/// The users that a proxy may run as if only these options are known: without a mesh, those of every mesh.
///
/// # Errors
/// Every contradiction between the options.
pub fn proxy_users(layer: &Layer) -> Result<Uids, Vec<Problem>> {
    let users = settings(layer.clone())?.config.proxy.uids;
    if layer.mesh.is_some() {
        return Ok(users);
    }
    let others = MESHES.iter().filter_map(|mesh| {
        let layer = Layer {
            mesh: Some(mesh.option),
            ..layer.clone()
        };
        settings(layer).ok()
    });
    Ok(others.fold(users, |users, settings| users.union(&settings.config.proxy.uids)))
}

/// The programs of the proxies and agents of every mesh.
pub const PROXY_PROGRAMS: [&str; 5] = ["envoy", "pilot-agent", "linkerd2-proxy", "kuma-dp", "consul-dataplane"];

/// The default options of a mesh. Without a mesh there are no mesh ports.
fn defaults(name: MeshName) -> Layer {
    match named(name) {
        Some(mesh) => mesh.layer(),
        None => Layer {
            mesh: Some(MeshName::None),
            mesh_ports: Some(Ports::default()),
            ..Layer::default()
        },
    }
}

/// The annotation or label that requests or refuses injection. It no longer matters once a pod is injected: its proxy
/// is there.
#[derive(Debug)]
pub struct Injection {
    /// The annotation, or the label.
    pub name: &'static str,
    /// Where the injector reads it.
    pub place: Place,
    /// Whether this value requests a sidecar.
    pub yes: fn(&str) -> bool,
    /// Whether this value refuses a sidecar.
    pub no: fn(&str) -> bool,
}

/// Where an injector reads its switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In the annotations.
    Annotation,
    /// In the labels.
    Label,
    /// In the labels; in the annotations only if no label has this name, not even an empty one.
    LabelOrAnnotation,
}

/// An annotation that excludes a pod from redirection if it has certain values.
#[derive(Debug)]
pub struct OptOut {
    /// The annotation.
    pub annotation: &'static str,
    /// Whether this value excludes the pod.
    pub says: fn(&str) -> bool,
    /// The reason in messages.
    pub reason: &'static str,
    /// The init container that redirects the pod instead.
    pub init_container: Option<&'static str>,
}

impl Mesh {
    /// The default options of the mesh.
    pub fn layer(&self) -> Layer {
        let mut layer = Layer {
            mesh: Some(self.option),
            ..Layer::default()
        };
        for (name, text) in self.options {
            let read = table::find(name).map(|option| (option.read)(&mut layer, &[(*text).to_owned()], &NoAccounts));
            debug_assert!(matches!(read, Some(Ok(()))), "{name}");
        }
        layer
    }

    /// Whether a pod with these annotations was injected by this mesh.
    pub fn has_injected<'a>(&self, annotation: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.mark.iter().all(|(name, value)| {
            let found = annotation(name).filter(|found| !found.is_empty());
            found.is_some_and(|found| value.is_none_or(|value| value == found))
        })
    }
}

/// Whether Go's `strconv.ParseBool` reads this as true.
fn is_true(text: &str) -> bool {
    matches!(text, "true" | "True" | "TRUE" | "t" | "T" | "1")
}

/// Whether Go's `strconv.ParseBool` reads this as false.
fn is_false(text: &str) -> bool {
    matches!(text, "false" | "False" | "FALSE" | "f" | "F" | "0")
}
