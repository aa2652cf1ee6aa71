//! Services that load a firewall, and flush what is there when they start, stop or reload.

use std::fs;
use std::path::Path;

/// A firewall service, and the link that starts our unit with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Firewall {
    /// The unit of the service.
    pub unit: &'static str,
    /// The link by which our unit is started with it, as `systemctl enable` would make it.
    pub link: &'static str,
}

macro_rules! firewalls {
    ($($unit:literal),* $(,)?) => {
        [$(Firewall {
            unit: $unit,
            link: concat!("/etc/systemd/system/", $unit, ".wants/sidetrack.service"),
        }),*]
    };
}

/// The firewall services of Debian, Fedora and their derivatives. Our unit names them in its section `[Unit]`.
pub const FIREWALLS: [Firewall; 7] = firewalls![
    "nftables.service",
    "netfilter-persistent.service",
    "iptables.service",
    "ip6tables.service",
    "firewalld.service",
    "ufw.service",
    "ferm.service",
];

const ADMINISTRATORS: &str = "/etc/systemd/system";
/// Where units of packages are (systemd.unit(5)).
const PACKAGED: [&str; 3] = [
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
];

impl Firewall {
    /// Whether this host has the service.
    pub fn is_installed(self) -> bool {
        let mut places = [ADMINISTRATORS].into_iter().chain(PACKAGED);
        places.any(|place| Path::new(place).join(self.unit).exists())
    }

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
