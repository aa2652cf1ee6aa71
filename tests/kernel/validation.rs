//! The validation that the rules redirect, run as the proxy's user inside a pod.

use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use sidetrack::plan::PASSTHROUGH_V4;
use sidetrack::probe::validation::{Validation, ValidationError};
use sidetrack::types::{Families, Family, Port};

use crate::common::{Netns, Owner, Server};
use crate::program::{BACKENDS, apply, feed};

/// How long a validation takes that proves nothing.
const SHORT: Duration = Duration::from_secs(1);
/// How long one may take that ends by itself, on a busy machine.
const LONG: Duration = Duration::from_secs(60);

fn validation(families: Families) -> Validation {
    let port = |number| Port::new(number).expect("a port");
    Validation {
        inbound_port: port(15006),
        outbound_port: port(15001),
        probe_port: port(15002),
        timeout: LONG,
        families,
        v4_destination: PASSTHROUGH_V4,
    }
}

fn run_as(netns: &Netns, owner: Owner, validation: &Validation) -> Result<(), ValidationError> {
    netns.run(|| {
        owner.assume().expect("another user");
        for _ in 0..20 {
            match validation.run() {
                // Processes that other tests fork hold the listeners of the run before until they execute a program.
                Err(ValidationError::Taken(_)) => thread::sleep(Duration::from_millis(10)),
                result => return result,
            }
        }
        validation.run()
    })
}

fn run(netns: &Netns, families: Families) -> Result<(), ValidationError> {
    run_as(netns, Owner::PROXY, &validation(families))
}

/// Runs a validation that proves nothing.
fn run_in_vain(netns: &Netns, owner: Owner, families: Families) -> Result<(), ValidationError> {
    let validation = Validation {
        timeout: SHORT,
        ..validation(families)
    };
    run_as(netns, owner, &validation)
}

#[track_caller]
fn fails(result: Result<(), ValidationError>, said: &[&str]) {
    let error = result.expect_err("a failure").to_string();
    for text in said {
        assert!(error.contains(text), "{text:?} is not said in {error}");
    }
}

#[test]
fn rules_of_each_backend_and_mode_pass() {
    let modes: [&[&str]; 2] = [&[], &["--inbound-mode", "tproxy"]];
    for (backend, mode) in BACKENDS.iter().flat_map(|backend| modes.map(|mode| (backend, mode))) {
        let netns = Netns::new();
        apply(&netns, backend, mode);
        for families in [Families::Both, Families::Only(Family::V4), Families::Only(Family::V6)] {
            run(&netns, families).unwrap_or_else(|error| panic!("{backend} {mode:?}: {error}"));
        }
    }
}

#[test]
fn one_port_for_both_directions_passes() {
    let netns = Netns::new();
    apply(&netns, "nftables", &[]);
    let both = validation(Families::Both);
    let one_port = Validation {
        outbound_port: both.inbound_port,
        ..both
    };
    run_as(&netns, Owner::PROXY, &one_port).expect("redirected");
}

#[test]
fn validation_without_rules_fails_after_the_timeout() {
    let netns = Netns::new();
    let result = run_in_vain(&netns, Owner::PROXY, Families::Both);
    fails(
        result,
        &[
            "127.0.0.6:15002",
            "1s",
            "Connection refused",
            "rules are missing",
            "user 1337 in group 1337",
        ],
    );
}

#[test]
fn validation_waits_for_late_rules() {
    let netns = Netns::new();
    thread::scope(|scope| {
        let result = scope.spawn(|| run(&netns, Families::Both));
        thread::sleep(Duration::from_millis(300));
        apply(&netns, "nftables", &[]);
        result.join().expect("no panic").expect("redirected");
    });
}

#[test]
fn other_user_is_reported_as_not_redirected() {
    let netns = Netns::new();
    apply(&netns, "nftables", &[]);
    let result = run_in_vain(&netns, Owner::APP, Families::Both);
    fails(result, &["user 1000 in group 1000", "run this as the proxy's user"]);
}

