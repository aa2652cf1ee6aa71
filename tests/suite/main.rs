//! The tests that meet the kernel. They need root.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on should say so and stop"
)]

#[path = "../cases/mod.rs"]
mod cases;
mod cli;
mod cni;
#[path = "../common/mod.rs"]
mod common;
mod concurrency;
mod containment;
mod costs;
mod dns;
mod envoy;
mod faults;
mod golden;
mod groups;
mod istio;
mod layering;
mod lifecycle;
mod load;
mod machines;
mod neighbours;
mod parity;
mod program;
mod random;
mod readme;
mod refusal;
mod regressions;
mod reroute;
mod routing;
mod sandbox;
mod tproxy;
mod traffic;
mod validation;

/// The program under test.
const SIDETRACK: &str = env!("CARGO_BIN_EXE_sidetrack");
