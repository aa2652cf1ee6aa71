//! The table of cases: options of `sidetrack apply`, and where connections land with them.
//!
//! One table feeds every kind of test. Each row is tried over IPv4 and IPv6 unless it names one. Besides its own rows,
//! each case has those of [`always`].

mod combined;
mod general;
mod inbound;
mod outbound;
mod owners;

use sidetrack::types::{Families, Family};

use crate::common::{Caller, Owner, To};

/// Options, and their effect.
pub struct Case {
    pub name: &'static str,
    /// The options, without `--backend`.
    pub args: &'static [&'static str],
    /// The rows of this case alone.
    pub expect: &'static [Expect],
    /// Users and groups that are the proxy, with these options.
    pub proxy: &'static [Owner],
    /// Where captured inbound connections go.
    pub inbound_port: u16,
    /// Where captured outbound connections go.
    pub outbound_port: u16,
    /// The families that are redirected; in the other one nothing is captured.
    pub families: Families,
    /// Where the proxy lands when it calls port 8080 of the pod by the pod's address.
    pub self_call: Landing,
    /// Whether the proxy connects to the app from 127.0.0.6 and ::6.
    pub passthrough: bool,
}

/// A row: a connection, and where it lands.
#[derive(Clone, Copy, Debug)]
pub struct Expect {
    pub what: &'static str,
    pub caller: Caller,
    pub to: To,
    pub landing: Landing,
    /// The family, if the row holds in one alone.
    pub family: Option<Family>,
}

/// Where a connection lands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Landing {
    /// At the proxy's inbound port.
    Inbound,
    /// At the proxy's outbound port.
    Outbound,
    /// Where it was meant to go.
    Untouched,
}

/// The options left at their defaults: cases write down what differs.
const DEFAULT: Case = Case {
    name: "defaults",
    args: &[],
    expect: &[],
    proxy: &[
        Owner::PROXY,
        Owner::new(Owner::PROXY.uid, Owner::APP.gid),
        Owner::new(Owner::APP.uid, Owner::PROXY.gid),
    ],
    inbound_port: 15006,
    outbound_port: 15001,
    families: Families::Both,
    self_call: Landing::Inbound,
    passthrough: true,
};

/// The ports that both sides listen on: the proxy's, the mesh's, and all that rows dial.
pub const PORTS: &[u16] = &[
    22, 53, 80, 443, 3306, 4140, 4143, 4191, 4567, 4568, 7999, 8000, 8050, 8080, 8100, 8101, 9090, 15001, 15006, 15008,
    15020, 15021, 15090, 16001, 16006, 20000,
];

/// Options whose rules are compared like those of the cases; other tests send their packets.
const RULES_ALONE: &[(&str, &[&str])] = &[
    ("tproxy", &["--inbound-mode", "tproxy"]),
    (
        "tproxy with other numbers",
        &[
            "--inbound-mode",
            "tproxy",
            "--tproxy-mark",
            "0x578",
            "--tproxy-route-table",
            "200",
            "--include-inbound-ports",
            "80,8000-8080",
            "--exclude-interfaces",
            "eth1",
            "--ip-family",
            "ipv4",
        ],
    ),
    (
        "tproxy with a marked proxy",
        &["--inbound-mode", "tproxy", "--proxy-mark", "77", "--proxy-gid", ""],
    ),
    (
        "lookups of a marked proxy",
        &["--proxy-mark", "77", "--redirect-dns", "--dns-servers", "10.96.0.10"],
    ),
    (
        "lookups of a proxy known by its mark alone",
        &[
            "--proxy-mark",
            "77",
            "--proxy-uid",
            "",
            "--proxy-gid",
            "",
            "--redirect-dns",
            "--dns-servers",
            "all",
        ],
    ),
    ("bound interfaces", &["--bound-interfaces", "eth0,eth1"]),
    ("every lookup", &["--redirect-dns", "--dns-servers", "all"]),
    (
        "lookups of servers of both families",
        &[
            "--redirect-dns",
            "--dns-servers",
            "10.96.0.10,10.96.0.11,2001:db8::a",
            "--dns-port",
            "5353",
            "--exclude-uids",
            "7,9",
            "--exclude-outbound-ports-for-uids",
            "udp:53:3000-3010",
        ],
    ),
    (
        "lookups of two groups to several servers",
        &[
            "--redirect-dns",
            "--dns-servers",
            "10.96.0.10,10.96.0.11,10.96.0.12,2001:db8::a,2001:db8::b",
            "--include-gids",
            "2000,3000",
        ],
    ),
    (
        "lookups of Consul's DNS despite exclusions",
        &[
            "--mesh",
            "consul",
            "--redirect-dns",
            "--ip-family",
            "auto",
            "--exclude-outbound-ports",
            "53,8200",
            "--exclude-uids",
            "5996",
        ],
    ),
    (
        "only two groups",
        &["--include-gids", "2000,3000", "--exclude-gids", "2000"],
    ),
    (
        "rerouted interfaces",
        &[
            "--reroute-interfaces",
            "tap0,docker0",
            "--redirect-dns",
            "--dns-servers",
            "all",
            "--exclude-outbound-cidrs",
            "10.0.0.0/8,fd00::/8",
        ],
    ),
    ("proxy only", &["--outbound-policy", "proxy-only"]),
    (
        "proxy only with holes",
        &[
            "--outbound-policy",
            "proxy-only",
            "--allow-dns",
            "--dns-servers",
            "10.96.0.10,2001:db8::a",
            "--redirect-dns",
            "--ip-family",
            "ipv4",
            "--exclude-outbound-ports",
            "22,8100-8101",
            "--exclude-outbound-cidrs",
            "10.0.0.0/8,fd00::/8",
            "--exclude-uids",
            "7,9",
            "--exclude-outbound-ports-for-uids",
            "udp:123:3000",
            "--exclude-interfaces",
            "eth1",
        ],
    ),
    (
        "proxy only in both directions",
        &[
            "--outbound-policy",
            "proxy-only",
            "--inbound-policy",
            "proxy-only",
            "--exclude-inbound-ports",
            "22",
            "--exclude-inbound-cidrs",
            "10.0.0.0/8,fd00::/8",
            "--reroute-interfaces",
            "tap0,docker0",
        ],
    ),
    (
        "proxy only inbound with tproxy",
        &["--inbound-policy", "proxy-only", "--inbound-mode", "tproxy"],
    ),
    ("invalid packets", &["--drop-invalid"]),
    (
        "invalid packets with tproxy",
        &["--drop-invalid", "--inbound-mode", "tproxy"],
    ),
];

