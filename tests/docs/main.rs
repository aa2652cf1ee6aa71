//! README.md and `docs` match the program: commands are run, tables compared. Needs root.
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
#[path = "../common/plans.rs"]
mod plans;
#[expect(dead_code, reason = "other targets use the rest")]
#[path = "../common/program.rs"]
mod program;
#[path = "../common/questions.rs"]
mod questions;

mod commands;
mod explain;
mod kubectl;
mod links;
mod migration;
mod node;
mod page;
mod readme;
mod reference;
mod shell;
mod stats;
mod trace;

/// The program under test.
const SIDETRACK: &str = env!("CARGO_BIN_EXE_sidetrack");
