//! Combines the single flags into a request.

use super::Request;
use super::table::SETTINGS;
use super::values::MODES;
use crate::mesh::front_end::{Mistake, settle};
use crate::options::{Layer, Settings};
use crate::types::{Backend, Invalid, MeshName, Output, Ports};

/// The single flags.
#[derive(Debug, Default)]
pub struct Draft {
    pub(super) layer: Layer,
    /// Invalid items of lists, which are ignored.
    pub(super) ignored_items: Vec<Invalid>,
    pub(super) netns: Option<String>,
    pub(super) mode: Option<String>,
    pub(super) program: Option<String>,
}

impl Draft {
    /// Combines the single flags.
    ///
    /// # Errors
    /// `mistakes` of single flags, and every contradiction between the others.
    pub(super) fn request(mut self, mut mistakes: Vec<Mistake>) -> Result<Request, Vec<Mistake>> {
        let backend = self.backend().map_err(|mistake| mistakes.push(mistake));
        let layer = &mut self.layer;
        layer.mesh = Some(MeshName::Linkerd);
        // The chart passes its default exclusions as flags.
        layer.mesh_ports = Some(Ports::default());
        layer.proxy_uid.get_or_insert_default();
        layer.proxy_gid.get_or_insert_default();
        layer.backend = backend.ok();
        layer.output = Some(match layer.backend {
            Some(Backend::IptablesLegacy) => Output::Iptables,
            _ => Output::Nft,
        });
        let setting_of_option = |option: &str| {
            let setting = SETTINGS.iter().find(|setting| setting.option == option)?;
            Some(setting.name)
        };
        Ok(Request {
            settings: settle(Settings::from_layer(self.layer), mistakes, setting_of_option)?,
            netns: self.netns.filter(|path| !path.is_empty()),
        })
    }

    /// Without both flags, Linkerd uses legacy iptables; its chart omits both only for that mode. Sidetrack chooses by the
    /// features of the kernel.
    fn backend(&self) -> Result<Backend, Mistake> {
        let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        let (name, text, names) = match (given(&self.mode), given(&self.program)) {
            (Some(mode), _) => ("iptables-mode", mode, MODES.map(|(mode, ..)| mode)),
            (None, Some(program)) => ("firewall-bin-path", program, MODES.map(|(_, program, _)| program)),
            (None, None) => return Ok(Backend::Auto),
        };
        let known = names.iter().zip(MODES).find(|(name, _)| **name == text);
        known.map(|(_, (.., backend))| backend).ok_or_else(|| Mistake::Value {
            setting: name,
            origin: format!("--{name}"),
            usage: false,
            invalid: Invalid::new(text, names.join(", ")),
        })
    }
}
