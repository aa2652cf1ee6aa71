//! The program and its library, without root and without a network namespace.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on should say so and stop"
)]

// Shared with other targets, each of which uses a part of it.
#[expect(dead_code, reason = "other targets use the rest")]
#[path = "../cases/mod.rs"]
mod cases;
#[expect(dead_code, unused_imports, reason = "other targets use the rest")]
#[path = "../common/mod.rs"]
mod common;
#[path = "../common/generated.rs"]
mod generated;
#[path = "../../packaging/man/pages.rs"]
mod man;
#[path = "../common/plans.rs"]
mod plans;
#[expect(dead_code, reason = "other targets use the rest")]
#[path = "../common/program.rs"]
mod program;
#[path = "../common/random.rs"]
mod random;
#[path = "../common/rules.rs"]
mod rules;
#[path = "../common/temporary.rs"]
mod temporary;

mod decoding;
mod explain_packets;
mod explain_pod;
mod front_end_policies;
mod golden;
mod graph;
mod help;
mod istio_cases;
mod istio_iptables;
mod istio_template;
mod kuma_init;
mod layering;
mod linkerd_proxy_init;
mod lint;
mod monitoring;
mod options;
mod per_family;
mod policy;
mod random_options;
mod readback;
mod record;
mod recorded_verdicts;
mod release;
mod repository;
mod saved_plans;
mod schemas;

/// The program under test.
const SIDETRACK: &str = env!("CARGO_BIN_EXE_sidetrack");
