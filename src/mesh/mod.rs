//! What is known of service meshes: one file each, in one table. Whatever has to know what a mesh does asks here.

pub mod annotations;
pub mod consul;
pub mod istio;
pub mod kuma;
pub mod linkerd;
pub mod pod;
pub mod policy;
pub mod redirectors;

use self::annotations::table::{Annotation, Said};
use crate::options::{Layer, table};
use crate::types::NoAccounts;

/// What is known of a mesh.
#[derive(Debug)]
pub struct Mesh {
    /// What it is called.
    pub name: &'static str,
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
    /// Ports that its proxy and agent listen on in a pod, and what for.
    pub ports: &'static [(u16, &'static str)],
}

/// The meshes. What several know is taken from the first.
pub static MESHES: [Mesh; 4] = [istio::ISTIO, linkerd::LINKERD, kuma::KUMA, consul::CONSUL];

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
        let mut layer = Layer::default();
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

/// What Go's `strconv.ParseBool` takes for false.
fn is_false(text: &str) -> bool {
    matches!(text, "false" | "False" | "FALSE" | "f" | "F" | "0")
}
