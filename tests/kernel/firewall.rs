//! A firewall in the namespace that drops by default, by policy or by its last rule, must accept the proxy's port, where
//! redirected connections arrive.

use sidetrack::types::Family;

use crate::common::sidecar::{APP_CALLS_PEER, PEER_CALLS_APP};
use crate::common::{Caller, Netns, Pod, Sidecar, To, Transport, call};
use crate::program::{BACKENDS, feed, sidetrack};

const SAID: &str = "this chain drops redirected inbound connections: they arrive at port 15006";

type Close = fn(&Netns, accepted: &str);

fn nft(netns: &Netns, accepted: &str) {
    let text = format!(
        "table inet filter {{ chain services {{
         {accepted}
         }}
         chain input {{ type filter hook input priority 0; policy drop;
         ct state established,related accept; iifname lo accept; icmpv6 type != 0 accept; tcp dport 8080 accept;
         jump services; }}
         }}"
    );
    feed(netns, "nft", &["-f", "-"], &text);
}

/// The same by iptables, with policy drop or with a last rule that rejects, as the stock rules of RHEL have it.
fn iptables(netns: &Netns, variant: &str, policy: &str, accepted: &str) {
    let rejection = match policy {
        "ACCEPT" => "-A INPUT -j REJECT\n",
        _ => "",
    };
    for (program, icmp) in [("iptables", "icmp"), ("ip6tables", "icmpv6")] {
        let accepted = match accepted {
            "" => String::new(),
            _ => "-A services -p tcp -m multiport --dports 22,15006 -j ACCEPT\n".to_owned(),
        };
        let text = format!(
            "*filter\n:INPUT {policy} [0:0]\n:services - [0:0]\n\
             -A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n\
             -A INPUT -i lo -j ACCEPT\n-A INPUT -p {icmp} -j ACCEPT\n-A INPUT -p tcp -m tcp --dport 8080 -j ACCEPT\n\
             -A INPUT ! -i lo -j services\n-A services -p udp -j ACCEPT\n{accepted}{rejection}COMMIT\n"
        );
        feed(netns, &format!("{program}-{variant}-restore"), &[], &text);
    }
}

fn iptables_nft(netns: &Netns, accepted: &str) {
    iptables(netns, "nft", "DROP", accepted);
}

fn iptables_nft_that_rejects_last(netns: &Netns, accepted: &str) {
    iptables(netns, "nft", "ACCEPT", accepted);
}

fn iptables_legacy(netns: &Netns, accepted: &str) {
    iptables(netns, "legacy", "DROP", accepted);
}

fn iptables_legacy_that_rejects_last(netns: &Netns, accepted: &str) {
    iptables(netns, "legacy", "ACCEPT", accepted);
}

/// A table that accepts by policy, and whose last rule rejects.
fn nft_that_rejects_last(netns: &Netns, accepted: &str) {
    let text = format!(
        "table inet filter; delete table inet filter;
         table inet filter {{ chain allowed {{ accept; }}
         chain services {{ udp dport 53 return
         {accepted}
         counter reject; }}
         chain input {{ type filter hook input priority 0; policy accept;
         ct state established,related accept; iifname lo accept; icmpv6 type != 0 accept; tcp dport 8080 accept;
         tcp dport 8081 drop; jump services; }}
         }}"
    );
    feed(netns, "nft", &["-f", "-"], &text);
}

fn a_firewall_that_drops_what_is_redirected_is_warned_of(backend: &str, close: Close, opening: &str) {
    let pod = Pod::new();
    close(&pod.netns, "");
    for command in ["apply", "check"] {
        let run = sidetrack(&pod.netns, &[command, "--backend", backend]).succeeded();
        assert!(run.stderr.contains(SAID), "{backend}, {command}: {}", run.stderr);
        assert!(!run.stderr.contains("redirected outbound"), "{}", run.stderr);
    }
    let sidecar = Sidecar::start(pod);
    for family in Family::BOTH {
        call(&sidecar.pod, Transport::Tcp, Caller::Peer, To::Pod(8080), family).expect_err("dropped");
        sidecar
            .travel(&APP_CALLS_PEER, family)
            .expect("over the loopback interface");
    }
    let pod = sidecar.stop();
    close(&pod.netns, opening);
    let run = sidetrack(&pod.netns, &["apply", "--backend", backend]).succeeded();
    assert!(!run.stderr.contains("drops redirected"), "{}", run.stderr);
    let sidecar = Sidecar::start(pod);
    sidecar.travel_all(&[PEER_CALLS_APP, APP_CALLS_PEER]);
}

#[test]
fn nft_firewall_that_drops_redirected_traffic_is_warned_of_on_each_backend() {
    for (backend, opening) in BACKENDS.iter().zip([
        "tcp dport 15006 accept",
        "tcp dport { 22, 15000-15010 } accept",
        "tcp dport vmap { 22 : accept, 15006 : accept }",
    ]) {
        a_firewall_that_drops_what_is_redirected_is_warned_of(backend, nft, opening);
    }
}

#[test]
fn nft_firewall_that_rejects_last_is_warned_of() {
    for opening in ["tcp dport 15006 accept", "tcp dport 15006 goto allowed"] {
        a_firewall_that_drops_what_is_redirected_is_warned_of("nftables", nft_that_rejects_last, opening);
    }
}

#[test]
fn iptables_firewall_that_drops_redirected_traffic_is_warned_of() {
    for close in [iptables_nft, iptables_nft_that_rejects_last] {
        a_firewall_that_drops_what_is_redirected_is_warned_of("nftables", close, "15006");
    }
}

#[test]
fn legacy_iptables_firewall_that_drops_redirected_traffic_is_warned_of() {
    for close in [iptables_legacy, iptables_legacy_that_rejects_last] {
        for backend in ["nftables", "iptables-legacy"] {
            a_firewall_that_drops_what_is_redirected_is_warned_of(backend, close, "15006");
        }
    }
}
