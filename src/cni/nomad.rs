//! Compatibility with Consul's plugin for Nomad: Nomad looks for a plugin of that name, runs it to read its version,
//! and writes its configuration itself.

use std::ffi::OsString;
use std::path::Path;

/// The name of Consul's plugin, as a program and in a NetConf.
pub const PLUGIN: &str = "consul-cni";

/// The keys of its NetConf. They are ignored, except `log_level`.
pub const KEYS: &[&str] = &["cni_bin_dir", "cni_net_dir", "kubeconfig", "multus", "log_level"];

/// The version that is reported: Nomad places jobs with a transparent proxy where the plugin is 1.4.2 or later.
const VERSION: &str = "v1.4.2";

/// The output where the program has the name of Consul's plugin and no arguments: Nomad uses the first word that is a
/// version.
pub fn announcement(arguments: &[OsString]) -> Option<String> {
    let [program] = arguments else {
        return None;
    };
    let is_consul = Path::new(program).file_name()? == PLUGIN;
    let own_version = env!("CARGO_PKG_VERSION");
    is_consul.then(|| format!("CNI {PLUGIN} plugin {VERSION} (sidetrack {own_version} in its place)\n"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cni::error::Code;
    use crate::cni::netconf::NetConf;
    use crate::types::LogLevel;

    #[test]
    fn version_is_printed_only_as_consul_cni_without_arguments() {
        let output = |arguments: &[&str]| announcement(&arguments.iter().map(OsString::from).collect::<Vec<_>>());
        let line = output(&["/opt/cni/bin/consul-cni"]).unwrap();
        let version = line.split_whitespace().find(|word| word.starts_with('v'));
        assert_eq!(version, Some("v1.4.2"), "{line}");
        assert_eq!(output(&["/opt/cni/bin/sidetrack"]), None);
        assert_eq!(output(&["consul-cni", "--help"]), None);
        assert_eq!(output(&[]), None);
    }

    #[test]
    fn keys_of_consul_plugin_are_accepted_for_its_type() {
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
