//! Services that load a firewall, and flush what is there when they start, stop or reload.

use std::fs;

/// A firewall service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Firewall {
    /// The unit of the service.
    pub unit: &'static str,
    /// The link by which it starts `sidetrack-reapply.service`, as `systemctl enable` would make it.
    pub link: &'static str,
}

macro_rules! firewalls {
    ($($unit:literal),* $(,)?) => {
        [$(Firewall {
            unit: $unit,
            link: concat!("/etc/systemd/system/", $unit, ".wants/sidetrack-reapply.service"),
        }),*]
    };
}

/// The firewall services that start before the network, and so before our unit. Our units name them.
///
/// The names are those of the packages: `nftables`, `netfilter-persistent`, `firewalld`, `ufw`, `ferm` and `firehol` of Debian;
/// `iptables-services` (`iptables-nft-services`) of Fedora and RHEL, whose spec installs `iptables.service` and
/// `ip6tables.service`; `iptables` and `iptables-nft` of Arch Linux, whose PKGBUILD does the same; `firewalld`, the default
/// of SUSE (`config/firewalld.service.in` of firewalld).
pub const FIREWALLS: [Firewall; 8] = firewalls![
    "nftables.service",
    "netfilter-persistent.service",
    "iptables.service",
    "ip6tables.service",
    "firewalld.service",
    "ufw.service",
    "ferm.service",
    "firehol.service",
];

/// Those that start when the network is up (`After=network-online.target` in the packages `shorewall`, `shorewall6` and
/// `arno-iptables-firewall` of Debian): our unit, which starts before the network, cannot be ordered after them.
pub const LATE_FIREWALLS: [Firewall; 3] = firewalls![
    "shorewall.service",
    "shorewall6.service",
    "arno-iptables-firewall.service",
];

const ADMINISTRATORS: &str = "/etc/systemd/system";

impl Firewall {
    /// Whether it is started at boot: another unit wants or requires it.
    pub fn is_enabled(self) -> bool {
        let entries = fs::read_dir(ADMINISTRATORS).into_iter().flatten().flatten();
        let wanting = entries.filter(|entry| {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            name.ends_with(".wants") || name.ends_with(".requires")
        });
        wanting
            .map(|entry| entry.path().join(self.unit))
            .any(|link| link.symlink_metadata().is_ok())
    }
}
