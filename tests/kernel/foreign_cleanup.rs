//! `cleanup --foreign` removes the rules of other meshes' programs, and nothing else.

use crate::common::{Netns, output_of};
use crate::program::{apply, feed, sidetrack, state};

/// A way to write rules: as the mesh's program does it, with the programs of a variant of iptables.
type Write = fn(&Netns, &str);

const MESHES: [(&str, Write); 4] = [
    ("istio", istio),
    ("linkerd", linkerd),
    ("kuma", kuma),
    ("consul", consul),
];

/// User rules unrelated to any mesh, some of them similar to a mesh's.
const USER: &str = "*nat\n:DOCKER - [0:0]\n:MY_ISTIO_OUTPUT - [0:0]\n-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER\n\
    -A OUTPUT ! -d 127.0.0.0/8 -m comment --comment \"before \\\"-j ISTIO_OUTPUT\\\"\" -j MY_ISTIO_OUTPUT\n\
    -A DOCKER -i docker0 -j RETURN\nCOMMIT\n\
    *mangle\n-A PREROUTING -p tcp -m mark --mark 0x7 -j CONNMARK --save-mark\n-A OUTPUT -p tcp -o lo -j MARK --set-mark 7\nCOMMIT\n\
    *raw\n-A PREROUTING -p udp --dport 5 -j CT --zone 7\nCOMMIT\n\
    *filter\n:INPUT DROP [0:0]\n-A INPUT -p tcp --dport 22 -j ACCEPT\nCOMMIT\n";

fn restore(netns: &Netns, program: &str, text: &str) {
    feed(netns, &format!("{program}-restore"), &["--noflush"], text);
}

/// The programs of both families.
fn families(variant: &str) -> [(String, &'static str, &'static str); 2] {
    let program = |plain| format!("{plain}{}", variant.strip_prefix("iptables").expect("a variant"));
    [
        (program("iptables"), "127.0.0.1/32", "127.0.0.6/32"),
        (program("ip6tables"), "::1/128", "::6/128"),
    ]
}

/// Istio with TPROXY and DNS, and its policy routing, twice, as after a rerun.
fn istio(netns: &Netns, variant: &str) {
    for (program, loopback, passthrough) in families(variant) {
        let text = format!(
            "* mangle\n-N ISTIO_DIVERT\n-N ISTIO_TPROXY\n-N ISTIO_INBOUND\n-N ISTIO_DROP\n\
             -A PREROUTING -m conntrack --ctstate INVALID -j ISTIO_DROP\n-A ISTIO_DROP -j DROP\n\
             -A ISTIO_DIVERT -j MARK --set-mark 1337\n-A ISTIO_DIVERT -j ACCEPT\n\
             -A ISTIO_TPROXY ! -d {loopback} -p tcp -j TPROXY --tproxy-mark 1337/0xffffffff --on-port 15006\n\
             -A PREROUTING -p tcp -j ISTIO_INBOUND\n\
             -A ISTIO_INBOUND -p tcp -m conntrack --ctstate RELATED,ESTABLISHED -j ISTIO_DIVERT\n\
             -A ISTIO_INBOUND -p tcp -j ISTIO_TPROXY\n\
             -A PREROUTING -p tcp -m mark --mark 1337 -j CONNMARK --save-mark\n\
             -A OUTPUT -p tcp -o lo -m mark --mark 1337 -j RETURN\n\
             -A OUTPUT ! -d {loopback} -p tcp -o lo -m owner --uid-owner 1337 -j MARK --set-mark 1338\n\
             -A OUTPUT ! -d {loopback} -p tcp -o lo -m owner --gid-owner 1337 -j MARK --set-mark 1338\n\
             -A OUTPUT -p tcp -m connmark --mark 1337 -j CONNMARK --restore-mark\n\
             -I ISTIO_INBOUND 1 -p tcp -m mark --mark 1337 -j RETURN\nCOMMIT\n\
             * nat\n-N ISTIO_INBOUND\n-N ISTIO_REDIRECT\n-N ISTIO_IN_REDIRECT\n-N ISTIO_OUTPUT\n-N ISTIO_OUTPUT_DNS\n\
             -A ISTIO_INBOUND -p tcp --dport 15008 -j RETURN\n-A ISTIO_REDIRECT -p tcp -j REDIRECT --to-ports 15001\n\
             -A ISTIO_IN_REDIRECT -p tcp -j REDIRECT --to-ports 15006\n-A OUTPUT -j ISTIO_OUTPUT\n\
             -A ISTIO_OUTPUT -o lo -s {passthrough} -j RETURN\n-A ISTIO_OUTPUT -m owner --uid-owner 1337 -j RETURN\n\
             -A ISTIO_OUTPUT -j ISTIO_OUTPUT_DNS\n-A ISTIO_OUTPUT_DNS -p udp --dport 53 -j REDIRECT --to-port 15053\n\
             -A ISTIO_OUTPUT -d {loopback} -j RETURN\n-A ISTIO_OUTPUT -j ISTIO_REDIRECT\n\
             -I PREROUTING 1 -i tap0 -j ISTIO_REDIRECT\nCOMMIT\n\
             * raw\n-N ISTIO_OUTPUT_DNS\n-N ISTIO_INBOUND\n-A OUTPUT -j ISTIO_OUTPUT_DNS\n\
             -A ISTIO_OUTPUT_DNS -p udp --dport 53 -m owner --uid-owner 1337 -j CT --zone 1\n\
             -A PREROUTING -j ISTIO_INBOUND\n-A ISTIO_INBOUND -p udp --sport 53 -j CT --zone 1\nCOMMIT\n"
        );
        restore(netns, &program, &text);
    }
    for rule in [
        "-4 rule add fwmark 1337 lookup 133",
        "-6 rule add fwmark 1337 lookup 133",
        "-4 rule add fwmark 1337 lookup 133 priority 9",
    ] {
        output_of(netns.command("ip").args(rule.split(' ')));
    }
    // Where a route like it is there already, Istio's fails, or takes it for its own.
    for family in ["-4", "-6"] {
        let route = [family, "route", "add", "local", "default", "dev", "lo", "table", "133"];
        let _either_way = netns.command("ip").args(route).output().expect("ip");
    }
}

