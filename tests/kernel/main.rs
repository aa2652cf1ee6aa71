//! The tests that meet the kernel. They need root.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on should say so and stop"
)]

mod bench;
#[path = "../cases/mod.rs"]
mod cases;
mod check;
mod cli;
mod cni;
#[path = "../common/mod.rs"]
mod common;
mod concurrency;
mod containment;
mod costs;
mod dns;
mod docs;
mod envoy;
mod explain;
mod faults;
mod generated;
mod golden;
mod graph;
mod groups;
mod help;
mod host;
mod istio;
mod layering;
mod lifecycle;
mod lint;
mod load;
mod machines;
mod manifests;
mod neighbours;
mod node;
mod parity;
mod probe;
mod program;
mod random;
mod readback;
mod readme;
mod refusal;
mod regressions;
mod reroute;
mod routing;
mod runtimes;
mod sandbox;
mod tproxy;
mod traffic;
mod validation;

/// The program under test.
const SIDETRACK: &str = env!("CARGO_BIN_EXE_sidetrack");
