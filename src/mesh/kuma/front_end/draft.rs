//! Combines the single settings into a request.

use super::table::SETTINGS;
use crate::mesh;
use crate::mesh::front_end::{Mistake, is_wrong, settle};
use crate::options::{Dialect, KumaRules, Layer, Settings};
use crate::types::{Accounts, AccountsError, Cidrs, DnsServers, Gids, Id as _, IpFamily, MeshName, Output, Ports, Uid};

/// The user that Kuma's injector runs the proxy as.
const DEFAULT_UID: u32 = 5678;
/// The name of the proxy's user if that UID does not exist.
const DEFAULT_NAME: &str = "kuma-dp";

/// The single settings.
#[derive(Debug, Default)]
pub struct Draft {
    pub(super) layer: Layer,
    pub(super) kuma: KumaRules,
    pub(super) user: String,
    pub(super) cni_mode: bool,
    pub(super) redirects_inbound: bool,
    pub(super) redirects_outbound: bool,
    pub(super) redirects_dns: bool,
    pub(super) redirects_all_dns: bool,
    pub(super) notes: Vec<String>,
    pub(super) warnings: Vec<String>,
}

impl Draft {
    /// Combines the single settings.
    ///
    /// # Errors
    /// `mistakes` of single settings, and every contradiction between the others.
    pub(super) fn settings(
        self,
        accounts: &dyn Accounts,
        mut mistakes: Vec<Mistake>,
    ) -> Result<Settings, Vec<Mistake>> {
        let needs_user = !is_wrong(&mistakes, "kuma-dp-user") && !is_wrong(&mistakes, "cniMode");
        let uid = match needs_user.then(|| self.uid(accounts)).transpose() {
            Ok(uid) => uid.or(Uid::new(DEFAULT_UID)),
            Err(reason) => {
                mistakes.push(Mistake::of_flag("kuma-dp-user", reason));
                Uid::new(DEFAULT_UID)
            }
        };
        let mut layer = self.layer;
        layer.mesh = Some(MeshName::Kuma);
        layer.proxy_uid = Some(uid.into_iter().collect());
        layer.proxy_gid = Some(Gids::default());
        layer.mesh_ports = Some(Ports::default());
        let listed = |ports: &Option<Ports>| ports.as_ref().is_some_and(|ports| !ports.is_empty());
        // With included ports, Kuma ignores excluded ones.
        if !self.redirects_inbound {
            layer.include_inbound_ports = Some(Ports::default());
        } else if listed(&layer.include_inbound_ports) {
            layer.exclude_inbound_ports = None;
        } else {
            layer.include_inbound_ports = None;
        }
        if !self.redirects_outbound {
            (layer.include_outbound_ports, layer.include_outbound_cidrs) =
                (Some(Ports::default()), Some(Cidrs::default()));
        } else if listed(&layer.include_outbound_ports) {
            layer.exclude_outbound_ports = None;
        } else {
            layer.include_outbound_ports = None;
        }
        layer.redirect_dns = Some(self.redirects_dns || self.redirects_all_dns);
        layer.dns_servers = Some(if self.redirects_all_dns {
            DnsServers::All
        } else {
            DnsServers::ResolvConf
        });
        layer.ip_family.get_or_insert(IpFamily::Auto);
        layer.output = Some(Output::Iptables);
        let setting_of_option = |option: &str| {
            let setting = SETTINGS.iter().find(|setting| setting.option == option)?;
            Some(setting.name)
        };
        let mut settings = settle(mesh::settings(layer), mistakes, setting_of_option)?;
        settings.config.dialect = Dialect::Kuma(self.kuma);
        Ok(settings)
    }

    /// The proxy's user: the given one, else 5678, else `kuma-dp`.
    fn uid(&self, accounts: &dyn Accounts) -> Result<Uid, String> {
        let of_number = |number: u32| Uid::new(number).ok_or_else(|| format!("{number} is not a valid UID"));
        let user = self.user.as_str();
        if let Ok(number) = user.parse() {
            return of_number(number);
        }
        if !user.is_empty() {
            let named = if self.cni_mode { Ok(None) } else { accounts.uid(user) };
            return match named {
                Ok(Some(number)) => of_number(number),
                Ok(None) => Err(format!(
                    "the specified UID or username ('{user}') does not refer to a valid user on the host"
                )),
                Err(error) => Err(format!("{user}: {error}")),
            };
        }
        if self.cni_mode {
            return of_number(DEFAULT_UID);
        }
        let failed = |error: AccountsError| format!("{error}; or give the UID");
        match accounts.has_uid(DEFAULT_UID) {
            // Without a passwd file, the number is used.
            Ok(true) | Err(AccountsError::Missing { .. }) => of_number(DEFAULT_UID),
            Err(error) => Err(failed(error)),
            Ok(false) => match accounts.uid(DEFAULT_NAME).map_err(failed)? {
                Some(number) => of_number(number),
                None => Err(format!(
                    "no UID or username provided, and user with the default UID ('{DEFAULT_UID}') or username \
                     ('{DEFAULT_NAME}') could not be found"
                )),
            },
        }
    }
}