/// A sequence of commands, a rule each, as Linkerd and Consul run them.
fn run(netns: &Netns, program: &str, rules: &str) {
    for rule in rules.lines() {
        output_of(netns.command(program).args(["-t", "nat"]).args(rule.split_whitespace()));
    }
}

fn linkerd(netns: &Netns, variant: &str) {
    for (program, ..) in families(variant) {
        let rules = "-N PROXY_INIT_REDIRECT\n\
            -A PROXY_INIT_REDIRECT -p tcp --match multiport --dports 4190,4191,4567,4568 -j RETURN -m comment --comment proxy-init/ignore-port-4190,4191,4567,4568\n\
            -A PROXY_INIT_REDIRECT -p tcp -j REDIRECT --to-port 4143 -m comment --comment proxy-init/redirect-all-incoming-to-proxy-port\n\
            -A PREROUTING -j PROXY_INIT_REDIRECT -m comment --comment proxy-init/install-proxy-init-prerouting\n\
            -N PROXY_INIT_OUTPUT\n\
            -A PROXY_INIT_OUTPUT -m owner --uid-owner 2102 -j RETURN -m comment --comment proxy-init/ignore-proxy-user-id\n\
            -A PROXY_INIT_OUTPUT -o lo -j RETURN -m comment --comment proxy-init/ignore-loopback\n\
            -A PROXY_INIT_OUTPUT -p tcp -j REDIRECT --to-port 4140 -m comment --comment proxy-init/redirect-all-outgoing-to-proxy-port\n\
            -A OUTPUT -j PROXY_INIT_OUTPUT -m comment --comment proxy-init/install-proxy-init-output";
        run(netns, &program, rules);
    }
}

