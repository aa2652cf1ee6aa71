//! Flags of other tools that sidetrack does not accept, and their replacements. `docs/migration.md` lists them too.

use super::istio::front_end::table::SETTINGS;

/// A flag of another tool that sidetrack does not accept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerFlag {
    /// The tool.
    pub program: &'static str,
    /// The flag, with its hyphens.
    pub flag: &'static str,
    /// The flag to use instead; empty if there is none.
    pub instead: &'static str,
    /// A note; may be empty.
    pub note: &'static str,
}

/// Any flag of Istio's program.
const ISTIO: PeerFlag = PeerFlag {
    program: "istio-iptables",
    flag: "",
    instead: "sidetrack istio-iptables",
    note: "it takes the flags of Istio's program",
};

impl PeerFlag {
    /// The error and the hint for a use of this flag.
    pub fn advice(&self, flag: &str) -> (String, String) {
        let Self {
            program, instead, note, ..
        } = self;
        let hint = match (*instead, *note) {
            ("", note) => format!("leave it out: {note}"),
            (instead, "") => format!("use {instead}"),
            (instead, note) => format!("use {instead}: {note}"),
        };
        (format!("{flag} is a flag of {program}"), hint)
    }
}

/// The flag of another tool of this name, with its hyphens.
pub fn find(flag: &str) -> Option<PeerFlag> {
    let of_istio = || {
        let name = flag.strip_prefix("--")?;
        let mut settings = SETTINGS.iter().filter(|setting| setting.has_flag());
        settings.find(|setting| setting.name == name).map(|_| ISTIO)
    };
    PEER_FLAGS
        .iter()
        .find(|peer| peer.flag == flag)
        .copied()
        .or_else(of_istio)
}

macro_rules! flags {
    ($($program:literal { $($flag:literal => $instead:literal, $note:literal;)* })*) => {
        /// The flags of Linkerd, Kuma and Consul.
        pub const PEER_FLAGS: &[PeerFlag] = &[$($(PeerFlag {
            program: $program,
            flag: $flag,
            instead: $instead,
            note: $note,
        },)*)*];
    };
}

flags! {
    "linkerd2-proxy-init" {
        "--ipv6" => "--ip-family", "`--ipv6=false` is `--ip-family ipv4`, without it `auto`";
        "--iptables-mode" => "--backend", "`legacy` is `iptables-legacy`; nftables needs no iptables";
        "--firewall-bin-path" => "", "iptables is looked for in `PATH`";
        "--firewall-save-bin-path" => "", "Linkerd ignores it too";
        "--use-wait-flag" => "", "legacy iptables always waits, for ten seconds";
    }
    "kumactl install transparent-proxy" {
        "--redirect-all-dns-traffic" => "--dns-servers", "`--redirect-dns --dns-servers all`";
        "--ip-family-mode" => "--ip-family", "`dualstack` is `auto`";
        "--vnet" => "--reroute-interfaces", "names of interfaces, without CIDR";
        "--skip-dns-conntrack-zone-split" => "", "answers to queries need the zones";
        "--iptables-executables" => "--backend", "iptables is looked for in `PATH`";
        "--iptables-logs" => "", "`sidetrack explain` shows the path of a packet";
        "--disable-comments" => "", "left out where the kernel lacks them";
        "--wait" => "", "legacy iptables waits for ten seconds";
        "--wait-interval" => "", "legacy iptables waits for ten seconds";
        "--max-retries" => "", "a transaction that another process disturbs is planned again";
        "--sleep-between-retries" => "", "a transaction that another process disturbs is planned again";
        "--redirect-inbound-insert-instead-of-append" => "", "sidetrack has its own chain, before those at priority −100";
        "--redirect-outbound-insert-instead-of-append" => "", "sidetrack has its own chain, before those at priority −100";
        "--store-firewalld" => "", "`sidetrack apply --persist` makes rules last";
    }
    "consul connect redirect-traffic" {
        "-proxy-uid" => "--proxy-uid", "with two hyphens; give `--mesh consul` for the other defaults";
        "-proxy-inbound-port" => "--proxy-inbound-port", "with two hyphens";
        "-proxy-outbound-port" => "--proxy-outbound-port", "with two hyphens";
        "-exclude-inbound-port" => "--exclude-inbound-ports", "a list, or repeated; a range is `a-b`, and names of services are refused";
        "-exclude-outbound-port" => "--exclude-outbound-ports", "a list, or repeated; a range is `a-b`, and names of services are refused";
        "-exclude-outbound-cidr" => "--exclude-outbound-cidrs", "a list, or repeated";
        "-exclude-uid" => "--exclude-uids", "a list with ranges, or repeated";
        "-netns" => "--netns", "with two hyphens";
        "-consul-dns-ip" => "--dns-servers", "with `--redirect-dns`, where it is 127.0.0.1 or ::1: redirection reaches no other host, as in Nomad";
        "-consul-dns-port" => "--dns-port", "8600 with `--mesh consul`";
        "-proxy-id" => "", "it asks an agent for the ports: give them as options";
    }
}
