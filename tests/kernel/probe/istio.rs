//! `istio-iptables --run-validation`: the probes beyond Istio's own validation.

use caps::Capability::{CAP_NET_ADMIN, CAP_SETGID, CAP_SETUID, CAP_SYS_ADMIN};

use crate::SIDETRACK;
use crate::common::{Netns, Owner, Pod, output_of};
use crate::program::{Run, feed};
use crate::sandbox::with_capabilities;

/// Options as injectors and users write them.
const CONFIGURATIONS: &[&[&str]] = &[
    &[
        "-u",
        "1337",
        "-m",
        "REDIRECT",
        "-i",
        "*",
        "-b",
        "*",
        "-d",
        "15090,15021,15020",
        "--dual-stack",
    ],
    &[
        "-m",
        "TPROXY",
        "-i",
        "*",
        "-b",
        "*",
        "-d",
        "15090,15021,15020",
        "--dual-stack",
    ],
    &[
        "-i",
        "10.0.0.0/8,fd00::/8",
        "-x",
        "10.1.0.0/16",
        "-b",
        "8080,9090",
        "-o",
        "3306",
        "-q",
        "443",
        "--dual-stack",
    ],
    &[
        "-u",
        "1337,1500",
        "-g",
        "1337",
        "-i",
        "*",
        "-b",
        "*",
        "--redirect-dns",
        "--capture-all-dns",
        "--dual-stack",
    ],
    &[
        "-m",
        "TPROXY",
        "-i",
        "*",
        "-b",
        "80",
        "--redirect-dns",
        "--capture-all-dns",
        "--drop-invalid",
        "--dual-stack",
    ],
    &["-i", "*", "-b", "", "-k", "tap0", "-c", "eth9"],
    &["-i", "127.0.0.0/8,10.0.0.0/8", "-b", "*"],
    &[],
];

fn istio_iptables(netns: &Netns, flags: &[&str]) -> Run {
    Run::of(netns.command(SIDETRACK).arg("istio-iptables").args(flags))
}

/// Validates as the proxy's user, who may do everything that probes take.
fn validate(netns: &Netns, flags: &[&str]) -> Run {
    validate_for(netns, flags, "1m")
}

fn validate_for(netns: &Netns, flags: &[&str], timeout: &str) -> Run {
    let mut command = netns.command(SIDETRACK);
    command.arg("istio-iptables").args(flags);
    command.args([
        "--run-validation",
        "--skip-rule-apply",
        "--log_output_level",
        "default:debug",
    ]);
    command.args(["--probe-timeout", timeout]);
    let needed = [CAP_NET_ADMIN, CAP_SYS_ADMIN, CAP_SETUID, CAP_SETGID];
    with_capabilities(&mut command, Owner::PROXY, &needed, &[]);
    Run::of(&mut command)
}

#[test]
fn rules_of_every_configuration_pass_on_every_backend() {
    let backends: [&[&str]; 3] = [
        &[],
        &["--force-iptables-binary", "nft"],
        &["--force-iptables-binary", "legacy"],
    ];
    for configuration in CONFIGURATIONS {
        let pod = Pod::new();
        for backend in backends {
            let flags = [configuration, backend].concat();
            istio_iptables(&pod.netns, &flags).succeeded();
            let run = validate(&pod.netns, configuration);
            assert_eq!(run.code, Some(0), "{flags:?}: {run:#?}");
            assert!(run.stderr.contains("IPv4 TCP self-call"), "{flags:?}: {run:#?}");
        }
    }
}

#[test]
fn what_istios_validation_does_not_see_fails_with_its_exit_code() {
    let flags = ["-i", "*", "-b", "*", "--dual-stack"];
    for (missing, said) in [
        (&["-b", "*", "--dual-stack"][..], "IPv4 TCP outbound"),
        (&["-i", "*", "--dual-stack"], "IPv6 TCP inbound"),
        (
            &["-i", "*", "-b", "*", "--dual-stack", "-u", "1337,1500", "-g", "7"],
            "exempt: user 1000, group 1337",
        ),
    ] {
        let pod = Pod::new();
        istio_iptables(&pod.netns, missing).succeeded();
        let run = validate(&pod.netns, &flags);
        run.failed(126, &[said, "traffic is not redirected as it should be"]);
    }
}