/// Kuma with all DNS, exclusions and zones: many of its rules lead to none of its chains.
fn kuma(netns: &Netns, variant: &str) {
    for (program, loopback, passthrough) in families(variant) {
        let ours = |what: &str| format!("-m comment --comment \"kuma/mesh/transparent/proxy/{what}\"");
        let (a, b, c) = (
            ours("redirect inbound TCP traffic"),
            ours("return DNS of UID 5678 (kuma-dp user)"),
            ours("zone"),
        );
        let text = format!(
            "* raw\n-A PREROUTING {c} -p udp --sport 53 -j CT --zone 1\n\
             -A OUTPUT {c} -p udp --dport 53 -m owner --uid-owner 5678 -j CT --zone 1\n\
             -A OUTPUT {c} -p udp --dport 53 -j CT --zone 2\nCOMMIT\n\
             * nat\n-N KUMA_MESH_INBOUND\n-N KUMA_MESH_OUTBOUND\n-N KUMA_MESH_INBOUND_REDIRECT\n-N KUMA_MESH_OUTBOUND_REDIRECT\n\
             -A PREROUTING {a} -p tcp -j KUMA_MESH_INBOUND\n\
             -I OUTPUT 1 {c} -m multiport -p tcp --dport 53,3000:5000 -m owner --uid-owner 106:108 -j RETURN\n\
             -I OUTPUT 2 {b} -p udp --dport 53 -m owner --uid-owner 5678 -j RETURN\n\
             -A OUTPUT {b} -p tcp --dport 53 -m owner ! --uid-owner 5678 -j RETURN\n\
             -I OUTPUT 3 {a} -p udp --dport 53 -j REDIRECT --to-ports 15053\n\
             -A OUTPUT {a} -p tcp -j KUMA_MESH_OUTBOUND\n\
             -A KUMA_MESH_INBOUND {a} -p tcp -j KUMA_MESH_INBOUND_REDIRECT\n\
             -A KUMA_MESH_OUTBOUND {a} -s {passthrough} -o lo -j RETURN\n\
             -A KUMA_MESH_OUTBOUND {a} -p tcp -o lo ! -d {loopback} -m owner --uid-owner 5678 -j KUMA_MESH_INBOUND_REDIRECT\n\
             -A KUMA_MESH_OUTBOUND {a} -m owner --uid-owner 5678 -j RETURN\n-A KUMA_MESH_OUTBOUND {a} -d {loopback} -j RETURN\n\
             -A KUMA_MESH_OUTBOUND {a} -j KUMA_MESH_OUTBOUND_REDIRECT\n\
             -A KUMA_MESH_INBOUND_REDIRECT {a} -p tcp -j REDIRECT --to-ports 15006\n\
             -A KUMA_MESH_OUTBOUND_REDIRECT {a} -p tcp -j REDIRECT --to-ports 15001\nCOMMIT\n"
        );
        restore(netns, &program, &text);
    }
}

fn consul(netns: &Netns, variant: &str) {
    for (program, loopback, _) in families(variant) {
        let rules = format!(
            "-N CONSUL_PROXY_INBOUND\n-N CONSUL_PROXY_IN_REDIRECT\n-N CONSUL_PROXY_OUTPUT\n-N CONSUL_PROXY_REDIRECT\n\
             -N CONSUL_DNS_REDIRECT\n-A CONSUL_PROXY_REDIRECT -p tcp -j REDIRECT --to-port 15001\n\
             -A CONSUL_DNS_REDIRECT -p udp -d {loopback} --dport 53 -j REDIRECT --to-ports 8600\n\
             -A OUTPUT -p udp -d {loopback} --dport 53 -j CONSUL_DNS_REDIRECT\n\
             -A OUTPUT -p tcp -d {loopback} --dport 53 -j CONSUL_DNS_REDIRECT\n-A OUTPUT -p tcp -j CONSUL_PROXY_OUTPUT\n\
             -A CONSUL_PROXY_OUTPUT -m owner --uid-owner 5995 -j RETURN\n-A CONSUL_PROXY_OUTPUT -d {loopback} -j RETURN\n\
             -A CONSUL_PROXY_OUTPUT -j CONSUL_PROXY_REDIRECT\n-I CONSUL_PROXY_OUTPUT -p tcp --dport 8200 -j RETURN\n\
             -A CONSUL_PROXY_IN_REDIRECT -p tcp -j REDIRECT --to-port 20000\n-A PREROUTING -p tcp -j CONSUL_PROXY_INBOUND\n\
             -A CONSUL_PROXY_INBOUND -p tcp -j CONSUL_PROXY_IN_REDIRECT"
        );
        run(netns, &program, &rules);
    }
}

/// All rules and policy routing, owned and foreign.
fn everything(netns: &Netns) -> String {
    let ours = netns
        .command("nft")
        .args(["list", "table", "inet", "sidetrack"])
        .output();
    let ours = String::from_utf8(ours.expect("nft").stdout).expect("text");
    let routing = ["-4", "-6"].map(|family| {
        let rules = output_of(netns.command("ip").args([family, "rule", "show"]));
        rules + &netns.routes(family)
    });
    let iptables = ["iptables-nft", "iptables-legacy"].map(|variant| state(netns, variant));
    [&[ours][..], &routing, &iptables].concat().concat()
}

fn user(netns: &Netns, variant: &str) {
    for (program, ..) in families(variant) {
        let text = match program.contains("ip6") {
            true => USER.replace("127.0.0.0/8", "::1/128"),
            false => USER.to_owned(),
        };
        restore(netns, &program, &text);
    }
    netns.ip("rule add fwmark 7 lookup 134 priority 7\n");
}

const OPTIONS: &[&str] = &["--inbound-mode", "tproxy", "--redirect-dns", "--dns-servers", "all"];

