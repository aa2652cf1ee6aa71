//! Checks whether the kernel drops inbound IPv4 packets that TPROXY marks.
//!
//! If `src_valid_mark` is set, the kernel looks up a packet's source with its mark (fib_validate_source() in
//! net/ipv4/fib_frontend.c). Our route then makes any address local, and packets from local addresses do not come
//! from outside (“martian source”), unless `accept_local` says that they do and `rp_filter` does not ask for the
//! interface. VPN clients set it on nodes, and new network namespaces inherit it (`net.core.devconf_inherit_init_net`).

use std::fmt;
use std::fs;
use std::path::Path;

use super::interfaces;

const DIRECTORY: &str = "/proc/sys/net/ipv4/conf";

/// An interface whose settings make the kernel drop marked packets that it receives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Discards {
    interface: String,
    /// The setting's scope: the interface, or `all`.
    set_by: String,
}

impl fmt::Display for Discards {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { interface, set_by } = self;
        write!(
            f,
            "net.ipv4.conf.{set_by}.src_valid_mark is 1, so the kernel drops the IPv4 packets that arrive on {interface} \
             and are marked by tproxy"
        )
    }
}

/// The settings of one interface, or those for all.
#[derive(Clone, Copy, Debug, Default)]
struct Settings {
    src_valid_mark: u8,
    accept_local: u8,
    rp_filter: u8,
}

impl Settings {
    /// Reads the settings below a directory. For unreadable ones, the kernel's default is assumed.
    fn read(directory: &Path) -> Self {
        let number = |name| {
            let text = fs::read_to_string(directory.join(name));
            text.ok().and_then(|text| text.trim().parse().ok()).unwrap_or_default()
        };
        Self {
            src_valid_mark: number("src_valid_mark"),
            accept_local: number("accept_local"),
            rp_filter: number("rp_filter"),
        }
    }

    /// Whether the kernel drops packets with these settings and those of the interface (`IN_DEV_ORCONF`,
    /// `IN_DEV_MAXCONF`).
    fn discards(self, own: Self) -> bool {
        const STRICT: u8 = 1;
        let validates = self.src_valid_mark != 0 || own.src_valid_mark != 0;
        let accepts = self.accept_local != 0 || own.accept_local != 0;
        validates && !(accepts && self.rp_filter.max(own.rp_filter) != STRICT)
    }
}

/// The first interface of this network namespace, except loopback, that drops marked packets, if any. Over
/// loopback packets keep the route that they were sent by.
pub fn discards() -> Option<Discards> {
    let all = Settings::read(&Path::new(DIRECTORY).join("all"));
    let names = interfaces::names().into_iter().map(|name| name.to_string());
    names.filter(|name| name != "lo").find_map(|interface| {
        let own = Settings::read(&Path::new(DIRECTORY).join(&interface));
        all.discards(own).then(|| Discards {
            set_by: if all.src_valid_mark == 0 {
                interface.clone()
            } else {
                "all".to_owned()
            },
            interface,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn discards_match_the_kernels_rules() {
        let settings = |src_valid_mark, accept_local, rp_filter| Settings {
            src_valid_mark,
            accept_local,
            rp_filter,
        };
        let none = settings(0, 0, 0);
        assert!(!none.discards(none) && !none.discards(settings(0, 0, 1)));
        assert!(settings(1, 0, 0).discards(none) && none.discards(settings(1, 0, 0)));
        assert!(!settings(1, 0, 0).discards(settings(0, 1, 0)));
        assert!(!settings(1, 1, 2).discards(none));
        assert!(settings(1, 1, 0).discards(settings(0, 0, 1)));
        // The larger value counts, which is loose.
        assert!(!settings(1, 1, 2).discards(settings(0, 0, 1)));
    }
}
