//! The options of `sidetrack node`.

use std::path::Path;

use clap::{Arg, ArgAction, ArgMatches};

use crate::cli::args;
use crate::cni::report::SOCKET;
use crate::node::repair::state::Mode;
use crate::options::problem::environment_name;
use crate::types::Choice as _;

/// An option of these commands. It has no key in the file, and its variable begins with `SIDETRACK_NODE_`.
pub struct NodeOption {
    /// `node-`, and the name of the flag.
    pub id: &'static str,
    /// What its value is called; `None` for a switch.
    value_name: Option<&'static str>,
    default: &'static str,
    help: &'static str,
    /// The commands that know it.
    pub commands: &'static [&'static str],
}

/// Where the installer's container has the node's directories.
const HOST: &str = "/host";

const ALL: &[&str] = &["install", "uninstall", "status", "repair", "pods"];
/// Those that have to know what is wanted.
const WANTING: &[&str] = &["install", "status", "repair", "pods"];
const ASKING: &[&str] = &["install", "status"];
const INSTALL: &[&str] = &["install"];
/// Those that look for pods.
const REPAIRING: &[&str] = &["install", "status", "repair", "pods"];
const PODS: &[&str] = &["pods"];
const REPAIR: &[&str] = &["repair"];
const UNINSTALL: &[&str] = &["uninstall"];
const JSON_PRINTING: &[&str] = &["status", "pods"];

pub const BIN_DIR: NodeOption = NodeOption {
    default: "/host/opt/cni/bin",
    ..NodeOption::new(
        "node-cni-bin-dir",
        "DIR",
        "Where the node's runtime looks for plugins",
        ALL,
    )
};
pub const CONF_DIR: NodeOption = NodeOption {
    default: "/host/etc/cni/net.d",
    ..NodeOption::new(
        "node-cni-conf-dir",
        "DIR",
        "Where it looks for network configurations",
        ALL,
    )
};
pub const CONF_NAME: NodeOption = NodeOption::new(
    "node-cni-conf-name",
    "NAME",
    "Join the configuration with this name instead of the first one",
    WANTING,
);
pub const STANDALONE: NodeOption = NodeOption::new(
    "node-standalone",
    "NAME",
    "Join none: write a configuration of this name, for Multus",
    WANTING,
);
pub const OWN_CONFLIST: NodeOption = NodeOption::new(
    "node-own-conflist",
    "NAME",
    "Join a copy of the first one, which comes before it by this name",
    WANTING,
);
pub const PLUGIN_CONF: NodeOption = NodeOption {
    default: "{}",
    ..NodeOption::new(
        "node-plugin-conf",
        "FILE|JSON",
        "NetConf of the plugin: a JSON object, or a file with one",
        WANTING,
    )
};
pub const POD_NAMESPACE: NodeOption = NodeOption::new(
    "node-pod-namespace",
    "NAMESPACE",
    "The namespace of the pod that this runs in, from the downward API",
    WANTING,
);
pub const POD_NAME: NodeOption = NodeOption::new(
    "node-pod-name",
    "NAME",
    "Its name; the plugin skips the pods of its DaemonSet",
    WANTING,
);
pub const SOCKET_PATH: NodeOption = NodeOption {
    default: SOCKET,
    ..NodeOption::new("node-socket", "PATH", "Where the plugin reports its runs", ALL)
};
pub const HEALTH_ADDRESS: NodeOption = NodeOption {
    default: "127.0.0.1:15014",
    ..NodeOption::new(
        "node-health-address",
        "IP:PORT",
        "Where to answer /readyz, /healthz and /metrics",
        ASKING,
    )
};
pub const ONCE: NodeOption = NodeOption::switch(
    "node-once",
    "Install and exit, instead of staying to watch and repair",
    INSTALL,
);
pub const UNINSTALL_ON_EXIT: NodeOption = NodeOption::switch(
    "node-uninstall-on-exit",
    "Uninstall on SIGTERM; until the next install, pods bypass",
    INSTALL,
);
pub const JSON: NodeOption = NodeOption::switch("node-json", "Print JSON", JSON_PRINTING);

