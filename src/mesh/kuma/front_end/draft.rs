//! From single settings to what they mean together.

use super::in_kuma_s_words;
use crate::mesh;
use crate::options::{Dialect, KumaRules, Layer, Settings};
use crate::types::{Accounts, Cidrs, DnsServers, Gids, Id as _, IpFamily, MeshName, Output, Ports, Uid, Uids};

/// The user that Kuma's injector runs the proxy as.
const DEFAULT_UID: u32 = 5678;
/// The user of the proxy where there is none of that number.
const DEFAULT_NAME: &str = "kuma-dp";

/// What the settings say one by one.
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
    /// Makes of the single settings what they mean together.
    ///
    /// # Errors
    /// Every contradiction between them.
    pub(super) fn settings(self, accounts: &dyn Accounts) -> Result<Settings, Vec<String>> {
        let uid = self.uid(accounts).map_err(|mistake| vec![mistake])?;
        let mut layer = self.layer;
        layer.mesh = Some(MeshName::Kuma);
        layer.proxy_uid = Some(Uids::from_iter([uid]));
        layer.proxy_gid = Some(Gids::default());
        layer.mesh_ports = Some(Ports::default());
        let listed = |ports: &Option<Ports>| ports.as_ref().is_some_and(|ports| !ports.is_empty());
        // Kuma writes no rules for what is excluded where it is told what to include.
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
        let mut settings =
            mesh::settings(layer).map_err(|problems| problems.into_iter().map(in_kuma_s_words).collect::<Vec<_>>())?;
        settings.config.dialect = Dialect::Kuma(self.kuma);
        Ok(settings)
    }

    /// The proxy's user: the one that is named, else 5678, else `kuma-dp`.
    fn uid(&self, accounts: &dyn Accounts) -> Result<Uid, String> {
        let of_number = |number: u32| Uid::new(number).ok_or_else(|| format!("--kuma-dp-user: {number} is no user"));
        let user = self.user.as_str();
        if let Ok(number) = user.parse() {
            return of_number(number);
        }
        if !user.is_empty() {
            let named = if self.cni_mode { Ok(None) } else { accounts.uid(user) };
            return match named {
                Ok(Some(number)) => of_number(number),
                Ok(None) => Err(format!(
                    "--kuma-dp-user: the specified UID or username ('{user}') does not refer to a valid user on the host"
                )),
                Err(reason) => Err(format!("--kuma-dp-user: {user}: {reason}")),
            };
        }
        match (accounts.has_uid(DEFAULT_UID), accounts.uid(DEFAULT_NAME)) {
            _ if self.cni_mode => of_number(DEFAULT_UID),
            // Without a list of users nothing speaks against the number.
            (Ok(true) | Err(_), _) => of_number(DEFAULT_UID),
            (Ok(false), Ok(Some(number))) => of_number(number),
            (Ok(false), Ok(None) | Err(_)) => Err(format!(
                "--kuma-dp-user: no UID or username provided, and user with the default UID ('{DEFAULT_UID}') or \
                 username ('{DEFAULT_NAME}') could not be found"
            )),
        }
    }
}