#[test]
fn validation_names_the_family_that_is_not_redirected() {
    let netns = Netns::new();
    apply(&netns, "nftables", &["--ip-family", "ipv4"]);
    run(&netns, Families::Only(Family::V4)).expect("redirected");
    fails(run_in_vain(&netns, Owner::PROXY, Families::Both), &["[::6]:15002"]);
    let netns = Netns::new();
    apply(&netns, "nftables", &["--ip-family", "ipv6"]);
    run(&netns, Families::Only(Family::V6)).expect("redirected");
    fails(run_in_vain(&netns, Owner::PROXY, Families::Both), &["127.0.0.6:15002"]);
}

#[test]
fn listening_proxy_is_reported() {
    let netns = Netns::new();
    apply(&netns, "nftables", &[]);
    for (port, families, address) in [
        (15001, Families::Both, "127.0.0.1:15001 is taken"),
        (15006, Families::Both, "127.0.0.1:15006 is taken"),
        (15006, Families::Only(Family::V6), "[::1]:15006 is taken"),
    ] {
        let _proxy = Server::start(&netns, "proxy", Owner::PROXY, &[port]);
        fails(run(&netns, families), &[address, "before the proxy starts"]);
    }
}

#[test]
fn disabled_ipv6_is_reported() {
    let netns = Netns::new();
    netns
        .run(|| std::fs::write("/proc/sys/net/ipv6/conf/lo/disable_ipv6", "1"))
        .expect("a sysctl");
    fails(run(&netns, Families::Both), &["[::1]:15006", "leave the family out"]);
}

#[test]
fn foreign_listener_on_the_probe_port_does_not_make_validation_pass() {
    let netns = Netns::new();
    let _app = Server::start(&netns, "app", Owner::APP, &[15002]);
    fails(
        run_in_vain(&netns, Owner::PROXY, Families::Only(Family::V4)),
        &["something else listens there"],
    );
}

#[test]
fn firewall_drops_are_distinguished_from_missing_rules() {
    let netns = Netns::new();
    let drop = "table inet firewall { chain output { type filter hook output priority 0; tcp dport 15002 drop; }; }";
    feed(&netns, "nft", &["-f", "-"], drop);
    fails(run_in_vain(&netns, Owner::PROXY, Families::Both), &["no answer"]);
}

#[test]
fn foreign_connections_to_proxy_ports_are_ignored() {
    let netns = Netns::new();
    let done = AtomicBool::new(false);
    let stranger = || {
        let mut connections = 0;
        while !done.load(Ordering::Relaxed) {
            let proxy = SocketAddr::from(([127, 0, 0, 1], 15006));
            connections += usize::from(TcpStream::connect(proxy).is_ok());
            thread::sleep(Duration::from_millis(10));
        }
        connections
    };
    thread::scope(|scope| {
        let connections = scope.spawn(|| netns.run(stranger));
        let result = run_in_vain(&netns, Owner::PROXY, Families::Both);
        done.store(true, Ordering::Relaxed);
        fails(result, &["no connection to 127.0.0.6:15002"]);
        assert!(connections.join().expect("no panic") > 0);
    });
}

/// Rewrites packets on their own, as a program at the socket layer could, so that connections are not known to be
/// redirected.
fn rewrite(priority: i32) -> String {
    format!(
        "table ip other {{ chain output {{ type filter hook output priority {priority};
            ip daddr 127.0.0.6 tcp dport 15002 ip daddr set 127.0.0.1 tcp dport set 15006
            ip saddr 127.0.0.1 tcp sport 15006 ip saddr set 127.0.0.6 tcp sport set 15002
        }}; }}"
    )
}

#[test]
fn missing_original_destination_is_reported() {
    let netns = Netns::new();
    feed(&netns, "nft", &["-f", "-"], &rewrite(-301));
    fails(
        run(&netns, Families::Only(Family::V4)),
        &[
            "127.0.0.1:15006 without its original destination",
            "Remove the other redirection",
        ],
    );
}

#[test]
fn changed_original_destination_is_reported() {
    let netns = Netns::new();
    let tracked = "table ip tracking { chain output { type filter hook output priority 0; ct state new accept; }; }\n";
    feed(&netns, "nft", &["-f", "-"], &[tracked, &rewrite(-301)].concat());
    fails(
        run(&netns, Families::Only(Family::V4)),
        &["as if it was meant for 127.0.0.1:15006", "Remove the other redirection"],
    );
}