pub const MODE: NodeOption = NodeOption {
    default: "report",
    ..NodeOption::new(
        "node-repair",
        "MODE",
        "What to do about running pods that lack rules or have others",
        INSTALL,
    )
};
pub const EVICTION_INTERVAL: NodeOption = NodeOption {
    default: "30s",
    ..NodeOption::new(
        "node-eviction-interval",
        "TIME",
        "Time between two evictions of --repair delete",
        INSTALL,
    )
};
pub const STARTUP_TAINT: NodeOption = NodeOption::new(
    "node-startup-taint",
    "KEY",
    "Remove this taint from the node once the plugin is in place",
    INSTALL,
);
pub const NODE_NAME: NodeOption = NodeOption::new(
    "node-node-name",
    "NAME",
    "Name of the node for --startup-taint by the downward API",
    INSTALL,
);
pub const CACHE_DIR: NodeOption = NodeOption {
    default: "/host/var/lib/cni/results",
    ..NodeOption::new(
        "node-cni-cache-dir",
        "DIR",
        "Where it keeps the results of plugins",
        ALL,
    )
};
pub const NETNS_DIR: NodeOption = NodeOption {
    default: "/host/var/run/netns",
    ..NodeOption::new("node-netns-dir", "DIR", "Where it keeps network namespaces", REPAIRING)
};
pub const PROC_DIR: NodeOption = NodeOption {
    default: "/host/proc",
    ..NodeOption::new("node-proc-dir", "DIR", "The node's proc file system", REPAIRING)
};
pub const DRY_RUN: NodeOption = NodeOption::switch(
    "node-dry-run",
    "Print what would be repaired, and change nothing",
    REPAIR,
);

pub const WATCH: NodeOption = NodeOption::switch(
    "node-watch",
    "Stay, and print each pod that is added, changed or removed",
    PODS,
);

pub const FORCE: NodeOption = NodeOption::switch(
    "node-force",
    "Remove the binary though pods were attached with it: CRI-O needs it",
    UNINSTALL,
);

pub const NODE_OPTIONS: [&NodeOption; 23] = [
    &BIN_DIR,
    &CONF_DIR,
    &CONF_NAME,
    &STANDALONE,
    &OWN_CONFLIST,
    &PLUGIN_CONF,
    &POD_NAMESPACE,
    &POD_NAME,
    &SOCKET_PATH,
    &HEALTH_ADDRESS,
    &ONCE,
    &UNINSTALL_ON_EXIT,
    &JSON,
    &MODE,
    &EVICTION_INTERVAL,
    &STARTUP_TAINT,
    &NODE_NAME,
    &CACHE_DIR,
    &NETNS_DIR,
    &PROC_DIR,
    &DRY_RUN,
    &WATCH,
    &FORCE,
];

impl NodeOption {
    const fn new(
        id: &'static str,
        value_name: &'static str,
        help: &'static str,
        commands: &'static [&'static str],
    ) -> Self {
        Self {
            id,
            value_name: Some(value_name),
            default: "",
            help,
            commands,
        }
    }

    const fn switch(id: &'static str, help: &'static str, commands: &'static [&'static str]) -> Self {
        Self {
            id,
            value_name: None,
            default: "",
            help,
            commands,
        }
    }

    /// The name of the flag.
    pub fn name(&self) -> &'static str {
        self.id.strip_prefix("node-").unwrap_or(self.id)
    }

    pub fn argument(&self) -> Arg {
        let argument = Arg::new(self.id).long(self.name());
        let values: Vec<&str> = match self.id {
            id if id == MODE.id => Mode::ALL.iter().map(|(_, name)| *name).collect(),
            _ => Vec::new(),
        };
        let help = args::described(self.help, self.default, &values);
        match self.value_name {
            Some(value_name) => argument.value_name(value_name),
            None => argument.action(ArgAction::SetTrue),
        }
        .help(help)
    }

    /// The text of the flag, else of the variable, else the default. Empty means the default: templates write that.
    pub fn text(&self, matches: &ArgMatches) -> String {
        self.given(matches).unwrap_or_else(|| self.default.to_owned())
    }

    /// The text of the flag, else of the variable; `None` where it is not given, or empty.
    pub fn given(&self, matches: &ArgMatches) -> Option<String> {
        args::text_or_variable(matches, self.id).filter(|text| !text.is_empty())
    }

    /// The text of the variable; `None` where it is not given, or empty.
    pub fn variable(&self) -> Option<String> {
        std::env::var(environment_name(self.id))
            .ok()
            .filter(|text| !text.is_empty())
    }

    /// The default. A directory that the installer's container has below `/host` is the node's own where that does not
    /// exist.
    pub fn native_default(&self) -> String {
        let native = self
            .default
            .strip_prefix(HOST)
            .filter(|_| !Path::new(self.default).exists());
        native.unwrap_or(self.default).to_owned()
    }

    pub fn is_set(&self, matches: &ArgMatches) -> Result<bool, String> {
        if matches.get_flag(self.id) {
            return Ok(true);
        }
        let variable = environment_name(self.id);
        match std::env::var(&variable).unwrap_or_default().as_str() {
            "" | "false" => Ok(false),
            "true" => Ok(true),
            other => Err(format!("{variable}: {other:?} is not one of true, false")),
        }
    }
}