/// Rules that Istio's own program writes for `-i '*' -b '*' -d 15090`, in IPv4: another tool's, proved by packets.
#[test]
fn probe_takes_the_flags_of_istio_and_proves_foreign_rules() {
    let flags = ["istio-iptables", "-i", "*", "-b", "*", "-d", "15090", "--dual-stack"];
    let pod = Pod::new();
    let probe = |before: &[&str]| {
        let mut command = pod.netns.command(SIDETRACK);
        Run::of(command.arg("probe").args(before).args(flags))
    };
    assert_eq!(probe(&["--timeout", "300ms"]).code, Some(3));
    for (program, loopback, passthrough) in [
        ("iptables-nft-restore", "127.0.0.1/32", "127.0.0.6/32"),
        ("ip6tables-nft-restore", "::1/128", "::6/128"),
    ] {
        let text = format!(
            "*nat\n-N ISTIO_INBOUND\n-N ISTIO_REDIRECT\n-N ISTIO_IN_REDIRECT\n-N ISTIO_OUTPUT\n\
             -A ISTIO_INBOUND -p tcp --dport 15008 -j RETURN\n-A ISTIO_REDIRECT -p tcp -j REDIRECT --to-ports 15001\n\
             -A ISTIO_IN_REDIRECT -p tcp -j REDIRECT --to-ports 15006\n-A PREROUTING -p tcp -j ISTIO_INBOUND\n\
             -A ISTIO_INBOUND -p tcp --dport 15090 -j RETURN\n-A ISTIO_INBOUND -p tcp -j ISTIO_IN_REDIRECT\n\
             -A OUTPUT -j ISTIO_OUTPUT\n-A ISTIO_OUTPUT -o lo -s {passthrough} -j RETURN\n\
             -A ISTIO_OUTPUT -o lo ! -d {loopback} -p tcp ! --dport 15008 -m owner --uid-owner 1337 -j ISTIO_IN_REDIRECT\n\
             -A ISTIO_OUTPUT -o lo -m owner ! --uid-owner 1337 -j RETURN\n-A ISTIO_OUTPUT -m owner --uid-owner 1337 -j RETURN\n\
             -A ISTIO_OUTPUT -o lo ! -d {loopback} -p tcp ! --dport 15008 -m owner --gid-owner 1337 -j ISTIO_IN_REDIRECT\n\
             -A ISTIO_OUTPUT -o lo -m owner ! --gid-owner 1337 -j RETURN\n-A ISTIO_OUTPUT -m owner --gid-owner 1337 -j RETURN\n\
             -A ISTIO_OUTPUT -d {loopback} -j RETURN\n-A ISTIO_OUTPUT -j ISTIO_REDIRECT\nCOMMIT\n"
        );
        feed(&pod.netns, program, &["--noflush"], &text);
    }
    pod.netns.ip("address add ::6/128 dev lo");
    probe(&["--timeout", "1m"]).succeeded();
    output_of(
        pod.netns
            .command("iptables-nft")
            .args(["-t", "nat", "-F", "ISTIO_OUTPUT"]),
    );
    let run = probe(&["--json", "--timeout", "300ms"]);
    assert_eq!(run.code, Some(3), "{run:?}");
    assert!(run.stdout.starts_with('{'), "{run:?}");
    assert_eq!(probe(&["--exclude-uids", "7"]).code, Some(2));
}

#[test]
fn missing_rules_of_ipv6_are_found() {
    let flags = ["-i", "*", "-b", "*", "--dual-stack", "--force-iptables-binary", "nft"];
    let pod = Pod::new();
    istio_iptables(&pod.netns, &flags).succeeded();
    validate(&pod.netns, &flags).succeeded();
    output_of(
        pod.netns
            .command("ip6tables-nft")
            .args(["-t", "nat", "-F", "PREROUTING"]),
    );
    validate(&pod.netns, &flags).failed(126, &["IPv6 TCP inbound"]);
    output_of(pod.netns.command("ip6tables-nft").args(["-t", "nat", "-F", "OUTPUT"]));
    validate_for(&pod.netns, &flags, "3s").failed(126, &["no connection to [::6]:15002 reached the proxy's ports"]);
}
