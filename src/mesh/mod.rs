//! What is known of service meshes: one file each, in one table. Whatever has to know what a mesh does asks here.

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

/// What is known of a mesh.
#[derive(Debug)]
pub struct Mesh {
    /// What it is called.
    pub name: &'static str,
    /// What the option calls it.
    pub option: MeshName,
    /// How its proxy hands connections to the application.
    pub delivery: Delivery,
    /// Whether its proxy answers name lookups over TCP too. Where it does not, they are left alone.
    pub dns_over_tcp: bool,
    /// Whether its DNS is a name server on loopback that passes nothing on to itself: then lookups of that server are
    /// captured of everybody, whatever else is excluded.
    pub dns_on_loopback: bool,
    /// How the domains of its annotations and labels end.
    pub domain: &'static str,
    /// The options that its injector sets redirection up with unless it is told otherwise, where they are not our
    /// defaults.
    pub options: &'static Said,
    /// Whether its injector rewrites every probe of a captured port. The others take care of HTTP alone: Consul
    /// rewrites those probes, and Linkerd's proxy lets them through.
    pub rewrites_probes: bool,
    /// What its injector leaves on a pod with a sidecar: all of these annotations, with this value where there is one.
    pub mark: &'static [(&'static str, Option<&'static str>)],
    /// What tells its injector whether to inject a pod.
    pub injection: Injection,
    /// The annotations that keep a pod from being redirected, whatever else it has.
    pub opt_outs: &'static [OptOut],
    /// Its annotations that say how a pod is redirected.
    pub annotations: &'static [Annotation],
    /// What its injector calls the container of the proxy.
    pub proxies: &'static [&'static str],
    /// The images of its proxy, without registry and version.
    pub proxy_images: &'static [&'static str],
    /// What its init containers that redirect are called.
    pub init_containers: &'static [&'static str],
    /// How the chains of its own rules begin, and who writes those.
    pub chains: &'static [(&'static str, &'static str)],
    /// How the nf_tables tables of its own rules begin, and who writes those.
    pub tables: &'static [(&'static str, &'static str)],
    /// Its rules in built-in chains that do not lead to its chains: each has all of these words. A word that ends with
    /// `/` is the beginning of one.
    pub traces: &'static [&'static [&'static str]],
    /// The mark and the routing table of its policy routing, unless they were changed.
    pub policy_routing: Option<(u32, u32)>,
    /// Ports that its proxy and agent listen on in a pod, and what for.
    pub ports: &'static [(u16, &'static str)],
}

/// The meshes. What several know is taken from the first.
pub static MESHES: [Mesh; 4] = [istio::ISTIO, linkerd::LINKERD, kuma::KUMA, consul::CONSUL];

/// How a proxy connects to the application, which decides what its calls of the pod's own address are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// From 127.0.0.6 or ::6, as Envoy does for Istio and Kuma: a call from any other address is a new connection to the
    /// pod, and goes the way of inbound traffic.
    FromPassthrough,
    /// To the address that the client called, unbound, as Linkerd's proxy does: a call of the pod's own address is a
    /// delivery, and would come back for ever if it were redirected.
    ToOriginalDestination,
    /// To 127.0.0.1, as Envoy does for Consul. What else it sends to the pod's own address is left alone.
    ToLoopback,
}

/// The mesh of this name, unless it is none.
pub fn named(name: MeshName) -> Option<&'static Mesh> {
    MESHES.iter().find(|mesh| mesh.option == name)
}

/// The mesh whose injector has left its mark on a pod.
pub fn injected(annotations: &Annotations) -> Option<&'static Mesh> {
    MESHES.iter().find(|mesh| mesh.injected(|name| annotations.get(name)))
}

/// How the proxy of this mesh hands connections to the application; without a mesh, as Istio's does.
pub fn delivery(name: MeshName) -> Delivery {
    named(name).map_or(Delivery::FromPassthrough, |mesh| mesh.delivery)
}

/// The mesh, where IPv6 is left alone since its proxy does not listen on it unless its own settings say so, and nobody
/// asked for that.
pub fn leaves_ipv6_alone(settings: &Settings) -> Option<&'static Mesh> {
    let is_left = settings.config.general.ip_family == IpFamily::Ipv4 && !settings.names_family;
    named(settings.config.proxy.mesh).filter(|_| is_left)
}

/// The settings that `layer` leads to: where it is silent its mesh decides, and then the defaults.
///
/// # Errors
/// Every contradiction between values.
pub fn settings(layer: Layer) -> Result<Settings, Vec<Problem>> {
    let name = layer.mesh.unwrap_or(MeshName::Istio);
    let names_family = layer.ip_family.is_some();
    let settings = Settings {
        names_family,
        ..Settings::from_layer(layer.over(defaults(name)))?
    };
    let tproxy = settings.config.inbound.mode == InboundMode::Tproxy;
    if tproxy && delivery(name) != Delivery::FromPassthrough {
        let reason = format!("the proxy of {name} does not take connections by TPROXY; leave one of them out");
        return Err(vec![Problem::between(&["mesh", "inbound-mode"], reason)]);
    }
    Ok(settings)
}

/// The users that a proxy may run as where these options are all that is known.
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

/// The programs of proxies and their agents, of every mesh.
pub const PROXY_PROGRAMS: [&str; 5] = ["envoy", "pilot-agent", "linkerd2-proxy", "kuma-dp", "consul-dataplane"];

/// The options of a mesh. Without one there are no ports that a mesh serves.
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

/// What tells an injector whether to inject a pod. A pod that bears the mark of an injected sidecar is past that: whatever
/// these say then, its proxy is there.
#[derive(Debug)]
pub struct Injection {
    /// The annotation, or the label.
    pub name: &'static str,
    /// Where it is read.
    pub place: Place,
    /// Whether this value asks for a sidecar.
    pub yes: fn(&str) -> bool,
    /// Whether this value keeps the injector away.
    pub no: fn(&str) -> bool,
}

/// Where an injector reads what it is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Among the annotations.
    Annotation,
    /// Among the labels.
    Label,
    /// Among the labels; among the annotations where no label of this name is there, not even an empty one.
    LabelOrAnnotation,
}

/// An annotation that keeps a pod from being redirected where it has certain values.
#[derive(Debug)]
pub struct OptOut {
    /// The annotation.
    pub annotation: &'static str,
    /// Whether this value does.
    pub says: fn(&str) -> bool,
    /// What it says then.
    pub reason: &'static str,
}

impl Mesh {
    /// Its options, to count where nothing else says otherwise.
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

    /// Whether its injector has left its mark on a pod with these annotations.
    pub fn injected<'a>(&self, annotation: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.mark.iter().all(|(name, value)| {
            let found = annotation(name).filter(|found| !found.is_empty());
            found.is_some_and(|found| value.is_none_or(|value| value == found))
        })
    }
}

/// What Go's `strconv.ParseBool` takes for true.
fn is_true(text: &str) -> bool {
    matches!(text, "true" | "True" | "TRUE" | "t" | "T" | "1")
}

/// What Go's `strconv.ParseBool` takes for false.
fn is_false(text: &str) -> bool {
    matches!(text, "false" | "False" | "FALSE" | "f" | "F" | "0")
}
