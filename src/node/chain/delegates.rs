//! sidetrack's entry in `delegates`, the chains that Multus passes pods on to. Multus copies them from the
//! conflist that it found, including our entry, and takes that conflist's place.

use std::ops::Range;

use super::Plugin;
use crate::cni::verbatim::{elements, member};

/// A list of plugins in a text, at least one of them not sidetrack's: other lists were not joined by the installer.
pub struct List {
    /// Where it is.
    pub at: Range<usize>,
    pub plugins: Vec<Plugin>,
}

/// The lists in the delegates of a plugin of this text: of each delegate that is a chain, and the delegates themselves.
pub fn lists(text: &str, plugin: &Plugin) -> Vec<List> {
    let Some(delegates) = member(&text[plugin.at.clone()], "delegates") else {
        return Vec::new();
    };
    let chains = elements(delegates).unwrap_or_default();
    let chains = chains.into_iter().filter_map(|delegate| member(delegate, "plugins"));
    let lists = chains.chain([delegates]).map(|list| List {
        at: super::place(text, list),
        plugins: plugins(text, list),
    });
    lists.filter(|list| !list.plugins.iter().all(Plugin::is_ours)).collect()
}

fn plugins(text: &str, list: &str) -> Vec<Plugin> {
    let written = elements(list).unwrap_or_default().into_iter();
    let plugin = |written| {
        Some(Plugin {
            at: super::place(text, written),
            value: serde_json::from_str(written).ok()?,
        })
    };
    written.filter_map(plugin).collect()
}