/// The options of every case, and those whose rules alone are compared: each with a name.
pub fn all_options() -> impl Iterator<Item = (&'static str, &'static [&'static str])> {
    all()
        .map(|case| (case.name, case.args))
        .chain(RULES_ALONE.iter().copied())
}

/// Every case.
pub fn all() -> impl Iterator<Item = &'static Case> {
    [
        inbound::CASES,
        outbound::CASES,
        owners::CASES,
        general::CASES,
        combined::CASES,
    ]
    .into_iter()
    .flatten()
}

const fn row(what: &'static str, caller: Caller, to: To, landing: Landing) -> Expect {
    Expect {
        what,
        caller,
        to,
        landing,
        family: None,
    }
}

impl Expect {
    /// The same row for IPv4 alone.
    const fn v4(self) -> Self {
        Self {
            family: Some(Family::V4),
            ..self
        }
    }

    /// The same row for IPv6 alone.
    const fn v6(self) -> Self {
        Self {
            family: Some(Family::V6),
            ..self
        }
    }
}

impl Case {
    /// The rows of a family: the case's own, and those that hold in every case.
    pub fn rows(&self, family: Family) -> Vec<Expect> {
        let mut rows = self.always();
        rows.extend(self.expect);
        rows.retain(|row| row.family.is_none_or(|only| only == family) && row.to.address(family).is_some());
        if !self.families.contains(family) {
            // Nothing of this family is captured. The address that the proxy would pass traffic on from is not needed.
            rows.retain(|row| family == Family::V4 || !matches!(row.caller, Caller::Passthrough(_)));
            rows.iter_mut().for_each(|row| row.landing = Landing::Untouched);
        }
        rows
    }

    fn always(&self) -> Vec<Expect> {
        use Caller::{App, Passthrough, Sender};
        use Landing::Untouched;
        let mut rows = vec![
            row(
                "the app calls itself by the pod's address",
                App,
                To::Pod(8080),
                Untouched,
            ),
            row("the app calls itself by loopback", App, To::Loopback(8080), Untouched),
            row(
                "root calls the app by loopback",
                Caller::Root,
                To::Loopback(8080),
                Untouched,
            ),
        ];
        for &owner in self.proxy {
            let proxy = Sender(owner);
            rows.extend([
                row("the proxy calls a neighbour", proxy, To::Peer(9090), Untouched),
                row("the proxy calls a host far away", proxy, To::Far(443), Untouched),
                row(
                    "the proxy calls the app by loopback",
                    proxy,
                    To::Loopback(8080),
                    Untouched,
                ),
                row(
                    "the proxy calls the pod's address",
                    proxy,
                    To::Pod(8080),
                    self.self_call,
                ),
            ]);
            let passed_on = row(
                "the proxy passes a connection on",
                Passthrough(owner),
                To::Pod(8080),
                Untouched,
            );
            rows.extend(self.passthrough.then_some(passed_on));
        }
        rows
    }
}
