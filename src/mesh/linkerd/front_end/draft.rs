//! From single flags to what they mean together.

use super::Request;
use super::table::SETTINGS;
use super::values::MODES;
use crate::mesh::front_end::{Mistake, settle};
use crate::options::{Layer, Logging, Settings};
use crate::types::{Backend, Invalid, MeshName, Output, Ports};

/// What the flags say one by one.
#[derive(Debug, Default)]
pub struct Draft {
    pub(super) layer: Layer,
    /// Items of lists that are not valid, and that are left out.
    pub(super) left_out: Vec<Invalid>,
    pub(super) netns: Option<String>,
    pub(super) mode: Option<String>,
    pub(super) program: Option<String>,
}

impl Draft {
    /// How to log.
    pub(super) fn logging(&self) -> Logging {
        let defaults = Settings::default().logging;
        Logging {
            level: self.layer.log_level.unwrap_or(defaults.level),
            format: self.layer.log_format.unwrap_or(defaults.format),
        }
    }

    /// Makes of the single flags what they mean together.
    ///
    /// # Errors
    /// `mistakes` of single flags, and every contradiction between the others.
    pub(super) fn request(mut self, mut mistakes: Vec<Mistake>) -> Result<Request, Vec<Mistake>> {
        let backend = self.backend().map_err(|mistake| mistakes.push(mistake));
        let layer = &mut self.layer;
        layer.mesh = Some(MeshName::Linkerd);
        // What the defaults of its charts leave alone comes as flags.
        layer.mesh_ports = Some(Ports::default());
        layer.proxy_uid.get_or_insert_default();
        layer.proxy_gid.get_or_insert_default();
        layer.backend = backend.ok();
        layer.output = Some(match layer.backend {
            Some(Backend::IptablesLegacy) => Output::Iptables,
            _ => Output::Nft,
        });
        let of_option = |option: &str| {
            let setting = SETTINGS.iter().find(|setting| setting.option == option)?;
            Some(setting.name)
        };
        Ok(Request {
            settings: settle(Settings::from_layer(self.layer), mistakes, of_option)?,
            netns: self.netns.filter(|path| !path.is_empty()),
        })
    }

    /// Where neither is given, Linkerd takes legacy iptables; its chart gives neither for that mode alone. Ours takes what
    /// the kernel has.
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
