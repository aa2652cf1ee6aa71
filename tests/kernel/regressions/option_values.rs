//! Values that broke rules, or got lost, where they had better been refused.

use super::{INJECTED, everything, istio_iptables, run};
use crate::common::Netns;
use crate::program::{BACKENDS, Run, sidetrack};

/// Ways to make a rule say something else, were the name put into it as it is.
const INJECTIONS: &[&str] = &[
    "eth0 -j ACCEPT",
    "eth0\n-A OUTPUT -j RETURN",
    "eth0\" accept; flush ruleset; #",
    "eth0;nft flush ruleset",
    "$(reboot)",
    "eth+",
    "eth*",
    "!",
    "eth0/../..",
    "a-name-too-long-for-linux",
];

#[test]
fn istio_58781_58836_interface_names_cannot_inject_rules() {
    let netns = Netns::new();
    let flags = [
        ("-c", "--istio-exclude-interfaces", "ISTIO_EXCLUDE_INTERFACES"),
        ("-k", "--kube-virt-interfaces", "KUBE_VIRT_INTERFACES"),
    ];
    for backend in BACKENDS {
        let untouched = everything(&netns, backend);
        for name in INJECTIONS {
            let list = format!("tap0,{name}");
            for (flag, long, variable) in flags {
                let said = |origin: &str| format!("{origin}: {name:?} is not an interface name");
                let mut by_flag = istio_iptables(&netns, backend, &[INJECTED, &[flag, &list]].concat());
                Run::of(&mut by_flag).failed(1, &[&said(long)]);
                let mut by_variable = istio_iptables(&netns, backend, INJECTED);
                Run::of(by_variable.env(variable, &list)).failed(1, &[&said(variable)]);
            }
            for option in ["--exclude-interfaces", "--reroute-interfaces"] {
                let run = sidetrack(&netns, &["apply", "--backend", backend, option, &list]);
                run.failed(2, &["is not an interface name"]);
            }
        }
        assert_eq!(everything(&netns, backend), untouched);
    }
}

/// The kernel takes them for names, so that they are no flags of iptables, nor words of nft.
#[test]
fn istio_58781_names_that_look_like_flags_are_names() {
    let names = "-j,--help,-,accept,eth0.5,0";
    for backend in BACKENDS {
        let (netns, reference) = (Netns::new(), Netns::new());
        for netns in [&netns, &reference] {
            netns.ip("address add 10.0.0.2/32 dev lo");
        }
        let arguments = |names| [INJECTED, &["-c", names, "-k", names]].concat();
        run(&reference, backend, &arguments("a,b,c,d,e,f"));
        run(&netns, backend, &arguments(names));
        let rules = everything(&netns, backend);
        assert_eq!(
            rules.lines().count(),
            everything(&reference, backend).lines().count(),
            "{backend}: {rules}"
        );
        let log = run(&netns, backend, &arguments(names)).stderr;
        assert!(log.contains("already"), "{backend}: {log}");
    }
}

/// Where Istio hands it to iptables, which refuses it when half of the rules are there.
#[test]
fn istio_everything_cannot_be_excluded_by_a_star() {
    let netns = Netns::new();
    for backend in BACKENDS {
        let untouched = everything(&netns, backend);
        for (flag, long) in [
            ("-d", "--istio-local-exclude-ports"),
            ("-o", "--istio-local-outbound-ports-exclude"),
            ("-q", "--istio-outbound-ports"),
            ("-x", "--istio-service-exclude-cidr"),
        ] {
            for list in ["*", "80,*"] {
                let mut command = istio_iptables(&netns, backend, &[INJECTED, &[flag, list]].concat());
                Run::of(&mut command).failed(1, &[&format!("{long}: \"*\" is not")]);
            }
        }
        assert_eq!(everything(&netns, backend), untouched);
    }
}

/// Linkerd logs and drops it, App Mesh drops what comes after the fifteenth.
#[test]
fn linkerd_invalid_port_among_valid_ones_is_refused() {
    let netns = Netns::new();
    let untouched = everything(&netns, "nftables");
    for option in [
        "--inbound-ports-to-ignore",
        "--outbound-ports-to-ignore",
        "--ports-to-redirect",
        "--exclude-inbound-ports",
        "--exclude-outbound-ports",
        "--include-outbound-ports",
        "--mesh-ports",
    ] {
        for bad in ["http", "99999", "0", "9-8", "1-2-3", "-80"] {
            let run = sidetrack(&netns, &["apply", option, &format!("80,{bad},443")]);
            run.failed(2, &[&format!("{bad:?} is not")]);
        }
    }
    assert_eq!(everything(&netns, "nftables"), untouched);
}
