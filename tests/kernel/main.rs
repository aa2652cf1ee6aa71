//! Rules and traffic, in the kernel of this machine. Needs root.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on should say so and stop"
)]

// Shared with other targets, each of which uses a part of it.
#[path = "../cases/mod.rs"]
mod cases;
#[expect(dead_code, unused_imports, reason = "other targets use the rest")]
#[path = "../common/mod.rs"]
mod common;
#[path = "../common/plans.rs"]
mod plans;
#[path = "../common/program.rs"]
mod program;
#[path = "../common/questions.rs"]
mod questions;
#[path = "../common/random.rs"]
mod random;
#[path = "../common/rules.rs"]
mod rules;
#[path = "../common/sandbox.rs"]
mod sandbox;
#[path = "../common/temporary.rs"]
mod temporary;

mod benchmark;
mod bound;
mod check;
mod cli;
mod cni;
mod concurrency;
mod counters;
mod dns;
mod dry_run;
mod envoy;
mod explain;
mod faults;
mod firewall;
mod foreign_cleanup;
mod foreign_writers;
mod front_ends;
mod groups;
mod half_closed;
mod iptables;
mod istio;
mod kuma;
mod lifecycle;
mod linkerd;
mod load;
mod lock;
mod marks;
mod minimal_container;
mod namespaces;
mod neighbours;
mod netlink_faults;
mod netlink_sockets;
mod output;
mod per_family;
mod policy;
mod privilege;
mod probe;
mod proxy_cgroup;
mod proxy_mark;
mod published_ports;
mod random_options;
mod readback;
mod refusal;
mod regressions;
mod reroute;
mod restricted_environment;
mod routing;
mod running;
mod source_ports;
mod system_calls;
mod tproxy;
mod trace;
mod traffic;
mod validation;
mod without_ipv6;

/// The program under test.
const SIDETRACK: &str = env!("CARGO_BIN_EXE_sidetrack");
