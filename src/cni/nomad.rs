//! In place of Consul's plugin, for Nomad: it looks for a plugin of that name, runs it to learn its version, and writes
//! the configuration for it itself.

use std::ffi::OsString;
use std::path::Path;

/// What Consul's plugin is called, as a program and in a NetConf.
pub const PLUGIN: &str = "consul-cni";

/// The keys of its NetConf, which say nothing to us, but for `log_level`.
pub const KEYS: &[&str] = &["cni_bin_dir", "cni_net_dir", "kubeconfig", "multus", "log_level"];

/// The version of it that we stand in for: jobs with a transparent proxy are placed where it is 1.4.2 or later.
const VERSION: &str = "v1.4.2";

/// What is printed where the program is called like Consul's plugin, and nothing is asked of it: Nomad takes the first
/// word that is a version.
pub fn announcement(arguments: &[OsString]) -> Option<String> {
    let [program] = arguments else {
        return None;
    };
    let called = Path::new(program).file_name()? == PLUGIN;
    let ours = env!("CARGO_PKG_VERSION");
    called.then(|| format!("CNI {PLUGIN} plugin {VERSION} (sidetrack {ours} in its place)\n"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cni::error::Code;
    use crate::cni::netconf::NetConf;
    use crate::types::LogLevel;

    #[test]
    fn only_consuls_name_without_arguments_is_answered_with_its_version() {
        let said = |arguments: &[&str]| announcement(&arguments.iter().map(OsString::from).collect::<Vec<_>>());
        let line = said(&["/opt/cni/bin/consul-cni"]).unwrap();
        let version = line.split_whitespace().find(|word| word.starts_with('v'));
        assert_eq!(version, Some("v1.4.2"), "{line}");
        assert_eq!(said(&["/opt/cni/bin/sidetrack"]), None);
        assert_eq!(said(&["consul-cni", "--help"]), None);
        assert_eq!(said(&[]), None);
    }

    #[test]
    fn keys_of_consuls_plugin_are_read_where_we_stand_in_for_it() {
        let parse = |of: &str| {
            let netconf = json!({ "cniVersion": "0.4.0", "name": "nomad", "type": of, "log_level": "debug",
                "cni_bin_dir": "/opt/cni/bin", "cni_net_dir": "/etc/cni/net.d", "kubeconfig": "x", "multus": false });
            let netconf = NetConf::parse(netconf.to_string().as_bytes()).unwrap();
            netconf.usable().map(|()| netconf.logging.level)
        };
        assert_eq!(parse(PLUGIN).unwrap(), LogLevel::Debug);
        assert_eq!(parse("sidetrack").unwrap_err().code(), Code::UnsupportedField);
    }
}
