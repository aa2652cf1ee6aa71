//! Real connections: every case of the table, on every backend, over IPv4 and IPv6.

use std::net::SocketAddr;

use sidetrack::types::Family;

use crate::SIDETRACK;
use crate::cases::{self, Case, Expect, Landing};
use crate::common::{Arrival, Call, Caller, Owner, Pod, Server, To, Transport, call, output_of};

/// A pod and its neighbour, listening on every port that is dialled.
pub struct Lab {
    pub pod: Pod,
    _servers: [Server; 2],
}

impl Lab {
    pub fn new() -> Self {
        let pod = Pod::new();
        let servers = [
            Server::start(&pod.netns, "pod", Owner::ROOT, cases::PORTS),
            Server::start(&pod.peer, "peer", Owner::ROOT, cases::PORTS),
        ];
        Self { pod, _servers: servers }
    }

    fn apply(&self, args: &[&str]) {
        let netns = self.pod.netns.path();
        output_of(
            std::process::Command::new(SIDETRACK)
                .arg("apply")
                .arg("--netns")
                .arg(netns)
                .args(args),
        );
    }

    /// Every row of a case that does not hold, with what happened instead.
    pub fn wrong(&self, case: &Case) -> Vec<(Expect, String)> {
        let rows = Family::BOTH
            .into_iter()
            .flat_map(|family| case.rows(family).into_iter().map(move |row| (family, row)));
        rows.filter_map(|(family, row)| {
            let error = self.check(case, &row, family).err()?;
            let Expect {
                what,
                caller,
                to,
                landing,
                ..
            } = row;
            Some((
                row,
                format!(
                    "{}: {family}: {what} ({caller:?} to {to:?}): not {landing:?}: {error}",
                    case.name
                ),
            ))
        })
        .collect()
    }

    fn check(&self, case: &Case, row: &Expect, family: Family) -> Result<(), String> {
        let (server, port) = match row.landing {
            Landing::Inbound => ("pod", case.inbound_port),
            Landing::Outbound => ("pod", case.outbound_port),
            Landing::Untouched => (server(row.to), row.to.port()),
        };
        let call = call(&self.pod, Transport::Tcp, row.caller, row.to, family).map_err(|error| error.to_string())?;
        saw_the_caller(&call, server, port, row.to.address(family))
    }

    /// UDP arrives where it was sent, from the port that it was sent from, and so does the answer.
    fn check_udp(&self) {
        let calls = [
            (Caller::App, To::Peer(9090)),
            (Caller::App, To::Pod(8080)),
            (Caller::App, To::Loopback(8080)),
            (Caller::Proxy, To::Pod(8080)),
            (Caller::Peer, To::Pod(8080)),
        ];
        for (family, (caller, to)) in Family::BOTH
            .into_iter()
            .flat_map(|family| calls.map(|call| (family, call)))
        {
            let made = call(&self.pod, Transport::Udp, caller, to, family);
            let seen = made
                .map_err(|error| error.to_string())
                .and_then(|call| saw_the_caller(&call, server(to), to.port(), None));
            seen.unwrap_or_else(|error| panic!("{family}: UDP, {caller:?} to {to:?}: {error}"));
        }
    }
}

fn server(to: To) -> &'static str {
    if to.is_pod() { "pod" } else { "peer" }
}

/// The server on this port saw the caller as it is, and where it wanted to go.
fn saw_the_caller(call: &Call, server: &str, port: u16, original: Option<SocketAddr>) -> Result<(), String> {
    // Two callers to different ports may have the same port of their own. Where both are redirected to one place, the
    // kernel gives the second another.
    let seen = call.arrival.as_ref().map(|arrival| arrival.client);
    let client = seen.filter(|client| original.is_some() && client.ip() == call.local.ip());
    let expected = Arrival {
        server: server.to_owned(),
        port,
        original,
        client: client.unwrap_or(call.local),
    };
    if call.arrival.as_ref() == Some(&expected) {
        Ok(())
    } else {
        Err(format!("{call:?}, not {expected:?}"))
    }
}

fn each_case_holds(backend: &str) {
    let mut wrong = Vec::new();
    for case in cases::all() {
        let lab = Lab::new();
        lab.apply(&[case.args, &["--backend", backend]].concat());
        lab.check_udp();
        wrong.extend(lab.wrong(case).into_iter().map(|(_, error)| error));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn each_case_holds_with_nftables() {
    each_case_holds("nftables");
}

#[test]
fn each_case_holds_with_nftables_per_family() {
    each_case_holds("nftables-per-family");
}

#[test]
fn each_case_holds_with_iptables_nft() {
    each_case_holds("iptables-nft");
}

#[test]
fn each_case_holds_with_iptables_legacy() {
    each_case_holds("iptables-legacy");
}

/// A row that expects capture does not hold without rules.
#[test]
fn without_rules_only_the_rows_that_expect_capture_fail() {
    let lab = Lab::new();
    lab.pod.netns.ip("addr add ::6/128 dev lo");
    for case in cases::all() {
        let expected = Family::BOTH.iter().flat_map(|family| case.rows(*family));
        let expected = expected.filter(|row| row.landing != Landing::Untouched).count();
        let wrong = lab.wrong(case);
        assert!(
            wrong.iter().all(|(row, _)| row.landing != Landing::Untouched),
            "{wrong:#?}"
        );
        assert_eq!(wrong.len(), expected, "{}", case.name);
    }
}

/// Every case fails with default options.
#[test]
fn each_case_fails_under_the_default_rules() {
    const SAME: [&str; 3] = ["defaults", "both families", "the options that an injector writes"];
    let lab = Lab::new();
    lab.apply(&[]);
    for case in cases::all() {
        let wrong = lab.wrong(case);
        assert_eq!(wrong.is_empty(), SAME.contains(&case.name), "{}: {wrong:#?}", case.name);
    }
}