#[test]
fn foreign_cleanup_removes_only_the_rules_of_the_mesh() {
    for (mesh, write) in MESHES {
        for variant in ["iptables-nft", "iptables-legacy"] {
            for backend in ["nftables", variant] {
                let expected = {
                    let netns = Netns::new();
                    user(&netns, variant);
                    apply(&netns, backend, OPTIONS);
                    everything(&netns)
                };
                for ours_first in [true, false] {
                    let netns = Netns::new();
                    user(&netns, variant);
                    if ours_first {
                        apply(&netns, backend, OPTIONS);
                        write(&netns, variant);
                    } else {
                        write(&netns, variant);
                        apply(&netns, backend, OPTIONS);
                    }
                    assert_ne!(everything(&netns), expected);
                    let run = sidetrack(&netns, &["cleanup", "--foreign", mesh]).succeeded();
                    assert!(run.stderr.contains("the mesh's rules were removed"), "{run:?}");
                    if !ours_first {
                        // Our rules were inserted before the mesh's; the shared chains are otherwise unchanged.
                        apply(&netns, backend, OPTIONS);
                    }
                    let now = everything(&netns);
                    let differing = now
                        .lines()
                        .zip(expected.lines())
                        .find(|(now, expected)| now != expected);
                    assert!(
                        now == expected,
                        "{mesh}, {variant}, {backend}, ours first: {ours_first}: {differing:?}"
                    );
                    let again = sidetrack(&netns, &["cleanup", "--foreign", mesh]).succeeded();
                    assert!(again.stderr.contains("nothing of this mesh"), "{again:?}");
                }
            }
        }
    }
}

/// Istio with `--native-nftables`, and Consul since its SDK 0.19.
const NATIVE: &str = "table inet istio-proxy-nat {
    chain output { type nat hook output priority -100; jump istio-output; }
    chain istio-output { meta skuid 1337 return; meta l4proto tcp redirect to :15001; }
}
table inet istio-proxy-mangle {
    chain prerouting { type filter hook prerouting priority -150; }
}
table inet consul_tproxy {
    chain CONSUL_NAT_OUTPUT { type nat hook output priority -100; meta l4proto tcp jump CONSUL_PROXY_OUTPUT; }
    chain CONSUL_PROXY_OUTPUT { meta skuid 5995 return; }
}
table inet mine {
    chain istio-output { meta skuid 1337 return; }
}
";

#[test]
fn foreign_cleanup_removes_only_the_tables_of_the_mesh() {
    let netns = Netns::new();
    feed(&netns, "nft", &["-f", "-"], NATIVE);
    apply(&netns, "nftables", &[]);
    let tables = || output_of(netns.command("nft").args(["list", "tables"]));
    sidetrack(&netns, &["cleanup", "--foreign", "linkerd,kuma"]).succeeded();
    assert_eq!(tables().lines().count(), 5);
    sidetrack(&netns, &["cleanup", "--foreign", "istio"]).succeeded();
    assert_eq!(
        tables(),
        "table inet consul_tproxy\ntable inet mine\ntable inet sidetrack\n"
    );
    sidetrack(&netns, &["cleanup", "--foreign", "linkerd", "--foreign", "consul"]).succeeded();
    assert_eq!(tables(), "table inet mine\ntable inet sidetrack\n");
}

#[test]
fn reports_of_mesh_rules_include_the_removal_command() {
    let netns = Netns::new();
    netns.ip("address add 10.0.0.2/32 dev lo");
    linkerd(&netns, "iptables-nft");
    istio(&netns, "iptables-legacy");
    let commands = [
        "sidetrack cleanup --foreign istio",
        "sidetrack cleanup --foreign linkerd",
    ];
    let apply = sidetrack(&netns, &["apply"]).succeeded().stderr;
    let check = sidetrack(&netns, &["check"]).stdout;
    let json = sidetrack(&netns, &["check", "--json"]).stdout;
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(json["remove"].as_array().expect("a list").len(), 2, "{json}");
    let of_istio = sidetrack(&netns, &["istio-iptables", "--cleanup-only"])
        .succeeded()
        .stderr;
    let cleanup = sidetrack(&netns, &["cleanup"]).succeeded().stderr;
    for text in [apply, check, of_istio, cleanup] {
        for command in commands {
            assert!(text.contains(command), "{text}");
        }
    }
    sidetrack(&netns, &["cleanup", "--foreign", "istio,linkerd"]).succeeded();
    let clean = sidetrack(&netns, &["cleanup"]).succeeded().stderr;
    assert!(!clean.contains("--foreign"), "{clean}");
    sidetrack(&netns, &["cleanup", "--foreign", "envoy"]).failed(2, &["envoy", "istio"]);
    sidetrack(&netns, &["cleanup", "--foreign", "istio", "--persist"]).failed(2, &["--persist and --foreign"]);
}
