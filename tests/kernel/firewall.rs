//! A firewall in the namespace with policy drop must accept the proxy's port, where redirected connections arrive.

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

fn iptables(netns: &Netns, accepted: &str) {
    for (program, icmp) in [("iptables-nft-restore", "icmp"), ("ip6tables-nft-restore", "icmpv6")] {
        let accepted = match accepted {
            "" => String::new(),
            _ => "-A INPUT -p tcp -m multiport --dports 22,15006 -j ACCEPT\n".to_owned(),
        };
        let text = format!(
            "*filter\n:INPUT DROP [0:0]\n-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n\
             -A INPUT -i lo -j ACCEPT\n-A INPUT -p {icmp} -j ACCEPT\n-A INPUT -p tcp -m tcp --dport 8080 -j ACCEPT\n\
             {accepted}COMMIT\n"
        );
        feed(netns, program, &[], &text);
    }
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
fn iptables_firewall_that_drops_redirected_traffic_is_warned_of() {
    a_firewall_that_drops_what_is_redirected_is_warned_of("nftables", iptables, "15006");
}
