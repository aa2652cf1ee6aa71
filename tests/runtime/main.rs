//! The node installer, container runtimes, images, and hosts that systemd boots. Needs root.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on should say so and stop"
)]

// Shared with other targets, each of which uses a part of it.
#[expect(dead_code, reason = "other targets use the rest")]
#[path = "../common/cni.rs"]
mod cni;
#[expect(dead_code, unused_imports, reason = "other targets use the rest")]
#[path = "../common/mod.rs"]
mod common;
#[expect(dead_code, reason = "other targets use the rest")]
#[path = "../common/program.rs"]
mod program;
#[expect(dead_code, reason = "other targets use the rest")]
#[path = "../common/sandbox.rs"]
mod sandbox;

mod charts;
mod containers;
mod host;
mod installer;
mod manifests;

/// The program under test.
const SIDETRACK: &str = env!("CARGO_BIN_EXE_sidetrack");
