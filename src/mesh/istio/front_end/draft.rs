//! Combines the single settings into a request.

use std::path::PathBuf;
use std::time::Duration;

use super::table::SETTINGS;
use super::{Probe, Request, Task};
use crate::mesh::front_end::{Mistake, is_wrong, settle};
use crate::options::Layer;
use crate::options::{Dialect, OwnerOrder, Settings};
use crate::types::{Accounts, AccountsError, Backend, Gid, Id, Output, Port, Uid};

/// The default UID of the proxy.
const DEFAULT_UID: u32 = 1337;
/// The name of the proxy's user in Istio's images: the default of `ENVOY_USER`.
const DEFAULT_USER: &str = "istio-proxy";

/// The single settings.
#[derive(Debug, Default)]
pub struct Draft {
    pub(super) layer: Layer,
    pub(super) order: OwnerOrder,
    pub(super) envoy_user: Option<String>,
    pub(super) native_nftables: bool,
    pub(super) skip_rule_apply: bool,
    pub(super) cleanup_only: bool,
    pub(super) run_validation: bool,
    pub(super) probe_port: Option<Port>,
    pub(super) probe_timeout: Duration,
    pub(super) netns: Option<String>,
    pub(super) dry_run_file: Option<String>,
}

impl Draft {
    /// Combines the single settings.
    ///
    /// # Errors
    /// `mistakes` of single settings, and every contradiction between the others.
    pub(super) fn request(
        mut self,
        accounts: &dyn Accounts,
        mut mistakes: Vec<Mistake>,
    ) -> Result<Request, Vec<Mistake>> {
        mistakes.extend(self.complete_owners(accounts, &mistakes));
        let layer = &mut self.layer;
        if layer
            .include_inbound_ports
            .as_ref()
            .is_some_and(|ports| !ports.is_everything())
        {
            layer.exclude_inbound_ports = None;
        }
        if layer.include_gids.as_ref().is_some_and(|gids| !gids.is_everything()) {
            layer.exclude_gids = None;
        }
        layer.output = Some(Output::Iptables);
        if self.native_nftables {
            (layer.backend, layer.output) = (Some(Backend::Auto), Some(Output::Nft));
        }
        let setting_of_option = |option: &str| {
            let setting = SETTINGS.iter().find(|setting| setting.option == option)?;
            Some(setting.name)
        };
        let mut settings = settle(Settings::from_layer(self.layer), mistakes, setting_of_option)?;
        settings.config.dialect = Dialect::Istio(self.order);
        let task = match (self.skip_rule_apply, self.cleanup_only) {
            (true, _) => Task::Nothing,
            (false, true) => Task::Cleanup,
            (false, false) => Task::Apply,
        };
        let timeout = self.probe_timeout;
        let probe = self.probe_port.filter(|_| self.run_validation);
        Ok(Request {
            settings,
            task,
            probe: probe.map(|port| Probe { port, timeout }),
            netns: self.netns,
            dry_run_file: self.dry_run_file.map(PathBuf::from),
        })
    }

    /// Completes the proxy's users and groups, unless they have an error already.
    fn complete_owners(&mut self, accounts: &dyn Accounts, mistakes: &[Mistake]) -> Option<Mistake> {
        let OwnerOrder { uids, gids } = &mut self.order;
        let mut mistake = None;
        if uids.is_empty() && !is_wrong(mistakes, "proxy-uid") {
            let name = self.envoy_user.as_deref().unwrap_or(DEFAULT_USER);
            let named = match accounts.uid(name) {
                // The default name, in an image without a passwd file: use the default UID.
                Err(AccountsError::Missing { .. }) if name == DEFAULT_USER => None,
                Ok(named) => named,
                Err(error) => {
                    mistake = Some(Mistake::Other {
                        setting: "ENVOY_USER",
                        origin: "ENVOY_USER".to_owned(),
                        reason: format!("{name}: {error}; or set --proxy-uid"),
                    });
                    None
                }
            };
            uids.extend(Uid::new(named.unwrap_or(DEFAULT_UID)));
        }
        if gids.is_empty() {
            gids.extend(uids.iter().filter_map(|uid| Gid::new(uid.get())));
        }
        self.layer.proxy_uid = Some(uids.iter().copied().collect());
        self.layer.proxy_gid = Some(gids.iter().copied().collect());
        mistake
    }
}
