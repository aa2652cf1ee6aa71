//! Rules like those that other programs install, as text for the program that loads them.

mod meshes;
mod others;

use meshes::{AMBIENT, AMBIENT_NATIVE, CONSUL, CONSUL_NATIVE, ISTIO, ISTIO_NATIVE, ISTIO_TPROXY, KUMA, LINKERD};
use others::{DOCKER, FIREWALL, FIREWALL_NATIVE, KUBE_PROXY, KUBE_PROXY_NATIVE, RARE, RARE_NATIVE, SEVERAL};

/// Rules of one program.
pub struct Rules {
    pub name: &'static str,
    /// For `nft -f`.
    pub nft: &'static str,
    /// For `iptables-restore`, and for `ip6tables-restore`. In the latter, LOOPBACK is ::1/128 and so on.
    pub iptables: &'static str,
    /// Whether the rules are for IPv6 too.
    pub ipv6: bool,
    /// Arguments of `ip`, one command a line.
    pub ip: &'static str,
}

const fn nft(name: &'static str, nft: &'static str) -> Rules {
    Rules {
        name,
        nft,
        iptables: "",
        ipv6: false,
        ip: "",
    }
}

const fn iptables(name: &'static str, iptables: &'static str) -> Rules {
    Rules {
        name,
        nft: "",
        iptables,
        ipv6: true,
        ip: "",
    }
}

const fn iptables_v4(name: &'static str, text: &'static str) -> Rules {
    Rules {
        ipv6: false,
        ..iptables(name, text)
    }
}

pub const ALL: &[Rules] = &[
    iptables("istio with DNS capture", ISTIO),
    Rules {
        ip: "rule add fwmark 1337 lookup 133\nroute add local default dev lo table 133\n\
             -6 rule add fwmark 1337 lookup 133\n-6 route add local default dev lo table 133\n",
        ..iptables("istio with TPROXY", ISTIO_TPROXY)
    },
    nft("istio's native nftables", ISTIO_NATIVE),
    iptables("istio's ambient mode", AMBIENT),
    nft("istio's ambient mode in nftables", AMBIENT_NATIVE),
    iptables("linkerd", LINKERD),
    iptables("kuma", KUMA),
    iptables("consul", CONSUL),
    nft("consul's nftables", CONSUL_NATIVE),
    iptables_v4("docker", DOCKER),
    iptables_v4("kube-proxy", KUBE_PROXY),
    nft("kube-proxy's nftables", KUBE_PROXY_NATIVE),
    iptables("a firewall of iptables", FIREWALL),
    nft("a firewall of nftables", FIREWALL_NATIVE),
    nft("chains at the same hook", SEVERAL),
    iptables("rarer matches and targets of iptables", RARE),
    nft("rarer statements of nftables", RARE_NATIVE),
];
